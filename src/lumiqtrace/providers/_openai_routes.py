"""Which requests of the OpenAI API are model calls, and where their answers keep the facts.

The table at the end has a row for each billable path; the functions above it read whole answers, and
streams event by event. They take the client's objects and plain JSON alike, and nothing surprises them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from .._event import Usage
from ._answer import Answer, Route, count, each, fields, pick, text
from ._failure import error_code, is_rate_limit

# ---- what all answers share --------------------------------------------------------------------------

_INPUT: Final = ("prompt_tokens", "input_tokens")
_OUTPUT: Final = ("completion_tokens", "output_tokens")
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens")  # DeepSeek, Together
# Chat and completions, responses, then audio and realtime.
_INPUT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")


def _count(answer: Answer, parts: Usage) -> None:
    told = answer.reported
    answer.output_tokens = _first_count(told, _OUTPUT)
    # Some embedding services tell the total alone.
    answer.input_tokens = _first_count(told, _INPUT) or (
        0 if answer.output_tokens else count(told.get("total_tokens"))
    )
    inputs, outputs = _first(told, _INPUT_DETAILS), _first(told, _OUTPUT_DETAILS)
    answer.cached_tokens = count(inputs.get("cached_tokens")) or _first_count(told, _CACHED)
    parts.cache_write_tokens = count(inputs.get("cache_write_tokens"))
    parts.input_audio_tokens = count(inputs.get("audio_tokens"))
    parts.input_image_tokens = count(inputs.get("image_tokens"))
    parts.output_audio_tokens = count(outputs.get("audio_tokens"))
    parts.output_image_tokens = count(outputs.get("image_tokens"))
    parts.service_tier = text(told.get("service_tier"))
    parts.web_searches = count(told.get("web_search_call"))
    parts.file_searches = count(told.get("file_search_call"))
    seconds = told.get("seconds")
    parts.audio_seconds = seconds if type(seconds) is float else count(seconds)
    if cached := inputs.get("cached_tokens_details"):
        parts.cached_audio_tokens = count(pick(cached, "audio_tokens"))
        parts.cached_image_tokens = count(pick(cached, "image_tokens"))


def _first_count(told: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of several spellings that gives a count; vendors disagree on names."""
    for name in names:
        if found := count(told.get(name)):
            return found
    return 0


