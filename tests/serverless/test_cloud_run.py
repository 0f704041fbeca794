"""`traced_function` by itself: what it makes of every kind of call, and that it changes none."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import flask
import pytest
import starlette.exceptions
import werkzeug.exceptions
from backend import KEY, Answer
from cloudevents.http import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import StreamingResponse
from werkzeug.exceptions import HTTPException

import lumiqtrace
from lumiqtrace.integrations._invocation import answer_of, status_of_answer
from lumiqtrace.integrations.cloud_run import traced_function
from lumiqtrace.integrations.serverless import flush_on_return

app = flask.Flask("functions")


@pytest.fixture(autouse=True)
def _on_cloud_run(monkeypatch):
    for name in ("FUNCTION_TARGET", "K_REVISION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("K_SERVICE", "greeter")


def request(path="/", method="GET", **headers):
    """Flask's request, as the framework passes it."""
    with app.test_request_context(path, method=method, headers=headers) as context:
        return context.request


def arequest(path="/"):
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [],
        "query_string": b"",
        "server": ("localhost", 80),
    }
    return Request(scope)


def upload():
    return CloudEvent({"type": "upload", "source": "//bucket", "subject": "photo.jpg"}, {"name": "photo.jpg"})


def root(backend):
    (found,) = (event for event in backend.events if "parent_span_id" not in event)
    return found


def test_before_init_and_without_a_key_a_function_is_what_it_was():
    @traced_function
    def function(request):
        return request

    assert function(42) == 42
    lumiqtrace.init(enabled=False)
    assert function(42) == 42


def test_the_framework_sees_the_function_it_was_given(client):
    @traced_function(flush_timeout=1.0)
    async def function(request):
        """Greets."""

    assert isinstance(function, types.FunctionType)
    assert inspect.iscoroutinefunction(function)
    assert (function.__name__, function.__doc__) == ("function", "Greets.")
    assert traced_function(function) is function


@pytest.mark.parametrize("wrong", [42, int, None])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(TypeError, match="traced_function: a function is needed"):
        traced_function()(wrong)


@pytest.mark.parametrize("wrong", ["1", True, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="flush_timeout"):
        traced_function(flush_timeout=wrong)


def test_a_cloud_event_tells_its_type_source_and_subject(client, backend):
    @traced_function
    def function(event):
        return event.data["name"]

    assert function(upload()) == "photo.jpg"
    assert root(backend)["name"] == "function"
    tags = root(backend)["tags"]
    assert (tags["faas.trigger"], tags["faas.name"]) == ("event", "greeter")
    assert tags["cloudevents.event_type"] == "upload"
    assert tags["cloudevents.event_source"] == "//bucket"
    assert tags["cloudevents.event_subject"] == "photo.jpg"


def test_a_background_function_tells_its_context(client, backend):
    @traced_function
    def function(data, context):
        return data

    context = types.SimpleNamespace(event_type="google.pubsub.topic.publish", event_id="7", resource="r")
    assert function({"a": 1}, context) == {"a": 1}
    assert root(backend)["tags"]["cloudevents.event_type"] == "google.pubsub.topic.publish"
    assert root(backend)["tags"]["cloudevents.event_id"] == "7"


class Order:
    """What a typed function takes: anything."""

    method = "express"

    def get(self):
        raise AssertionError("nobody asked for it")


@pytest.mark.parametrize("argument", [None, {"get": 1}, {"specversion": "1.0"}, object(), "text", Order()])
def test_an_argument_of_any_kind_is_passed_on(argument, client, backend):
    @traced_function
    def function(value):
        return value

    assert function(argument) is argument
    assert root(backend)["tags"] == {"faas.name": "greeter"}


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), TimeoutError(), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()],
)
def test_an_exception_passes_as_the_same_object(error, client, backend):
    @traced_function
    def function(request):
        raise error

    with pytest.raises(type(error)) as caught:
        function(request())
    assert caught.value is error
    lumiqtrace.flush()
    expected = {"ValueError": "error", "TimeoutError": "timeout"}.get(type(error).__name__, "cancelled")
    assert root(backend)["status"] == expected


def test_an_abort_is_the_answer_that_it_becomes(client, backend):
    @traced_function
    def function(request):
        flask.abort(int(request.args["status"]))

    for status in (404, 503):
        with pytest.raises(HTTPException):
            function(request(f"/?status={status}"))
    missing, unavailable = backend.events
    assert (missing["status"], missing["tags"]["http.status_code"]) == ("success", "404")
    assert (unavailable["status"], unavailable["error_code"]) == ("error", "http_503")


