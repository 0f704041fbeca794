"""The current span and the labels around it, carried by contextvars: each task and request sees its own.

A model call made while a span is current becomes that span's child; without one it begins its own trace.
What began in one context may end in another, as an async generator's body does that asyncio closes; it
never raises, and nobody finds it current afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Self

from ._encode import text_of
from ._event import Event, new_trace_id
from ._guard import Guard
from ._sampler import keeps

_labelling: Final = Guard("reading the values of a context", limit=None)


class Trace:
    """What the spans of one trace share in this process.

    `root` is the span that began it here, None for a model call on its own. `user_id` and `session_id` are
    those of what is recorded from now on. `sampled` says whether anything is; `holds`, where it is not,
    whether what is recorded is held until it is known that nothing failed.
    """

    __slots__ = ("holds", "root", "sampled", "session_id", "trace_id", "user_id")

    def __init__(self, trace_id: str, *, sampled: bool = True, holds: bool = False, root: Any = None) -> None:
        self.trace_id = trace_id
        self.sampled = sampled
        self.holds = holds
        self.root = root
        self.user_id: str | None = None
        self.session_id: str | None = None


def begin_trace(sample_rate: float, *, holds: bool = False) -> Trace:
    """A new trace, kept or not by its id."""
    trace_id = new_trace_id()
    return Trace(trace_id, sampled=keeps(trace_id, sample_rate), holds=holds)


class SpanContext:
    """Where a span stands: its trace, its parent's id, and what was current when it began.

    `span` is the Span itself. `ear` is who listens to the provider calls made inside, if anyone does.
    `left` marks one that ended where it could not be taken off, because another was current there or it had
    begun in another context: whoever finds it current goes on to what was around it.
    """

    __slots__ = ("around", "ear", "left", "parent_id", "span", "span_id", "token", "trace")

    def __init__(
        self, trace: Trace, span_id: str, parent_id: str | None, around: SpanContext | None, span: Any
    ) -> None:
        self.trace = trace
        self.span_id = span_id
        self.parent_id = parent_id
        self.around = around
        self.span = span
        self.ear: Any = None
        self.left = False
        self.token: Token[Any] | None = None

    @property
    def trace_id(self) -> str:
        return self.trace.trace_id


class Labels:
    """A user, a session and tags for every event recorded inside a `context`. `left` as for a span."""

    __slots__ = ("around", "left", "session_id", "tags", "token", "user_id")

    def __init__(
        self,
        user_id: str | None,
        session_id: str | None,
        tags: dict[str, str],
        around: Labels | None = None,
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.tags = tags
        self.around = around
        self.left = False
        self.token: Token[Any] | None = None

    def put_on(self, event: Event) -> None:
        """Fill in what the event does not say itself."""
        event.user_id = event.user_id or self.user_id
        event.session_id = event.session_id or self.session_id
        if self.tags:
            event.tags = {**self.tags, **event.tags}


_current: Final[ContextVar[SpanContext | None]] = ContextVar("lumiqtrace_span", default=None)
_labels: Final[ContextVar[Labels | None]] = ContextVar("lumiqtrace_labels", default=None)

enter: Final = _current.set
"""Make a span the current one, for those that put back themselves what was current before."""

surround: Final = _labels.set
"""Make labels those that hold here, likewise."""


def current() -> SpanContext | None:
    """The span that is open here, or None."""
    here = _current.get()
    while here is not None and here.left:
        here = here.around
    return here


def ambient() -> Labels | None:
    """The labels that hold here, or None."""
    here = _labels.get()
    while here is not None and here.left:
        here = here.around
    return here


def begin(here: SpanContext) -> None:
    """Make a span the current one until `leave`."""
    here.token = _current.set(here)


def leave(here: SpanContext) -> None:
    """End a span: what is current again is what was around it.

    Where another is current, as when generators end out of order, that one stays.
    """
    _leave(_current, here)


def _leave(variable: ContextVar[Any], here: SpanContext | Labels) -> None:
    found = variable.get()
    token, here.token = here.token, None
    if token is not None:
        try:
            variable.reset(token)
        except ValueError:  # it began in another context, where nobody will take it off
            here.left = True
    if found is not here:
        here.left = True
        variable.set(found)
        return
    around: Any = here.around
    while around is not None and around.left:
        around = around.around
    variable.set(around)
    if not here.left:
        # A task that was started inside still has it; a chain of such tasks must not hold all before it.
        here.around = None


def labels_of(trace: Trace | None, around: Labels | None) -> Labels | None:
    """The labels of what is recorded now: a `context`'s go before those that `set_attribute` gave a trace."""
    if trace is None or (trace.user_id is None and trace.session_id is None):
        return around
    if around is None:
        return Labels(trace.user_id, trace.session_id, {})
    return Labels(around.user_id or trace.user_id, around.session_id or trace.session_id, around.tags)


