"""The current trace and span, carried by contextvars: each task and each request sees its own.

A model call made while a span is current becomes that span's child; without one it begins its own trace.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class SpanContext:
    """Where a span stands: its trace, itself, and what was open when it began. `ended` once it has."""

    __slots__ = ("ended", "parent", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, parent: SpanContext | None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.ended = False


_current: Final[ContextVar[SpanContext | None]] = ContextVar("lumiqtrace_span", default=None)

current = _current.get
"""The span that is open here, or None."""

enter = _current.set
"""Make a span the current one."""


def leave(here: SpanContext) -> None:
    """End a span: what is current again is the nearest around it that is still open.

    Where another is current, as when generators end out of order or in another context, that one stays.
    """
    here.ended = True
    if current() is here:
        around = here.parent
        while around is not None and around.ended:
            around = around.parent
        _current.set(around)


def get_current_trace_id() -> str | None:
    """The id of the trace that is open here (32 hex digits), or None outside one."""
    here = current()
    return here.trace_id if here else None


def get_current_span_id() -> str | None:
    """The id of the span that is open here (16 hex digits), or None outside one."""
    here = current()
    return here.span_id if here else None
