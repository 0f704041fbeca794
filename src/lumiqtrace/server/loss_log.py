"""What senders lost, said in the server's log: at most a line a minute for each cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from .storage.base import Rise

LOG_EVERY_SECONDS: Final = 60.0
MAX_CAUSES: Final = 1000
"""Causes whose last line is remembered."""


class LossLog:
    """A cause is a project, service, environment and reason; what is held back is in its next line.

    One thread at a time uses it.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._told: dict[tuple[str | None, ...], tuple[float, int]] = {}

    def __call__(self, rises: Iterable[Rise]) -> None:
        """Say, or keep for later, what rose."""
        now = self._clock()
        for rise in rises:
            cause = (rise.project, rise.service, rise.environment, rise.reason)
            said_at, unsaid = self._told.pop(cause, (None, 0))
            events = unsaid + rise.events
            if said_at is not None and now - said_at < LOG_EVERY_SECONDS:
                self._told[cause] = (said_at, events)
                continue
            self._told[cause] = (now, 0)
            self._say(f"{sentence(events, *cause[1:])}, in project {rise.project}")
        while len(self._told) > MAX_CAUSES:
            del self._told[next(iter(self._told))]


def sentence(events: int, service: str | None, environment: str | None, reason: str | None) -> str:
    """`12 events lost by checkout (production): queue full`."""
    noun = "event" if events == 1 else "events"
    where = f" ({environment})" if environment else ""
    why = (reason or "unknown").replace("_", " ")
    return f"{events:,} {noun} lost by {service or 'an unnamed service'}{where}: {why}"
