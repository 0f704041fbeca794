"""Events in one SQLite file: a write that is done survives kill -9 and power loss.

One thread writes; readers have their own connections and never wait for it. Other processes may use the
same file at the same time.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError

from lumiqtrace.server.credentials import Credentials, digest, new_credentials, shown
from lumiqtrace.server.errors import QuotaExceededError, ServerError, StorageError, UnavailableError
from lumiqtrace.server.loss_log import LossLog

from .base import Loss, LossReport, NewEvent, Project, Rise, StoredSpan
from .losses import note_losses, read_losses
from .schema import credentials, events, open_file, projects, usage
from .writer import Batch, GroupWriter

_log = logging.getLogger("lumiqtrace.server")

_MAX_LOG_BYTES: Final = 64 * 1024 * 1024
_CHECKPOINT_WAIT_SECONDS: Final = 0.25
_CHECKPOINT_PAUSE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 1.0
_RETRY_AFTER: Final = 5

_insert_new = sqlite.insert(events).on_conflict_do_nothing(index_elements=["project", "event_id"])
_count = sqlite.insert(usage)
_count_new = _count.on_conflict_do_update(
    index_elements=["project", "month"], set_={"events": usage.c.events + _count.excluded.events}
).returning(usage.c.events)


class SqliteStore:
    """The `Store` in the file at `path`, which is made, readable by its owner only, when missing.

    Raises ServerError when the file cannot be used or a newer version has written it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_path = path.with_name(path.name + "-wal")
        self._reading, self._writing = open_file(path)
        self._writer = GroupWriter(self._commit, self._bound_log)
        self._unwell_until = 0.0
        self._next_checkpoint = 0.0
        self._closed = False
        self._say_losses = LossLog(_log.warning)

    def create_project(self, name: str) -> Credentials:
        made = new_credentials()
        now = _now()
        keys = [
            {"digest": digest(secret), "kind": kind, "project": made.project_id, "shown": shown(secret)}
            for kind, secret in (("key", made.api_key), ("token", made.read_token))
        ]
        try:
            with self._writing.begin() as connection:
                connection.execute(insert(projects).values(id=made.project_id, name=name, created_at=now))
                connection.execute(insert(credentials).values(created_at=now), keys)
        except OperationalError as exc:
            raise ServerError(f"cannot make a project in {self._path}: {exc.orig}") from exc
        return made

    def projects(self) -> list[Project]:
        query = select(projects.c.id, projects.c.name).order_by(projects.c.created_at)
        with self._reading.connect() as connection:
            return [Project(*row) for row in connection.execute(query)]

    def project_of_key(self, digest: bytes) -> str | None:
        return self._project_of("key", digest)

    def project_of_token(self, digest: bytes) -> str | None:
        return self._project_of("token", digest)

    def _project_of(self, kind: str, digest: bytes) -> str | None:
        query = select(credentials).where(credentials.c.digest == digest, credentials.c.kind == kind)
        with self._reading.connect() as connection:
            row = connection.execute(query).one_or_none()
        return row.project if row is not None and hmac.compare_digest(row.digest, digest) else None

    def refusal(self) -> StorageError | None:
        # After a failure the next requests are turned away at once instead of each waiting to fail.
        if time.monotonic() < self._unwell_until:
            return _unavailable()
        return self._writer.refusal()

    def write(
        self,
        project: str,
        events: Sequence[NewEvent],
        *,
        monthly_events: int | None = None,
        losses: LossReport | None = None,
    ) -> Future[None]:
        batch = Batch(project, events, monthly_events, losses)
        self._writer.submit(batch)
        return batch.done

    def trace(self, project: str, trace_id: str) -> list[StoredSpan]:
        query = (
            select(events.c.span_id, events.c.parent_span_id, events.c.body)
            .where(events.c.project == project, events.c.trace_id == trace_id)
            .order_by(events.c.timestamp, events.c.id)
        )
        with self._reading.connect() as connection:
            return [StoredSpan(*row) for row in connection.execute(query)]

    def losses(self, project: str) -> list[Loss]:
        with self._reading.connect() as connection:
            return read_losses(connection, project)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._checkpoint()
        self._reading.dispose()
        self._writing.dispose()

    def _commit(self, group: Sequence[Batch]) -> list[StorageError | None]:
        rises: list[Rise] = []
        try:
            with self._writing.begin() as connection:
                outcomes = [_store(connection, batch) for batch in group]
                for batch in group:
                    if batch.losses is not None:
                        rises += note_losses(connection, batch.project, batch.losses, _now())
        except OperationalError as exc:
            _log.error("cannot store events: %s", exc.orig)
            self._unwell_until = time.monotonic() + _PAUSE_SECONDS
            raise _unavailable() from exc
        self._say_losses(rises)
        return outcomes

    def _bound_log(self) -> None:
        """Fold the write-ahead log into the database when it is long.

        SQLite does so by itself only while nobody reads, and under steady reading it would grow on.
        """
        if time.monotonic() < self._next_checkpoint or self._log_size() <= _MAX_LOG_BYTES:
            return
        self._checkpoint()
        self._next_checkpoint = time.monotonic() + _CHECKPOINT_PAUSE_SECONDS

    def _log_size(self) -> int:
        try:
            return self._log_path.stat().st_size
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        try:
            # A connection of its own: it waits less long for readers than a write does for the lock.
            with closing(sqlite3.connect(self._path, timeout=_CHECKPOINT_WAIT_SECONDS)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except sqlite3.Error as exc:
            # Nothing is lost: the log is read instead, and the next checkpoint does it.
            _log.warning("cannot shorten the write-ahead log: %s", exc)


def _store(connection: Connection, batch: Batch) -> StorageError | None:
    """Insert what is new and count it, unless that would exceed the quota."""
    received_at = _now()
    rows: list[dict[str, Any]] = [
        event._asdict() | {"project": batch.project, "received_at": received_at} for event in batch.events
    ]
    with connection.begin_nested() as savepoint:
        new = connection.execute(_insert_new, rows, execution_options={"preserve_rowcount": True}).rowcount
        if new == 0:
            return None
        count = {"project": batch.project, "month": f"{datetime.now(UTC):%Y-%m}", "events": new}
        used = connection.execute(_count_new, count).scalar_one()
        if batch.monthly_events is not None and used > batch.monthly_events:
            savepoint.rollback()
            return QuotaExceededError("the month is used up", retry_after=_seconds_to_next_month())
    return None


def _seconds_to_next_month() -> int:
    now = datetime.now(UTC)
    year, month = divmod(now.year * 12 + now.month, 12)
    return max(1, round((datetime(year, month + 1, 1, tzinfo=UTC) - now).total_seconds()))


def _unavailable() -> UnavailableError:
    return UnavailableError("the storage is full or busy", retry_after=_RETRY_AFTER)


def _now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
