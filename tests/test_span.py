from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from backend import KEY

import lumiqtrace
from lumiqtrace._span import request_span, shorten


def by_name(backend):
    return {event["name"]: event for event in backend.events}


def test_a_span_is_an_event_of_the_schema(client, backend):
    with lumiqtrace.span("search", "retriever", index="docs", top_k=5) as span:
        span.set_attribute("hits", 3)
        span.set_eval_score("relevance", 0.75)
        assert lumiqtrace.get_current_trace_id() == span.trace_id
        assert lumiqtrace.get_current_span_id() == span.span_id
    assert lumiqtrace.get_current_trace_id() is None
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert event["trace_id"] == span.trace_id
    assert len(event["trace_id"]) == 32
    assert len(event["span_id"]) == 16
    assert "parent_span_id" not in event
    assert (event["provider"], event["operation"], event["model"]) == ("custom", "custom", "search")
    assert (event["span_kind"], event["name"], event["status"]) == ("retriever", "search", "success")
    assert event["tags"] == {"index": "docs", "top_k": "5", "hits": "3"}
    assert event["eval_scores"] == {"relevance": 0.75}
    assert (event["input_tokens"], event["output_tokens"], event["cost_usd"]) == (0, 0, 0)
    assert event["latency_ms"] >= 0


def test_what_is_inside_is_a_child(client, backend):
    with lumiqtrace.span("outer") as outer:
        with lumiqtrace.span("first") as first, lumiqtrace.span("deep"):
            pass
        with lumiqtrace.span("second"):
            pass
    assert lumiqtrace.flush()
    found = by_name(backend)
    assert {event["trace_id"] for event in backend.events} == {outer.trace_id}
    assert found["first"]["parent_span_id"] == found["second"]["parent_span_id"] == outer.span_id
    assert found["deep"]["parent_span_id"] == first.span_id


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "error"),
        (TimeoutError("late"), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)
def test_an_exception_passes_unchanged_and_gives_the_status(client, backend, error, status):
    with pytest.raises(type(error)) as caught, lumiqtrace.span("work"):
        raise error
    assert caught.value is error
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert event["status"] == status
    assert event["error_code"] == type(error).__name__


def test_async_spans_of_concurrent_tasks_do_not_mix(client, backend):
    async def request(number):
        async with lumiqtrace.span(f"request {number}") as span:
            await asyncio.sleep(0)
            async with lumiqtrace.span(f"step {number}"):
                await asyncio.sleep(0)
                assert lumiqtrace.get_current_trace_id() == span.trace_id
        assert lumiqtrace.get_current_trace_id() is None

    async def main():
        await asyncio.gather(*(request(number) for number in range(50)))
        assert await lumiqtrace.aflush()

    asyncio.run(main())
    found = by_name(backend)
    for number in range(50):
        request_event, step = found[f"request {number}"], found[f"step {number}"]
        assert step["trace_id"] == request_event["trace_id"]
        assert step["parent_span_id"] == request_event["span_id"]