def _first(told: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The members of the first of `names` that is there."""
    for name in names:
        if (found := told.get(name)) is not None:
            return fields(found)
    return {}


def _read_common(body: Any, answer: Answer) -> dict[str, Any]:
    told = fields(body)
    answer.model = text(told.get("model")) or answer.model
    answer.reports(told.get("usage") or pick(told.get("x_groq"), "usage"))
    # A word of the answer's, not of its usage's; the price depends on both.
    if (tier := told.get("service_tier")) is not None:
        answer.reported["service_tier"] = tier
    _read_error(told.get("error"), answer)
    return told


def _read_error(error: Any, answer: Answer) -> None:
    """Gateways answer 200 with an error object inside, whole or as an event of a stream."""
    if error is None:
        return
    answer.error_code = error_code(error) or "error"
    answer.error_message = text(pick(error, "message")) or text(error)
    answer.status = "rate_limited" if is_rate_limit(answer.error_code) else "error"


# ---- chat and completions ----------------------------------------------------------------------------


def _read_message(message: Any, answer: Answer) -> None:
    told = fields(message)
    answer.said(told.get("content"))
    if calls := told.get("tool_calls"):
        for call in each(calls):
            answer.used(pick(call, "function", "name") or pick(call, "custom", "name"))
    if call := told.get("function_call"):
        answer.used(pick(call, "name"))


def _read_chat(body: Any, answer: Answer) -> None:
    choices = each(_read_common(body, answer).get("choices"))
    for choice in choices:
        told = fields(choice)
        if choice is choices[0]:
            answer.finish_reason = text(told.get("finish_reason"))
        answer.said(told.get("text"))
        _read_message(told.get("message"), answer)


def _fold_chat(chunk: Any, answer: Answer) -> None:
    _read_common(chunk, answer)
    for choice in each(pick(chunk, "choices")):
        reason = text(pick(choice, "finish_reason"))
        if reason is not None and not count(pick(choice, "index")):
            answer.finish_reason = reason
        answer.said(pick(choice, "text"))
        _read_message(pick(choice, "delta"), answer)


_OUTPUT_OF_A_DELTA: Final = (
    "content", "tool_calls", "reasoning_content", "reasoning", "refusal", "function_call", "audio",
)  # fmt: skip


def _chat_begins(chunk: Any) -> bool:
    for choice in each(pick(chunk, "choices")):
        delta = pick(choice, "delta")
        if pick(choice, "text") or any(pick(delta, key) for key in _OUTPUT_OF_A_DELTA):
            return True
    return False


_REASON: Final = b'"finish_reason":'
_REASON_NULL: Final = b'"finish_reason":null'
_REASON_NULL_SPACED: Final = b'"finish_reason": null'
_USAGE: Final = b'"usage":'
_USAGE_NULL: Final = b'"usage":null'
_USAGE_NULL_SPACED: Final = b'"usage": null'
_TELLING: Final = (b'"tool_calls"', b'"function_call"', b'"error"', b'"x_groq"')


def _chat_is_plain(payload: bytes) -> bool:
    """By its bytes, in the two ways in which JSON is spaced; anything else is parsed."""
    reasons = payload.count(_REASON)
    if not reasons or payload.count(_REASON_NULL) + payload.count(_REASON_NULL_SPACED) != reasons:
        return False
    if _USAGE in payload and payload.count(_USAGE_NULL) + payload.count(_USAGE_NULL_SPACED) != 1:
        return False
    return not any(word in payload for word in _TELLING)


# ---- responses ---------------------------------------------------------------------------------------


def _read_response(body: Any, answer: Answer) -> None:
    """A response of the responses or the realtime API, with its text."""
    _read_outcome(body, answer)
    for item in each(pick(body, "output")):
        for part in each(pick(item, "content")) if pick(item, "type") == "message" else ():
            answer.said(pick(part, "text") or pick(part, "transcript"))


_BILLED_TOOLS: Final = ("web_search_call", "file_search_call")


def _read_outcome(body: Any, answer: Answer) -> None:
    _read_common(body, answer)
    status = text(pick(body, "status"))
    reason = pick(body, "incomplete_details", "reason") or pick(body, "status_details", "reason")
    answer.finish_reason = text(reason) or status
    if status == "failed":
        _read_error(pick(body, "status_details", "error"), answer)
        answer.status = answer.status or "error"
    elif status == "cancelled":
        answer.status = status
    kinds = [_read_tool(item, answer) for item in each(pick(body, "output"))]
    for kind in _BILLED_TOOLS:
        if kind in kinds:
            answer.reported[kind] = kinds.count(kind)


def _read_tool(item: Any, answer: Answer) -> str:
    """The kind of item. The client's tools have a name; one of the provider's own is named by its kind."""
    kind = text(pick(item, "type")) or ""
    if kind.endswith("_call"):
        answer.used(pick(item, "name") or kind.removesuffix("_call"))
    return kind


_RESPONSE_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")


def _fold_response(event: Any, answer: Answer) -> None:
    kind = pick(event, "type")
    if kind == "response.output_text.delta":
        answer.said(pick(event, "delta"))
    elif kind == "response.output_item.done":
        _read_tool(pick(event, "item"), answer)
    elif kind in _RESPONSE_ENDS:
        answer.complete = True
        _read_outcome(pick(event, "response"), answer)
    elif kind == "error":
        _read_error(pick(event, "error") or event, answer)
    else:
        answer.model = text(pick(event, "response", "model")) or answer.model
        _read_error(pick(event, "error"), answer)


def _response_is_plain(payload: bytes) -> bool:
    return b'"type":"response.output_text.delta"' in payload and b'"error"' not in payload


# ---- images and audio --------------------------------------------------------------------------------


def _fold_media(event: Any, answer: Answer) -> None:
    """Streams of images, transcripts and speech: pieces, then an event with the whole and the usage."""
    kind = text(pick(event, "type")) or ""
    if kind == "transcript.text.delta":
        answer.said(pick(event, "delta"))
    answer.complete = answer.complete or kind.endswith((".completed", "audio.done", "text.done"))
    _read_common(event, answer)


def _read_transcript(body: Any, answer: Answer) -> None:
    """An object, or the bare text where the caller asked for that."""
    _read_common(body, answer)
    answer.said(text(body) or pick(body, "text"))


def _event_begins(event: Any) -> bool:
    kind = text(pick(event, "type")) or ""
    if kind.endswith(".delta"):
        return bool(pick(event, "delta") or pick(event, "audio"))
    return kind.endswith("partial_image")


# ---- the table ---------------------------------------------------------------------------------------


def _never_begins(_chunk: Any) -> bool:
    return False


_VIDEO: Final = Route("custom", ("prompt",), _read_common, _read_common, _never_begins, _count)
_IMAGE: Final = Route("image", ("prompt",), _read_common, _fold_media, _event_begins, _count)
_TRANSCRIPT: Final = Route("custom", ("prompt",), _read_transcript, _fold_media, _event_begins, _count)
RESPONSE: Final = Route(
    "chat",
    ("input", "instructions"),
    _read_response,
    _fold_response,
    _event_begins,
    _count,
    _response_is_plain,
)
DECISION: Final = Route("custom", ("input", "questions"), _read_common, _read_common, _never_begins, _count)

_ROUTES: Final = {
    "/chat/completions": Route(
        "chat", ("messages",), _read_chat, _fold_chat, _chat_begins, _count, _chat_is_plain
    ),
    "/responses": RESPONSE,
    "/responses/compact": RESPONSE,
    "/completions": Route("chat", ("prompt",), _read_chat, _fold_chat, _chat_begins, _count, _chat_is_plain),
    "/embeddings": Route("embed", ("input",), _read_common, _read_common, _never_begins, _count),
    "/decisions": DECISION,
    "/images/generations": _IMAGE,
    "/images/edits": _IMAGE,
    "/images/variations": _IMAGE,
    "/audio/transcriptions": _TRANSCRIPT,
    "/audio/translations": _TRANSCRIPT,
    "/audio/speech": Route("tts", ("input",), _read_common, _fold_media, _event_begins, _count),
    "/videos": _VIDEO,
    "/videos/edits": _VIDEO,
    "/videos/extensions": _VIDEO,
    "/remix": _VIDEO,
}


@lru_cache(maxsize=256)
def route_of(url: str) -> Route | None:
    """The row for a request's path; absolute addresses and deployment prefixes are as good."""
    path = url.partition("?")[0].rstrip("/")
    return next((route for suffix, route in _ROUTES.items() if path.endswith(suffix)), None)
