"""An exception of a provider's client, told by its shape: no library is imported to name its classes."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from .._encode import text_of
from .._span import shorten
from ._answer import pick, text

_LEFT: Final = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
_CONNECTION: Final = frozenset(
    {"APIConnectionError", "TransportError", "ConnectionError", "ClientConnectionError"}
)
_TIMEOUT_STATUS: Final = frozenset({408, 504})


class Failure(NamedTuple):
    """How a call ended: a status of the event schema, the provider's code, and its message."""

    status: str
    code: str | None
    message: str | None


def failure_of(error: BaseException) -> Failure:
    """Status, code and message of what a call raised.

    The code is the provider's own (`context_length_exceeded`), else its type, else the exception's class.
    """
    message = shorten(_message(error))
    if isinstance(error, _LEFT):
        return Failure("cancelled", None, message or None)
    names = {kind.__name__ for kind in type(error).__mro__}
    http = _http_status(error)
    code = _code(error)
    if http in _TIMEOUT_STATUS:
        return Failure("timeout", code or f"{http}", message)
    if http is None and any("Timeout" in name for name in names):
        return Failure("timeout", "timeout", message)
    if http == 429 or (http is None and is_rate_limit(code)):
        return Failure("rate_limited", code or "429", message)
    if http is None and code is None and names & _CONNECTION:
        return Failure("error", "connection_error", message)
    return Failure("error", code or type(error).__name__, message)


def is_rate_limit(code: str | None) -> bool:
    """Whether a provider's code, seen without an HTTP status, speaks of a rate limit."""
    return code is not None and ("rate_limit" in code or code in ("insufficient_quota", "RESOURCE_EXHAUSTED"))


def error_code(body: Any) -> str | None:
    """The code of an error object as providers write it; the type where it has none, the outer one last."""
    inner = pick(body, "error")
    for node in (inner, body) if issubclass(type(inner), dict) else (body,):
        for key in ("code", "type", "status"):
            value = pick(node, key)
            if isinstance(value, str) and value and value != "error":
                return value
    return None


def _code(error: BaseException) -> str | None:
    body = getattr(error, "body", None)
    if issubclass(type(body), dict) and (found := error_code(body)):
        return found
    for key in ("code", "type", "status"):
        value = getattr(error, key, None)
        if isinstance(value, str) and value:
            return value
    return None


def _http_status(error: BaseException) -> int | None:
    for key in ("status_code", "code"):
        value = getattr(error, key, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    return None


def _message(error: BaseException) -> str:
    body = getattr(error, "body", None)
    for path in (("error", "message"), ("message",)):
        found = pick(body, *path)
        if isinstance(found, str) and found:
            return found
    return text(getattr(error, "message", None)) or text_of(error)
