"""Every billable path of the `openai` client: its operation, its facts, one event; and nothing for free calls."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import json
import operator

import openai
import pydantic
import pytest
from test_openai import CHAT, MESSAGES, STREAM, TOOL_MESSAGE, Served, chunk, hx, reply, sse, streamed

import lumiqtrace
from lumiqtrace.providers.openai import wrap_openai

# The client marks its old models and the video API so.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o-2024-08-06", "status": "completed",
    "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
    "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "service_tier": "default",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
    ],
    "usage": {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 100,
              "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 1100},
}  # fmt: skip

UNDER_WAY = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}


def delta(kind, text="x"):
    return {"type": f"response.{kind}.delta", "sequence_number": 2, "item_id": "i", "output_index": 0,
            "content_index": 0, "delta": text}  # fmt: skip


RESPONSE_STREAM = [
    {"type": "response.created", "sequence_number": 0, "response": UNDER_WAY},
    {"type": "response.in_progress", "sequence_number": 1, "response": UNDER_WAY},
    {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0,
     "item": {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}},
    {"type": "response.content_part.added", "sequence_number": 3, "item_id": "msg_1", "output_index": 0,
     "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}},
    delta("output_text", "Hel"),
    delta("output_text", "lo"),
    {"type": "response.output_item.done", "sequence_number": 5, "output_index": 1,
     "item": {"type": "function_call", "id": "fc", "call_id": "c", "name": "get_weather", "arguments": "{}"}},
    {"type": "response.completed", "sequence_number": 6, "response": RESPONSE},
]  # fmt: skip

IMAGE_USAGE = {"input_tokens": 50, "output_tokens": 1000, "total_tokens": 1050,
               "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}  # fmt: skip
IMAGE = {"created": 1, "data": [{"b64_json": "aGVsbG8="}], "usage": IMAGE_USAGE}
TRANSCRIPT = {
    "text": "Hello", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 101, "total_tokens": 115,
                               "input_token_details": {"text_tokens": 4, "audio_tokens": 10}},
}  # fmt: skip
COMPLETION = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
              "choices": [{"index": 0, "text": "Hello", "finish_reason": "length", "logprobs": None}],
              "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}  # fmt: skip
DECISION = {"model": "gpt-6-luna", "answers": [{"type": "predicate", "name": None, "probability": 0.5}],
            "usage": {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10,
                      "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
                      "output_tokens_details": {"reasoning_tokens": 0}}}  # fmt: skip
VIDEO = {"id": "video_1", "object": "video", "model": "sora-2", "status": "queued", "progress": 0, "created_at": 1,
         "size": "720x1280", "seconds": "4"}  # fmt: skip
FILE = ("a.bin", b"0")

CALLS = {
    "chat.completions.create": (
        {"model": "gpt-4o", "messages": MESSAGES}, CHAT,
        ("chat", "gpt-4o-2024-08-06", 1000, 100, 400, "stop"),
    ),
    "responses.create": (
        {"model": "gpt-4o", "input": "hi"}, RESPONSE, ("chat", "gpt-4o-2024-08-06", 1000, 100, 400, "completed"),
    ),
    "responses.compact": (
        {"model": "gpt-4o", "input": "hi"},
        {"id": "r", "object": "response.compaction", "created_at": 1, "output": [], "usage": RESPONSE["usage"]},
        ("chat", "gpt-4o", 1000, 100, 400, None),
    ),
    "completions.create": (
        {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"}, COMPLETION,
        ("chat", "gpt-3.5-turbo-instruct", 7, 2, 0, "length"),
    ),
    "images.generate": ({"model": "gpt-image-1", "prompt": "cat"}, IMAGE, ("image", "gpt-image-1", 50, 1000, 0, None)),
    "images.edit": (
        {"model": "gpt-image-1", "prompt": "cat", "image": FILE}, IMAGE, ("image", "gpt-image-1", 50, 1000, 0, None),
    ),
    "images.create_variation": (
        {"model": "dall-e-2", "image": FILE}, {"created": 1, "data": []}, ("image", "dall-e-2", 0, 0, 0, None),
    ),
    "audio.transcriptions.create": (
        {"model": "gpt-4o-transcribe", "file": FILE}, TRANSCRIPT, ("custom", "gpt-4o-transcribe", 14, 101, 0, None),
    ),
    "audio.translations.create": (
        {"model": "whisper-1", "file": FILE}, {"text": "Hello"}, ("custom", "whisper-1", 0, 0, 0, None),
    ),
    "decisions.create": (
        {"model": "gpt-6-luna", "input": "x", "questions": []}, DECISION, ("custom", "gpt-6-luna", 9, 1, 3, None),
    ),
    "videos.create": ({"model": "sora-2", "prompt": "cat"}, VIDEO, ("custom", "sora-2", 0, 0, 0, None)),
}  # fmt: skip


def method(client, path):
    """The method of that path; skips the test where this version of the client has none."""
    try:
        return operator.attrgetter(path)(client)
    except AttributeError:
        pytest.skip(f"openai {openai.__version__} has no {path}")


def accepts(function, argument):
    if argument not in inspect.signature(getattr(function, "__wrapped__", function)).parameters:
        pytest.skip(f"openai {openai.__version__} takes no {argument} here")


def run(served, use):
    """`use(client)`, awaited where it can be; a stream as the list of its items, read to the end."""

    async def arun():
        found = await use(served.client)
        return [item async for item in found] if isinstance(found, openai.AsyncStream) else found

    if isinstance(served.client, openai.AsyncOpenAI):
        return asyncio.run(arun())
    found = use(served.client)
    return list(found) if isinstance(found, openai.Stream) else found


def facts(event):
    return tuple(event.get(name) for name in (
        "operation", "model", "input_tokens", "output_tokens", "cached_tokens", "finish_reason",
    ))  # fmt: skip


@pytest.fixture
def event(client, backend):
    """Gives the one event that was recorded."""
    lumiqtrace.patch_openai()

    def only():
        assert lumiqtrace.flush()
        assert len(backend.events) == 1, [found["status"] for found in backend.events]
        return backend.events[0]

    return only


# ---- every path ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("style", ["", "with_raw_response.", "with_streaming_response."])
def test_a_call_of_every_path(event, path, is_async, style):
    arguments, body, expected = CALLS[path]
    resource, _, name = path.rpartition(".")
    served = Served(reply(body), is_async=is_async)
    method(served.client, path)

    def use(client):
        return operator.attrgetter(f"{resource}.{style}{name}")(client)(**arguments)

    async def aread():
        async with use(served.client) as response:
            return await response.read()

    if "streaming" not in style:
        run(served, use)
    elif is_async:
        asyncio.run(aread())
    else:
        with use(served.client) as response:
            response.read()
    found = event()
    assert facts(found) == expected
    assert (found["provider"], found["status"], found["stream"]) == ("openai", "success", False)
    assert ("tags" in found) == ("usage" not in body)


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("is_async", [False, True])
def test_the_result_and_the_callers_arguments_are_as_without_us(client, path, is_async):
    arguments, body, _expected = CALLS[path]
    given = copy.deepcopy(arguments)
    seen = []
    for patch in (lambda: None, lumiqtrace.patch_openai):
        patch()
        served = Served(reply(body), is_async=is_async)
        method(served.client, path)
        seen.append(run(served, lambda client: method(client, path)(**given)))
    assert type(seen[0]) is type(seen[1])
    assert seen[0] == seen[1]
    assert given == arguments


def test_the_paths_of_videos_are_model_calls(client, backend):
    lumiqtrace.patch_openai()
    served = Served(reply(VIDEO))
    for path in ("/videos/edits", "/videos/extensions", "/videos/video_1/remix"):
        served.client.post(path, body={"prompt": "cat"}, cast_to=object)
    served.client.post("/videos/characters", body={}, cast_to=object)
    assert lumiqtrace.flush()
    assert [found["model"] for found in backend.events] == ["sora-2"] * 3


FREE = ("models.list", "files.list", "batches.list", "moderations.create", "responses.input_tokens.count",
        "responses.retrieve", "videos.retrieve", "uploads.create", "vector_stores.list")  # fmt: skip
FREE_ARGUMENTS = {
    "moderations.create": {"input": "x"},
    "responses.input_tokens.count": {"model": "gpt-4o", "input": "x"},
    "responses.retrieve": {"response_id": "resp_1"},
    "videos.retrieve": {"video_id": "video_1"},
    "uploads.create": {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "batch"},
}


@pytest.mark.parametrize("path", FREE)
def test_a_free_call_makes_no_event(client, backend, path):
    lumiqtrace.patch_openai()
    served = Served(
        reply({"object": "list", "data": [], "id": "1", "model": "m", "usage": {"input_tokens": 9}})
    )
    method(served.client, path)(**FREE_ARGUMENTS.get(path, {}))
    assert lumiqtrace.flush()
    assert len(served.sent) == 1
    assert backend.events == []


# ---- responses -----------------------------------------------------------------------------------------


def test_a_response_names_its_tools_and_its_tier(event):
    run(
        Served(reply(RESPONSE)), lambda client: method(client, "responses.create")(model="gpt-4o", input="hi")
    )
    found = event()
    assert sorted(found["tools_used"]) == ["get_weather", "web_search"]
    assert found["cost_usd"] > 0


@pytest.mark.parametrize(
    ("changes", "status", "code", "reason"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
         "success", None, "max_output_tokens"),
        ({"status": "failed", "error": {"code": "server_error", "message": "it broke"}},
         "error", "server_error", "failed"),
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow down"}},
         "rate_limited", "rate_limit_exceeded", "failed"),
        ({"status": "failed"}, "error", None, "failed"),
        ({"status": "queued", "usage": None, "output": []}, "success", None, "queued"),
        ({"status": "in_progress", "usage": None, "output": []}, "success", None, "in_progress"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_how_a_response_ended(event, changes, status, code, reason, stream):
    body = {**RESPONSE, **changes}
    stream = stream and changes["status"] not in ("queued", "in_progress")  # a stream ends with an end
    end = {"type": f"response.{changes['status']}", "sequence_number": 6, "response": body}
    served = Served(streamed([*RESPONSE_STREAM[:-1], end], done=False) if stream else reply(body))
    run(served, lambda client: method(client, "responses.create")(model="gpt-4o", input="hi", stream=stream))
    found = event()
    assert (found["status"], found.get("error_code"), found["finish_reason"]) == (status, code, reason)
    assert found["input_tokens"] == (body["usage"] or {}).get("input_tokens", 0)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_of_a_response(event, is_async):
    served = Served(streamed(RESPONSE_STREAM, done=False), is_async=is_async)
    items = run(
        served, lambda client: method(client, "responses.create")(model="gpt-4o", input="hi", stream=True)
    )
    assert [item.type for item in items] == [item["type"] for item in RESPONSE_STREAM]
    found = event()
    assert facts(found) == ("chat", "gpt-4o-2024-08-06", 1000, 100, 400, "completed")
    assert (found["status"], found["stream"]) == ("success", True)
    assert sorted(found["tools_used"]) == ["get_weather", "web_search"]
    assert 0 <= found["ttft_ms"] <= found["latency_ms"]


@pytest.mark.parametrize(
    ("item", "begins"),
    [
        (RESPONSE_STREAM[0], False),
        (RESPONSE_STREAM[2], False),
        (RESPONSE_STREAM[3], False),
        (delta("output_text", ""), False),
        (delta("output_text"), True),
        (delta("function_call_arguments"), True),
        (delta("reasoning_summary_text"), True),
        (delta("refusal"), True),
    ],
)
def test_what_is_the_first_output_of_a_response(event, item, begins):
    stream = method(Served(streamed([item], done=False)).client, "responses.create")(
        model="gpt-4o", input="hi", stream=True
    )
    list(stream)
    assert ("ttft_ms" in event()) == begins


def test_a_stream_of_a_response_left_early_is_cancelled(event):
    stream = method(Served(streamed(RESPONSE_STREAM)).client, "responses.create")(
        model="gpt-4o", input="hi", stream=True
    )
    for item in stream:
        if item.type == "response.output_item.done":
            break
    stream.close()
    found = event()
    assert (found["status"], found["tools_used"]) == ("cancelled", ["get_weather"])
    assert found["model"] == "gpt-4o-2024-08-06"


@pytest.mark.parametrize(
    "error",
    [
        {
            "type": "error",
            "sequence_number": 1,
            "code": "rate_limit_exceeded",
            "message": "slow",
            "param": None,
        },
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow", "type": "requests"}},
    ],
)
def test_an_error_event_in_a_stream_of_a_response(event, error):
    served = Served(streamed([RESPONSE_STREAM[0], error], done=False))
    stream = method(served.client, "responses.create")(model="gpt-4o", input="hi", stream=True)
    with pytest.raises(openai.APIError) if "error" in error else contextlib.nullcontext():
        list(stream)
    found = event()
    assert (found["status"], found["error_code"], found["error_message"]) == (
        "rate_limited", "rate_limit_exceeded", "slow",
    )  # fmt: skip


def test_the_prompt_of_a_response_is_its_input_and_its_instructions(client, backend):
    lumiqtrace.patch_openai()
    create = method(Served(reply(RESPONSE)).client, "responses.create")
    create(model="gpt-4o", input="hi")
    create(model="gpt-4o", input="hi", instructions="be brief")
    create(model="gpt-4o", input="hi", instructions="be brief")
    create(model="gpt-4o", input="ho", instructions="be brief")
    assert lumiqtrace.flush()
    alone, first, second, other = (found["prompt_hash"] for found in backend.events)
    assert first == second
    assert len({alone, first, other}) == 3


# ---- images, transcripts, speech -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["images.generate", "images.edit"])
def test_a_stream_of_images(event, path):
    kind = "image_generation" if path == "images.generate" else "image_edit"
    chunks = [
        {"type": f"{kind}.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
        {"type": f"{kind}.completed", "b64_json": "aGk=", "usage": IMAGE_USAGE},
    ]
    served = Served(streamed(chunks, done=False))
    create = method(served.client, path)
    accepts(create, "stream")
    items = list(create(**CALLS[path][0], stream=True))
    assert [item.type for item in items] == [item["type"] for item in chunks]
    found = event()
    assert facts(found) == ("image", "gpt-image-1", 50, 1000, 0, None)
    assert (found["status"], found["stream"]) == ("success", True)
    assert "ttft_ms" in found


def test_a_stream_of_a_transcript(client, backend):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_openai()
    chunks = [
        {"type": "transcript.text.delta", "delta": "Hel"},
        {"type": "transcript.text.delta", "delta": "lo"},
        {"type": "transcript.text.done", **TRANSCRIPT},
    ]
    create = method(Served(streamed(chunks, done=False)).client, "audio.transcriptions.create")
    accepts(create, "stream")
    assert len(list(create(model="gpt-4o-transcribe", file=FILE, stream=True))) == 3
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert facts(found) == ("custom", "gpt-4o-transcribe", 14, 101, 0, None)
    assert (found["status"], found["completion"]) == ("success", "Hello")
    assert "ttft_ms" in found


def test_a_transcript_as_plain_text(client, backend):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_openai()
    served = Served(
        lambda _request: hx.Response(200, headers={"content-type": "text/plain"}, content=b"Hello")
    )
    transcribe = served.client.audio.transcriptions
    assert transcribe.create(model="whisper-1", file=FILE, response_format="text") == "Hello"
    transcribe.with_raw_response.create(model="whisper-1", file=FILE, response_format="text")
    assert lumiqtrace.flush()
    plain, raw = backend.events
    assert facts(plain) == facts(raw) == ("custom", "whisper-1", 0, 0, 0, None)
    assert (plain["status"], plain["completion"], plain["tags"]["usage"]) == ("success", "Hello", "missing")


SOUND = bytes(range(256)) * 400


@pytest.mark.parametrize("is_async", [False, True])
def test_speech_is_the_same_bytes_and_one_event(event, is_async):
    def answer(_request):
        return hx.Response(200, headers={"content-type": "audio/mpeg"}, content=SOUND)

    def use(client):
        return client.audio.speech.create(model="tts-1", voice="alloy", input="Hello")

    result = run(Served(answer, is_async=is_async), use)
    assert result.content == SOUND
    found = event()
    assert facts(found) == ("tts", "tts-1", 0, 0, 0, None)
    assert (found["status"], found["tags"]["usage"]) == ("success", "missing")
    assert len(found["prompt_hash"]) == 64


@pytest.mark.parametrize("style", ["with_raw_response", "with_streaming_response"])
def test_speech_is_not_kept(client, backend, style):
    class Body(hx.SyncByteStream):
        def __iter__(self):
            for start in range(0, len(SOUND), 1000):
                yield SOUND[start : start + 1000]

    def answer(_request):
        return hx.Response(200, headers={"content-type": "audio/mpeg"}, stream=Body())

    # A queue with less room than the sound would let go of an event that holds it.
    lumiqtrace.init("lqt_small", base_url=backend.url, max_queue_bytes=64 * 1024)
    lumiqtrace.patch_openai()
    create = getattr(Served(answer).client.audio.speech, style).create
    if style == "with_raw_response":
        heard = create(model="tts-1", voice="alloy", input="Hello").content
    else:
        heard = b""
        with create(model="tts-1", voice="alloy", input="Hello") as response:
            for piece in response.iter_bytes():
                heard += piece
                (watched,) = [value for key, value in vars(response.http_response).items() if "lumiq" in key]
                assert len(watched.pieces) <= 1, "the piece that is being read"
    assert heard == SOUND
    assert lumiqtrace.flush()
    assert [found["status"] for found in backend.events] == ["success"]


def test_speech_as_events_has_its_usage(event):
    chunks = [
        {"type": "speech.audio.delta", "audio": "aGk="},
        {"type": "speech.audio.done", "usage": {"input_tokens": 5, "output_tokens": 40, "total_tokens": 45}},
    ]
    create = Served(streamed(chunks, done=False)).client.audio.speech.with_streaming_response.create
    with create(model="gpt-4o-mini-tts", voice="alloy", input="Hello") as response:
        assert b"".join(response.iter_bytes()) == sse(chunks, done=False)
    found = event()
    assert facts(found) == ("tts", "gpt-4o-mini-tts", 5, 40, 0, None)
    assert "ttft_ms" in found


# ---- prices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "arguments", "body", "cost"),
    [
        # gpt-image-1: 5 USD a million of text, 10 of images read, 40 of images made
        ("images.generate", {"model": "gpt-image-1", "prompt": "cat"}, IMAGE, (10 * 5 + 40 * 10 + 1000 * 40) / 1e6),
        # gpt-4o-transcribe: 2.50 of text, 6 of sound, 10 written
        ("audio.transcriptions.create", {"model": "gpt-4o-transcribe", "file": FILE}, TRANSCRIPT,
         (4 * 2.5 + 10 * 6 + 101 * 10) / 1e6),
        # whisper-1: 0.006 a minute
        ("audio.transcriptions.create", {"model": "whisper-1", "file": FILE},
         {"text": "Hello", "usage": {"type": "duration", "seconds": 90}}, 0.009),
        # gpt-4o: 2.50, 1.25 cached, 10 written; a web search is a cent, a file search a quarter of one
        ("responses.create", {"model": "gpt-4o", "input": "hi"}, RESPONSE,
         (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6 + 0.01),
        ("responses.create", {"model": "gpt-4o", "input": "hi"},
         {**RESPONSE, "output": [{"type": "file_search_call", "id": "f", "queries": [], "status": "completed"}]},
         (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6 + 0.0025),
    ],
)  # fmt: skip
def test_what_a_call_costs(event, path, arguments, body, cost):
    run(Served(reply(body)), lambda client: method(client, path)(**arguments))
    found = event()
    assert found["cost_usd"] == pytest.approx(cost)
    assert "usage" not in found.get("tags", {})


def test_speech_costs_by_the_character(event):
    def answer(_request):
        return hx.Response(200, headers={"content-type": "audio/mpeg"}, content=SOUND)

    Served(answer).client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 1000)
    assert event()["cost_usd"] == pytest.approx(0.015)


# ---- texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "arguments", "answer", "prompt"),
    [
        ("chat.completions.create", {"messages": MESSAGES}, reply(CHAT), '[{"content":"Say hello","role":"user"}]'),
        ("chat.completions.create", {"messages": MESSAGES, "stream": True}, streamed(STREAM),
         '[{"content":"Say hello","role":"user"}]'),
        ("completions.create", {"prompt": "Say hello"}, reply(COMPLETION), '"Say hello"'),
        ("completions.create", {"prompt": "Say hello", "stream": True}, streamed([COMPLETION]), '"Say hello"'),
        ("responses.create", {"input": "Say hello"}, reply(RESPONSE), '"Say hello"'),
        ("responses.create", {"input": "Say hello", "stream": True}, streamed(RESPONSE_STREAM), '"Say hello"'),
    ],
)  # fmt: skip
def test_texts_are_kept_where_asked_for(client, backend, path, arguments, answer, prompt):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_openai()
    run(Served(answer), lambda client: method(client, path)(model="gpt-4o", **arguments))
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["prompt"], found["completion"]) == (prompt, "Hello")


@pytest.mark.parametrize("redacted", [True, False])
def test_what_looks_like_a_secret_stays_in_a_text_only_where_that_is_asked_for(client, backend, redacted):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True, redact_secrets=redacted)
    lumiqtrace.patch_openai()
    served = Served(reply(with_content("it is sk-proj-abcdefghij")))
    served.client.completions.create(model="gpt-4o", prompt="see sk-proj-abcdefghij")
    served.create()
    assert lumiqtrace.flush()
    shown = [backend.events[0]["prompt"], backend.events[1]["completion"]]
    assert [("sk-proj-abcdefghij" in text) for text in shown] == [not redacted] * 2


def test_what_was_asked_about_an_image_is_kept_and_the_image_is_not(client, backend):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_openai()
    image = "data:image/png;base64," + "iVBORw0KGgo/+A" * 10_000 + "=="
    parts = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": "What is on it?"},
    ]
    Served(reply(CHAT)).create(messages=[{"role": "user", "content": parts}])
    assert lumiqtrace.flush()
    shown = json.loads(backend.events[0]["prompt"])
    [found, asked] = shown[0]["content"]
    assert found["image_url"]["url"] == "data:image/png;base64,… (140,002 characters)"
    assert asked["text"] == "What is on it?"


# ---- parsed answers ------------------------------------------------------------------------------------


class Weather(pydantic.BaseModel):
    city: str


def parsing(client):
    found = getattr(client.chat.completions, "parse", None)
    return found or client.beta.chat.completions.parse


def with_content(content, reason="stop"):
    body = copy.deepcopy(CHAT)
    body["choices"][0] |= {"finish_reason": reason, "message": {"role": "assistant", "content": content}}
    return body


@pytest.mark.parametrize("is_async", [False, True])
def test_a_parsed_answer(event, is_async):
    served = Served(reply(with_content('{"city": "Oslo"}')), is_async=is_async)
    result = run(
        served, lambda client: parsing(client)(model="gpt-4o", messages=MESSAGES, response_format=Weather)
    )
    assert result.choices[0].message.parsed == Weather(city="Oslo")
    assert facts(event()) == ("chat", "gpt-4o-2024-08-06", 1000, 100, 400, "stop")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (with_content('{"city": "Os', "length"), openai.LengthFinishReasonError),
        (with_content('{"town": "Oslo"}'), pydantic.ValidationError),
    ],
)
def test_an_answer_that_cannot_be_parsed_was_given_all_the_same(client, backend, is_async, body, expected):
    def ask():
        served = Served(reply(body), is_async=is_async)
        with pytest.raises(expected) as caught:
            run(
                served,
                lambda client: parsing(client)(model="gpt-4o", messages=MESSAGES, response_format=Weather),
            )
        return str(caught.value), type(caught.value), caught.value.__context__, caught.value.__cause__

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["input_tokens"], found["output_tokens"]) == ("success", 1000, 100)
    assert found["finish_reason"] == body["choices"][0]["finish_reason"]


def test_a_parsed_response(event):
    body = copy.deepcopy(RESPONSE)
    body["output"][-1]["content"][0]["text"] = '{"city": "Oslo"}'
    served = Served(reply(body))
    result = method(served.client, "responses.parse")(model="gpt-4o", input="hi", text_format=Weather)
    assert result.output_parsed == Weather(city="Oslo")
    assert facts(event())[2:] == (1000, 100, 400, "completed")


# ---- the stream helpers --------------------------------------------------------------------------------


def helper(client):
    found = getattr(client.chat.completions, "stream", None) or client.beta.chat.completions.stream
    return found(model="gpt-4o", messages=MESSAGES, stream_options={"include_usage": True})


def read_events(stream):
    return [item.type for item in stream]


def final_only(stream):
    return stream.get_final_completion().choices[0].message.content


def until_done(stream):
    stream.until_done()


def nothing(stream):
    pass


@pytest.mark.parametrize("use", [read_events, final_only, until_done, nothing])
def test_the_helper_of_a_chat_stream(client, backend, use):
    def ask():
        with helper(Served(streamed(STREAM)).client) as stream:
            return type(stream), use(stream)

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    if use is nothing:
        assert (found["status"], found["input_tokens"]) == ("cancelled", 0)
    else:
        assert (found["status"], found["input_tokens"], found["output_tokens"]) == ("success", 1000, 100)


@pytest.mark.parametrize("final", [False, True])
def test_the_async_helper_of_a_chat_stream(client, backend, final):
    async def ask():
        async with helper(Served(streamed(STREAM), is_async=True).client) as stream:
            if final:
                return (await stream.get_final_completion()).choices[0].message.content
            return [item.type async for item in stream]

    bare = asyncio.run(ask())
    lumiqtrace.patch_openai()
    assert asyncio.run(ask()) == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["input_tokens"], found["output_tokens"]) == ("success", 1000, 100)


@pytest.mark.parametrize("final", [False, True])
def test_the_helper_of_a_response_stream(client, backend, final):
    def ask():
        make = method(Served(streamed(RESPONSE_STREAM, done=False)).client, "responses.stream")
        with make(model="gpt-4o", input="hi") as stream:
            if final:
                return stream.get_final_response().usage.output_tokens
            return [item.type for item in stream]

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert facts(found)[2:] == (1000, 100, 400, "completed")


# ---- what the program sees -----------------------------------------------------------------------------

TWO = [
    {**chunk({}), "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}
    for index, text in [(0, "x"), (1, "a"), (0, "y"), (1, "b"), (0, "z")]
] + [
    {**chunk({}), "choices": [{"index": index, "delta": {}, "finish_reason": reason}]}
    for index, reason in [(1, "length"), (0, "stop")]
]  # fmt: skip


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_of_two_choices_is_as_without_us(client, backend, is_async):
    def ask():
        served = Served(streamed(TWO), is_async=is_async)
        items = run(
            served,
            lambda client: client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True, n=2
            ),
        )
        return [item.to_json() for item in items]

    bare = ask()
    assert len(bare) == len(TWO)
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    assert backend.events[0]["finish_reason"] == "stop"


@pytest.mark.parametrize("is_async", [False, True])
def test_the_lines_of_a_streaming_response_are_as_without_us(client, backend, is_async):
    def create(served):
        return served.client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=MESSAGES, stream=True
        )

    async def aread():
        async with create(Served(streamed(STREAM), is_async=True)) as response:
            return [line async for line in response.iter_lines()]

    def ask():
        if is_async:
            return asyncio.run(aread())
        with create(Served(streamed(STREAM))) as response:
            return list(response.iter_lines())

    bare = ask()
    assert sum(line.startswith("data:") for line in bare) == len(STREAM) + 1
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert lumiqtrace.flush()
    assert backend.events[0]["input_tokens"] == 1000


def test_a_call_after_a_timed_out_one_is_not_its_child(client, backend):
    lumiqtrace.patch_openai()

    async def main():
        async def answer(_request):
            await asyncio.Event().wait()

        slow = openai.AsyncOpenAI(
            api_key="test", max_retries=0, http_client=hx.AsyncClient(transport=hx.MockTransport(answer))
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await slow.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        await Served(reply(CHAT), is_async=True).create()

    asyncio.run(main())
    assert lumiqtrace.flush()
    dead, alive = backend.events
    assert (dead["status"], alive["status"]) == ("cancelled", "success")
    assert "parent_span_id" not in alive
    assert alive["trace_id"] != dead["trace_id"]


def test_an_iterator_is_sent_and_hashed_whole(client, backend):
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))
    served.create(messages=iter(MESSAGES))
    served.create(messages=MESSAGES)
    assert served.sent[0].content == served.sent[1].content
    assert lumiqtrace.flush()
    assert backend.events[0]["prompt_hash"] == backend.events[1]["prompt_hash"]


@pytest.mark.parametrize("is_async", [False, True])
def test_azure_is_openai_with_its_vendor(event, is_async):
    network = Served(reply(CHAT), is_async=is_async)
    make = openai.AsyncAzureOpenAI if is_async else openai.AzureOpenAI
    network.client = make(
        api_key="test", api_version="2024-10-21", azure_endpoint="https://mine.openai.azure.com",
        max_retries=0, http_client=network.client._client,
    )  # fmt: skip
    run(network, lambda client: client.chat.completions.create(model="gpt-4o", messages=MESSAGES))
    assert "/deployments/gpt-4o/" in str(network.sent[0].url)
    found = event()
    assert facts(found) == ("chat", "gpt-4o-2024-08-06", 1000, 100, 400, "stop")
    assert (found["provider"], found["tags"]) == ("openai", {"vendor": "azure"})


# ---- one client ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("patched", [False, True])
def test_a_wrapped_client_is_recorded_once_and_alone(client, backend, is_async, patched):
    served = Served(reply(CHAT), is_async=is_async)
    create = served.client.chat.completions.create
    assert wrap_openai(served.client) is served.client
    assert wrap_openai(served.client) is served.client
    if patched:
        lumiqtrace.patch_openai()

    async def both():
        await create(model="gpt-4o", messages=MESSAGES)
        await served.client.with_options(timeout=5).chat.completions.create(model="gpt-4o", messages=MESSAGES)

    if is_async:
        asyncio.run(both())
    else:
        create(model="gpt-4o", messages=MESSAGES)
        served.client.copy(timeout=5).chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert lumiqtrace.flush()
    assert len(backend.events) == 2
    Served(reply(CHAT)).create()
    assert lumiqtrace.flush()
    assert len(backend.events) == 2 + patched


def test_a_wrapped_client_streams(client, backend):
    served = Served(streamed(STREAM))
    wrap_openai(served.client)
    assert type(served.create(stream=True)) is openai.Stream
    assert len(list(served.create(stream=True))) >= 4
    assert lumiqtrace.shutdown(10)
    assert sorted(found["status"] for found in backend.events) == ["cancelled", "success"]


@pytest.mark.parametrize("other", [openai, object(), None, "client"])
def test_only_clients_can_be_wrapped(other):
    with pytest.raises(TypeError, match="openai"):
        wrap_openai(other)


def test_tools_of_every_kind(event):
    body = copy.deepcopy(CHAT)
    message = copy.deepcopy(TOOL_MESSAGE)
    message["tool_calls"].append({"id": "c2", "type": "custom", "custom": {"name": "grep", "input": "x"}})
    message["function_call"] = {"name": "old_style", "arguments": "{}"}
    body["choices"][0]["message"] = message
    Served(reply(body)).create()
    assert event()["tools_used"] == ["get_weather", "grep", "old_style"]
