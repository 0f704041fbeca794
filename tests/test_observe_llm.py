"""`observe_llm`: one call is counted once, by the span or by an event of its own, under the real clients."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
import test_anthropic
import test_google
from gemini import Google, serving
from gemini import reply as reply_google
from gemini import streamed as streamed_google
from test_openai import CHAT, MESSAGES, STREAM, TOOL_MESSAGE, Served, reply, streamed

import lumiqtrace
from lumiqtrace import observe_llm, observe_span
from lumiqtrace.providers import _observed

COST = 600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 10e-6
ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def _not_listening():
    yield
    _observed.deafen()


@pytest.fixture
def spans(client, backend):
    """Gives the events by name; model calls of their own are under their operation's name."""

    def found():
        assert lumiqtrace.flush()
        return {event.get("name", event["operation"]): event for event in backend.events}

    return found


def numbers(event):
    return event["input_tokens"], event.get("cached_tokens"), event["output_tokens"]


def check_whole(event, model="gpt-4o"):
    assert (event["provider"], event["model"], event["operation"]) == ("openai", model, "chat")
    assert (event["span_kind"], event["status"], event["finish_reason"]) == ("llm", "success", "stop")
    assert numbers(event) == (1000, 400, 100)
    assert event["cost_usd"] == pytest.approx(COST)


# ---- not patched -------------------------------------------------------------------------------------


def test_a_function_that_returns_a_text_has_the_tokens_of_its_call(spans):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def ask(question):
        assert question == "Hello?"
        return served.create().choices[0].message.content

    assert ask("Hello?") == "Hello"
    (event,) = spans().values()
    check_whole(event)
    assert len(event["prompt_hash"]) == 64
    assert event["name"] == "ask"


def test_a_coroutine_too_and_what_was_not_told_is_taken_from_the_call(spans):
    served = Served(reply(CHAT), is_async=True, base_url="https://api.openai.com/v1")

    @observe_llm
    async def ask():
        async with lumiqtrace.span("inner"):
            return (await served.create()).choices[0].message.content

    assert asyncio.run(ask()) == "Hello"
    found = spans()
    assert set(found) == {"ask", "inner"}
    check_whole(found["ask"], model="gpt-4o-2024-08-06")
    assert found["inner"]["parent_span_id"] == found["ask"]["span_id"]
    assert found["inner"]["input_tokens"] == 0


def test_tools_and_the_sum_of_several_calls(spans):
    with_tools = {
        **CHAT,
        "model": "gpt-4o-mini",
        "choices": [{**CHAT["choices"][0], "finish_reason": "tool_calls", "message": TOOL_MESSAGE}],
    }
    answers = [reply(with_tools), reply(CHAT)]

    def answer(request):
        return answers.pop(0)(request)

    served = Served(answer, base_url="https://api.openai.com/v1")

    @observe_llm
    def agent():
        served.create()
        return served.create().choices[0].message.content

    agent()
    (event,) = spans().values()
    assert numbers(event) == (2000, 800, 200)
    assert event["tools_used"] == ["get_weather"]
    assert (event["finish_reason"], event["model"]) == ("stop", "gpt-4o-2024-08-06")
    mini = 600 * 0.15e-6 + 400 * 0.075e-6 + 100 * 0.6e-6
    assert event["cost_usd"] == pytest.approx(COST + mini)


