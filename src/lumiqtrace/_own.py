"""What lumiqtrace does itself is never recorded: its own requests, and who listens to its own log lines.

Holds for what begins inside, on that thread, task or greenlet; what began elsewhere and ends here, as a
stream that is collected, is recorded. Else a traced HTTP library or a logging handler would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

T = TypeVar("T")

_own: Final[ContextVar[bool]] = ContextVar("lumiqtrace_own", default=False)

own: Final = _own.get
"""Whether this is lumiqtrace at its own work."""

_thread: Final[ContextVar[bool]] = ContextVar("lumiqtrace_thread", default=False)


class Ended(Exception):  # noqa: N818 - it says what the application's code did
    """What ends a program was raised on a thread of ours, where there is no program to end."""


def enter_own_thread() -> None:
    """From here on this thread is one of ours."""
    _thread.set(True)


def on_own_thread() -> bool:
    return _thread.get()


def contained(function: Callable[..., T], *args: object) -> T:
    """`function(*args)`; on a thread of ours a SystemExit, a cancellation and the like are plain errors.

    On the application's threads they are the application's, and pass.
    """
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:
        if not on_own_thread():
            raise
        raise Ended(type(error).__name__) from error


@contextmanager
def own_work() -> Iterator[None]:
    """Around what lumiqtrace does for itself."""
    before = _own.get()
    _own.set(True)
    try:
        yield
    finally:
        _own.set(before)
