"""The ASGI middleware, called as a server calls it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from asgi_driver import acall, awebsocket, call, http_scope
from backend import KEY

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.integrations._asgi import AsgiMiddleware

TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


def answering(status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    return app


def only_event(client, backend):
    assert client.flush()
    assert len(backend.events) == 1
    return backend.events[0]


def test_a_request_is_one_span_with_its_method_path_and_status(client, backend):
    answer = call(AsgiMiddleware(hello), "/some/where", "POST")
    event = only_event(client, backend)
    assert (answer.status, answer.body) == (200, b"hi")
    assert event["name"] == event["model"] == "POST"
    assert event["tags"] == {"http.method": "POST", "http.path": "/some/where", "http.status_code": "200"}
    assert (event["provider"], event["operation"], event["span_kind"]) == ("custom", "custom", "general")
    assert event["status"] == "success"
    assert event.get("parent_span_id") is None


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [(200, "success", None), (304, "success", None), (404, "success", None), (429, "success", None),
     (499, "success", None), (500, "error", "http_500"), (503, "error", "http_503")],
)  # fmt: skip
def test_a_status_from_500_up_is_an_error(client, backend, status, expected, code):
    call(AsgiMiddleware(answering(status)))
    event = only_event(client, backend)
    assert (event["status"], event.get("error_code")) == (expected, code)
    assert event["tags"]["http.status_code"] == str(status)


def test_a_method_that_is_none_makes_no_new_name(client, backend):
    call(AsgiMiddleware(hello), "/", "GIMME")
    event = only_event(client, backend)
    assert (event["name"], event["tags"]["http.method"]) == ("HTTP", "GIMME")


def test_the_response_says_which_trace_it_was(client, backend):
    answer = call(AsgiMiddleware(hello))
    assert answer.headers["x-lumiqtrace-id"] == only_event(client, backend)["trace_id"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-lumiqtrace-id"])


def test_the_header_can_be_switched_off(client, backend):
    answer = call(AsgiMiddleware(hello, response_header=False))
    assert list(answer.headers) == ["content-length"]


def test_a_header_of_that_name_that_the_application_set_stays_alone(client):
    async def proxy(scope, receive, send):
        headers = [(b"X-LumiqTrace-Id", b"theirs")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    assert call(AsgiMiddleware(proxy)).headers == {"X-LumiqTrace-Id": "theirs"}


def test_messages_of_the_application_are_not_changed(client):
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    call(AsgiMiddleware(app))
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


def test_an_exception_passes_as_the_same_object_and_is_the_spans_error(client, backend):
    mine = LookupError("no such thing")

    async def app(scope, receive, send):
        raise mine

    answer = call(AsgiMiddleware(app))
    event = only_event(client, backend)
    assert answer.error is mine
    assert answer.messages == []
    assert (event["status"], event["error_code"], event["error_message"]) == (
        "error",
        "LookupError",
        "no such thing",
    )
    assert event["tags"]["http.status_code"] == "500"


def test_an_exception_in_the_middle_of_a_response_keeps_the_status_that_was_sent(client, backend):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("half way")

    assert isinstance(call(AsgiMiddleware(app)).error, ValueError)
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("error", "ValueError")
    assert event["tags"]["http.status_code"] == "200"


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_an_application_that_ends_without_its_last_byte_failed(client, backend, sent):
    messages = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"half", "more_body": True},
    ]

    async def app(scope, receive, send):
        for message in messages[:sent]:
            await send(message)

    assert call(AsgiMiddleware(app)).messages == messages[:sent] or sent
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("error", "incomplete_response")


def test_the_span_ends_at_the_last_byte(client, backend):
    ends = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            ends.append(client.stats().recorded)
            await send({"type": "http.response.body", "body": b".", "more_body": True})
        await send({"type": "http.response.body"})
        ends.append(client.stats().recorded)

    call(AsgiMiddleware(app))
    assert ends == [0, 0, 0, 1]


def test_trailers_are_part_of_the_response(client, backend):
    seen = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        seen.append(client.stats().recorded)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})
        seen.append(client.stats().recorded)

    call(AsgiMiddleware(app))
    assert seen == [0, 1]


def test_work_after_the_last_byte_is_in_the_trace_and_not_in_the_duration(client, backend):
    async def app(scope, receive, send):
        await hello(scope, receive, send)
        with lumiqtrace.span("first task"):
            pass
        with lumiqtrace.span("second task"):
            pass

    call(AsgiMiddleware(app))
    client.flush()
    request, first, second = backend.events
    assert request["name"] == "GET"
    assert first["trace_id"] == second["trace_id"] == request["trace_id"]
    assert first["parent_span_id"] == second["parent_span_id"] == request["span_id"]


def test_an_error_after_the_last_byte_passes_and_does_not_change_the_request(client, backend):
    mine = RuntimeError("in the background")

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        raise mine

    assert call(AsgiMiddleware(app)).error is mine
    assert only_event(client, backend)["status"] == "success"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("a bug"), ("error", "ValueError", "a bug")),
     (TimeoutError("too late"), ("timeout", "TimeoutError", "too late")),
     (asyncio.CancelledError(), ("error", "http_500", None)),
     (None, ("error", "http_500", None))],
    ids=["an error", "a timeout", "cancelled", "nothing"],
)  # fmt: skip
def test_a_failure_says_what_was_raised_after_its_answer(client, backend, error, expected):
    """An outermost error handler answers with 500, then raises what it caught."""

    async def app(scope, receive, send):
        await answering(500)(scope, receive, send)
        if error is not None:
            raise error

    assert call(AsgiMiddleware(app)).error is error
    event = only_event(client, backend)
    assert (event["status"], event.get("error_code"), event.get("error_message")) == expected
    assert event["tags"]["http.status_code"] == "500"


def test_a_failure_lasts_to_its_last_byte(client, backend):
    async def app(scope, receive, send):
        await answering(500)(scope, receive, send)
        with lumiqtrace.span("after"):
            await asyncio.sleep(0.3)

    call(AsgiMiddleware(app))
    client.flush()
    after, request = backend.events
    assert (after["name"], after["trace_id"]) == ("after", request["trace_id"])
    assert request["latency_ms"] < after["latency_ms"]


def test_a_span_that_is_open_over_the_last_byte_stays_current(client, backend):
    async def app(scope, receive, send):
        with lumiqtrace.span("around") as around:
            await hello(scope, receive, send)
            assert lumiqtrace.get_current_span_id() == around.span_id
            with lumiqtrace.span("after"):
                pass

    assert call(AsgiMiddleware(app)).error is None
    client.flush()
    found = {event["name"]: event for event in backend.events}
    assert found["after"]["parent_span_id"] == found["around"]["span_id"]
    assert found["around"]["parent_span_id"] == found["GET"]["span_id"]


def test_nothing_stays_current_after_a_request(client):
    async def calls():
        await acall(AsgiMiddleware(hello))
        return lumiqtrace.get_current_trace_id()

    assert asyncio.run(calls()) is None


def test_a_client_that_leaves_during_a_stream_cancels_the_request(client, backend):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    call(AsgiMiddleware(app), leave_after=2)
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("cancelled", "client_disconnected")


def test_a_client_that_leaves_during_its_upload_cancels_the_request(client, backend):
    class LeftError(Exception):
        pass

    async def app(scope, receive, send):
        if (await receive())["type"] == "http.disconnect":
            raise LeftError

    assert isinstance(call(AsgiMiddleware(app), leave_after=0).error, LeftError)
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("cancelled", "LeftError")


def test_a_send_that_fails_because_the_client_left_cancels_the_request(client, backend):
    gone = BrokenPipeError("gone")

    async def send(message):
        raise gone

    async def drive():
        with pytest.raises(BrokenPipeError) as caught:
            await AsgiMiddleware(hello)(http_scope("/"), None, send)
        assert caught.value is gone

    asyncio.run(drive())
    assert only_event(client, backend)["status"] == "cancelled"


def test_a_task_that_is_cancelled_gives_a_cancelled_request(client, backend):
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def drive():
        task = asyncio.ensure_future(AsgiMiddleware(app)(http_scope("/"), None, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(drive())
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("cancelled", "CancelledError")


def test_a_timeout_in_the_handler_is_a_timeout(client, backend):
    async def app(scope, receive, send):
        raise TimeoutError("the model took too long")

    call(AsgiMiddleware(app))
    assert only_event(client, backend)["status"] == "timeout"


@pytest.mark.parametrize(
    ("exclude", "path", "left_out"),
    [(["/health"], "/health", True), (["/health"], "/health/live", False), (["/health"], "/healthy", False),
     (["/static/*"], "/static/a/b.css", True), (["/static/*"], "/static", False),
     (["*/live"], "/a/b/live", True), (["/a/*/c/*"], "/a/b/c/d", True), (["/a/*/c/*"], "/a/c/d", False),
     (["/a.b"], "/aXb", False), (["/x", "*.png"], "/logo.png", True), (lambda path: "x" in path, "/x", True),
     (lambda path: "x" in path, "/y", False), (lambda path: path["wrong"], "/y", False)],
)  # fmt: skip
def test_excluded_paths_make_no_trace(client, backend, exclude, path, left_out):
    answer = call(AsgiMiddleware(hello, exclude=exclude), path)
    client.flush()
    assert len(backend.events) == (0 if left_out else 1)
    assert ("x-lumiqtrace-id" in answer.headers) is not left_out


def test_patterns_do_not_backtrack_over_a_long_path(client):
    call(AsgiMiddleware(hello, exclude=["/a*a*a*a*b"]), "/" + "a" * 50_000)


@pytest.mark.parametrize("exclude", ["/health", [b"/health"], 7])
def test_a_wrong_exclude_is_refused_when_the_application_starts(exclude):
    with pytest.raises(TypeError):
        AsgiMiddleware(hello, exclude=exclude)


def test_a_config_that_is_none_of_ours_is_refused_when_the_application_starts():
    with pytest.raises(TypeError, match="LumiqConfig"):
        AsgiMiddleware(hello, {"api_key": KEY})


def test_the_config_initialises_the_client_where_init_has_not(backend):
    middleware = AsgiMiddleware(hello, LumiqConfig(api_key=KEY, base_url=backend.url, environment="test"))
    call(middleware)
    assert middleware.flush()
    assert [event["environment"] for event in backend.events] == ["test"]


def test_flushing_without_blocking_the_loop(backend):
    middleware = AsgiMiddleware(hello, LumiqConfig(api_key=KEY, base_url=backend.url))

    async def drive():
        await acall(middleware)
        return await middleware._flush()

    assert asyncio.run(drive())
    assert len(backend.events) == 1


def test_after_init_the_client_there_is_stays(client, backend):
    call(AsgiMiddleware(hello, LumiqConfig(api_key="lqt_another", base_url="http://127.0.0.1:9")))
    assert lumiqtrace.get_client() is client
    assert only_event(client, backend)["name"] == "GET"


def test_not_enabled_is_not_traced_although_the_client_records(client, backend):
    answer = call(AsgiMiddleware(hello, LumiqConfig(enabled=False)))
    client.flush()
    assert (backend.events, list(answer.headers)) == ([], ["content-length"])


@pytest.mark.parametrize("mine", [False, True])
def test_after_init_the_middleware_says_which_failures_are_kept(backend, mine):
    lumiqtrace.init(KEY, base_url=backend.url, sample_errors=not mine)
    rules = LumiqConfig(api_key=KEY, sample_rate=0.0, sample_errors=mine)
    call(AsgiMiddleware(answering(500), rules))
    assert lumiqtrace.flush()
    assert len(backend.events) == mine


def test_without_a_client_requests_pass():
    seen = []

    async def app(scope, receive, send):
        seen.append(lumiqtrace.get_current_trace_id())
        await hello(scope, receive, send)

    answer = call(AsgiMiddleware(app))
    assert (answer.body, list(answer.headers), seen) == (b"hi", ["content-length"], [None])


def test_the_rate_is_decided_by_the_trace_and_holds_for_all_in_it(backend):
    config = LumiqConfig(api_key=KEY, base_url=backend.url, sample_rate=0.5)

    async def app(scope, receive, send):
        with lumiqtrace.span("inside"):
            await hello(scope, receive, send)

    async def drive(middleware):
        for _ in range(200):
            await acall(middleware)

    middleware = AsgiMiddleware(app, config)
    asyncio.run(drive(middleware))
    middleware.flush()
    traces = {event["trace_id"] for event in backend.events}
    assert len(backend.events) == 2 * len(traces)
    assert 60 <= len(traces) <= 140


def test_rate_0_records_nothing_and_sends_nothing(backend):
    config = LumiqConfig(api_key=KEY, base_url=backend.url, sample_rate=0.0)

    async def app(scope, receive, send):
        with lumiqtrace.span("inside"):
            await hello(scope, receive, send)

    middleware = AsgiMiddleware(app, config)
    assert call(middleware).body == b"hi"
    assert middleware.flush()
    assert (backend.requests, lumiqtrace.get_client().stats().recorded) == ([], 0)


def test_an_incoming_trace_is_not_taken_from_anyone(client, backend):
    call(AsgiMiddleware(hello), headers={"traceparent": TRACEPARENT})
    event = only_event(client, backend)
    assert event["trace_id"] != "ab" * 16
    assert event.get("parent_span_id") is None


def test_a_trusted_incoming_trace_goes_on(client, backend):
    call(AsgiMiddleware(hello, trust_incoming_trace=True), headers={"traceparent": TRACEPARENT})
    event = only_event(client, backend)
    assert (event["trace_id"], event["parent_span_id"]) == ("ab" * 16, "cd" * 8)


def test_a_broken_traceparent_begins_a_new_trace(client, backend):
    call(AsgiMiddleware(hello, trust_incoming_trace=True), headers={"traceparent": "00-xyz"})
    assert only_event(client, backend).get("parent_span_id") is None


def test_a_trusted_incoming_trace_that_is_not_sampled_stays_so(client, backend):
    headers = {"traceparent": TRACEPARENT[:-1] + "0"}
    assert call(AsgiMiddleware(hello, trust_incoming_trace=True), headers=headers).body == b"hi"
    client.flush()
    assert backend.events == []


def test_a_second_middleware_inside_makes_no_second_span(client, backend):
    call(AsgiMiddleware(AsgiMiddleware(hello)))
    assert only_event(client, backend)["name"] == "GET"


def test_attributes_and_the_user_reach_the_requests_own_span(client, backend):
    async def app(scope, receive, send):
        with lumiqtrace.span("deep"):
            lumiqtrace.set_attribute("feature", "chat")
            lumiqtrace.set_attribute("user.id", "u-7")
            lumiqtrace.set_attribute("session.id", "s-9")
        await hello(scope, receive, send)

    call(AsgiMiddleware(app))
    client.flush()
    request = next(event for event in backend.events if event["name"] == "GET")
    assert request["tags"]["feature"] == "chat"
    assert (request["user_id"], request["session_id"]) == ("u-7", "s-9")


def test_a_thousand_requests_at_once_keep_their_traces_apart(client, backend):
    async def app(scope, receive, send):
        with lumiqtrace.span("outer" + scope["path"]):
            await asyncio.sleep(0)
            lumiqtrace.set_attribute("path", scope["path"])
            with lumiqtrace.span("inner" + scope["path"]):
                await asyncio.sleep(0)
        await hello(scope, receive, send)

    async def drive():
        middleware = AsgiMiddleware(app)
        return await asyncio.gather(*(acall(middleware, f"/{number}") for number in range(1000)))

    asyncio.run(drive())
    assert client.flush(timeout=30)
    spans = {event["name"]: event for event in backend.events if event["name"] != "GET"}
    requests = [event for event in backend.events if event["name"] == "GET"]
    assert (len(requests), len(spans)) == (1000, 2000)
    for request in requests:
        path = request["tags"]["http.path"]
        outer, inner = spans["outer" + path], spans["inner" + path]
        assert request["tags"]["path"] == path
        assert {outer["trace_id"], inner["trace_id"]} == {request["trace_id"]}
        assert (outer["parent_span_id"], inner["parent_span_id"]) == (request["span_id"], outer["span_id"])


def test_websockets_are_one_span_each(client, backend):
    async def echo(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    answer = asyncio.run(awebsocket(AsgiMiddleware(echo), "/room", ["a", "b"]))
    event = only_event(client, backend)
    assert [message["text"] for message in answer.messages[1:]] == ["a", "b"]
    assert answer.messages[0]["headers"] == [(b"x-lumiqtrace-id", event["trace_id"].encode())]
    assert (event["name"], event["status"]) == ("WEBSOCKET", "success")
    assert event["tags"] == {
        "http.method": "GET", "http.path": "/room", "http.status_code": "101", "websocket.close_code": "1000",
    }  # fmt: skip


def test_a_websocket_that_is_refused_has_the_status_of_a_refusal(client, backend):
    async def refuse(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    asyncio.run(awebsocket(AsgiMiddleware(refuse), "/room", []))
    event = only_event(client, backend)
    assert event["tags"]["http.status_code"] == "403"
    assert event["status"] == "success"


def test_a_websocket_handler_that_raises_is_an_error(client, backend):
    mine = ValueError("no")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise mine

    assert asyncio.run(awebsocket(AsgiMiddleware(app), "/room", [])).error is mine
    event = only_event(client, backend)
    assert (event["status"], event["error_code"]) == ("error", "ValueError")


async def live(app):
    """The lifespan of a server, start and end; gives what was sent."""
    sent = []
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return sent


@pytest.mark.parametrize("end", ["complete", "failed"])
def test_events_are_delivered_before_the_server_ends(client, backend, end):
    delivered = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await hello(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        delivered.append(len(backend.events))
        await send({"type": f"lifespan.shutdown.{end}"})
        delivered.append(len(backend.events))

    async def drive():
        middleware = AsgiMiddleware(app)
        await acall(middleware)
        return await live(middleware)

    sent = asyncio.run(drive())
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", f"lifespan.shutdown.{end}"]
    assert delivered == [0, 1]


def test_the_loop_runs_on_while_the_server_ends(client, backend):
    turns = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await hello(scope, receive, send)
        else:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def tick():
        while True:
            turns.append(len(backend.events))
            await asyncio.sleep(0)

    async def drive():
        middleware = AsgiMiddleware(app)
        await acall(middleware)
        ticking = asyncio.ensure_future(tick())
        await live(middleware)
        ticking.cancel()

    asyncio.run(drive())
    assert turns[0] == 0
    assert len(turns) > 2


def test_a_backend_that_is_down_holds_the_server_for_the_flush_timeout_and_no_longer():
    config = LumiqConfig(api_key=KEY, base_url="http://127.0.0.1:9", flush_timeout=0.05)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await hello(scope, receive, send)
        else:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def drive():
        middleware = AsgiMiddleware(app, config)
        await acall(middleware)
        return await live(middleware)

    assert [message["type"] for message in asyncio.run(drive())] == ["lifespan.shutdown.complete"]


def test_an_application_without_lifespan_says_so_itself(client):
    mine = AssertionError("http only")

    async def app(scope, receive, send):
        raise mine

    with pytest.raises(AssertionError) as caught:
        asyncio.run(live(AsgiMiddleware(app)))
    assert caught.value is mine


def test_other_scopes_pass(client, backend):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    asyncio.run(AsgiMiddleware(app)({"type": "mqtt"}, 1, 2))
    assert seen == [({"type": "mqtt"}, 1, 2)]


@pytest.mark.parametrize("pieces", [[b"hi"], [b"h", b"i", b""]])
def test_flush_request_delivers_before_the_last_byte(backend, pieces):
    config = LumiqConfig(api_key=KEY, base_url=backend.url, flush="request")
    arrived = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    async def drive():
        async def send(message):
            arrived.append((message.get("body"), message.get("more_body"), len(backend.events)))

        await AsgiMiddleware(app, config)(http_scope("/"), None, send)

    asyncio.run(drive())
    body = arrived[1:]
    assert b"".join(part for part, _, _ in body) == b"hi"
    assert [more for _, more, _ in body] == [True] * (len(body) - 1) + [False]
    assert [events for _, _, events in body] == [0] * (len(body) - 1) + [1]


def test_flush_request_delivers_before_an_exception_leaves(backend):
    config = LumiqConfig(api_key=KEY, base_url=backend.url, flush="request")

    async def app(scope, receive, send):
        raise ValueError("no")

    assert isinstance(call(AsgiMiddleware(app, config)).error, ValueError)
    assert [event["status"] for event in backend.events] == ["error"]


@pytest.mark.parametrize(("platform", "at_once"), [("K_SERVICE", 1), ("VERCEL", 1), ("OTHER", 0)])
def test_flush_auto_is_request_where_the_platform_stops_the_cpu(backend, monkeypatch, platform, at_once):
    monkeypatch.setenv(platform, "1")
    call(AsgiMiddleware(hello, LumiqConfig(api_key=KEY, base_url=backend.url)))
    assert len(backend.events) == at_once


def test_nothing_of_a_web_framework_is_imported_by_the_middleware():
    code = "import sys, lumiqtrace.integrations.fastapi; print({'fastapi', 'starlette'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "set()"