class context:  # noqa: N801 - it is used as a function is
    """Values for every event recorded inside: `with lumiqtrace.context(user_id="u1"): ...`, or `async with`.

    Inside another one, what is given here goes before what is given there, and tags are merged. `tags` is
    a mapping; all values are kept as text, and None is as good as not given. May be used many times and by
    several threads and tasks at once. Independent of spans, and harmless where nothing is recorded.
    """

    def __init__(
        self,
        user_id: object = None,
        session_id: object = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        self._user_id = label(user_id)
        self._session_id = label(session_id)
        self._tags = _labelling(_texts, tags) or {}
        self._open: list[Labels] = []

    def __enter__(self) -> Self:
        around = ambient()
        if around is None:
            mine = Labels(self._user_id, self._session_id, self._tags)
        else:
            user_id = self._user_id or around.user_id
            session_id = self._session_id or around.session_id
            mine = Labels(user_id, session_id, {**around.tags, **self._tags}, around)
        self._open.append(mine)
        mine.token = surround(mine)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mine = ambient()
        while mine is not None and mine not in self._open:
            mine = mine.around
        with suppress(IndexError, ValueError):  # several threads may close it at once
            if mine is None:
                mine = self._open.pop()  # closed where it was never open: the latest of the open ones
            else:
                self._open.remove(mine)
            _leave(_labels, mine)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def label(value: object) -> str | None:
    """A user's or session's id as text; None for nothing."""
    return None if value is None else text_of(value) or None


def _texts(tags: Mapping[str, object] | None) -> dict[str, str]:
    found = {} if tags is None else dict(tags)
    return {text_of(key): text_of(value) for key, value in found.items() if value is not None}


def get_current_trace_id() -> str | None:
    """The id of the trace that is open here (32 hex digits), or None outside one."""
    here = current()
    return here.trace.trace_id if here else None


def get_current_span_id() -> str | None:
    """The id of the span that is open here (16 hex digits), or None outside one."""
    here = current()
    return here.span_id if here else None


def set_attribute(key: str, value: object) -> None:
    """Put a tag on the current trace's root span, in a web application the request's; None takes it away.

    `user.id` and `session.id` also are the user and the session of what the trace records from now on.
    Outside a trace it does nothing.
    """
    here = current()
    if here is not None:
        here.trace.root.set_attribute(key, value)


def set_eval_score(name: str, value: float) -> None:
    """Put an evaluation's score on the current trace's root span. Outside a trace it does nothing."""
    here = current()
    if here is not None:
        here.trace.root.set_eval_score(name, value)


def set_usage(
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
    cached_tokens: int = 0,
    model: str | None = None,
    cost_usd: float | None = None,
) -> None:
    """Say on the current span what a model call that lumiqtrace cannot see has used; see `Span.set_usage`.

    Outside a trace it does nothing.
    """
    here = current()
    if here is not None:
        here.span.set_usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            model=model,
            cost_usd=cost_usd,
        )
