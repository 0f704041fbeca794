"""`patch_openai` under the real client: the program sees what it saw without us; one event a call."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import openai
import openai._base_client
import pytest

import lumiqtrace
from lumiqtrace.providers import _tap
from lumiqtrace.providers.openai import origin

hx = getattr(openai._base_client, "httpx2", None) or openai._base_client.httpx

MESSAGES = [{"role": "user", "content": "Say hello"}]

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {"index": 0, "finish_reason": "stop", "logprobs": None, "message": {"role": "assistant", "content": "Hello"}}
    ],
    "usage": {
        "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}  # fmt: skip

TOOL_MESSAGE = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}


def chunk(delta, finish_reason=None, **fields):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
            "choices": [choice], **fields}  # fmt: skip


STREAM = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    chunk({}, choices=[], usage=CHAT["usage"]),
]


def sse(chunks, *, done=True):
    text = "".join(f"data: {json.dumps(item)}\n\n" for item in chunks)
    return (text + "data: [DONE]\n\n" * done).encode()


class Served:
    """A client whose network is `answer(request)`; `sent` is what it was asked."""

    def __init__(self, answer, *, is_async=False, **options):
        self.sent = []

        def handle(request):
            self.sent.append(request)
            return answer(request)

        async def ahandle(request):
            return handle(request)

        if is_async:
            network = hx.AsyncClient(transport=hx.MockTransport(ahandle))
            self.client = openai.AsyncOpenAI(api_key="test", max_retries=0, http_client=network, **options)
        else:
            network = hx.Client(transport=hx.MockTransport(handle))
            self.client = openai.OpenAI(api_key="test", max_retries=0, http_client=network, **options)

    def create(self, **options):
        if options.get("stream"):
            options["stream_options"] = {"include_usage": True}
        return self.client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **options})


def reply(body, status=200):
    return lambda _request: hx.Response(status, json=body)


def streamed(chunks, *, done=True, error=None):
    """Each chunk its own piece of the body; then perhaps an error of the network."""

    class Body(hx.SyncByteStream, hx.AsyncByteStream):
        def __iter__(self):
            for item in chunks:
                yield sse([item], done=False)
            if error:
                raise error
            if done:
                yield b"data: [DONE]\n\n"

        async def __aiter__(self):
            for piece in self:
                yield piece

    headers = {"content-type": "text/event-stream"}
    return lambda _request: hx.Response(200, headers=headers, stream=Body())


@pytest.fixture
def event(client, backend):
    """Gives the one event that was recorded."""
    lumiqtrace.patch_openai()

    def only():
        assert lumiqtrace.flush()
        assert len(backend.events) == 1, [found["status"] for found in backend.events]
        return backend.events[0]

    return only


# ---- blocking and async calls ------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_is_one_event_with_its_numbers(event, is_async):
    served = Served(reply(CHAT), is_async=is_async)
    result = asyncio.run(served.create()) if is_async else served.create()
    found = event()
    assert result.choices[0].message.content == "Hello"
    assert (found["provider"], found["operation"], found["model"]) == ("openai", "chat", "gpt-4o-2024-08-06")
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (1000, 100, 400)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "stop", False)
    assert found["cost_usd"] == pytest.approx(600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 10e-6)
    assert len(found["prompt_hash"]) == 64
    assert "ttft_ms" not in found
    assert "tags" not in found
    assert found["span_kind"] == "llm"


def test_the_result_is_what_it_is_without_us(client):
    bare = Served(reply(CHAT)).create()
    lumiqtrace.patch_openai()
    patched = Served(reply(CHAT)).create()
    assert type(patched) is type(bare)
    assert patched == bare
    assert patched.to_dict() == bare.to_dict() == CHAT


def test_nothing_is_added_to_the_request(client):
    def shape(served):
        (request,) = served.sent
        return request.method, str(request.url), request.content, sorted(request.headers)

    bare = Served(reply(CHAT))
    bare.create()
    lumiqtrace.patch_openai()
    patched = Served(reply(CHAT))
    patched.create()
    assert shape(patched) == shape(bare)


def test_tools_are_named(event):
    body = copy.deepcopy(CHAT)
    body["choices"][0] |= {"message": TOOL_MESSAGE, "finish_reason": "tool_calls"}
    Served(reply(body)).create()
    found = event()
    assert (found["tools_used"], found["finish_reason"]) == (["get_weather"], "tool_calls")


def test_an_embedding(event):
    body = {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8},
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}]}  # fmt: skip
    Served(reply(body)).client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    found = event()
    assert (found["operation"], found["input_tokens"], found["output_tokens"]) == ("embed", 8, 0)
    assert found["cost_usd"] == pytest.approx(8 * 0.02e-6)


def test_calls_inside_a_span_are_its_children(client, backend):
    lumiqtrace.patch_openai()
    with lumiqtrace.span("rag") as span:
        Served(reply(CHAT)).create()
    Served(reply(CHAT)).create()
    assert lumiqtrace.flush()
    inner, outer, alone = backend.events
    assert (inner["parent_span_id"], inner["trace_id"]) == (span.span_id, span.trace_id)
    assert outer["span_id"] == span.span_id
    assert "parent_span_id" not in alone
    assert alone["trace_id"] != span.trace_id


def test_the_prompt_is_hashed_as_it_was_sent(client, backend):
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))
    history = [dict(MESSAGES[0])]
    served.create(messages=history)
    history[0]["content"] = "changed afterwards"
    history.append({"role": "user", "content": "and more"})
    served.create(messages=MESSAGES)
    served.create(messages=(dict(message) for message in MESSAGES))
    served.create(messages=history)
    assert lumiqtrace.flush()
    first, second, third, fourth = (found["prompt_hash"] for found in backend.events)
    assert first == second == third != fourth


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}},
         ("rate_limited", "rate_limit_exceeded", "slow down")),
        (400, {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}},
         ("error", "context_length_exceeded", "too long")),
        (401, {"error": {"message": "Incorrect API key provided: sk-abcdefgh12345678", "code": "invalid_api_key"}},
         ("error", "invalid_api_key", "Incorrect API key provided: [REDACTED]")),
        (500, {"error": {"message": "oops", "type": "server_error", "code": None}}, ("error", "server_error", "oops")),
        (504, {}, ("timeout", "504", None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_async", [False, True])
def test_a_refused_call_raises_the_clients_error_and_is_recorded(event, status, body, expected, is_async):
    served = Served(reply(body, status), is_async=is_async)
    with pytest.raises(openai.APIStatusError) as caught:
        asyncio.run(served.create()) if is_async else served.create()
    assert caught.value.status_code == status
    found = event()
    assert (found["status"], found["error_code"]) == expected[:2]
    assert expected[2] is None or found["error_message"] == expected[2]
    assert found["model"] == "gpt-4o"
    assert found["cost_usd"] == 0


@pytest.mark.parametrize(
    ("fault", "raised", "status", "code"),
    [
        (hx.ReadTimeout("slow"), openai.APITimeoutError, "timeout", "timeout"),
        (hx.ConnectError("gone"), openai.APIConnectionError, "error", "connection_error"),
    ],
)
def test_a_network_that_fails(event, fault, raised, status, code):
    def fail(_request):
        raise fault

    with pytest.raises(raised):
        Served(fail).create()
    found = event()
    assert (found["status"], found["error_code"]) == (status, code)


def test_retries_inside_the_client_are_one_event(event):
    answers = iter([hx.Response(429, headers={"retry-after-ms": "1"}), hx.Response(200, json=CHAT)])
    served = Served(lambda _request: next(answers))
    served.client.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert len(served.sent) == 2
    assert event()["status"] == "success"


def test_a_cancelled_task_is_recorded_and_stays_cancelled(event):
    async def main():
        started = asyncio.Event()

        async def hang(_request):
            started.set()
            await asyncio.Event().wait()

        network = hx.AsyncClient(transport=hx.MockTransport(hang))
        client = openai.AsyncOpenAI(api_key="test", max_retries=0, http_client=network)
        task = asyncio.create_task(client.chat.completions.create(model="gpt-4o", messages=MESSAGES))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert event()["status"] == "cancelled"


def test_a_keyboard_interrupt_passes(event):
    def interrupt(_request):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Served(interrupt).create()
    assert event()["status"] == "cancelled"


# ---- streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_read_to_its_end(event, is_async):
    served = Served(streamed(STREAM), is_async=is_async)

    async def read():
        return [item async for item in await served.create(stream=True)]

    items = asyncio.run(read()) if is_async else list(served.create(stream=True))
    assert [item.to_dict(exclude_unset=True) for item in items] == STREAM
    found = event()
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (1000, 100, 400)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "stop", True)
    assert 0 <= found["ttft_ms"] <= found["latency_ms"]
    assert found["model"] == "gpt-4o-2024-08-06"


def test_the_stream_is_the_clients_own_object(client):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    assert type(stream) is openai.Stream
    assert isinstance(stream.response, hx.Response)
    assert type(stream.response).__name__ == "Response"
    with stream as entered:
        assert entered is stream
    assert type(stream.response) is hx.Response, "nothing of ours is left on it"
    assert not [name for name in stream.response.__dict__ if "lumiq" in name]


def test_a_response_can_be_pickled_as_without_us(client):
    lumiqtrace.patch_openai()
    with Served(reply(CHAT)).client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=MESSAGES
    ) as response:
        response.read()
        again = pickle.loads(pickle.dumps(response.http_response))
    assert again.json() == CHAT


def leave_by_break(stream):
    for item in stream:
        if item.choices and item.choices[0].delta.content == "Hel":
            break


def leave_by_close(stream):
    next(stream)
    next(stream)
    stream.close()


def leave_the_with(stream):
    with stream:
        next(stream)


def never_read(stream):
    pass


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_the_with, never_read])
def test_a_stream_that_is_left_early_is_cancelled(event, leave):
    stream = Served(streamed(STREAM)).create(stream=True)
    leave(stream)
    del stream
    gc.collect()
    found = event()
    assert found["status"] == "cancelled"
    assert found["tags"] == {"usage": "missing"}


def test_a_stream_left_after_its_finish_reason_is_a_success(event):
    for item in Served(streamed(STREAM)).create(stream=True):
        if item.choices[0].finish_reason:
            break
    gc.collect()
    assert event()["status"] == "success"


def test_a_flush_delivers_a_stream_that_is_finished_but_still_held(event):
    stream = Served(streamed(STREAM)).create(stream=True)
    for item in stream:
        if item.choices[0].finish_reason:
            break
    assert event()["status"] == "success"
    list(stream)
    assert event()["status"] == "success", "reading on records nothing more"


def test_a_flush_leaves_a_stream_alone_that_is_still_being_read(client, backend):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    next(stream)
    assert lumiqtrace.flush()
    assert backend.events == []
    list(stream)
    assert lumiqtrace.flush()
    assert backend.events[0]["output_tokens"] == 100


def test_a_flush_by_another_thread_waits_for_the_usage(client, backend):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    for item in stream:
        if item.choices and item.choices[0].finish_reason:
            other = threading.Thread(target=lumiqtrace.flush)
            other.start()
            other.join()
    assert lumiqtrace.flush()
    assert [found["output_tokens"] for found in backend.events] == [100]


def test_another_clients_shutdown_leaves_a_stream_alone(client, backend):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    next(stream)
    lumiqtrace.Client(client.config).shutdown(5)
    list(stream)
    assert lumiqtrace.flush()
    assert [found["status"] for found in backend.events] == ["success"]


def test_a_call_under_way_while_the_client_is_replaced_is_recorded_by_the_new_one(client, backend):
    lumiqtrace.patch_openai()

    def answer(_request):
        lumiqtrace.init(client.config.api_key.reveal(), base_url=backend.url, environment="new")
        return hx.Response(200, json=CHAT)

    Served(answer).create()
    assert lumiqtrace.flush()
    assert len(backend.events) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_stream_that_is_open_at_a_fork_is_the_parents_alone(client, backend):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    next(stream)
    child = os.fork()
    if child == 0:
        lumiqtrace.shutdown(10)
        os._exit(0)
    os.waitpid(child, 0)
    list(stream)
    assert lumiqtrace.flush()
    assert [found["status"] for found in backend.events] == ["success"]


def test_a_response_closed_before_it_is_read_behaves_as_without_us(client):
    def read_late():
        with Served(streamed(STREAM)).client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=MESSAGES, stream=True
        ) as response:
            pieces = response.http_response.iter_bytes()
            response.http_response.close()
            with pytest.raises(hx.StreamClosed) as caught:
                next(pieces)
            return type(caught.value), str(caught.value)

    bare = read_late()
    lumiqtrace.patch_openai()
    assert read_late() == bare


def test_a_shutdown_records_a_stream_that_is_still_open(client, backend):
    lumiqtrace.patch_openai()
    stream = Served(streamed(STREAM)).create(stream=True)
    next(stream)
    assert lumiqtrace.shutdown(10)
    assert [found["status"] for found in backend.events] == ["cancelled"]
    assert len(list(stream)) == 4


def test_a_stream_that_breaks(event):
    fault = hx.ReadError("connection lost")
    stream = Served(streamed(STREAM[:2], error=fault)).create(stream=True)
    with pytest.raises((openai.APIConnectionError, hx.ReadError)):
        list(stream)
    found = event()
    assert (found["status"], found["stream"]) == ("error", True)
    assert found["ttft_ms"] >= 0


def test_an_error_inside_a_stream(event):
    chunks = [
        STREAM[1],
        {"error": {"message": "overloaded", "type": "server_error", "code": "rate_limit_exceeded"}},
    ]
    with pytest.raises(openai.APIError, match="overloaded"):
        list(Served(streamed(chunks)).create(stream=True))
    found = event()
    assert (found["status"], found["error_code"], found["error_message"]) == (
        "rate_limited", "rate_limit_exceeded", "overloaded",
    )  # fmt: skip


def test_a_cancelled_async_stream(event):
    async def main():
        arrived = asyncio.Event()

        class Endless(hx.AsyncByteStream):
            async def __aiter__(self):
                yield sse(STREAM[:2], done=False)
                arrived.set()
                await asyncio.Event().wait()

        async def answer(_request):
            return hx.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless())

        client = openai.AsyncOpenAI(
            api_key="test", max_retries=0, http_client=hx.AsyncClient(transport=hx.MockTransport(answer))
        )

        async def read():
            async for _ in await client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True
            ):
                pass

        task = asyncio.create_task(read())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert event()["status"] == "cancelled"


def test_the_tools_of_a_stream(event):
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    chunks = [chunk({"tool_calls": [call]}), chunk({"tool_calls": [more]}), chunk({}, "tool_calls")]
    list(Served(streamed(chunks)).create(stream=True))
    found = event()
    assert (found["tools_used"], found["finish_reason"]) == (["get_weather"], "tool_calls")
    assert "ttft_ms" in found


def test_a_comment_and_an_empty_delta_are_no_first_token(event):
    clock = []

    class Body(hx.SyncByteStream):
        def __iter__(self):
            yield b": PROCESSING\n\n"
            yield sse(STREAM[:1], done=False)
            clock.append("content")
            yield sse(STREAM[1:])

    headers = {"content-type": "text/event-stream"}
    stream = Served(lambda _request: hx.Response(200, headers=headers, stream=Body())).create(stream=True)
    next(stream)
    assert clock == []
    list(stream)
    assert "ttft_ms" in event()


def test_a_long_stream_is_held_in_bounded_memory(event):
    chunks = [chunk({"content": "x" * 1000}) for _ in range(2000)]
    list(Served(streamed([*chunks, *STREAM[3:]])).create(stream=True))
    assert event()["output_tokens"] == 100


@pytest.mark.parametrize("style", ["with_raw_response", "with_streaming_response"])
@pytest.mark.parametrize("stream", [False, True])
def test_raw_responses(event, style, stream):
    served = Served(streamed(STREAM) if stream else reply(CHAT))
    create = getattr(served.client.chat.completions, style).create
    if style == "with_raw_response":
        parsed = create(model="gpt-4o", messages=MESSAGES, stream=stream).parse()
        items = list(parsed) if stream else [parsed]
    else:
        with create(model="gpt-4o", messages=MESSAGES, stream=stream) as response:
            items = list(response.iter_lines())
    assert items
    found = event()
    assert (found["input_tokens"], found["status"], found["stream"]) == (1000, "success", stream)


ODD = [
    [],
    [chunk({}, choices=None)],
    [chunk({}, choices=[])],
    [chunk(None)],
    [chunk({"content": None, "tool_calls": None}, usage=None)],
    [chunk({"tool_calls": [None]})],
    [chunk({}, usage={"prompt_tokens": None, "completion_tokens": "many"})],
]


@pytest.mark.parametrize("chunks", ODD, ids=range(len(ODD)))
def test_odd_streams_pass_as_if_we_were_not_there(client, backend, chunks):
    def read():
        try:
            return [item.to_dict() for item in Served(streamed(chunks)).create(stream=True)]
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            return type(error), str(error)

    bare = read()
    lumiqtrace.patch_openai()
    assert read() == bare
    gc.collect()
    assert lumiqtrace.flush()
    assert len(backend.events) == 1
    assert lumiqtrace.get_client().stats().internal_errors == 0


@pytest.mark.parametrize(
    "body", [[], "text", 7, None, {}, {"choices": None}, {"choices": [None]}, {"usage": "none", "model": 3}]
)
def test_odd_answers_pass_as_if_we_were_not_there(client, backend, body):
    def ask():
        try:
            return Served(reply(body)).create()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            return type(error), str(error)

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    assert len(backend.events) == 1


# ---- patching ------------------------------------------------------------------------------------------


def test_patching_is_idempotent_and_undone_exactly():
    base, abase = openai._base_client.SyncAPIClient, openai._base_client.AsyncAPIClient
    before = base.__dict__["request"], abase.__dict__["request"]
    lumiqtrace.patch_openai()
    once = base.__dict__["request"]
    assert once is not before[0]
    lumiqtrace.patch_openai()
    assert base.__dict__["request"] is once
    lumiqtrace.unpatch_openai()
    assert (base.__dict__["request"], abase.__dict__["request"]) == before
    lumiqtrace.unpatch_openai()


def test_clients_and_bound_methods_made_before(client, backend):
    served = Served(reply(CHAT))
    create = served.client.chat.completions.create
    lumiqtrace.patch_openai()
    create(model="gpt-4o", messages=MESSAGES)
    copied = served.client.with_options(timeout=5)
    copied.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    lumiqtrace.unpatch_openai()
    create(model="gpt-4o", messages=MESSAGES)
    assert lumiqtrace.flush()
    assert len(backend.events) == 2


def test_a_subclass_that_another_tracer_replaced_is_recorded_once(event, monkeypatch):
    lumiqtrace.unpatch_openai()
    seen = []

    def theirs(self, cast_to, options, **kwargs):
        seen.append(options)
        return openai._base_client.SyncAPIClient.request(self, cast_to, options, **kwargs)

    monkeypatch.setattr(openai.OpenAI, "request", theirs, raising=False)
    lumiqtrace.patch_openai()
    Served(reply(CHAT)).create()
    assert len(seen) == 1
    event()
    lumiqtrace.unpatch_openai()
    assert openai.OpenAI.__dict__["request"] is theirs


def test_free_calls_make_no_event(client, backend):
    lumiqtrace.patch_openai()
    served = Served(reply({"object": "list", "data": [], "id": "1", "model": "m", "results": []}))
    served.client.models.list()
    served.client.moderations.create(input="x")
    served.client.get("/chat/completions/1", cast_to=object)
    assert lumiqtrace.flush()
    assert len(served.sent) == 3
    assert backend.events == []


def test_before_the_import_it_waits_and_imports_nothing(backend):
    code = f"""
