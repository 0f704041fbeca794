"""Reading a trace back, from servers that do not give one."""

from __future__ import annotations

import pytest
from faults import server as faulty
from faults.server import accepting, answering, misbehaving, refusing

from lumiqtrace._commands import reader
from lumiqtrace._commands.reader import fetch_trace
from lumiqtrace._errors import CommandError

TOKEN = "lqr_" + "ef56" * 16


NO_TRACES = (b"[5]", b"[null]", b'[{"children":5}]', b'[{"children":[{"children":[[]]}]}]', b"[NaN]")


def read(url, token=TOKEN):
    return fetch_trace(url, "proj_1 2", token, "a/b ?c")


def test_what_goes_on_the_wire():
    with misbehaving(faulty.saying(b'HTTP/1.1 200 x\r\n\r\n[{"span_id":"1","children":[]}]')) as server:
        assert read(server.url) == [{"span_id": "1", "children": []}]
    [heard] = server.heard
    assert heard.line == "GET /v1/traces/a%2Fb%20%3Fc?projectId=proj_1%202 HTTP/1.1"
    assert heard.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (answering(404, {}, b'{"error":"no such trace"}'), r"answered 404: no such trace"),
        (answering(500, {}, b"<html>"), r"answered 500: no reason given"),
        (faulty.saying(b"HTTP/1.1 200 x\r\n\r\n<html>"), r"did not answer with a trace"),
        (faulty.saying(b'HTTP/1.1 200 x\r\n\r\n{"a":1}'), r"did not answer with a trace"),
        (faulty.saying(b"HTTP/1.1 200 x\r\n\r\n" + b"[" * 100_000), r"nested too deeply|did not answer"),
        (faulty.saying(b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n["), r"cannot reach .*IncompleteRead"),
        (faulty.saying(b"nonsense\r\n"), r"cannot reach"),
        (faulty.resetting, r"cannot reach"),
        (answering(403, {}, f'{{"error":"no {TOKEN}"}}'.encode()), r"answered 403: no \[REDACTED\]; is "),
        (answering(403, {}, f'{{"error":"no \\u006cqr{TOKEN[3:]}"}}'.encode()), r"403: no \[REDACTED\]; is "),
        (answering(403, {}, f'{{"error":"\\u001b[1m{TOKEN}"}}'.encode()), r"403: \[1m\[REDACTED\]; is "),
        (answering(403, {}, b'{"error":"\\u001b]0;x\\u0007no"}'), r"answered 403: \]0;xno; is "),
        *(
            (faulty.saying(b"HTTP/1.1 200 x\r\n\r\n" + body), r"did not answer with a trace")
            for body in NO_TRACES
        ),
    ],
)
def test_what_is_no_trace_is_one_sentence(behaviour, said):
    with misbehaving(behaviour) as server, pytest.raises(CommandError, match=said) as caught:
        read(server.url)
    assert TOKEN not in str(caught.value)


def test_nobody_is_there():
    with refusing() as server, pytest.raises(CommandError, match=f"cannot reach {server.url}: .*refused"):
        read(server.url)


def test_a_redirect_is_not_followed_and_the_token_stays():
    with misbehaving(accepting) as other, misbehaving(faulty.redirecting(other.url)) as server:
        with pytest.raises(CommandError, match="answered 307"):
            read(server.url)
        assert other.connections == 0


def test_a_server_that_trickles_costs_the_timeout(monkeypatch):
    monkeypatch.setattr(reader, "TIMEOUT", 0.3)
    with misbehaving(faulty.trickling(b"HTTP/1.1 200 x\r\n\r\n[")) as server:
        url = server.url
        with pytest.raises(CommandError, match="timed out"):
            read(url)


def test_a_trace_without_an_end_is_not_read_to_it(monkeypatch):
    monkeypatch.setattr(reader, "MAX_TRACE_BYTES", 1024 * 1024)
    with misbehaving(faulty.flooding(b"HTTP/1.1 200 x\r\n\r\n")) as server:
        url = server.url
        with pytest.raises(CommandError, match="larger than"):
            read(url)


@pytest.mark.parametrize("token", ["lqr_a b", "lqr_a\r\nx: y", "lqr_é"])
def test_a_token_that_is_none_goes_nowhere(token):
    with misbehaving(accepting) as server:
        with pytest.raises(CommandError, match="read token holds"):
            read(server.url, token)
        assert server.connections == 0
