"""Delivery when a uvicorn server stops, which then ends its process by the signal that stopped it.

Where the application is imported after the server took the signal over (its workers, `--reload`, older
versions), what it puts back is Python's default, and that ends a process without `atexit`. So what is left is
delivered when the server has shut down, before it lets the signal go on. It is no shutdown of ours: a process
may serve again.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from . import _lifecycle
from ._guard import Guard

if TYPE_CHECKING:
    import asyncio

_delivering: Final = Guard("delivering when uvicorn stops", limit=None)

_HOOK: Final = "_lumiqtrace_shutdown"
"""The attribute of a server that says that it delivers."""

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether a second Ctrl-C came, as uvicorn itself takes them."""


def deliver_after(handler: object) -> None:
    """Have the uvicorn server whose signal handler this is deliver when it stops; once, and no other's."""
    server: Any = getattr(handler, "__self__", None)
    if not _is_server(server):
        return
    original = server.shutdown

    async def shutdown(*args: Any, **kwargs: Any) -> Any:
        since = time.monotonic()
        try:
            result = await original(*args, **kwargs)
        except Exception:
            await _deliver(server, since)
            raise
        # A cancellation passed at once: who cancels a server waits for it.
        await _deliver(server, since)
        return result

    if vars(server).setdefault(_HOOK, shutdown) is shutdown:
        server.shutdown = shutdown


def _is_server(found: object) -> bool:
    return any(
        (kind.__module__, kind.__name__) == ("uvicorn.server", "Server") for kind in type(found).__mro__
    )


async def _deliver(server: Any, since: float) -> None:
    """Wait until what is left is out, at most `shutdown_timeout`; less by what was waited `since` in vain."""
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