import sys, lumiqtrace
lumiqtrace.patch_openai()
assert "openai" not in sys.modules
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
import openai, openai._base_client
hx = getattr(openai._base_client, "httpx2", None) or openai._base_client.httpx
network = hx.Client(transport=hx.MockTransport(lambda request: hx.Response(200, json={{"model": "m"}})))
openai.OpenAI(api_key="k", http_client=network).chat.completions.create(model="m", messages=[])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(backend.events) == 1


def test_a_missing_library_is_one_sentence_with_the_command():
    code = "import sys; sys.modules['openai'] = None; import lumiqtrace; lumiqtrace.patch_openai()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'lumiqtrace[openai]'" in done.stderr.splitlines()[-1]


def test_recording_that_fails_never_reaches_the_program(client, caplog):
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))

    class Hostile(dict):
        def get(self, *_):
            raise SystemExit("from our reading")

    for _ in range(30):
        result = served.client.post("/chat/completions", body=Hostile(model="m"), cast_to=object)
        assert result["model"] == "gpt-4o-2024-08-06"
    assert caplog.text.count("is switched off") <= 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1/", ("openai", None)),
        ("https://eu.api.openai.com/v1/", ("openai", None)),
        ("https://mine.openai.azure.com/openai/", ("openai", "azure")),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", ("google", None)),
        ("https://api.anthropic.com/v1/", ("anthropic", None)),
        ("https://openrouter.ai/api/v1", ("custom", "openrouter")),
        ("http://localhost:8000/v1", ("custom", "localhost")),
        ("https://notopenai.com", ("custom", "notopenai.com")),
        ("", ("custom", "unknown")),
    ],
)
def test_whose_api_an_address_is(url, expected):
    assert origin(url) == expected


