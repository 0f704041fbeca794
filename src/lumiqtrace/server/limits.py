"""How often one key may post: a token bucket per key, or no limit at all."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """`per_second` requests on average for each key, and as many at once; None is no limit."""

    def __init__(self, per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        # Only keys that exist get here, so this is as small as the table of keys.
        self._buckets: dict[bytes, tuple[float, float]] = {}

    def wait(self, key: bytes) -> float:
        """Seconds until this request would be allowed; 0.0 when it is, and it is counted."""
        if self._per_second is None:
            return 0.0
        capacity = max(1.0, self._per_second)
        now = self._clock()
        level, filled_at = self._buckets.get(key, (capacity, now))
        level = min(capacity, level + (now - filled_at) * self._per_second)
        if level < 1.0:
            self._buckets[key] = (level, now)
            return (1.0 - level) / self._per_second
        self._buckets[key] = (level - 1.0, now)
        return 0.0
