"""One decision per trace, the same everywhere; what failed is kept with `sample_errors`; rate 0 is nothing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import openai
import pytest
from backend import KEY
from hypothesis import given
from hypothesis import strategies as st
from test_encode import make
from test_openai import CHAT, STREAM, Served, reply, streamed

import lumiqtrace
from lumiqtrace import _default
from lumiqtrace._event import new_trace_id
from lumiqtrace._sampler import Held, keeps


class Part:
    """A recording of a trace, and where it is told, the trace's root."""

    def __init__(self, name, failed=False, ended=False, size=100):
        self.name = name
        self.failed = failed
        self.ended = ended
        self.size = size

    def event(self):
        return make(name=self.name)


class Trace:
    def __init__(self, root=None, *, sampled=False, holds=True):
        self.trace_id = new_trace_id()
        self.sampled = sampled
        self.holds = holds
        self.root = root


@given(st.text() | st.from_regex("[0-9a-f]{32}", fullmatch=True), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_the_smaller_one(trace_id, one, other):
    low, high = sorted((one, other))
    assert not keeps(trace_id, low) or keeps(trace_id, high)
    assert keeps(trace_id, 1.0)
    assert not keeps(trace_id, 0.0)


@pytest.mark.parametrize(
    "make_id",
    [
        lambda number: hashlib.md5(b"%d" % number).hexdigest(),
        lambda number: uuid.UUID(hashlib.md5(b"%d" % number).hexdigest(), version=4).hex,
        lambda number: f"request-{number}",
        lambda number: f"{number}",
    ],
    ids=["w3c", "from a UUID", "foreign", "a number"],
)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_is_the_rate(make_id, rate):
    kept = sum(keeps(make_id(number), rate) for number in range(10_000))
    assert abs(kept / 10_000 - rate) < 0.02


def test_every_process_decides_the_same():
    ids = [new_trace_id() for _ in range(200)] + ["a", "é", "request-7"]
    code = f"from lumiqtrace._sampler import keeps\nprint([keeps(i, 0.3) for i in {ids!r}])"
    found = {
        subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, check=True, timeout=50).stdout.strip()
        for _ in range(2)
    }  # fmt: skip
    assert found == {str([keeps(trace_id, 0.3) for trace_id in ids])}


def test_a_rate_of_nothing_makes_no_thread_and_no_request(backend):
    before = set(threading.enumerate())
    client = lumiqtrace.init(KEY, base_url=backend.url, sample_rate=0.0)
    assert not client.recording
    with lumiqtrace.span("unseen") as span:
        assert span.trace_id is None
    client.record(Part("unseen"))
    assert client.flush()
    assert client.stats() == lumiqtrace.Stats()
    assert set(threading.enumerate()) <= before
    assert backend.requests == []


def test_what_is_not_sampled_goes_no_further(client, backend):
    client.record(Part("left"), Trace(holds=False))
    client.record(Part("kept"), Trace(sampled=True))
    client.record(Part("alone"))
    assert client.flush()
    assert [event["name"] for event in backend.events] == ["kept", "alone"]
    assert client.stats().recorded == 2


@pytest.fixture
def keeper(backend):
    return lumiqtrace.init(KEY, base_url=backend.url, sample_rate=0.0, sample_errors=True)


def test_a_failed_trace_is_kept_whole(keeper, backend):
    assert keeper.recording
    root = Part("root")
    trace = Trace(root)
    for part in (Part("first"), Part("second", failed=True), Part("third")):
        keeper.record(part, trace)
    assert keeper.flush()
    assert backend.requests == [], "nothing is known before the root has ended"
    assert keeper.stats().recorded == 0
    keeper.record(root, trace)
    keeper.record(Part("late"), trace)
    assert keeper.flush()
    assert [event["name"] for event in backend.events] == ["first", "second", "third", "root", "late"]
    assert trace.sampled


def test_a_trace_that_went_well_is_let_go_and_not_called_lost(keeper, backend):
    root = Part("root")
    trace = Trace(root)
    keeper.record(Part("first"), trace)
    keeper.record(root, trace)
    root.ended = True
    keeper.record(Part("late"), trace)
    assert keeper.flush()
    assert keeper.stats() == lumiqtrace.Stats()
    keeper.record(Part("late and failed", failed=True), trace)
    assert keeper.flush()
    assert [event["name"] for event in backend.events] == ["late and failed"]


def test_the_end_of_the_process_decides_what_is_still_open(keeper, backend):
    keeper.record(Part("well"), Trace(Part("root")))
    keeper.record(Part("failed", failed=True), Trace(Part("root")))
    assert keeper.shutdown()
    assert [event["name"] for event in backend.events] == ["failed"]


