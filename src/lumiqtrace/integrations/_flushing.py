"""Flushing at the end of a call: how long it may take, and who does it where such calls are nested.

The outermost call flushes, once, when it ends; what runs inside leaves it to that. Where nothing was recorded
since the last flush it costs nothing: no request and no thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from .._client import Client
from .._default import default_client
from .._guard import Guard

if TYPE_CHECKING:
    import asyncio

MARGIN: Final = 0.3
"""Seconds before a platform's deadline that are left for the answer itself."""

_asking: Final = Guard("asking how long a flush may take", limit=None)
_flushing: Final = Guard("flushing", limit=None)


def budget_of(limit: float, remaining: float | None, margin: float = MARGIN) -> float:
    """Seconds that a flush may take: `limit`, and `margin` less than remains; 0.0 where no time is left.

    `remaining` is None where there is no deadline.
    """
    if remaining is None:
        return max(0.0, limit)
    return max(0.0, min(limit, remaining - margin))


def checked_seconds(name: str, value: object) -> float:
    """`value` as seconds. Raises TypeError for what is no number, ValueError for one that is no duration."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: got {value!r}; it is a number of seconds, for example 2.0")
    if not math.isfinite(value) or value < 0:
        raise ValueError(
            f"{name}: {value!r} cannot be used; it is a number of seconds from 0, for example 2.0"
        )
    return float(value)


class FlushAtEnd:
    """Around a call, as a sync or async context manager: what is recorded by its end is flushed then.

    `seconds()` is asked at the end how long that may take: None means the option `flush_timeout`, 0 or less
    that there is no time for it, so that the events wait for the next flush. Once. Never raises; what the
    call raised goes on.
    """

    __slots__ = ("_around", "_further", "_seconds", "open", "waits")

    def __init__(self, seconds: Callable[[], float | None]) -> None:
        self.open = False
        """Whether it will still flush. A task that the call left behind may see it when it no longer is."""
        self.waits = True
        """Whether the end is a place to wait for the delivery."""
        self._seconds = seconds
        self._around: FlushAtEnd | None = None
        self._further: FlushAtEnd | None = None

    def __enter__(self) -> Self:
        around = _outermost.get()
        if around is not None and around.open:
            self._further = around
        else:
            self.open = True
            self._around = around
            _outermost.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.leave():
            _flushing(self._flush)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.leave():
            return
        if isinstance(error, GeneratorExit):  # a coroutine that is closed may not wait for anything
            begin_delivery()
            return
        flushing = _flushing(self._start)
        if flushing is not None:
            import asyncio

            await asyncio.wait((flushing,))
            _flushing(flushing.result)

    def leave(self) -> bool:
        """End the call without a flush; whether one is due: nobody further out will do it. Once."""
        further, self._further = self._further, None
        if not self.open:
            # A task that was left behind may be over after the call that would have flushed for it.
            return further is not None and not further.open
        self.open = False
        if _outermost.get() is self:
            _outermost.set(self._around)
        self._around = None
        return True

    def _flush(self) -> None:
        if not self.waits:
            begin_delivery()
            return
        seconds = _asking(self._seconds)
        if seconds is None or seconds > 0:
            default_client().flush(seconds)

    def _start(self) -> asyncio.Task[bool] | None:
        client = default_client()
        seconds = _asking(self._seconds)
        if (seconds is not None and seconds <= 0) or _is_idle(client):
            return None
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # another event loop than asyncio's: there is nothing of it to wait on
            client.flush(seconds)
            return None
        return asyncio.ensure_future(client.aflush(seconds))


def begin_delivery() -> None:
    """Have delivered what was recorded, where there is no place to wait for it. Never raises."""
    _flushing(default_client().flush, 0.0)


def _is_idle(client: Client) -> bool:
    """Whether nothing waits to be delivered, so that there is nothing to make a thread for."""
    if not client.recording:
        return True
    client._settle(final=False)
    stats = client.stats()
    return not (stats.queued or stats.in_flight)


_outermost: Final[ContextVar[FlushAtEnd | None]] = ContextVar("lumiqtrace_flush", default=None)


def flush_is_due() -> bool:
    """Whether a call further out flushes when it ends, so that nothing inside it needs to."""
    outermost = _outermost.get()
    return outermost is not None and outermost.open
