"""The ASGI application: four routes, and every error as `{"error": "..."}`.

The store belongs to the application: when the server that runs it shuts down, what was accepted is
committed and the store is closed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .early import CloseAfterEarlyAnswer
from .ingest import Ingest
from .limits import RateLimit
from .losses import Losses
from .storage.base import Store
from .traces import Traces

_log = logging.getLogger("lumiqtrace.server")


def create_app(
    store: Store, *, monthly_events: int | None = None, requests_per_second: float | None = None
) -> Starlette:
    """The application over a store, which it closes at shutdown.

    `monthly_events` is how many new events each project may store in a calendar month of UTC, and
    `requests_per_second` how often each key may post, on average; None, the default, is no limit.
    """
    ingest = Ingest(store, monthly_events, RateLimit(requests_per_second))

    async def health(_request: Request) -> JSONResponse:
        if refusal := store.refusal():
            raise HTTPException(503, str(refusal), {"Retry-After": str(refusal.retry_after)})
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        store.close()

    app = Starlette(
        routes=[
            Route("/v1/ingest", ingest.post, methods=["POST"]),
            Route("/v1/traces/{trace_id:anything}", Traces(store).get),
            Route("/v1/losses", Losses(store).get),
            Route("/healthz", health),
        ],
        middleware=[Middleware(CloseAfterEarlyAnswer), Middleware(_InternalErrors)],
        exception_handlers={HTTPException: _error},
        lifespan=lifespan,
    )
    # A redirect would make a client send its key again.
    app.router.redirect_slashes = False
    return app


class _Anything(Convertor[str]):
    """The rest of the path as it is: a trace id is a free string and may hold slashes and line ends."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


async def _error(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, exc.status_code, exc.headers)


class _InternalErrors:
    """Answers what nobody foresaw with a bare 500. The traceback goes to the log, and only there.

    Starlette's own handler for this raises again, and the traceback would be logged twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            _log.exception("%s %r failed", scope["method"], scope["path"])
            if started:
                raise
            await JSONResponse({"error": "Internal error"}, 500)(scope, receive, send)
