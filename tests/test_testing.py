"""`lumiqtrace.testing` and its pytest plugin, by the real client and in a fresh pytest."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest
from test_encode import make

import lumiqtrace
from lumiqtrace import _default
from lumiqtrace._delivery.exporter import Exporter
from lumiqtrace._delivery.transport import Reply, TransportError
from lumiqtrace.testing import KEY, Answer, Events, FakeClock, LoopbackBackend, MemoryTransport, capture

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)


def call(model="gpt-4o", *, tools=(), status=200):
    """One call of the real client, answered in the process."""

    def respond(_request):
        if status != 200:
            return httpx2.Response(status, json={"error": {"message": "no such model", "code": "not_found"}})
        calls = [
            {"id": f"t{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}
            for number, name in enumerate(tools)
        ]
        message = {"role": "assistant", "content": "Hi", "tool_calls": calls or None}
        body = {
            "id": "c", "object": "chat.completion", "created": 1, "model": f"{model}-2024-08-06",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }  # fmt: skip
        return httpx2.Response(200, json=body)

    with httpx2.Client(transport=httpx2.MockTransport(respond)) as http:
        client = openai.OpenAI(api_key="none", http_client=http, max_retries=0)
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])


@pytest.fixture
def patched():
    lumiqtrace.patch_openai()


def lines(*events):
    """Events over lines that are there already."""
    return Events(lambda: list(events))


def line(span_id, parent=None, **fields):
    told = {
        "event_id": span_id,
        "trace_id": "t",
        "span_id": span_id,
        "timestamp": f"2026-01-01T00:00:0{span_id}Z",
    }
    shape = {
        "provider": "openai",
        "model": "gpt-4o",
        "operation": "chat",
        "latency_ms": 1.0,
        "span_kind": "llm",
    }
    return told | shape | ({"parent_span_id": parent} if parent else {}) | fields


# ---- capture ---------------------------------------------------------------------------------------------


def test_a_model_call_is_captured_without_a_key_or_a_flush(patched):
    with capture() as events:
        call(tools=["search", "read"])
        assert len(events) == 1
    (event,) = events
    assert (event.model, event.input_tokens, event.output_tokens) == ("gpt-4o-2024-08-06", 100, 20)
    assert event.cost_usd > 0
    assert events.llm_calls == [event]
    assert events.spans == []
    assert events.total_tokens == 120
    assert events.total_cost_usd == event.cost_usd
    assert events.tools_used == event.tools_used == ["search", "read"]


def test_what_init_did_before_is_put_back(backend):
    client = lumiqtrace.init(KEY, base_url=backend.url)
    with capture() as events, lumiqtrace.span("inside"):
        assert lumiqtrace.get_client() is not client
    with lumiqtrace.span("after"):
        pass
    assert lumiqtrace.get_client() is client
    assert lumiqtrace.flush(20)
    assert [event.name for event in events] == ["inside"]
    assert [event["name"] for event in backend.events] == ["after"]


def test_without_an_init_before_nothing_is_recorded_after():
    with capture():
        pass
    assert lumiqtrace.get_client() is _default._off


def test_it_is_put_back_when_the_block_raises():
    with pytest.raises(KeyError), capture():
        raise KeyError
    assert lumiqtrace.get_client() is _default._off


@pytest.mark.parametrize("options", [{}, {"enabled": False}, {"sample_rate": 0.0}, {"api_key": KEY}])
def test_an_init_inside_the_block_is_captured_too(options, backend):
    with capture() as events:
        lumiqtrace.init(base_url=backend.url, environment="staging", **options)
        with lumiqtrace.span("one"):
            pass
        lumiqtrace.shutdown()
        lumiqtrace.init(base_url=backend.url, environment="staging", **options)
        with lumiqtrace.span("two"):
            pass
    assert [(event.name, event.environment) for event in events] == [("one", "staging"), ("two", "staging")]
    assert backend.requests == []
    assert lumiqtrace.get_client() is _default._off


def test_the_same_init_twice_keeps_the_client():
    with capture():
        assert lumiqtrace.init() is lumiqtrace.init()
        assert lumiqtrace.init(environment="a") is not lumiqtrace.init(environment="b")


def test_the_applications_options_hold_and_the_blocks_go_before_them():
    lumiqtrace.init(enabled=False, redact_fields=["iban"], environment="staging", sample_rate=0.0)
    with capture(environment="test") as events, lumiqtrace.span("pay", iban="DE00", amount=5):
        pass
    assert events[0].tags == {"iban": "[REDACTED]", "amount": "5"}
    assert events[0].environment == "test"


def test_the_environment_cannot_switch_it_off_or_make_it_write(tmp_path, monkeypatch):
    monkeypatch.setenv("LUMIQTRACE_ENABLED", "0")
    monkeypatch.setenv("LUMIQTRACE_SAMPLE_RATE", "0")
    monkeypatch.setenv("LUMIQTRACE_SPOOL_DIR", str(tmp_path / "spool"))
    with capture() as events:
        lumiqtrace.init()
        with lumiqtrace.span("here"):
            pass
    assert [event.name for event in events] == ["here"]
    assert not (tmp_path / "spool").exists()


def test_a_wrong_option_is_named():
    with pytest.raises(lumiqtrace.ConfigError, match="batch_size"), capture(batch_size=0):
        pass
    assert lumiqtrace.get_client() is _default._off


def test_a_middleware_is_captured_whatever_it_samples():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware

    app = Starlette(routes=[Route("/hello", lambda _request: PlainTextResponse("hello"))])
    app.add_middleware(LumiqFastAPIMiddleware, config=lumiqtrace.LumiqConfig(api_key=KEY, sample_rate=0.001))
    with capture() as events:
        for _ in range(20):
            TestClient(app).get("/hello")
    assert [event.name for event in events] == ["GET /hello"] * 20


def test_threads_and_tasks_of_the_block_are_captured():
    async def task(number):
        async with lumiqtrace.span(f"task {number}"):
            await asyncio.sleep(0)

    async def tasks():
        await asyncio.gather(*[task(number) for number in range(20)])

    def thread(number):
        with lumiqtrace.span(f"thread {number}"):
            pass

    with capture() as events:
        asyncio.run(tasks())
        threads = [threading.Thread(target=thread, args=(number,)) for number in range(20)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(events) == 40
    assert len({event.name for event in events}) == 40


def test_events_can_be_read_inside_a_running_loop():
    async def main(events):
        async with lumiqtrace.span("one"):
            pass
        assert len(events) == 1
        async with lumiqtrace.span("two"):
            pass
        assert len(events) == 2

    with capture() as events:
        asyncio.run(main(events))


def test_one_block_inside_another_has_its_own():
    with capture() as outer:
        with lumiqtrace.span("a"):
            pass
        with capture() as inner, lumiqtrace.span("b"):
            pass
        with lumiqtrace.span("c"):
            pass
    assert [event.name for event in outer] == ["a", "c"]
    assert [event.name for event in inner] == ["b"]


def test_patches_stay_as_they_are(patched):
    with capture():
        pass
    with capture() as events:
        call()
    events.assert_called(times=1)


def test_an_event_that_cannot_be_built_is_said():
    class Broken:
        size = 1

        def event(self):
            raise ValueError("no event")

    with capture() as events:
        lumiqtrace.get_client().record(Broken())
        for _ in range(2):
            with pytest.raises(
                AssertionError, match="events were lost before they were captured: 1 unreadable"
            ):
                len(events)


def test_what_before_send_drops_is_not_lost():
    with capture(before_send=lambda event: None if event.name == "quiet" else event) as events:
        for name in ("quiet", "loud"):
            with lumiqtrace.span(name):
                pass
    assert [event.name for event in events] == ["loud"]


def test_a_function_around_a_recorded_call_is_no_second_call(patched):
    @lumiqtrace.observe_llm(model="gpt-4o")
    def ask():
        call()

    with capture() as events:
        ask()
    events.assert_called(model="gpt-4o", times=1)
    (root,) = events.traces[events[0].trace_id]
    assert [event.is_call for event in root.walk()] == [False, True]


def test_a_function_whose_call_nobody_else_records_is_the_call():
    @lumiqtrace.observe_llm(model="gpt-4o")
    def ask():
        call()

    with capture() as events:
        ask()
    events.assert_called(model="gpt-4o", times=1)
    assert events.total_tokens == 120


# ---- what is asserted --------------------------------------------------------------------------------------


def failure(check):
    with pytest.raises(AssertionError) as caught:
        check()
    return str(caught.value)


def test_traces_are_trees_in_the_order_of_their_beginnings():
    events = lines(line("3", "1"), line("2", "1"), line("4", "2"), line("1"), line("9", trace_id="u"))
    (root,), (other,) = events.traces["t"], events.traces["u"]
    assert [event.span_id for event in root.walk()] == ["1", "2", "4", "3"]
    assert other.children == []
    assert [event.span_id for event in events] == ["3", "2", "4", "1", "9"]


def test_a_child_whose_parent_comes_later_moves_below_it():
    there = [line("2", "1")]
    events = Events(lambda: there)
    assert [root.span_id for root in events.traces["t"]] == ["2"]
    there.append(line("1"))
    assert [root.span_id for root in events.traces["t"]] == ["1"]
    assert [child.span_id for child in events[1].children] == ["2"]


@pytest.mark.parametrize(
    ("asked", "found", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-sonnet-4", "claude-sonnet-4-20250514", True),
        ("claude-sonnet-4", "claude-sonnet-4-5", False),
        ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620", True),
        ("gemini-2.0-flash", "gemini-2.0-flash-001", True),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
    ],
)
def test_a_model_is_the_one_that_was_asked_for(asked, found, same):
    assert bool(lines(line("1", model=found)).find(model=asked)) is same


def test_find_reads_any_field_and_refuses_what_is_none():
    events = lines(line("1", tags={"a": "1", "b": "2"}, user_id="u"), line("2", tags={"a": "2"}))
    assert [event.span_id for event in events.find(tags={"a": "1"})] == ["1"]
    assert [event.span_id for event in events.find(user_id="u", status="success")] == ["1"]
    assert [event.span_id for event in events.find(user_id=None)] == ["2"]
    assert events.find() == list(events)
    with pytest.raises(TypeError, match=r"no field 'modle'; it has .*\bmodel\b"):
        events.find(modle="gpt-4o")


def test_it_compares_as_a_list_does():
    assert lines() == []
    events = lines(line("1"))
    assert events != []
    assert events == list(events)
    assert events != "1"
    assert events[0:1] == [events[0]]


def test_one_is_the_only_one():
    events = lines(line("1"), line("2"), line("3", name="x"))
    assert events.one(name="x").span_id == "3"
    assert failure(lambda: events.one(model="gpt-4o")).startswith(
        "expected one event with model='gpt-4o', got 3\n"
    )


def test_the_number_of_calls_is_asserted():
    events = lines(line("1"), line("2", model="gpt-4o-mini"), line("3", span_kind="tool", name="search"))
    events.assert_called()
    events.assert_called(model="gpt-4o")
    events.assert_called(times=2)
    events.assert_not_called(model="o3")
    message = failure(lambda: events.assert_called(model="gpt-4o", times=2))
    assert message == (
        "expected 2 calls with model='gpt-4o', got 1\n"
        "3 events recorded\n"
        "  llm gpt-4o chat success\n"
        "  llm gpt-4o-mini chat success\n"
        "  tool search success"
    )
    assert failure(lambda: events.assert_called(model="o3")).startswith(
        "expected at least 1 call with model='o3', got 0\n"
    )
    assert failure(events.assert_not_called).startswith("expected 0 calls, got 2\n")
    assert failure(lambda: lines().assert_called(times=1)) == "expected 1 call, got 0\nno events recorded"


def test_the_cost_is_asserted_and_an_unknown_price_is_no_zero():
    events = lines(line("1", cost_usd=0.004), line("2", cost_usd=0.004))
    events.assert_cost_below(0.01)
    assert failure(lambda: events.assert_cost_below(0.008)).startswith(
        "expected a cost below $0.008, got $0.008000\n"
    )
    unknown = lines(line("1", model="ours", tags={"cost": "unknown"}))
    message = failure(lambda: unknown.assert_cost_below(1))
    assert "got unknown: ours has no price; pass init(prices={'ours': ...})" in message


def test_a_call_without_a_price_is_marked_as_these_assertions_expect(patched):
    with capture() as events:
        call("a-model-nobody-sells")
    assert "a-model-nobody-sells-2024-08-06 has no price" in failure(lambda: events.assert_cost_below(1))


def test_the_tokens_are_asserted():
    events = lines(line("1", input_tokens=60, output_tokens=40))
    events.assert_tokens_below(101)
    assert failure(lambda: events.assert_tokens_below(100)).startswith(
        "expected fewer than 100 tokens, got 100\n"
    )


def test_the_tools_are_asserted():
    events = lines(line("1", tools_used=["search", "read"]), line("2", tools_used=["search"]))
    events.assert_tools(["search", "read", "search"])
    events.assert_tools(["read", "search", "search"], any_order=True)
    assert "expected the tools ['search'], got ['search', 'read', 'search']\n" in failure(
        lambda: events.assert_tools(["search"])
    )


def test_errors_are_asserted(patched):
    with capture() as events:
        with pytest.raises(openai.NotFoundError):
            call(status=404)
        message = failure(events.assert_no_errors)
    assert message.startswith("expected no errors, got 1, the first: llm gpt-4o chat error not_found")
    assert "no such model" in message


def test_a_long_recording_is_not_listed_to_its_end():
    events = lines(*[line(str(number)) for number in range(500)])
    assert repr(events).count("\n") == 51


# ---- the other parts -----------------------------------------------------------------------------------------


def exporting(memory, **options):
    return Exporter(memory, flush_interval=0.01, **options)


class Note:
    size = 100

    def event(self):
        return make()


def test_the_memory_transport_keeps_what_it_accepts():
    replies = iter([Reply(503, {})])
    memory = MemoryTransport(lambda _batch: next(replies, Reply(202, {})))
    exporter = exporting(memory, rand=lambda: 0.01)
    for _ in range(3):
        exporter.submit(Note())
    assert exporter.flush(20)
    assert exporter.close(20)
    assert len(memory.events) == 3
    assert [batch.events for batch in memory.batches][-1] == memory.events
    assert 0 < memory.batches[0].timeout <= 10
    assert exporter.stats().retried == len(memory.batches) - 1 >= 1


def test_the_memory_transport_may_fail_as_a_network_does():
    def down(_batch):
        raise TransportError("no route")

    memory = MemoryTransport(down)
    exporter = exporting(memory)
    exporter.submit(Note())
    assert not exporter.flush(0.2)
    assert memory.events == []
    exporter.close(0)


def test_the_fake_clock_stands_still_until_it_is_told():
    clock = FakeClock(5.0)
    assert clock() == clock() == 5.0
    assert clock.advance(2.5) == clock() == 7.5
    with pytest.raises(ValueError, match=r"advance: -1 cannot be used"):
        clock.advance(-1)


def test_the_loopback_backend_takes_and_refuses():
    with LoopbackBackend() as backend:
        lumiqtrace.init(backend.key, base_url=backend.url, flush_interval=0.01)
        with lumiqtrace.span("one"):
            pass
        backend.wait_for(lambda: len(backend.events) == 1, 30)
        backend.answer = lambda request: Answer(404)
        with lumiqtrace.span("two"):
            pass
        lumiqtrace.flush(20)
        backend.wait_for(lambda: len(backend.requests) == 2, 30)
        assert [event["name"] for event in backend.events] == ["one"]
        assert backend.requests[0].headers["x-api-key"] == KEY
        assert "still waiting after 0.01 s; so far came 2 requests with 1 accepted events" in failure(
            lambda: backend.wait_for(lambda: False, 0.01)
        )


def test_the_loopback_backend_takes_what_is_not_compressed():
    with LoopbackBackend() as backend:
        request = urllib.request.Request(backend.url + "/v1/ingest", data=b'{"name": "x"}\n\n', method="POST")
        with urllib.request.urlopen(request, timeout=20) as response:
            assert (response.status, response.read()) == (202, b"{}")
    assert backend.events == [{"name": "x"}]


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_the_loopback_backend_takes_as_accepted_what_the_sdk_does(status):
    with LoopbackBackend(lambda _request: Answer(status)) as backend:
        lumiqtrace.init(backend.key, base_url=backend.url)
        with lumiqtrace.span("one"):
            pass
        assert lumiqtrace.flush(20)
    assert lumiqtrace.get_client().stats().sent == len(backend.events) == 1


def test_the_loopback_backend_is_gone_when_its_block_ends():
    with LoopbackBackend() as backend, socket.create_connection(backend.url[7:].split(":"), 20) as kept:
        request = b"POST /v1/ingest HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"
        kept.sendall(request)
        backend.wait_for(lambda: len(backend.requests) == 1, 20)
        answered = kept.recv(65536)
        backend.__exit__(None, None, None)
        with suppress(OSError):
            kept.sendall(request)
        with suppress(OSError):
            while part := kept.recv(65536):
                answered += part
    assert answered.count(b"HTTP/1.1 202") == 1
    assert len(backend.requests) == 1


def test_the_loopback_backend_may_be_used_again():
    backend = LoopbackBackend()
    for _ in range(2):
        with backend:
            urllib.request.urlopen(backend.url, data=b'{"a": 1}', timeout=20).close()
    assert len(backend.events) == 2


# ---- the page and the plugin ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_pages_blocks_run(number, tmp_path):
    file = tmp_path / "test_block.py"
    file.write_text(BLOCKS[number])
    command = [sys.executable, "-W", "error", str(file)]
    if "def test_" in BLOCKS[number]:
        command = [*PYTEST, str(file)]
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


# What other plugins are installed is not our business here; a plugin is named as a user's pytest would find it.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "lumiqtrace_pytest"]


def run(command, folder, **environment):
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("LUMIQTRACE_", "PYTEST_"))
    }
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=50, check=False,
        env=env | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
    )  # fmt: skip


SUITE = """
import lumiqtrace
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(lumiqtrace_events, number):
    with lumiqtrace.span(f"span {number}"):
        pass
    assert [event.name for event in lumiqtrace_events] == [f"span {number}"]

