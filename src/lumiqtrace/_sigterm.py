"""Delivery on SIGTERM, where nobody else handles it: Python's default ends a process without `atexit`.

Servers that stop gracefully handle the signal themselves, and this stays out of their way. Otherwise the
events are delivered, for at most `shutdown_timeout`, and the signal then ends the process as it would have;
a second one ends it at once. A forked child inherits it, and delivers what is its own.
"""

from __future__ import annotations

import os
import threading
from types import FrameType
from typing import Final

from . import _lifecycle
from ._guard import Guard

_installing: Final = Guard("handling SIGTERM", limit=None)
_delivering: Final = Guard("delivering on SIGTERM", limit=None)

_GRACE: Final = 0.5
"""Seconds beyond the timeout, in which a shutdown that keeps to it returns."""

_came_to = 0
"""The process that has had its first SIGTERM; a fork does not inherit that."""


def deliver_on_sigterm() -> None:
    """Handle SIGTERM in this process unless it is handled or ignored already; only the main thread can.

    Called when a client is built and when a process records its first event. Who handles the signal from
    then on simply takes our place, and may call the handler that was there before, as uvicorn does.
    """
    if threading.current_thread() is threading.main_thread():
        _installing(_install)


def _install() -> None:
    import signal

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    global _came_to  # noqa: PLW0603 - signals belong to the process, as this does
    import signal

    if _came_to != os.getpid():
        _came_to = os.getpid()
        _delivering(_deliver)
    # Where a handler that was put in our place passes the signal on to us, the end is its business.
    if signal.getsignal(number) is _on_sigterm:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _deliver() -> None:
    # On a thread of its own: the signal may have interrupted this one while it held a lock of ours.
    patience = _lifecycle.exit_timeout()
    thread = threading.Thread(target=_lifecycle.end, name="lumiqtrace-sigterm", daemon=True)
    thread.start()
    thread.join(patience + _GRACE)
