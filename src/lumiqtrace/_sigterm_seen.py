"""Sees to it that SIGTERM ends a worker of `multiprocessing` that is just about to wait for a lock.

Python runs a handler between two steps of its main thread. A signal that comes after the last step before a
wait is handled when that is over: for a pool that is being terminated never, for the lock it waits for is not
given back. Python's default would have ended the worker at once; a handler of ours has to be as good.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

INSIST_AFTER: Final = 0.1
"""Seconds that the main thread has for beginning to handle the signal, before it gets it again."""

_watched = 0
"""The process that is watched; a fork does not inherit the thread that does it."""
_writer = -1


def insist(number: int, begun: Callable[[], bool]) -> None:
    """From now on, send signal `number` to the main thread again until `begun()`; called on that thread.

    Does nothing where somebody else is told of signals by a file, as an event loop.
    """
    global _watched, _writer
    if _watched == os.getpid() or "trio" in sys.modules:  # which warns of whoever was there before it
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        before = None
    if before != -1:
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        return
    if not _watched:
        os.register_at_fork(after_in_child=_forget)
    _watched, _writer = os.getpid(), writer
    arguments = (reader, number, begun, threading.get_ident())
    threading.Thread(target=_watch, args=arguments, name="lumiqtrace-sigterm", daemon=True).start()


def _watch(reader: int, number: int, begun: Callable[[], bool], main: int) -> None:
    while came := os.read(reader, 1):
        while came[0] == number and not begun():
            time.sleep(INSIST_AFTER)
            if not begun():
                signal.pthread_kill(main, number)


def _forget() -> None:
    """What comes to a child is no business of its parent's."""
    global _writer  # noqa: PLW0603 - signals belong to the process, as this does
    if _writer == -1:
        return
    with suppress(ValueError, OSError):
        other = signal.set_wakeup_fd(-1)
        if other != _writer:
            signal.set_wakeup_fd(other)
        os.close(_writer)
    _writer = -1
