"""The SQLite file: its tables, its version, and how connections to it are opened.

A connection for writing takes the write lock when its transaction begins, so that it waits for the lock
there and cannot fail later on; a commit is on the disk when it returns.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.exc import DatabaseError

from lumiqtrace.server.errors import ServerError

SCHEMA_VERSION: Final = 2
"""2 added the table of losses."""

LOCK_SECONDS: Final = 5.0
"""How long a statement waits for another process's lock."""

_metadata = MetaData()

projects = Table(
    "projects",
    _metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at", Integer, nullable=False),
)

credentials = Table(
    "credentials",
    _metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", String, nullable=False),
    Column("project", ForeignKey(projects.c.id), nullable=False),
    Column("shown", String, nullable=False),
    Column("created_at", Integer, nullable=False),
)

# Times are microseconds since 1970. The clock of the sender may be wrong: received_at is ours.
events = Table(
    "events",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String, nullable=False),
    Column("event_id", LargeBinary, nullable=False),
    Column("trace_id", String, nullable=False),
    Column("span_id", String, nullable=False),
    Column("parent_span_id", String),
    Column("timestamp", Integer, nullable=False),
    Column("received_at", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("project", "event_id"),
    # With the time in it, SQLite never takes an index of times and filters by trace.
    Index("events_by_trace", "project", "trace_id", "timestamp"),
)

usage = Table(
    "usage",
    _metadata,
    Column("project", String, primary_key=True),
    Column("month", String, primary_key=True),
    Column("events", Integer, nullable=False),
)

# One row is one process's count, which only grows. Without the rows of old processes the table is bounded.
losses = Table(
    "losses",
    _metadata,
    Column("project", String, primary_key=True),
    Column("process", String, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("service", String),
    Column("environment", String),
    Column("events", Integer, nullable=False),
    Column("first_seen", Integer, nullable=False),
    Column("last_seen", Integer, nullable=False),
)


def open_file(path: Path) -> tuple[Engine, Engine]:
    """Engines for reading and for writing; the file is made when it is not there. Raises ServerError."""
    try:
        # The log and shared-memory files beside it get the permissions of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise ServerError(f"cannot open {path}: {exc.strerror}") from exc
    writing = _engine(path, "IMMEDIATE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
    try:
        with writing.begin() as connection:
            _prepare(connection, path)
    except DatabaseError as exc:
        writing.dispose()
        raise ServerError(f"cannot use {path} as a database: {exc.orig}") from exc
    except ServerError:
        writing.dispose()
        raise
    return _engine(path, "DEFERRED", "PRAGMA query_only=ON"), writing


def _prepare(connection: Connection, path: Path) -> None:
    version: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > SCHEMA_VERSION:
        raise ServerError(
            f"{path} was written by a newer lumiqtrace (schema {version}; this one knows {SCHEMA_VERSION}): "
            "upgrade with pip install -U 'lumiqtrace[server]'"
        )
    if version < SCHEMA_VERSION:
        # Whatever is missing is made; so far a newer schema only ever had tables more.
        _metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _engine(path: Path, mode: str, *pragmas: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": LOCK_SECONDS},
        hide_parameters=True,  # they would be in messages, and so in the log
        max_overflow=-1,  # threads are bounded already; none shall wait for a connection
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        # Python's own transactions begin late and without the lock.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine
