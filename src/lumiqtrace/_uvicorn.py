"""Delivery when a uvicorn server stops, which then ends its process by the signal that stopped it.

Where the application is imported after the server took the signal over (its workers, `--reload`, older
versions), what it puts back is Python's default, and that ends a process without `atexit`. So what is left is
delivered when the server has shut down, before it lets the signal go on. It is no shutdown of ours: a process
may serve again. Where no signal stopped the server the program goes on: what it has open stays open, and
`atexit` comes at its end.
"""

from __future__ import annotations

import functools
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from . import _lifecycle
from ._guard import Guard

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

_delivering: Final = Guard("delivering when uvicorn stops", limit=None)

_HOOK: Final = "_lumiqtrace"
"""The attribute of a `shutdown` that says that it delivers."""

_stopping: Final[set[int]] = set()
"""The ids of servers that shut down; a `shutdown` that calls its base class's delivers once, at its end."""

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether a second Ctrl-C came, as uvicorn itself takes them."""


def deliver_after(handler: object) -> None:
    """Have all uvicorn servers deliver when they stop, where this signal handler is the one of such a server.

    All, because a signal has one handler: of several servers in a process the one that started last has
    it, and passes the signal on to the others.
    """
    import inspect

    kinds: list[Any] = [kind for kind in type(getattr(handler, "__self__", None)).__mro__ if _is_server(kind)]
    for kind in kinds:
        original = vars(kind).get("shutdown")
        if inspect.iscoroutinefunction(original) and not hasattr(original, _HOOK):
            kind.shutdown = _delivering_after(original)


def _is_server(found: type) -> bool:
    return any((kind.__module__, kind.__name__) == ("uvicorn.server", "Server") for kind in found.__mro__)


def _delivering_after(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def shutdown(server: Any, *args: Any, **kwargs: Any) -> Any:
        if id(server) in _stopping:
            return await original(server, *args, **kwargs)
        since = time.monotonic()
        _stopping.add(id(server))
        try:
            result = await original(server, *args, **kwargs)
        except Exception:
            await _deliver(server, since)
            raise
        finally:
            _stopping.discard(id(server))
        # A cancellation passed at once: who cancels a server waits for it.
        await _deliver(server, since)
        return result

    setattr(shutdown, _HOOK, True)
    return shutdown


async def _deliver(server: Any, since: float) -> None:
    """Wait until what is left is out, at most `shutdown_timeout`; less by what was waited `since` in vain.

    Only where a signal stopped the server; what it says of that is private, and all of its versions say it.
    """
    if not getattr(server, "_captured_signals", True):
        return
    done = _delivering(_begin, since)
    if done is None:
        return
    import asyncio

    deadline = time.monotonic() + _lifecycle.exit_timeout() + _lifecycle.GRACE
    while not (done.done() or getattr(server, "force_exit", False) or time.monotonic() > deadline):
        await asyncio.wait((done,), timeout=_LOOK_EVERY)


def _begin(since: float) -> asyncio.Future[None]:
    import asyncio

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def deliver() -> None:
        _delivering(_lifecycle.pause, since)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set_result, None)

    try:
        threading.Thread(target=deliver, name="lumiqtrace-flush", daemon=True).start()
    except RuntimeError:  # the process may have no more threads; and nobody needs the loop any more
        deliver()
    return done
