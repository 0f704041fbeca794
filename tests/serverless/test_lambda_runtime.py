"""AWS's own runtime client runs the handlers here, against its interface on loopback."""

from __future__ import annotations

import json

import pytest
from lambda_sandbox import invocations, sandbox

HANDLER = """
@traced_handler(flush_timeout=20)
def handler(event, context):
    work()
    if event == "raise":
        raise ValueError("käse")
    return event
"""


def test_results_are_untouched_and_every_event_is_delivered_before_the_answer(tmp_path, backend):
    values = [
        {"text": "grüße 🚀", "n": [1, 2.5, None, True]},
        [],
        "x",
        None,
        {"batchItemFailures": [{"itemIdentifier": "m1"}]},
    ]
    with sandbox(tmp_path, HANDLER, backend.url) as box:
        for number, value in enumerate(values, start=1):
            answer = box.invoke(value)
            assert (answer.kind, answer.json) == ("response", value)
            assert len(backend.events) == 2 * number
            assert len(backend.requests) == number
    roots = invocations(backend)
    assert {event["status"] for event in roots} == {"success"}
    assert len({event["trace_id"] for event in roots}) == len(values)


def test_an_exception_goes_on_with_its_type_and_message_and_is_the_spans_status(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url) as box:
        answer = box.invoke("raise")
        assert answer.kind == "error"
        assert (answer.json["errorType"], answer.json["errorMessage"]) == ("ValueError", "käse")
        assert "app.py" in "".join(answer.json["stackTrace"])
        (event,) = invocations(backend)
        assert (event["status"], event["error_code"], event["error_message"]) == (
            "error",
            "ValueError",
            "käse",
        )
        assert box.invoke("again").json == "again"


def test_the_span_tells_the_function_the_request_and_the_cold_start(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url) as box:
        ids = [box.invoke({}).request_id, box.invoke({}).request_id]
    first, second = invocations(backend)
    assert first["name"] == first["tags"]["faas.name"] == "checkout"
    assert first["span_kind"] == "general"
    expected = {
        "faas.name": "checkout", "faas.version": "7", "faas.memory_mb": "256", "faas.trigger": "direct",
        "faas.coldstart": "true", "faas.invocation_id": ids[0], "cloud.region": "eu-central-1",
    }  # fmt: skip
    assert first["tags"] == expected
    assert second["tags"] == expected | {"faas.coldstart": "false", "faas.invocation_id": ids[1]}
    (child,) = (
        event for event in backend.events if event["trace_id"] == first["trace_id"] and event is not first
    )
    assert child["parent_span_id"] == first["span_id"]


def test_async_handlers_run_on_one_loop_that_lives_on(tmp_path, backend):
    code = """
    lock = loop = None
    label = __import__("contextvars").ContextVar("label", default=0)
    @traced_handler(flush_timeout=20)
    async def handler(event, context):
        global lock, loop
        same = loop in (None, asyncio.get_running_loop())
        loop = asyncio.get_running_loop()
        label.set(label.get() + 1)
        await asyncio.sleep(0)
        work()
        if event == "raise":
            raise LookupError("no")
        return {"same": same, "label": label.get()}
    """
    with sandbox(tmp_path, code, backend.url) as box:
        answers = [box.invoke(event) for event in ("a", "raise", "b")]
    assert [answer.json for answer in answers[::2]] == [{"same": True, "label": 1}] * 2
    assert (answers[1].kind, answers[1].json["errorType"]) == ("error", "LookupError")
    assert [event["status"] for event in invocations(backend)] == ["success", "error", "success"]
    traces = [event["trace_id"] for event in backend.events]
    assert sorted(traces) == sorted([*{*traces}] * 2)


def test_applied_twice_it_counts_once(tmp_path, backend):
    code = """
    from lumiqtrace.integrations.serverless import flush_on_return
    @traced_handler(flush_timeout=20)
    @flush_on_return
    @traced_handler(flush_timeout=20)
    def handler(event, context):
        work()
    """
    with sandbox(tmp_path, code, backend.url) as box:
        box.invoke()
        box.invoke()
    assert len(invocations(backend)) == len(backend.requests) == 2


def test_what_flushes_inside_leaves_it_to_the_handler(tmp_path, backend):
    code = """
    from lumiqtrace.integrations.serverless import flush_on_return
    @flush_on_return
    def inner():
        work()
    @traced_handler(flush_timeout=20)
    def handler(event, context):
        inner()
        inner()
    """
    with sandbox(tmp_path, code, backend.url) as box:
        box.invoke()
        assert [len(request.events) for request in backend.requests] == [3]


@pytest.mark.parametrize(("trusting", "joins"), [("True", True), ("False", False)])
def test_the_callers_trace_is_continued_only_where_it_is_trusted(tmp_path, backend, trusting, joins):
    code = f"""
    @traced_handler(trust_incoming_trace={trusting}, flush_timeout=20)
    def handler(event, context):
        pass
    """
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    header = f"00-{trace}-{span}-01"
    with sandbox(tmp_path, code, backend.url) as box:
        box.invoke({"headers": {"TraceParent": header}})
        box.invoke({}, **{"Client-Context": json.dumps({"w3c": {"traceparent": header}})})
        box.invoke({"headers": {"traceparent": "nonsense"}})
    found = [
        (event["trace_id"] == trace, event.get("parent_span_id") == span) for event in invocations(backend)
    ]
    assert found == [(joins, joins), (joins, joins), (False, False)]


def test_a_status_from_500_makes_an_error_of_an_answer(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url) as box:
        for status in (200, 404, 502):
            answer = {"statusCode": status, "body": "ö"}
            assert box.invoke(answer).json == answer
    statuses = [
        (e["status"], e.get("error_code"), e["tags"]["http.status_code"]) for e in invocations(backend)
    ]
    assert statuses == [("success", None, "200"), ("success", None, "404"), ("error", "http_502", "502")]


def test_the_plain_pattern_costs_one_request_an_invocation(tmp_path, backend):
    code = """
    def handler(event, context):
        work(); work(); work()
        lumiqtrace.flush()
        return {"statusCode": 200, "body": "ok"}
    """
    with sandbox(tmp_path, code, backend.url) as box:
        for number in (1, 2, 3):
            assert box.invoke({"prompt": "Hi"}).json == {"statusCode": 200, "body": "ok"}
            assert [len(request.events) for request in backend.requests] == [3] * number


def test_without_a_key_it_is_as_if_it_were_not_there(tmp_path, backend):
    code = """
    @traced_handler(flush_timeout=20)
    async def handler(event, context):
        work()
        return threading.active_count()
    """
    with sandbox(tmp_path, code, backend.url, LUMIQTRACE_API_KEY="") as box:
        assert box.invoke().json == 1
        assert backend.requests == []
        assert "lumiqtrace-" not in box.output()


def test_a_middleware_inside_leaves_the_flush_to_the_handler(tmp_path, backend):
    code = """
    from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware
    from lumiqtrace.integrations.flask import LumiqFlaskMiddleware
    async def asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [b""]
    web, site = LumiqFastAPIMiddleware(asgi), LumiqFlaskMiddleware(wsgi)
    async def nothing(*_):
        pass
    @traced_handler(flush_timeout=20)
    def handler(event, context):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(web(scope, nothing, nothing))
        list(site({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None))
    """
    with sandbox(tmp_path, code, backend.url) as box:
        assert box.invoke().kind == "response"
    assert [len(request.events) for request in backend.requests] == [3]
