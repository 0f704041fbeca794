"""What the ASGI and the WSGI middleware share: how a request's span is named, tagged and left out.

Names have few values (`GET /users/{id}`), so that they can be grouped by; what differs from request to
request is a tag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from .._client import Client
from .._config import LumiqConfig
from .._context import Trace
from .._default import client_for, default_client
from .._guard import Guard
from .._redaction.redact import Redactor
from .._sampler import keeps

TRACE_HEADER: Final = "x-lumiqtrace-id"
"""The response header with the request's trace id."""

METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)

REQUEST_BODY: Final = "http.request.body"
RESPONSE_BODY: Final = "http.response.body"

Exclude = Iterable[str] | Callable[[str], bool]

_excluding: Final = Guard("asking whether a path is excluded", limit=None)


def span_name(method: str, route: str | None) -> str:
    """`POST /users/{id}`; without a route the method alone. A method that is none of HTTP's is `HTTP`."""
    known = method if method in METHODS else "HTTP"
    return f"{known} {route}" if route else known


def sample(trace: Trace, config: LumiqConfig) -> None:
    """Keep a request's trace or not by its id and the middleware's options."""
    trace.sampled = trace.sampled and keeps(trace.trace_id, config.sample_rate)
    trace.holds = config.sample_errors


def is_failure(status: int) -> bool:
    """Whether an answer with this status makes the request's span an error."""
    return status >= 500


def failure_code(status: int) -> str:
    """The error code of a request that was answered with this status."""
    return f"http_{status}"


def excluder(exclude: Exclude) -> Callable[[str], bool] | None:
    """A predicate on paths; None where nothing is excluded.

    `exclude` holds paths (`/health`), where `*` stands for anything (`/static/*`), or is a predicate itself.
    Raises TypeError where it is neither, as one string is.
    """
    if callable(exclude):
        predicate = exclude
        return lambda path: bool(_excluding(predicate, path))
    if isinstance(exclude, str):
        raise TypeError(f"exclude: {exclude!r} is one string; pass a list of paths, [{exclude!r}]")
    patterns = list(exclude)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"exclude: {pattern!r} is no path such as '/health' or '/static/*'")
    if not patterns:
        return None
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    wild = [_expression(pattern) for pattern in patterns if "*" in pattern]
    if not wild:
        return exact.__contains__
    matches = re.compile("|".join(wild), re.DOTALL).fullmatch
    return lambda path: path in exact or matches(path) is not None


def _expression(pattern: str) -> str:
    """A regular expression for a path with `*`; no path makes it backtrack from one star into another."""
    first, *middle, last = map(re.escape, pattern.split("*"))
    return first + "".join(f"(?>.*?{piece})" for piece in middle) + ".*" + last


def flushes_in_request(mode: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether events go out before a response's last byte.

    `mode` is the option `flush`; `auto` says yes where the platform stops the CPU after a response.
    """
    if mode == "auto":
        return any(environ.get(name) for name in ("K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "VERCEL"))
    return mode == "request"


def rules(config: LumiqConfig | None) -> LumiqConfig:
    """The options for a middleware's requests: its own, else the default client's.

    A config initialises the default client where `init` has not done so.
    """
    if config is None:
        return default_client().config
    if not isinstance(config, LumiqConfig):
        raise TypeError(f"config: got {type(config).__name__}; it is a LumiqConfig")
    if config.enabled:
        client_for(config)
    return config


def redactor_of(config: LumiqConfig | None) -> Redactor | None:
    """What hides the secrets of bodies by a middleware's own config; None leaves it to the client."""
    if config is None or not (config.capture_request_body or config.capture_response_body):
        return None
    replace, secrets = config.replace_default_redact_fields, config.redact_secrets
    return Redactor(config.redact_fields, replace=replace, secrets=secrets)


def recording_client(config: LumiqConfig) -> Client | None:
    """The client that records a request now; None where none does."""
    client = default_client()
    return client if config.enabled and client.recording else None
