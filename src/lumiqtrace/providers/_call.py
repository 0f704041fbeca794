"""One provider call, from its start to exactly one event, on every way out.

On the application's thread it only takes notes: times, a few numbers, references to bytes that no one
can change. What they mean is worked out in `event`, on the exporter thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, Final

from .._client import Client
from .._context import Labels, SpanContext, Trace, ambient, begin_trace, current, labels_of
from .._default import default_client
from .._encode import MAX_PROMPT, cut, text_of
from .._event import Event, Usage, iso_timestamp, new_event_id, new_span_id, new_trace_id
from .._guard import Guard
from .._span import shorten
from ._answer import Answer, Route, fields, text
from ._failure import Failure, failure_of
from ._prompt import canonical, readable, snapshot

_reading = Guard("reading an answer", limit=None)

_BASE_SIZE: Final = 1024


class Call:
    """A recording of one call; what ends it first is what counts.

    `origin` gives the event's provider and vendor from the API's address.
    """

    latency: float | None = None
    request: object = None
    _read: Callable[[Answer], None] | None = None
    _failure: Failure | None = None
    _ttft: float | None = None
    _labels: Labels | None = None

    def __init__(
        self,
        client: Client,
        route: Route,
        body: Any,
        url: Any,
        origin: Callable[[str], tuple[str, str | None]],
    ) -> None:
        """`body` is the request's JSON as a dict, `url` the API's address in any form that `str` can show."""
        self.client = client
        self.route = route
        self._origin = origin
        self._url = url
        told = fields(body)
        self._requested_model = text(told.get("model"))
        self.streamed = told.get("stream") is True
        self._prompt, size = snapshot(told, route.prompt)
        self.size = _BASE_SIZE + size
        parent: SpanContext | None = current()
        self._parent = parent
        self._around = ambient()
        # A call outside a span is a trace of its own; it has an id now only where that decides on it.
        self._trace: Trace | None = parent.trace if parent else _sampled_trace(client)
        self.answer = Answer(spoken=[] if client.config.store_prompts else None)
        self._process = os.getpid()
        self._began = time.time()
        self._started = time.perf_counter()

    @property
    def failed(self) -> bool:
        """Whether it ended neither well nor early. Reads the answer: asked only of what is not sampled."""
        if self._read is not None:
            _reading(self._read, self.answer)
            self._read = None
        status = self._failure.status if self._failure else self.answer.status
        return status not in {None, "success", "cancelled"}

    @property
    def awaits_output(self) -> bool:
        """Whether no output was seen yet."""
        return self._ttft is None

    def raised(self, error: BaseException) -> None:
        """The call raised; nothing of the exception is kept but three strings."""
        at = time.perf_counter()
        if self.latency is not None:
            return
        self._failure = _reading(failure_of, error) or Failure("error", type(error).__name__, None)
        self._end(at)

    def answered(self, result: Any) -> None:
        """The call gave the client's own object, whole. Its numbers are read now: it may be changed later."""
        at = time.perf_counter()
        if self.latency is not None:
            return
        _reading(self.route.read, result, self.answer)
        self.answer.complete = True
        self._end(at)

    def answered_with(self, body: bytes) -> None:
        """The whole answer, still to be parsed where it is JSON. Speech and plain texts are not kept."""
        document = body if body[:64].lstrip()[:1] in (b"{", b"[") else b"{}"

        def read(answer: Answer) -> None:
            answer.complete = True
            self.route.read(json.loads(document), answer)

        self.answered_later(read, len(document), time.perf_counter())

    def answered_later(
        self, read: Callable[[Answer], None], size: int, at: float, failure: Failure | None = None
    ) -> None:
        """The answer is bytes that `read` understands, on the exporter thread. `at` is their last moment."""
        if self.latency is not None:
            return
        self._read = read
        self._failure = failure
        self.size += size
        self._end(at)

    def first_output(self, at: float) -> None:
        if self._ttft is None:
            self._ttft = at - self._started

    def _end(self, at: float) -> None:
        self.latency = max(0.0, at - self._started)
        self.request = None  # it holds the client's own objects, which are large
        # A forked child holds a copy of what was under way; the call is its parent's.
        if os.getpid() == self._process:
            self._labels = labels_of(self._trace, self._around)
            client = self.client
            (client if client.recording else default_client()).record(self, self._trace)

    def event(self) -> Event:
        """The call as an event; called on the exporter thread, once it has ended."""
        answer = self.answer
        if self._read is not None:
            _reading(self._read, answer)
        provider, vendor = self._origin(text_of(self._url))
        usage = Usage(api_url=text_of(self._url))
        if answer.reported:
            _reading(self.route.account, answer, usage)
        if self.route.operation == "tts" and isinstance(self._prompt, str):
            usage.input_characters = len(self._prompt)
        event = Event(
            event_id=new_event_id(),
            trace_id=self._trace.trace_id if self._trace else new_trace_id(),
            span_id=new_span_id(),
            parent_span_id=self._parent.span_id if self._parent else None,
            timestamp=iso_timestamp(self._began),
            provider=provider,
            model=answer.model or self._requested_model or "unknown",
            operation=self.route.operation,
            latency_ms=round((self.latency or 0.0) * 1000, 3),
            ttft_ms=round(self._ttft * 1000, 3) if self._ttft is not None else None,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            cached_tokens=answer.cached_tokens,
            finish_reason=answer.finish_reason,
            stream=self.streamed,
            environment=self.client.config.environment,
            tools_used=answer.tools,
            prompt_hash=_hash(self._prompt),
            span_kind="llm",
            usage=usage,
        )
        if vendor:
            event.tags["vendor"] = vendor
        if self._labels is not None:
            self._labels.put_on(event)
        self._conclude(event, answer)
        if answer.spoken is not None:
            event.prompt = None if self._prompt is None else self._shown(readable(canonical(self._prompt)))
            event.completion = self._shown("".join(answer.spoken)) if answer.spoken else None
        return event

    def _conclude(self, event: Event, answer: Answer) -> None:
        """Status and error: what was raised, else what the answer says, else whether it was left early."""
        if self._failure is not None:
            event.status, event.error_code, event.error_message = self._failure
        elif answer.status is not None:
            event.status = answer.status
            event.error_code = answer.error_code
            event.error_message = shorten(answer.error_message) if answer.error_message else None
        elif not answer.complete and answer.finish_reason is None:
            event.status = "cancelled"
        if not answer.has_usage:
            event.tags["usage"] = "missing"

    def _shown(self, document: str) -> str:
        """A prompt or completion fit to leave the process. Redacted first: a key cut in half is not found."""
        return cut(self.client.redactor.looked_at(document[: 2 * MAX_PROMPT]), MAX_PROMPT)


def _sampled_trace(client: Client) -> Trace | None:
    rate = client.config.sample_rate
    return begin_trace(rate, holds=client.config.sample_errors) if rate < 1 else None


def _hash(prompt: Any) -> str | None:
    """SHA-256 of the canonical JSON of the prompt, in hex: keys sorted, no white space, UTF-8."""
    if prompt is None:
        return None
    return hashlib.sha256(canonical(prompt).encode("utf-8", "surrogatepass")).hexdigest()
