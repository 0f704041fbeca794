"""Measures one tracer's ASGI middleware in the environment it is installed in; run by `middleware.py`.

Blocks of requests alternate in one process, through the middleware and past it, and the difference of the
event loop's thread's CPU time is taken for each pair.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

PAIRS = 40
REQUESTS = 300
PAUSE = 0.01
"""Seconds after each block, in which a tracer's threads come to rest: the next block is not to pay for it."""

BODY = b'{"answer": "yes"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"17")],
}
HEADERS = [
    (b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*"), (b"content-type", b"text/plain"),
]  # fmt: skip


class Route:
    """What Starlette leaves in a scope."""

    path = path_format = "/users/{user_id}"


async def application(scope: Any, receive: Any, send: Any) -> None:
    scope["route"] = Route
    await receive()
    await send(dict(START))
    await send({"type": "http.response.body", "body": BODY})


def lumiqtrace(sink: str) -> tuple[Any, Callable[[], object]]:
    from lumiqtrace import LumiqConfig
    from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware

    middleware = LumiqFastAPIMiddleware(application, LumiqConfig(api_key="lqt_benchmark", base_url=sink))
    return middleware, middleware.flush


def opentelemetry(sink: str) -> tuple[Any, Callable[[], object]]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces")))
    # As its own FastAPI integration does by default, but for the spans of single messages.
    middleware = OpenTelemetryMiddleware(
        application, tracer_provider=provider, exclude_spans=["receive", "send"]
    )
    return middleware, provider.force_flush


def sentry(sink: str) -> tuple[Any, Callable[[], object]]:
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    sentry_sdk.init(dsn=sink.replace("http://", "http://key@") + "/1", traces_sample_rate=1.0)
    return SentryAsgiMiddleware(application), sentry_sdk.flush


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: Any) -> None:
    pass


async def block(app: Any) -> float:
    """CPU microseconds of the loop's thread for one request, each in a task of its own as servers do it."""
    loop = asyncio.get_running_loop()
    began = time.thread_time_ns()
    for _ in range(REQUESTS):
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "GET", "path": "/users/7", "raw_path": b"/users/7", "query_string": b"",
            "root_path": "", "headers": HEADERS, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        await loop.create_task(app(scope, receive, send))
    return (time.thread_time_ns() - began) / 1000 / REQUESTS


async def measure(middleware: Any) -> dict[str, float]:
    for app in (application, middleware):
        await block(app)
    added, plain = [], []
    for _ in range(PAIRS):
        await asyncio.sleep(PAUSE)
        without = await block(application)
        await asyncio.sleep(PAUSE)
        added.append(await block(middleware) - without)
        plain.append(without)
    return {"added": statistics.median(added), "plain": statistics.median(plain)}


def main() -> None:
    known = {"lumiqtrace": lumiqtrace, "opentelemetry": opentelemetry, "sentry": sentry}
    middleware, flush = known[sys.argv[1]](sys.argv[2])
    found = asyncio.run(measure(middleware))
    flush()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
