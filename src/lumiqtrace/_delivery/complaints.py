"""What there is to tell the user about delivery: collected under a lock, said outside of it.

Each cause once a minute at most. Whoever listens to the log may ask for the statistics, or flush.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from .._guard import Guard, RateLimitedLog
from .._own import contained, own_work

_speaking: Final = Guard("writing to the log", limit=None)


class Complaints:
    """`on_error` hears the warnings as well."""

    def __init__(self, on_error: Callable[[str], None] | None, clock: Callable[[], float]) -> None:
        self._on_error = on_error
        self._log = RateLimitedLog(clock)
        self._unsaid: deque[tuple[int, str, str]] = deque(maxlen=100)

    def add(self, cause: str, message: str) -> None:
        """Have a warning said by the next `speak`."""
        self._unsaid.append((logging.WARNING, cause, message))

    def good_news(self, cause: str, message: str) -> None:
        """The same for what is no warning."""
        self._unsaid.append((logging.INFO, cause, message))

    def speak(self) -> None:
        """Say what there is to say. Not under a lock."""
        while self._unsaid:
            try:
                level, cause, message = self._unsaid.popleft()
            except IndexError:  # another thread said it
                return
            with own_work():
                _speaking(contained, self._log, level, cause, "%s", message)
                if self._on_error is not None and level >= logging.WARNING:
                    _speaking(contained, self._on_error, f"lumiqtrace: {message}")
