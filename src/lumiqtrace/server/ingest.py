"""`POST /v1/ingest`: events in, 202 when they are durable.

Checks go from cheap to dear, so that a request which will be refused costs little: key, room, type,
size, count, rate, schema, quota. A bad line does not sink the good ones.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from lumiqtrace._event import MAX_EVENTS_PER_BATCH

from .auth import project_of_writer
from .body import HeldBytes, read_body
from .errors import QuotaExceededError, StorageError
from .limits import RateLimit
from .lines import BadLineError, numbered_lines, parse_line
from .losses import HEADER, parse_report
from .storage.base import LossReport, NewEvent, Store


@dataclass(frozen=True, slots=True)
class Ingest:
    """The endpoint over a store. `monthly_events` is each project's quota; None is no quota."""

    store: Store
    monthly_events: int | None = None
    rate: RateLimit = field(default_factory=lambda: RateLimit(None))
    held: HeldBytes = field(default_factory=HeldBytes)

    async def post(self, request: Request) -> JSONResponse:
        """202 `{"accepted": n}`, with `errors` when lines were bad; 400 with `errors` when all were."""
        project, key = project_of_writer(request, self.store)
        if refusal := self.store.refusal():
            raise _retry_later(refusal)
        events, errors = await self._read(request, key)
        if not events:
            return _nothing_valid(errors)
        await self._store_durably(project, events, parse_report(request.headers.get(HEADER)))
        answer: dict[str, Any] = {"accepted": len(events)}
        return JSONResponse(answer | {"errors": errors} if errors else answer, 202)

    async def _read(self, request: Request, key: bytes) -> tuple[list[NewEvent], list[dict[str, Any]]]:
        # A function of its own lets go of the body before the wait for the disk.
        lines = _count_checked(await read_body(request, self.held))
        self._check_rate(key)
        return _parse(lines)

    def _check_rate(self, key: bytes) -> None:
        if wait := self.rate.wait(key):
            raise HTTPException(429, "Rate limit exceeded", {"Retry-After": str(math.ceil(wait))})

    async def _store_durably(self, project: str, events: list[NewEvent], losses: LossReport | None) -> None:
        try:
            stored = self.store.write(project, events, monthly_events=self.monthly_events, losses=losses)
            await asyncio.wrap_future(stored)
        except StorageError as exc:
            raise _retry_later(exc) from exc


def _retry_later(reason: StorageError) -> HTTPException:
    headers = {"Retry-After": str(reason.retry_after)}
    if isinstance(reason, QuotaExceededError):
        return HTTPException(429, "Monthly quota exceeded", headers)
    return HTTPException(503, f"Cannot store events now: {reason}", headers)


def _count_checked(body: bytes) -> list[tuple[int, bytes]]:
    # Counted before anything is decoded, and no further than needed.
    lines = list(itertools.islice(numbered_lines(body), MAX_EVENTS_PER_BATCH + 1))
    if len(lines) > MAX_EVENTS_PER_BATCH:
        raise HTTPException(400, f"Max {MAX_EVENTS_PER_BATCH} events per batch")
    return lines


def _parse(lines: list[tuple[int, bytes]]) -> tuple[list[NewEvent], list[dict[str, Any]]]:
    events: list[NewEvent] = []
    errors: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            events.append(parse_line(line))
        except BadLineError as exc:
            errors.append({"line": number, "error": str(exc)})
    return events, errors


def _nothing_valid(errors: list[dict[str, Any]]) -> JSONResponse:
    text = "No line is a valid event" if errors else "The body holds no events"
    return JSONResponse({"error": text, "errors": errors}, 400)
