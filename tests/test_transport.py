"""The default transport: what goes on the wire, what counts as an answer, and the life of its connection."""

from __future__ import annotations

import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import pytest
from backend import KEY, Answer, Backend, running
from faults import server as faulty
from faults.server import accepting, answering, misbehaving, refusing

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace._delivery import transport as _transport
from lumiqtrace._delivery.transport import MAX_REPLY_BYTES, HttpTransport, TransportError
from lumiqtrace._encode import compress

BODY = compress([b'{"a":1}'])

# A fault here takes 10 s or forever; a loaded machine takes a second or two.
SLACK = 3.0


@pytest.fixture
def to():
    made = []

    def make(url):
        transport = HttpTransport(LumiqConfig(api_key=KEY, base_url=url))
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()


def test_one_exchange(to, backend):
    reply = to(backend.url).send(BODY, {}, 5)
    assert (reply.status, reply.body) == (202, b"{}")
    assert backend.requests[0].path == "/v1/ingest"
    assert backend.requests[0].events == [{"a": 1}]


def test_what_goes_on_the_wire(to):
    with misbehaving(accepting) as server:
        to(server.url + "/a b/é/").send(BODY, {"x-lumiqtrace-losses": '{"dropped":{}}'}, 5)
        heard = server.heard[0]
    assert heard.line == "POST /a%20b/%C3%A9/v1/ingest HTTP/1.1"
    assert heard.body == BODY
    assert heard.headers == {
        "host": f"127.0.0.1:{server.port}",
        "x-lumiqtrace-losses": '{"dropped":{}}',
        "user-agent": f"lumiqtrace-python/{_transport.__version__}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-ndjson",
        "content-encoding": "gzip",
        "content-length": str(len(BODY)),
        "x-api-key": KEY,
    }


def test_head_and_body_travel_together(to):
    """A second small segment would wait for the first one's acknowledgement, up to 40 ms."""
    seen = []

    def behave(peer):
        seen.append(peer._rest)
        accepting(peer)

    with misbehaving(behave) as server:
        to(server.url).send(BODY, {}, 5)
    assert seen[0].startswith(b"POST ")
    assert seen[0].endswith(BODY)


def test_a_line_break_in_a_header_is_no_new_header(to, backend):
    with pytest.raises(ValueError, match="line break"):
        to(backend.url).send(BODY, {"x-lumiqtrace-losses": "a\r\nx-api-key: b"}, 5)
    assert backend.requests == []


def test_a_refusal_comes_with_its_headers(to):
    with misbehaving(answering(429, {"Retry-After": "7"}, b"busy")) as server:
        reply = to(server.url).send(BODY, {}, 5)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"busy")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(to, backend, status):
    with running(Backend()) as other:
        backend.answer = lambda _request: Answer(status, {"Location": other.url + "/v1/ingest"})
        assert to(backend.url).send(BODY, {}, 5).status == status
        assert other.requests == []


# ---- what is an answer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc x\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Le",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 202 Accepted\r\n" + b"x: 0123456789\r\n" * 6000,
        b"HTTP/1.1 202 Accepted\r\nx: " + b"0" * 60_000 + b"\r\ny: " + b"0" * 60_000 + b"\r\n\r\n{}",
        b"",
    ],
    ids=[
        *("garbage", "another protocol", "no status", "interim", "half headers", "half body", "half chunk"),
        *("no chunk", "endless headers", "long headers", "closed"),
    ],
)
def test_bytes_that_are_no_answer_are_worth_another_try(to, text):
    with misbehaving(faulty.saying(text)) as server, pytest.raises(TransportError):
        to(server.url).send(BODY, {}, 5)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>Please sign in</html>", {"content-type": "text/html"}),
        (b"<html>" + b" " * 200_000, {"content-type": "text/html"}),
        (b"OK", {}),
        (b'{"accepted": 1', {}),
        (zlib.compress(b"<html>Please sign in</html>", wbits=31), {"content-encoding": "gzip"}),
        (b"\xff\xfe", {"content-encoding": "gzip"}),
        (b"[" * 50_000, {}),
    ],
    ids=["html", "long html", "text", "half an object", "packed html", "no gzip", "too deep"],
)
def test_an_acceptance_that_is_not_ours_is_none(to, body, headers):
    with misbehaving(answering(200, headers, body)) as server:
        transport = to(server.url)
        with pytest.raises(TransportError, match=r"is not JSON .* base_url of a lumiqtrace server\?"):
            transport.send(BODY, {}, 5)


