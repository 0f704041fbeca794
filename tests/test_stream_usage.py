"""Token counts for chat streams whose caller did not ask: counted, and the program sees nothing of it."""

from __future__ import annotations

import asyncio
import copy
import gc
import json

import openai
import pytest
from test_openai import CHAT, MESSAGES, STREAM, Served, chunk, hx, sse, streamed

import lumiqtrace
from lumiqtrace.providers import _stream_usage

USAGE = CHAT["usage"]
REFUSAL = {
    "error": {"message": "Unrecognized request argument supplied: stream_options", "type": "invalid_request_error",
              "param": "stream_options", "code": None},
}  # fmt: skip

CHUNKS = [
    # Azure begins with a chunk that has neither choices nor usage.
    {**chunk({}), "choices": [], "prompt_filter_results": []},
    *STREAM[:4],
]
TWO = [
    {**chunk({}), "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}
    for index, delta, reason in [
        (0, {"content": "x"}, None), (1, {"content": "a"}, None), (0, {"content": "y"}, None),
        (0, {"content": "z"}, None), (1, {}, "stop"), (0, {}, "stop"),
    ]
]  # fmt: skip
LEGACY = [
    {"id": "c", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
     "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None}]}
    for text, reason in [("Hel", None), ("lo", "stop")]
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_host_is_remembered():
    _stream_usage._refused.clear()
    yield
    _stream_usage._refused.clear()


@pytest.fixture(autouse=True)
def _recording(client):
    """Every test records to `backend`."""


def as_openai_does(chunks, *, refuses=False):
    """Usage only where it is asked for; then also `"usage": null` in every other chunk, as in recordings."""

    def answer(request):
        asked = json.loads(request.content).get("stream_options")
        if refuses and asked is not None:
            return hx.Response(400, json=REFUSAL)
        items = chunks
        if asked and asked.get("include_usage"):
            items = [{**item, "usage": None} for item in chunks] + [
                {**chunks[-1], "choices": [], "usage": USAGE}
            ]
        return streamed(items)(request)

    return answer


def azure(served):
    kind = openai.AsyncAzureOpenAI if isinstance(served.client, openai.AsyncOpenAI) else openai.AzureOpenAI
    served.client = kind(
        api_key="test", api_version="2024-10-21", azure_endpoint="https://mine.openai.azure.com",
        max_retries=0, http_client=served.client._client,
    )  # fmt: skip
    return served


def chat(client, **options):
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, **options)


def legacy(client, **options):
    return client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x", stream=True, **options)


def collect(served, use=chat, **options):
    """Everything that can be seen of a stream's items."""

    async def aread():
        return [item async for item in await use(served.client, **options)]

    is_async = isinstance(served.client, openai.AsyncOpenAI)
    items = asyncio.run(aread()) if is_async else list(use(served.client, **options))
    return [
        (type(item), item.to_json(), item.to_dict(), sorted(item.model_fields_set), repr(item))
        for item in items
    ]


def asked(served):
    return [json.loads(request.content).get("stream_options") for request in served.sent]


def only_event(backend):
    assert lumiqtrace.flush()
    assert len(backend.events) == 1, [found["status"] for found in backend.events]
    return backend.events[0]


# ---- asked, counted, hidden ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("use", "chunks"), [(chat, CHUNKS), (chat, TWO), (legacy, LEGACY)], ids=["chat", "two", "legacy"]
)
@pytest.mark.parametrize("place", [lambda served: served, azure], ids=["openai", "azure"])
def test_the_tokens_are_counted_and_the_chunks_are_as_without_us(backend, is_async, use, chunks, place):
    def ask():
        served = place(Served(as_openai_does(chunks), is_async=is_async))
        return collect(served, use), asked(served)

    bare, bare_request = ask()
    assert (len(bare), bare_request) == (len(chunks), [None])
    lumiqtrace.patch_openai()
    seen, request = ask()
    assert seen == bare
    assert request == [{"include_usage": True}]
    found = only_event(backend)
    assert (found["input_tokens"], found["output_tokens"], found["cached_tokens"]) == (1000, 100, 400)
    assert (found["status"], found["finish_reason"]) == ("success", "stop")
    assert "usage" not in found.get("tags", {})


def test_a_region_of_openai_is_openai(backend):
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS), base_url="https://eu.api.openai.com/v1")
    assert len(collect(served)) == len(CHUNKS)
    assert only_event(backend)["input_tokens"] == 1000


