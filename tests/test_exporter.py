"""The exporter against a loopback server that misbehaves, and against a transport without a network."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import zlib

import pytest
from backend import KEY, Answer
from test_encode import make

import lumiqtrace
from lumiqtrace._delivery.circuit import OPEN_AFTER
from lumiqtrace._delivery.exporter import Exporter
from lumiqtrace._delivery.transport import HttpTransport, Reply, TransportError
from lumiqtrace._event import Usage
from lumiqtrace._pipeline import Pipeline
from lumiqtrace._redaction.redact import Redactor


class Note:
    """A recording whose event is already there."""

    size = 100

    def __init__(self, number):
        self.number = number

    def event(self):
        return make(metadata={"number": self.number})


class Priced(Note):
    def event(self):
        return make(metadata={"number": self.number}, usage=Usage(), input_tokens=1)


class Broken(Note):
    def event(self):
        raise ValueError("no event")


def numbers(events):
    return [event["metadata"]["number"] for event in events]


class Wire:
    """A transport in memory: `replies` are given in turn, the last one for good."""

    def __init__(self, *replies):
        self.replies = list(replies) or [Reply(202, {})]
        self.sent: list[list[int]] = []
        self.closed = threading.Event()

    def send(self, body, headers, timeout):
        events = [json.loads(line) for line in zlib.decompress(body, wbits=31).split(b"\n")]
        self.sent.append(numbers(events))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = reply(events)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self):
        self.closed.set()


@pytest.fixture
def exporters():
    made = []

    def make_one(transport, **options):
        exporter = Exporter(transport, **options)
        made.append(exporter)
        return exporter

    yield make_one
    for exporter in made:
        exporter.close(0)


def submit(exporter, count, start=0):
    for number in range(start, start + count):
        exporter.submit(Note(number))


def http(backend):
    return HttpTransport(lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url))


def test_nothing_is_started_before_the_first_event(exporters):
    before = set(threading.enumerate())
    exporter = exporters(Wire())
    assert exporter.flush(1.0)
    assert set(threading.enumerate()) <= before
    assert exporter.stats().recorded == 0


def test_one_request_for_up_to_a_hundred_events(exporters, backend):
    exporter = exporters(http(backend), batch_size=100, flush_interval=60)
    submit(exporter, 99)
    assert exporter.flush(10)
    assert [len(request.events) for request in backend.requests] == [99]
    assert numbers(backend.events) == list(range(99))
    request = backend.requests[0]
    assert request.path == "/v1/ingest"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["user-agent"] == f"lumiqtrace-python/{lumiqtrace.__version__}"


def test_no_request_has_more_than_a_hundred(exporters, backend):
    exporter = exporters(http(backend), batch_size=100, flush_interval=60)
    submit(exporter, 1234)
    assert exporter.flush(10)
    assert max(len(request.events) for request in backend.requests) <= 100
    assert sorted(numbers(backend.events)) == list(range(1234))


def test_a_full_batch_leaves_without_a_flush(exporters, backend):
    exporter = exporters(http(backend), batch_size=10, flush_interval=3600)
    submit(exporter, 10)
    backend.wait_for(lambda: len(backend.events) == 10)


def test_a_full_batch_leaves_after_a_burst_too(exporters, backend):
    """A burst that the thread could not follow makes its wakes rarer; a batch does not wait for that."""
    exporter = exporters(http(backend), batch_size=10, flush_interval=3600)
    submit(exporter, 500)
    assert exporter.flush(10)
    submit(exporter, 10, start=500)
    backend.wait_for(lambda: len(backend.events) == 510)


def test_a_program_that_computes_without_a_pause_is_followed(exporters):
    """Each release of the interpreter's lock is too short for our thread, and starts its wait anew."""
    wire = Wire()
    exporter = exporters(wire, flush_interval=0.01, max_queue_events=1_000_000, max_queue_bytes=1 << 30)
    for number in range(1_000_000):
        exporter.submit(Note(number))
        os.urandom(16)
        if wire.sent:
            break
    assert wire.sent


def test_large_recordings_do_not_wait_for_a_full_batch(exporters, backend):
    exporter = exporters(http(backend), batch_size=100, flush_interval=3600)
    for number in range(2):
        note = Note(number)
        note.size = 3 * 1024 * 1024
        exporter.submit(note)
    backend.wait_for(lambda: len(backend.events) == 2)


