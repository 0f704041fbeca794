"""The table of losses: one row for each process and reason, holding the largest count that was reported.

A project keeps the rows that were reported last; what is older goes, so that processes without end, each
with an id of its own, fill no disk.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, func, select, tuple_
from sqlalchemy.dialects import sqlite

from .base import Loss, LossReport, Rise
from .schema import losses

MAX_ROWS: Final = 10_000
"""Of one project."""

_insert = sqlite.insert(losses)
_raise = _insert.on_conflict_do_update(
    index_elements=["project", "process", "reason"],
    set_={
        "events": func.max(losses.c.events, _insert.excluded.events),
        "last_seen": func.max(losses.c.last_seen, _insert.excluded.last_seen),
    },
)


def note_losses(connection: Connection, project: str, report: LossReport, now: int) -> list[Rise]:
    """Store a report that came at `now`, microseconds since 1970; gives what it says beyond those before."""
    known = _known(connection, project, report.process)
    rises = [
        Rise(project, report.service, report.environment, reason, count - known.get(reason, 0))
        for reason, count in report.dropped.items()
        if count > known.get(reason, 0)
    ]
    names = {"service": report.service, "environment": report.environment}
    seen = {"first_seen": now, "last_seen": now}
    key = {"project": project, "process": report.process}
    rows = [key | names | seen | {"reason": r, "events": count} for r, count in report.dropped.items()]
    connection.execute(_raise, rows)
    if not report.dropped.keys() <= known.keys():
        _make_room(connection, project)
    return rises


def _known(connection: Connection, project: str, process: str) -> dict[str, int]:
    query = select(losses.c.reason, losses.c.events).where(
        losses.c.project == project, losses.c.process == process
    )
    return {row.reason: row.events for row in connection.execute(query)}


def _make_room(connection: Connection, project: str) -> None:
    key = (losses.c.process, losses.c.reason)
    oldest = (
        select(*key).where(losses.c.project == project).order_by(losses.c.last_seen.desc()).offset(MAX_ROWS)
    )
    if connection.execute(oldest.limit(1)).first() is not None:
        connection.execute(delete(losses).where(losses.c.project == project, tuple_(*key).in_(oldest)))


def read_losses(connection: Connection, project: str) -> list[Loss]:
    """By service, environment and reason, the one reported last first."""
    same = (losses.c.service, losses.c.environment, losses.c.reason)
    last_seen = func.max(losses.c.last_seen)
    query = (
        select(
            *same,
            func.sum(losses.c.events),
            func.count(losses.c.process.distinct()),
            func.min(losses.c.first_seen),
            last_seen,
        )
        .where(losses.c.project == project)
        .group_by(*same)
        .order_by(last_seen.desc(), *same)
    )
    return [Loss(*row) for row in connection.execute(query)]