def test_the_spans_of_a_trace_share_its_decision(backend):
    client = lumiqtrace.init(KEY, base_url=backend.url, sample_rate=0.5)
    for _ in range(200):
        with lumiqtrace.span("root"), lumiqtrace.span("child"):
            pass
    assert client.flush(10)
    names: dict[str, list[str]] = {}
    for event in backend.events:
        names.setdefault(event["trace_id"], []).append(event["name"])
    assert 50 < len(names) < 150
    assert all(keeps(trace_id, 0.5) for trace_id in names)
    assert set(map(tuple, names.values())) == {("child", "root")}
    assert client.stats().recorded == 2 * len(names)


def test_a_failed_span_keeps_its_trace(keeper, backend):
    with lumiqtrace.span("root"), lumiqtrace.span("child"):
        pass
    with lumiqtrace.span("root"), lumiqtrace.span("fine"):  # noqa: SIM117 - what is around the error is fine
        with contextlib.suppress(ValueError), lumiqtrace.span("broken"):
            raise ValueError
    assert keeper.flush()
    assert [event["name"] for event in backend.events] == ["broken", "fine", "root"]


@pytest.mark.parametrize(
    ("rate", "errors", "least", "most"), [(0.0, False, 0, 0), (0.5, False, 5, 49), (0.0, True, 54, 54)]
)
def test_model_calls_are_sampled_and_their_failures_kept(backend, rate, errors, least, most):
    client = lumiqtrace.init(KEY, base_url=backend.url, sample_rate=rate, sample_errors=errors)
    lumiqtrace.patch_openai()

    def fail():
        with pytest.raises(openai.RateLimitError):
            Served(reply({}, 429)).create()

    Served(reply(CHAT)).create()
    list(Served(streamed(STREAM)).create(stream=True))
    for _ in range(50):
        fail()
    with lumiqtrace.span("good"):
        Served(reply(CHAT)).create()
    with lumiqtrace.span("bad"):
        Served(reply(CHAT)).create()
        list(Served(streamed(STREAM)).create(stream=True))
        fail()
    assert client.flush()
    assert least <= len(backend.events) <= most
    assert sum(event["status"] == "rate_limited" for event in backend.events) == (51 if errors else 0) or rate
    stats = client.stats()
    assert (stats.recorded, stats.dropped, stats.internal_errors) == (len(backend.events), {}, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_holds_nothing_of_its_parent(backend):
    code = f"""
import os, lumiqtrace
from test_sampler import Part, Trace
client = lumiqtrace.init({KEY!r}, base_url={backend.url!r}, sample_rate=0.0, sample_errors=True)
client.record(Part("the parent's", failed=True), Trace(Part("root")))
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    client.record(Part("the child's", failed=True), Trace(Part("root")))
client.shutdown()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50, cwd=Path(__file__).parent)
    assert [event["name"] for event in backend.events] == ["the child's", "the parent's"]


def test_off_for_a_rate_of_nothing_is_said(caplog):
    _default._said_off = False
    with caplog.at_level(logging.INFO, "lumiqtrace"):
        lumiqtrace.init(KEY, sample_rate=0.0)
    assert "sample_rate is 0" in caplog.text


def test_what_is_held_is_bounded_by_events_and_the_oldest_trace_goes():
    held = Held(max_events=10)
    traces = [Trace(Part("root")) for _ in range(8)]
    for trace in traces:
        assert held.add(Part("a", failed=True), trace) == []
        held.add(Part("b"), trace)
    assert len(held) == 10
    kept = [len(held.add(trace.root, trace)) for trace in traces]
    assert kept == [0, 0, 0, 3, 3, 3, 3, 3]
    assert len(held) == 0


def test_what_is_held_is_bounded_by_bytes():
    held = Held(max_bytes=1000)
    trace = Trace(Part("root"))
    held.add(Part("small"), trace)
    held.add(Part("large", size=900), Trace(Part("root")))
    held.add(Part("small"), Trace(Part("root")))
    assert len(held) == 2
    held.add(Part("too large", size=2000), Trace(Part("root")))
    assert len(held) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["part", "failed", "root"])), max_size=60))
def test_each_trace_is_judged_on_its_own(steps):
    held = Held()
    traces = [Trace(Part(f"root {number}")) for number in range(6)]
    given_to: dict[int, list[Part]] = {number: [] for number in range(6)}
    for number, what in steps:
        trace = traces[number]
        if trace.root.ended:
            continue
        part = trace.root if what == "root" else Part(what, failed=what == "failed")
        out = held.add(part, trace)
        given_to[number].append(part)
        if what == "root":
            part.ended = True
            assert out == (given_to[number] if any(one.failed for one in given_to[number]) else [])
        else:
            assert out == []
    open_parts = [len(given_to[number]) for number in range(6) if not traces[number].root.ended]
    assert len(held) == sum(open_parts)


def test_threads_may_meet():
    held = Held(max_events=500)
    out: list[list[Part]] = []

    def work():
        for _ in range(300):
            trace = Trace(Part("root"))
            for _ in range(5):
                held.add(Part("a", failed=True), trace)
            out.append(held.add(trace.root, trace))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(group) for group in out] == [6] * 2400
    assert len(held) == 0
