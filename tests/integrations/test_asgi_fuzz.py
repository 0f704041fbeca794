"""Odd applications answer the same with and without the middleware, message for message, error for error."""

from __future__ import annotations

import asyncio
import copy

from asgi_driver import acall
from backend import KEY, Backend, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.integrations._asgi import AsgiMiddleware

HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"content-type", b"Content-Type", b"content-length", b"set-cookie", b"x-a", b"content-encoding"]),
        st.sampled_from([b"text/plain", b"application/json", b"text/event-stream", b"3", b"gzip", b"\xff", b""]),
    ),
    max_size=4,
)  # fmt: skip
START = st.fixed_dictionaries(
    {"type": st.just("http.response.start"), "status": st.sampled_from([100, 200, 204, 304, 404, 500, 599])},
    optional={"headers": HEADERS | HEADERS.map(tuple), "trailers": st.booleans(), "odd": st.just(1)},
)
BODY = st.fixed_dictionaries(
    {"type": st.just("http.response.body")},
    optional={
        "body": st.binary(max_size=12) | st.binary(max_size=5).map(bytearray),
        "more_body": st.booleans(),
    },
)
ODD = st.sampled_from(
    [
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "two hundred", "headers": 7},
        {"type": "http.response.body", "body": "text"},
        {"type": 3},
        {},
    ]
)
STEPS = st.lists(
    st.tuples(st.just("send"), START | BODY | BODY | ODD)
    | st.tuples(st.sampled_from(["receive", "span"]), st.none())
    | st.tuples(st.just("raise"), st.sampled_from([ValueError, OSError, asyncio.CancelledError, SystemExit])),
    max_size=6,
)
ORDERLY = st.tuples(START, st.lists(BODY, max_size=4)).map(
    lambda parts: [("send", m) for m in (parts[0], *parts[1])]
)


def application(steps, received, raised):
    async def app(scope, receive, send):
        for what, value in steps:
            if what == "send":
                await send(copy.deepcopy(value))
            elif what == "receive":
                received.append(await receive())
            elif what == "span":
                with lumiqtrace.span("inside"):
                    pass
            else:
                raised.append(value("on purpose"))
                raise raised[-1]

    return app


def play(steps, pieces, wrap):
    received, raised = [], []
    app = wrap(application(steps, received, raised))
    answer = asyncio.run(acall(app, "/a", "POST", body=pieces, waits=False))
    same = answer.error is (raised[0] if raised else None)
    return answer.messages, received, type(answer.error), same or not raised


def unmarked(messages):
    """Without our header, and headers as the list that we make of them."""
    found = []
    for message in messages:
        if message.get("type") == "http.response.start" and isinstance(
            message.get("headers", ()), list | tuple
        ):
            headers = [pair for pair in message.get("headers", ()) if pair[0] != b"x-lumiqtrace-id"]
            found.append({**message, "headers": headers})
        else:
            found.append(message)
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS | ORDERLY,
    pieces=st.lists(st.binary(max_size=8), min_size=1, max_size=3),
    capture=st.booleans(),
    header=st.booleans(),
)
def test_odd_applications_are_left_as_they_are(steps, pieces, capture, header):
    config = LumiqConfig(
        api_key=KEY, base_url="http://127.0.0.1:9", flush_interval=600.0, max_body_bytes=5,
        capture_request_body=capture, capture_response_body=capture,
    )  # fmt: skip

    def wrap(app):
        return AsgiMiddleware(app, config, response_header=header)

    plain = play(steps, pieces, lambda app: app)
    traced = play(steps, pieces, wrap)
    assert unmarked(traced[0]) == unmarked(plain[0])
    assert traced[1:] == plain[1:]
    if not header:
        assert not any(
            b"x-lumiqtrace-id" in dict(m.get("headers") or ()) for m in traced[0] if m.get("status") == 200
        )


def test_each_of_them_is_one_request_at_the_backend():
    steps = [
        [("send", {"type": "http.response.start", "status": 200}), ("send", {"type": "http.response.body"})],
        [],
    ]
    with running(Backend()) as backend:
        config = LumiqConfig(api_key=KEY, base_url=backend.url)
        for each in steps:
            play(each, [b""], lambda app: AsgiMiddleware(app, config))
        assert lumiqtrace.flush()
        assert [event["status"] for event in backend.events] == ["success", "error"]
