"""Spans: a piece of the application with a name, a beginning and an end.

What happens inside, model calls and other spans, becomes its children. An exception passes through
unchanged and gives the span its status. Time is measured on a monotonic clock. A span of a trace that is
not sampled has its ids and its children as any other; the client lets it go no further.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ._client import Client
from ._context import (
    Labels,
    SpanContext,
    Trace,
    ambient,
    begin,
    begin_trace,
    current,
    enter,
    labels_of,
    leave,
)
from ._default import default_client
from ._encode import text_of
from ._event import SPAN_KINDS, Event, Usage, iso_timestamp, new_event_id, new_span_id
from ._guard import Guard, logger
from ._marks import SESSION_ID, USER_ID, Marks, mark_trace, shorten, status_of

if TYPE_CHECKING:
    from ._propagation import RemoteContext

__all__ = ["Span", "kind_of", "request_span", "shorten", "span", "status_of"]

_living: Final = Guard("beginning and ending a span", limit=None)


class Span(Marks):
    """One span. Use it once as a context manager, sync or async; its methods may be called at any time."""

    size = 1024

    def __init__(self, client: Client, name: str, kind: str, attributes: dict[str, str]) -> None:
        super().__init__(name, kind, attributes)
        self._client = client
        self._here: SpanContext | None = None
        self._around: Labels | None = None
        self._labels: Labels | None = None
        self._process = 0
        self._began = 0.0
        self._started = 0.0
        self._latency: float | None = None
        self._over = False

    @property
    def trace(self) -> Trace | None:
        """The trace it belongs to, once it has begun; None where nothing is recorded."""
        return self._here.trace if self._here else None

    @property
    def trace_id(self) -> str | None:
        """32 hex digits once the span has begun; None where nothing is recorded."""
        return self._here.trace.trace_id if self._here else None

    @property
    def span_id(self) -> str | None:
        """16 hex digits once the span has begun; None where nothing is recorded."""
        return self._here.span_id if self._here else None

    @property
    def ended(self) -> bool:
        """Whether it has ended; what is told from then on may come too late."""
        return self._over

    # ---- its life -------------------------------------------------------------------------------------

    def begin(self) -> Self:
        """Begin the span and make it the current one; for those that cannot use `with`. Once."""
        if self._client.recording and self._here is None:
            _living(self._begin)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End and record the span, which `error` passed through, if any. Only the first time counts."""
        if self._here is not None and not self._over:
            self._over = True
            self.stop()
            _living(self._end, self._here, error)

    def stop(self) -> None:
        """Take the time: what follows until `end` is no part of the span's duration. Once."""
        if self._latency is None:
            self._latency = time.perf_counter() - self._started

    def returns(self, result: object) -> None:
        """What the observed function returned or yielded; a plain span does not look at it."""

    def _begin(self) -> None:
        self._here = here = self._place(current())
        self._around = ambient()
        if here.trace.root is None:
            here.trace.root = self
        for key in (USER_ID, SESSION_ID):
            if key in self._tags:
                mark_trace(here.trace, key, self._tags[key])
        self._process = os.getpid()
        self._began = time.time()
        self._step_in(here)
        self._started = time.perf_counter()

    def _place(self, around: SpanContext | None) -> SpanContext:
        """Where it stands: below what is current, else at the root of a new trace."""
        if around is None:
            config = self._client.config
            trace = begin_trace(config.sample_rate, holds=config.sample_errors)
            return SpanContext(trace, new_span_id(), None, None, self)
        here = SpanContext(around.trace, new_span_id(), around.span_id, around, self)
        here.ear = around.ear
        return here

    def _step_in(self, here: SpanContext) -> None:
        begin(here)

    def _step_out(self, here: SpanContext) -> None:
        leave(here)

    def _end(self, here: SpanContext, error: BaseException | None) -> None:
        self._step_out(here)
        if error is not None and not self._judged:
            self.set_error(error)
        # A child that was forked inside leaves the block too; the span is its parent's.
        if os.getpid() == self._process:
            self._labels = labels_of(here.trace, self._around)
            self._submit()

    def _submit(self) -> None:
        assert self._here is not None
        self.size = Span.size + self._kept_bytes()
        self._client.record(self, self._here.trace)

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(error)

    async def __aenter__(self) -> Self:
        return self.begin()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(error)

    # ---- what comes of it -----------------------------------------------------------------------------

    def event(self) -> Event:
        """The span as an event; called on the exporter thread, once it has ended."""
        assert self._here is not None
        event = Event(
            event_id=new_event_id(),
            trace_id=self._here.trace.trace_id,
            span_id=self._here.span_id,
            parent_span_id=self._here.parent_id,
            timestamp=iso_timestamp(self._began),
            provider="custom",
            model=self._model or self._name,
            operation="custom",
            latency_ms=round((self._latency or 0.0) * 1000, 3),
            input_tokens=self._tokens[0],
            output_tokens=self._tokens[1],
            cached_tokens=self._tokens[2] or None,
            status=self._status,
            environment=self._client.config.environment,
            tags=dict(self._tags),
            eval_scores=dict(self._eval_scores),
            span_kind=self._kind,
            name=self._name,
        )
        if self._labels is not None:
            self._labels.put_on(event)
        if self._error:
            event.error_code, event.error_message = self._error
        if self._metadata:
            event.metadata = self._shown_metadata(self._client.redactor)
        self._bill(event, self._model)
        return event

    def _bill(self, event: Event, model: str | None) -> None:
        """The cost that was told, else the price of what was; without a model nobody knows it."""
        if self._cost is not None:
            event.cost_usd = float(self._cost)
        elif model is not None:
            event.usage = Usage()
        elif self._kind == "llm" and any(self._tokens):
            event.tags["cost"] = "unknown"