def test_who_reads_is_told_without_an_asyncio_loop_too():
    """Under trio there is a coroutine and no asyncio task."""
    assert _tap.here(is_async=True) == (threading.get_ident(), None)


def test_the_librarys_own_client_may_change_its_address(client, backend):
    """`openai.chat...` reads `openai.base_url` at each call."""
    code = f"""
import lumiqtrace, openai
from test_openai import CHAT, hx, reply
lumiqtrace.init({backend.key!r}, base_url={backend.url!r})
lumiqtrace.patch_openai()
openai.api_key = "test"
openai.http_client = hx.Client(transport=hx.MockTransport(reply(CHAT)))
for openai.base_url in ("https://api.openai.com/v1/", "https://api.deepseek.com/", "https://api.groq.com/openai/v1/"):
    openai.chat.completions.create(model="gpt-4o", messages=[])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = [(event["provider"], event.get("tags", {}).get("vendor")) for event in backend.events]
    assert found == [("openai", None), ("custom", "deepseek"), ("custom", "groq")]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_whose_body_was_there_already(client, backend, is_async):
    """As from a cache or a replayer: the library's response has read it before anybody asks."""
    body = b"".join(sse([chunk], done=False) for chunk in STREAM) + b"data: [DONE]\n\n"
    served = Served(
        lambda _request: hx.Response(200, headers={"content-type": "text/event-stream"}, content=body),
        is_async=is_async,
    )

    async def acount():
        return len([chunk async for chunk in await served.create(stream=True)])

    lumiqtrace.patch_openai()
    assert (asyncio.run(acount()) if is_async else len(list(served.create(stream=True)))) == len(STREAM)
    assert lumiqtrace.flush()
    [event] = backend.events
    assert (event["status"], event["input_tokens"] > 0, event.get("tags")) == ("success", True, None)
