"""Interactions, decisions and the Live API of google-genai: outside its usual request methods, as well recorded."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from gemini import Google, Held, Reply, closed, reply, serving, sse
from google import genai
from google.genai import live, types
from websockets.asyncio.server import serve

import lumiqtrace
from lumiqtrace.providers._google_routes import INTERACTION

# The client warns that interactions are experimental, and of its own old methods.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
needs_interactions = pytest.mark.skipif(
    not hasattr(genai.Client, "interactions"), reason="this version has no interactions"
)
needs_decisions = pytest.mark.skipif(
    not hasattr(genai.Client, "decisions"), reason="this version has no decisions"
)
needs_live_usage = pytest.mark.skipif(
    "usage_metadata" not in types.LiveServerMessage.model_fields,
    reason="this version drops the usage of live sessions",
)

MODEL = "gemini-2.5-flash"

USAGE = {
    "total_tokens": 150,
    "total_input_tokens": 90,
    "total_cached_tokens": 40,
    "total_output_tokens": 30,
    "total_tool_use_tokens": 10,
    "total_thought_tokens": 20,
}

STEPS = [
    {"type": "thought", "signature": "AAAA"},
    {"type": "function_call", "id": "1", "name": "get_weather", "arguments": {}},
    {"type": "google_search_call", "id": "2", "arguments": {"queries": ["x"]}},
    {"type": "model_output", "content": [{"type": "text", "text": "Hello"}]},
]


def interaction(status="completed", **fields):
    return {"id": "1", "object": "interaction", "status": status, "model": MODEL, "created": "2026-05-13T19:57:43Z",
            "updated": "2026-05-13T19:57:43Z", **fields}  # fmt: skip


DONE = interaction(usage=USAGE, steps=STEPS, outputs=[])

EVENTS = [
    {"event_type": "interaction.created", "interaction": interaction("in_progress")},
    {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "AAAA"}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Hello"}},
    {"event_type": "step.stop", "index": 0},
    {"event_type": "interaction.completed", "interaction": interaction(usage=USAGE)},
]


def events(*found, done=True):
    return lambda _sent: Reply(
        [sse(event) for event in found] + [b"data: [DONE]\n\n"] * done, 200, "text/event-stream"
    )


@pytest.fixture
def google():
    with serving(Google(reply(DONE))) as found:
        yield found


@pytest.fixture
def event(client, backend):
    """Gives the one event that was recorded."""
    lumiqtrace.patch_google()

    def only():
        assert lumiqtrace.flush()
        assert len(backend.events) == 1, [found["status"] for found in backend.events]
        return backend.events[0]

    return only


def interact(google, *, is_async=False, made=None, **arguments):
    """An interaction; a streamed one is read to its end."""
    arguments = {"model": MODEL, "input": "Say hello", **arguments}
    made = made or google.client()
    if not is_async:
        result = made.interactions.create(**arguments)
        return list(result) if arguments.get("stream") else result

    async def main():
        try:
            result = await made.aio.interactions.create(**arguments)
            return [event async for event in result] if arguments.get("stream") else result
        finally:
            await closed(made)

    return asyncio.run(main())


def without_retries(google):
    """The options that make a refusal final."""
    return google.client(http={"retry_options": {"attempts": 1}})


# ---- interactions ------------------------------------------------------------------------------------


@needs_interactions
@ASYNC
def test_an_interaction_is_one_event(event, google, is_async):
    result = interact(google, is_async=is_async)
    assert result.status == "completed"
    found = event()
    assert (found["provider"], found["operation"], found["model"]) == ("google", "chat", MODEL)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (100, 50, 40)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "completed", False)
    assert found["tools_used"] == ["get_weather", "google_search"]
    assert len(found["prompt_hash"]) == 64
    assert found["cost_usd"] > 0


@needs_interactions
@ASYNC
def test_a_streamed_interaction(event, google, is_async):
    google.answer = events(*EVENTS)
    assert interact(google, is_async=is_async, stream=True)
    found = event()
    assert (found["input_tokens"], found["output_tokens"], found["stream"]) == (100, 50, True)
    assert (found["status"], found["finish_reason"]) == ("success", "completed")
    assert 0 < found["ttft_ms"] <= found["latency_ms"]


@needs_interactions
@pytest.mark.parametrize("stream", [False, True])
def test_the_program_sees_what_it_saw_without_us(client, google, stream):
    def ask():
        google.answer = events(*EVENTS) if stream else reply(DONE)
        result = interact(google, stream=stream)
        sent = google.sent.pop()
        shown = [(type(item), repr(item)) for item in (result if stream else [result])]
        return shown, sent.path, sent.body, sorted(sent.headers)

    bare = ask()
    lumiqtrace.patch_google()
    assert ask() == bare


@needs_interactions
def test_a_streamed_interaction_that_is_left_early(event, google):
    google.answer = held = Held(EVENTS, 2)
    with google.client().interactions.create(model=MODEL, input="x", stream=True) as stream:
        next(iter(stream))
    held.go.set()
    gc.collect()
    assert event()["status"] == "cancelled"


@needs_interactions
@ASYNC
@pytest.mark.parametrize(
    ("status", "name", "expected"),
    [
        (400, "INVALID_ARGUMENT", "error"),
        (404, "NOT_FOUND", "error"),
        (429, "RESOURCE_EXHAUSTED", "rate_limited"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_interaction(event, google, is_async, status, name, expected, stream):
    google.answer = reply({"error": {"code": status, "status": name, "message": "no"}}, status)
    made = without_retries(google)
    with pytest.raises(Exception, match=r".") as caught:
        interact(google, is_async=is_async, made=made, stream=stream)
    assert type(caught.value).__module__.startswith("google.genai")
    found = event()
    assert (found["status"], found["error_code"], found["stream"]) == (expected, name, stream)
    assert found["error_message"]
    assert found["model"] == MODEL


@needs_interactions
def test_a_refusal_that_is_no_json(event, google):
    google.answer = lambda _sent: Reply([b"<html>"], 504, "text/html")
    with pytest.raises(Exception, match=r"."):
        interact(google, made=without_retries(google))
    assert event()["status"] == "timeout"


@needs_interactions
def test_other_calls_of_interactions_are_free(client, backend, google):
    lumiqtrace.patch_google()
    made = google.client()
    made.interactions.get("1")
    made.interactions.cancel("1")
    assert lumiqtrace.flush()
    assert len(google.sent) == 2
    assert backend.events == []


@needs_interactions
def test_the_interactions_of_one_client_can_be_recorded(client, backend, google):
    wrapped = lumiqtrace.wrap_google(google.client())
    interact(google, made=wrapped, is_async=False)
    interact(google, made=google.client())
    assert lumiqtrace.flush()
    assert [found["output_tokens"] for found in backend.events] == [50]
    lumiqtrace.unpatch_google()
    interact(google, made=wrapped)
    assert lumiqtrace.flush()
    assert len(backend.events) == 2, "a wrapped client goes on being recorded"


@needs_interactions
def test_a_patch_before_the_first_use_imports_nothing(backend, google):
    code = f"""
