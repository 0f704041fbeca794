"""Every hook into the life of the process, in one file: its end, and its forks.

Hooks are registered once, when the first client is built, and hold no client alive.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol


class Lifelong(Protocol):
    @property
    def exit_timeout(self) -> float:
        """Seconds that `at_exit` takes at most."""
        ...

    @property
    def holds_a_lock(self) -> bool:
        """Whether this thread holds a lock that `at_exit` may wait for."""
        ...

    def at_exit(self) -> None: ...

    def at_pause(self, since: float) -> None: ...

    def after_fork_in_child(self) -> None: ...


_clients: Final[weakref.WeakSet[Lifelong]] = weakref.WeakSet()
_installed = False

_loading: Final = threading.RLock()
_fork: Final = threading.local()

GRACE: Final = 0.5
"""Seconds beyond `exit_timeout()`, in which an end that keeps to it returns."""

MAX_FORK_WAIT: Final = 5.0
"""Seconds a fork waits for an import of ours; one takes a tenth of a second."""


@contextmanager
def loading() -> Iterator[None]:
    """Around what imports a library on the exporter thread, so that no fork happens in the middle.

    A child forked then would find the half-imported module locked by a thread it does not have, and wait
    for it without end.
    """
    with _loading:
        yield


def watch(client: Lifelong) -> None:
    """Tell `client` when the interpreter ends and when it finds itself in a forked child."""
    global _installed  # noqa: PLW0603 - the hooks belong to the process, as this flag does
    _clients.add(client)
    if not _installed:
        _installed = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
            )


def watch_worker(client: Lifelong) -> None:
    """Tell `client` when this process ends, where it is a worker of `multiprocessing` or of Celery.

    Those end without `atexit`, and forget at their start what was registered in the parent. Celery forks
    with billiard, a copy of `multiprocessing` with a registry of its own, and its pool ends without that.
    """
    for package in _worker_of():
        util = sys.modules.get(f"{package}.util")
        if util is not None:
            util.Finalize(client, client.at_exit, exitpriority=100)
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(_end_of_worker, dispatch_uid="lumiqtrace")


def is_worker() -> bool:
    """Whether this process is one that `multiprocessing`, or billiard, has started."""
    return bool(_worker_of())


def _worker_of() -> list[str]:
    found = []
    for package in ("multiprocessing", "billiard"):
        process = sys.modules.get(f"{package}.process")
        # Only the first process of a program was started by none.
        if process is not None and process.current_process()._parent_pid is not None:
            found.append(package)
    return found


def unwatch(client: Lifelong) -> None:
    _clients.discard(client)


def _owns(lock: Any) -> bool:
    return bool(lock._is_owned())


def holds_a_lock() -> bool:
    """Whether this thread holds a lock that `end` may wait for; to be asked by what interrupts it."""
    return _owns(_loading) or any(client.holds_a_lock for client in list(_clients))


def exit_timeout() -> float:
    """Seconds that `end` takes at most."""
    return sum(client.exit_timeout for client in list(_clients))


def end() -> None:
    """Have every client deliver what it has and stop: the process ends."""
    for client in list(_clients):
        client.at_exit()


def _at_exit() -> None:
    end()
    _restore_interrupt()


def _restore_interrupt() -> None:
    """Let a program that Ctrl-C ended have the status of one, 130.

    CPython notes that KeyboardInterrupt was not handled, and forgets it whenever code is compiled from a
    text, as the import of a named tuple does. So here it gets the same to note once more.
    """
    shown = getattr(sys, "last_traceback", None)
    # A console and an event loop of a window show one too, from within, and go on.
    ended_by_it = shown is not None and shown.tb_frame.f_back is None and not hasattr(sys, "ps1")
    if ended_by_it and sys.last_type is KeyboardInterrupt:
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - our own text


def pause(since: float) -> None:
    """Have every client deliver what it has: the process may end now, or go on.

    What a client has waited for in vain `since` that moment, of `time.monotonic`, is not waited for again.
    """
    for client in list(_clients):
        client.at_pause(since)


def _end_of_worker(**_told: object) -> None:
    end()


def _before_fork() -> None:
    # Of its own for each thread: two may fork at once.
    _fork.holds = _loading.acquire(timeout=MAX_FORK_WAIT)


def _after_fork() -> None:
    if _fork.holds:
        _loading.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for client in list(_clients):
        client.after_fork_in_child()