def test_a_lonely_event_leaves_after_the_interval(exporters, backend):
    exporter = exporters(http(backend), flush_interval=0.05)
    submit(exporter, 1)
    backend.wait_for(lambda: len(backend.events) == 1)
    submit(exporter, 1, start=1)
    backend.wait_for(lambda: len(backend.events) == 2)


def test_retries_send_the_same_events_again(exporters, backend):
    answers = iter([Answer(500), Answer(503), Answer(429, {"retry-after": "0"})])
    backend.answer = lambda _request: next(answers, Answer())
    exporter = exporters(http(backend), rand=lambda: 0.02)
    submit(exporter, 3)
    assert exporter.flush(10)
    ids = [[event["event_id"] for event in request.events] for request in backend.requests]
    assert len(ids) == 4
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert exporter.stats().retried == 3


def test_the_connection_is_kept(exporters, backend):
    exporter = exporters(http(backend))
    for number in range(5):
        submit(exporter, 1, start=number)
        assert exporter.flush(10)
    assert len(backend.requests) == 5


def test_a_server_that_comes_up_late_gets_everything_once(exporters):
    wire = Wire(*[TransportError("refused")] * 3, Reply(202, {}))
    exporter = exporters(wire, rand=lambda: 0.01)
    submit(exporter, 5)
    assert exporter.flush(10)
    assert wire.sent == [[0, 1, 2, 3, 4]] * 4
    assert exporter.stats().sent == 5


def test_a_poisoned_event_is_given_up_alone(exporters):
    def refuse_seven(events):
        return Reply(400 if 7 in numbers(events) else 202, {})

    exporter = exporters(Wire(refuse_seven), batch_size=100)
    submit(exporter, 20)
    assert not exporter.flush(10)
    stats = exporter.stats()
    assert (stats.sent, stats.dropped) == (19, {"rejected": 1})
    assert exporter.flush(10), "what was lost is reported once"


def test_a_batch_too_large_is_halved_until_it_fits(exporters):
    wire = Wire(lambda events: Reply(413 if len(events) > 3 else 202, {}))
    exporter = exporters(wire, batch_size=100)
    submit(exporter, 20)
    assert exporter.flush(10)
    delivered = [batch for batch in wire.sent if len(batch) <= 3]
    assert [number for batch in delivered for number in batch] == list(range(20))


def test_lines_that_the_server_refused_are_counted(exporters):
    body = json.dumps({"accepted": 2, "errors": [{"line": 3, "error": "latency_ms: required"}]}).encode()
    exporter = exporters(Wire(Reply(202, {}, body)))
    submit(exporter, 3)
    assert not exporter.flush(10)
    stats = exporter.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (3, 2, {"rejected": 1})


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors": 5}', b"\xff\xfe"])
def test_any_body_of_a_202_will_do(exporters, body):
    exporter = exporters(Wire(Reply(202, {}, body)))
    submit(exporter, 2)
    assert exporter.flush(10)


def test_a_redirect_is_given_up(exporters):
    exporter = exporters(Wire(Reply(307, {"location": "http://elsewhere"})))
    submit(exporter, 1)
    assert not exporter.flush(10)
    assert exporter.stats().dropped == {"redirected": 1}


def test_a_refused_key_is_said_once_and_the_events_are_kept(exporters, caplog):
    wire = Wire(Reply(401, {}))
    exporter = exporters(wire, on_error=lambda _message: said.set())
    said = threading.Event()
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        for number in range(5):
            submit(exporter, 1, start=number)
            started = time.monotonic()
            assert not exporter.flush(30)
            assert time.monotonic() - started < 10, "a flush does not wait for what cannot happen"
        assert said.wait(10)
    assert len(wire.sent) == 1
    assert len([r for r in caplog.records if "API key" in r.message]) == 1
    assert exporter.stats().queued == 5


def test_flush_keeps_its_deadline_while_the_server_hangs(exporters):
    release = threading.Event()

    def hang(_events):
        release.wait(30)
        return Reply(202, {})

    exporter = exporters(Wire(hang))
    submit(exporter, 1)
    started = time.monotonic()
    try:
        assert not exporter.flush(0.3)
        assert 0.25 < time.monotonic() - started < 1.5
        assert exporter.stats().in_flight == 1
    finally:
        release.set()
    assert exporter.flush(10)