def test_an_incoming_trace_is_continued_where_it_is_trusted(client, backend):
    def function(request):
        pass

    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    incoming = request(traceparent=f"00-{trace}-{parent}-01")
    traced_function(function)(incoming)
    traced_function(trust_incoming_trace=True)(function)(incoming)
    alone, joined = backend.events
    assert alone["trace_id"] != trace
    assert (joined["trace_id"], joined["parent_span_id"]) == (trace, parent)


def test_inside_a_trace_a_call_is_a_part_of_it_and_leaves_the_delivery_to_ours_alone(client, backend):
    @traced_function
    def function(request):
        pass

    @traced_function
    def around(request):
        function(request)
        assert not backend.requests

    around(request())
    child, outside = backend.events
    assert child["parent_span_id"] == outside["span_id"]
    with lumiqtrace.span("the user's own"):
        function(request())
        assert len(backend.events) == 3
    flush_on_return(lambda: [function(request()), len(backend.events)])()
    assert [len(sent.events) for sent in backend.requests] == [2, 1, 2]


class LeftError(Exception):
    pass


def leaving(kept, fails):
    """Functions, sync and async, that keep a generator which holds a span and a user's context open."""

    def tokens():
        with lumiqtrace.span("stream"), lumiqtrace.context(user_id="ada"):
            yield "a"
            yield "b"

    @traced_function
    def function(request):
        kept.append(tokens())
        next(kept[-1])
        if fails:
            raise LeftError
        return "answer"

    @traced_function
    async def afunction(request):
        return function.__wrapped__(request)

    return function, lambda request: asyncio.run(afunction(request))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", [0, 1], ids=["sync", "async"])
def test_what_a_call_left_open_is_no_part_of_the_next(kind, fails, client, backend):
    kept = []
    leave = leaving(kept, fails)[kind]

    @traced_function
    def after(request):
        with lumiqtrace.span("work"):
            return "answer"

    for number in (1, 2):
        with suppress(LeftError):
            leave(request())
        assert lumiqtrace.get_current_trace_id() is None
        assert after(request()) == "answer"
        assert len(backend.events) == 3 * number
        left, work, root = backend.events[-3:]
        assert left["trace_id"] != root["trace_id"]
        assert work["parent_span_id"] == root["span_id"]
        assert "parent_span_id" not in root
        assert {event.get("user_id") for event in (work, root)} == {None}
    for generator in kept:
        generator.close()
    assert lumiqtrace.get_current_trace_id() is None


