"""The real Functions Framework: every call's events are delivered before its answer is complete."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from served import free_port, serving, to_backend

SITE = Path(__file__).with_name("functions_site.py")
REQUESTS = 100
ON_CLOUD_RUN = {"K_SERVICE": "greeter", "K_REVISION": "greeter-00007-abc"}
CLOUD_EVENT = {
    "ce-specversion": "1.0",
    "ce-type": "google.cloud.storage.object.v1.finalized",
    "ce-source": "//storage.googleapis.com/projects/_/buckets/uploads",
    "ce-id": "1096434104173400",
}


@contextmanager
def framework(backend, target, *options, **environ):
    port = free_port()
    command = [
        sys.executable, "-m", "functions_framework", "--target", target, "--source", str(SITE),
        "--host", "127.0.0.1", "--port", str(port), *options,
    ]  # fmt: skip
    with serving(command, port, to_backend(backend, **{**ON_CLOUD_RUN, "THREADS": "8", **environ})) as served:
        yield served


def traces(backend):
    return {event["trace_id"] for event in backend.events}


@pytest.mark.parametrize(
    ("target", "options"),
    [("greet", ()), ("greet", ("--debug",)), ("agreet", ("--asgi",))],
    ids=["gthread", "debug", "asgi"],
)
def test_every_call_is_delivered_before_its_answer_and_sigterm_loses_nothing(target, options, backend):
    def call(number):
        answer = http.get(f"/{number}")
        trace = answer.json()["trace"]
        return trace, trace in traces(backend), answer.json().get("forked")

    with framework(backend, target, *options) as served:
        with httpx.Client(base_url=served.url, timeout=40) as http, ThreadPoolExecutor(8) as pool:
            calls = list(pool.map(call, range(REQUESTS)))
        served.terminate()

    assert all(delivered for _, delivered, _ in calls)
    if target == "greet" and not options:
        assert all(forked for _, _, forked in calls)
    assert len({trace for trace, _, _ in calls}) == REQUESTS
    roots = [event for event in backend.events if "parent_span_id" not in event]
    assert {root["trace_id"] for root in roots} == {trace for trace, _, _ in calls}
    assert len({event["event_id"] for event in backend.events}) == len(backend.events) == 2 * REQUESTS
    root = roots[0]
    assert (root["name"], root["status"]) == (target, "success")
    assert root["tags"] == {
        "faas.trigger": "http",
        "faas.name": "greeter",
        "faas.version": "greeter-00007-abc",
        "faas.target": target,
        "http.method": "GET",
        "http.path": root["tags"]["http.path"],
        "http.status_code": "200",
    }
    child = next(event for event in backend.events if event.get("parent_span_id") == root["span_id"])
    assert (child["name"], child["trace_id"]) == ("look up", root["trace_id"])


@pytest.mark.parametrize(
    ("target", "options"), [("on_upload", ()), ("aon_upload", ("--asgi",))], ids=["gthread", "asgi"]
)
def test_a_cloud_event_is_delivered_with_its_type_and_source(target, options, backend):
    with framework(backend, target, *options) as served:
        answer = httpx.post(served.url, json={"name": "photo.jpg"}, headers=CLOUD_EVENT, timeout=40)
        assert (answer.status_code, answer.text) == (200, "OK")
        assert len(backend.events) == 2
        refused = httpx.post(served.url, json={"no": "event"}, timeout=40)
        assert refused.status_code == 400
        served.terminate()
    child, root = backend.events
    assert (root["name"], root["status"]) == (target, "success")
    assert (
        root["tags"].items()
        >= {
            "faas.trigger": "event",
            "faas.target": target,
            "cloudevents.event_type": CLOUD_EVENT["ce-type"],
            "cloudevents.event_source": CLOUD_EVENT["ce-source"],
            "cloudevents.event_id": CLOUD_EVENT["ce-id"],
        }.items()
    )
    assert child["parent_span_id"] == root["span_id"]


@pytest.mark.parametrize(
    ("target", "options"), [("greet", ()), ("agreet", ("--asgi",))], ids=["gthread", "asgi"]
)
def test_answers_of_all_kinds(target, options, backend):
    def root(path, expected):
        before = len(backend.events)
        answer = http.get(path)
        assert answer.status_code == expected
        # The last event of a call is its own: delivered before the answer was complete.
        assert len(backend.events) > before
        return answer, backend.events[-1]

    with (
        framework(backend, target, *options) as served,
        httpx.Client(base_url=served.url, timeout=40) as http,
    ):
        answer, streamed = root("/stream", 200)
        assert answer.text == streamed["trace_id"] + " and more"
        assert (streamed["name"], streamed["tags"]["http.status_code"]) == (target, "200")
        assert backend.events[-2]["parent_span_id"] == streamed["span_id"]
        assert backend.events[-2]["name"] == "in the stream"

        _, failed = root("/fails", 500)
        assert (failed["status"], failed["error_code"]) == ("error", "ValueError")
        assert (failed["error_message"], failed["tags"]["http.status_code"]) == ("no greeting", "500")
        if target == "greet":
            _, missing = root("/missing", 404)
            assert (missing["status"], missing["tags"]["http.status_code"]) == ("success", "404")
        assert http.get("/").json()["trace"] not in {streamed["trace_id"], failed["trace_id"]}


@pytest.mark.parametrize(
    ("target", "options"),
    [("greet", ()), ("agreet", ("--asgi",)), ("agreet", ("--asgi", "--debug"))],
    ids=["gthread", "asgi", "asgi, debug"],
)
def test_without_cloud_run_events_leave_in_the_background_and_at_the_end(target, options, backend):
    with framework(backend, target, *options, K_SERVICE="", K_REVISION="") as served:
        for _ in range(3):
            assert httpx.get(served.url, timeout=40).status_code == 200
        assert not backend.events
        served.terminate()
    assert len(backend.events) == 6
