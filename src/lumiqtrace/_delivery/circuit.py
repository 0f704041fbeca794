"""When to try again: failures in a row, the wait after each, and the circuit that they open.

Decisions alone: no clock, no thread, no batch. While the circuit is open, delivery is tried at the pace of
the back-off and a flush does not wait for what will most likely fail.
"""

from __future__ import annotations

import math
from typing import Final

from .retry import Outcome, Verdict, backoff

OPEN_AFTER: Final = 5
"""Failures in a row."""

HURRY_EVERY: Final = 5.0
"""Seconds between two tries that flushes bring forward while the circuit is open."""


class Circuit:
    """`retry_at` is the moment of the next try; `told_to_wait` says that the server chose it."""

    __slots__ = ("_failures", "_hurried_at", "retry_at", "told_to_wait")

    def __init__(self) -> None:
        self.retry_at = 0.0
        self.told_to_wait = False
        self._failures = 0
        self._hurried_at = -math.inf

    @property
    def is_open(self) -> bool:
        return self._failures >= OPEN_AFTER

    def failed(self, outcome: Outcome, now: float, rand: float) -> bool:
        """Wait as the server said, else by the back-off; True where this failure opened the circuit."""
        if outcome.verdict is not Verdict.UNAUTHORIZED:  # there the server works
            self._failures += 1
        self.told_to_wait = outcome.wait is not None
        wait = outcome.wait if outcome.wait is not None else backoff(max(1, self._failures), rand)
        self.retry_at = now + wait
        return self._failures == OPEN_AFTER and outcome.verdict is not Verdict.UNAUTHORIZED

    def worked(self) -> bool:
        """The server answered for good; True where the circuit was open."""
        was_open = self.is_open
        self._failures = 0
        self.retry_at = 0.0
        self.told_to_wait = False
        return was_open

    def may_hurry(self, now: float, *, final: bool) -> bool:
        """Whether a flush may bring the next try forward, never one whose moment the server chose.

        While the circuit is open that is granted rarely; the `final` flush of a process always has it.
        """
        if self.told_to_wait and now < self.retry_at:
            return False
        if self.is_open and not final and now - self._hurried_at < HURRY_EVERY:
            return False
        if self.is_open:
            self._hurried_at = now
        return True
