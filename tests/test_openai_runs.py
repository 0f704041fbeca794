"""Runs of assistants are one event each, however their end is learnt, under the real client."""

from __future__ import annotations

import asyncio
import json

import httpx as hx
import openai
import pytest

import lumiqtrace
from lumiqtrace.providers import _openai_runs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
TOOLS = {
    "type": "submit_tool_outputs",
    "submit_tool_outputs": {
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
    },
}
DELTA = {
    "id": "m",
    "object": "thread.message.delta",
    "delta": {"content": [{"index": 0, "type": "text", "text": {"value": "Hello"}}]},
}

MESSAGE = {
    "id": "m", "object": "thread.message", "created_at": 1, "thread_id": "t", "role": "assistant", "content": [], "status": "in_progress",
}  # fmt: skip


def run_object(status, **more):
    ended = {"usage": USAGE} if status in ("completed", "incomplete") else {}
    return {
        "id": "run_1", "object": "thread.run", "thread_id": "t", "assistant_id": "a", "model": "gpt-4o", "status": status, "created_at": 1,
        "instructions": "", "metadata": {}, "parallel_tool_calls": True, "tools": [], **ended, **more,
    }  # fmt: skip


def whole(status, **more):
    return hx.Response(200, json=run_object(status, **more))


def stream(*events):
    class Body(hx.SyncByteStream, hx.AsyncByteStream):
        def __iter__(self):
            for event in events:
                name = f"thread.run.{event['status']}" if event["object"] == "thread.run" else event["object"]
                name = "thread.message.created" if name == "thread.message" else name
                yield f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()
            yield b"event: done\ndata: [DONE]\n\n"

        async def __aiter__(self):
            for piece in self:
                yield piece

    return hx.Response(200, stream=Body(), headers={"content-type": "text/event-stream"})


class Runs:
    """The runs of a client that gets these answers, one after the other."""

    def __init__(self, *answers, is_async=False):
        left = list(answers)

        def handle(_request):
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def ahandle(request):
            return handle(request)

        if is_async:
            network = hx.AsyncClient(transport=hx.MockTransport(ahandle))
            self.client = openai.AsyncOpenAI(api_key="test", max_retries=0, http_client=network)
        else:
            network = hx.Client(transport=hx.MockTransport(handle))
            self.client = openai.OpenAI(api_key="test", max_retries=0, http_client=network)
        self.runs = self.client.beta.threads.runs

    def create(self, **more):
        return self.runs.create(thread_id="t", assistant_id="a", instructions="Say hello", **more)

    def retrieve(self, run_id="run_1"):
        return self.runs.retrieve(run_id, thread_id="t")

    def submit(self, **more):
        outputs = [{"tool_call_id": "c", "output": "1"}]
        return self.runs.submit_tool_outputs("run_1", thread_id="t", tool_outputs=outputs, **more)


@pytest.fixture
def events(client, backend):
    lumiqtrace.patch_openai()

    def found():
        assert lumiqtrace.flush()
        return backend.events

    yield found
    assert not _openai_runs._under_way or lumiqtrace.shutdown()
    assert not _openai_runs._under_way