def test_a_flush_cuts_our_back_off_short_but_not_the_servers_wait(exporters):
    wire = Wire(TransportError("down"), Reply(503, {"retry-after": "200"}))
    exporter = exporters(wire, rand=lambda: 1.0, flush_interval=0.01)
    submit(exporter, 1)
    assert not exporter.flush(1.0)
    assert len(wire.sent) == 2
    assert not exporter.flush(1.0)
    assert len(wire.sent) == 2


def test_what_cannot_become_an_event_is_counted_and_the_others_arrive(exporters):
    wire = Wire()
    exporter = exporters(wire)
    exporter.submit(Broken(0))
    submit(exporter, 1, start=1)
    assert not exporter.flush(10)
    assert wire.sent == [[1]]
    stats = exporter.stats()
    assert stats.dropped == {"unreadable": 1}
    assert stats.internal_errors == 1


def test_a_long_outage_keeps_the_newest_within_the_bounds(exporters):
    up = threading.Event()

    def answer(_events):
        if up.is_set():
            return Reply(202, {})
        raise TransportError("down")

    wire = Wire(answer)
    exporter = exporters(wire, max_queue_events=1000, rand=lambda: 0.001, flush_interval=0.01)
    submit(exporter, 5000)
    assert not exporter.flush(0.3)
    stats = exporter.stats()
    assert stats.queued + stats.in_flight <= 1000
    assert stats.recorded == 5000
    assert stats.queued + stats.in_flight + stats.dropped["queue_full"] == 5000
    up.set()
    exporter.flush(10)
    delivered = wire.sent[-1]
    assert delivered[-1] == 4999, "the newest are kept"
    assert exporter.stats().sent + exporter.stats().dropped["queue_full"] == 5000


def told_of(lines, reason):
    """How many events the lines say were given up for a reason."""
    said = re.findall(rf"(\d+) events? (?:was|were) given up \({reason}\)", "\n".join(lines))
    return sum(map(int, said))


@pytest.mark.parametrize("most", [10, 1000])
def test_every_event_that_a_full_queue_gave_up_is_told_at_the_latest_at_the_end(exporters, most):
    said = []
    wire = Wire(TransportError("down"))
    exporter = exporters(wire, max_queue_events=most, rand=lambda: 0.001, on_error=said.append)
    submit(exporter, 3000)
    exporter.flush(0.2)
    submit(exporter, 500)
    exporter.close(0.1)
    exporter._worker.thread.join(10)  # it may be the one that says it
    lost = exporter.stats().dropped["queue_full"]
    assert lost >= 2500 - most
    told = [line for line in said if "given up (queue_full)" in line]
    assert told_of(told, "queue_full") == lost
    assert len(told) <= 2, "once a minute, and the rest at the end"
    assert "max_queue_events" in told[0]


def test_what_is_given_up_is_told_once_a_minute_with_all_there_were_since(exporters):
    now, said = [100.0], []
    exporter = exporters(Wire(Reply(404, {})), clock=lambda: now[0], batch_size=1, on_error=said.append)
    for number, at in enumerate((100, 101, 130, 161, 170)):
        now[0] = float(at)
        submit(exporter, 1, start=number)
        exporter.flush(20)
    assert len(said) == 2
    assert said[0].startswith(
        "lumiqtrace: 1 event was given up (rejected): the server answered 404; is base_url"
    )
    exporter.close(20)
    exporter._worker.thread.join(10)
    assert len(said) == 3, "the last is told at the end"
    assert told_of(said, "rejected") == 5


def test_a_pause_tells_what_waits_and_all_that_was_given_up(exporters):
    said = []
    wire = Wire(Reply(404, {}), Reply(404, {}), TransportError("no route"))
    exporter = exporters(wire, batch_size=1, on_error=said.append, rand=lambda: 0.01)
    for number in range(2):
        submit(exporter, 1, start=number)
        exporter.flush(20)
    assert told_of(said, "rejected") == 1, "the second may wait for a minute, or for the end"
    submit(exporter, 1, start=2)
    exporter.pause(0.1)
    assert told_of(said, "rejected") == 2
    assert "lumiqtrace: 1 event is not delivered as the server stops (no route)" in said
    submit(exporter, 1, start=3)
    assert exporter.stats().recorded == 4, "it goes on"


