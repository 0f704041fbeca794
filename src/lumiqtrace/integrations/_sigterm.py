"""Delivery on SIGTERM, where nobody else handles it: Python's default ends a process without `atexit`.

Servers that stop gracefully handle the signal themselves, and this stays out of their way. Otherwise the
events are delivered, for at most `shutdown_timeout`, and the signal then ends the process as it would have.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Final

from .._client import default_client, shutdown_default
from .._guard import Guard

_installing: Final = Guard("handling SIGTERM", limit=None)
_delivering: Final = Guard("delivering on SIGTERM", limit=None)

_GRACE: Final = 0.5
"""Seconds beyond the timeout, in which a shutdown that keeps to it returns."""


def deliver_on_sigterm() -> None:
    """Handle SIGTERM in this process unless it is handled or ignored already; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        _installing(_install)


def _install() -> None:
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    _delivering(_deliver)
    # Where a handler that was put in our place passes the signal on to us, the end is its business.
    if signal.getsignal(number) is _on_sigterm:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _deliver() -> None:
    # On a thread of its own: the signal may have interrupted this one while it held a lock of ours.
    thread = threading.Thread(target=shutdown_default, name="lumiqtrace-sigterm", daemon=True)
    thread.start()
    thread.join(default_client().config.shutdown_timeout + _GRACE)