def test_nothing_is_left():
    assert not lumiqtrace.get_client().recording
"""


@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "2"]], ids=["alone", "xdist"])
def test_the_fixture_in_a_fresh_pytest(options, tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run([*PYTEST, *options], tmp_path)
    assert "7 passed" in done.stdout, done.stdout + done.stderr


def test_a_failure_shows_the_test_s_line_and_what_was_recorded(tmp_path):
    code = """
import lumiqtrace

def test_cheap(lumiqtrace_events):
    with lumiqtrace.span("answer", "agent") as span:
        span.set_usage(cost_usd=0.5)
    lumiqtrace_events.assert_cost_below(0.01)
"""
    (tmp_path / "test_cheap.py").write_text(code)
    done = run(PYTEST, tmp_path)
    assert done.returncode == 1
    assert ">       lumiqtrace_events.assert_cost_below(0.01)" in done.stdout
    assert "E       AssertionError: expected a cost below $0.01, got $0.500000" in done.stdout
    assert "agent answer success $0.500000" in done.stdout
    assert "raise AssertionError" not in done.stdout, "our own code is no part of the traceback"


def test_the_plugin_costs_a_pytest_that_does_not_use_it_nothing(tmp_path):
    code = "import sys\n\ndef test_nothing():\n    assert not any(name.partition('.')[0] == 'lumiqtrace' for name in sys.modules)\n"
    (tmp_path / "test_nothing.py").write_text(code)
    done = run(PYTEST, tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_finds_the_plugin_by_its_entry_point(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    info = tmp_path / "site" / "plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nlumiqtrace = lumiqtrace_pytest\n")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "lumiqtrace"]
    done = run(command, tmp_path, PYTHONPATH=str(info.parent))
    assert "7 passed" in done.stdout, done.stdout + done.stderr


def test_importing_it_imports_no_library():
    code = "import sys, lumiqtrace.testing\nprint(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = run(
        [sys.executable, "-S", "-c", f"import json, sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{code}"],
        ROOT,
    )
    foreign = set(json.loads(done.stdout)) - set(sys.stdlib_module_names) - {"lumiqtrace", "__main__"}
    assert foreign == set()
