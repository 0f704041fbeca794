"""`patch_google` under the real client: the program sees what it saw without us; one event a call.

The network is a loopback server, so that the same tests hold for every version of the client.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Generator

import google.genai._api_client as api
import pytest
from gemini import Google, Held, Reply, closed, opened, reply, serving, streamed
from google.genai import errors, types
from google.genai.models import Models

import lumiqtrace
from lumiqtrace.providers._google_routes import origin, route

BASE = getattr(api, "BaseApiClient", None) or api.ApiClient
IN_THREADS = BASE.__name__ == "ApiClient"
"""Whether async calls are blocking ones in a thread, as in the first versions."""

METHODS = ("request", "request_streamed", "async_request", "async_request_streamed")

# The client warns of its own old methods, and old clients of old pydantic.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]
if IN_THREADS:
    # Clients that bring `requests` leave the sockets of their streams to the garbage collector.
    pytestmark += [
        pytest.mark.filterwarnings("ignore::ResourceWarning"),
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ]
EXPERIMENTAL = pytest.mark.filterwarnings("ignore")

ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

ASKED = "gemini-flash-latest"
MODEL = "gemini-2.5-flash"


def usage(**counts):
    return {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 400,
        "candidatesTokenCount": 60,
        "thoughtsTokenCount": 40,
        "totalTokenCount": 1100,
        **counts,
    }


def answer(*parts, finish="STOP", **fields):
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": MODEL, **fields}


HELLO = answer({"text": "Hello"}, usageMetadata=usage())
CALL = {"functionCall": {"name": "get_weather", "args": {"city": "Oslo"}}}
COST = 600 * 0.3e-6 + 400 * 0.03e-6 + 100 * 2.5e-6

STREAM = [
    answer({"text": ""}, finish=None),
    answer({"text": "Hel"}, finish=None, usageMetadata=usage(candidatesTokenCount=1, thoughtsTokenCount=40)),
    answer({"text": "lo"}, usageMetadata=usage(candidatesTokenCount=55)),
    answer(finish=None, usageMetadata=usage(candidatesTokenCount=60)),
]


@pytest.fixture
def google():
    with serving(Google(reply(HELLO))) as found:
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


def plain(result):
    """What an answer says; the headers of its response hold the time."""
    return result.model_dump(exclude={"sdk_http_response"})


# ---- blocking and async calls ------------------------------------------------------------------------


@ASYNC
def test_a_call_is_one_event_with_its_numbers(event, google, is_async):
    result = google.generate(is_async=is_async)
    found = event()
    assert result.text == "Hello"
    assert (found["provider"], found["operation"], found["model"]) == ("google", "chat", MODEL)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (1000, 100, 400)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "STOP", False)
    assert found["cost_usd"] == pytest.approx(COST)
    assert found["latency_ms"] > 0
    assert len(found["prompt_hash"]) == 64
    assert "ttft_ms" not in found
    assert "tags" not in found


@ASYNC
def test_the_result_is_what_it_is_without_us(client, google, is_async):
    bare = google.generate(is_async=is_async)
    lumiqtrace.patch_google()
    patched = google.generate(is_async=is_async)
    assert type(patched) is type(bare)
    assert plain(patched) == plain(bare)


@ASYNC
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_added_to_the_request(client, google, is_async, stream):
    def ask():
        google.answer = streamed(STREAM) if stream else reply(HELLO)
        if stream:
            google.pieces(is_async=is_async)
        else:
            google.generate(is_async=is_async)
        sent = google.sent.pop()
        return sent.method, sent.path, sent.body, sorted(sent.headers)

    bare = ask()
    lumiqtrace.patch_google()
    assert ask() == bare


def test_tokens_of_tools_and_thoughts(event, google):
    counts = usage(toolUsePromptTokenCount=50, candidatesTokenCount=10, thoughtsTokenCount=5)
    google.answer = reply(answer(CALL, {"executableCode": {"code": "1"}}, CALL, usageMetadata=counts))
    google.generate()
    found = event()
    assert (found["input_tokens"], found["output_tokens"]) == (1050, 15)
    assert found["tools_used"] == ["get_weather", "code_execution"]


@pytest.mark.parametrize(
    ("model", "counts", "cost"),
    [
        # Audio has a price of its own, and a cached part of it too.
        ("gemini-2.5-flash",
         {"promptTokenCount": 300, "cachedContentTokenCount": 50, "candidatesTokenCount": 0,
          "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 100}],
          "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 50}]},
         150 * 0.3e-6 + 50 * 0.03e-6 + 100 * 1e-6),
        ("gemini-2.5-flash-image",
         {"promptTokenCount": 10, "candidatesTokenCount": 1300,
          "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]},
         10 * 0.3e-6 + 10 * 2.5e-6 + 1290 * 30e-6),
        ("gemini-2.5-pro",
         {"promptTokenCount": 300_000, "candidatesTokenCount": 1000,
          "promptTokensDetails": [{"modality": "DOCUMENT", "tokenCount": 258}]},
         300_000 * 2.5e-6 + 1000 * 15e-6),
    ],
)  # fmt: skip
def test_what_a_modality_costs(event, google, model, counts, cost):
    google.answer = reply({**HELLO, "modelVersion": model, "usageMetadata": counts})
    google.generate(model=model)
    assert event()["cost_usd"] == pytest.approx(cost)


def test_a_blocked_prompt(event, google):
    google.answer = reply(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}
    )
    google.generate()
    found = event()
    assert (found["finish_reason"], found["status"], found["input_tokens"]) == ("SAFETY", "success", 7)
    assert found["model"] == ASKED


def test_an_answer_without_usage_says_so(event, google):
    google.answer = reply(answer({"text": "x"}))
    google.generate()
    found = event()
    assert found["tags"] == {"usage": "missing"}
    assert found["cost_usd"] == 0


def test_a_very_large_answer(event, google):
    data = "A" * (9 * 1024 * 1024)
    image = {"inlineData": {"mimeType": "image/png", "data": data}}
    google.answer = reply(answer(image, usageMetadata=usage()))
    google.generate()
    assert event()["output_tokens"] == 100


@ASYNC
def test_an_embedding(event, google, is_async):
    google.answer = reply({"embeddings": [{"values": [0.1]}], "embedding": {"values": [0.1]}})
    google.run(
        lambda models: models.embed_content(model="gemini-embedding-001", contents="a"), is_async=is_async
    )
    found = event()
    assert (found["operation"], found["model"], found["stream"]) == ("embed", "gemini-embedding-001", False)
    assert len(found["prompt_hash"]) == 64


@EXPERIMENTAL
@ASYNC
def test_images(event, google, is_async):
    google.answer = reply({"predictions": [{"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}]})
    google.run(
        lambda models: models.generate_images(model="imagen-4.0-generate-001", prompt="a"),
        is_async=is_async,
        vertexai=not IN_THREADS,  # each knows the call on one of the two platforms only
    )
    found = event()
    assert (found["operation"], found["model"]) == ("image", "imagen-4.0-generate-001")


@EXPERIMENTAL
@pytest.mark.skipif(not hasattr(Models, "generate_videos"), reason="this version has no videos")
def test_a_video_is_counted_when_it_is_ordered(event, google):
    google.answer = reply({"name": "models/veo-3.0/operations/1", "done": False})
    client = google.client(vertexai=True)
    operation = client.models.generate_videos(model="veo-3.0-generate-001", prompt="a")
    client.operations.get(operation)
    assert len(google.sent) == 2
    assert (event()["operation"], event()["model"]) == ("custom", "veo-3.0-generate-001")


def test_embeddings_at_the_predict_path_of_vertex(event, google):
    statistics = {"statistics": {"token_count": 4, "truncated": False}, "values": [0.1]}
    google.answer = reply({"predictions": [{"embeddings": statistics}, {"embeddings": statistics}]})
    body = {"instances": [{"content": "a"}, {"content": "b"}]}
    path = "publishers/google/models/text-embedding-005:predict"
    google.client()._api_client.request("post", path, body)
    found = event()
    assert (found["operation"], found["input_tokens"], found["model"]) == ("embed", 8, "text-embedding-005")


def test_free_calls_make_no_event(client, backend, google):
    lumiqtrace.patch_google()
    google.answer = reply({"totalTokens": 3, "models": [], "name": "models/x"})
    made = google.client()
    made.models.count_tokens(model=MODEL, contents="a")
    list(made.models.list())
    made.models.get(model=MODEL)
    assert lumiqtrace.flush()
    assert len(google.sent) >= 3
    assert backend.events == []


def test_calls_inside_a_span_are_its_children(client, backend, google):
    lumiqtrace.patch_google()
    with lumiqtrace.span("rag") as span:
        google.generate()
    assert lumiqtrace.flush()
    inner, outer = backend.events
    assert (inner["parent_span_id"], inner["trace_id"]) == (span.span_id, span.trace_id)
    assert outer["span_id"] == span.span_id


def test_the_prompt_is_hashed_as_it_was_sent(client, backend, google):
    lumiqtrace.patch_google()
    part = {"text": "Say hello"}
    history = [{"role": "user", "parts": [part]}]
    google.generate(contents=history)
    part["text"] = "changed afterwards"
    google.generate(contents="Say hello")
    google.generate(contents=history)
    google.generate(contents="Say hello", config={"system_instruction": "Be brief"})
    assert history == [{"role": "user", "parts": [{"text": "changed afterwards"}]}]
    assert lumiqtrace.flush()
    first, second, third, fourth = (found["prompt_hash"] for found in backend.events)
    assert first == second
    assert len({second, third, fourth}) == 3


def test_texts_are_kept_only_where_asked(backend, google):
    lumiqtrace.init("lqt_" + "ab12" * 16, base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_google()
    thought = {"text": "Hm", "thought": True}
    google.answer = reply(answer(thought, {"text": "Hello"}))
    google.generate(contents="my key is AIzaSyA1234567890abcdefghijklmnopqrstuv")
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert found["completion"] == "Hello"
    assert "my key is" in found["prompt"]


@EXPERIMENTAL
def test_automatic_function_calling_is_an_event_for_each_request(client, backend, google):
    lumiqtrace.patch_google()
    answers = iter([answer(CALL, usageMetadata=usage()), HELLO])
    google.answer = lambda _sent: Reply([json.dumps(next(answers)).encode()])
    asked = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "rain"

    get_weather.__annotations__ = {"city": str, "return": str}  # as without the import from __future__
    assert google.generate(config={"tools": [get_weather]}).text == "Hello"
    assert asked == ["Oslo"]
    assert lumiqtrace.flush()
    assert [found.get("tools_used") for found in backend.events] == [["get_weather"], None]


@ASYNC
def test_a_chat(client, backend, google, is_async):
    lumiqtrace.patch_google()
    made = google.client()

    async def talk():
        chat = made.aio.chats.create(model=MODEL)
        await chat.send_message("one")
        await chat.send_message("two")
        await closed(made)

    if is_async:
        asyncio.run(talk())
    else:
        chat = made.chats.create(model=MODEL)
        chat.send_message("one")
        chat.send_message("two")
    assert lumiqtrace.flush()
    assert [found["output_tokens"] for found in backend.events] == [100, 100]


# ---- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "message", "expected"),
    [
        (429, "RESOURCE_EXHAUSTED", "slow down", "rate_limited"),
        (400, "INVALID_ARGUMENT", "too long", "error"),
        (404, "NOT_FOUND", "no such model", "error"),
        (500, "INTERNAL", "oops", "error"),
        (504, "DEADLINE_EXCEEDED", "too late", "timeout"),
    ],
)
@ASYNC
def test_a_refused_call_raises_the_clients_error_and_is_recorded(
    event, google, status, name, message, expected, is_async
):
    google.answer = reply({"error": {"code": status, "status": name, "message": message}}, status)
    with pytest.raises(errors.APIError) as caught:
        google.generate(is_async=is_async)
    assert caught.value.code == status
    found = event()
    assert (found["status"], found["error_code"], found["error_message"]) == (expected, name, message)
    assert (found["model"], found["cost_usd"]) == (ASKED, 0)


@ASYNC
def test_a_refused_stream(event, google, is_async):
    google.answer = reply({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}, 429)
    with pytest.raises(errors.ClientError):
        google.pieces(is_async=is_async)
    found = event()
    assert (found["status"], found["stream"], found["model"]) == ("rate_limited", True, ASKED)


@ASYNC
def test_a_server_that_cannot_be_reached(event, google, is_async):
    google.url = "http://127.0.0.1:9/"
    with pytest.raises(Exception, match=r"refused|onnect"):
        google.generate(is_async=is_async)
    found = event()
    assert (found["status"], found["error_code"]) == ("error", "connection_error")


@ASYNC
def test_a_timeout(event, google, is_async):
    done = threading.Event()

    def wait(_sent):
        done.wait(30)
        return Reply([b"{}"])

    google.answer = wait
    config = {"http_options": {"timeout": 150}}
    with pytest.raises(Exception, match=r"(?i)timed? ?out|timeout|^$"):
        google.generate(is_async=is_async, config=config)
    done.set()
    found = event()
    assert (found["status"], found["error_code"]) == ("timeout", "timeout")


@pytest.mark.skipif(not hasattr(types, "HttpRetryOptions"), reason="this version does not retry")
def test_retries_inside_the_client_are_one_event(event, google):
    busy = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}
    answers = iter([(busy, 503), (HELLO, 200)])

    def answer_next(sent):
        body, status = next(answers)
        return reply(body, status)(sent)

    google.answer = answer_next
    made = google.client(http={"retry_options": {"attempts": 2, "initial_delay": 0.01, "jitter": 0}})
    made.models.generate_content(model=MODEL, contents="a")
    assert len(google.sent) == 2
    assert event()["status"] == "success"


def test_an_answer_that_is_no_json(event, google):
    google.answer = lambda _sent: Reply([b"<html>"])
    with pytest.raises(ValueError, match="Expecting value"):
        google.generate()
    found = event()
    assert (found["status"], found["error_code"]) == ("error", "JSONDecodeError")


@pytest.mark.skipif(IN_THREADS, reason="this version sends in a thread, which cannot be cancelled")
def test_a_cancelled_task_is_recorded_and_stays_cancelled(event, google):
    arrived, done = threading.Event(), threading.Event()

    def wait(_sent):
        arrived.set()
        done.wait(30)
        return Reply([b"{}"])

    google.answer = wait

    async def ask(models):
        task = asyncio.create_task(models.generate_content(model=MODEL, contents="a"))
        await asyncio.to_thread(arrived.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    google.run(ask, is_async=True)
    done.set()
    assert event()["status"] == "cancelled"


# ---- streams -----------------------------------------------------------------------------------------


@ASYNC
def test_a_stream_read_to_its_end(event, google, is_async):
    google.answer = streamed(STREAM)
    pieces = google.pieces(is_async=is_async)
    assert [piece.text for piece in pieces if piece.candidates[0].content.parts] == ["", "Hel", "lo"]
    found = event()
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (1000, 100, 400)
    assert (found["status"], found["finish_reason"], found["stream"]) == ("success", "STOP", True)
    assert 0 < found["ttft_ms"] <= found["latency_ms"]
    assert (found["model"], found["cost_usd"]) == (MODEL, pytest.approx(COST))


@ASYNC
def test_the_pieces_are_what_they_are_without_us(client, google, is_async):
    google.answer = streamed(STREAM)
    bare = google.pieces(is_async=is_async)
    lumiqtrace.patch_google()
    patched = google.pieces(is_async=is_async)
    assert [plain(piece) for piece in patched] == [plain(piece) for piece in bare]


def test_a_number_that_the_last_piece_leaves_out(event, google):
    last = {"promptTokenCount": 1000, "thoughtsTokenCount": 44}
    google.answer = streamed([*STREAM[:3], answer(finish=None, usageMetadata=last)])
    google.pieces()
    assert event()["output_tokens"] == 55 + 44


def leave_by_break(stream):
    for piece in stream:
        if piece.text == "Hel":
            break


def leave_by_close(stream):
    next(stream)
    next(stream)
    stream.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close])
def test_a_stream_that_is_left_early_is_cancelled(event, google, leave):
    google.answer = streamed(STREAM)
    stream = google.stream()
    leave(stream)
    del stream
    gc.collect()
    found = event()
    assert (found["status"], found["output_tokens"]) == ("cancelled", 41)


@pytest.mark.parametrize("close", [False, True])
def test_an_async_stream_that_is_left_early_is_cancelled(event, google, close):
    google.answer = streamed(STREAM)

    async def read(models):
        stream = await opened(models.generate_content_stream(model=MODEL, contents="a"))
        async for piece in stream:
            if piece.text == "Hel":
                break
        if close:
            await stream.aclose()

    google.run(read, is_async=True)
    gc.collect()
    assert event()["status"] == "cancelled"


def test_a_stream_left_after_its_finish_reason_is_a_success(event, google):
    google.answer = streamed(STREAM)
    for piece in google.stream():
        if piece.candidates[0].finish_reason:
            break
    gc.collect()
    found = event()
    assert (found["status"], found["output_tokens"]) == ("success", 95)


def test_a_stream_that_is_never_iterated_was_never_sent(client, backend, google):
    lumiqtrace.patch_google()
    google.answer = streamed(STREAM)
    stream = google.stream()
    below = google.client()._api_client.request_streamed("post", f"models/{MODEL}:streamGenerateContent", {})
    del stream, below
    gc.collect()
    assert lumiqtrace.flush()
    assert google.sent == []
    assert backend.events == []


def test_an_async_stream_that_was_sent_and_is_never_iterated_is_cancelled(event, google):
    google.answer = streamed(STREAM)
    made = google.client()

    async def main():
        await made._api_client.async_request_streamed(
            "post", f"models/{MODEL}:streamGenerateContent?alt=sse", {}
        )
        gc.collect()
        await closed(made)

    asyncio.run(main())
    assert len(google.sent) == 1
    assert event()["status"] == "cancelled"


def test_a_flush_delivers_a_stream_that_is_finished_but_still_held(event, google):
    google.answer = streamed(STREAM)
    stream = google.stream()
    for piece in stream:
        if piece.candidates[0].finish_reason:
            break
    assert event()["status"] == "success"
    list(stream)
    assert event()["status"] == "success", "reading on records nothing more"


def test_a_flush_leaves_a_stream_alone_that_is_still_being_read(client, backend, google):
    lumiqtrace.patch_google()
    google.answer = streamed(STREAM)
    stream = google.stream()
    next(stream)
    assert lumiqtrace.flush()
    assert backend.events == []
    list(stream)
    assert lumiqtrace.flush()
    assert backend.events[0]["output_tokens"] == 100


def test_a_shutdown_records_a_stream_that_is_still_open(client, backend, google):
    lumiqtrace.patch_google()
    google.answer = streamed(STREAM)
    stream = google.stream()
    next(stream)
    assert lumiqtrace.shutdown(10)
    assert [found["status"] for found in backend.events] == ["cancelled"]
    assert len(list(stream)) == 3


@ASYNC
def test_a_stream_that_breaks(event, google, is_async):
    google.answer = streamed(STREAM[:2], length=100_000)
    with pytest.raises(Exception, match=r"(?i)closed|incomplete|broken"):
        google.pieces(is_async=is_async)
    found = event()
    assert (found["status"], found["stream"]) == ("error", True)


@ASYNC
def test_an_error_inside_a_stream_is_raised_as_without_us(client, backend, google, is_async):
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down"}}
    google.answer = streamed([STREAM[1], error])

    def read():
        try:
            return [plain(piece) for piece in google.pieces(is_async=is_async)]
        except errors.APIError as raised:
            return raised.code, str(raised)

    bare = read()
    lumiqtrace.patch_google()
    assert read() == bare
    assert lumiqtrace.flush()
    (found,) = backend.events
    assert (found["status"], found["error_code"], found["error_message"]) == (
        "rate_limited", "RESOURCE_EXHAUSTED", "slow down",
    )  # fmt: skip


@pytest.mark.skipif(IN_THREADS, reason="this version blocks the loop while it reads")
def test_a_cancelled_async_stream(event, google):
    google.answer = held = Held(STREAM, 2)

    async def read(models):
        stream = await opened(models.generate_content_stream(model=MODEL, contents="a"))
        arrived = asyncio.Event()

        async def consume():
            async for piece in stream:
                if piece.text == "Hel":
                    arrived.set()

        task = asyncio.create_task(consume())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    google.run(read, is_async=True)
    held.go.set()
    found = event()
    assert (found["status"], found["output_tokens"]) == ("cancelled", 41)


def test_the_tools_of_a_stream(event, google):
    google.answer = streamed([answer(CALL, finish=None), answer({"text": ""}, usageMetadata=usage())])
    google.pieces()
    found = event()
    assert found["tools_used"] == ["get_weather"]
    assert "ttft_ms" in found


def test_a_long_stream_is_held_in_bounded_memory(event, google):
    long = [answer({"text": "x" * 1000}, finish=None)] * 600
    google.answer = streamed([*long, *STREAM[2:]])
    assert len(google.pieces()) == 602
    assert event()["output_tokens"] == 100


def test_what_stands_for_a_generator_behaves_as_one(event, google):
    google.answer = streamed(STREAM)
    path = f"models/{MODEL}:streamGenerateContent?alt=sse"
    stream = google.client()._api_client.request_streamed("post", path, {"contents": []})
    assert isinstance(stream, Generator)
    assert iter(stream) is stream
    stream.send(None)
    with pytest.raises(KeyError, match="mine"):
        stream.throw(KeyError("mine"))
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()
    found = event()
    assert (found["status"], found["error_code"]) == ("error", "KeyError")


def test_what_stands_for_an_async_generator_behaves_as_one(event, google):
    google.answer = streamed(STREAM)
    path = f"models/{MODEL}:streamGenerateContent?alt=sse"
    made = google.client()

    async def main():
        stream = await made._api_client.async_request_streamed("post", path, {"contents": []})
        assert aiter(stream) is stream
        await stream.asend(None)
        with pytest.raises(KeyError, match="mine"):
            await stream.athrow(KeyError("mine"))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()
        await closed(made)

    asyncio.run(main())
    assert event()["error_code"] == "KeyError"


ODD_BODIES = (
    {},
    {"candidates": None},
    {"candidates": []},
    {"candidates": [{}]},
    {"candidates": [{"content": None}]},
    {"candidates": [{"content": {"parts": None}}]},
    {"candidates": [{"content": {"parts": [{}]}, "finishReason": None}]},
    {"usageMetadata": {"promptTokenCount": None}},
    {"usageMetadata": None, "promptFeedback": None},
    {"usageMetadata": [7]},
    {"candidates": "none"},
    [],
    "text",
    None,
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_odd_answers_pass_as_if_we_were_not_there(client, backend, google, body, stream):
    google.answer = streamed([body]) if stream else reply(body)

    def ask():
        try:
            return [plain(piece) for piece in google.pieces()] if stream else plain(google.generate())
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            return type(error), str(error)

    bare = ask()
    lumiqtrace.patch_google()
    assert ask() == bare
    gc.collect()
    assert lumiqtrace.flush()
    assert len(backend.events) == 1


# ---- patching ----------------------------------------------------------------------------------------


def test_patching_is_idempotent_and_undone_exactly():
    before = [BASE.__dict__[name] for name in METHODS]
    lumiqtrace.patch_google()
    once = [BASE.__dict__[name] for name in METHODS]
    assert not set(once) & set(before)
    assert [inspect.iscoroutinefunction(found) for found in once] == [False, False, True, True]
    lumiqtrace.patch_google()
    assert [BASE.__dict__[name] for name in METHODS] == once
    lumiqtrace.unpatch_google()
    assert [BASE.__dict__[name] for name in METHODS] == before
    lumiqtrace.unpatch_google()


def test_clients_and_bound_methods_made_before(client, backend, google):
    made = google.client()
    generate = made.models.generate_content
    lumiqtrace.patch_google()
    generate(model=MODEL, contents="a")
    lumiqtrace.unpatch_google()
    generate(model=MODEL, contents="a")
    assert lumiqtrace.flush()
    assert len(backend.events) == 1


def test_a_subclass_that_another_tracer_replaced_is_recorded_once(event, google):
    lumiqtrace.unpatch_google()
    seen = []

    class Theirs(BASE):
        def request(self, http_method, path, request_dict, http_options=None):
            seen.append(path)
            return super().request(http_method, path, request_dict, http_options)

    made = google.client()
    made._api_client.__class__ = Theirs
    lumiqtrace.patch_google()
    made.models.generate_content(model=MODEL, contents="a")
    assert len(seen) == 1
    event()
    lumiqtrace.unpatch_google()


@ASYNC
def test_one_client_can_be_wrapped(client, backend, google, is_async):
    wrapped, other = google.client(), google.client()
    assert lumiqtrace.wrap_google(wrapped) is wrapped
    lumiqtrace.wrap_google(wrapped)

    async def main():
        for made in (wrapped, other):
            await made.aio.models.generate_content(model=MODEL, contents="a")
            google.answer = streamed(STREAM)
            stream = await opened(made.aio.models.generate_content_stream(model=MODEL, contents="a"))
            assert len([piece async for piece in stream]) == 4
            google.answer = reply(HELLO)
            await closed(made)

    if is_async:
        asyncio.run(main())
    else:
        for made in (wrapped, other):
            made.models.generate_content(model=MODEL, contents="a")
            google.answer = streamed(STREAM)
            assert len(list(made.models.generate_content_stream(model=MODEL, contents="a"))) == 4
            google.answer = reply(HELLO)
    assert lumiqtrace.flush()
    assert [(found["stream"], found["output_tokens"]) for found in backend.events] == [
        (False, 100),
        (True, 100),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrapped_client_and_the_patch_make_one_event(event, google, stream):
    google.answer = streamed(STREAM) if stream else reply(HELLO)
    made = lumiqtrace.wrap_google(google.client())
    if stream:
        list(made.models.generate_content_stream(model=MODEL, contents="a"))
    else:
        made.models.generate_content(model=MODEL, contents="a")
    assert event()["output_tokens"] == 100


@pytest.mark.parametrize("thing", [None, object(), types.Part(text="x")])
def test_what_is_no_client_cannot_be_wrapped(thing):
    with pytest.raises(TypeError, match="google-genai"):
        lumiqtrace.wrap_google(thing)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )


def test_before_the_import_it_waits_and_imports_nothing(backend, google):
    code = f"""
