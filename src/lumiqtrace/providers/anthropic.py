"""Anthropic, through the `anthropic` client library: its own API, Bedrock, Vertex, Foundry, and gateways.

The tables below say which requests are model calls, where an answer keeps its facts, and by whom it was
served. `input_tokens` of an event includes what was read from and written to the prompt cache, which
Anthropic counts beside its own `input_tokens`.
"""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from .._event import Usage
from ._answer import Answer, Route, count, each, fields, pick, text
from ._failure import error_code, is_rate_limit
from ._stainless import StainlessInstrumentation

Client = TypeVar("Client")

# ---- what was used -----------------------------------------------------------------------------------


class _Tokens(NamedTuple):
    """Input counts the cache's reads and writes too; `hour` is what was written to be kept that long."""

    input: int
    output: int
    read: int
    written: int
    hour: int


def _count(answer: Answer, priced: Usage) -> None:
    reported = answer.reported
    tokens = _tokens(reported)
    for compaction in _compactions(reported):
        tokens = _Tokens(*map(operator.add, tokens, _tokens(fields(compaction))))
    answer.input_tokens, answer.output_tokens, answer.cached_tokens = tokens[:3]
    priced.cache_write_tokens, priced.cache_write_1h_tokens = tokens[3:]
    priced.web_searches = count(pick(reported.get("server_tool_use"), "web_search_requests"))
    priced.service_tier = text(reported.get("service_tier"))
    priced.speed = text(reported.get("speed"))


def _tokens(reported: dict[str, Any]) -> _Tokens:
    split = fields(reported.get("cache_creation"))
    hour = count(split.get("ephemeral_1h_input_tokens"))
    minutes = count(split.get("ephemeral_5m_input_tokens"))
    written = max(count(reported.get("cache_creation_input_tokens")), minutes + hour)
    read = count(reported.get("cache_read_input_tokens"))
    uncached = count(reported.get("input_tokens"))
    return _Tokens(uncached + read + written, count(reported.get("output_tokens")), read, written, hour)


def _compactions(reported: dict[str, Any]) -> list[Any]:
    """What summarizing the context took: billed at the same rates, and not part of the totals.

    The other iterations are part of the totals, but for an advisor's: that is another model, with a
    price of its own, and no event of one model can say what it used.
    """
    return [item for item in each(reported.get("iterations")) if pick(item, "type") == "compaction"]


# ---- what was answered -------------------------------------------------------------------------------

_STATUSES: Final = {
    "timeout_error": "timeout",
    "modelTimeoutException": "timeout",  # Bedrock
    "throttlingException": "rate_limited",  # Bedrock
}


def _read_error(body: Any, answer: Answer) -> None:
    """An error inside a stream, or where a gateway answers 200 with one."""
    error = pick(body, "error")
    if error is None:
        return
    code = error_code(error) or "error"
    answer.error_code = code
    answer.error_message = text(pick(error, "message")) or text(error)
    answer.status = "rate_limited" if is_rate_limit(code) else _STATUSES.get(code, "error")


def _read_block(block: Any, answer: Answer) -> None:
    """A piece of the content: `tool_use`, `server_tool_use` and `mcp_tool_use` name their tool."""
    if block is None:
        return
    kind = text(pick(block, "type")) or ""
    if kind == "text":
        answer.said(pick(block, "text"))
    elif kind.endswith("tool_use"):
        answer.used(pick(block, "name"))
    elif kind == "fallback":
        # Another model took over within the answer; a whole answer names the last one itself.
        answer.model = text(pick(block, "to", "model")) or answer.model


def _read_message(body: Any, answer: Answer) -> None:
    for block in each(pick(body, "content")):
        _read_block(block, answer)
    answer.model = text(pick(body, "model")) or answer.model
    answer.finish_reason = text(pick(body, "stop_reason")) or answer.finish_reason
    answer.reports(pick(body, "usage"))
    _read_error(body, answer)


