"""The network's faults, each named as it happens, met by the whole client: nothing is lost, nothing hangs."""

from __future__ import annotations

import random
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from backend import KEY
from faults import server as faulty
from faults.emitting import SLACK, Stopwatch, emit, numbers, start, wait_for
from faults.server import accepting, answering, misbehaving, refusing
from test_encode import make

import lumiqtrace
from lumiqtrace._delivery import loop


@pytest.fixture
def impatient(monkeypatch):
    """A request is given up after 0.3 s instead of 10."""
    monkeypatch.setattr(loop, "SEND_TIMEOUT", 0.3)


def settled(client, server, count):
    """All of `count` events arrived once, and the account says so."""
    assert client.flush(20)
    assert numbers(server.stored) == list(range(count))
    stats = client.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (count, count, {})


# ---- no connection, no answer ------------------------------------------------------------------------


def test_the_backend_is_down_and_comes_up():
    with refusing() as server:
        client = start(server.url)
        emit(range(50))
        wait_for(lambda: client.stats().retried >= 2)
        server.listen()
        server.wait_for(lambda: len(server.stored) == 50)
        settled(client, server, 50)


@pytest.mark.parametrize("behaviour", ["black hole", "hanging", "headers trickle", "body trickles"])
def test_a_flush_keeps_its_deadline(behaviour):
    modes = {
        "hanging": faulty.hanging,
        "headers trickle": faulty.trickling(b"HTTP/1.1 202 x\r\nx-slow: "),
        "body trickles": faulty.trickling(b"HTTP/1.1 202 x\r\ncontent-length: 100000\r\n\r\n"),
    }
    with faulty.with_full_backlog() as black_hole, misbehaving(modes.get(behaviour, accepting)) as server:
        client = start(black_hole if behaviour == "black hole" else server.url)
        watch = Stopwatch()
        emit(range(200))
        assert watch.seconds < SLACK
        assert client.flush(0.5) is False
        assert 0.5 <= watch.seconds < 0.5 + 2 * SLACK
        stats = client.stats()
        assert (stats.recorded, stats.sent, stats.dropped) == (200, 0, {})
        assert stats.queued + stats.in_flight == 200


@pytest.mark.parametrize(
    "behaviour",
    [
        faulty.hanging,
        faulty.trickling(b"HTTP/1.1 202 x\r\nx-slow: "),
        faulty.trickling(b"HTTP/1.1 202 x\r\ncontent-length: 100000\r\n\r\n"),
    ],
    ids=["never answers", "trickles its headers", "trickles its body"],
)
@pytest.mark.usefixtures("impatient")
def test_a_request_without_an_answer_is_given_up_and_repeated(behaviour):
    with misbehaving(behaviour) as server:
        client = start(server.url)
        emit(range(20))
        wait_for(lambda: client.stats().retried >= 2)
        server.behave(accepting)
        assert client.flush(20)
        assert client.stats().dropped == {}
        # On a slow machine an answer may take longer than our 0.3 s once more.
        once = {event["event_id"]: event for event in server.stored}
        assert numbers(once.values()) == list(range(20))
        assert server.connections >= 3  # one that failed is not used again


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_the_name_cannot_be_resolved(monkeypatch, fault):
    found, done = socket.getaddrinfo, threading.Event()

    def lookup(host, *args, **kwargs):
        if fault == "hangs":
            done.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("no_proxy", "*")
    with misbehaving(accepting) as server:
        client = start(f"http://collector.test:{server.port}")
        watch = Stopwatch()
        emit(range(30))
        assert client.flush(0.3) is False
        assert watch.seconds < 0.3 + 2 * SLACK
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda _host, *rest, **more: found("127.0.0.1", *rest, **more)
        )
        done.set()
        settled(client, server, 30)  # the name is there again


# ---- answers that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        faulty.saying(b"nonsense\r\n\r\n"),
        faulty.saying(b"HTTP/1.1 202 Accepted\r\nContent-Le"),
        faulty.saying(b"HTTP/1.1 202 Accepted\r\nContent-Length: 50\r\n\r\n{"),
        faulty.saying(b""),
        faulty.resetting,
        answering(502, {"content-type": "text/html"}, b"<html>Bad gateway</html>"),
    ],
    ids=["garbage", "half headers", "half body", "closed", "reset", "bad gateway"],
)
def test_what_is_no_answer_is_tried_again(behaviour):
    with misbehaving(faulty.then(behaviour, accepting)) as server:
        client = start(server.url)
        emit(range(10))
        settled(client, server, 10)
        assert client.stats().retried == 1


def test_a_page_shown_with_200_is_no_acceptance(caplog):
    """A hotel's sign-in page, or a base_url that is some web site's."""
    page = answering(200, {"content-type": "text/html"}, b"<html>Sign in to the network</html>")
    with misbehaving(page) as server:
        client = start(server.url)
        emit(range(10))
        assert client.flush(0.3) is False
        assert client.stats().sent == 0
        assert "is this the base_url of a lumiqtrace server?" in caplog.text
        server.stored.clear()
        server.behave(accepting)
        settled(client, server, 10)


def test_an_answer_that_was_lost_does_not_lose_the_events():
    """The repeated delivery has the same ids, by which a server knows it."""
    with misbehaving(faulty.then(faulty.storing_then_resetting, accepting)) as server:
        client = start(server.url)
        emit(range(10))
        assert client.flush(20)
        once = {event["event_id"]: event for event in server.stored}
        assert len(server.stored) == 20
        assert numbers(once.values()) == list(range(10))
        assert client.stats().sent == 10


