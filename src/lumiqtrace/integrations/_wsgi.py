"""The WSGI middleware: one span per request, for any WSGI application and server.

What the application answers goes on as it came, but for one header. `_wsgi_exchange` follows one request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .._client import Client
from .._config import LumiqConfig
from .._default import default_client
from .._guard import Guard
from .._propagation import extract
from .._span import Span, request_span
from ._flushing import flush_is_due
from ._http import Exclude, excluder, flushes_in_request, recording_client, redactor_of, rules, span_name
from ._wsgi_exchange import REQUEST_KEY, Environ, Exchange, StartResponse, WsgiApp

_beginning: Final = Guard("beginning a request's span", limit=None)


class WsgiMiddleware:
    """Traces every request that passes; `exclude` and the other options are those of the ASGI middleware.

    `config` initialises the default client where `init` has not; without one, that client's options hold.
    `exclude`: paths such as `/health` and `/static/*`, or a predicate on the path, that make no trace.
    `response_header`: put the trace id on responses as `x-lumiqtrace-id`. `trust_incoming_trace`: continue
    the trace that a request's `traceparent` names; only where every caller is your own.
    """

    def __init__(
        self,
        app: WsgiApp,
        config: LumiqConfig | None = None,
        *,
        exclude: Exclude = (),
        response_header: bool = True,
        trust_incoming_trace: bool = False,
    ) -> None:
        self.app = app
        self._given = config
        self._excluded = excluder(exclude)
        self._response_header = response_header
        self._trusting = trust_incoming_trace
        self._flush_in_request = flushes_in_request(rules(config).flush)
        self._redactor = redactor_of(config)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchange = _beginning(self._begin, environ, start_response)
        if exchange is None:
            return self.app(environ, start_response)
        return exchange.run(self.app)

    def flush(self, timeout: float | None = None) -> bool:
        """Block until every event recorded so far is delivered or given up; see `lumiqtrace.flush`."""
        return default_client().flush(timeout)

    def _begin(self, environ: Environ, start_response: StartResponse) -> Exchange | None:
        config = self._given or default_client().config
        client = recording_client(config)
        # Where a mounted application has the middleware too, the request has one span: the outer one.
        if client is None or REQUEST_KEY in environ:
            return None
        path = path_of(environ)
        if self._excluded is not None and self._excluded(path):
            return None
        exchange = Exchange(self._span(client, environ, path), environ, start_response, config)
        exchange.flushes = self._flush_in_request and not flush_is_due()
        exchange.shows_id = self._response_header
        exchange.redactor = self._redactor
        exchange.begin()
        return exchange

    def _span(self, client: Client, environ: Environ, path: str) -> Span:
        method = environ["REQUEST_METHOD"]
        remote = extract(environ.get("HTTP_TRACEPARENT")) if self._trusting else None
        tags = {"http.method": method, "http.path": path}
        return request_span(client, span_name(method, None), remote=remote, **tags)


def path_of(environ: Environ) -> str:
    """The path that was asked for, as text; WSGI hands its bytes over as latin-1."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")
