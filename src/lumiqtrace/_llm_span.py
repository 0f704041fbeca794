"""The span of a function that calls a model: what the provider calls made inside it told is its own.

An ear is current while the function runs. It takes the recordings of calls that nobody else records, and
the span is recorded when the last of them has ended, which for a stream may be after the function has.
Calls that are recorded as events of their own are the span's children, and it carries no tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from weakref import ref

from ._client import Client, before_flush
from ._event import PROVIDERS, Event, Recording
from ._guard import Guard
from ._lifecycle import loading
from ._pricing import Parts
from ._span import Span

if TYPE_CHECKING:
    from ._redaction.redact import Redactor

_hearing: Final = Guard("hearing provider calls", limit=None)
_reading: Final = Guard("reading provider calls", limit=None)

_waiting: Final[set[Ear]] = set()


class Ear:
    """Stands where a call expects its client, and keeps what it records for one span."""

    recording = True

    def __init__(self, client: Client, span: LlmSpan) -> None:
        self.client = client
        self.config = client.config
        self.calls: list[Recording] = []
        self.elsewhere = False
        """Whether a call made inside was recorded as an event of its own."""
        self.closed = False
        self._open: dict[int, ref[Any]] = {}
        self._span: list[LlmSpan] = [span]

    @property
    def redactor(self) -> Redactor:
        """The client's."""
        return self.client.redactor

    def expects(self, call: Any) -> None:
        """A call has begun, whose recording comes here; or never, where it is lost."""
        key = id(call)
        self._open[key] = ref(call, lambda _gone: self._forget(key))

    def under_way(self) -> list[Any]:
        """The calls that have begun and not ended."""
        return [call for known in list(self._open.values()) if (call := known()) is not None]

    def record(self, call: Recording, _trace: object = None) -> None:
        """What a call does at its end with its client."""
        self.calls.append(call)
        self._forget(id(call))

    def close(self) -> None:
        """The function has ended."""
        self.closed = True
        _waiting.add(self)
        self._settle()

    def settle(self, *, final: bool) -> None:
        """End the streams that were left open after their last word; all where it is `final`."""
        with loading():
            from .providers._tap import settle

        settle(cast("Client", self), final)
        self._settle(final=final)

    def _forget(self, key: int) -> None:
        self._open.pop(key, None)
        self._settle()

    def _settle(self, *, final: bool = False) -> None:
        if not self.closed or (self._open and not final):
            return
        _waiting.discard(self)
        try:
            span = self._span.pop()  # atomic: of two threads that meet here, one finds it
        except IndexError:
            return
        span.heard(self.calls)


def _settle_waiting(client: Client, final: bool) -> None:
    for ear in list(_waiting):
        if ear.client is client:
            ear.settle(final=final)


class LlmSpan(Span):
    """`model` and `provider` are what the decorator was told; what was not is taken from the calls."""

    def __init__(self, client: Client, name: str, model: str | None, provider: str | None) -> None:
        super().__init__(client, name, "llm", {})
        self._told_model = model
        self._told_provider = provider
        self._ear = Ear(client, self)
        self._calls: list[Recording] = []
        self._read: Any = None

    def returns(self, result: object) -> None:
        """What the function returned or yielded: its usage counts where no call inside told of any."""
        if result is not None and type(result) is not str:
            _reading(self._look_at, result)

    def heard(self, calls: list[Recording]) -> None:
        """All calls made inside have ended; the span can be recorded."""
        self._calls = calls
        super()._submit()

    def _kept_bytes(self) -> int:
        return super()._kept_bytes() + sum(call.size for call in self._calls)

    def _begin(self) -> None:
        _hearing(_listen)
        super()._begin()
        assert self._here is not None
        self._here.ear = self._ear

    def set_error(self, error: BaseException | str) -> None:
        """As for any span, with the status and the code that a provider's exception tells."""
        failure = _reading(_failure, error) if isinstance(error, BaseException) else None
        if failure is None:
            super().set_error(error)
        else:
            self.set_status(*failure)

    def _submit(self) -> None:
        self._ear.close()

    def _look_at(self, result: object) -> None:
        ear = self._ear
        if ear.calls or ear.elsewhere or ear.under_way():
            return
        with loading():
            from .providers._returned import read_returned

        self._read = read_returned(result) or self._read

    # ---- what comes of it, on the exporter thread -------------------------------------------------------

    def event(self) -> Event:
        event = super().event()
        model = self._model or self._told_model
        event.model = model or event.model
        self._name_provider(event, self._told_provider)
        parts = [part for call in self._calls if (part := _reading(call.event)) is not None]
        if not parts and self._read is not None and not self._told_usage():
            part = _reading(self._read, event)
            parts = [] if part is None else [part]
        if parts:
            event.model = model = model or parts[-1].model
            self._take(event, parts)
        # Calls inside that were recorded as events of their own have their cost there.
        if self._told_usage() and not (self._ear.elsewhere and self._model is None and self._cost is None):
            super()._bill(event, model)
        return event

    def _bill(self, event: Event, model: str | None) -> None:
        """Only when all is known: the model may be that of the calls which were heard."""

    def _told_usage(self) -> bool:
        """Whether the application told itself what was used."""
        return self._tokens != (0, 0, 0) or self._cost is not None

    def _name_provider(self, event: Event, provider: str | None) -> None:
        if provider is None:
            return
        event.provider = provider if provider in PROVIDERS else "custom"
        if provider not in PROVIDERS:
            event.tags.setdefault("vendor", provider)

    def _take(self, event: Event, parts: list[Event]) -> None:
        first, last = parts[0], parts[-1]
        if self._told_provider is None:
            event.provider = last.provider
            if "vendor" in last.tags:
                event.tags.setdefault("vendor", last.tags["vendor"])
        event.operation = last.operation
        event.finish_reason = next((p.finish_reason for p in reversed(parts) if p.finish_reason), None)
        event.tools_used = list(dict.fromkeys(tool for part in parts for tool in part.tools_used))
        event.stream = any(part.stream for part in parts)
        event.ttft_ms = first.ttft_ms if len(parts) == 1 else None
        event.prompt_hash, event.prompt, event.completion = first.prompt_hash, first.prompt, last.completion
        if not self._told_usage():
            self._count(event, parts)

    def _count(self, event: Event, parts: list[Event]) -> None:
        """Tokens are summed; so will their prices be, each by its own model."""
        event.input_tokens = sum(part.input_tokens for part in parts)
        event.output_tokens = sum(part.output_tokens for part in parts)
        event.cached_tokens = sum(part.cached_tokens or 0 for part in parts) or None
        if all(part.tags.get("usage") == "missing" for part in parts):
            event.tags["usage"] = "missing"
        event.usage = Parts(parts)


def _listen() -> None:
    with loading():
        from .providers._observed import listen

    before_flush(_settle_waiting)
    listen()


def _failure(error: BaseException) -> tuple[str, str | None, str | None]:
    with loading():
        from .providers._failure import failure_of

    status, code, message = failure_of(error)
    return status, code or type(error).__name__, message
