"""What Vercel's Python runtime offers to one invocation: work after the response, and when its time is up.

The runtime and the package `vercel` are never imported before they are there: outside of Vercel, and without
the package, nothing is offered. Facts are those of vercel-runtime 0.24 and vercel 0.12.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, Final

from .._default import default_client
from .._guard import Guard
from ._flushing import FlushAtEnd, budget_of

ROUNDS: Final = 4
"""Deliveries of one invocation at most: other requests, at the same time, record too."""

_asking: Final = Guard("asking Vercel's runtime", limit=None)


def deliver_after_response(timeout: float) -> bool:
    """Have what is recorded delivered between the response and the invocation's end, in `timeout` seconds.

    False where the runtime does not offer that: the caller delivers before the response ends.
    """
    return bool(_asking(_promise, timeout))


def seconds_left(timeout: float) -> float:
    """`timeout`, or what the function's maximum duration leaves of it; 0.0 where no time is left."""
    return _Delivery(timeout).seconds()


def _promise(timeout: float) -> bool:
    # The runtime imports this module to open an invocation; where it did not, there is none.
    context = sys.modules.get("vercel.cache.context")
    if context is None or context.get_context().wait_until is None:
        return False
    _register(_Delivery(timeout))
    return True


def _register(delivery: _Delivery) -> None:
    importlib.import_module("vercel.functions").wait_until(delivery)


def _deadline() -> datetime | None:
    runtime = sys.modules.get("vercel_runtime")
    found = runtime.get_deadline() if runtime is not None else None
    return found if isinstance(found, datetime) else None


class _Delivery:
    """Delivers when it is awaited; no coroutine, which would complain where nobody awaits it.

    The deadline is that of the invocation it was made in. The runtime awaits what was registered by then
    at the same time, and what was registered meanwhile after all of that. So the next delivery has what the
    function's own work after the response recorded; where that recorded nothing, it costs nothing.
    """

    __slots__ = ("_deadline", "_recorded", "_round", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = _asking(_deadline)
        self._round = 1
        self._recorded = -1

    def __await__(self) -> Generator[Any, None, None]:
        return self._deliver().__await__()

    def seconds(self) -> float:
        deadline = self._deadline
        left = None if deadline is None else (deadline - datetime.now(UTC)).total_seconds()
        return budget_of(self._timeout, left)

    async def _deliver(self) -> None:
        recorded = default_client().stats().recorded
        async with FlushAtEnd(self.seconds):
            pass
        if self._round < ROUNDS and recorded != self._recorded and self.seconds() > 0:
            _asking(self._follow, recorded)

    def _follow(self, recorded: int) -> None:
        after = _Delivery(self._timeout)
        after._deadline, after._round, after._recorded = self._deadline, self._round + 1, recorded
        _register(after)
