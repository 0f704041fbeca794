"""Flask: one trace per request, named by its route.

    app = Flask(__name__)
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=LumiqConfig(api_key="lqt_..."))

The middleware is plain WSGI and wraps any WSGI application. The functions that are used inside a request are
here too, under the names they have in `lumiqtrace`.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

from .._api import flush
from .._config import LumiqConfig
from .._context import (
    context,
    get_current_span_id,
    get_current_trace_id,
    set_attribute,
    set_eval_score,
)
from .._guard import Guard
from .._observe import observe_llm, observe_span
from .._span import span
from ._http import Exclude
from ._wsgi import WsgiMiddleware
from ._wsgi_exchange import REQUEST_KEY, Environ, Exchange, StartResponse, WsgiApp

__all__ = [
    "LumiqConfig",
    "LumiqFlaskMiddleware",
    "context",
    "flush",
    "get_current_span_id",
    "get_current_trace_id",
    "observe_llm",
    "observe_span",
    "set_attribute",
    "set_eval_score",
    "span",
]

_noting: Final = Guard("noting the exception of a Flask handler", limit=None)


class LumiqFlaskMiddleware(WsgiMiddleware):
    """Traces every request of a Flask application, or of any other WSGI application.

    Wrap it, `app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=config)`; or make it first and call
    `init_app(app)`, as Flask extensions do.

    `config` initialises lumiqtrace where `init` has not been called; after `init`, it rules sampling, bodies
    and redaction of requests. Without one, the options of `init` hold. `exclude`: paths such as `/health`
    and `/static/*`, or a predicate on the path, that make no trace. `response_header`: put the trace id on
    responses as `x-lumiqtrace-id`. `trust_incoming_trace`: continue the trace that a request's `traceparent`
    names; only where every caller is your own.

    Events go out in the background. With `LumiqConfig(flush="request")`, and by itself on Cloud Run, they go
    out before a response's last byte. Raises TypeError where an option is of no use.
    """

    def __init__(
        self,
        wsgi_app: WsgiApp | None = None,
        config: LumiqConfig | None = None,
        *,
        exclude: Exclude = (),
        response_header: bool = True,
        trust_incoming_trace: bool = False,
    ) -> None:
        super().__init__(
            wsgi_app or _no_application,
            config,
            exclude=exclude,
            response_header=response_header,
            trust_incoming_trace=trust_incoming_trace,
        )
        _noting(_listen)

    def init_app(self, app: Any) -> None:
        """Put the middleware around `app.wsgi_app`, once; for as many applications as there are."""
        if "lumiqtrace" not in app.extensions:
            middleware = copy(self)
            middleware.app = app.wsgi_app
            app.wsgi_app = app.extensions["lumiqtrace"] = middleware


def _no_application(_environ: Environ, _start_response: StartResponse) -> Any:
    raise RuntimeError("LumiqFlaskMiddleware has no application: pass app.wsgi_app, or call init_app(app)")


def _listen() -> None:
    """Hear of the exceptions that Flask turns into answers; connecting again changes nothing."""
    try:
        from flask import got_request_exception
    except ImportError:  # another WSGI application
        return
    got_request_exception.connect(_note)


def _note(_app: Any, exception: BaseException | None = None, **_: Any) -> None:
    _noting(_mark_request, exception)


def _mark_request(exception: BaseException | None) -> None:
    from flask import request

    exchange = request.environ.get(REQUEST_KEY)
    if isinstance(exchange, Exchange) and exception is not None:
        exchange.see_route()  # where the exception goes on to the server, there is no later moment for it
        exchange.handled = exception
