"""`patch_anthropic` under the real client: the program sees what it saw without us; one event a call."""

from __future__ import annotations

import asyncio
import copy
import gc
import hashlib
import inspect
import json
import pickle
import subprocess
import sys

import anthropic
import anthropic._base_client
import pydantic
import pytest
from eventstream import frame, frames

import lumiqtrace
from lumiqtrace.providers.anthropic import origin, patch_anthropic, unpatch_anthropic, wrap_anthropic

hx = getattr(anthropic._base_client, "httpx2", None) or anthropic._base_client.httpx

ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

ASKED = "claude-haiku-4-5"
MODEL = "claude-haiku-4-5-20251001"
MESSAGES = [{"role": "user", "content": "Say hello"}]
REQUEST = {"model": ASKED, "max_tokens": 64, "messages": MESSAGES}

# 5 read afresh, 20 written to the cache (5 of them for an hour), 100 read from it.
USAGE = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 7,
    "service_tier": "standard",
}
COST = (5 * 1 + 15 * 1.25 + 5 * 2 + 100 * 0.1 + 7 * 5) / 1e6

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}


def delta(index=0, **fields):
    return {"type": "content_block_delta", "index": index, "delta": fields}


def block(index=0, **fields):
    return {"type": "content_block_start", "index": index, "content_block": fields}


START = {
    "type": "message_start",
    "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}},
}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 7},
}
STOP = {"type": "message_stop"}
STREAM = [
    START,
    block(type="text", text=""),
    {"type": "ping"},
    delta(type="text_delta", text="Hel"),
    delta(type="text_delta", text="lo"),
    {"type": "content_block_stop", "index": 0},
    END,
    STOP,
]


