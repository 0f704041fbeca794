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

from .._guard import Guard
from ._flushing import FlushAtEnd, budget_of

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
    importlib.import_module("vercel.functions").wait_until(_Delivery(timeout))
    return True


def _deadline() -> datetime | None:
    runtime = sys.modules.get("vercel_runtime")
    found = runtime.get_deadline() if runtime is not None else None
    return found if isinstance(found, datetime) else None


class _Delivery:
    """Delivers when it is awaited; no coroutine, which would complain where nobody awaits it.

    The deadline is that of the invocation it was made in.
    """

    __slots__ = ("_deadline", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = _asking(_deadline)

    def __await__(self) -> Generator[Any, None, None]:
        return self._deliver().__await__()

    def seconds(self) -> float:
        deadline = self._deadline
        left = None if deadline is None else (deadline - datetime.now(UTC)).total_seconds()
        return budget_of(self._timeout, left)

    async def _deliver(self) -> None:
        async with FlushAtEnd(self.seconds):
            pass
