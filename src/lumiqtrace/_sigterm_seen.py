"""Sees to it that SIGTERM ends a worker of `multiprocessing` that is just about to wait for a lock.

Python runs a handler between two steps of its main thread. A signal that comes after the last step before a
wait is handled when that is over: for a pool that is being terminated never, for the lock it waits for is not
given back. Python's default would have ended the worker at once; a handler of ours has to be as good.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import BuiltinFunctionType
from typing import Final

INSIST_AFTER: Final = 0.1
"""Seconds that the main thread has for beginning to handle the signal, before it gets it again."""

_watched = 0
"""The process that is watched; a fork does not inherit the thread that does it."""

_pipe: tuple[int, ...] = ()
"""Its two ends: what is read, and where Python writes the numbers of signals."""


def insist(number: int, begun: Callable[[], bool]) -> None:
    """From now on, send signal `number` to the main thread again until `begun()`; called on that thread.

    Does nothing where somebody else is told of signals by a file, as an event loop, or where threads are
    greenlets, of which one that reads would stop all.
    """
    global _watched, _pipe
    real = isinstance(_thread.start_new_thread, BuiltinFunctionType) and hasattr(signal, "pthread_kill")
    # Trio warns of whoever was there before it.
    if _watched == os.getpid() or not real or "trio" in sys.modules:
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
    _watched, _pipe = os.getpid(), (reader, writer)
    _thread.start_new_thread(_watch, (reader, number, begun, _thread.get_ident()))


def _watch(reader: int, number: int, begun: Callable[[], bool], main: int) -> None:
    with suppress(OSError):  # a program that closes all files
        while came := os.read(reader, 1):
            while came[0] == number and not begun():
                time.sleep(INSIST_AFTER)
                if not begun():
                    signal.pthread_kill(main, number)


def _forget() -> None:
    """What comes to a child is no business of its parent's."""
    global _pipe
    pipe, _pipe = _pipe, ()
    if not pipe:
        return
    with suppress(ValueError, OSError):
        other = signal.set_wakeup_fd(-1)
        if other != pipe[1]:
            signal.set_wakeup_fd(other)
        for end in pipe:
            os.close(end)
