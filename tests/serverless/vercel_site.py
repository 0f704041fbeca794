"""What the tests run under Vercel's runtime, in its three shapes, without any framework."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler

import lumiqtrace
from lumiqtrace.integrations.vercel import traced

lumiqtrace.init()


async def later():
    await asyncio.sleep(0.1)  # longer than the delivery of what came before
    with lumiqtrace.span("after the response"):
        pass


def answer_of(path):
    if path == "/later":
        from vercel.functions import wait_until

        wait_until(later())
    with lumiqtrace.span("work"):
        if path == "/fails":
            raise ValueError("no answer")
        return (lumiqtrace.get_current_trace_id() or "none").encode()


@traced
class handler(BaseHTTPRequestHandler):  # noqa: N801 - the name that the runtime looks for
    def do_GET(self):
        body = answer_of(self.path)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@traced
def wsgi(environ, start_response):
    body = answer_of(environ["PATH_INFO"])
    # Without a length, the runtime tells the end by closing the connection: after the delivery.
    start_response("200 OK", [("content-length", str(len(body)))])
    yield body[:16]
    with lumiqtrace.span("in the stream"):
        yield body[16:]


@traced
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = answer_of(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body[:16], "more_body": True})
    await asyncio.sleep(0)
    with lumiqtrace.span("in the stream"):
        await send({"type": "http.response.body", "body": body[16:], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
