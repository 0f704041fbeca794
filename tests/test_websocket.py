"""Responses over the client's WebSockets, against a real server on loopback: one event each."""

from __future__ import annotations

import asyncio
import json
import operator
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai
import pytest

import lumiqtrace
from lumiqtrace.providers._websocket import MAX_OPEN, _address

server_module = pytest.importorskip("websockets.sync.server")

# The client opens connections in a way that newer versions of that library advise against.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REALTIME_USAGE = {
    "total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
    "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64,
                            "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4}},
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}  # fmt: skip
RESPONSES_USAGE = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
                   "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15}  # fmt: skip
OUTPUT = [
    {"type": "function_call", "id": "fc", "call_id": "c", "name": "get_weather", "arguments": "{}"},
    {"type": "message", "id": "m", "role": "assistant", "status": "completed",
     "content": [{"type": "output_audio", "transcript": "Hello"}]},
]  # fmt: skip


def realtime(identity, **changes):
    done = {"id": identity, "object": "realtime.response", "status": "completed", "output": OUTPUT,
            "usage": REALTIME_USAGE, **changes}  # fmt: skip
    return [
        {"type": "response.created", "event_id": "1", "response": {**done, "status": "in_progress", "usage": None}},
        {"type": "response.output_audio.delta", "event_id": "2", "response_id": identity, "item_id": "m",
         "output_index": 0, "content_index": 0, "delta": "AAAA"},
        {"type": "response.done", "event_id": "3", "response": done},
    ]  # fmt: skip


def responses(identity, **changes):
    done = {"id": identity, "object": "response", "created_at": 1, "model": "gpt-4o-2024-08-06",
            "status": "completed", "output": OUTPUT[:1], "usage": RESPONSES_USAGE, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [], **changes}  # fmt: skip
    return [
        {"type": "response.created", "sequence_number": 0,
         "response": {**done, "status": "in_progress", "usage": None}},
        {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "m", "output_index": 0,
         "content_index": 0, "delta": "Hel", "logprobs": []},
        {"type": f"response.{done['status']}", "sequence_number": 2, "response": done},
    ]  # fmt: skip


SESSION = {"type": "session.created", "event_id": "0",
           "session": {"type": "realtime", "model": "gpt-realtime-2025-08-28", "object": "realtime.session"}}  # fmt: skip