def sse(*events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


class Served:
    """A client whose network is `answer(request)`; `sent` is what it was asked."""

    def __init__(self, answer, *, is_async=False, beta=False, make=None, **options):
        self.sent = []
        self.beta = beta

        def handle(request):
            self.sent.append(request)
            return answer(request)

        async def ahandle(request):
            return handle(request)

        network = (
            hx.AsyncClient(transport=hx.MockTransport(ahandle))
            if is_async
            else hx.Client(transport=hx.MockTransport(handle))
        )
        make = make or (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)
        self.client = make(**{"api_key": "test", "max_retries": 0, "http_client": network, **options})

    @property
    def messages(self):
        return self.client.beta.messages if self.beta else self.client.messages

    def create(self, **options):
        return self.messages.create(**{**REQUEST, **options})

    def stream(self, **options):
        return self.messages.stream(**{**REQUEST, **options})


def reply(body, status=200):
    return lambda _request: hx.Response(status, json=body)


def streamed(events, error=None, *, content_type="text/event-stream; charset=utf-8", encode=sse):
    """Each event its own piece of the body; then perhaps an error of the network. Counts how often it is closed."""

    class Body(hx.SyncByteStream, hx.AsyncByteStream):
        def __init__(self, request):
            self.seen_by = request.extensions

        def __iter__(self):
            for event in events:
                yield encode(event)
            if error:
                raise error

        async def __aiter__(self):
            for piece in self:
                yield piece

        def close(self):
            self.seen_by["closed"] = self.seen_by.get("closed", 0) + 1

        async def aclose(self):
            self.close()

    return lambda request: hx.Response(200, headers={"content-type": content_type}, stream=Body(request))


async def settled(value):
    return await value if inspect.isawaitable(value) else value


def outcome(action, *, is_async=False):
    """What the program gets: a value, or the exception with all that one can read off it."""
    try:
        result = action()
        return asyncio.run(settled(result)) if is_async else result
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
        return type(error), str(error), getattr(error, "status_code", None), getattr(error, "body", None)
    finally:
        gc.collect()


def seen(item):
    return type(item).__name__, item.to_dict(exclude_unset=True)


@pytest.fixture(scope="module", autouse=True)
def _small_heap():
    """What the imports made is set aside: a full collection over it takes a sixth of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _unpatched():
    yield
    unpatch_anthropic()


@pytest.fixture
def events(client, backend):
    """Gives the events that were recorded, spans left out."""

    def recorded():
        assert lumiqtrace.flush()
        assert lumiqtrace.get_client().stats().internal_errors == 0
        return [event for event in backend.events if event["span_kind"] == "llm"]

    return recorded


@pytest.fixture
def event(events):
    """Gives the one event that was recorded; the library is patched."""
    patch_anthropic()

    def only():
        found = events()
        assert len(found) == 1, [one["status"] for one in found]
        return found[0]

    return only


def tokens(found):
    return found["input_tokens"], found["output_tokens"], found["cached_tokens"]


# ---- blocking and async calls ------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [False, True], ids=["messages", "beta"])
@ASYNC
def test_a_call_is_one_event_with_its_numbers(event, is_async, beta):
    served = Served(reply(MESSAGE), is_async=is_async, beta=beta)
    result = outcome(served.create, is_async=is_async)
    assert result.content[0].text == "Hello"
    found = event()
    assert (found["provider"], found["operation"], found["model"]) == ("anthropic", "chat", MODEL)
    assert tokens(found) == (125, 7, 100)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "end_turn", False)
    assert found["cost_usd"] == pytest.approx(COST)
    assert "ttft_ms" not in found
    assert "tags" not in found


@pytest.mark.parametrize("beta", [False, True], ids=["messages", "beta"])
@ASYNC
def test_the_result_is_what_it_is_without_us(client, is_async, beta):
    def ask():
        return outcome(Served(reply(MESSAGE), is_async=is_async, beta=beta).create, is_async=is_async)

    bare = ask()
    patch_anthropic()
    patched = ask()
    assert type(patched) is type(bare)
    assert patched == bare
    assert patched.to_dict() == bare.to_dict()
    assert patched._request_id == bare._request_id


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_added_to_the_request(client, stream):
    def shape():
        served = Served(streamed(STREAM) if stream else reply(MESSAGE))
        outcome(lambda: served.create(stream=stream, system="Be kind"))
        (request,) = served.sent
        return request.method, str(request.url), request.content, sorted(request.headers)

    bare = shape()
    patch_anthropic()
    assert shape() == bare
    assert "traceparent" not in bare[-1]


@ASYNC
def test_the_callers_own_objects_are_left_alone(event, is_async):
    request = {
        **copy.deepcopy(REQUEST),
        "system": [{"type": "text", "text": "Be kind", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "u1"},
        "extra_headers": {"x-mine": "1"},
    }
    before = copy.deepcopy(request)
    served = Served(reply(MESSAGE), is_async=is_async)
    outcome(lambda: served.create(**request), is_async=is_async)
    assert request == before
    event()


def test_what_caching_and_searching_cost(client, backend):
    patch_anthropic()

    def cost(**usage):
        Served(reply({**MESSAGE, "model": "claude-fable-5-2", "usage": {**USAGE, **usage}})).create()
        assert lumiqtrace.flush()
        return backend.events[-1]["cost_usd"]

    plain = cost()
    assert plain > 0
    assert cost(speed="fast") == pytest.approx(2 * plain)
    assert cost(server_tool_use={"web_search_requests": 3}) == pytest.approx(plain + 0.03)
    assert cost(service_tier="priority") == pytest.approx(plain)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 5, "output_tokens": 7}, (5, 7, 0)),
        ({"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": None}, (5, 7, 0)),
        ({"input_tokens": 0, "output_tokens": 7, "cache_read_input_tokens": 9}, (9, 7, 9)),
        ({"output_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": 8}}, (8, 7, 0)),
        # A compaction is billed beside the totals; the turns of a tool loop are inside them.
        (
            {
                **USAGE,
                "iterations": [
                    {"type": "message", "input_tokens": 5, "output_tokens": 7},
                    {
                        "type": "compaction", "input_tokens": 1000, "output_tokens": 30,
                        "cache_read_input_tokens": 2, "cache_creation_input_tokens": 4,
                    },
                    {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 9, "output_tokens": 9},
                ],
            },
            (1131, 37, 102),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_the_shapes_of_usage(event, usage, expected, stream):
    # A stream may repeat its totals: they replace, they do not add up.
    end = {**END, "usage": usage}
    answer = [START | {"message": {**START["message"], "usage": {}}}, end, end, STOP]
    served = Served(streamed(answer) if stream else reply({**MESSAGE, "usage": usage}), beta=True)
    outcome(lambda: list(served.create(stream=stream)))
    assert tokens(event()) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_client_and_of_the_provider_are_named(event, stream):
    blocks = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "mcp_tool_use", "id": "m1", "name": "ask", "server_name": "x", "input": {}},
        {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "get_weather", "input": {}},
    ]
    end = {**END, "delta": {"stop_reason": "tool_use", "stop_sequence": None}}
    if stream:
        answer = streamed([START, *(block(index, **one) for index, one in enumerate(blocks)), end, STOP])
    else:
        answer = reply({**MESSAGE, "content": blocks, "stop_reason": "tool_use"})
    outcome(lambda: list(Served(answer, beta=True).create(stream=stream)))
    found = event()
    assert (found["tools_used"], found["finish_reason"]) == (["web_search", "ask", "get_weather"], "tool_use")
    assert ("ttft_ms" in found) is stream


def test_the_model_that_took_over_is_the_events(event):
    handed = block(type="fallback", to={"model": "claude-sonnet-5"}, **{"from": {"model": ASKED}})
    list(Served(streamed([START, handed, END, STOP]), beta=True).create(stream=True))
    assert event()["model"] == "claude-sonnet-5"


def test_the_prompt_is_hashed_as_it_was_sent(events):
    patch_anthropic()
    served = Served(reply(MESSAGE))
    history = [dict(MESSAGES[0])]
    served.create(messages=history, system="Be kind")
    history[0]["content"] = "changed afterwards"
    served.create(messages=(dict(message) for message in MESSAGES), system="Be kind")
    served.create(system="Be unkind")
    answer = served.create()
    served.create(messages=[*MESSAGES, {"role": "assistant", "content": answer.content}])
    served.create(messages=[*MESSAGES, {"role": "assistant", "content": MESSAGE["content"]}])
    first, second, unkind, alone, spoken, quoted = (found["prompt_hash"] for found in events())

    def digest(prompt):
        return hashlib.sha256(json.dumps(prompt, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    assert first == second == digest({"system": "Be kind", "messages": MESSAGES})
    assert unkind == digest({"system": "Be unkind", "messages": MESSAGES})
    assert alone == digest(MESSAGES)
    assert spoken == quoted, "the client's own objects are hashed as they are sent"


@ASYNC
def test_messages_that_fail_halfway(events, is_async):
    def half():
        yield MESSAGES[0]
        raise LookupError("the history ends here")

    def run():
        served = Served(reply(MESSAGE), is_async=is_async)
        return outcome(lambda: served.create(messages=half()), is_async=is_async)

    bare = run()
    assert bare[0] is LookupError
    patch_anthropic()
    assert run() == bare
    assert [found["status"] for found in events()] in ([], ["error"]), "no request was made"


@pytest.mark.parametrize("stream", [False, True])
def test_texts_are_kept_where_asked(backend, stream):
    lumiqtrace.init("lqt_" + "ab12" * 16, base_url=backend.url, store_prompts=True)
    patch_anthropic()
    thought = [block(type="thinking", thinking="", signature=""), delta(type="thinking_delta", thinking="hm")]
    served = Served(streamed([START, *thought, *STREAM[1:]]) if stream else reply(MESSAGE))
    outcome(lambda: list(served.create(stream=stream, system="The key is sk-ant-abcdef123456")))
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert json.loads(found["prompt"]) == {"system": "The key is [REDACTED]", "messages": MESSAGES}
    assert found["completion"] == "Hello"


def test_texts_are_not_kept_by_default(event):
    list(Served(streamed(STREAM)).create(stream=True))
    assert not {"prompt", "completion"} & set(event())


def failure(kind, message):
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, failure("rate_limit_error", "slow down"), ("rate_limited", "rate_limit_error", "slow down")),
        (529, failure("overloaded_error", "Overloaded"), ("error", "overloaded_error", "Overloaded")),
        (400, failure("invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
         ("error", "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum")),
        (401, failure("authentication_error", "invalid x-api-key: sk-ant-api03-abcdefgh12345678"),
         ("error", "authentication_error", "invalid x-api-key: [REDACTED]")),
        (404, failure("not_found_error", "model: x"), ("error", "not_found_error", "model: x")),
        (500, failure("api_error", "Internal server error"), ("error", "api_error", "Internal server error")),
        (504, failure("timeout_error", "too slow"), ("timeout", "timeout_error", "too slow")),
        (408, {}, ("timeout", "408", None)),
        (429, {}, ("rate_limited", "429", None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
@ASYNC
def test_a_refused_call_raises_the_clients_error_and_is_recorded(
    client, backend, status, body, expected, stream, is_async
):
    def ask():
        served = Served(reply(body, status), is_async=is_async)
        return outcome(lambda: served.create(stream=stream), is_async=is_async)

    bare = ask()
    assert issubclass(bare[0], anthropic.APIStatusError)
    assert bare[2] == status
    patch_anthropic()
    assert ask() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["error_code"], found["stream"]) == (*expected[:2], stream)
    assert expected[2] is None or found["error_message"] == expected[2]
    assert (found["model"], found["cost_usd"], found["tags"]) == (ASKED, 0, {"usage": "missing"})


@pytest.mark.parametrize(
    ("fault", "raised", "status", "code"),
    [
        (hx.ReadTimeout("slow"), anthropic.APITimeoutError, "timeout", "timeout"),
        (hx.ConnectTimeout("slow"), anthropic.APITimeoutError, "timeout", "timeout"),
        (hx.ConnectError("gone"), anthropic.APIConnectionError, "error", "connection_error"),
    ],
)
@ASYNC
def test_a_network_that_fails(event, fault, raised, status, code, is_async):
    def fail(_request):
        raise fault

    served = Served(fail, is_async=is_async)
    assert outcome(served.create, is_async=is_async)[0] is raised
    found = event()
    assert (found["status"], found["error_code"]) == (status, code)


def test_retries_inside_the_client_are_one_event(event):
    answers = iter([hx.Response(529, headers={"retry-after-ms": "1"}), hx.Response(200, json=MESSAGE)])
    served = Served(lambda _request: next(answers))
    served.client.with_options(max_retries=2).messages.create(**REQUEST)
    assert len(served.sent) == 2
    assert event()["status"] == "success"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_program_passes(event, stop):
    def interrupt(_request):
        raise stop

    with pytest.raises(stop):
        Served(interrupt).create()
    assert event()["status"] == "cancelled"


def hanging(started):
    """An async client whose provider never answers."""

    async def hang(_request):
        started.set()
        await asyncio.Event().wait()

    network = hx.AsyncClient(transport=hx.MockTransport(hang))
    return anthropic.AsyncAnthropic(api_key="test", max_retries=0, http_client=network)


def test_a_cancelled_task_is_recorded_and_stays_cancelled(event):
    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(hanging(started).messages.create(**REQUEST))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert event()["status"] == "cancelled"


def test_the_call_after_one_that_timed_out_is_not_its_child(events):
    patch_anthropic()

    async def main():
        started = asyncio.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                call = asyncio.ensure_future(hanging(started).messages.create(**REQUEST))
                await started.wait()
                limit.reschedule(asyncio.get_running_loop().time())
                await call
        await Served(reply(MESSAGE), is_async=True).create()

    asyncio.run(main())
    cancelled, answered = events()
    assert (cancelled["status"], answered["status"]) == ("cancelled", "success")
    assert "parent_span_id" not in answered
    assert answered["trace_id"] != cancelled["trace_id"]


def test_calls_inside_a_span_are_its_children(events):
    patch_anthropic()
    with lumiqtrace.span("rag") as span:
        Served(reply(MESSAGE)).create()
        list(Served(streamed(STREAM)).create(stream=True))
    assert [(found["parent_span_id"], found["trace_id"]) for found in events()] == [
        (span.span_id, span.trace_id)
    ] * 2


# ---- streams: every way out --------------------------------------------------------------------------


def is_text(item):
    return item.type == "content_block_delta"


def read(served):
    return [seen(item) for item in served.create(stream=True)]


async def aread(served):
    return [seen(item) async for item in await served.create(stream=True)]


def break_in_with(served):
    got = []
    with served.create(stream=True) as stream:
        for item in stream:
            got.append(seen(item))
            if is_text(item):
                break
    return got


async def abreak_in_with(served):
    got = []
    async with await served.create(stream=True) as stream:
        async for item in stream:
            got.append(seen(item))
            if is_text(item):
                break
    return got


def break_and_drop(served):
    for item in served.create(stream=True):
        if is_text(item):
            return seen(item)
    return None


async def abreak_and_drop(served):
    async for item in await served.create(stream=True):
        if is_text(item):
            return seen(item)
    return None


def next_and_close(served):
    stream = served.create(stream=True)
    got = [seen(next(stream)) for _ in range(3)]
    stream.close()
    return got


async def anext_and_close(served):
    stream = await served.create(stream=True)
    got = [seen(await anext(stream)) for _ in range(3)]
    await stream.close()
    return got


def never_read(served):
    return type(served.create(stream=True)).__name__


async def anever_read(served):
    return type(await served.create(stream=True)).__name__


def break_at_the_end(served):
    for item in served.create(stream=True):
        if item.type == "message_delta":
            return seen(item)
    return None


async def abreak_at_the_end(served):
    async for item in await served.create(stream=True):
        if item.type == "message_delta":
            return seen(item)
    return None


def helper_text(served):
    with served.stream() as stream:
        return list(stream.text_stream)


async def ahelper_text(served):
    async with served.stream() as stream:
        return [text async for text in stream.text_stream]


def helper_events(served):
    with served.stream() as stream:
        return [type(item).__name__ for item in stream]


async def ahelper_events(served):
    async with served.stream() as stream:
        return [type(item).__name__ async for item in stream]


def helper_final(served):
    with served.stream() as stream:
        return seen(stream.get_final_message())


async def ahelper_final(served):
    async with served.stream() as stream:
        return seen(await stream.get_final_message())


def helper_until_done(served):
    with served.stream() as stream:
        stream.until_done()
        return stream.current_message_snapshot.content[0].text


async def ahelper_until_done(served):
    async with served.stream() as stream:
        await stream.until_done()
        return stream.current_message_snapshot.content[0].text


def helper_break(served):
    with served.stream() as stream:
        for text in stream.text_stream:
            return text
    return None


async def ahelper_break(served):
    async with served.stream() as stream:
        async for text in stream.text_stream:
            return text
    return None


def helper_untouched(served):
    with served.stream() as stream:
        return type(stream).__name__


async def ahelper_untouched(served):
    async with served.stream() as stream:
        return type(stream).__name__


WHOLE = ("success", 125, 7)
BROKEN_OFF = ("cancelled", 125, 1)
UNREAD = ("cancelled", 0, 0)

WAYS = {
    "read": (read, aread, WHOLE),
    "break in with": (break_in_with, abreak_in_with, BROKEN_OFF),
    "break and drop": (break_and_drop, abreak_and_drop, BROKEN_OFF),
    "next and close": (next_and_close, anext_and_close, BROKEN_OFF),
    "never read": (never_read, anever_read, UNREAD),
    "break at the end": (break_at_the_end, abreak_at_the_end, WHOLE),
    "helper text": (helper_text, ahelper_text, WHOLE),
    "helper events": (helper_events, ahelper_events, WHOLE),
    "helper final": (helper_final, ahelper_final, WHOLE),
    "helper until done": (helper_until_done, ahelper_until_done, WHOLE),
    "helper break": (helper_break, ahelper_break, BROKEN_OFF),
    "helper untouched": (helper_untouched, ahelper_untouched, UNREAD),
}


@pytest.mark.parametrize("beta", [False, True], ids=["messages", "beta"])
@pytest.mark.parametrize("way", WAYS)
@ASYNC
def test_every_way_out_of_a_stream_is_one_event(client, backend, way, is_async, beta):
    if beta and "helper" in way and not hasattr(anthropic.resources.beta.messages.Messages, "stream"):
        pytest.skip("this version has no beta.messages.stream")
    action = WAYS[way][is_async]

    def run():
        served = Served(streamed(STREAM), is_async=is_async, beta=beta)
        result = outcome(lambda: action(served), is_async=is_async)
        return result, served.sent[0].extensions.get("closed")

    bare = run()
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["input_tokens"], found["output_tokens"]) == WAYS[way][2]
    assert found["stream"] is True
    assert found.get("finish_reason") == ("end_turn" if found["status"] == "success" else None)
    assert found.get("tags") == ({"usage": "missing"} if WAYS[way][2] is UNREAD else None)
    assert found["model"] == (ASKED if WAYS[way][2] is UNREAD else MODEL)
    assert ("ttft_ms" in found) is (WAYS[way][2] is not UNREAD)


def test_the_stream_is_the_clients_own_object(client):
    patch_anthropic()
    stream = Served(streamed(STREAM)).create(stream=True)
    assert type(stream) is anthropic.Stream
    assert isinstance(stream.response, hx.Response)
    assert type(stream.response).__name__ == "Response"
    with stream as entered:
        assert entered is stream
    assert type(stream.response) is hx.Response, "nothing of ours is left on it"
    assert not [name for name in stream.response.__dict__ if "lumiq" in name]


def test_a_response_can_be_pickled_as_without_us(client):
    patch_anthropic()
    with Served(reply(MESSAGE)).client.messages.with_streaming_response.create(**REQUEST) as response:
        response.read()
        again = pickle.loads(pickle.dumps(response.http_response))
    assert again.json() == MESSAGE


@pytest.mark.parametrize("way", ["read", "helper text", "helper final"])
@pytest.mark.parametrize(
    ("kind", "status"),
    [("overloaded_error", "error"), ("rate_limit_error", "rate_limited"), ("timeout_error", "timeout")],
)
@ASYNC
def test_an_error_inside_a_stream(client, backend, way, kind, status, is_async):
    def run():
        served = Served(streamed([*STREAM[:4], failure(kind, "not now")]), is_async=is_async)
        return outcome(lambda: WAYS[way][is_async](served), is_async=is_async)

    bare = run()
    assert issubclass(bare[0], anthropic.APIStatusError)
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["error_code"], found["error_message"]) == (status, kind, "not now")
    assert tokens(found) == (125, 1, 100)


@pytest.mark.parametrize(
    ("fault", "status"), [(hx.ReadError("lost"), "error"), (hx.ReadTimeout("slow"), "timeout")]
)
@pytest.mark.parametrize("way", ["read", "helper text"])
@ASYNC
def test_a_stream_that_breaks(client, backend, fault, status, way, is_async):
    def run():
        served = Served(streamed(STREAM[:4], error=fault), is_async=is_async)
        return outcome(lambda: WAYS[way][is_async](served), is_async=is_async)

    bare = run()
    assert issubclass(bare[0], Exception)
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["stream"]) == (status, True)
    assert tokens(found) == (125, 1, 100)
    assert found["ttft_ms"] >= 0


@pytest.mark.parametrize("helper", [False, True])
def test_a_cancelled_async_stream(event, helper):
    async def main():
        arrived = asyncio.Event()

        class Endless(hx.AsyncByteStream):
            async def __aiter__(self):
                yield sse(*STREAM[:4])
                arrived.set()
                await asyncio.Event().wait()

        headers = {"content-type": "text/event-stream"}
        served = Served(lambda _request: hx.Response(200, headers=headers, stream=Endless()), is_async=True)
        task = asyncio.create_task((ahelper_text if helper else aread)(served))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    found = event()
    assert found["status"] == "cancelled"
    assert tokens(found) == (125, 1, 100)


def test_a_flush_delivers_a_stream_that_is_finished_but_still_held(event):
    stream = Served(streamed(STREAM)).create(stream=True)
    for item in stream:
        if item.type == "message_delta":
            break
    assert event()["status"] == "success"
    list(stream)
    assert event()["output_tokens"] == 7, "reading on records nothing more"


def test_a_stream_left_at_its_last_event_is_a_success_without_a_reason_too(event):
    for item in Served(streamed([*STREAM[:4], STOP, {"type": "ping"}])).create(stream=True):
        if item.type == "message_stop":
            break
    gc.collect()
    found = event()
    assert (found["status"], found.get("finish_reason")) == ("success", None)


def test_only_output_is_a_first_token(event):
    clock = []

    class Body(hx.SyncByteStream):
        def __iter__(self):
            yield sse(START, {"type": "ping"}, block(type="thinking", thinking="", signature=""))
            clock.append("output")
            yield sse(delta(type="thinking_delta", thinking="hm"))
            clock.append("the rest")
            yield sse(*STREAM[1:])

    headers = {"content-type": "text/event-stream"}
    stream = Served(lambda _request: hx.Response(200, headers=headers, stream=Body())).create(stream=True)
    for _ in range(2):
        next(stream)
    assert lumiqtrace.get_client().stats().recorded == 0
    assert clock == []
    list(stream)
    assert 0 <= event()["ttft_ms"] <= event()["latency_ms"]


def test_a_stream_without_output_has_no_first_token(event):
    list(Served(streamed([START, block(type="text", text=""), END, STOP])).create(stream=True))
    assert "ttft_ms" not in event()


def read_bytes(response):
    return list(response.iter_bytes())


def read_lines(response):
    return list(response.iter_lines())


def parse_it(response):
    parsed = response.parse()
    return [seen(item) for item in parsed] if hasattr(parsed, "__next__") else seen(parsed)


def read_json(response):
    return json.loads(response.read())


@pytest.mark.parametrize(
    ("style", "stream", "reading"),
    [
        ("with_raw_response", False, parse_it),
        ("with_raw_response", True, parse_it),
        ("with_streaming_response", False, parse_it),
        ("with_streaming_response", False, read_json),
        ("with_streaming_response", False, read_bytes),
        ("with_streaming_response", True, parse_it),
        ("with_streaming_response", True, read_lines),
        ("with_streaming_response", True, read_bytes),
    ],
)
def test_raw_responses(client, backend, style, stream, reading):
    def run():
        served = Served(streamed(STREAM) if stream else reply(MESSAGE))
        create = getattr(served.client.messages, style).create
        if style == "with_raw_response":
            return reading(create(**REQUEST, stream=stream))
        with create(**REQUEST, stream=stream) as response:
            return reading(response)

    bare = run()
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert tokens(found) == (125, 7, 100)
    assert (found["status"], found["stream"]) == ("success", stream)


ODD_STREAMS = [
    [],
    [{"type": "message_start", "message": None}],
    [{"type": "message_start", "message": {}}],
    [START, {"type": "content_block_start", "index": 0, "content_block": None}],
    [START, {"type": "content_block_delta", "index": 0, "delta": None}],
    [START, {"type": "message_delta", "delta": None, "usage": None}],
    [START, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": "many", "iterations": [None]}}],
    [START, {"type": "message_delta", "delta": "end", "usage": []}],
    [{"type": "something_new", "message": "text", "usage": 7}],
    [START, {"type": "error", "error": None}],
    [START, {"type": "error", "error": "text"}],
]


@pytest.mark.parametrize("items", ODD_STREAMS, ids=range(len(ODD_STREAMS)))
@pytest.mark.parametrize("way", ["read", "helper text"])
def test_odd_streams_pass_as_if_we_were_not_there(client, backend, items, way):
    def run():
        return outcome(lambda: WAYS[way][0](Served(streamed(items))))

    bare = run()
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    assert len(backend.events) == 1
    assert lumiqtrace.get_client().stats().internal_errors == 0


ODD_ANSWERS = [
    [], "text", 7, None, {}, {"content": None}, {"content": [None, "x"]}, {"usage": "none", "model": 3},
    {"usage": {"cache_creation": 5, "iterations": 7, "input_tokens": -1}}, failure("api_error", "inside a 200"),
]  # fmt: skip


@pytest.mark.parametrize("body", ODD_ANSWERS)
@pytest.mark.parametrize("stream", [False, True])
def test_odd_answers_pass_as_if_we_were_not_there(client, backend, body, stream):
    def run():
        found = outcome(lambda: Served(reply(body)).create(stream=stream))
        return [seen(item) for item in found] if type(found) is anthropic.Stream else found

    bare = run()
    patch_anthropic()
    assert run() == bare
    gc.collect()
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert lumiqtrace.get_client().stats().internal_errors == 0
    if isinstance(body, dict) and "error" in body:
        assert (found["status"], found["error_code"]) == ("error", "api_error")


def test_a_stream_that_names_its_events_outside_their_data(event):
    def encode(item):
        data = {key: value for key, value in item.items() if key != "type"}
        return f"event: {item['type']}\ndata: {json.dumps(data)}\n\n".encode()

    served = Served(streamed(STREAM, encode=encode))
    outcome(lambda: list(served.create(stream=True)))
    found = event()
    assert tokens(found) == (125, 7, 100)
    assert (found["status"], found["finish_reason"]) == ("success", "end_turn")


# ---- what else is billed, and what is not ------------------------------------------------------------


class Weather(pydantic.BaseModel):
    celsius: int


@pytest.mark.parametrize("beta", [False, True], ids=["messages", "beta"])
@pytest.mark.parametrize(("said", "fits"), [('{"celsius": 7}', True), ('{"celsius": "warm"}', False)])
@ASYNC
def test_an_answer_that_its_caller_cannot_parse_was_billed_all_the_same(
    client, backend, said, fits, is_async, beta
):
    if not hasattr(
        anthropic.resources.beta.messages.Messages if beta else anthropic.resources.Messages, "parse"
    ):
        pytest.skip("this version has no messages.parse")

    def run():
        body = {**MESSAGE, "content": [{"type": "text", "text": said}]}
        served = Served(reply(body), is_async=is_async, beta=beta)
        return outcome(lambda: served.messages.parse(**REQUEST, output_format=Weather), is_async=is_async)

    bare = run()
    patch_anthropic()
    found = run()
    assert (found.parsed_output == bare.parsed_output == Weather(celsius=7)) if fits else found == bare
    assert lumiqtrace.flush()
    (event,) = backend.events
    assert tokens(event) == (125, 7, 100)
    assert event["status"] == "success"


def test_a_tool_runner_is_one_event_for_each_of_its_calls(events):
    if not hasattr(anthropic.resources.beta.messages.Messages, "tool_runner"):
        pytest.skip("this version has no beta.messages.tool_runner")

    @anthropic.beta_tool
    def add(left: int, right: int) -> str:
        """Add.

        Args:
            left: One.
            right: The other.
        """
        return str(left + right)

    asked = {"type": "tool_use", "id": "t1", "name": "add", "input": {"left": 1, "right": 2}}
    answers = iter([{**MESSAGE, "content": [asked], "stop_reason": "tool_use"}, MESSAGE])
    patch_anthropic()
    served = Served(lambda _request: hx.Response(200, json=next(answers)), beta=True)
    final = served.messages.tool_runner(**REQUEST, tools=[add]).until_done()
    assert final.content[0].text == "Hello"
    assert [(found["finish_reason"], found.get("tools_used")) for found in events()] == [
        ("tool_use", ["add"]),
        ("end_turn", None),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_the_older_completions(event, stream):
    whole = {"id": "c1", "type": "completion", "completion": " Hello", "model": "claude-2.1"}
    pieces = [{**whole, "stop_reason": None}, {**whole, "completion": "", "stop_reason": "stop_sequence"}]
    served = Served(streamed(pieces) if stream else reply({**whole, "stop_reason": "stop_sequence"}))
    request = {"model": "claude-2.1", "max_tokens_to_sample": 9, "prompt": "\n\nHuman: Hi\n\nAssistant:"}
    if hasattr(served.client, "completions"):
        outcome(lambda: list(served.client.completions.create(**request, stream=stream)))
    else:  # the method is gone, the endpoint is not
        stream_cls = anthropic.Stream[object]
        body = {**request, "stream": stream}
        send = lambda: served.client.post(  # noqa: E731
            "/v1/complete", body=body, cast_to=object, stream=stream, stream_cls=stream_cls
        )
        outcome(lambda: list(send()))
    found = event()
    assert (found["model"], found["finish_reason"], found["stream"]) == (
        "claude-2.1",
        "stop_sequence",
        stream,
    )
    assert (found["status"], found["tags"], tokens(found)) == ("success", {"usage": "missing"}, (0, 0, 0))
    assert ("ttft_ms" in found) is stream


def test_free_calls_make_no_event(events):
    patch_anthropic()
    served = Served(reply({"data": [], "id": "1", "input_tokens": 3, "has_more": False}))
    served.client.beta.messages.count_tokens(model=ASKED, messages=MESSAGES)
    served.client.beta.messages.batches.create(requests=[{"custom_id": "1", "params": REQUEST}])
    served.client.post("/v1/messages/count_tokens", body={"model": ASKED}, cast_to=object)
    served.client.post("/v1/messages/batches", body={"requests": []}, cast_to=object)
    served.client.post("/v1/files", body={}, cast_to=object)
    served.client.get("/v1/models", cast_to=object)
    served.client.get("/v1/messages", cast_to=object)
    assert len(served.sent) == 7
    assert events() == []


def test_a_request_by_its_whole_address_is_a_call(event):
    served = Served(reply(MESSAGE))
    served.client.post(
        "https://gateway.example/anthropic/v1/messages?beta=true", body=REQUEST, cast_to=object
    )
    assert tokens(event()) == (125, 7, 100)


# ---- other clouds ------------------------------------------------------------------------------------


def bedrock(**options):
    if "api_key" not in inspect.signature(anthropic.AnthropicBedrock).parameters:
        pytest.importorskip("boto3", reason="this version signs its requests with boto3")
        del options["api_key"]
        options |= {"aws_access_key": "a", "aws_secret_key": "b"}
    return anthropic.AnthropicBedrock(aws_region="us-east-1", **options)


def vertex(**options):
    pytest.importorskip("google.auth", reason="the Vertex client needs google-auth")
    del options["api_key"]
    return anthropic.AnthropicVertex(region="us-east5", project_id="p", access_token="t", **options)


def foundry(**options):
    if not hasattr(anthropic, "AnthropicFoundry"):
        pytest.skip("this version has no AnthropicFoundry")
    return anthropic.AnthropicFoundry(resource="mine", **options)


CLOUDS = {
    "bedrock": (bedrock, f"/model/{ASKED}/invoke", "bedrock"),
    "vertex": (vertex, f":{'rawPredict'}", "vertex"),
    "foundry": (foundry, "/anthropic/v1/messages", "azure"),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_call_through_another_cloud(event, cloud):
    make, path, vendor = CLOUDS[cloud]
    served = Served(reply(MESSAGE), make=make)
    served.create()
    (request,) = served.sent
    assert request.url.path.endswith(path)
    found = event()
    assert (found["provider"], found["tags"], found["model"]) == ("anthropic", {"vendor": vendor}, MODEL)
    assert tokens(found) == (125, 7, 100)
    assert found["cost_usd"] > 0


AWS = "application/vnd.amazon.eventstream"


@pytest.mark.parametrize("style", ["stream", "bytes"])
def test_a_stream_of_bedrock(client, backend, style):
    if style == "stream":
        pytest.importorskip("botocore", reason="the client's own decoder needs botocore")

    def run():
        served = Served(streamed(STREAM, content_type=AWS, encode=frames), make=bedrock)
        if style == "stream":
            return [seen(item) for item in served.create(stream=True)]
        with served.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
            return list(response.iter_bytes())

    bare = run()
    assert len(bare) >= len(STREAM) - 1
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert tokens(found) == (125, 7, 100)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "end_turn", True)
    assert 0 <= found["ttft_ms"] <= found["latency_ms"]


@pytest.mark.parametrize(
    ("kind", "status"), [("throttlingException", "rate_limited"), ("modelStreamErrorException", "error")]
)
def test_an_exception_inside_a_stream_of_bedrock(event, kind, status):
    def encode(item):
        headers = {":message-type": "exception", ":exception-type": kind}
        return frame(json.dumps({"message": "not now"}).encode(), headers) if item is None else frames(item)

    served = Served(streamed([START, None], content_type=AWS, encode=encode))
    with served.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
        assert response.read()
    found = event()
    assert (found["status"], found["error_code"], found["error_message"]) == (status, kind, "not now")
    assert tokens(found) == (125, 1, 100)


@pytest.mark.parametrize(
    ("url", "vendor"),
    [
        ("https://api.anthropic.com/", None),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/", "bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/anthropic", "bedrock"),
        ("https://aws-external-anthropic.us-east-1.api.aws", "aws"),
        ("https://us-east5-aiplatform.googleapis.com/v1", "vertex"),
        ("https://claude.googleapis.com/v1/", "google-cloud"),
        ("https://mine.services.ai.azure.com/anthropic/", "azure"),
        ("http://localhost:4000", "localhost"),
        ("https://notapi.anthropic.com.example", "notapi.anthropic.com.example"),
        ("", "unknown"),
    ],
)
def test_by_whom_an_address_is_served(url, vendor):
    assert origin(url) == ("anthropic", vendor)


# ---- beside the library's own OpenTelemetry tracing ----------------------------------------------------


def tracing():
    """A tracer provider that keeps the spans, made of the OpenTelemetry API alone."""
    if "open_telemetry" not in inspect.signature(anthropic.Anthropic).parameters:
        pytest.skip("this version does no tracing of its own")
    trace = pytest.importorskip("opentelemetry.trace")

    class Span(trace.NonRecordingSpan):
        def __init__(self):
            super().__init__(trace.SpanContext(7, 7, is_remote=False, trace_flags=trace.TraceFlags(1)))
            self.attributes = {}
            self.ended = 0

        def is_recording(self):
            return not self.ended

        def set_attribute(self, key, value):
            self.attributes[key] = value

        def set_attributes(self, attributes):
            self.attributes.update(attributes)

        def end(self, end_time=None):
            self.ended += 1

    class Provider(trace.TracerProvider, trace.Tracer):
        def __init__(self):
            self.spans = []

        def get_tracer(self, *args, **kwargs):
            return self

        def start_span(self, name, *args, attributes=None, **kwargs):
            self.spans.append(Span())
            self.spans[-1].set_attributes({"name": name, **(attributes or {})})
            return self.spans[-1]

        def start_as_current_span(self, *args, **kwargs):
            raise NotImplementedError

    return Provider()


@pytest.mark.parametrize("way", WAYS)
@ASYNC
def test_beside_the_librarys_own_tracing_a_call_is_one_event(client, backend, way, is_async):
    def run():
        provider = tracing()
        served = Served(streamed(STREAM), is_async=is_async, open_telemetry={"tracer_provider": provider})
        result = outcome(lambda: WAYS[way][is_async](served), is_async=is_async)
        spans = [
            ({**span.attributes, TTFC: span.attributes.get(TTFC) is not None}, span.ended)
            for span in provider.spans
        ]
        (request,) = served.sent
        return result, spans, sorted(request.headers)

    bare = run()
    assert len(bare[1]) == 1
    assert "traceparent" in bare[2], "it is the library that sends it"
    patch_anthropic()
    assert run() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["input_tokens"], found["output_tokens"]) == WAYS[way][2]


TTFC = "gen_ai.response.time_to_first_chunk"


# ---- patching ------------------------------------------------------------------------------------------


def test_patching_is_idempotent_and_undone_exactly():
    base, abase = anthropic._base_client.SyncAPIClient, anthropic._base_client.AsyncAPIClient
    before = base.__dict__["request"], abase.__dict__["request"]
    patch_anthropic()
    once = base.__dict__["request"]
    assert once is not before[0]
    patch_anthropic()
    assert base.__dict__["request"] is once
    unpatch_anthropic()
    assert (base.__dict__["request"], abase.__dict__["request"]) == before
    unpatch_anthropic()


def test_clients_and_bound_methods_made_before(events):
    served = Served(reply(MESSAGE))
    create = served.client.messages.create
    patch_anthropic()
    create(**REQUEST)
    served.client.with_options(timeout=5).messages.create(**REQUEST)
    served.client.copy().messages.create(**REQUEST)
    unpatch_anthropic()
    create(**REQUEST)
    assert len(events()) == 3


def test_a_subclass_that_another_tracer_replaced_is_recorded_once(event, monkeypatch):
    unpatch_anthropic()
    passed = []

    def theirs(self, cast_to, options, **kwargs):
        passed.append(options)
        return anthropic._base_client.SyncAPIClient.request(self, cast_to, options, **kwargs)

    monkeypatch.setattr(anthropic.Anthropic, "request", theirs, raising=False)
    patch_anthropic()
    Served(reply(MESSAGE)).create()
    assert len(passed) == 1
    event()
    unpatch_anthropic()
    assert anthropic.Anthropic.__dict__["request"] is theirs


@ASYNC
def test_one_client_alone(events, is_async):
    wrapped = Served(streamed(STREAM), is_async=is_async)
    assert wrap_anthropic(wrapped.client) is wrapped.client
    assert wrap_anthropic(wrapped.client) is wrapped.client
    other = Served(streamed(STREAM), is_async=is_async)

    async def main():
        for client in (
            wrapped.client,
            wrapped.client.with_options(timeout=5),
            wrapped.client.copy(),
            other.client,
        ):
            stream = await settled(client.messages.create(**REQUEST, stream=True))
            _ = [item async for item in stream] if is_async else list(stream)

    asyncio.run(main())
    found = events()
    assert [(one["status"], tokens(one)) for one in found] == [("success", (125, 7, 100))] * 3


def test_one_client_and_the_patch_are_one_event(events):
    served = Served(reply(MESSAGE))
    wrap_anthropic(served.client)
    patch_anthropic()
    served.create()
    assert len(events()) == 1
    unpatch_anthropic()
    served.create()
    assert len(events()) == 2


def test_only_a_client_can_be_wrapped():
    with pytest.raises(TypeError, match="a client of the anthropic library is needed, not 'str'"):
        wrap_anthropic("client")


def run_alone(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )


def test_before_the_import_it_waits_and_imports_nothing(backend):
    done = run_alone(f"""
import sys, lumiqtrace
from lumiqtrace.providers.anthropic import patch_anthropic
patch_anthropic()
assert "anthropic" not in sys.modules
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
import anthropic, anthropic._base_client
hx = getattr(anthropic._base_client, "httpx2", None) or anthropic._base_client.httpx
network = hx.Client(transport=hx.MockTransport(lambda request: hx.Response(200, json={MESSAGE!r})))
anthropic.Anthropic(api_key="k", http_client=network).messages.create(**{REQUEST!r})
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert [tokens(found) for found in backend.events] == [(125, 7, 100)]


def test_a_missing_library_is_one_sentence_with_the_command():
    done = run_alone(
        "import sys; sys.modules['anthropic'] = None\n"
        "from lumiqtrace.providers.anthropic import patch_anthropic; patch_anthropic()"
    )
    assert done.returncode == 1
    assert "pip install 'lumiqtrace[anthropic]'" in done.stderr.splitlines()[-1]


def test_recording_that_fails_never_reaches_the_program(client, caplog):
    patch_anthropic()
    served = Served(reply(MESSAGE))

    class Hostile(dict):
        def get(self, *_):
            raise SystemExit("from our reading")

    for _ in range(30):
        result = served.client.post("/v1/messages", body=Hostile(model="m"), cast_to=object)
        assert result == MESSAGE
    assert caplog.text.count("is switched off") <= 1
