"""Delivery on SIGTERM, where nobody else handles it: Python's default ends a process without `atexit`.

Servers that stop gracefully handle the signal themselves, and this stays out of their way; uvicorn delivers
before it lets the signal end the process (`_uvicorn`). Otherwise the events are delivered, for at most
`shutdown_timeout`, and the signal then ends the process as it would have; a second one ends it at once. A
forked child inherits it, and delivers what is its own.
"""

from __future__ import annotations

import _thread
import os
import sys
from contextlib import suppress
from types import BuiltinFunctionType, FrameType
from typing import Any, Final

from . import _lifecycle
from ._guard import Guard

_installing: Final = Guard("handling SIGTERM", limit=None)
_delivering: Final = Guard("delivering on SIGTERM", limit=None)

_came_to = 0
"""The process that has had its first SIGTERM; a fork does not inherit that."""


def deliver_on_sigterm() -> None:
    """Handle SIGTERM in this process unless it is handled or ignored already; only the main thread can.

    Called when a client is built and when a process records its first event. Where a uvicorn server has it
    already, that one delivers, whichever thread this is. Who handles the signal from then on simply takes our
    place, and may call the handler that was there before, as uvicorn does.
    """
    _installing(_install)


def _install() -> None:
    import signal

    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        # The main thread is asked for by trying: under eventlet none says that it is.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, _on_sigterm)
    elif "uvicorn.server" in sys.modules:
        with _lifecycle.loading():
            from . import _uvicorn
        _uvicorn.deliver_after(handler)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    global _came_to  # noqa: PLW0603 - signals belong to the process, as this does
    import signal

    if _came_to != os.getpid():
        _came_to = os.getpid()
        if _delivering(_deliver, number) is False:
            return
    # Where a handler that was put in our place passes the signal on to us, the end is its business.
    if signal.getsignal(number) is _on_sigterm:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _deliver(number: int) -> bool:
    """Deliver; False where it goes on after this, and the signal comes again when it is done."""
    alone: list[bool] = []
    over = _thread.allocate_lock()
    over.acquire()

    def end() -> None:
        try:
            _lifecycle.end()
        finally:
            over.release()
            if alone:
                _send_again(number)

    # On a thread of its own: the signal may have interrupted this one while it held a lock of ours. Of gevent
    # and eventlet that is a greenlet, and so is what was interrupted: their loop, which lets nobody wait, or
    # our exporter, which would wait for itself. There the signal is over first. Not by `Thread`, whose start
    # waits.
    patience = _lifecycle.exit_timeout() + _lifecycle.GRACE
    start = _thread.start_new_thread
    if not isinstance(start, BuiltinFunctionType):
        alone.append(True)
    start(end, ())
    if alone:
        _wake_eventlet(number, patience)
        return False
    over.acquire(timeout=patience)
    return True


def _wake_eventlet(number: int, patience: float) -> None:
    """Its loop sleeps on after a signal, until the next timer or an end to be read; not beyond our time."""
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is None:
        return
    hub, original = hubs.get_hub(), sys.modules["eventlet.patcher"].original
    reader, writer = os.pipe()
    listener: Any = hub.add(hub.READ, reader, lambda _file: hub.remove(listener), None, None)
    os.close(writer)
    sleep = original("time").sleep

    def insist() -> None:
        sleep(patience)
        _send_again(number)

    original("_thread").start_new_thread(insist, ())


def _send_again(number: int) -> None:
    import signal

    if signal.getsignal(number) is _on_sigterm:
        os.kill(os.getpid(), number)
