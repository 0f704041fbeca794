"""The current span and the labels around it, carried by contextvars: each task and request sees its own.

A model call made while a span is current becomes that span's child; without one it begins its own trace.
Nothing here is undone by token: what began in one context may end in another, and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
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
    those of what is recorded from now on. `sampled` says whether anything is.
    """

    __slots__ = ("root", "sampled", "session_id", "trace_id", "user_id")

    def __init__(self, trace_id: str, *, sampled: bool = True, root: Any = None) -> None:
        self.trace_id = trace_id
        self.sampled = sampled
        self.root = root
        self.user_id: str | None = None
        self.session_id: str | None = None


def begin_trace(sample_rate: float) -> Trace:
    """A new trace, kept or not by its id."""
    trace_id = new_trace_id()
    return Trace(trace_id, sampled=keeps(trace_id, sample_rate))


class SpanContext:
    """Where a span stands: its trace, its parent's id, and what was current when it began.

    `span` is the Span itself. `ear` is who listens to the provider calls made inside, if anyone does.
    `ended` marks one that ended while another was current: what is current next skips it.
    """

    __slots__ = ("around", "ear", "ended", "parent_id", "span", "span_id", "trace")

    def __init__(
        self, trace: Trace, span_id: str, parent_id: str | None, around: SpanContext | None, span: Any
    ) -> None:
        self.trace = trace
        self.span_id = span_id
        self.parent_id = parent_id
        self.around = around
        self.span = span
        self.ear: Any = None
        self.ended = False

    @property
    def trace_id(self) -> str:
        return self.trace.trace_id


class Labels:
    """A user, a session and tags for every event recorded inside a `context`."""

    __slots__ = ("around", "ended", "owner", "session_id", "tags", "user_id")

    def __init__(
        self,
        user_id: str | None,
        session_id: str | None,
        tags: dict[str, str],
        around: Labels | None = None,
        owner: object = None,
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.tags = tags
        self.around = around
        self.owner = owner
        self.ended = False

    def put_on(self, event: Event) -> None:
        """Fill in what the event does not say itself."""
        event.user_id = event.user_id or self.user_id
        event.session_id = event.session_id or self.session_id
        if self.tags:
            event.tags = {**self.tags, **event.tags}


_current: Final[ContextVar[SpanContext | None]] = ContextVar("lumiqtrace_span", default=None)
_labels: Final[ContextVar[Labels | None]] = ContextVar("lumiqtrace_labels", default=None)

current: Final = _current.get
"""The span that is open here, or None."""

enter: Final = _current.set
"""Make a span the current one."""

ambient: Final = _labels.get
"""The labels that hold here, or None."""

surround: Final = _labels.set
"""Make labels those that hold here."""


def leave(here: SpanContext) -> None:
    """End a span: what is current again is what was around it.

    Where another is current, as when generators end out of order or in another context, that one stays.
    """
    _leave(_current, here)


def _leave(variable: ContextVar[Any], here: SpanContext | Labels) -> None:
    if variable.get() is not here:
        here.ended = True
        return
    around: Any = here.around
    while around is not None and around.ended:
        around = around.around
    variable.set(around)
    # A task that was started inside still has it; a chain of such tasks must not hold all that came before.
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

    def __enter__(self) -> Self:
        around = ambient()
        if around is None:
            surround(Labels(self._user_id, self._session_id, self._tags, None, self))
        else:
            user_id = self._user_id or around.user_id
            session_id = self._session_id or around.session_id
            surround(Labels(user_id, session_id, {**around.tags, **self._tags}, around, self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mine = ambient()
        while mine is not None and (mine.owner is not self or mine.ended):
            mine = mine.around
        if mine is not None:
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
