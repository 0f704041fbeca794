"""What an object that the application returned says about the model call that gave it.

For providers that no patch knows, and objects that are OpenAI's, Anthropic's or Google's in shape: the
clients' own or plain dicts. It is read as the provider's answer would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from .._event import Event, Usage
from ._answer import Answer, Route, fields, pick
from ._google_routes import EMBED as _GOOGLE
from ._openai_routes import route_of
from .anthropic import _route as anthropic_route

_COUNTS: Final = (
    "prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens",
    "prompt_token_count", "candidates_token_count", "total_token_count",
)  # fmt: skip

_SNAKE: Final = re.compile(r"_([a-z])")


def read_returned(result: object) -> Callable[[Event], Event] | None:
    """Read the numbers now, as the object may change; gives what makes an event of them, from the span's.

    None where it tells of no tokens.
    """
    usage, route = _usage(result)
    if route is None or not any(type(pick(usage, name)) is int for name in _COUNTS):
        return None
    answer = Answer()
    if route is _GOOGLE:
        told = {_SNAKE.sub(_upper, name): value for name, value in fields(usage).items()}
        answer.reports(told)
    else:
        route.read(result, answer)
    operation = "embed" if isinstance(pick(result, "data"), list) else "chat"
    return lambda span: _event(span, answer, route, operation)


def _usage(result: object) -> tuple[Any, Route | None]:
    usage = pick(result, "usage")
    if usage is None:
        usage = pick(result, "usage_metadata")
        return usage, None if usage is None else _GOOGLE
    if pick(result, "choices") is not None:
        return usage, route_of("/chat/completions")
    if pick(result, "type") == "message" or pick(usage, "cache_read_input_tokens") is not None:
        return usage, anthropic_route("/v1/messages")
    if isinstance(pick(result, "output"), list):
        return usage, route_of("/responses")
    return usage, route_of("/embeddings")


def _upper(match: re.Match[str]) -> str:
    return match[1].upper()


def _event(span: Event, answer: Answer, route: Route, operation: str) -> Event:
    usage = Usage()
    route.account(answer, usage)
    return Event(
        event_id=span.event_id,
        trace_id=span.trace_id,
        span_id=span.span_id,
        timestamp=span.timestamp,
        provider=span.provider,
        model=answer.model or span.model,
        operation=operation,
        latency_ms=span.latency_ms,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cached_tokens=answer.cached_tokens,
        finish_reason=answer.finish_reason,
        tools_used=answer.tools,
        usage=usage,
    )