class _RequestSpan(Span):
    """Begins a trace of this process, or its part of another's, whatever is current.

    It does not end what is current elsewhere: tasks that the request left behind stay in its trace.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        attributes: dict[str, str],
        remote: RemoteContext | None,
        *,
        sampled: bool,
    ) -> None:
        super().__init__(client, name, "general", attributes)
        self._remote = remote
        self._sampled = sampled

    def _place(self, around: SpanContext | None) -> SpanContext:
        remote = self._remote
        if remote is None:
            trace, parent_id = begin_trace(1.0), None
            trace.sampled = self._sampled
        else:
            trace = Trace(remote.trace_id, sampled=self._sampled and remote.sampled)
            parent_id = remote.span_id
        return SpanContext(trace, new_span_id(), parent_id, around, self)

    def _step_in(self, here: SpanContext) -> None:
        enter(here)

    def _step_out(self, here: SpanContext) -> None:
        if current() is here:
            enter(here.around)


def span(name: str, kind: str = "general", **attributes: object) -> Span:
    """A span around a block of code: `with lumiqtrace.span("retrieve", "retriever"): ...`, or `async with`.

    `kind` is one of `llm`, `agent`, `tool`, `planning`, `handoff`, `retriever`, `guardrail`, `general`;
    `custom` and anything unknown mean `general`. `attributes` become tags. Where nothing is recorded it
    does nothing.
    """
    return Span(default_client(), text_of(name), kind_of(kind), _tags(attributes))


def kind_of(kind: str) -> str:
    """The span kind of the event schema for what a user calls it."""
    if kind in SPAN_KINDS:
        return kind
    if kind != "custom":
        logger.debug("lumiqtrace: %r is no span kind; general is used", kind)
    return "general"


def request_span(
    client: Client, name: str, *, remote: RemoteContext | None = None, sampled: bool = True, **tags: object
) -> Span:
    """The span of a request: the root of a new trace, whatever is current, or a child of `remote`.

    The trace is sampled if `sampled` and `remote` say so; the rate is the caller's business.
    """
    return _RequestSpan(client, text_of(name), _tags(tags), remote, sampled=sampled)


def _tags(attributes: dict[str, object]) -> dict[str, str]:
    return {key: text_of(value) for key, value in attributes.items() if value is not None}