def test_a_thread_begins_a_trace_of_its_own(client, backend):
    def work():
        with lumiqtrace.span("elsewhere"):
            pass

    with lumiqtrace.span("here"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert lumiqtrace.flush()
    found = by_name(backend)
    assert found["elsewhere"]["trace_id"] != found["here"]["trace_id"]


def test_a_span_that_ends_in_another_context_ends_without_error(client, backend):
    def values():
        with lumiqtrace.span("generated"):
            yield 1

    generator = values()
    contextvars.copy_context().run(next, generator)
    contextvars.copy_context().run(generator.close)
    assert lumiqtrace.flush()
    assert by_name(backend)["generated"]["status"] == "cancelled"


def test_usage_that_the_application_tells_is_priced(client, backend):
    with lumiqtrace.span("own model", "llm") as span:
        span.set_usage(input_tokens=1000, output_tokens=100, model="gpt-4o")
    with lumiqtrace.span("known cost", "llm") as span:
        span.set_usage(input_tokens=10, output_tokens=1, model="gpt-4o", cost_usd=0.5)
    assert lumiqtrace.flush()
    found = by_name(backend)
    assert found["own model"]["model"] == "gpt-4o"
    assert found["own model"]["cost_usd"] == pytest.approx(0.0035)
    assert found["known cost"]["cost_usd"] == 0.5


def test_usage_without_a_model_has_no_price_and_says_so(client, backend):
    with lumiqtrace.span("answer", "llm") as span:
        span.set_usage(input_tokens=1000, output_tokens=100)
    with lumiqtrace.span("sum", "agent") as span:
        span.set_usage(input_tokens=1000, output_tokens=100)
    assert lumiqtrace.flush()
    found = by_name(backend)
    assert (found["answer"]["cost_usd"], found["answer"]["tags"]) == (0, {"cost": "unknown"})
    assert client.stats().unpriced_models == (), "a span's name is no model's, and may hold anything"
    assert "tags" not in found["sum"], "what an agent's calls cost together is on the calls"


class Unprintable:
    def __str__(self):
        raise RuntimeError


def test_nothing_that_is_passed_to_a_span_raises(client, backend):
    with lumiqtrace.span(Unprintable(), "no such kind", bad=Unprintable()) as span:
        span.set_attribute(Unprintable(), Unprintable())
        span.set_eval_score("nan", float("nan"))
        span.set_eval_score("text", "high")
        span.set_usage(input_tokens="many")
        span.set_error(Unprintable())
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert event["span_kind"] == "general"
    assert event["status"] == "error"
    assert "eval_scores" not in event


def test_a_key_in_an_exception_does_not_leave(client, backend):
    secret = "sk-" + "s3cr3t" * 5
    with pytest.raises(ValueError, match=secret), lumiqtrace.span("work"):
        raise ValueError(f"refused {secret}")
    assert lumiqtrace.flush()
    assert secret not in str(backend.events)
    assert backend.events[0]["error_message"] == "refused [REDACTED]"


def test_generators_that_end_out_of_order_leave_nothing_open(client, backend):
    def values(name):
        with lumiqtrace.span(name):
            yield name

    first, second = values("first"), values("second")
    next(first)
    next(second)
    first.close()
    second.close()
    assert lumiqtrace.get_current_span_id() is None


def test_a_span_used_twice_is_one_span(client, backend):
    span = lumiqtrace.span("once")
    with span:
        pass
    with span:
        assert lumiqtrace.get_current_span_id() is None
    assert lumiqtrace.get_current_span_id() is None
    assert lumiqtrace.flush()
    assert len(backend.events) == 1


def test_figures_that_no_server_takes_are_left_out(client, backend):
    with lumiqtrace.span("odd", "llm") as span:
        span.set_usage(input_tokens=2**60, cost_usd=float("nan"))
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert (event["input_tokens"], event["cost_usd"]) == (2**53, 0)


def test_name_status_and_metadata_may_be_known_late(client, backend):
    with lumiqtrace.span("GET") as span:
        span.set_name("GET /users/{id}")
        span.set_status("rate_limited", 429, "slow down sk-" + "s3cr3t" * 5)
        span.set_metadata("answer", {"a": [1, None]})
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert (event["name"], event["model"]) == ("GET /users/{id}", "GET /users/{id}")
    assert (event["status"], event["error_code"]) == ("rate_limited", "429")
    assert event["error_message"] == "slow down [REDACTED]"
    assert event["metadata"] == {"answer": {"a": [1, None]}}


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        (("success", "ignored"), "success", None),
        (("cancelled", "client_disconnected"), "cancelled", "client_disconnected"),
        (("no such status",), "error", None),
    ],
)
def test_a_status_that_was_set_goes_before_the_exceptions(client, backend, told, status, code):
    with pytest.raises(ValueError, match="no"), lumiqtrace.span("work") as span:
        span.set_status(*told)
        raise ValueError("no")
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert (event["status"], event.get("error_code")) == (status, code)


