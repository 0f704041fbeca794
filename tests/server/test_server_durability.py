"""A 202 is a promise: kill -9, SIGTERM, a full disk and a locked database do not break it."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_helpers import Api, connected, event, server_process

from lumiqtrace.server import Credentials, running

ROUNDS = 10


class Client(threading.Thread):
    """Posts batches of one trace until the server is gone; `acknowledged` are the ids it got a 202 for."""

    def __init__(self, url: str, credentials: Credentials, trace_id: str) -> None:
        super().__init__()
        self.url, self.credentials, self.trace_id = url, credentials, trace_id
        self.acknowledged: set[str] = set()
        self.first_answer = threading.Event()
        self.answers: set[int] = set()

    def run(self) -> None:
        with connected(self.url, self.credentials) as api:
            while True:
                batch = [event(trace_id=self.trace_id) for _ in range(10)]
                try:
                    answer = api.send(*batch)
                except httpx.TransportError:
                    return
                self.answers.add(answer.status_code)
                if answer.status_code == 202:
                    self.acknowledged.update(each["event_id"] for each in batch)
                self.first_answer.set()


def stored_ids(api: Api, trace_id: str) -> set[str]:
    return {span["event_id"] for span in api.spans(trace_id)}


def integrity(data: Path) -> Any:
    with closing(sqlite3.connect(data / "lumiqtrace.db")) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


def test_every_acknowledged_event_survives_kill_9(tmp_path: Path) -> None:
    data, chance = tmp_path / "data", random.Random(8417)
    with server_process(data) as server:
        credentials = server.credentials()
    acknowledged: dict[str, set[str]] = {}
    for number in range(ROUNDS):
        with server_process(data) as server:
            with connected(server.url, credentials) as api:
                for trace_id, ids in acknowledged.items():
                    assert ids <= stored_ids(api, trace_id)
            clients = [Client(server.url, credentials, f"{number}-{client}") for client in range(3)]
            for client in clients:
                client.start()
            assert all(client.first_answer.wait(20) for client in clients)
            clients[0].join(timeout=chance.uniform(0, 0.2))
            server.process.kill()
            for client in clients:
                client.join()
                assert client.answers == {202}
                acknowledged[client.trace_id] = client.acknowledged
        assert integrity(data) == [("ok",)]
    with server_process(data) as server, connected(server.url, credentials) as api:
        for trace_id, ids in acknowledged.items():
            assert ids
            assert ids <= stored_ids(api, trace_id)


def test_sigterm_under_load_answers_and_keeps_what_was_accepted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(data) as server:
        credentials = server.credentials()
        clients = [Client(server.url, credentials, f"{number}") for number in range(8)]
        for client in clients:
            client.start()
        assert all(client.first_answer.wait(20) for client in clients)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        for client in clients:
            client.join()
            assert client.answers <= {202, 503}
    # The log was folded in: what was accepted is in the file itself.
    assert [each.name for each in data.iterdir()] == ["lumiqtrace.db"]
    assert integrity(data) == [("ok",)]
    with running(data) as again, connected(again.url, credentials) as api:
        for client in clients:
            assert client.acknowledged <= stored_ids(api, client.trace_id)


def test_a_full_disk_is_503_and_passes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(data) as server, connected(server.url, server.credentials()) as api:
        before = event()
        assert api.send(before).status_code == 202
        # No file may grow beyond what the largest is now, as on a disk that is full.
        size = max(each.stat().st_size for each in data.iterdir())
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))
        refused = [event(error_message="x" * 10_000) for _ in range(100)]
        for _ in range(2):
            answer = api.send(*refused)
            assert answer.status_code == 503
            assert answer.json() == {"error": "Cannot store events now: the storage is full or busy"}
            assert int(answer.headers["retry-after"]) > 0
        assert api.http.get("/healthz").status_code == 503
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert retried(api, refused) == 202
        assert len(api.spans()) == 101
    assert integrity(data) == [("ok",)]


def retried(api: Api, batch: list[dict[str, Any]]) -> int:
    """The answer when it is no longer 503; the store takes a moment after a failure."""
    pause = threading.Event()
    for _ in range(100):
        status = api.send(*batch).status_code
        if status != 503:
            return status
        pause.wait(0.05)
    return 503


def test_a_lock_held_by_another_process_is_503_with_a_time_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.schema.LOCK_SECONDS", 0.1)
    with running(tmp_path) as server, connected(server.url, server.credentials) as api:
        batch = [event()]
        with closing(sqlite3.connect(tmp_path / "lumiqtrace.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            answer = api.send(*batch)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            # Reading goes on, and nothing of the refused batch is there.
            assert api.get("trace-abc").status_code == 404
            holder.execute("ROLLBACK")
        assert retried(api, batch) == 202
        assert len(api.spans()) == 1


def test_more_than_may_wait_is_503_before_the_body_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.writer._MAX_WAITING_BATCHES", 1)
    with running(tmp_path) as server, connected(server.url, server.credentials) as api:
        with closing(sqlite3.connect(tmp_path / "lumiqtrace.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            waiting = Client(server.url, server.credentials, "waiting")
            waiting.start()
            pause = threading.Event()
            while api.http.get("/healthz").status_code == 200:
                pause.wait(0.01)
            answer = api.post(b"", {"content-type": "text/plain"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json() == {"error": "Cannot store events now: too many events wait to be stored"}
            holder.execute("ROLLBACK")
        assert waiting.first_answer.wait(20)
        assert 202 in waiting.answers
    waiting.join()