import sys, warnings, lumiqtrace
warnings.simplefilter("ignore")
from google import genai
before = set(sys.modules)
lumiqtrace.patch_google()
assert not [name for name in set(sys.modules) - before if name.startswith("google")]
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
client = genai.Client(api_key="k", http_options={{"base_url": {google.url!r}, "api_version": "v1beta"}})
client.interactions.create(model="m", input="x")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(backend.events) == 1


@needs_decisions
@ASYNC
def test_a_decision(event, google, is_async):
    google.answer = reply({"answers": {}, "usage": USAGE})
    made = google.client()
    arguments = {"model": f"models/{MODEL}", "input": "x", "questions": {}}

    async def main():
        await made.aio.decisions.create(**arguments)
        await closed(made)

    if is_async:
        asyncio.run(main())
    else:
        made.decisions.create(**arguments)
    found = event()
    assert (found["operation"], found["model"], found["input_tokens"]) == ("custom", MODEL, 100)


# ---- live sessions -----------------------------------------------------------------------------------

SPOKEN = {"serverContent": {"modelTurn": {"role": "model", "parts": [{"text": "Hello"}]}}}
TURN_ENDS = {"serverContent": {"turnComplete": True}}
TOOL_CALL = {"toolCall": {"functionCalls": [{"id": "1", "name": "get_weather", "args": {}}]}}