@pytest.fixture
def hanging():
    """A transport that answers nothing before the test is over."""
    release = threading.Event()

    def hang(_events):
        release.wait(30)
        return Reply(202, {})

    yield Wire(hang)
    release.set()


def test_of_waits_in_vain_the_time_between_them_is_none(exporters, hanging):
    ahead = 0.0

    def clock():
        return time.monotonic() + ahead

    exporter = exporters(hanging, clock=clock)
    submit(exporter, 1)
    waited = []
    for _ in range(3):
        ahead += 0.5
        began = clock()
        assert not exporter.flush(0.1)
        waited.append(clock() - began)
    assert 0.3 <= exporter.waited_in_vain(0.0) <= sum(waited)
    assert 0.1 <= exporter.waited_in_vain(began) <= waited[-1]
    ahead += 1.0
    assert exporter.waited_in_vain(0.0) == 0.0
    began = clock()
    assert not exporter.flush(0.1)
    assert 0.1 <= exporter.waited_in_vain(0.0) <= clock() - began


def test_waits_in_vain_at_the_same_time_are_one(exporters, hanging):
    exporter = exporters(hanging)
    submit(exporter, 1)
    began = time.monotonic()
    flushes = [threading.Thread(target=exporter.flush, args=(seconds,)) for seconds in (0.1, 0.2, 0.3, 0.3)]
    for flush in flushes:
        flush.start()
    for flush in flushes:
        flush.join()
    assert 0.3 <= exporter.waited_in_vain(0.0) <= time.monotonic() - began


def test_close_gives_up_what_cannot_be_delivered_and_says_so(exporters, caplog):
    exporter = exporters(Wire(TransportError("no route")), rand=lambda: 0.01)
    submit(exporter, 4)
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        assert not exporter.close(0.1)
    assert "4 events were not delivered" in caplog.text
    assert "no route" in caplog.text
    submit(exporter, 2)
    stats = exporter.stats()
    assert stats.dropped == {"shutdown": 6}
    assert stats.recorded == 6


def test_close_stops_the_thread_and_closes_the_transport(exporters):
    wire = Wire()
    exporter = exporters(wire)
    submit(exporter, 1)
    thread = exporter._worker.thread
    assert exporter.close(10)
    assert wire.closed.wait(10)
    thread.join(10)
    assert not thread.is_alive()


