"""Vercel's real Python runtime: body before delivery, the invocation's end after it, in all three shapes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from backend import Answer
from served import to_backend
from vercel_drive import environment, function

SITE = Path(__file__).with_name("vercel_site.py")
SHAPES = ["handler", "wsgi", "app"]

# The first of them makes the environment.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def python(pytestconfig):
    return environment(pytestconfig.cache.mkdir("vercel-runtime"))


def running(python, shape, backend, **more):
    return function(python, SITE, shape, to_backend(backend, LUMIQTRACE_FLUSH_TIMEOUT="30", **more))


def roots(backend):
    return [event for event in backend.events if "parent_span_id" not in event]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_body_is_complete_before_the_delivery_and_the_invocation_ends_after_it(shape, python, backend):
    has_body, order = threading.Event(), []

    def answer(_request):
        order.append("body" if has_body.wait(20) else "no body")
        # An invocation that did not wait for us would have ended long before.
        order.append("end" if runtime.ended(1, seconds=0.3) else "no end")
        return Answer()

    backend.answer = answer
    with running(python, shape, backend) as runtime:
        got = httpx.get(f"{runtime.url}/hello?x=y", headers={"x-vercel-id": "fra1::abc-123"}, timeout=40)
        has_body.set()
        assert runtime.ended(1)
        assert order == ["body", "no end"]
        (root,) = roots(backend)
    assert got.text == root["trace_id"] == got.headers["x-lumiqtrace-id"]
    assert root["name"] == ("GET /api/vercel_site" if shape == "handler" else "GET")
    assert (
        root["tags"].items()
        >= {
            "http.method": "GET",
            "http.path": "/hello",
            "http.status_code": "200",
            "vercel.id": "fra1::abc-123",
        }.items()
    )
    inside = [event["name"] for event in backend.events if event.get("parent_span_id") == root["span_id"]]
    assert sorted(inside) == (["work"] if shape == "handler" else ["in the stream", "work"])


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_at_the_same_time_keep_separate_traces(shape, python, backend):
    number = 40

    def get(_number):
        return http.get("/hello").text

    with running(python, shape, backend) as runtime:
        with httpx.Client(base_url=runtime.url, timeout=40) as http, ThreadPoolExecutor(8) as pool:
            traces = list(pool.map(get, range(number)))
        assert runtime.ended(number)
        # All is delivered when the invocations are over.
        assert {root["trace_id"] for root in roots(backend)} == set(traces)
        assert len(set(traces)) == number
    of = {root["span_id"]: root["trace_id"] for root in roots(backend)}
    children = [event for event in backend.events if "parent_span_id" in event]
    assert len(children) == number * (1 if shape == "handler" else 2)
    assert all(of[child["parent_span_id"]] == child["trace_id"] for child in children)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_context_events_are_delivered_before_the_end(shape, python, backend, tmp_path):
    # As without the package `vercel`: the runtime then offers no work after the response.
    (tmp_path / "vercel.py").write_text("raise ImportError('not installed')\n")
    with running(python, shape, backend, PYTHONPATH=str(tmp_path)) as runtime:
        got = httpx.get(f"{runtime.url}/hello", timeout=40)
        if shape == "handler":  # writes its response itself, so that nothing can hold its end back
            assert runtime.ended(1)
        assert [root["trace_id"] for root in roots(backend)] == [got.text]
        assert runtime.ended(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_maximum_duration_leaves_bounds_the_delivery(shape, python, backend):
    def deadline(seconds):
        told = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        return {"x-vercel-internal-deadline": told}

    released = threading.Event()

    def hang(_request):
        assert released.wait(30)
        return Answer()

    with running(python, shape, backend) as runtime:
        httpx.get(runtime.url, headers=deadline(0.1), timeout=40)
        assert runtime.ended(1)
        assert not backend.requests
        backend.answer = hang
        httpx.get(runtime.url, headers=deadline(1.0), timeout=40)
        assert runtime.ended(2, seconds=10)  # flush_timeout is 30
        released.set()
        httpx.get(runtime.url, headers=deadline(40), timeout=40)
        assert runtime.ended(3)
        assert len(roots(backend)) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_functions_own_work_after_the_response_records_is_delivered_too(shape, python, backend):
    with running(python, shape, backend) as runtime:
        httpx.get(f"{runtime.url}/later", timeout=40)
        assert runtime.ended(1)
        assert "after the response" in {event["name"] for event in backend.events}
        number = len(backend.requests)
        httpx.get(f"{runtime.url}/", timeout=40)
        assert runtime.ended(2)
        assert len(backend.requests) == number + 1


@pytest.mark.parametrize("shape", SHAPES)
def test_an_exception_is_the_runtimes_and_an_error_of_the_trace(shape, python, backend):
    with running(python, shape, backend) as runtime:
        try:
            assert httpx.get(f"{runtime.url}/fails", timeout=40).status_code == 500
        except httpx.RemoteProtocolError:  # the runtime's thread ends without an answer
            assert shape != "app"
        assert runtime.ended(1)
        (root,) = roots(backend)
    assert (root["status"], root["error_code"], root["error_message"]) == ("error", "ValueError", "no answer")


@pytest.mark.parametrize("shape", SHAPES)
def test_in_the_background_sigterm_delivers(shape, python, backend):
    with running(python, shape, backend, LUMIQTRACE_FLUSH="background") as runtime:
        httpx.get(runtime.url, timeout=40)
        assert runtime.ended(1)
        assert not backend.requests
        runtime.terminate()
    assert len(roots(backend)) == 1
