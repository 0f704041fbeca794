"""Which requests of the `google-genai` library are model calls, and where their answers keep the facts.

Three dialects say the same things: the REST API in camelCase, the library's own objects (in Live sessions)
in snake_case, and the interactions API with names of its own. The tables below list all spellings.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from .._event import Usage
from ._answer import Answer, Route, count, each, first_count, pick, text
from ._failure import is_rate_limit

# ---- usage -------------------------------------------------------------------------------------------

_INPUT: Final = (("promptTokenCount",), ("prompt_token_count",), ("total_input_tokens",))
_TOOL_INPUT: Final = (
    ("toolUsePromptTokenCount",), ("tool_use_prompt_token_count",), ("total_tool_use_tokens",),
)  # fmt: skip
_OUTPUT: Final = (
    ("candidatesTokenCount",), ("response_token_count",), ("total_output_tokens",),
)  # fmt: skip
_THOUGHTS: Final = (("thoughtsTokenCount",), ("thoughts_token_count",), ("total_thought_tokens",))
_CACHED: Final = (
    ("cachedContentTokenCount",), ("cached_content_token_count",), ("total_cached_tokens",),
)  # fmt: skip

_INPUT_DETAILS: Final = (
    "promptTokensDetails", "toolUsePromptTokensDetails",
    "prompt_tokens_details", "tool_use_prompt_tokens_details",
    "input_tokens_by_modality", "tool_use_tokens_by_modality",
)  # fmt: skip
_OUTPUT_DETAILS: Final = (
    "candidatesTokensDetails", "response_tokens_details", "output_tokens_by_modality",
)  # fmt: skip
_CACHED_DETAILS: Final = ("cacheTokensDetails", "cache_tokens_details", "cached_tokens_by_modality")

# What a modality's tokens are called where they have a price of their own. A document is priced as images.
_IN: Final = {
    "AUDIO": "input_audio_tokens",
    "IMAGE": "input_image_tokens",
    "DOCUMENT": "input_image_tokens",
    "VIDEO": "input_video_tokens",
}
_OUT: Final = {"AUDIO": "output_audio_tokens", "IMAGE": "output_image_tokens"}
_CACHE: Final = {
    "AUDIO": "cached_audio_tokens",
    "IMAGE": "cached_image_tokens",
    "DOCUMENT": "cached_image_tokens",
}
_MODALITIES: Final = ((_INPUT_DETAILS, _IN), (_OUTPUT_DETAILS, _OUT), (_CACHED_DETAILS, _CACHE))

_TOKENS: Final = (("tokenCount",), ("token_count",), ("tokens",))


def count_usage(answer: Answer, priced: Usage) -> None:
    """Cumulative in a stream: each number replaced the one before; the last piece may leave some out."""
    usage = answer.reported
    answer.input_tokens = first_count(usage, _INPUT) + first_count(usage, _TOOL_INPUT)
    # Thoughts are billed as output, and are not among the candidates' tokens.
    answer.output_tokens = first_count(usage, _OUTPUT) + first_count(usage, _THOUGHTS)
    answer.cached_tokens = first_count(usage, _CACHED)
    for details, names in _MODALITIES:
        found = dict.fromkeys(names.values(), 0)
        for entry in (entry for key in details for entry in each(pick(usage, key))):
            name = names.get((word(pick(entry, "modality")) or "").upper())
            if name is not None:
                found[name] += first_count(entry, _TOKENS)
        for name, tokens in found.items():
            setattr(priced, name, tokens)
    tier = pick(usage, "serviceTier") or pick(usage, "service_tier")
    priced.service_tier = word(tier)


def word(value: Any) -> str | None:
    """A word of a fixed set: JSON has it as text, the library's objects as an enumeration's member."""
    return text(getattr(value, "value", value))


# ---- generate content --------------------------------------------------------------------------------


def _read_generated(body: Any, answer: Answer) -> None:
    """An answer, or one piece of a streamed one: they have the same form."""
    answer.model = text(pick(body, "modelVersion")) or answer.model
    answer.reports(pick(body, "usageMetadata"))
    # In a stream the first versions of the library pass over it.
    read_error(pick(body, "error"), answer)
    blocked = text(pick(body, "promptFeedback", "blockReason"))
    answer.finish_reason = blocked or answer.finish_reason
    for candidate in each(pick(body, "candidates")):
        if not count(pick(candidate, "index")):
            answer.finish_reason = text(pick(candidate, "finishReason")) or answer.finish_reason
        for part in each(pick(candidate, "content", "parts")):
            read_part(part, answer)


def read_part(part: Any, answer: Answer) -> None:
    if not pick(part, "thought"):
        answer.said(pick(part, "text"))
    answer.used(pick(part, "functionCall", "name") or pick(part, "function_call", "name"))
    if pick(part, "executableCode") or pick(part, "executable_code"):
        answer.used("code_execution")


def _generated_begins(piece: Any) -> bool:
    return any(
        _part_begins(part)
        for candidate in each(pick(piece, "candidates"))
        for part in each(pick(candidate, "content", "parts"))
    )


_NO_OUTPUT: Final = ("thought", "thoughtSignature")


def _part_begins(part: Any) -> bool:
    """Whether a part carries output: a text, a call, data; not an empty text or a signature alone."""
    return type(part) is dict and any(value for key, value in part.items() if key not in _NO_OUTPUT)


# ---- embeddings, images, videos ----------------------------------------------------------------------


def _read_embedded(body: Any, answer: Answer) -> None:
    """Usage as everywhere, or, in the older API of Vertex, the tokens of each text."""
    answer.reports(pick(body, "usageMetadata"))
    for prediction in each(pick(body, "predictions")):
        statistics = pick(prediction, "embeddings", "statistics")
        if statistics is not None:
            answer.has_usage = True
            answer.input_tokens += count(pick(statistics, "token_count"))


def _read_predicted(body: Any, answer: Answer) -> None:
    answer.reports(pick(body, "usageMetadata"))


def _never_begins(_piece: Any) -> bool:
    return False


# ---- interactions and decisions ----------------------------------------------------------------------

# Statuses that name no reason for the end: there is none yet, or it is not told.
_NO_REASON: Final = ("in_progress", "queued", "incomplete")
_DONE: Final = ("interaction.completed", "interaction.complete")


def _read_interaction(body: Any, answer: Answer) -> None:
    """An interaction, with its text."""
    _read_outcome(body, answer)
    for step in _steps(body):
        for part in each(pick(step, "content")) if pick(step, "type") == "model_output" else (step,):
            if pick(part, "type") == "text":
                answer.said(pick(part, "text"))


def _read_outcome(body: Any, answer: Answer) -> None:
    answer.model = text(pick(body, "model")) or text(pick(body, "agent")) or answer.model
    if (tier := pick(body, "service_tier")) is not None:
        answer.reported["service_tier"] = tier
    answer.reports(pick(body, "usage"))
    status = text(pick(body, "status"))
    if status in ("failed", "cancelled"):
        answer.status = "error" if status == "failed" else status
    answer.finish_reason = status if status not in _NO_REASON else None
    read_error(pick(body, "error"), answer)
    for step in _steps(body):
        _read_tool(step, answer)


def _steps(body: Any) -> list[Any]:
    """What was done, called outputs in the first versions."""
    return each(pick(body, "steps")) + each(pick(body, "outputs"))


def _read_tool(step: Any, answer: Answer) -> None:
    """A call of the client's tools has a name; one of the provider's own is named by its type."""
    kind = text(pick(step, "type")) or ""
    if kind in ("function_call", "mcp_server_tool_call"):
        answer.used(pick(step, "name"))
    elif kind.endswith("_call"):
        answer.used(kind.removesuffix("_call"))


def _fold_interaction(event: Any, answer: Answer) -> None:
    kind = text(pick(event, "event_type")) or ""
    if kind in _DONE:
        answer.complete = True
        _read_outcome(pick(event, "interaction"), answer)
    elif kind == "error":
        read_error(pick(event, "error") or event, answer)
    else:
        answer.model = text(pick(event, "interaction", "model")) or answer.model
        if pick(event, "delta", "type") == "text":
            answer.said(pick(event, "delta", "text"))
        for name in ("step", "content", "delta"):
            _read_tool(pick(event, name), answer)


def _interaction_begins(event: Any) -> bool:
    """A delta that is more than a signature, or the beginning of a tool's call."""
    delta = pick(event, "delta")
    kind = text(pick(delta, "type") or pick(event, "step", "type") or pick(event, "content", "type")) or ""
    return kind.endswith("_call") or (delta is not None and kind != "thought_signature")


