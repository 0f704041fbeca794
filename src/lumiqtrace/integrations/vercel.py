"""Vercel functions: one trace per request, delivered without letting the user wait for it.

    app = traced(app)                  # the last line of api/index.py: any WSGI or ASGI application
    handler = traced(handler)          # or the class that handles requests

Where the runtime offers `wait_until`, events go out after the response and before the invocation ends; else
before the response ends.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, TypeVar

from .._config import LumiqConfig
from .._default import default_client
from ._asgi import AsgiMiddleware
from ._asgi_exchange import Exchange as AsgiExchange
from ._asgi_exchange import Receive, Scope, Send, header_of
from ._flushing import FlushAtEnd
from ._handler_class import HandlerTracer, traced_class
from ._http import Exclude
from ._vercel_runtime import deliver_after_response, seconds_left
from ._wsgi import WsgiMiddleware
from ._wsgi_exchange import Environ, StartResponse
from ._wsgi_exchange import Exchange as WsgiExchange

__all__ = ["traced"]

T = TypeVar("T")

VERCEL_ID: Final = "vercel.id"
"""The tag with Vercel's id of the request, as its logs and the response header `x-vercel-id` show it."""


def traced(
    app: T,
    config: LumiqConfig | None = None,
    *,
    exclude: Exclude = (),
    response_header: bool = True,
    trust_incoming_trace: bool = False,
) -> T:
    """Trace what Vercel's Python runtime runs: a handler class, a WSGI or an ASGI application.

    A subclass of `BaseHTTPRequestHandler` gives a subclass of it with the same name; an application gives
    one with the same signature, by which the runtime knows it. Wrap it last. A request's span has the tag
    `vercel.id`; a handler class's is named by its file (`POST /api/chat`), an application's by its route. Of
    a handler class no bodies are captured.

    Options are those of the other middlewares. `config` initialises lumiqtrace where `init` has not; after
    `init`, it rules what is about requests. `exclude`: paths such as `/health` and `/static/*`, or a
    predicate on the path, that make no trace. `response_header`: put the trace id on responses as
    `x-lumiqtrace-id`. `trust_incoming_trace`: continue the trace that a request's `traceparent` names; only
    where every caller is your own.

    On Vercel, and elsewhere with `LumiqConfig(flush="request")`, events go out in the invocation: for at
    most `flush_timeout` seconds, and never into the last 0.3 s of the function's maximum duration. What is
    not out by then is kept for the next one. Raises TypeError for what is none of the three shapes.
    """
    options: dict[str, Any] = {
        "exclude": exclude,
        "response_header": response_header,
        "trust_incoming_trace": trust_incoming_trace,
    }
    found: Any = app
    if isinstance(found, type) and issubclass(found, BaseHTTPRequestHandler):
        made: Any = traced_class(found, HandlerTracer(config, VERCEL_ID, _deliver_now, **options))
        return made  # type: ignore[no-any-return]
    if callable(asgi := getattr(found, "asgi", None)):
        found = asgi
    if isinstance(found, _Asgi | _Wsgi):
        return found  # type: ignore[return-value]
    count = _positionals(found)
    if count == 3:
        made = _Asgi(found, config, **options)
    elif count == 2:
        made = _Wsgi(found, config, **options)
        if "flask" in sys.modules:
            from .flask import _listen

            _listen()
    else:
        raise TypeError(
            f"traced: got {app!r}; it is a BaseHTTPRequestHandler subclass, a WSGI application "
            "(environ, start_response) or an ASGI application (scope, receive, send)"
        )
    return made  # type: ignore[no-any-return]


class _Asgi(AsgiMiddleware):
    """Delivers after the response where the runtime can; else holds its end back for the delivery."""

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> AsgiExchange | None:
        exchange = super()._begin(scope, receive, send)
        if exchange is not None:
            exchange.span.set_attribute(VERCEL_ID, header_of(scope["headers"], b"x-vercel-id"))
            if self._flush_in_request:
                # The runtime ends the invocation of a websocket when it is accepted; its events come later.
                later = scope["type"] == "http" and deliver_after_response(_timeout())
                exchange.flush = None if later else _adeliver
        return exchange


class _Wsgi(WsgiMiddleware):
    """The same for WSGI."""

    def _begin(self, environ: Environ, start_response: StartResponse) -> WsgiExchange | None:
        exchange = super()._begin(environ, start_response)
        if exchange is not None:
            exchange.span.set_attribute(VERCEL_ID, environ.get("HTTP_X_VERCEL_ID"))
            if self._flush_in_request:
                exchange.flushes = not deliver_after_response(_timeout())
        return exchange


def _timeout() -> float:
    return default_client().config.flush_timeout


def _deliver_now() -> None:
    """For a handler class, whose response is out when its method returns."""
    if not deliver_after_response(_timeout()):
        left = seconds_left(_timeout())
        with FlushAtEnd(lambda: left):
            pass


async def _adeliver() -> None:
    left = seconds_left(_timeout())
    async with FlushAtEnd(lambda: left):
        pass


def _positionals(app: Callable[..., Any]) -> int | None:
    """How many arguments it needs, as the runtime counts them; None for what cannot be called."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.default is each.empty and each.kind in kinds for each in parameters)
