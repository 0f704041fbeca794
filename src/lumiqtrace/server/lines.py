"""One line of an ingest request: an event that fits the schema, or an error that says what would be right.

Fields the schema does not know are kept, byte for byte as they were sent, and so is every known one.
`span_kind`, `name` and `metadata` are such fields: nothing here depends on them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from lumiqtrace._event import OPERATIONS, PROVIDERS, STATUSES

from .storage.base import NewEvent

MAX_EVENT_BYTES: Final = 256 * 1024

_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_ParentId = Annotated[str, Meta(max_length=256)]
_Amount = Annotated[float, Meta(ge=0)]
# Read as a float, for 12.0 is a count too; up to 2**53 a float holds every integer exactly.
_Count = Annotated[float, Meta(ge=0, le=2**53)]


class _Fields(msgspec.Struct):
    event_id: uuid.UUID
    trace_id: _Id
    span_id: _Id
    timestamp: str
    provider: str
    model: str
    operation: str
    latency_ms: _Amount
    input_tokens: _Count
    output_tokens: _Count
    cost_usd: _Amount
    status: str
    stream: bool
    environment: str
    sdk_version: str
    parent_span_id: _ParentId | None = None
    ttft_ms: _Amount | None = None
    cached_tokens: _Count | None = None
    error_code: str | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    tags: dict[str, str] | None = None
    tools_used: list[str] | None = None
    eval_scores: dict[str, float] | None = None
    prompt_hash: str | None = None


# Operations beyond the seed's are what the product's other writers send.
_ENUMERATIONS: Final = {
    "provider": PROVIDERS,
    "operation": (*OPERATIONS, "tool", "agent"),
    "status": STATUSES,
}
_COUNT_FIELDS: Final = ("input_tokens", "output_tokens", "cached_tokens")
_TIME: Final = 'an ISO 8601 time with a zone, like "2026-04-20T10:00:00.000Z"'
_COUNT: Final = "an integer from 0 to 2**53"
_RIGHT: Final = {
    "event_id": "a UUID",
    "trace_id": "a string of 1 to 256 characters",
    "span_id": "a string of 1 to 256 characters",
    "parent_span_id": "a string of at most 256 characters",
    "timestamp": _TIME,
    "latency_ms": "a number from 0",
    "ttft_ms": "a number from 0",
    "cost_usd": "a number from 0",
    "stream": "true or false",
    "tags": "an object of strings",
    "tools_used": "a list of strings",
    "eval_scores": "an object of numbers",
} | dict.fromkeys(_COUNT_FIELDS, _COUNT)

_TEXT: Final = re.compile(rb"[^ \t\r\n][^\n]*")
_MISSING: Final = re.compile(r"missing required field `(\w+)`")
_AT_FIELD: Final = re.compile(r"at `\$\.(\w+)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SHOWN_BYTES: Final = 40

_typed: Final = msgspec.json.Decoder(_Fields)
_verbatim: Final = msgspec.json.Decoder(dict[str, Raw])


class BadLineError(Exception):
    """The line is not an event; the message names the field and what would be right."""


def numbered_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1, blank ones counted."""
    number, counted_to = 1, 0
    for match in _TEXT.finditer(body):
        number += body.count(b"\n", counted_to, match.start())
        counted_to = match.start()
        yield number, match.group()


def parse_line(line: bytes) -> NewEvent:
    """The event of one NDJSON line. Raises BadLineError."""
    if len(line) > MAX_EVENT_BYTES:
        raise BadLineError(f"event too large: {len(line)} bytes, at most {MAX_EVENT_BYTES}")
    fields, verbatim = _decode(line)
    _check_values(fields, verbatim)
    return NewEvent(
        event_id=fields.event_id.bytes,
        trace_id=fields.trace_id,
        span_id=fields.span_id,
        parent_span_id=fields.parent_span_id,
        timestamp=_microseconds(fields.timestamp, verbatim),
        body=_flat(verbatim),
    )


def _decode(line: bytes) -> tuple[_Fields, dict[str, Raw]]:
    try:
        # The decoder does not look inside the fields that it passes over.
        line.decode()
        verbatim = _verbatim.decode(line)
        return _typed.decode(line), verbatim
    except UnicodeDecodeError:
        raise BadLineError("not UTF-8") from None
    except RecursionError:
        raise BadLineError("nested too deeply") from None
    except msgspec.ValidationError as exc:
        raise BadLineError(_explain(str(exc), line)) from None
    except msgspec.DecodeError as exc:
        raise BadLineError(f"not valid JSON: {exc}") from None


def _explain(reason: str, line: bytes) -> str:
    """The decoder's reason in the words of the schema."""
    if missing := _MISSING.search(reason):
        return f"{missing[1]}: required"
    at_field = _AT_FIELD.search(reason)
    if at_field is None:
        return "not a JSON object"
    name = at_field[1]
    return _wrong(name, _verbatim.decode(line)[name], _RIGHT.get(name, "a string"))


def _wrong(name: str, value: Raw, right: str) -> str:
    sent = bytes(value).strip()
    if sent == b"null":
        return f"{name}: required"
    # Cut first: a cut character shows as a replacement mark, and the answer stays short.
    shown = sent[:_SHOWN_BYTES].decode(errors="replace") + ("..." if len(sent) > _SHOWN_BYTES else "")
    return f"{name}: {shown} is not {right}"


def _check_values(fields: _Fields, verbatim: dict[str, Raw]) -> None:
    for name, allowed in _ENUMERATIONS.items():
        if getattr(fields, name) not in allowed:
            raise BadLineError(_wrong(name, verbatim[name], f"one of {', '.join(allowed)}"))
    for name in _COUNT_FIELDS:
        value: float | None = getattr(fields, name)
        if value is not None and not value.is_integer():
            raise BadLineError(_wrong(name, verbatim[name], _COUNT))


def _microseconds(timestamp: str, verbatim: dict[str, Raw]) -> int:
    """Microseconds since 1970 in UTC."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadLineError(_wrong("timestamp", verbatim["timestamp"], _TIME))
    return (moment - _EPOCH) // _MICROSECOND


def _flat(verbatim: dict[str, Raw]) -> bytes:
    """The event as a trace gives it back, short of its children, which are not the sender's to name."""
    verbatim.pop("children", None)
    verbatim.setdefault("parent_span_id", Raw(b"null"))
    return msgspec.json.encode(verbatim)