def test_a_wrapped_client_counts_too(backend):
    from lumiqtrace.providers.openai import wrap_openai

    served = Served(as_openai_does(CHUNKS))
    wrap_openai(served.client)
    assert len(collect(served)) == len(CHUNKS)
    assert only_event(backend)["input_tokens"] == 1000


def test_the_stream_stays_the_clients_own():
    lumiqtrace.patch_openai()
    stream = chat(Served(as_openai_does(CHUNKS)).client)
    assert type(stream) is openai.Stream
    assert next(stream).choices == []
    with stream as entered:
        assert entered is stream
        assert next(iter(stream)).choices[0].delta.role == "assistant"
    assert stream.response.is_closed


def test_a_dropped_stream_leaves_its_connection_as_without_us(backend):
    class Body(hx.SyncByteStream):
        def __init__(self):
            self.closed = False

        def __iter__(self):
            yield sse(CHUNKS[:1], done=False)
            yield sse(CHUNKS[1:])

        def close(self):
            self.closed = True

    def drop():
        body = Body()
        headers = {"content-type": "text/event-stream"}
        stream = chat(Served(lambda _request: hx.Response(200, headers=headers, stream=body)).client)
        next(stream)
        del stream
        gc.collect()
        return body.closed

    bare = drop()
    lumiqtrace.patch_openai()
    assert drop() == bare
    assert only_event(backend)["status"] == "cancelled"


def test_the_helper_of_a_stream_sees_what_it_sees_without_us(backend):
    def ask():
        completions = Served(as_openai_does(STREAM[:4])).client
        make = (
            getattr(completions.chat.completions, "stream", None) or completions.beta.chat.completions.stream
        )
        with make(model="gpt-4o", messages=MESSAGES) as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_completion().to_json()

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert only_event(backend)["input_tokens"] == 1000


def test_a_body_of_the_callers_own_is_not_changed(backend):
    body = {"model": "gpt-4o", "messages": copy.deepcopy(MESSAGES), "stream": True}
    given = copy.deepcopy(body)
    chunk_type = openai.types.chat.ChatCompletionChunk
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS))
    stream = served.client.post(
        "/chat/completions", body=body, cast_to=openai.types.chat.ChatCompletion,
        stream=True, stream_cls=openai.Stream[chunk_type],
    )  # fmt: skip
    assert len(list(stream)) == len(CHUNKS)
    assert body == given
    assert asked(served) == [{"include_usage": True}]
    assert only_event(backend)["input_tokens"] == 1000


def test_only_one_chunk_is_hidden():
    twice = [*CHUNKS, {**chunk({}), "choices": [], "usage": USAGE}]
    lumiqtrace.patch_openai()
    # The chunk of the server's own comes first; the one we asked for would be a second.
    assert len(collect(Served(as_openai_does(twice)))) == len(twice)


# ---- not asked -----------------------------------------------------------------------------------------


def raw(client):
    return client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=MESSAGES, stream=True
    ).parse()


def by_post(client):
    return client.post(
        "/chat/completions", body={"model": "gpt-4o", "messages": MESSAGES, "stream": True},
        cast_to=object, stream=True, stream_cls=openai.Stream[object],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("use", "options"),
    [
        (raw, {}),
        (by_post, {}),
        (chat, {"stream_options": {"include_usage": False}}),
        (chat, {"stream_options": None}),
        (chat, {"extra_body": {"stream_options": {"include_usage": False}}}),
    ],
)
def test_who_reads_the_bytes_or_said_it_himself_is_not_helped(backend, use, options):
    def ask():
        served = Served(as_openai_does(CHUNKS))
        list(use(served.client, **options))
        return asked(served)

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    assert only_event(backend)["tags"] == {"usage": "missing"}


def test_the_streaming_response_is_not_touched(backend):
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS))
    create = served.client.chat.completions.with_streaming_response.create
    with create(model="gpt-4o", messages=MESSAGES, stream=True) as response:
        lines = list(response.iter_lines())
    assert sum(line.startswith("data:") for line in lines) == len(CHUNKS) + 1
    assert asked(served) == [None]
    assert only_event(backend)["tags"] == {"usage": "missing"}