@pytest.mark.parametrize(
    "body", [b"", b"\r\n", b"{}", b'{"accepted": 1}', b"null", b'{"errors": [' + b'"no",' * 30_000 + b"1]}"]
)
def test_an_acceptance_is_json_or_nothing(to, body):
    with misbehaving(answering(200, {}, body)) as server:
        reply = to(server.url).send(BODY, {}, 5)
    assert (reply.status, reply.body) == (200, body[:MAX_REPLY_BYTES])


def test_an_answer_that_ends_with_its_connection(to):
    with misbehaving(faulty.saying(b"HTTP/1.0 202 Accepted\r\n\r\n{}")) as server:
        transport = to(server.url)
        assert [transport.send(BODY, {}, 5).body for _ in range(2)] == [b"{}", b"{}"]


def test_an_answer_in_chunks_keeps_the_connection(to):
    def behave(peer):
        peer.hear()
        peer.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 x\r\n")
        peer.connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n")

    with misbehaving(behave) as server:
        transport = to(server.url)
        assert [transport.send(BODY, {}, 5).body for _ in range(3)] == [b"{}"] * 3
        assert server.connections == 1


def test_what_is_said_before_the_answer_is_skipped(to):
    def behave(peer):
        peer.hear()
        peer.connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 x\r\n\r\n")
        peer.answer(202, {"x-which": "last"})

    with misbehaving(behave) as server:
        transport = to(server.url)
        replies = [transport.send(BODY, {}, 5) for _ in range(2)]
        assert server.connections == 1
    assert replies == [(202, {"x-which": "last", "content-length": "2"}, b"{}")] * 2


def test_what_is_said_before_the_answer_has_an_end(to):
    with misbehaving(faulty.flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)) as server:
        url = server.url
        with pytest.raises(TransportError, match="headers are too long"):
            to(url).send(BODY, {}, 20)


@pytest.mark.parametrize(
    "echo",
    [
        KEY.encode(),
        KEY.replace("l", "\\u006c").encode(),
        "".join(f"\\u{ord(letter):04X}" for letter in KEY).encode(),
        zlib.compress(KEY.encode(), wbits=31),
        zlib.compress(KEY.replace("_", "\\u005f").encode()),
    ],
    ids=["plain", "a letter escaped", "all escaped", "gzip", "deflate and escaped"],
)
def test_a_key_that_comes_back_goes_no_further(to, echo):
    packed = {} if echo.isascii() else {"content-encoding": "gzip"}
    headers = packed | {f"x-{KEY}": KEY}
    with misbehaving(answering(401, headers, echo)) as server:
        reply = to(server.url).send(BODY, {}, 5)
    assert reply.body == b"[REDACTED]"
    assert reply.headers["x-[REDACTED]"] == "[REDACTED]"


def test_a_key_that_comes_back_escaped_leaves_json_as_it_was(to):
    body = f'{{"error":"\\u0022\\u006c{KEY[1:]}\\u0022 \\u005c"}}'.encode()
    with misbehaving(answering(400, {}, body)) as server:
        assert json.loads(to(server.url).send(BODY, {}, 5).body) == {"error": '"[REDACTED]" \\'}


def test_an_answer_without_the_key_stays_as_it_was_written(to):
    body = b'{"error": "\\u006cong \\u0022\\u005c"}'
    with misbehaving(answering(400, {}, body)) as server:
        assert to(server.url).send(BODY, {}, 5).body == body


def test_a_key_goes_through_no_proxy_to_this_machine(to, monkeypatch):
    with misbehaving(accepting) as proxy, refusing() as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        for host in ("127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"):
            with pytest.raises(TransportError):
                to(f"http://{host}:{server.port}").send(BODY, {}, 5)
        assert proxy.connections == 0


@pytest.mark.parametrize(
    "flood",
    [
        faulty.flooding(b"HTTP/1.1 500 x\r\n\r\n"),
        faulty.flooding(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"2000\r\n" + b"y" * 8192 + b"\r\n"),
    ],
    ids=["plain", "chunks"],
)  # fmt: skip
def test_an_endless_body_is_not_read_to_the_end(to, flood):
    with misbehaving(flood) as server:
        reply = to(server.url).send(BODY, {}, 20)
    assert (reply.status, len(reply.body)) == (500, MAX_REPLY_BYTES)


