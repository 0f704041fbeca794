"""The event: one model call or one span, field for field as `POST /v1/ingest` takes it.

This module is the contract between the SDK and the server; it knows neither. Identifiers come from
`os.urandom`, so that forked workers and restored snapshots never share one.
"""

# Annotations are not kept as text here: `dataclass` would take each apart, 0.1 ms of every import.
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ._version import __version__

PROVIDERS: Final = ("openai", "anthropic", "google", "custom")
OPERATIONS: Final = ("chat", "embed", "image", "tts", "custom")
STATUSES: Final = ("success", "error", "timeout", "rate_limited", "cancelled")
SPAN_KINDS: Final = ("llm", "agent", "tool", "planning", "handoff", "retriever", "guardrail", "general")

MAX_MESSAGE: Final = 500
"""Characters of an error message that leave."""

MAX_EVENTS_PER_BATCH: Final = 100
"""The ingest endpoint refuses more events than this in one request."""


class Usage:
    """What a price depends on beyond the event's own token counts. It stays in the process.

    Token counts are those of one call. `input_tokens` and `cached_tokens` are on the event; the
    cache writes counted here are a part of `input_tokens`, as cached ones are.
    """

    # No dataclass: one takes half a millisecond of the import, and this is never compared or shown.
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_video_tokens: int = 0
    output_image_tokens: int = 0
    cached_image_tokens: int = 0
    service_tier: str | None = None
    speed: str | None = None
    web_searches: int = 0
    file_searches: int = 0
    audio_seconds: float = 0.0
    input_characters: int = 0
    api_url: str | None = None

    def __init__(self, **told: Any) -> None:
        vars(self).update(told)


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Event:
    """One line of an ingest request.

    Latencies are milliseconds, `cost_usd` is US dollars, `timestamp` is ISO 8601 in UTC and says when
    the call began. Fields that are None are left out of the line.
    """

    event_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    timestamp: str
    provider: str
    model: str
    operation: str
    latency_ms: float
    ttft_ms: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    cost_usd: float = 0.0
    status: str = "success"
    error_code: str | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    stream: bool = False
    environment: str = "production"
    user_id: str | None = None
    session_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    tools_used: list[str] = field(default_factory=list)
    eval_scores: dict[str, float] = field(default_factory=dict)
    prompt_hash: str | None = None
    sdk_version: str = __version__
    # Beyond the seed's schema; a server may ignore these.
    span_kind: str | None = None
    name: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    completion: str | None = None
    # Never on the wire.
    usage: Usage | None = None


class Recording(Protocol):
    """What the hot path puts on the queue: cheap to make, turned into an event by the exporter thread."""

    size: int
    """About how many bytes it keeps alive, for the queue's bound."""

    def event(self) -> Event: ...


RANDOM_BYTES: Final = 40
"""That the ids of one event take at most."""

_drawn: Final[ContextVar[Callable[[int], bytes] | None]] = ContextVar("lumiqtrace_drawn", default=None)


@contextmanager
def ids_for(events: int) -> Iterator[None]:
    """Inside, the ids of so many events are drawn at once.

    Each `os.urandom` lets go of the interpreter, which a busy program gives back after up to 5 ms: to deliver
    2,000 calls made in a loop took 10,800 calls of `futex`, and takes 1,700 (measured). Nothing is kept for
    later, when a fork or a snapshot of the process would give it to two.
    """
    before = _drawn.set(io.BytesIO(os.urandom(events * RANDOM_BYTES)).read)
    try:
        yield
    finally:
        _drawn.reset(before)


def _random(size: int) -> bytes:
    drawn = _drawn.get()
    found = b"" if drawn is None else drawn(size)
    return found if len(found) == size else os.urandom(size)


def new_event_id() -> str:
    """A random UUIDv4 (RFC 9562, 5.4), at a third of the time that the `uuid` module takes."""
    digits = _random(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def new_trace_id() -> str:
    """32 hex digits, the shape of a W3C trace id."""
    return _random(16).hex()


def new_span_id() -> str:
    """16 hex digits, the shape of a W3C parent id."""
    return _random(8).hex()


def iso_timestamp(seconds: float) -> str:
    """Unix time as `2026-04-20T10:00:00.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
