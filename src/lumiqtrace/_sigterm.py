"""Delivery on SIGTERM, where nobody else handles it: Python's default ends a process without `atexit`.

Servers that stop gracefully handle the signal themselves, and this stays out of their way; uvicorn delivers
before it lets the signal end the process (`_uvicorn`). Otherwise the events are delivered, for at most
`shutdown_timeout`, and the signal then ends the process as it would have; a second one ends it at once.

A forked child has Python's default again until it records an event of its own: what comes to a child before
its interpreter is ready is forgotten where there is a handler, and whoever sent it would wait for ever.
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

_kept = False
"""Whether forks are told of."""

_aside = 0
"""The process whose main thread is forking now."""


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
            handler = _on_sigterm
            _keep_from_children()
    elif "uvicorn.server" in sys.modules:
        with _lifecycle.loading():
            from . import _uvicorn
        _uvicorn.deliver_after(handler)
    if handler is _on_sigterm and _lifecycle.is_worker():
        with _lifecycle.loading():
            from . import _sigterm_seen
        _sigterm_seen.insist(signal.SIGTERM, _has_come)


def _keep_from_children() -> None:
    global _kept  # noqa: PLW0603 - the hooks belong to the process, as this does
    if not _kept and hasattr(os, "register_at_fork"):
        _kept = True
        os.register_at_fork(before=_step_aside, after_in_parent=_step_back)


def _step_aside() -> None:
    global _aside  # noqa: PLW0603
    import signal

    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        with suppress(ValueError):  # a fork of another thread's
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _aside = os.getpid()


def _step_back() -> None:
    global _aside  # noqa: PLW0603
    import signal

    if _aside == os.getpid():
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, _on_sigterm)
            _aside = 0


def _has_come() -> bool:
    import signal

    return _came_to == os.getpid() or signal.getsignal(signal.SIGTERM) is not _on_sigterm


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
    is_greenlet = not isinstance(start, BuiltinFunctionType)
    # Who holds a lock of ours goes on as well, and lets go of it.
    if is_greenlet or _lifecycle.holds_a_lock():
        alone.append(True)
    start(end, ())
    if is_greenlet:
        _wake_eventlet(number, patience)
    if alone:
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