def test_a_gzip_bomb_is_not_inflated(to):
    with misbehaving(faulty.gzip_bomb) as server:
        reply = to(server.url).send(BODY, {}, 20)
    assert (reply.status, len(reply.body)) == (202, MAX_REPLY_BYTES)


def test_an_answer_before_the_end_of_our_request_counts(to):
    """A server need not read a body that it refuses for its length."""

    def refuse(peer):
        peer.connection.sendall(b"HTTP/1.1 413 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        peer.wait(0.1)
        peer.connection.close()  # with bytes unread, which breaks the sending off

    with misbehaving(refuse) as server:
        assert to(server.url).send(os.urandom(16 * 1024 * 1024), {}, 20).status == 413


def test_what_a_server_writes_is_no_line_of_our_log(to):
    with misbehaving(faulty.saying(b"one\x1b[2J\rtwo\n" + b"z" * 5000)) as server:
        transport = to(server.url)
        with pytest.raises(TransportError) as caught:
            transport.send(BODY, {}, 5)
    assert str(caught.value) == "BadStatusLine: one [2J two"


def test_a_key_that_a_server_repeats_goes_no_further(to):
    with misbehaving(
        answering(401, {"www-authenticate": f"Key {KEY}"}, f'{{"error":"{KEY}"}}'.encode())
    ) as server:
        reply = to(server.url).send(BODY, {}, 5)
    assert reply.body == b'{"error":"[REDACTED]"}'
    assert reply.headers["www-authenticate"] == "Key [REDACTED]"


# ---- the deadline ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        faulty.hanging,
        faulty.trickling(b"HTTP/1.1 500 No\r\nx-slow: "),
        faulty.trickling(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n"),
        faulty.trickling(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1;"),
    ],
    ids=["never answers", "trickles its headers", "trickles its body", "trickles a chunk"],
)
def test_the_timeout_is_that_of_the_whole(to, behaviour):
    with misbehaving(behaviour) as server:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"timed out"):
            to(server.url).send(BODY, {}, 0.5)
        assert 0.4 < time.monotonic() - started < 0.5 + SLACK


def test_a_server_that_does_not_read_costs_the_timeout(to):
    with misbehaving(faulty.not_reading) as server:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"timed out"):
            to(server.url).send(os.urandom(16 * 1024 * 1024), {}, 0.5)
        assert time.monotonic() - started < 0.5 + SLACK


def test_a_connection_that_nobody_takes_costs_the_timeout(to):
    with faulty.with_full_backlog() as url:
        started = time.monotonic()
        with pytest.raises(TransportError, match=r"timed out"):
            to(url).send(BODY, {}, 0.5)
        assert time.monotonic() - started < 0.5 + SLACK


def test_the_first_address_that_answers_is_taken(to, monkeypatch):
    """An address that swallows connections gets its share of the time, not all of it."""
    lookup = socket.getaddrinfo
    with misbehaving(accepting) as server, faulty.with_full_backlog() as black_hole, refusing() as closed:
        ports = [int(black_hole.rpartition(":")[2]), closed.port, server.port]

        def addresses(host, port, *args, **kwargs):
            return [lookup("127.0.0.1", port, *args, **kwargs)[0] for port in ports]

        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        monkeypatch.setenv("no_proxy", "*")
        assert to("http://several.test").send(BODY, {}, 3).status == 202


def test_no_connection(to):
    with refusing() as server, pytest.raises(TransportError, match="refused") as caught:
        to(server.url).send(BODY, {}, 5)
    assert KEY not in str(caught.value)