def hidden(function):
    """A plain function around a coroutine function, as a decorator may be."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def test_a_coroutine_is_a_part_of_the_call_that_gave_it(client, backend):
    @traced_function
    @hidden
    async def function(request):
        await asyncio.sleep(0)
        with lumiqtrace.span("inside"):
            raise LeftError

    with pytest.raises(LeftError):
        asyncio.run(function(request()))
    inside, outside = backend.events
    assert (inside["parent_span_id"], outside["status"]) == (outside["span_id"], "error")


@pytest.fixture
def patient(backend):
    """A client that sends nothing by itself for as long as a test takes."""
    return lumiqtrace.init(KEY, base_url=backend.url, flush_interval=600)


def test_a_call_that_is_cancelled_is_delivered_without_waiting(patient, backend):
    @traced_function
    async def function(request):
        with lumiqtrace.span("paid call"):
            await asyncio.Event().wait()

    async def main():
        call = asyncio.ensure_future(function(arequest()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    backend.wait_for(lambda: len(backend.events) == 2)
    assert {event["status"] for event in backend.events} == {"cancelled"}


def test_a_stream_whose_client_left_is_delivered_without_waiting(patient, backend):
    @traced_function
    async def function(request):
        async def pieces():
            yield b"a"
            yield b"b"

        return StreamingResponse(pieces())

    async def main():
        answer = await function(arequest())
        assert await anext(answer.body_iterator) == b"a"

    asyncio.run(main())
    gc.collect()
    backend.wait_for(lambda: len(backend.events) == 1)
    assert root(backend)["status"] == "cancelled"


def test_an_error_that_is_no_answer_is_an_error(client, backend):
    class HTTPException(Exception):  # noqa: N818 - as clients call what they got from others
        code = 404

    @traced_function
    def function(request):
        raise HTTPException

    @traced_function
    def on_event(event):
        flask.abort(404)

    with pytest.raises(HTTPException):
        function(request())
    with pytest.raises(werkzeug.exceptions.NotFound):
        on_event(upload())
    assert [event["status"] for event in backend.events] == ["error", "error"]
    assert backend.events[0]["tags"]["http.status_code"] == "500"
    assert "http.status_code" not in backend.events[1]["tags"]


@pytest.mark.parametrize(("answer", "status"), [({"answer": 1}, "200"), (("no", 404), "404"), (None, None)])
def test_an_answer_without_a_status_is_sent_with_200(answer, status, client, backend):
    assert traced_function(lambda request: answer)(request()) is answer
    assert root(backend)["tags"].get("http.status_code") == status


def test_a_trace_out_of_the_sample_costs_no_request(backend):
    @traced_function
    def function(request):
        with lumiqtrace.span("child"):
            return "answer"

    lumiqtrace.init(KEY, base_url=backend.url, sample_rate=1e-12)
    assert function(request()) == "answer"
    assert not backend.requests


def test_calls_at_the_same_time_share_the_requests(client, backend):
    calls = 20
    first_came, released = threading.Event(), threading.Event()

    def answer(_request):
        first_came.set()
        assert released.wait(30)
        return Answer()

    @traced_function(flush_timeout=30)
    def function(number):
        return number

    backend.answer = answer
    with ThreadPoolExecutor(calls) as pool:
        first = pool.submit(function, 0)
        assert first_came.wait(30)
        others = [pool.submit(function, number) for number in range(1, calls)]
        while client.stats().recorded < calls:
            threading.Event().wait(0.01)
        assert not any(call.done() for call in [first, *others])
        released.set()
        assert [call.result(30) for call in [first, *others]] == list(range(calls))
    assert len(backend.events) == calls
    assert len(backend.requests) <= 3


def test_a_backend_that_hangs_delays_an_answer_by_the_timeout_and_loses_nothing(client, backend):
    released = threading.Event()

    def answer(_request):
        assert released.wait(30)
        return Answer()

    @traced_function(flush_timeout=0.05)
    def function(request):
        return "answer"

    backend.answer = answer
    assert function(request()) == "answer"
    assert not backend.events
    released.set()
    assert function(request()) == "answer"
    backend.wait_for(lambda: len(backend.events) == 2)


def test_a_stream_that_is_left_is_cancelled_and_leaves_the_thread_as_it_was(client, backend):
    @traced_function
    def function(request):
        with lumiqtrace.context(user_id="ada"):
            yield lumiqtrace.get_current_trace_id()
            yield "never"

    pieces = function(request())
    assert lumiqtrace.get_current_trace_id() is None
    trace = next(pieces)
    assert lumiqtrace.get_current_trace_id() is None
    pieces.close()
    assert (root(backend)["trace_id"], root(backend)["status"]) == (trace, "cancelled")


@pytest.mark.parametrize("left", [False, True])
def test_an_asynchronous_stream_is_the_calls_own(left, client, backend):
    @traced_function
    async def function(request):
        return StreamingResponse(pieces(), status_code=201)

    async def pieces():
        yield lumiqtrace.get_current_trace_id()
        with lumiqtrace.span("in the stream"):
            yield "more"

    async def main():
        answer = await function(arequest())
        assert lumiqtrace.get_current_trace_id() is None
        got = []
        async for piece in answer.body_iterator:
            assert lumiqtrace.get_current_trace_id() is None
            got.append(piece)
            if left:
                break
        del answer
        return got

    got = asyncio.run(main())
    gc.collect()
    lumiqtrace.flush()
    assert got == [root(backend)["trace_id"], "more"][: len(got)]
    assert root(backend)["tags"]["http.status_code"] == "201"
    assert root(backend)["status"] == ("cancelled" if left else "success")
    assert len(backend.events) == (1 if left else 2)


def test_a_stream_that_fails_is_an_error(client, backend):
    @traced_function
    def function(request):
        yield "piece"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(function(request()))
    assert (root(backend)["status"], root(backend)["error_code"]) == ("error", "ValueError")


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ("text", None),
        (("text", 201), 201),
        (("text", "503 Busy"), 503),
        (("text", {"x": "y"}), None),
        ((flask.Response("text", 202), {"x": "y"}), 202),
        (flask.Response("text", 204), 204),
        (StreamingResponse(iter(()), status_code=206), 206),
        (None, None),
        ((), None),
    ],
)
def test_the_status_is_read_from_all_that_the_frameworks_take(result, status):
    assert status_of_answer(result) == status


@settings(deadline=None)
@given(st.integers(100, 599))
def test_the_status_of_an_http_exception_is_its_own(status):
    assert answer_of(starlette.exceptions.HTTPException(status)) == status
    error = HTTPException(response=flask.Response("text", status))
    assert answer_of(error) == status
    assert answer_of(ValueError(status)) is None


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.tuples(inner, inner) | st.lists(inner)
    )
)
def test_a_result_of_any_shape_comes_back_as_it_is(result):
    @traced_function
    def function(_request):
        return result

    with app.test_request_context("/") as context:
        # Fewer calls than fill a batch: nothing leaves meanwhile.
        lumiqtrace.init(
            KEY, base_url="http://127.0.0.1:9", flush="background", batch_size=100, flush_interval=600
        )
        assert function(context.request) is result
        assert status_of_answer(result) is None or isinstance(status_of_answer(result), int)