_STATUS_OF_HTTP: Final = {408: "timeout", 429: "rate_limited", 504: "timeout"}


def read_error(error: Any, answer: Answer) -> None:
    """An error object as Google writes it: a number like an HTTP status, a name, and a message."""
    if error is None:
        return
    number = pick(error, "code")
    name = text(pick(error, "status")) or text(number)
    if answer.status is None or isinstance(number, int):
        answer.status = http_status(number)
    if is_rate_limit(name):
        answer.status = "rate_limited"
    answer.error_code = name or answer.error_code or "error"
    answer.error_message = text(pick(error, "message")) or text(error)


def http_status(number: Any) -> str:
    """A refusal's status in the event, by that of HTTP."""
    return _STATUS_OF_HTTP.get(number, "error") if isinstance(number, int) else "error"


def _read_decision(body: Any, answer: Answer) -> None:
    answer.reports(pick(body, "usage"))
    answer.finish_reason = text(pick(body, "prompt_feedback", "block_reason"))
    read_error(pick(body, "error"), answer)


# ---- the tables --------------------------------------------------------------------------------------

_CHAT: Final = Route(
    "chat",
    ("contents", "systemInstruction"),
    _read_generated,
    _read_generated,
    _generated_begins,
    count_usage,
)
EMBED: Final = Route(
    "embed", ("requests", "content", "instances"), _read_embedded, _read_embedded, _never_begins, count_usage
)
_IMAGE: Final = Route("image", ("instances",), _read_predicted, _read_predicted, _never_begins, count_usage)
_VIDEO: Final = Route("custom", ("instances",), _read_predicted, _read_predicted, _never_begins, count_usage)
INTERACTION: Final = Route(
    "chat",
    ("input", "system_instruction"),
    _read_interaction,
    _fold_interaction,
    _interaction_begins,
    count_usage,
)
DECISION: Final = Route(
    "custom", ("input", "questions"), _read_decision, _read_decision, _never_begins, count_usage
)

_ROUTES: Final = {
    "generateContent": _CHAT,
    "streamGenerateContent": _CHAT,
    "embedContent": EMBED,
    "batchEmbedContents": EMBED,
    "predict": _IMAGE,
    "predictLongRunning": _VIDEO,
}


@lru_cache(maxsize=256)
def route(path: str) -> tuple[Route, str] | None:
    """The row and the model for `models/<m>:<verb>`, whatever stands before; None for a free request."""
    name, _, verb = path.partition("?")[0].rpartition(":")
    found = _ROUTES.get(verb)
    return None if found is None else (found, name.rpartition("/")[2])


@lru_cache(maxsize=64)
def origin(url: str) -> tuple[str, str | None]:
    """The provider is Google, whatever gateway the client goes through; the vendor tells Vertex AI."""
    host = urlsplit(url).hostname or ""
    return "google", "vertex" if host.endswith("aiplatform.googleapis.com") else None