def spent(prompt, response):
    """Usage as Vertex AI spells it."""
    return {
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": response,
            "thoughtsTokenCount": 5,
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": response}],
        }
    }


@asynccontextmanager
async def session(*turns, close_after=None):
    """A session with a server that answers each message of the client with the next of `turns`."""

    async def handle(socket):
        await socket.recv()
        await socket.send(json.dumps({"setupComplete": {}}))
        for turn in turns:
            await socket.recv()
            for message in turn:
                await socket.send(json.dumps(message))
        if close_after is None:
            await socket.wait_closed()
        else:
            await socket.close(close_after, "gone")

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # With an address of one's own and no key the client asks for no credentials; nor for TLS, as told.
        options = {"base_url": f"ws://127.0.0.1:{port}"}
        made = genai.Client(vertexai=True, http_options=options)
        made._api_client._websocket_ssl_ctx = {}
        async with made.aio.live.connect(model="models/gemini-live-2.5-flash") as found:
            yield found
        await closed(made)


async def ask(found, text="hi"):
    """Ask, and read the model's turn to its end."""
    await found.send_client_content(turns={"role": "user", "parts": [{"text": text}]})
    return [message async for message in found.receive()]


def recorded(backend):
    assert lumiqtrace.flush()
    return backend.events


@needs_live_usage
def test_a_turn_of_a_live_session_is_one_event(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session([SPOKEN, SPOKEN, TURN_ENDS | spent(100, 50)]) as found:
            assert type(found) is live.AsyncSession
            return await ask(found)

    messages = asyncio.run(main())
    assert [message.text for message in messages] == ["Hello", "Hello", None]
    (event,) = recorded(backend)
    assert (event["provider"], event["operation"], event["model"]) == (
        "google",
        "chat",
        "gemini-live-2.5-flash",
    )
    assert (event["input_tokens"], event["output_tokens"], event["stream"]) == (100, 55, True)
    assert event["status"] == "success"
    assert 0 < event["ttft_ms"] <= event["latency_ms"]
    assert len(event["prompt_hash"]) == 64
    assert event["cost_usd"] == pytest.approx(100 * 0.5e-6 + 5 * 2e-6 + 50 * 12e-6)


@needs_live_usage
def test_each_turn_has_its_own_event(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session(
            [SPOKEN, TURN_ENDS | spent(100, 50)], [SPOKEN, TURN_ENDS | spent(200, 60)]
        ) as found:
            await ask(found)
            await ask(found, "and more")

    asyncio.run(main())
    one, two = recorded(backend)
    assert (one["input_tokens"], two["input_tokens"]) == (100, 200)
    assert one["prompt_hash"] != two["prompt_hash"]


@needs_live_usage
def test_a_call_of_a_tool_ends_a_response_and_its_result_begins_another(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session([TOOL_CALL | spent(100, 50)], [SPOKEN, TURN_ENDS | spent(200, 60)]) as found:
            await found.send_client_content(turns={"role": "user", "parts": [{"text": "rain?"}]})
            async for message in found.receive():
                if message.tool_call:
                    answer = types.FunctionResponse(id="1", name="get_weather", response={"weather": "rain"})
                    await found.send_tool_response(function_responses=answer)

    asyncio.run(main())
    one, two = recorded(backend)
    assert (one["tools_used"], one["input_tokens"], one["output_tokens"]) == (["get_weather"], 100, 55)
    assert (two["input_tokens"], two["output_tokens"], two["status"]) == (200, 65, "success")


@needs_live_usage
def test_why_a_turn_was_ended(client, backend):
    lumiqtrace.patch_google()
    if "turn_complete_reason" not in types.LiveServerContent.model_fields:
        pytest.skip("this version drops the reason")
    refused = {"serverContent": {"turnComplete": True, "turnCompleteReason": "RESPONSE_REJECTED"}}

    async def main():
        async with session([], [refused | spent(100, 0)]) as found:
            await found.send_client_content(
                turns={"role": "user", "parts": [{"text": "so"}]}, turn_complete=False
            )
            await ask(found)

    asyncio.run(main())
    (event,) = recorded(backend)
    assert (event["finish_reason"], event["status"]) == ("RESPONSE_REJECTED", "success")


@needs_live_usage
def test_usage_may_come_behind_the_last_word(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session(
            [SPOKEN, TURN_ENDS, spent(100, 50)], [SPOKEN, TURN_ENDS | spent(200, 60)]
        ) as found:
            await ask(found)
            await ask(found)

    asyncio.run(main())
    one, two = recorded(backend)
    assert (one["input_tokens"], two["input_tokens"]) == (100, 200)


def test_a_turn_without_usage_is_recorded_by_a_flush(client, backend):
    lumiqtrace.patch_google()

    class Socket:
        async def recv(self, **_options):
            return json.dumps(TURN_ENDS if self.asked else SPOKEN)

        async def send(self, _message):
            self.asked = not getattr(self, "asked", True)

    async def main():
        found = live.AsyncSession(api_client=genai.Client(api_key="k")._api_client, websocket=Socket())
        await found.send(input="hi", end_of_turn=True)
        await found._receive()
        found._ws.asked = True
        await found._receive()
        assert await lumiqtrace.aflush()
        return found

    held = asyncio.run(main())
    assert held is not None
    (event,) = backend.events
    assert (event["status"], event["tags"]) == ("success", {"usage": "missing"})


@needs_live_usage
def test_a_session_that_only_streams_audio(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session([SPOKEN, TURN_ENDS | spent(100, 50)]) as found:
            await found.send_realtime_input(
                audio=types.Blob(data=b"\0" * 32, mime_type="audio/pcm;rate=16000")
            )
            assert [message async for message in found.receive()]

    asyncio.run(main())
    (event,) = recorded(backend)
    assert (event["output_tokens"], event["status"]) == (55, "success")
    assert "ttft_ms" not in event
    assert "prompt_hash" not in event


@needs_live_usage
def test_a_session_that_is_left_in_the_middle_of_a_turn(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session([SPOKEN, SPOKEN]) as found:
            await found.send_client_content(turns={"role": "user", "parts": [{"text": "hi"}]})
            async for _message in found.receive():
                break

    asyncio.run(main())
    gc.collect()
    assert [event["status"] for event in recorded(backend)] == ["cancelled"]


@needs_live_usage
def test_a_session_that_the_server_ends_is_an_error_as_without_us(client, backend):
    async def main():
        async with session([SPOKEN], close_after=1011) as found:
            return await ask(found)

    def told():
        try:
            return asyncio.run(main())
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            return type(error), str(error)

    bare = told()
    lumiqtrace.patch_google()
    assert told() == bare
    assert [event["status"] for event in recorded(backend)] == ["error"]


@needs_live_usage
def test_a_read_that_is_cancelled_while_nothing_is_said_makes_no_event(client, backend):
    lumiqtrace.patch_google()

    async def main():
        async with session([SPOKEN, TURN_ENDS | spent(100, 50)]) as found:
            await ask(found)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(found.receive()), 0.05)

    asyncio.run(main())
    assert len(recorded(backend)) == 1


def test_live_sessions_are_put_back_as_they_were():
    before = dict(vars(live.AsyncSession)), dict(vars(live.AsyncLive))
    lumiqtrace.patch_google()
    assert vars(live.AsyncSession)["_receive"] is not before[0]["_receive"]
    lumiqtrace.unpatch_google()
    assert (dict(vars(live.AsyncSession)), dict(vars(live.AsyncLive))) == before


# ---- the tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event_type": "step.delta", "delta": {"type": "text", "text": "a"}}, True),
        ({"event_type": "step.delta", "delta": {"type": "thought_summary"}}, True),
        ({"event_type": "step.start", "step": {"type": "function_call", "name": "f"}}, True),
        ({"event_type": "content.start", "content": {"type": "function_call"}}, True),
        ({"event_type": "step.delta", "delta": {"type": "thought_signature"}}, False),
        ({"event_type": "step.start", "step": {"type": "model_output"}}, False),
        ({"event_type": "interaction.created", "interaction": {}}, False),
        (None, False),
    ],
)
def test_what_is_the_first_output_of_an_interaction(event, expected):
    assert INTERACTION.begins(event) is expected
