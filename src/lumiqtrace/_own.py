"""What lumiqtrace does itself is never recorded: its own requests, and who listens to its own log lines.

Holds for what begins inside, on that thread, task or greenlet; what began elsewhere and ends here, as a
stream that is collected, is recorded. Else a traced HTTP library or a logging handler would never end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_own: Final[ContextVar[bool]] = ContextVar("lumiqtrace_own", default=False)

own: Final = _own.get
"""Whether this is lumiqtrace at its own work."""


@contextmanager
def own_work() -> Iterator[None]:
    """Around what lumiqtrace does for itself."""
    before = _own.get()
    _own.set(True)
    try:
        yield
    finally:
        _own.set(before)
