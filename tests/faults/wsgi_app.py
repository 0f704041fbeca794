"""A WSGI application that uses lumiqtrace by hand, with no middleware: `init` at import, a span a request."""

from __future__ import annotations

import os

import lumiqtrace

lumiqtrace.init(
    os.environ["KEY"],
    base_url=os.environ["BACKEND"],
    flush_interval=float(os.environ.get("INTERVAL", "3600")),
    shutdown_timeout=20,
)
if os.environ.get("EARLY"):
    with lumiqtrace.span("while loading"):
        pass
    lumiqtrace.flush(20)


def app(environ, start_response):
    with lumiqtrace.span(f"request {environ['PATH_INFO'][1:]}"):
        body = str(os.getpid()).encode()
    if os.environ.get("FLUSH"):
        lumiqtrace.flush(20)
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]
