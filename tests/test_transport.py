from __future__ import annotations

import socket
import struct
import threading
import time

import httpx
import pytest
import respx
from backend import KEY, Answer, Backend, running

from lumiqtrace import LumiqConfig, _transport
from lumiqtrace._encode import compress
from lumiqtrace._transport import HttpTransport, TransportError

BODY = compress([b'{"a":1}'])


@pytest.fixture
def raw_server():
    """A server that gives each connection to `talk`, which answers in bytes of its own choosing."""
    stop = []

    def start(talk):
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.settimeout(10)
                        connection.recv(65536)
                        talk(connection)
                        # Closing with bytes unread would reset the connection under the answer.
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        stop.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener, thread in stop:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.fixture
def to(raw_server):
    # Depends on the server so that its connections are closed first.
    made = []

    def make(url):
        transport = HttpTransport(LumiqConfig(api_key=KEY, base_url=url))
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()


@pytest.fixture(params=["httpx", "httpx2"])
def library(request, monkeypatch):
    """Each of the two HTTP libraries in turn."""
    found = pytest.importorskip(request.param)
    monkeypatch.setattr(_transport, "_http_library", lambda: found)
    return found


def test_the_reply_comes_back(library, to, backend):
    backend.answer = lambda _request: Answer(429, {"Retry-After": "7"}, b"busy")
    reply = to(backend.url).send(BODY, {}, 5)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"busy")


def test_a_redirect_is_not_followed_and_the_key_stays(library, to, backend):
    with running(Backend()) as other:
        backend.answer = lambda _request: Answer(307, {"Location": other.url + "/v1/ingest"})
        assert to(backend.url).send(BODY, {}, 5).status == 307
        assert other.requests == []


def test_no_connection(library, to):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(TransportError) as caught:
        to(f"http://127.0.0.1:{port}").send(BODY, {}, 5)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: connection.sendall(b"nonsense\r\n\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Le"),
        lambda connection: connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 50\r\n\r\nhalf"),
        lambda connection: None,
        lambda connection: connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        ),
    ],
    ids=["garbage", "half headers", "half body", "closed", "reset"],
)
def test_bytes_that_are_no_answer_are_worth_another_try(library, to, raw_server, talk):
    with pytest.raises(TransportError):
        to(raw_server(talk)).send(BODY, {}, 5)


def test_a_server_that_never_answers_costs_the_timeout(library, to, raw_server):
    done = threading.Event()
    try:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"(?i)timeout|timed"):
            to(raw_server(lambda _connection: done.wait(20))).send(BODY, {}, 0.4)
        assert time.monotonic() - started < 3
    finally:
        done.set()


def test_a_body_that_trickles_does_not_stretch_the_deadline(library, to, raw_server):
    done = threading.Event()

    def trickle(connection):
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.1):
            connection.sendall(b"x")

    try:
        started = time.monotonic()
        assert to(raw_server(trickle)).send(BODY, {}, 0.5).status == 500
        assert time.monotonic() - started < 3
    finally:
        done.set()


def test_an_endless_body_is_not_read_to_the_end(library, to, raw_server):
    def flood(connection):
        connection.sendall(b"HTTP/1.1 202 Accepted\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"y" * 65536)

    reply = to(raw_server(flood)).send(BODY, {}, 10)
    assert reply.status == 202
    assert len(reply.body) == _transport.MAX_REPLY_BYTES


def test_a_stale_connection_is_replaced_at_once(library, to, raw_server):
    def answer_and_leave(connection):
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")

    transport = to(raw_server(answer_and_leave))
    for _ in range(5):
        assert transport.send(BODY, {}, 5).status == 202


@respx.mock
def test_what_goes_on_the_wire(monkeypatch, to):
    monkeypatch.setattr(_transport, "_http_library", lambda: httpx)
    route = respx.post("https://api.lumiqtrace.com/v1/ingest").respond(202, json={"accepted": 1})
    assert to("https://api.lumiqtrace.com/").send(BODY, {}, 5).status == 202
    request = route.calls.last.request
    assert request.content == BODY
    assert request.headers["x-api-key"] == KEY


@respx.mock
def test_every_kind_of_fault_is_one_error(monkeypatch, to):
    monkeypatch.setattr(_transport, "_http_library", lambda: httpx)
    route = respx.post("https://api.lumiqtrace.com/v1/ingest")
    for fault in (httpx.ConnectTimeout, httpx.ReadError, httpx.ProxyError, httpx.UnsupportedProtocol):
        route.mock(side_effect=fault("it broke"))
        with pytest.raises(TransportError, match="it broke"):
            to("https://api.lumiqtrace.com").send(BODY, {}, 5)
