"""Odd applications answer the same, byte for byte, with the middleware and without it."""

from __future__ import annotations

import io
import re
from wsgiref.handlers import SimpleHandler

import pytest
from backend import KEY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsgi_helpers import environ, exc_info

import lumiqtrace
from lumiqtrace.integrations._wsgi import WsgiMiddleware


class Handler(SimpleHandler):
    """The standard library's server, writing into memory; its answer to an exception is its own."""

    def log_exception(self, info):
        self.failed = type(info[1]).__name__


def served(app, **more):
    """Every byte of the answer but for the time of day, and what the server made of a failure."""
    out, errors = io.BytesIO(), io.StringIO()
    handler = Handler(io.BytesIO(), out, errors, environ(**more), multithread=False)
    broken = None
    try:
        handler.run(app)
    except (AttributeError, TypeError) as error:  # after some failures it trips over itself
        broken = str(error)
    answer = re.sub(rb"\r\nDate: [^\r]*", b"", out.getvalue())
    return answer, errors.getvalue(), getattr(handler, "failed", None), broken


def capturing(backend, **options):
    return lumiqtrace.LumiqConfig(
        api_key=KEY, base_url=backend.url, capture_request_body=True, capture_response_body=True, **options
    )


PIECES = st.lists(st.binary(max_size=5) | st.just("text"), max_size=4)
STATUSES = st.sampled_from(["200 OK", "204 No Content", "404 Not Found", "500 Oops", "200", "bad", 7, None])
HEADERS = st.lists(
    st.sampled_from(
        [
            ("Content-Length", "3"), ("Content-Length", "0"), ("Content-Length", "x"), ("Content-Type", "text/plain"),
            ("X-Two", "1"), ("X-Two", "2"), ("Set-Cookie", "a=b"), ("Connection", "close"), ("bad",), None,
        ]
    ),
    max_size=3,
)  # fmt: skip
ACTIONS = st.lists(
    st.tuples(st.just("start"), STATUSES, HEADERS)
    | st.tuples(st.just("again"), STATUSES, HEADERS)
    | st.tuples(st.just("write"), st.binary(max_size=4))
    | st.tuples(st.just("raise"), st.sampled_from([ValueError, KeyError, StopIteration])),
    max_size=4,
)
SHAPES = ("list", "tuple", "generator", "late", "object", "bytes", "none", "closing", "breaking")


class Pieces:
    def __init__(self, pieces, log, *, breaking=False):
        self.pieces, self.log, self.breaking = pieces, log, breaking

    def __iter__(self):
        return iter(self.pieces)

    def close(self):
        self.log.append("closed")
        if self.breaking:
            raise ValueError("in close")


def built(actions, pieces, shape, log):
    """An application that does these things, then returns its pieces in this shape."""

    def act(start_response):
        write = None
        for kind, *rest in actions:
            if kind == "start":
                write = start_response(rest[0], list(rest[1]))
            elif kind == "again":
                try:
                    raise LookupError("again")
                except LookupError:
                    write = start_response(rest[0], list(rest[1]), exc_info())
            elif kind == "write" and write is not None:
                write(rest[0])
            elif kind == "raise":
                raise rest[0]("odd")

    def app(environ, start_response):
        if shape != "late":
            act(start_response)
        shapes = {
            "list": lambda: list(pieces),
            "tuple": lambda: tuple(pieces),
            "generator": lambda: (piece for piece in pieces),
            "late": late,
            "object": lambda: Pieces(pieces, log),
            "bytes": lambda: b"bytes",
            "none": lambda: None,
            "closing": lambda: Pieces(pieces, log),
            "breaking": lambda: Pieces(pieces, log, breaking=True),
        }
        environ_seen.append(environ)
        return shapes[shape]() if shape != "late" else late(start_response)

    def late(start_response):
        act(start_response)
        try:
            yield from pieces
        finally:
            log.append("closed")

    environ_seen = []
    return app


@given(actions=ACTIONS, pieces=PIECES, shape=st.sampled_from(SHAPES), method=st.sampled_from(["GET", "HEAD"]))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_application_answers_the_same(client, backend, actions, pieces, shape, method):
    plain_log, traced_log = [], []
    plain = served(built(actions, pieces, shape, plain_log), method=method)
    middleware = WsgiMiddleware(
        built(actions, pieces, shape, traced_log), capturing(backend), response_header=False
    )
    assert served(middleware, method=method) == plain
    assert traced_log == plain_log
    assert lumiqtrace.get_current_trace_id() is None


@pytest.mark.parametrize("size", [0, 1, 65536, 300_000])
@pytest.mark.parametrize("flush", ["background", "request"])
def test_bodies_of_any_size_pass_whole(client, backend, size, flush):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [b"x" * size]

    plain = served(app)
    assert served(WsgiMiddleware(app, capturing(backend, flush=flush), response_header=False)) == plain
    lines = served(WsgiMiddleware(app, capturing(backend, flush=flush)))[0].split(b"\r\n")
    assert b"\r\n".join(line for line in lines if not line.startswith(b"x-lumiqtrace-id: ")) == plain[0]
