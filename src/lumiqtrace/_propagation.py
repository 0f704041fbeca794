"""Traces across processes, by the W3C `traceparent` header, and across threads.

A header is read strictly; what is wrong with it is no error, it only joins nothing. The one that is written
is always valid: ids of another shape are hashed.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable, MutableMapping
from contextvars import copy_context
from typing import Any, Final, ParamSpec, TypeVar

from ._context import ambient, current, enter, surround
from ._guard import Guard

P = ParamSpec("P")
R = TypeVar("R")
Headers = TypeVar("Headers", bound=MutableMapping[Any, Any])

TRACEPARENT: Final = "traceparent"

_SHAPE: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_HEX: Final = frozenset("0123456789abcdef")
_SAMPLED: Final = 1
"""The bit of the header's flags that says that the caller records the trace."""

_injecting: Final = Guard("adding a traceparent", limit=None)
_carrying: Final = Guard("carrying a trace to a thread", limit=None)


class RemoteContext:
    """The span of another process: 32 and 16 hex digits, and whether that process records its trace."""

    __slots__ = ("sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled

    def __repr__(self) -> str:
        return f"RemoteContext({self.trace_id!r}, {self.span_id!r}, sampled={self.sampled})"


def extract(traceparent: str | None) -> RemoteContext | None:
    """What a `traceparent` header says (W3C Trace Context, 3.2); None where it is missing or invalid.

    Of a version above 00 the parts that 00 has are read, as the specification asks.
    """
    if not isinstance(traceparent, str):
        return None
    found = _SHAPE.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return RemoteContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def inject(headers: Headers) -> Headers:
    """Put the current span on an outgoing request: `httpx.get(url, headers=lumiqtrace.inject({}))`.

    Adds `traceparent` to the mapping and returns that same mapping. Outside a trace it adds nothing, and
    a `traceparent` that is there already, in whatever case, stays: another tracer's, or your own.
    """
    _injecting(_inject, headers)
    return headers


def _inject(headers: MutableMapping[Any, Any]) -> None:
    here = current()
    if here is None or any(isinstance(name, str) and name.lower() == TRACEPARENT for name in headers):
        return
    trace_id, span_id = _digits(here.trace.trace_id, 32), _digits(here.span_id, 16)
    headers[TRACEPARENT] = f"00-{trace_id}-{span_id}-{'01' if here.trace.sampled else '00'}"


def _digits(identifier: str, length: int) -> str:
    """An id as hex digits, not all zero: as it is, else its hash."""
    if len(identifier) == length and _HEX.issuperset(identifier) and identifier.strip("0"):
        return identifier
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:length]


# ---- threads -----------------------------------------------------------------------------------------


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be run elsewhere as if here: `Thread(target=lumiqtrace.carry(work)).start()`.

    Each call runs in a copy of the caller's context, that is with all its context variables as they are
    now, and leaves nothing behind. For threads; tasks and `asyncio.to_thread` carry their context anyway.
    """
    here = copy_context()

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy: one context cannot be entered by two threads at once.
        return here.copy().run(function, *args, **kwargs)

    return carried


class _Submit:
    """The state of the patch: the method there was, and the one in its place."""

    original: Any = None
    ours: Any = None


def patch_threads() -> None:
    """Have work given to a `concurrent.futures.ThreadPoolExecutor` belong to the trace that submits it.

    That is `submit`, `map` and `loop.run_in_executor`. Only what lumiqtrace knows is carried; the
    application's own context variables behave as before. Idempotent.
    """
    from concurrent.futures import ThreadPoolExecutor

    if ThreadPoolExecutor.submit is _Submit.ours:
        return
    original: Any = ThreadPoolExecutor.submit

    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if _Submit.ours is submit:
            fn = _carrying(_inside, self, fn) or fn
        return original(self, fn, *args, **kwargs)

    _Submit.original, _Submit.ours = original, submit
    setattr(ThreadPoolExecutor, "submit", submit)  # noqa: B010 - a type checker takes no assignment


def unpatch_threads() -> None:
    """Put the executor's own method back. What someone else wrapped meanwhile stays, and passes through."""
    from concurrent.futures import ThreadPoolExecutor

    ours, _Submit.ours = _Submit.ours, None
    if ours is not None and ThreadPoolExecutor.submit is ours:
        setattr(ThreadPoolExecutor, "submit", _Submit.original)  # noqa: B010


def _inside(executor: Any, function: Any) -> Any:
    """`function` with the current span and labels, or as it is where there are none."""
    span, labels = current(), ambient()
    if (span is None and labels is None) or not callable(function) or _pickles(executor):
        return function

    def carried(*args: Any, **kwargs: Any) -> Any:
        before = current(), ambient()
        enter(span)
        surround(labels)
        try:
            return function(*args, **kwargs)
        finally:
            enter(before[0])
            surround(before[1])

    return carried


def _pickles(executor: Any) -> bool:
    """Whether its threads are interpreters of their own, which a closure cannot reach."""
    interpreters: Any = sys.modules.get("concurrent.futures.interpreter")
    return interpreters is not None and isinstance(executor, interpreters.InterpreterPoolExecutor)
