"""What there is to tell the user about delivery: collected under a lock, said outside of it.

Each cause once a minute at most; of events that were given up the next line then tells all there were since.
Whoever listens to the log may ask for the statistics, or flush.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from .._guard import LOG_EVERY_SECONDS, Guard, RateLimitedLog
from .._own import contained, own_work

logger = logging.getLogger("lumiqtrace")

_speaking: Final = Guard("writing to the log", limit=None)


class Complaints:
    """`on_error` hears the warnings as well."""

    def __init__(self, on_error: Callable[[str], None] | None, clock: Callable[[], float]) -> None:
        self._on_error = on_error
        self._clock = clock
        self._lost: Counter[str] = Counter()
        self._lost_at: dict[str, float] = {}
        self._log = RateLimitedLog(clock)
        self._unsaid: deque[tuple[int, str | None, str]] = deque(maxlen=100)

    def add(self, cause: str, message: str) -> None:
        """Have a warning said by the next `speak`."""
        self._unsaid.append((logging.WARNING, cause, message))

    def good_news(self, cause: str, message: str) -> None:
        """The same for what is no warning."""
        self._unsaid.append((logging.INFO, cause, message))

    def lost(self, reason: str, total: int, why: str, *, final: bool) -> None:
        """Have told how many of `total` events given up for a reason are not told yet; if `final`, now."""
        count = total - self._lost[reason]
        now = self._clock()
        if count <= 0 or (not final and now - self._lost_at.get(reason, -math.inf) < LOG_EVERY_SECONDS):
            return
        self._lost[reason] = total
        self._lost_at[reason] = now
        were = "event was" if count == 1 else "events were"
        self._unsaid.append((logging.WARNING, None, f"{count} {were} given up ({reason}): {why}"))

    def speak(self) -> None:
        """Say what there is to say. Not under a lock."""
        while self._unsaid:
            try:
                level, cause, message = self._unsaid.popleft()
            except IndexError:  # another thread said it
                return
            with own_work():
                if cause is None:
                    _speaking(contained, logger.log, level, "lumiqtrace: %s", message)
                else:
                    _speaking(contained, self._log, level, cause, "%s", message)
                if self._on_error is not None and level >= logging.WARNING:
                    _speaking(contained, self._on_error, f"lumiqtrace: {message}")