@contextmanager
def speaking(messages):
    """A server that says `messages` to whoever comes, then closes; gives its `ws://` address."""

    def say(connection):
        for message in messages:
            connection.send(json.dumps(message))

    with server_module.serve(say, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def connecting(kind, url, path):
    """The `connect` of that path; skips the test where this version of the client has none."""
    try:
        operator.attrgetter(f"{path}.connect")(kind(api_key="test"))
    except AttributeError:
        pytest.skip(f"openai {openai.__version__} has no {path}.connect")
    connect = operator.attrgetter(path)(kind(api_key="test", websocket_base_url=url)).connect
    return connect(model="gpt-realtime") if "realtime" in path else connect()


def hear(url, path="realtime", *, is_async=False, use=list):
    """What the application receives on a connection to `url`, until the server closes it."""

    async def ahear():
        async with connecting(openai.AsyncOpenAI, url, path) as connection:
            return [event async for event in connection]

    if is_async:
        return asyncio.run(ahear())
    with connecting(openai.OpenAI, url, path) as connection:
        return use(connection)


def shown(events):
    return [(type(event).__name__, event.to_json()) for event in events]


def flushed(backend):
    assert lumiqtrace.flush()
    return backend.events


CASES = {
    "realtime": ([SESSION, *realtime("r1"), *realtime("r2")], "gpt-realtime-2025-08-28", (132, 121, 64)),
    "beta.realtime": ([SESSION, *realtime("r1"), *realtime("r2")], "gpt-realtime-2025-08-28", (132, 121, 64)),
    "responses": ([*responses("r1"), *responses("r2")], "gpt-4o-2024-08-06", (10, 5, 4)),
    "beta.responses": ([*responses("r1"), *responses("r2")], "gpt-4o-2024-08-06", (10, 5, 4)),
}


@pytest.mark.parametrize("path", CASES)
@pytest.mark.parametrize("is_async", [False, True])
def test_every_response_of_a_connection_is_one_event(client, backend, path, is_async):
    messages, model, tokens = CASES[path]
    with speaking(messages) as url:
        bare = shown(hear(url, path, is_async=is_async))
        lumiqtrace.patch_openai()
        assert shown(hear(url, path, is_async=is_async)) == bare
    assert len(bare) == len(messages)
    events = flushed(backend)
    assert len(events) == 2
    for event in events:
        assert (event["input_tokens"], event["output_tokens"], event["cached_tokens"]) == tokens
        assert (event["model"], event["operation"], event["stream"]) == (model, "chat", True)
        assert (event["status"], event["finish_reason"]) == ("success", "completed")
        assert event["tools_used"] == ["get_weather"]
        assert 0 < event["ttft_ms"] <= event["latency_ms"]
        assert (event["provider"], event["tags"]) == ("custom", {"vendor": "127.0.0.1"})


def test_the_address_and_the_model_are_those_of_the_handshake():
    class Handshake:
        path = "/v1/realtime?model=gpt-realtime"
        headers = {"Host": "api.openai.com"}  # noqa: RUF012 - the shape of a handshake

    class Socket:
        request = Handshake

    class Connection:
        _connection = Socket

    assert _address(Connection()) == ("https://api.openai.com/v1/realtime", "gpt-realtime")
    assert _address(object()) == ("https://api.openai.com/v1", None)


def test_text_and_sound_of_a_realtime_response_have_their_own_prices(client, backend):
    # gpt-realtime, USD a million: text 4 and 16 written, sound 32 and 64 spoken, cached 0.40 of either
    expected = (59 * 4 + 9 * 32 + 64 * 0.4 + 30 * 16 + 91 * 64) / 1e6
    lumiqtrace.patch_openai()
    with speaking(
        [{**SESSION, "session": {"type": "realtime", "model": "gpt-realtime"}}, *realtime("r1")]
    ) as url:
        hear(url)
    (event,) = flushed(backend)
    assert event["cost_usd"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "status", "code", "reason"),
    [
        ({"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}},
         "cancelled", None, "turn_detected"),
        ({"status": "incomplete", "status_details": {"type": "incomplete", "reason": "max_output_tokens"}},
         "success", None, "max_output_tokens"),
        ({"status": "failed", "usage": None,
          "status_details": {"type": "failed", "error": {"type": "server_error", "code": "insufficient_quota"}}},
         "rate_limited", "insufficient_quota", "failed"),
    ],
)  # fmt: skip
def test_how_a_realtime_response_ended(client, backend, changes, status, code, reason):
    lumiqtrace.patch_openai()
    with speaking(realtime("r1", **changes)) as url:
        hear(url)
    (event,) = flushed(backend)
    assert (event["status"], event.get("error_code"), event["finish_reason"]) == (status, code, reason)
    assert event["model"] == "gpt-realtime", "what was asked for, where the session did not say"


@pytest.mark.parametrize(
    "messages",
    [
        [SESSION],
        realtime("r1")[:2],
        [{"type": "error", "event_id": "1", "error": {"type": "invalid_request_error", "message": "no"}}],
        [{"type": "response.output_audio.delta", "response_id": "r0", "delta": "AAAA"}],
        [{}, {"type": None}, {"type": "response.created"}],
    ],
    ids=["session", "unfinished", "error", "stray delta", "odd"],
)
def test_what_is_no_finished_response_makes_no_event(client, backend, messages):
    lumiqtrace.patch_openai()
    with speaking(messages) as url:
        assert len(hear(url)) == len(messages)
    assert flushed(backend) == []
    assert lumiqtrace.get_client().stats().internal_errors == 0


def test_responses_that_run_side_by_side_are_told_apart(client, backend):
    first, second = realtime("r1"), realtime("r2", status="incomplete")
    lumiqtrace.patch_openai()
    with speaking([first[0], second[0], second[1], second[2], first[1], first[2]]) as url:
        hear(url)
    ended_first, ended_last = flushed(backend)
    assert (ended_first["finish_reason"], ended_last["finish_reason"]) == ("incomplete", "completed")
    assert ended_last["latency_ms"] >= ended_first["latency_ms"]
    assert ended_last["ttft_ms"] >= ended_first["ttft_ms"]


def test_a_response_whose_beginning_was_not_seen_is_still_one_event(client, backend):
    def only_the_end(connection):
        messages = [connection.recv_bytes() for _ in range(3)]
        return [connection.parse_event(messages[2]), connection.parse_event(messages[2])]

    lumiqtrace.patch_openai()
    with speaking(realtime("r1")) as url:
        hear(url, use=only_the_end)
    (event,) = flushed(backend)
    assert (event["input_tokens"], event["status"]) == (132, "success")
    assert "ttft_ms" not in event


def test_more_responses_at_a_time_than_are_followed_are_recorded_all_the_same(client, backend):
    many = [realtime(f"r{number}") for number in range(MAX_OPEN + 6)]
    lumiqtrace.patch_openai()
    with speaking([events[0] for events in many] + [events[2] for events in many]) as url:
        hear(url)
    assert len(flushed(backend)) == len(many)


def test_a_live_session_tells_of_responses_and_decisions(client, backend):
    decision = {"model": "gpt-6-luna", "answers": [], "usage": RESPONSES_USAGE}
    nested = [{"type": "response.event", "event_id": "1", "event": event} for event in responses("r1")]
    messages = [*nested, {"type": "decision.event", "event_id": "2",
                          "event": {"type": "decision.completed", "decision": decision}}]  # fmt: skip
    lumiqtrace.patch_openai()
    with speaking(messages) as url:
        assert len(hear(url, "live")) == len(messages)
    response, judged = flushed(backend)
    assert (response["operation"], response["model"], response["input_tokens"]) == (
        "chat",
        "gpt-4o-2024-08-06",
        10,
    )
    assert (judged["operation"], judged["model"], judged["input_tokens"]) == ("custom", "gpt-6-luna", 10)


def test_a_connection_is_a_child_of_the_span_it_runs_in(client, backend):
    lumiqtrace.patch_openai()
    with speaking(realtime("r1")) as url, lumiqtrace.span("call") as span:
        hear(url)
    event = next(found for found in flushed(backend) if found["span_kind"] == "llm")
    assert (event["trace_id"], event["parent_span_id"]) == (span.trace_id, span.span_id)


def test_texts_are_kept_where_asked_for(backend):
    lumiqtrace.init("lqt_texts", base_url=backend.url, store_prompts=True)
    lumiqtrace.patch_openai()
    with speaking(realtime("r1")) as url:
        hear(url)
    assert flushed(backend)[0]["completion"] == "Hello"


def test_unpatching_puts_back_what_was_there(client, backend):
    module = pytest.importorskip("openai.resources.realtime.realtime")
    before = module.RealtimeConnection.__dict__["parse_event"]
    lumiqtrace.patch_openai()
    once = module.RealtimeConnection.__dict__["parse_event"]
    assert once is not before
    lumiqtrace.patch_openai()
    assert module.RealtimeConnection.__dict__["parse_event"] is once
    lumiqtrace.unpatch_openai()
    assert module.RealtimeConnection.__dict__["parse_event"] is before
    with speaking(realtime("r1")) as url:
        hear(url)
    assert flushed(backend) == []


def test_a_message_that_is_no_json_raises_what_it_raises_without_us(client):
    lumiqtrace.patch_openai()
    module = pytest.importorskip("openai.resources.realtime.realtime")
    connection = object.__new__(module.RealtimeConnection)
    with pytest.raises(json.JSONDecodeError):
        connection.parse_event(b"no json")
    assert connection.parse_event(data=b'{"type": "response.created"}').type == "response.created"


def test_modules_that_are_imported_later_are_watched_and_none_is_imported_by_us(backend):
    pytest.importorskip("openai.resources.realtime.realtime")
    with speaking([SESSION, *realtime("r1")]) as url:
        code = f"""
import sys, lumiqtrace
lumiqtrace.init("lqt_" + "ab12" * 16, base_url={backend.url!r})
lumiqtrace.patch_openai()
assert "openai" not in sys.modules
import openai
assert not [name for name in sys.modules if name.endswith("realtime.realtime")]
with openai.OpenAI(api_key="k", websocket_base_url={url!r}).realtime.connect(model="m") as connection:
    assert len(list(connection)) == 4
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(backend.events) == 1
    assert urlsplit(url).hostname == backend.events[0]["tags"]["vendor"]
