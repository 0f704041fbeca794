"""OpenAI and everything that speaks its dialect, through the `openai` client library.

The tables below say which requests are model calls, where an answer keeps its facts, and whose API an
address is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from .._client import before_flush
from ._answer import Answer, Route, count, each, first_count, pick, text
from ._failure import error_code, is_rate_limit
from ._stainless import StainlessInstrumentation
from ._tap import settle

# ---- where an answer keeps its facts -----------------------------------------------------------------

_INPUT: Final = (("prompt_tokens",), ("input_tokens",))
_OUTPUT: Final = (("completion_tokens",), ("output_tokens",))
_CACHED: Final = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),  # DeepSeek
    ("cached_tokens",),  # Together
)
_CACHE_WRITE: Final = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
)
_AUDIO_IN: Final = (("prompt_tokens_details", "audio_tokens"),)
_AUDIO_OUT: Final = (("completion_tokens_details", "audio_tokens"),)


def _read_usage(usage: Any, answer: Answer) -> None:
    if usage is None:
        return
    answer.has_usage = True
    answer.output_tokens = first_count(usage, _OUTPUT)
    # Some embedding services tell the total alone.
    answer.input_tokens = first_count(usage, _INPUT) or (
        0 if answer.output_tokens else count(pick(usage, "total_tokens"))
    )
    answer.cached_tokens = first_count(usage, _CACHED)
    answer.usage.cache_write_tokens = first_count(usage, _CACHE_WRITE)
    answer.usage.input_audio_tokens = first_count(usage, _AUDIO_IN)
    answer.usage.output_audio_tokens = first_count(usage, _AUDIO_OUT)


def _read_common(body: Any, answer: Answer) -> None:
    answer.model = text(pick(body, "model")) or answer.model
    answer.usage.service_tier = text(pick(body, "service_tier")) or answer.usage.service_tier
    _read_usage(pick(body, "usage") or pick(body, "x_groq", "usage"), answer)
    _read_error(body, answer)


def _read_error(body: Any, answer: Answer) -> None:
    """Gateways answer 200 with an error object inside, whole or as an event of a stream."""
    error = pick(body, "error")
    if error is None:
        return
    answer.error_code = error_code(error) or "error"
    answer.error_message = text(pick(error, "message")) or text(error)
    answer.status = "rate_limited" if is_rate_limit(answer.error_code) else "error"


def _read_message(message: Any, answer: Answer) -> None:
    answer.said(pick(message, "content"))
    for call in each(pick(message, "tool_calls")):
        answer.used(pick(call, "function", "name") or pick(call, "custom", "name"))
    answer.used(pick(message, "function_call", "name"))


def _read_chat(body: Any, answer: Answer) -> None:
    _read_common(body, answer)
    for index, choice in enumerate(each(pick(body, "choices"))):
        if index == 0:
            answer.finish_reason = text(pick(choice, "finish_reason"))
        _read_message(pick(choice, "message"), answer)


def _fold_chat(chunk: Any, answer: Answer) -> None:
    _read_common(chunk, answer)
    for choice in each(pick(chunk, "choices")):
        reason = text(pick(choice, "finish_reason"))
        if reason is not None and not count(pick(choice, "index")):
            answer.finish_reason = reason
        _read_message(pick(choice, "delta"), answer)


def _chat_begins(chunk: Any) -> bool:
    for choice in each(pick(chunk, "choices")):
        delta = pick(choice, "delta")
        if any(
            pick(delta, key) for key in ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")
        ):
            return True
    return False


def _never_begins(_chunk: Any) -> bool:
    return False


_ROUTES: Final = {
    "/chat/completions": Route("chat", ("messages",), _read_chat, _fold_chat, _chat_begins),
    "/embeddings": Route("embed", ("input",), _read_common, _read_common, _never_begins),
}


@lru_cache(maxsize=256)
def _route(url: str) -> Route | None:
    """The row for a request's path; absolute addresses and deployment prefixes are as good."""
    path = url.partition("?")[0].rstrip("/")
    return next((route for suffix, route in _ROUTES.items() if path.endswith(suffix)), None)


# ---- whose API it is -----------------------------------------------------------------------------------

_HOSTS: Final = (
    ("api.openai.com", "openai", None),
    ("openai.azure.com", "openai", "azure"),
    ("cognitiveservices.azure.com", "openai", "azure"),
    ("services.ai.azure.com", "openai", "azure"),
    ("api.anthropic.com", "anthropic", None),
    ("googleapis.com", "google", None),
    ("amazonaws.com", "custom", "bedrock"),
    ("openrouter.ai", "custom", "openrouter"),
    ("groq.com", "custom", "groq"),
    ("together.xyz", "custom", "together"),
    ("together.ai", "custom", "together"),
    ("deepseek.com", "custom", "deepseek"),
    ("mistral.ai", "custom", "mistral"),
    ("x.ai", "custom", "x-ai"),
    ("fireworks.ai", "custom", "fireworks"),
    ("perplexity.ai", "custom", "perplexity"),
    ("cerebras.ai", "custom", "cerebras"),
    ("huggingface.co", "custom", "huggingface"),
    ("ollama.com", "custom", "ollama"),
)


@lru_cache(maxsize=256)
def origin(url: str) -> tuple[str, str | None]:
    """Provider and vendor of an API address; an unknown host is `custom` with its name as the vendor."""
    host = (urlsplit(url).hostname or "unknown").removeprefix("us.").removeprefix("eu.")
    for suffix, provider, vendor in _HOSTS:
        if host == suffix or host.endswith("." + suffix):
            return provider, vendor
    return "custom", host


# ---- the patch -----------------------------------------------------------------------------------------

_instrumentation: Final = StainlessInstrumentation("openai", _route, origin)


def patch_openai() -> None:
    """Record every model call made with the `openai` library, by clients made before or after.

    Idempotent; before or after `init`; before `import openai` it acts when that is imported. Raises
    MissingExtraError (an ImportError) where the library is not installed.
    """
    before_flush(settle)
    _instrumentation.install()


def unpatch_openai() -> None:
    """Put the library's own methods back. Calls under way are still recorded."""
    _instrumentation.remove()
