"""The ASGI middleware: one span per request or websocket, for any ASGI application and server.

It forwards every message as it came, but for one header on the response. Events are delivered before the
server ends: the answer to the lifespan's shutdown waits for them, at most `flush_timeout`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .._config import LumiqConfig
from .._default import default_client
from .._guard import Guard
from .._propagation import extract
from .._span import request_span
from ._asgi_exchange import AsgiApp, Exchange, Message, Receive, Scope, Send, header_of, name_of
from ._flushing import flush_is_due
from ._http import Exclude, excluder, flushes_in_request, recording_client, redactor_of, rules

TRACED: Final = "lumiqtrace"
"""The key in a scope that says that a middleware further out traces the request."""

_SHUTDOWN_ANSWERS: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")

_beginning: Final = Guard("beginning a request's span", limit=None)
_flushing: Final = Guard("flushing", limit=None)


class AsgiMiddleware:
    """Traces `http` and `websocket` scopes, and flushes when the lifespan ends.

    `config` initialises the default client where `init` has not; without one, that client's options hold.
    `exclude`: paths such as `/health` and `/static/*`, or a predicate on the path, that make no trace.
    `response_header`: put the trace id on responses as `x-lumiqtrace-id`. `trust_incoming_trace`: continue
    the trace that a request's `traceparent` names; only where every caller is your own.
    Raises TypeError for a `config` or an `exclude` that is none.
    """

    def __init__(
        self,
        app: AsgiApp,
        config: LumiqConfig | None = None,
        *,
        exclude: Exclude = (),
        response_header: bool = True,
        trust_incoming_trace: bool = False,
    ) -> None:
        flush = rules(config).flush
        self.app = app
        self._config = config
        self._excluded = excluder(exclude)
        self._response_header = response_header
        self._trusting = trust_incoming_trace
        self._redactor = redactor_of(config)
        self._flush_in_request = flushes_in_request(flush)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind in ("http", "websocket"):
            exchange = _beginning(self._begin, scope, receive, send)
            if exchange is None:
                await self.app(scope, receive, send)
            else:
                await exchange.run(self.app)
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def flush(self, timeout: float | None = None) -> bool:
        """Block until every event recorded so far is delivered or given up; see `lumiqtrace.flush`."""
        return default_client().flush(timeout)

    async def _flush(self, timeout: float | None = None) -> bool:
        """`flush`, without blocking the event loop."""
        return await default_client().aflush(timeout)

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        config = self._config or default_client().config
        client = recording_client(config)
        if client is None or TRACED in scope:
            return None
        path = scope["path"]
        if self._excluded is not None and self._excluded(path):
            return None
        # Where a mounted application has the middleware too, the request has one span: this one.
        scope[TRACED] = True
        remote = extract(header_of(scope["headers"], b"traceparent")) if self._trusting else None
        tags = {"http.method": scope.get("method", "GET"), "http.path": path}
        span = request_span(client, name_of(scope, None), remote=remote, **tags)
        exchange = Exchange(span, scope, receive, send, config)
        exchange.redactor = self._redactor
        exchange.shows_id = self._response_header
        if self._flush_in_request and not flush_is_due():
            exchange.flush = flush_quietly
        exchange.begin()
        return exchange

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message.get("type") in _SHUTDOWN_ANSWERS:
                await flush_quietly()
            await send(message)

        await self.app(scope, receive, sending)


async def flush_quietly() -> None:
    """Wait until the events are out, at most `flush_timeout`; never an error of ours."""
    flushing = _flushing(_start_flush)
    if flushing is not None:
        await asyncio.wait((flushing,))
        _flushing(flushing.result)


def _start_flush() -> asyncio.Task[bool] | None:
    client = default_client()
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: there is nothing of it to wait on
        client.flush()
        return None
    return asyncio.ensure_future(client.aflush())