def check(event, status="success", reason="completed", tokens=(1000, 100)):
    assert (event["provider"], event["model"], event["operation"]) == ("openai", "gpt-4o", "chat")
    assert (event["status"], event["finish_reason"]) == (status, reason)
    assert (event["input_tokens"], event["output_tokens"]) == tokens
    assert event["prompt_hash"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_polled_run_is_one_event_at_its_end(events, is_async):
    made = Runs(
        whole("queued"), whole("in_progress"), whole("completed"), whole("completed"), is_async=is_async
    )

    async def poll():
        await made.create()
        for _ in range(3):
            await made.retrieve()

    if is_async:
        asyncio.run(poll())
    else:
        made.create()
        assert made.retrieve().status == "in_progress"
        assert events() == []
        assert made.retrieve().usage.total_tokens == 1100
        made.retrieve()
    (event,) = events()
    check(event)
    assert event["cost_usd"] == pytest.approx(1000 * 2.5e-6 + 100 * 10e-6)


def test_a_run_with_tools_is_one_event(events):
    made = Runs(whole("queued"), whole("requires_action", required_action=TOOLS), whole("queued"), whole("completed"))  # fmt: skip
    made.create()
    made.retrieve()
    made.submit()
    assert events() == []
    made.retrieve()
    (event,) = events()
    check(event)
    assert event["tools_used"] == ["look_up"]


def test_a_streamed_run_with_tools_is_one_event(events):
    made = Runs(
        stream(run_object("queued"), run_object("requires_action", required_action=TOOLS)),
        stream(run_object("in_progress"), DELTA, run_object("completed")),
    )
    assert len(list(made.create(stream=True))) == 2
    assert events() == []
    assert len(list(made.submit(stream=True))) == 3
    (event,) = events()
    check(event)
    assert event["tools_used"] == ["look_up"]
    assert event["stream"] is True
    assert "ttft_ms" in event


def test_a_stream_that_was_left_is_a_run_that_goes_on(events):
    made = Runs(stream(run_object("queued"), DELTA), whole("completed"))
    with made.create(stream=True) as left:
        assert next(left).data.status == "queued"
    assert events() == []
    made.retrieve()
    (event,) = events()
    check(event)


def test_a_flush_delivers_a_stream_that_is_finished_but_still_held(events):
    held = Runs(stream(run_object("queued"), run_object("completed"))).create(stream=True)
    assert [next(held).data.status for _ in range(2)] == ["queued", "completed"]
    (event,) = events()
    check(event)


def test_the_helper_of_a_streamed_run_and_creating_a_thread_with_it(events):
    made = Runs(stream(run_object("queued"), MESSAGE, DELTA, run_object("completed")), whole("completed"))
    with made.runs.stream(thread_id="t", assistant_id="a", instructions="Say hello") as helper:
        helper.until_done()
    made.client.beta.threads.create_and_run(assistant_id="a", thread={"messages": []})
    first, second = events()
    check(first)
    check(second)


def test_raw_answers(events):
    made = Runs(whole("queued"), whole("completed"))
    raw = made.runs.with_raw_response
    assert raw.create(thread_id="t", assistant_id="a", instructions="x").parse().status == "queued"
    assert raw.retrieve("run_1", thread_id="t").parse().status == "completed"
    (event,) = events()
    check(event)


@pytest.mark.parametrize(
    ("last", "status", "reason", "code"),
    [
        (run_object("incomplete", incomplete_details={"reason": "max_prompt_tokens"}), "success", "max_prompt_tokens", None),
        (run_object("failed", last_error={"code": "rate_limit_exceeded", "message": "slow"}), "rate_limited", "failed", "rate_limit_exceeded"),
        (run_object("failed", last_error={"code": "server_error", "message": "oh"}), "error", "failed", "server_error"),
        (run_object("expired"), "timeout", "expired", None),
        (run_object("cancelled"), "cancelled", "cancelled", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_how_a_run_ended(events, last, status, reason, code):
    made = Runs(whole("queued"), whole("cancelling"), hx.Response(200, json=last))
    made.create()
    made.runs.cancel("run_1", thread_id="t")
    made.retrieve()
    (event,) = events()
    check(event, status, reason, (1000, 100) if "usage" in last else (0, 0))
    assert event.get("error_code") == code


def test_asking_may_fail_and_the_run_goes_on(events):
    made = Runs(whole("queued"), hx.ConnectError("down"), hx.Response(404, json={}), whole("completed"))
    made.create()
    for kind in (openai.APIConnectionError, openai.NotFoundError):
        with pytest.raises(kind):
            made.retrieve()
    made.retrieve()
    (event,) = events()
    check(event)


def test_a_run_that_does_not_begin(events):
    made = Runs(hx.Response(400, json={"error": {"code": "bad", "message": "no"}}))
    with pytest.raises(openai.BadRequestError):
        made.create()
    (event,) = events()
    assert (event["status"], event["error_code"]) == ("error", "bad")


def test_a_run_of_another_process_is_that_ones(events):
    made = Runs(whole("completed"))
    assert made.retrieve().status == "completed"
    assert events() == []


def test_a_run_whose_end_nobody_saw_is_recorded_at_the_end(events, backend):
    made = Runs(whole("queued"))
    made.create()
    assert events() == []
    assert lumiqtrace.shutdown()
    (event,) = backend.events
    assert (event["status"], event["model"], event["tags"]["usage"]) == ("cancelled", "gpt-4o", "missing")


def test_too_many_runs_are_not_remembered(events, monkeypatch):
    monkeypatch.setattr(_openai_runs, "MAX_RUNS", 2)
    made = Runs(*(whole("queued", id=f"run_{number}") for number in range(5)))
    for _ in range(5):
        made.create()
    assert len(_openai_runs._under_way) == 2
    assert [event["status"] for event in events()] == ["cancelled"] * 3


def test_a_wrapped_client_alone(client, backend):
    made, other = Runs(whole("queued"), whole("completed")), Runs(whole("completed", id="run_2"))
    lumiqtrace.wrap_openai(made.client)
    made.create()
    other.create()
    made.retrieve()
    assert lumiqtrace.flush()
    (event,) = backend.events
    check(event)


@pytest.mark.parametrize(
    "body", [[], {}, {"object": "thread.run"}, {"object": "thread.run", "id": 5, "status": {}}]
)
def test_odd_answers_pass(events, body):
    made = Runs(hx.Response(200, json=body))
    raw = made.runs.with_raw_response.create(thread_id="t", assistant_id="a", instructions="x")
    assert raw.http_response.json() == body
    (event,) = events()
    assert event["status"] == "cancelled"
