"""The one place that swallows errors: our own, where they would otherwise reach the application.

A guard runs a piece of our code. What that code raises is counted and logged, never passed on. A guard
whose code keeps failing opens: from then on it does nothing, and says so once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from ._own import contained, own_work

T = TypeVar("T")

logger = logging.getLogger("lumiqtrace")

FAILURES_UNTIL_OPEN: Final = 20
"""A fault of ours that shows this often in one hook will show on every call."""

LOG_EVERY_SECONDS: Final = 60.0


class Guard:
    """Runs `function(*args)`; gives None when it fails, and also, without running it, once open.

    What ends a program passes through: KeyboardInterrupt, and the SystemExit of a signal handler.
    """

    __slots__ = ("_in_a_row", "_instead", "failures", "last", "limit", "name")

    def __init__(
        self,
        name: str,
        limit: float | None = FAILURES_UNTIL_OPEN,
        instead: str = "calls pass through unrecorded",
    ) -> None:
        """`limit` failures in a row open it; None keeps it closed, for code that must go on trying.

        `instead` says what happens once it is open.
        """
        self.name = name
        self._instead = instead
        self.limit = float("inf") if limit is None else limit
        self.failures = 0
        self.last = ""
        """The kind of what was raised last."""
        self._in_a_row = 0

    def __call__(self, function: Callable[..., T], *args: object) -> T | None:
        if self._in_a_row >= self.limit:
            return None
        try:
            result = function(*args)
        except Exception as error:  # noqa: BLE001 - this is the place that swallows
            self._failed(error)
            return None
        self._in_a_row = 0
        return result

    def close(self) -> None:
        """Try again."""
        self._in_a_row = 0

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last = type(error).__name__
        self._in_a_row += 1
        with suppress(Exception):  # of a log handler
            logger.debug("lumiqtrace: %s failed: %s", self.name, self.last, exc_info=error)
        if self._in_a_row == self.limit:
            say(
                logging.WARNING,
                "lumiqtrace: %s failed (%d in a row) and is switched off in this process; %s. "
                "Enable debug logging to see why.",
                self.name,
                self._in_a_row,
                self._instead,
            )


_speaking: Final = Guard("writing to the log", limit=None)


def say(level: int, message: str, *args: object) -> None:
    """Write to the log. What a handler there raises or records is not the business of who speaks."""
    with own_work():
        _speaking(contained, logger.log, level, message, *args)


class RateLimitedLog:
    """At most one line per cause and minute, with the number of lines that were held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, level: int, cause: str, message: str, *args: object) -> None:
        now = self._clock()
        last, held_back = self._last.get(cause, (None, 0))
        if last is not None and now - last < LOG_EVERY_SECONDS:
            self._last[cause] = (last, held_back + 1)
            return
        self._last[cause] = (now, 0)
        suffix = f" ({held_back} more of these since the last line)" if held_back else ""
        logger.log(level, f"lumiqtrace: {message}{suffix}", *args)  # noqa: G004 - `message` is a format