import sys
before = set(sys.modules)  # some packages put `google.cloud` there when Python starts
import lumiqtrace
lumiqtrace.patch_google()
assert not [name for name in set(sys.modules) - before if name.startswith("google.")], "nothing is imported"
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
from google import genai
client = genai.Client(api_key="k", http_options={{"base_url": {google.url!r}, "api_version": "v1beta"}})
client.models.generate_content(model="m", contents="a")
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(backend.events) == 1


def test_patching_an_imported_library_loads_no_more_of_it():
    code = """
import sys, lumiqtrace, google.genai
before = set(sys.modules)
lumiqtrace.patch_google()
more = [name for name in set(sys.modules) - before if name.startswith("google")]
assert not more, more
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("hide", ["google.genai", "google"])
def test_a_missing_library_is_one_sentence_with_the_command(hide):
    done = run(f"import sys; sys.modules[{hide!r}] = None; import lumiqtrace; lumiqtrace.patch_google()")
    assert done.returncode == 1
    assert "pip install 'lumiqtrace[google]'" in done.stderr.splitlines()[-1]


def test_a_stream_under_way_at_the_interpreters_end_is_recorded(backend, google):
    google.answer = streamed(STREAM)
    code = f"""
import lumiqtrace
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
from google import genai
lumiqtrace.patch_google()
client = genai.Client(api_key="k", http_options={{"base_url": {google.url!r}, "api_version": "v1beta"}})
stream = client.models.generate_content_stream(model="m", contents="a")
next(stream), next(stream)
"""
    done = run(code)
    assert done.returncode == 0
    assert [found["status"] for found in backend.events] == ["cancelled"]


def test_recording_that_fails_never_reaches_the_program(client, google, caplog):
    lumiqtrace.patch_google()

    class Hostile(str):
        __slots__ = ()

        def partition(self, _sep):
            raise RuntimeError("from our reading")

    made = google.client()
    for index in range(30):
        result = made._api_client.request(
            "post", Hostile(f"models/{index}:generateContent"), {"contents": []}
        )
        body = result if isinstance(result, dict) else json.loads(result.body)
        assert body["modelVersion"] == MODEL
    assert caplog.text.count("is switched off") == 1


def test_patching_again_is_a_new_start(event, google, caplog):
    test_recording_that_fails_never_reaches_the_program(None, google, caplog)
    lumiqtrace.unpatch_google()
    lumiqtrace.patch_google()
    google.client().models.generate_content(model=MODEL, contents="a")
    assert event()["status"] == "success"


def test_before_init_nothing_is_recorded_and_nothing_changed(google):
    lumiqtrace.patch_google()
    assert google.generate().text == "Hello"
    google.answer = streamed(STREAM)
    assert len(google.pieces()) == 4


# ---- the tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models/gemini-x:generateContent", ("chat", "gemini-x")),
        ("models/gemini-x:streamGenerateContent?alt=sse", ("chat", "gemini-x")),
        ("projects/p/locations/l/publishers/google/models/gemini-x:generateContent", ("chat", "gemini-x")),
        ("tunedModels/mine:generateContent", ("chat", "mine")),
        ("models/e:embedContent", ("embed", "e")),
        ("models/e:batchEmbedContents", ("embed", "e")),
        ("models/i:predict", ("image", "i")),
        ("models/v:predictLongRunning", ("custom", "v")),
        ("models/x:countTokens", None),
        ("models/x:computeTokens", None),
        ("models/x:batchGenerateContent", None),
        ("models/x:fetchPredictOperation", None),
        ("models", None),
        ("", None),
    ],
)
def test_which_requests_are_model_calls(path, expected):
    found = route(path)
    assert (found and (found[0].operation, found[1])) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"text": "a"}, True),
        ({"text": "a", "thought": True}, True),
        (CALL, True),
        ({"inlineData": {"data": "AAAA"}}, True),
        ({"text": ""}, False),
        ({"text": "", "thoughtSignature": "AAAA"}, False),
        ({"thought": True}, False),
        ({}, False),
        (None, False),
    ],
)
def test_what_is_a_first_token(part, expected):
    chat, _ = route("models/x:streamGenerateContent")
    assert chat.begins(answer(part)) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://generativelanguage.googleapis.com/", ("google", None)),
        ("https://us-central1-aiplatform.googleapis.com/", ("google", "vertex")),
        ("https://aiplatform.googleapis.com/", ("google", "vertex")),
        ("http://localhost:8000", ("google", None)),
        ("None", ("google", None)),
    ],
)
def test_whose_api_an_address_is(url, expected):
    assert origin(url) == expected