def test_who_asked_sees_his_chunk(backend):
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS))
    items = list(chat(served.client, stream_options={"include_usage": True}))
    assert len(items) == len(CHUNKS) + 1
    assert items[-1].usage.prompt_tokens == 1000
    assert only_event(backend)["input_tokens"] == 1000


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://openrouter.ai/api/v1"])
def test_other_hosts_are_not_asked(backend, url):
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS), base_url=url)
    collect(served)
    assert asked(served) == [None]
    assert only_event(backend)["tags"]["usage"] == "missing"


def test_it_can_be_switched_off(backend):
    lumiqtrace.init("lqt_off", base_url=backend.url, stream_usage=False)
    lumiqtrace.patch_openai()
    served = Served(as_openai_does(CHUNKS))
    collect(served)
    assert asked(served) == [None]


def test_nothing_is_asked_where_nothing_is_recorded():
    lumiqtrace.patch_openai()
    lumiqtrace.shutdown()
    served = Served(as_openai_does(CHUNKS))
    assert len(collect(served)) == len(CHUNKS)
    assert asked(served) == [None]


# ---- refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("place", [lambda served: served, azure], ids=["openai", "azure"])
def test_a_host_that_refuses_gets_the_callers_own_request_and_is_not_asked_again(backend, is_async, place):
    bare = collect(place(Served(as_openai_does(CHUNKS, refuses=True), is_async=is_async)))
    lumiqtrace.patch_openai()
    served = place(Served(as_openai_does(CHUNKS, refuses=True), is_async=is_async))
    assert collect(served) == bare
    assert asked(served) == [{"include_usage": True}, None]
    assert len({str(request.url) for request in served.sent}) == 1
    found = only_event(backend)
    assert (found["status"], found["finish_reason"], found["tags"]["usage"]) == ("success", "stop", "missing")
    again = place(Served(as_openai_does(CHUNKS, refuses=True), is_async=is_async))
    assert collect(again) == bare
    assert asked(again) == [None]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_the_callers_own_comes_as_without_us(backend, is_async):
    """The first answer blames our option, the second the request itself."""

    def answer(request):
        if "stream_options" in json.loads(request.content):
            return hx.Response(400, json=REFUSAL)
        return hx.Response(404, json={"error": {"message": "no such model", "code": "model_not_found"}})

    def ask():
        with pytest.raises(openai.NotFoundError) as caught:
            collect(Served(answer, is_async=is_async))
        error = caught.value
        return type(error), str(error), error.body, repr(error.__context__), error.__cause__

    bare = ask()
    lumiqtrace.patch_openai()
    assert ask() == bare
    found = only_event(backend)
    assert (found["status"], found["error_code"]) == ("error", "model_not_found")


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, {"error": {"message": "messages: too long"}}), (429, REFUSAL), (500, REFUSAL)],
)
def test_any_other_error_is_not_tried_again(backend, status, body):
    lumiqtrace.patch_openai()
    served = Served(lambda _request: hx.Response(status, json=body))
    with pytest.raises(openai.APIStatusError):
        collect(served)
    assert len(served.sent) == 1
    assert only_event(backend)["status"] in ("error", "rate_limited")
    assert _stream_usage._refused == set()


def test_an_interrupt_passes_and_is_not_tried_again(backend):
    calls = []

    def answer(_request):
        calls.append(1)
        raise KeyboardInterrupt

    lumiqtrace.patch_openai()
    with pytest.raises(KeyboardInterrupt):
        collect(Served(answer))
    assert calls == [1]
    assert only_event(backend)["status"] == "cancelled"


def test_the_hosts_that_are_remembered_are_bounded():
    lumiqtrace.patch_openai()
    for number in range(_stream_usage.MAX_HOSTS + 10):
        served = Served(as_openai_does(CHUNKS, refuses=True), base_url=f"https://r{number}.api.openai.com/v1")
        collect(served)
    assert 0 < len(_stream_usage._refused) <= _stream_usage.MAX_HOSTS