def test_a_process_that_cannot_start_threads_delivers_in_flush(exporters, monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    wire = Wire(TransportError("down"), Reply(202, {}))
    exporter = exporters(wire, rand=lambda: 0.01)
    submit(exporter, 150)
    assert exporter.flush(10)
    assert sum(len(batch) for batch in wire.sent[1:]) == 150


def test_a_transport_that_raises_anything_does_not_end_the_delivery(exporters):
    wire = Wire(RuntimeError("bug"), Reply(202, {}))
    exporter = exporters(wire, rand=lambda: 0.01)
    submit(exporter, 1)
    assert exporter.flush(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_started_again(exporters):
    class Dying(Wire):
        def send(self, body, headers, timeout):
            if not self.sent:
                super().send(body, headers, timeout)
                raise SystemExit  # ends a thread without a word
            return super().send(body, headers, timeout)

    wire = Dying()
    exporter = exporters(wire, rand=lambda: 0.01)
    submit(exporter, 1)
    exporter.flush(0.5)
    submit(exporter, 1, start=1)
    assert exporter.flush(10)
    assert wire.sent == [[0], [0], [1]]


def test_every_event_is_accounted_for_while_threads_submit(exporters):
    exporter = exporters(Wire(), batch_size=20, flush_interval=0.01)
    threads = [threading.Thread(target=submit, args=(exporter, 500)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exporter.flush(20)
    stats = exporter.stats()
    assert (stats.recorded, stats.sent, stats.queued, stats.in_flight) == (3000, 3000, 0, 0)


def test_debug_prints_flush_errors_to_stdout(backend, capsys):
    backend.answer = lambda _request: Answer(404)
    client = lumiqtrace.Client(lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url, debug=True))
    client.record(Note(1))
    client.flush(10)
    thread = client._exporter()._worker.thread
    client.shutdown(0)
    thread.join(10)  # it may be the one that says it
    assert "given up" in capsys.readouterr().out


def test_a_log_handler_may_ask_for_the_statistics_and_flush(exporters):
    exporter = exporters(Wire(Reply(404, {})))
    seen = []

    class Asking(logging.Handler):
        def emit(self, record):
            seen.append((exporter.stats().dropped, exporter.flush(0.1)))

    handler = Asking()
    logging.getLogger("lumiqtrace").addHandler(handler)
    try:
        submit(exporter, 1)
        assert not exporter.flush(10)
    finally:
        logging.getLogger("lumiqtrace").removeHandler(handler)
    assert seen
    assert seen[0][0] == {"rejected": 1}


def test_an_error_callback_that_raises_harms_nothing(exporters):
    def fail(_message):
        raise ValueError("closed file")

    wire = Wire(Reply(503, {}), Reply(202, {}))
    exporter = exporters(wire, on_error=fail, rand=lambda: 0.01)
    submit(exporter, 1)
    assert exporter.flush(10)


def test_what_ends_the_program_passes_through_a_flush(exporters):
    release = threading.Event()
    exporter = exporters(Wire(lambda _events: release.wait(20) and Reply(202, {})))
    submit(exporter, 1)
    before = signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(SystemExit):
            exporter.flush(20)
    finally:
        signal.signal(signal.SIGUSR1, before)
        timer.join()
        release.set()


def test_two_flushes_at_once_both_tell_of_a_loss(exporters):
    release = threading.Event()
    exporter = exporters(Wire(lambda _events: release.wait(20) and Reply(404, {})))
    submit(exporter, 1)
    told = []
    flushes = [threading.Thread(target=lambda: told.append(exporter.flush(10))) for _ in range(2)]
    for thread in flushes:
        thread.start()
    while len(exporter._outbox.lock._waiters) < 2:  # both are waiting for the answer
        pass
    release.set()
    for thread in flushes:
        thread.join()
    assert told == [False, False]


def test_an_endless_timeout_is_as_good_as_a_long_one(exporters):
    exporter = exporters(Wire())
    submit(exporter, 1)
    assert exporter.flush(float("inf"))


def test_a_close_while_a_batch_is_built_counts_what_is_lost(exporters, caplog):
    release = threading.Event()
    building = threading.Event()

    class Slow(Note):
        def event(self):
            building.set()
            release.wait(20)
            return super().event()

    exporter = exporters(Wire())
    exporter.submit(Slow(0))
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        assert not exporter.close(0.2)
    release.set()
    stats = exporter.stats()
    assert (stats.recorded, stats.dropped) == (1, {"shutdown": 1})
    assert "1 event was not delivered" in caplog.text


def test_what_comes_while_the_server_hangs_is_compressed(exporters):
    asked, release = threading.Event(), threading.Event()

    def hang(_events):
        asked.set()
        release.wait(30)
        return Reply(202, {})

    class Large(Note):
        size = 4096

    exporter = exporters(Wire(hang), flush_interval=0.01)
    try:
        exporter.submit(Large(0))
        assert asked.wait(20)
        for number in range(5000):
            exporter.submit(Large(number))
        deadline = time.monotonic() + 30
        while exporter._queue.bytes > 3 * 1024 * 1024:
            assert time.monotonic() < deadline, exporter._queue.bytes
            release.wait(0.01)  # a program that goes on
            exporter.submit(Large(0))
        assert len(exporter._outbox) > 1000
    finally:
        release.set()
    assert exporter.flush(30)
    assert exporter.stats().dropped == {}


def test_flushes_that_meet_at_the_threads_start_all_return_when_it_has_delivered(exporters):
    def slowly(_events):
        time.sleep(0.02)  # as a server does
        return Reply(202, {})

    for _ in range(40):
        exporter = exporters(Wire(slowly), flush_interval=600)
        together = threading.Barrier(8)
        found = []

        def flush(exporter=exporter, together=together, found=found):
            together.wait()
            exporter.submit(Note(0))
            found.append(exporter.flush(50))

        threads = [threading.Thread(target=flush) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == [True] * 8


def test_a_send_on_the_calling_thread_keeps_the_flush_s_deadline(exporters, monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    timeouts = []

    class Timed(Wire):
        def send(self, body, headers, timeout):
            timeouts.append(timeout)
            return super().send(body, headers, timeout)

    exporter = exporters(Timed())
    submit(exporter, 1)
    assert exporter.flush(0.5)
    assert 0 < timeouts[0] <= 0.5


def fail_until_open(exporter, wire):
    """As many failures in a row as open the circuit, brought about by flushes."""
    submit(exporter, 1)
    while len(wire.sent) < OPEN_AFTER:
        assert not exporter.flush(0.05)


def test_a_flush_does_not_wait_for_what_failed_again_and_again(exporters):
    wire = Wire(TransportError("down"))
    exporter = exporters(wire, rand=lambda: 1.0)
    fail_until_open(exporter, wire)
    started = time.monotonic()
    assert not exporter.flush(40), "this one has it tried once more"
    assert len(wire.sent) == OPEN_AFTER + 1
    for _ in range(20):
        assert not exporter.flush(40)
    assert len(wire.sent) == OPEN_AFTER + 1
    assert time.monotonic() - started < 20, "each would wait 40 s"
    assert not exporter.close(40), "the last one has it tried in any case"
    assert len(wire.sent) == OPEN_AFTER + 2
    assert time.monotonic() - started < 20


def test_a_flush_finds_a_server_that_is_back(exporters, caplog):
    wire = Wire(*[TransportError("down")] * OPEN_AFTER, Reply(202, {}))
    exporter = exporters(wire, rand=lambda: 1.0)
    with caplog.at_level(logging.INFO, "lumiqtrace"):
        fail_until_open(exporter, wire)
        submit(exporter, 30, start=1)
        assert exporter.flush(40)
        submit(exporter, 1, start=31)
        assert exporter.flush(40)
    said = [(record.levelname, record.message) for record in caplog.records]
    opened = [message for level, message in said if level == "WARNING" and "in a row" in message]
    works = [message for level, message in said if level == "INFO"]
    assert len(opened) == 1
    assert len(works) == 1
    assert "works again; 31 events waited" in works[0]
    assert len(said) == 3, "and one when it failed for the first time"


def test_a_storm_of_errors_meets_few_requests_however_often_is_flushed(exporters):
    wire = Wire(Reply(500, {}))
    exporter = exporters(wire, rand=lambda: 1.0)
    for number in range(300):
        submit(exporter, 1, start=number)
        exporter.flush(0.01)
    # Those that open it, one that a flush hurries, and the back-off's own, which is 8 s away by then.
    assert len(wire.sent) <= OPEN_AFTER + 3
    wire.replies[:] = [Reply(202, {})]
    exporter.close(20)
    assert exporter.stats().sent == 300


def test_one_bad_event_in_a_hundred_costs_few_requests(exporters):
    wire = Wire(lambda events: Reply(400 if 61 in numbers(events) else 202, {}))
    exporter = exporters(wire, batch_size=100, flush_interval=60)
    submit(exporter, 100)
    assert not exporter.flush(20)
    assert (exporter.stats().sent, exporter.stats().dropped) == (99, {"rejected": 1})
    assert len(wire.sent) <= 15, "two for each halving"


def test_close_waits_for_an_answer_that_is_on_its_way(exporters):
    release = threading.Event()
    exporter = exporters(Wire(lambda _events: release.wait(30) and Reply(202, {})))
    submit(exporter, 1)
    assert not exporter.flush(0.05)
    timer = threading.Timer(0.2, release.set)
    timer.start()
    assert exporter.close(20)
    timer.join()
    assert exporter.stats().sent == 1


def test_an_answer_after_the_end_still_counts(exporters):
    release = threading.Event()
    exporter = exporters(Wire(lambda _events: release.wait(30) and Reply(202, {})))
    submit(exporter, 1)
    assert not exporter.flush(0.05)
    thread = exporter._worker.thread
    assert not exporter.close(0.05)
    assert exporter.stats().dropped == {"shutdown": 1}
    release.set()
    thread.join(20)
    stats = exporter.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (1, 1, {})


def test_closing_twice_counts_once(exporters):
    exporter = exporters(Wire(TransportError("down")))
    submit(exporter, 2)
    exporter.close(0)
    exporter.close(0)
    assert exporter.stats().dropped == {"shutdown": 2}


def test_callers_do_not_step_aside_for_a_thread_that_waits_for_the_server(exporters):
    now = [0.0]
    release = threading.Event()
    sending = threading.Event()

    def hang(_events):
        sending.set()
        release.wait(30)
        return Reply(202, {})

    exporter = exporters(Wire(hang), clock=lambda: now[0])
    try:
        submit(exporter, 50)
        assert sending.wait(20)
        submit(exporter, 200, start=50)  # enough to call the thread, which cannot come
        assert exporter._loop.wants_to_run(), "a request may be about to end"
        now[0] += 1.0
        assert not exporter._loop.wants_to_run()
    finally:
        release.set()


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_ends_a_program_costs_one_event_on_our_thread(exporters, end):
    class Deadly(Note):
        def event(self):
            raise end

    wire = Wire()
    exporter = exporters(wire, flush_interval=60)
    submit(exporter, 3)
    exporter.submit(Deadly(3))
    assert not exporter.flush(20)
    submit(exporter, 1, start=4)
    assert exporter.flush(20)
    assert wire.sent == [[0, 1, 2], [4]]
    stats = exporter.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (5, 4, {"unreadable": 1})
    assert stats.internal_errors == 1


@pytest.mark.parametrize("end", [SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("whose", ["before_send", "prices"])
def test_what_ends_a_program_in_your_function_costs_its_answer_alone(backend, end, whose):
    def yours(event):
        if event.metadata["number"] == 2:
            raise end
        return event if whose == "before_send" else 0.25

    client = lumiqtrace.init(KEY, base_url=backend.url, **{whose: yours})
    for number in range(4):
        client.record(Priced(number))
    assert client.flush(20)
    assert client.stats().internal_errors == 1
    if whose == "before_send":
        told = [event.get("metadata", {}).get("number") for event in backend.events]
        assert told == [0, 1, None, 3], "what nobody looked at leaves without its contents"
    else:
        assert sorted(numbers(backend.events)) == [0, 1, 2, 3]
        assert [event["cost_usd"] == 0.25 for event in backend.events] == [True, True, False, True]


def test_a_new_key_takes_over_from_one_that_was_refused(backend, caplog):
    right = "lqt_" + "c0de" * 16
    backend.answer = lambda request: Answer(202 if request.headers["x-api-key"] == right else 401)
    refused = lumiqtrace.init(KEY, base_url=backend.url)
    refused.record(Note(1))
    assert not refused.flush(20)
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        client = lumiqtrace.init(right, base_url=backend.url)
    assert "1 event was not delivered before the end (unauthorized)" in caplog.text
    assert refused.stats().dropped == {"shutdown": 1}
    client.record(Note(2))
    assert client.flush(20)
    assert numbers(backend.events) == [2]
    assert len(backend.requests) == 2


def test_what_cannot_be_loaded_now_is_loaded_later_and_nothing_is_lost(exporters):
    """A process that has no file descriptor left imports nothing."""
    full, said = threading.Event(), []
    full.set()

    def redactor():
        if full.is_set():
            raise OSError(24, "Too many open files")
        return Redactor()

    wire = Wire()
    now = [100.0]
    exporter = exporters(
        wire, pipeline=Pipeline(redactor), on_error=said.append, clock=lambda: now[0] + time.monotonic()
    )
    submit(exporter, 3)
    assert not exporter.flush(0.3)
    stats = exporter.stats()
    assert (stats.recorded, stats.queued, stats.dropped) == (3, 3, {})
    assert said == ["lumiqtrace: events wait: lumiqtrace could not load a module of its own"]
    full.clear()
    now[0] += 2
    assert exporter.flush(20)
    assert wire.sent == [[0, 1, 2]]


def test_a_flush_in_the_middle_of_taking_says_nothing_that_is_not_so(exporters):
    said = []
    exporter = exporters(Wire(), on_error=said.append)
    outbox, queue = exporter._outbox, exporter._queue

    def take(most, taken=queue.take):
        found = taken(most)
        outbox.speak(final=True)  # as a signal handler's flush does on this very thread
        return found

    queue.take = take
    submit(exporter, 5)
    assert exporter.flush(20)
    assert said == []
