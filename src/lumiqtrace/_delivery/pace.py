"""When the exporter's thread wakes, and when what waits is due: a few decisions, no clock and no thread.

Each wake has a price for the program: a thread that waits for the interpreter makes every release of its
lock a call to the kernel, 35 us on the measured virtual machine, and a program that computes without a
pause can keep it waiting for seconds. So the thread wakes itself while events keep coming, and in a burst
that it cannot follow it is woken less often.
"""

from __future__ import annotations

from typing import Final

BURST_INTERVAL: Final = 1.0
"""Seconds a full batch waits at most in such a burst."""


class Pace:
    """`batch_size` events are a full batch; none waits longer than `interval` seconds for its turn."""

    __slots__ = ("_batch_size", "_due_at", "_interval", "wake_at")

    def __init__(self, batch_size: int, interval: float) -> None:
        self._batch_size = batch_size
        self._interval = interval
        self._due_at: float | None = None
        self.wake_at = batch_size
        """How many events must wait for the thread to be woken."""

    def woke(self, waiting: int) -> None:
        """The backlog found on waking is what the next wake is worth, until less is found."""
        self.wake_at = max(self._batch_size, waiting)

    def took(self, now: float) -> None:
        """A batch was taken; what comes now, or was left, has until the next turn."""
        burst = self.wake_at >= 2 * self._batch_size
        self._due_at = now + (min(self._interval, BURST_INTERVAL) if burst else self._interval)

    def is_due(self, waiting: int, now: float) -> bool:
        """Whether what waits is to be taken now."""
        late = self._due_at is not None and now >= self._due_at
        return waiting > 0 and (late or waiting >= self._batch_size)

    def until_due(self, waiting: int, now: float) -> float | None:
        """Seconds to sleep; None after a whole turn without an event: the next one wakes the thread."""
        if self.is_due(waiting, now):
            return 0.0
        if self._due_at is None and waiting:
            self._due_at = now + self._interval
        elif self._due_at is not None and now >= self._due_at:
            self._due_at = None
        return None if self._due_at is None else self._due_at - now
