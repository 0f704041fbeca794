"""The store by itself: its file, its writer, and other processes at the same file."""

from __future__ import annotations

import sqlite3
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lumiqtrace.server import ServerError, SqliteStore
from lumiqtrace.server.credentials import digest
from lumiqtrace.server.errors import QueueFullError, UnavailableError
from lumiqtrace.server.storage.base import NewEvent
from lumiqtrace.server.storage.schema import SCHEMA_VERSION

WAIT = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def new_event(span_id: str = "s", size: int = 10) -> NewEvent:
    body = b'{"x":"' + b"x" * size + b'"}'
    return NewEvent(uuid.uuid4().bytes, "t", span_id, None, 0, body)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the write lock as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


def test_only_hashes_of_secrets_are_in_the_file(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        made = store.create_project("p")
        assert store.project_of_key(digest(made.api_key)) == made.project_id
        assert store.project_of_token(digest(made.read_token)) == made.project_id
        assert store.project_of_key(digest(made.read_token)) is None
        assert store.project_of_token(digest(made.api_key)) is None
    content = path.read_bytes()
    assert digest(made.api_key) in content
    for secret in (made.api_key, made.read_token):
        assert len(secret) == 4 + 64
        assert secret not in repr(made)
        assert secret.encode() not in content
        assert secret[12:].encode() not in content


def test_the_files_are_their_owners(store: SqliteStore, path: Path) -> None:
    store.write("p", [new_event()]).result(WAIT)
    files = sorted(path.parent.iterdir())
    assert [each.name for each in files] == ["events.db", "events.db-shm", "events.db-wal"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_every_commit_waits_for_the_disk(store: SqliteStore) -> None:
    with store._writing.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(SqliteStore(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(
        ServerError,
        match=rf"newer lumiqtrace \(schema {SCHEMA_VERSION + 1}; this one knows {SCHEMA_VERSION}\): upgrade",
    ):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a shopping list, long enough to be looked at as a header" * 10)
    before = path.read_bytes()
    with pytest.raises(ServerError, match="file is not a database"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_batch_that_cannot_be_stored_fails_alone(store: SqliteStore, path: Path) -> None:
    with write_lock(path):
        # The first commit waits for the lock with whatever came until then; the rest share the next.
        writes = [store.write("p", [new_event(f"good {number}")]) for number in range(3)]
        poison = store.write("p", [new_event(), new_event("\ud800")])
        writes += [store.write("p", [new_event(f"good {number}")]) for number in range(3, 6)]
    for write in writes:
        write.result(WAIT)
    assert isinstance(poison.exception(WAIT), UnicodeEncodeError)
    assert [span.span_id for span in store.trace("p", "t")] == [f"good {number}" for number in range(6)]
    assert store.refusal() is None


def test_a_lock_held_too_long_fails_what_waits_and_the_writer_lives_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.schema.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("lumiqtrace.server.storage.sqlite._PAUSE_SECONDS", 0.0)
    with closing(SqliteStore(path)) as store:
        with write_lock(path):
            failed = [store.write("p", [new_event()]) for _ in range(3)]
            for write in failed:
                assert isinstance(write.exception(WAIT), UnavailableError)
        store.write("p", [new_event("after")]).result(WAIT)
        assert [span.span_id for span in store.trace("p", "t")] == ["after"]


def test_a_project_that_cannot_be_made_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.schema.LOCK_SECONDS", 0.1)
    with closing(SqliteStore(path)) as store:
        with write_lock(path):
            with pytest.raises(ServerError, match=r"cannot make a project in .*: database is locked"):
                store.create_project("p")
            with pytest.raises(ServerError, match=r"cannot use .* as a database: database is locked"):
                SqliteStore(path)
        assert store.projects() == []


def test_after_a_failure_writes_are_turned_away_for_a_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.schema.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("lumiqtrace.server.storage.sqlite._PAUSE_SECONDS", 60.0)
    with closing(SqliteStore(path)) as store:
        assert store.refusal() is None
        with write_lock(path):
            assert store.write("p", [new_event()]).exception(WAIT)
        refusal = store.refusal()
        assert isinstance(refusal, UnavailableError)
        assert refusal.retry_after == 5


def test_what_waits_is_bounded_in_bytes_and_in_number(
    path: Path, monkeypatch: pytest.MonkeyPatch, store: SqliteStore
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.writer._MAX_WAITING_BATCHES", 3)
    with write_lock(path):
        writes = [store.write("p", [new_event()]) for _ in range(3)]
        with pytest.raises(QueueFullError):
            store.write("p", [new_event()])
    for write in writes:
        write.result(WAIT)
    monkeypatch.setattr("lumiqtrace.server.storage.writer._MAX_WAITING_BYTES", 1000)
    with write_lock(path):
        large = store.write("p", [new_event(size=2000)])
        with pytest.raises(QueueFullError):
            store.write("p", [new_event()])
    large.result(WAIT)
    assert store.refusal() is None
    assert len(store.trace("p", "t")) == 4


def test_a_write_that_nobody_waits_for_any_more_does_not_stop_the_writer(
    store: SqliteStore, path: Path
) -> None:
    with write_lock(path):
        first = store.write("p", [new_event("first")])
        given_up = [store.write("p", [new_event("given up")]) for _ in range(5)]
        cancelled = [write for write in given_up if write.cancel()]
        last = store.write("p", [new_event("last")])
    first.result(WAIT)
    last.result(WAIT)
    assert cancelled
    assert len(store.trace("p", "t")) == 2 + len(given_up) - len(cancelled)


def test_closing_commits_what_waits_and_folds_the_log_in(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        writes = [store.write("p", [new_event(f"{number}")]) for number in range(200)]
        store.close()
        assert all(write.done() and write.exception() is None for write in writes)
        with pytest.raises(UnavailableError):
            store.write("p", [new_event()])
    assert [each.name for each in path.parent.iterdir()] == ["events.db"]
    with closing(SqliteStore(path)) as again:
        assert len(again.trace("p", "t")) == 200


def test_the_log_stays_short_while_somebody_always_reads(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.sqlite._MAX_LOG_BYTES", 1_000_000)
    monkeypatch.setattr("lumiqtrace.server.storage.sqlite._CHECKPOINT_PAUSE_SECONDS", 0.0)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            store.trace("p", "t")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    longest = 0
    for _ in range(60):
        store.write("p", [new_event(size=100_000)]).result(WAIT)
        longest = max(longest, path.with_name(path.name + "-wal").stat().st_size)
    done.set()
    for reader in readers:
        reader.join()
    # 60 writes of 100 kB would be over 6 MB; SQLite by itself starts to fold at 4 MB, and never shortens.
    assert longest < 3_000_000
