"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import threading


class FakeClock:
    """Called, it gives `now`, in seconds; for everything here that takes `clock=`. Thread-safe."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Let time pass and give the new moment. Raises ValueError for time that runs backwards."""
        if seconds < 0:
            raise ValueError(f"advance: {seconds!r} cannot be used; it is a number of seconds from 0 on")
        with self._lock:
            self._now += seconds
            return self._now
