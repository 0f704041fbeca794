"""What senders say they lost: a report on an ingest request in, `GET /v1/losses` out.

A report rides in the header `x-lumiqtrace-losses`, is stored with the request's events, and is never a
reason to refuse them: one that cannot be read is left out. Its counts are those of one process since it
started, so that one sent again changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from lumiqtrace._event import iso_timestamp

from .auth import project_of_reader
from .storage.base import Loss, LossReport, Store

HEADER: Final = "x-lumiqtrace-losses"
MAX_REPORT_BYTES: Final = 1024
MAX_REASONS: Final = 16
MAX_NAME: Final = 64
"""Characters of a service's and an environment's name that are kept, and that a reason may have."""
MAX_COUNT: Final = 2**48
"""Events that one process may have lost; added up over all rows of a project it still fits 64 bits."""

_Process = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _Report(msgspec.Struct):
    process: _Process
    dropped: Annotated[dict[_Reason, _Count], msgspec.Meta(max_length=MAX_REASONS)]
    service: str | None = None
    environment: str | None = None


_decode: Final = msgspec.json.Decoder(_Report).decode


def parse_report(header: str | None) -> LossReport | None:
    """The report in a header's value, None where there is none or it cannot be read; never raises.

    The value is a JSON object of at most 1 KiB: `process` (32 hex digits), `dropped` (counts by reason) and,
    where known, `service` and `environment`.
    """
    if not header or len(header) > MAX_REPORT_BYTES:
        return None
    try:
        report = _decode(header.encode("latin-1"))  # as the server decoded it
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not all(reason.isprintable() for reason in report.dropped):
        return None
    lost = {reason: count for reason, count in report.dropped.items() if count}
    if not lost:
        return None
    service, environment = _name(report.service), _name(report.environment)
    return LossReport(report.process, service, environment, lost)


def _name(text: str | None) -> str | None:
    """What can be shown of a name; the counts are worth more than its spelling."""
    shown = "".join(character for character in text or "" if character.isprintable())
    return shown[:MAX_NAME] or None


class Losses:
    """`GET /v1/losses?projectId=` over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request) -> JSONResponse:
        """200 with `{"losses": [...]}`, the one reported last first; empty where nothing was reported."""
        project = project_of_reader(request, self._store)
        found = await run_in_threadpool(self._store.losses, project)
        return JSONResponse({"losses": [_shown(loss) for loss in found]})


def _shown(loss: Loss) -> dict[str, Any]:
    return {
        "service": loss.service,
        "environment": loss.environment,
        "reason": loss.reason,
        "events": loss.events,
        "processes": loss.processes,
        "firstSeen": iso_timestamp(loss.first_seen / 1_000_000),
        "lastSeen": iso_timestamp(loss.last_seen / 1_000_000),
    }