def test_begin_and_end_are_what_with_does(client, backend):
    span = lumiqtrace.span("by hand").begin()
    assert lumiqtrace.get_current_span_id() == span.span_id
    assert not span.ended
    span.end(TimeoutError("late"))
    span.end()
    assert span.ended
    assert lumiqtrace.get_current_span_id() is None
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert (event["status"], event["error_message"]) == ("timeout", "late")


class Body:
    """Metadata that is worked out when it is needed."""

    kept = 5000

    def __init__(self, shown):
        self.shown = shown
        self.thread = None

    def value(self, redactor):
        self.thread = threading.current_thread()
        return self.shown and {"content": redactor.value(self.shown)}


def test_metadata_can_be_worked_out_on_the_exporter_thread(client, backend):
    body, empty = Body({"password": "hunter2", "user": "ann"}), Body(None)
    with lumiqtrace.span("work") as span:
        span.set_metadata("body", body)
        span.set_metadata("empty", empty)
    assert span.size > 10_000
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert event["metadata"] == {"body": {"content": {"password": "[REDACTED]", "user": "ann"}}}
    assert body.thread is not threading.current_thread()


def test_a_request_span_begins_a_trace_whatever_is_current(client, backend):
    with lumiqtrace.span("outer") as outer:
        with request_span(client, "GET /", index=1) as request:
            assert lumiqtrace.get_current_trace_id() == request.trace_id != outer.trace_id
            assert request.trace.root is request
        assert lumiqtrace.get_current_span_id() == outer.span_id
    assert lumiqtrace.flush()
    found = by_name(backend)
    assert "parent_span_id" not in found["GET /"]
    assert found["GET /"]["tags"] == {"index": "1"}


def test_a_trace_that_is_not_sampled_has_ids_and_no_events(client, backend):
    with request_span(client, "GET /", sampled=False) as request:
        with lumiqtrace.span("inner") as inner:
            assert inner.trace_id == request.trace_id
        assert len(request.trace_id) == 32
    assert lumiqtrace.flush()
    assert backend.events == []
    assert client.stats().recorded == 0


def test_the_rate_is_decided_once_for_the_whole_trace(backend):
    client = lumiqtrace.init(KEY, base_url=backend.url, sample_rate=0.5)
    traces = []
    for _ in range(200):
        with lumiqtrace.span("root") as root:
            traces.append(root.trace)
            with lumiqtrace.span("child"):
                pass
    assert lumiqtrace.flush()
    kept = {trace.trace_id for trace in traces if trace.sampled}
    assert 0 < len(kept) < 200
    assert sorted(event["trace_id"] for event in backend.events) == sorted([*kept, *kept])
    assert client.stats().recorded == len(backend.events)


def test_a_failed_trace_is_kept_whole_when_errors_are_sampled(backend):
    lumiqtrace.init(KEY, base_url=backend.url, sample_rate=0.0, sample_errors=True)
    for fails in (False, True):
        with lumiqtrace.span(f"root {fails}"):
            with lumiqtrace.span("step") as step:
                if fails:
                    step.set_error("no")
            with lumiqtrace.span("last"):
                pass
    assert lumiqtrace.flush()
    assert sorted(event["name"] for event in backend.events) == ["last", "root True", "step"]


def test_a_password_is_not_cut_out_of_its_address():
    token = "eyJhbGciOiJIUzI1NiJ9." + "A" * 1850 + ".sig"
    message = (
        f"bad token {token} while connecting to the database {'.' * 60} postgres://user:hunter2secret@host/db"
    )
    assert "hunt" not in shorten(message)


def test_what_its_attributes_keep_alive_counts_against_the_memory(client):
    with lumiqtrace.span("large", given="x" * 10_000) as span:
        span.set_attribute("told", "y" * 20_000)
    assert span.size > 16_000  # each is cut at 8 KiB