@pytest.mark.parametrize("behaviour", [faulty.gzip_bomb, faulty.flooding(b"HTTP/1.1 500 x\r\n\r\n")])
def test_an_answer_without_an_end_is_not_read_to_it(behaviour):
    with misbehaving(faulty.then(behaviour, accepting)) as server:
        client = start(server.url)
        emit(range(10))
        settled(client, server, 10)


# ---- answers that refuse -----------------------------------------------------------------------------


def test_a_storm_of_500_is_not_answered_with_a_storm_of_ours():
    """However much is recorded meanwhile, and then all of it arrives."""
    with misbehaving(answering(500)) as server:
        client = start(server.url, flush_interval=0.01, batch_size=1)
        watch, count = Stopwatch(), 0
        while watch.seconds < 2.0:
            if count < 20_000:  # the queue takes no more than 50,000
                emit(range(count, count + 5))
                count += 5
            wait_for(lambda: client.stats().in_flight == 0)
        # The waits are 0.25, 0.5, 1 ... s on average; without them it were hundreds.
        assert len(server.heard) <= 15
        server.behave(accepting)
        settled(client, server, count)


@pytest.mark.parametrize("value", ["30", "1e12", "a date"])
def test_told_to_stay_away_we_do(value):
    if value == "a date":
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with misbehaving(answering(429, {"Retry-After": value})) as server:
        client = start(server.url)
        watch = Stopwatch()
        for number in range(3):
            emit([number])
            assert client.flush(1.0) is False
        assert watch.seconds < 2 * SLACK
        assert len(server.heard) == 1
        assert client.stats().dropped == {}


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "soon", ""])
def test_a_wait_that_makes_no_sense_is_our_own(value):
    with misbehaving(faulty.then(answering(503, {"Retry-After": value}), accepting)) as server:
        client = start(server.url)
        emit(range(5))
        settled(client, server, 5)
        assert client.stats().retried == 1


class Note:
    """A recording whose event is already there."""

    size = 100

    def __init__(self, number, text=""):
        self.number, self.text = number, text

    def event(self):
        return make(name=f"event {self.number}", metadata={"text": self.text})


def test_too_large_a_request_is_halved_until_it_fits():
    noise = random.Random(1)
    with misbehaving(faulty.refusing_bodies_over(10_000)) as server:
        client = start(server.url, batch_size=100, flush_interval=60)
        for number in range(60):
            client.record(Note(number, noise.randbytes(20_000 if number == 33 else 500).hex()))
        assert client.flush(20) is False  # one was given up
        assert numbers(server.stored) == [number for number in range(60) if number != 33]
        stats = client.stats()
        assert (stats.sent, stats.dropped) == (59, {"too_large": 1})


def test_a_poisoned_event_is_given_up_alone():
    with misbehaving(faulty.refusing_events_with(b"poison")) as server:
        client = start(server.url, batch_size=100, flush_interval=60)
        for number in range(60):
            client.record(Note(number, "poison" if number == 7 else ""))
        assert client.flush(20) is False
        assert numbers(server.stored) == [number for number in range(60) if number != 7]
        assert client.stats().dropped == {"rejected": 1}


def test_a_refused_key_is_not_hammered_with_and_a_new_one_helps(caplog):
    other = "lqt_" + "cd34" * 16

    def by_key(peer):
        heard = peer.hear()
        if heard is not None and heard.headers["x-api-key"] == other:
            peer.store(heard)
            peer.answer(202)
        elif heard is not None:
            peer.answer(401, body=b'{"error":"unknown key"}')

    with misbehaving(by_key) as server:
        client = start(server.url)
        for number in range(20):
            emit([number])
            client.flush(0.1)
        assert len(server.heard) <= 3
        said = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 1
        assert "refuses the API key" in said[0].getMessage()
        assert KEY not in caplog.text
        assert client.stats().dropped == {}
        new = lumiqtrace.init(other, base_url=server.url)
        emit([100])
        assert new.flush(20)
        assert numbers(server.stored) == [100]
        assert client.stats().dropped == {"shutdown": 20}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with misbehaving(accepting) as other:
        with misbehaving(faulty.redirecting(other.url + "/v1/ingest", status)) as server:
            client = start(server.url)
            emit(range(5))
            assert client.flush(20) is False
            assert client.stats().dropped == {"redirected": 5}
        assert other.connections == 0


# ---- connections that end ----------------------------------------------------------------------------


def test_a_connection_that_was_closed_meanwhile_costs_no_retry():
    with misbehaving(faulty.closing_each) as server:
        client = start(server.url)
        for number in range(5):
            emit([number])
            assert client.flush(20)
        settled(client, server, 5)
        assert client.stats().retried == 0


def test_a_connection_that_breaks_under_a_request_costs_no_retry():
    with misbehaving(accepting) as server:
        client = start(server.url)
        emit([0])
        assert client.flush(20)
        server.behave(faulty.then(faulty.resetting, accepting))
        emit([1])
        settled(client, server, 2)
        assert client.stats().retried == 0
        assert server.connections == 2


# ---- addresses that cannot be right ------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://collector.test",
        "file:///etc/passwd",
        "collector.test",
        "collector.test:4318",
        "//collector.test",
        "http://",
        "https:///v1",
        "http://[::1",
        "http://collector.test:port",
        "http://collector.test:99999",
        "https://collector.test/?key=1",
        "https://collector.test/#here",
        "",
        4318,
    ],
)
def test_an_address_that_is_none_is_refused_at_the_start(url):
    with pytest.raises(lumiqtrace.ConfigError, match=r"^base_url: .*such as 'https://api\.lumiqtrace\.com'"):
        lumiqtrace.init(KEY, base_url=url)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(lumiqtrace.ConfigError, match="pass the key as api_key instead") as caught:
        lumiqtrace.init(KEY, base_url=f"https://user:{KEY}@collector.test")
    assert KEY not in str(caught.value)
