"""The current trace and span, carried by contextvars: each task and each request sees its own.

A model call made while a span is current becomes that span's child; without one it begins its own trace.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, NamedTuple


class SpanContext(NamedTuple):
    """Where a span stands: its trace and itself."""

    trace_id: str
    span_id: str


_current: Final[ContextVar[SpanContext | None]] = ContextVar("lumiqtrace_span", default=None)

current = _current.get
"""The span that is open here, or None."""

set_current = _current.set
"""Restoring the previous value with this instead of a token never fails, even where a generator is
finished in another context than the one it began in."""


def get_current_trace_id() -> str | None:
    """The id of the trace that is open here (32 hex digits), or None outside one."""
    here = current()
    return here.trace_id if here else None


def get_current_span_id() -> str | None:
    """The id of the span that is open here (16 hex digits), or None outside one."""
    here = current()
    return here.span_id if here else None