def _fold_message(event: Any, answer: Answer) -> None:
    """By the fields an event has, not its type: some gateways say the type in the event's name alone."""
    own = fields(event)
    delta = fields(own.get("delta"))
    if delta:
        answer.said(delta.get("text"))
        answer.finish_reason = text(delta.get("stop_reason")) or answer.finish_reason
    if "message" in own:
        _read_message(own["message"], answer)
    _read_block(own.get("content_block"), answer)
    answer.reports(own.get("usage"))
    _read_error(own, answer)
    if own.get("type") == "message_stop":
        answer.complete = True


_TELLING: Final = (b'"usage"', b'"error"', b'"stop_reason"', b'"message"', b'"content_block"')


def _message_begins(event: Any) -> bool:
    """Text, thinking or a tool's input; the start of a tool call too, for it brings the tool's name."""
    delta = fields(pick(event, "delta"))
    if any(delta.get(key) for key in ("text", "thinking", "partial_json")):
        return True
    block = pick(event, "content_block")
    kind = text(pick(block, "type")) or ""
    return kind.endswith("tool_use") or kind == "redacted_thinking" or bool(pick(block, "text"))


def _is_plain(payload: bytes) -> bool:
    """A piece of a text, of thinking or of a tool's input."""
    return b'"type":"content_block_delta"' in payload and not any(word in payload for word in _TELLING)


def _read_completion(body: Any, answer: Answer) -> None:
    """The older API, whole or a piece of it; it does not say what it used."""
    answer.said(pick(body, "completion"))
    _read_message(body, answer)


def _completion_begins(event: Any) -> bool:
    return bool(pick(event, "completion"))


_ROUTES: Final = {
    "/v1/messages": Route(
        "chat", ("system", "messages"), _read_message, _fold_message, _message_begins, _count, _is_plain
    ),
    "/v1/complete": Route(
        "chat", ("prompt",), _read_completion, _read_completion, _completion_begins, _count
    ),
}


@lru_cache(maxsize=256)
def _route(url: str) -> Route | None:
    """The row for a request's path; the clients of other clouds rewrite it later, below the patch."""
    path = url.partition("?")[0].rstrip("/")
    return next((route for suffix, route in _ROUTES.items() if path.endswith(suffix)), None)


# ---- by whom it was served -----------------------------------------------------------------------------

_VENDORS: Final = (
    ("api.anthropic.com", None),
    ("amazonaws.com", "bedrock"),
    ("claude.googleapis.com", "google-cloud"),
    ("googleapis.com", "vertex"),
    ("azure.com", "azure"),
)


@lru_cache(maxsize=256)
def origin(url: str) -> tuple[str, str | None]:
    """Provider, always `anthropic`, and the vendor; that of an unknown host is its name."""
    host = urlsplit(url).hostname or "unknown"
    if host.endswith(".api.aws"):
        return "anthropic", "bedrock" if host.startswith("bedrock") else "aws"
    for suffix, vendor in _VENDORS:
        if host == suffix or host.endswith("." + suffix):
            return "anthropic", vendor
    return "anthropic", host


# ---- the patch -----------------------------------------------------------------------------------------

_instrumentation: Final = StainlessInstrumentation("anthropic", _route, origin)


def patch_anthropic() -> None:
    """Record every model call made with the `anthropic` library, by clients made before or after.

    Sessions of managed agents make no event: the service makes their calls, and tells their sums to any
    number of observers.

    Idempotent; before or after `init`; before `import anthropic` it acts when that is imported. Raises
    MissingExtraError (an ImportError) where the library is not installed.
    """
    _instrumentation.install()


def unpatch_anthropic() -> None:
    """Put the library's own methods back. Calls under way are still recorded."""
    _instrumentation.remove()


def wrap_anthropic(client: Client) -> Client:
    """Record the model calls of this client and of its copies, and give the same client back.

    Takes any client of the `anthropic` library, blocking or async; TypeError for anything else. Together
    with `patch_anthropic` a call is still recorded once.
    """
    _instrumentation.wrap_own(client)
    return client