@ASYNC
def test_a_stream_inside_a_generator(spans, is_async):
    served = Served(streamed(STREAM), is_async=is_async, base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def words():
        for chunk in served.create(stream=True):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    @observe_llm(model="gpt-4o", provider="openai")
    async def words_async():
        async for chunk in await served.create(stream=True):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    async def joined():
        return "".join([word async for word in words_async()])

    assert (asyncio.run(joined()) if is_async else "".join(words())) == "Hello"
    (event,) = spans().values()
    check_whole(event)
    assert event["stream"] is True
    assert event["ttft_ms"] >= 0


def test_a_stream_that_the_function_returns_counts_when_it_ends(spans, backend):
    served = Served(streamed(STREAM), base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.create(stream=True)

    stream = ask()
    assert spans() == {}
    assert len(list(stream)) == len(STREAM)
    check_whole(spans()["ask"])


def test_a_stream_that_nobody_reads_does_not_hold_the_span_for_ever(spans, backend):
    served = Served(streamed(STREAM), base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.create(stream=True)

    kept = ask()
    ask()
    gc.collect()
    assert lumiqtrace.flush()
    assert len(backend.events) == 1
    assert lumiqtrace.shutdown()
    assert len(backend.events) == 2
    kept.close()
    assert {event["input_tokens"] for event in backend.events} == {0}


def test_an_exception_of_the_provider_gives_the_status(spans):
    refused = {"error": {"message": "too many", "type": "requests", "code": "rate_limit_exceeded"}}
    served = Served(reply(refused, 429), base_url="https://api.openai.com/v1")

    @observe_llm(provider="openai")
    def ask():
        served.create()

    with pytest.raises(openai.RateLimitError):
        ask()
    (event,) = spans().values()
    assert (event["status"], event["error_code"]) == ("rate_limited", "rate_limit_exceeded")
    assert event["model"] == "gpt-4o"


def test_one_inside_another_hears_its_own_calls(spans):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")

    @observe_llm(model="outer")
    def outer():
        return inner()

    @observe_llm(model="inner")
    def inner():
        return served.create().choices[0].message.content

    outer()
    found = spans()
    assert found["inner"]["input_tokens"] == 1000
    assert found["outer"]["input_tokens"] == 0
    assert found["outer"]["operation"] == "custom"


def test_a_call_outside_is_nobodys(spans, backend):
    served = Served(reply(CHAT))
    late = []

    @observe_llm(model="gpt-4o")
    def ask():
        late.append(lumiqtrace.carry(served.create))

    ask()
    late[0]()  # in the span's context, after its end
    served.create()
    with lumiqtrace.span("other"):
        served.create()
    found = spans()
    assert set(found) == {"ask", "other"}
    assert found["ask"]["input_tokens"] == 0


@ASYNC
def test_the_anthropic_client(spans, is_async):
    served = test_anthropic.Served(test_anthropic.reply(test_anthropic.MESSAGE), is_async=is_async)

    @observe_llm(provider="anthropic")
    def ask():
        return served.client.messages.create(**test_anthropic.REQUEST).content[0].text

    @observe_llm(provider="anthropic")
    async def ask_async():
        return (await served.client.messages.create(**test_anthropic.REQUEST)).content[0].text

    assert (asyncio.run(ask_async()) if is_async else ask()) == "Hello"
    (event,) = spans().values()
    assert (event["provider"], event["model"]) == ("anthropic", test_anthropic.MODEL)
    assert numbers(event) == (125, 100, 7)
    assert event["cost_usd"] == pytest.approx(test_anthropic.COST)


def test_the_google_client(spans):
    @observe_llm(provider="google")
    def ask(client):
        return client.models.generate_content(model=test_google.ASKED, contents="Hello").text

    @observe_llm(provider="google")
    def words(client):
        for chunk in client.models.generate_content_stream(model=test_google.ASKED, contents="Hello"):
            yield chunk.text or ""

    with serving(Google(reply_google(test_google.HELLO))) as google:
        assert ask(google.client()) == "Hello"
        google.answer = streamed_google(test_google.STREAM)
        assert "".join(words(google.client())) == "Hello"
    found = spans()
    assert numbers(found["ask"]) == numbers(found["words"]) == (1000, 400, 100)
    assert found["ask"]["cost_usd"] == found["words"]["cost_usd"] == pytest.approx(test_google.COST)


# ---- patched -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["patched first", "listening first", "patched between", "wrapped"])
def test_what_is_an_event_of_its_own_is_a_child_and_counted_once(spans, order):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")
    if order == "listening first":
        _observed.listen()
    if order != "wrapped":
        lumiqtrace.patch_openai()
    else:
        lumiqtrace.wrap_openai(served.client)
    if order == "patched between":
        _observed.listen()
        lumiqtrace.unpatch_openai()
        lumiqtrace.patch_openai()

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.create()  # its usage is the child's

    ask()
    found = spans()
    assert set(found) == {"ask", "chat"}
    assert numbers(found["chat"]) == (1000, 400, 100)
    assert numbers(found["ask"]) == (0, None, 0)
    assert found["ask"]["cost_usd"] == 0
    assert (found["ask"]["provider"], found["ask"]["model"], found["ask"]["operation"]) == (
        "openai",
        "gpt-4o",
        "custom",
    )
    assert found["chat"]["parent_span_id"] == found["ask"]["span_id"]


def test_after_unpatching_the_span_hears_again(spans):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.create().choices[0].message.content

    lumiqtrace.patch_openai()
    ask()
    lumiqtrace.unpatch_openai()
    found = spans()
    assert found["ask"]["input_tokens"] == 0
    ask()
    found = spans()
    check_whole(found["ask"])


def test_deafening_puts_the_librarys_method_back(client):
    original = openai._base_client.SyncAPIClient.request

    @observe_llm
    def ask():
        pass

    ask()
    assert openai._base_client.SyncAPIClient.request is not original
    _observed.deafen()
    assert openai._base_client.SyncAPIClient.request is original


def test_where_nothing_is_recorded_no_library_is_touched():
    original = openai._base_client.SyncAPIClient.request

    @observe_llm(model="gpt-4o")
    def ask():
        return 5

    assert ask() == 5
    assert openai._base_client.SyncAPIClient.request is original


# ---- the returned object -----------------------------------------------------------------------------

ANTHROPIC_DICT = test_anthropic.MESSAGE
RESPONSE = {
    "object": "response",
    "model": "gpt-4o",
    "status": "completed",
    "output": [{"type": "function_call", "name": "look_up"}],
    "usage": {"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 400}},
}


class Attributes(dict):
    """A dict as frameworks make their own, whose methods are not to be trusted."""

    def __getattr__(self, name):
        raise SystemExit(name)

    def _refuse(self, *_):
        raise SystemExit("from our reading")

    get = items = keys = values = copy = __iter__ = __getitem__ = __contains__ = _refuse


class Items(list):
    def __iter__(self):
        raise SystemExit("from our reading")


def with_attributes(value):
    if isinstance(value, dict):
        return Attributes((name, with_attributes(item)) for name, item in value.items())
    return Items(map(with_attributes, value)) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (CHAT, (1000, 400, 100)),
        (with_attributes(CHAT), (1000, 400, 100)),
        (with_attributes(RESPONSE), (1000, 400, 100)),
        (with_attributes(ANTHROPIC_DICT), (125, 100, 7)),
        (SimpleNamespace(usage=with_attributes({"input_tokens": 3, "output_tokens": 4})), (3, None, 4)),
        (
            with_attributes({"usage_metadata": {"prompt_token_count": 3, "candidates_token_count": 4}}),
            (3, None, 4),
        ),
        (openai.types.chat.ChatCompletion.model_validate(CHAT), (1000, 400, 100)),
        (RESPONSE, (1000, 400, 100)),
        (ANTHROPIC_DICT, (125, 100, 7)),
        (SimpleNamespace(usage=SimpleNamespace(prompt_tokens=3, completion_tokens=4)), (3, None, 4)),
        (SimpleNamespace(usage={"input_tokens": 3, "output_tokens": 4}), (3, None, 4)),
        ({"usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 10}}, (13, 10, 4)),
        (
            SimpleNamespace(usage_metadata=SimpleNamespace(prompt_token_count=3, candidates_token_count=4)),
            (3, None, 4),
        ),
        ({"usage": {"input_tokens": "many"}}, (0, None, 0)),
        ({"usage": None}, (0, None, 0)),
        (SimpleNamespace(usage=5), (0, None, 0)),
        ("text", (0, None, 0)),
        (object(), (0, None, 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_usage_of_the_returned_object(spans, result, expected):
    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return result

    assert ask() is result
    event = spans()["ask"]
    assert numbers(event) == expected
    assert event["model"] == "gpt-4o"


def test_the_returned_object_tells_model_tools_and_reason_too(spans):
    @observe_llm(provider="openai")
    def ask():
        return RESPONSE

    ask()
    event = spans()["ask"]
    assert (event["model"], event["tools_used"], event["finish_reason"]) == (
        "gpt-4o",
        ["look_up"],
        "completed",
    )
    assert event["cost_usd"] == pytest.approx(COST)


def test_a_generators_last_word_may_tell_the_usage(spans):
    @observe_llm(model="gpt-4o", provider="openai")
    def chunks():
        yield from STREAM

    assert list(chunks()) == STREAM
    assert numbers(spans()["chunks"]) == (1000, 400, 100)


class Hostile:
    @property
    def usage(self):
        raise RuntimeError("not now")


def test_an_object_that_will_not_be_looked_at_is_returned_as_it_is(spans):
    @observe_llm
    def ask():
        return hostile

    hostile = Hostile()
    assert ask() is hostile
    assert spans()["ask"]["input_tokens"] == 0


def test_what_the_application_says_goes_before_what_was_heard(spans):
    served = Served(reply(CHAT))

    @observe_llm(model="gpt-4o")
    def ask():
        lumiqtrace.set_usage(input_tokens=5, output_tokens=6, cost_usd=0.25)
        return served.create()

    ask()
    event = spans()["ask"]
    assert numbers(event) == (5, None, 6)
    assert event["cost_usd"] == 0.25


def test_usage_that_the_application_tells_is_priced_by_the_model_that_it_named(spans):
    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        lumiqtrace.set_usage(input_tokens=1000, output_tokens=100)

    ask()
    event = spans()["ask"]
    assert (event["model"], event["cost_usd"]) == ("gpt-4o", pytest.approx(0.0035))


def test_usage_that_is_told_beside_recorded_calls_is_not_paid_twice(spans):
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))

    @observe_llm(model="gpt-4o")
    def ask():
        served.create()
        lumiqtrace.set_usage(input_tokens=1_000_000)

    ask()
    found = spans()
    assert found["chat"]["cost_usd"] == pytest.approx(COST)
    assert found["ask"]["cost_usd"] == 0
    assert "cost" not in found["ask"].get("tags", {})


# ---- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "recorded", "vendor"),
    [
        ("openai", "openai", None),
        ("custom", "custom", None),
        ("mistral", "custom", "mistral"),
        (7, "custom", "7"),
        (None, "custom", None),
    ],
)
def test_a_provider_that_the_schema_does_not_know_is_a_vendor(spans, provider, recorded, vendor):
    @observe_llm(model="m-1", provider=provider)
    def ask():
        pass

    ask()
    event = spans()["ask"]
    assert (event["provider"], event.get("tags", {}).get("vendor")) == (recorded, vendor)
    assert event["model"] == "m-1"


def test_a_price_that_nobody_knows_is_named(client, spans, caplog):
    @observe_llm(model="house-model")
    def ask():
        return {"usage": {"input_tokens": 3, "output_tokens": 4}}

    ask()
    assert spans()["ask"]["tags"]["cost"] == "unknown"
    assert client.stats().unpriced_models == ("house-model",)
    assert [record.getMessage() for record in caplog.records] == [
        "lumiqtrace: no price is known for model 'house-model'; its calls are recorded at cost 0"
    ]


def echo(request):
    """An answer of the model that was asked."""
    return reply({**CHAT, "model": json.loads(request.content)["model"]})(request)


def test_of_several_calls_each_without_a_price_is_named(client, spans, caplog):
    served = Served(echo)

    @observe_llm
    def ask():
        served.create(model="our-deployment")
        served.create(model="our-other")

    ask()
    event = spans()["ask"]
    assert (event["tags"]["cost"], event["cost_usd"], event["input_tokens"]) == ("unknown", 0, 2000)
    assert client.stats().unpriced_models == ("our-deployment", "our-other")
    assert [record.args for record in caplog.records] == [("our-deployment",), ("our-other",)]


def test_calls_with_a_price_count_beside_one_without(client, spans):
    served = Served(echo)

    @observe_llm(provider="openai")
    def ask():
        served.create(model="gpt-4o")
        served.create(model="our-deployment")

    ask()
    event = spans()["ask"]
    assert (event["tags"]["cost"], event["input_tokens"]) == ("unknown", 2000)
    assert event["cost_usd"] == pytest.approx(COST)
    assert client.stats().unpriced_models == ("our-deployment",)


def test_a_deployments_own_name_is_priced_by_what_the_decorator_says(spans, caplog):
    served = Served(reply({**CHAT, "model": "our-deployment"}))

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.create().choices[0].message.content

    ask()
    check_whole(spans()["ask"])
    assert caplog.records == []


def test_observed_spans_nest_as_the_calls_do(spans):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")

    @observe_span("rag-pipeline")
    def rag():
        return ask()

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        with lumiqtrace.context(user_id="u1", tags={"a": 1}):
            return served.create().choices[0].message.content

    rag()
    found = spans()
    assert found["ask"]["parent_span_id"] == found["rag-pipeline"]["span_id"]
    check_whole(found["ask"])


def test_many_threads_hear_their_own_calls(spans, backend):
    served = Served(reply(CHAT), base_url="https://api.openai.com/v1")

    @observe_llm(model="gpt-4o", provider="openai")
    def ask():
        return served.client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans()
    assert len(backend.events) == 50
    assert {numbers(event) for event in backend.events} == {(1000, 400, 100)}


def test_the_first_run_while_another_thread_imports_the_library(backend):
    """In a process of its own: the import has its loader, and the module is not there yet."""
    code = f"""
import importlib, sys, threading
from importlib.machinery import PathFinder
import lumiqtrace
from lumiqtrace.providers import _imports

class Slow:
    began, go = threading.Event(), threading.Event()
    def find_spec(self, name, path=None, target=None):
        if name == "openai" and not self.began.is_set():
            spec = PathFinder.find_spec(name, path, target)
            self.loader, spec.loader = spec.loader, self
            return spec
    def create_module(self, spec):
        self.began.set()
        self.go.wait(30)
    def exec_module(self, module):
        self.loader.exec_module(module)

sys.meta_path.insert(0, Slow())
lumiqtrace.init("lqt_test", base_url={backend.url!r})

@lumiqtrace.observe_llm
def first():
    pass

importing = threading.Thread(target=importlib.import_module, args=("openai",))
importing.start()
Slow.began.wait(30)
running = threading.Thread(target=first)
running.start()
while "openai" not in _imports._waiting:
    running.join(0.01)
Slow.go.set()
running.join()
importing.join()

from test_openai import CHAT, Served, reply

@lumiqtrace.observe_llm
def ask():
    Served(reply(CHAT)).create()

ask()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        },
    )
    assert done.returncode == 0, done.stderr
    assert numbers(next(event for event in backend.events if event["name"] == "ask")) == (1000, 400, 100)


def test_threads_that_listen_at_once_replace_a_method_once(client):
    original = openai._base_client.SyncAPIClient.request
    for _ in range(20):
        start = threading.Barrier(8)

        def listen(start=start):
            start.wait()
            _observed.listen()

        threads = [threading.Thread(target=listen) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert openai._base_client.SyncAPIClient.request.__wrapped__ is original
        _observed.deafen()
        assert openai._base_client.SyncAPIClient.request is original


def test_a_library_that_was_missed_is_heard_the_next_time(spans):
    served = Served(reply(CHAT))

    @observe_llm
    def ask():
        return served.create().choices[0].message.content

    _observed.listen()
    for library in _observed._ALL:
        library.remove()  # as if its import had passed unheard
    ask()
    assert numbers(spans()["ask"]) == (1000, 400, 100)
