"""FastAPI, and every other ASGI application: one trace per request.

    app.add_middleware(LumiqFastAPIMiddleware, config=LumiqConfig(api_key="lqt_..."))

The functions that are used inside a request are here too, under the names they have in `lumiqtrace`.
"""

from __future__ import annotations

from .._api import flush
from .._config import LumiqConfig
from .._context import (
    context,
    get_current_span_id,
    get_current_trace_id,
    set_attribute,
    set_eval_score,
)
from .._observe import observe_llm, observe_span
from .._span import span
from ._asgi import AsgiMiddleware

__all__ = [
    "LumiqConfig",
    "LumiqFastAPIMiddleware",
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


class LumiqFastAPIMiddleware(AsgiMiddleware):
    """One span per request and per websocket, and below it all that the request does.

    `app.add_middleware(LumiqFastAPIMiddleware, config=LumiqConfig(...))`, or around any ASGI application:
    `app = LumiqFastAPIMiddleware(app)`. `config` initialises lumiqtrace where `lumiqtrace.init` has not;
    after `init` only those count that are about requests: `enabled`, sampling, bodies, redaction, `flush`.

    `exclude`: paths that make no trace (`["/health", "/static/*"]`), or a predicate on the path.
    `response_header` (True): the trace id on every response, as `x-lumiqtrace-id`. `trust_incoming_trace`
    (False): go on with the trace of a request's `traceparent` header; only behind callers of your own.

    Events leave in the background, and before the server ends, at the ASGI lifespan's end. To have them out
    earlier, `await middleware._flush()` or `middleware.flush()`. FastAPI makes the middleware itself, when it
    starts; without a reference to it, `await lumiqtrace.aflush()` and `lumiqtrace.flush()` do the same.
    """