def test_a_proxys_name_that_is_none(to, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{'a' * 64}.test:3128")
    with pytest.raises(TransportError, match="no host name"):
        to("http://ingest.test").send(BODY, {}, 5)


# ---- the life of a connection ------------------------------------------------------------------------


def test_the_connection_is_kept(to):
    with misbehaving(accepting) as server:
        transport = to(server.url)
        for _ in range(10):
            transport.send(BODY, {}, 5)
        assert server.connections == 1


def test_a_connection_that_the_server_closed_is_replaced_at_once(to):
    with misbehaving(faulty.closing_each) as server:
        transport = to(server.url)
        for _ in range(5):
            assert transport.send(BODY, {}, 5).status == 202
        assert len(server.stored) == server.connections == 5


def test_a_connection_that_breaks_under_a_request_is_replaced_at_once(to):
    with misbehaving(accepting) as server:
        transport = to(server.url)
        transport.send(BODY, {}, 5)

        def break_once(peer):
            server.behave(accepting)
            peer.reset()

        server.behave(break_once)
        assert transport.send(BODY, {}, 5).status == 202
        assert (server.connections, len(server.stored)) == (2, 2)


def test_a_fresh_connection_that_breaks_is_not_tried_again(to):
    with misbehaving(faulty.resetting) as server:
        with pytest.raises(TransportError):
            to(server.url).send(BODY, {}, 5)
        assert server.connections == 1


def test_a_connection_that_said_something_by_itself_is_not_used_again(to):
    """What came unasked would be taken for the answer to the next request."""

    def twice(peer):
        accepting(peer)
        read.wait(10)
        peer.connection.sendall(b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n")
        said.set()

    read, said = threading.Event(), threading.Event()
    with misbehaving(twice) as server:
        transport = to(server.url)
        for number in range(3):
            read.clear()
            said.clear()
            assert transport.send(BODY, {}, 5).status == 202
            read.set()
            assert said.wait(10)
            assert server.connections == number + 1


def test_a_connection_that_rested_too_long_is_not_trusted(to, monkeypatch):
    with misbehaving(accepting) as server:
        transport = to(server.url)
        transport.send(BODY, {}, 5)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + _transport.MAX_IDLE + 1)  # the machine was frozen
        assert transport.send(BODY, {}, 5).status == 202
        assert server.connections == 2


def test_a_transport_that_was_closed_opens_again(to):
    with misbehaving(accepting) as server:
        transport = to(server.url)
        for _ in range(2):
            assert transport.send(BODY, {}, 5).status == 202
            transport.close()
            transport.close()
        assert server.connections == 2


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_transport_that_is_forgotten_leaves_no_socket(to):
    with misbehaving(accepting) as server:
        transport = HttpTransport(LumiqConfig(api_key=KEY, base_url=server.url))
        transport.send(BODY, {}, 5)
        del transport
        gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_never_writes_on_its_parents_connection(to):
    """Each process has a connection of its own, also where it was handed the parent's transport."""
    script = textwrap.dedent("""
        import gc, os, sys
        from lumiqtrace import LumiqConfig
        from lumiqtrace._delivery.transport import HttpTransport
        url, key, body = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
        transport = HttpTransport(LumiqConfig(api_key=key, base_url=url))
        assert transport.send(body, {}, 10).status == 202
        for forget in (False, True):
            child = os.fork()
            if not child:
                if forget:
                    del transport
                    gc.collect()
                    os._exit(0)
                os._exit(0 if transport.send(body, {}, 10).status == 202 else 3)
            assert os.waitpid(child, 0)[1] == 0
            assert transport.send(body, {}, 10).status == 202
    """)
    with misbehaving(accepting) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", script, server.url, KEY, BODY.hex()],
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert (len(server.heard), server.connections) == (4, 2)


def test_an_interrupt_leaves_no_half_used_connection(to):
    def interrupt(peer):
        peer.hear()
        os.kill(os.getpid(), signal.SIGUSR1)
        peer.wait()

    def stop(*args):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, stop)
    try:
        with misbehaving(accepting) as server:
            transport = to(server.url)
            transport.send(BODY, {}, 5)
            server.behave(interrupt)
            with pytest.raises(KeyboardInterrupt):
                transport.send(BODY, {}, 20)
            server.behave(accepting)
            assert transport.send(BODY, {}, 5).status == 202
            assert server.connections == 2
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_what_records_the_standard_librarys_requests_does_not_see_ours(to, monkeypatch):
    """Tracers patch these methods; a trace of our own delivery would be delivered in turn, without end."""

    def traced(*args, **kwargs):
        raise AssertionError("a tracer would have recorded this")

    for name in (
        "__init__",
        "connect",
        "request",
        "putrequest",
        "putheader",
        "endheaders",
        "send",
        "getresponse",
    ):
        monkeypatch.setattr(http.client.HTTPConnection, name, traced)
    with misbehaving(accepting) as server:
        assert to(server.url).send(BODY, {}, 5).status == 202


def test_nothing_heavy_is_loaded_before_the_first_request():
    code = (
        "import sys, lumiqtrace; from lumiqtrace._delivery import transport\n"
        "transport.HttpTransport(lumiqtrace.LumiqConfig(api_key='lqt_x'))\n"
        "print([name for name in ('http.client', 'lumiqtrace._delivery.http') if name in sys.modules])"
    )
    source = str(Path(lumiqtrace.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"],
                          capture_output=True, text=True, timeout=50, check=True)  # fmt: skip
    assert done.stdout == "[]\n"
