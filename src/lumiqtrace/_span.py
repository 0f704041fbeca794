"""Spans: a piece of the application with a name, a beginning and an end.

What happens inside, model calls and other spans, becomes its children. An exception passes through
unchanged and gives the span its status. Time is measured on a monotonic clock.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from types import TracebackType
from typing import Final, Self

from ._client import Client, default_client
from ._context import SpanContext, current, enter, leave
from ._encode import text_of
from ._event import SPAN_KINDS, Event, Usage, iso_timestamp, new_event_id, new_span_id, new_trace_id
from ._guard import Guard, logger
from ._redact import redact_text

MAX_MESSAGE: Final = 500
"""Characters of an error message that are kept."""

_marking = Guard("marking a span", limit=None)


def status_of(error: BaseException) -> str:
    """The status that an exception gives the span it passes through."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit):
        return "cancelled"
    return "error"


def shorten(message: str) -> str:
    """An error message fit to leave the process: without secrets, at most 500 characters."""
    # Redacted before it is cut: half a key is no longer recognised as one.
    return redact_text(message[: 4 * MAX_MESSAGE])[:MAX_MESSAGE]


class Span:
    """One span. Use it once as a context manager, sync or async; its methods may be called at any time."""

    size = 1024

    def __init__(self, client: Client, name: str, kind: str, attributes: dict[str, str]) -> None:
        self._client = client
        self._name = name
        self._kind = kind
        self._tags = attributes
        self._eval_scores: dict[str, float] = {}
        self._tokens = (0, 0, 0)
        self._cost: float | None = None
        self._model: str | None = None
        self._status = "success"
        self._error: tuple[str, str] | None = None
        self._here: SpanContext | None = None
        self._process = 0
        self._began = 0.0
        self._started = 0.0
        self._latency: float | None = None

    @property
    def trace_id(self) -> str | None:
        """32 hex digits once the span has begun; None where nothing is recorded."""
        return self._here.trace_id if self._here else None

    @property
    def span_id(self) -> str | None:
        """16 hex digits once the span has begun; None where nothing is recorded."""
        return self._here.span_id if self._here else None

    def set_attribute(self, key: str, value: object) -> None:
        """Put a tag on the span; the value is kept as text."""
        self._tags[text_of(key)] = text_of(value)

    def set_eval_score(self, name: str, value: float) -> None:
        """Put an evaluation's score on the span; what is no finite number is left out."""
        _marking(self._mark_score, name, value)

    def set_usage(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        model: str | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Say what a model call that lumiqtrace cannot see has used.

        `cached_tokens` are part of `input_tokens`. `cost_usd` is US dollars; without it the price of
        `model` is used.
        """
        _marking(self._mark_usage, input_tokens, output_tokens, cached_tokens, model, cost_usd)

    def set_error(self, error: BaseException | str) -> None:
        """Mark the span as failed although no exception leaves it."""
        if isinstance(error, BaseException):
            self._status = status_of(error)
            self._error = (type(error).__name__, shorten(text_of(error)))
        else:
            self._status = "error"
            self._error = ("error", shorten(text_of(error)))

    def _mark_score(self, name: str, value: float) -> None:
        score = float(value)
        if math.isfinite(score):
            self._eval_scores[text_of(name)] = score

    def _mark_usage(
        self,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        model: str | None,
        cost_usd: float | None,
    ) -> None:
        self._tokens = (_count(input_tokens), _count(output_tokens), _count(cached_tokens))
        self._model = None if model is None else text_of(model)
        dollars = None if cost_usd is None else float(cost_usd)
        self._cost = dollars if dollars is not None and 0 <= dollars < math.inf else None

    def __enter__(self) -> Self:
        if self._client.recording and self._here is None:
            parent = current()
            self._here = SpanContext(parent.trace_id if parent else new_trace_id(), new_span_id(), parent)
            enter(self._here)
            self._process = os.getpid()
            self._began = time.time()
            self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._here is None or self._latency is not None:
            return
        self._latency = time.perf_counter() - self._started
        leave(self._here)
        if error is not None and self._error is None:
            self.set_error(error)
        # A child that was forked inside leaves the block too; the span is its parent's.
        if os.getpid() == self._process:
            self._client.record(self)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def event(self) -> Event:
        """The span as an event; called on the exporter thread, once it has ended."""
        assert self._here is not None
        event = Event(
            event_id=new_event_id(),
            trace_id=self._here.trace_id,
            span_id=self._here.span_id,
            parent_span_id=self._here.parent.span_id if self._here.parent else None,
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
        if self._error:
            event.error_code, event.error_message = self._error
        if self._cost is not None:
            event.cost_usd = float(self._cost)
        elif self._model:
            event.usage = Usage()
        return event


def _count(tokens: int) -> int:
    """A count that the server takes."""
    return min(max(0, int(tokens)), 2**53)


def span(name: str, kind: str = "general", **attributes: object) -> Span:
    """A span around a block of code: `with lumiqtrace.span("retrieve", "retriever"): ...`, or `async with`.

    `kind` is one of `llm`, `agent`, `tool`, `planning`, `handoff`, `retriever`, `guardrail`, `general`;
    `custom` and anything unknown mean `general`. `attributes` become tags. Where nothing is recorded it
    does nothing.
    """
    if kind not in SPAN_KINDS:
        if kind != "custom":
            logger.debug("lumiqtrace: %r is no span kind; general is used", kind)
        kind = "general"
    tags = {key: text_of(value) for key, value in attributes.items()}
    return Span(default_client(), text_of(name), kind, tags)
