"""What a sender can make the server hold or read: connections that end, and bodies under one bound."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server_helpers import NDJSON, Api, connected, event, server_process

from lumiqtrace.server import RunningServer, running

MIB = 1024 * 1024


@contextmanager
def upload(url: str, headers: dict[str, str]) -> Iterator[socket.socket]:
    """A connection on which the head of a POST of unknown length was sent."""
    where = urlsplit(url)
    lines = [f"{name}: {value}" for name, value in (headers | {"transfer-encoding": "chunked"}).items()]
    head = "\r\n".join(["POST /v1/ingest HTTP/1.1", "host: x", *lines, "", ""])
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(head.encode())
        yield connection


def chunk(size: int) -> bytes:
    return b"%x\r\n%s\r\n" % (size, b"x" * size)


def until_closed(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize(
    ("status", "sent"),
    [(401, {"x-api-key": "none"}), (415, {"content-type": "text/plain"})],
)
def test_after_an_early_refusal_nothing_more_is_read(api: Api, status: int, sent: dict[str, str]) -> None:
    headers = {"x-api-key": api.credentials.api_key} | NDJSON | sent
    with upload(str(api.http.base_url), headers) as connection:
        answer = until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in answer
        with pytest.raises(ConnectionError):
            for _ in range(64):
                connection.sendall(chunk(MIB))


def test_a_body_of_any_length_without_a_key_is_not_read_on(api: Api) -> None:
    with (
        upload(str(api.http.base_url), {"x-api-key": "none"}) as connection,
        pytest.raises(ConnectionError),
    ):
        for _ in range(64):
            connection.sendall(chunk(MIB))


def test_an_answer_to_a_whole_request_keeps_its_connection(api: Api) -> None:
    for answer in (api.post(b"[]"), api.send(event()), api.get("none"), api.http.get("/none")):
        assert "connection" not in answer.headers, answer.text


def stall(connection: socket.socket, server: RunningServer) -> None:
    """Send half of what may be held, and wait until the server holds it."""
    connection.sendall(chunk(MIB // 2))
    pause = threading.Event()
    with connected(server.url, server.credentials) as api:
        while api.post(b"x" * (MIB // 2 + 1)).status_code != 503:
            pause.wait(0.01)


def test_bodies_on_their_way_in_have_one_bound_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.body.MAX_HELD_BYTES", MIB)
    with running(tmp_path) as server, connected(server.url, server.credentials) as api:
        headers = {"x-api-key": server.credentials.api_key} | NDJSON
        with upload(server.url, headers) as stalled, upload(server.url, headers) as refused:
            stall(stalled, server)
            refused.sendall(chunk(MIB // 2 + 1))
            answer = until_closed(refused)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"\r\nconnection: close\r\n" in answer
            # What was refused was given back, so that what fits beside the stalled one is taken.
            assert api.send(event()).status_code == 202
            stalled.sendall(b"0\r\n\r\n")
            assert stalled.recv(4096).startswith(b"HTTP/1.1 400 ")
        assert api.post(b"x" * (MIB // 2 + 1)).status_code == 400


def test_answers_under_way_do_not_hold_the_trace_twice(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, connected(server.url, server.credentials()) as api:
        for _ in range(4):
            assert api.send(*[event(pad="x" * 200_000) for _ in range(50)]).status_code == 202
        before = server.peak_memory()
        assert len(api.get("trace-abc").content) > 40_000_000
        assert server.peak_memory() - before < 60 * MIB


def test_a_reader_who_leaves_in_the_middle_is_no_failure(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, connected(server.url, server.credentials()) as api:
        for _ in range(4):
            assert api.send(*[event(pad="x" * 200_000) for _ in range(50)]).status_code == 202
        query = {"projectId": api.credentials.project_id}
        token = {"authorization": f"Bearer {api.credentials.read_token}"}
        with api.http.stream("GET", "/v1/traces/trace-abc", params=query, headers=token) as answer:
            assert answer.status_code == 200
        assert api.send(event()).status_code == 202
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert server.stderr.read_text() == ""
