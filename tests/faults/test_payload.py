"""Whatever the application records: it returns at once, nothing raises, and one line of valid JSON arrives."""

from __future__ import annotations

import dataclasses
import enum
import gc
import json
import math
import resource
import sys
import threading
import time
import uuid
from collections import OrderedDict, UserDict, defaultdict, deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pydantic
import pytest
from backend import KEY
from hypothesis import given
from hypothesis import strategies as st
from test_openai import CHAT, Served, reply

import lumiqtrace
from lumiqtrace._encode import MAX_LINE_BYTES, MAX_TEXT, encode
from lumiqtrace._event import Event

HUGE = 20_000_000
MANY = 20_000
"""Small events in one go; the promise is for a million."""


def line(**fields):
    """The one line that an event with `fields` becomes, read as strictly as can be."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    told = {
        "event_id": str(uuid.uuid4()), "trace_id": "a" * 32, "span_id": "b" * 16, "timestamp": "2026-04-20T10:00:00.000Z",
        "provider": "custom", "model": "m", "operation": "custom", "latency_ms": 1.0,
    }  # fmt: skip
    encoded = encode(Event(**{**told, **fields}))
    assert b"\n" not in encoded
    assert len(encoded) <= MAX_LINE_BYTES
    return json.loads(encoded.decode("utf-8"), parse_constant=refuse)


def shown(value):
    """What becomes of a value of the metadata."""
    return line(metadata={"value": value})["metadata"].get("value")


@pytest.fixture
def deliver(client, backend):
    """Record what a function does to a span, and give the one event that arrives."""

    def run(mark):
        with lumiqtrace.span("work") as span:
            mark(span)
        assert lumiqtrace.flush(30)
        [event] = backend.events
        return event

    return run


# ---- D1: size ----------------------------------------------------------------------------------------


def test_a_huge_text_is_cut_and_the_caller_does_not_wait_for_it(deliver):
    text = "x" * HUGE
    spent = []

    def mark(span):
        began = time.thread_time()
        span.set_attribute("text", text)
        span.set_metadata("text", text)
        span.set_error(text)
        spent.append(time.thread_time() - began)

    event = deliver(mark)
    assert event["tags"]["text"] == "x" * MAX_TEXT + "…"
    assert len(event["metadata"]["text"]) < 70_000
    assert len(event["error_message"]) <= 500
    assert spent[0] < 2, "copying or reading it all takes longer"


@pytest.mark.parametrize("store", [False, True])
def test_a_huge_prompt_is_cut_and_little_memory_is_taken(backend, store):
    lumiqtrace.init(KEY, base_url=backend.url, store_prompts=store)
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))
    served.create()  # what is loaded with the first call is not counted
    assert lumiqtrace.flush(30)
    prompt = "word " * (HUGE // 5)
    served.create(messages=[{"role": "user", "content": prompt}])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert lumiqtrace.flush(50)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    event = backend.events[-1]
    assert len(event["prompt_hash"]) == 64
    assert ("prompt" in event) == store
    assert len(event.get("prompt", "")) < 40_000
    assert taken < 8 * HUGE


def test_a_text_beyond_the_memory_bound_is_cut_as_well(client, deliver):
    event = deliver(lambda span: span.set_metadata("text", "x" * 40_000_000))
    assert len(event["metadata"]["text"]) == 65_537
    assert client.stats().dropped == {}


def test_very_many_small_events_stay_within_the_bounds_and_are_accounted_for(backend):
    release = threading.Event()
    accept = backend.answer
    backend.answer = lambda request: (release.wait(40), accept(request))[1]
    client = lumiqtrace.init(KEY, base_url=backend.url, max_queue_events=1000)
    for _ in range(MANY):
        with lumiqtrace.span("small"):
            pass
    stats = client.stats()
    assert stats.recorded == MANY
    assert stats.queued + stats.in_flight <= 1000
    assert stats.dropped["queue_full"] >= MANY - 1100
    release.set()
    lumiqtrace.flush(30)
    stats = client.stats()
    assert stats.sent + stats.dropped["queue_full"] == MANY
    assert len(backend.events) == stats.sent


# ---- D2 to D4: values that JSON has no word for -------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    name: str


class Words(str):
    __slots__ = ()

    def __len__(self):
        raise SystemExit("no length")

    def __str__(self):
        return self


class Loud(dict):
    def items(self):
        raise SystemExit("no items")


class Odd(list):
    def __len__(self):
        raise ValueError("not now")

    def __iter__(self):
        raise ValueError("not today")


class Endless(list):
    def __iter__(self):
        while True:
            yield 1


VALUES = {
    "bytes": (b"\xff", "b'\\xff'"),
    "bytearray": (bytearray(b"a"), "bytearray(b'a')"),
    "set": ({1}, [1]),
    "frozenset": (frozenset("a"), ["a"]),
    "decimal": (Decimal("1.50"), "1.50"),
    "fraction": (Fraction(1, 3), "1/3"),
    "complex": (1 + 2j, "(1+2j)"),
    "datetime": (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
    "timedelta": (timedelta(seconds=1), "0:00:01"),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "enum": (Colour.RED, "Colour.RED"),
    "int enum": (Level.HIGH, "3"),
    "path": (Path("a") / "b", str(Path("a") / "b")),
    "dataclass": (Point(1), "Point(x=1)"),
    "pydantic": (Model(name="n"), "name='n'"),
    "numpy integer": (np.int64(3), "3"),
    "numpy float": (np.float64(0.5), "0.5"),
    "numpy array": (np.array([1, 2]), "[1 2]"),
    "namespace": (SimpleNamespace(a=1), "namespace(a=1)"),
    "mapping proxy": (MappingProxyType({"a": 1}), "{'a': 1}"),
    "user dict": (UserDict({"a": 1}), "{'a': 1}"),
    "ordered dict": (OrderedDict(a=1), {"a": 1}),
    "default dict": (defaultdict(list, a=[1]), {"a": [1]}),
    "deque": (deque([1, 2]), "deque([1, 2])"),
    "range": (range(3), "range(0, 3)"),
    "class": (int, "<class 'int'>"),
    "keys that are no text": ({None: 1, (1, 2): 2, 3.5: 3}, {"None": 1, "(1, 2)": 2, "3.5": 3}),
    "nan": (math.nan, None),
    "infinities": ([math.inf, -math.inf], [None, None]),
    "minus zero": (-0.0, -0.0),
    "beyond doubles": ([2**53, 2**53 + 1, -(2**53) - 1], [2**53, str(2**53 + 1), str(-(2**53) - 1)]),
    "beyond text": (10**6000, "<unprintable int>"),
    "lone surrogates": ("a\ud800b\udfff", "a?b?"),
    "a surrogate as a key": ({"\ud800": 1}, {"?": 1}),
    "nul and separators": ("\x00\u2028\u2029\x85\r\n", "\x00\u2028\u2029\x85\r\n"),
    "a text with another length": (Words("text"), "text"),
    "a list with methods that fail": (Odd([1]), [1]),
    "a dict with methods that fail": (Loud(a=1), {"a": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value_becomes_readable(name):
    value, expected = VALUES[name]
    assert shown(value) == expected
    assert shown([value]) == [expected]


@pytest.mark.parametrize("name", VALUES)
def test_the_same_as_a_tag_a_label_and_a_score(client, backend, name):
    value, _ = VALUES[name]
    with lumiqtrace.context(user_id=value, tags={"label": value}), lumiqtrace.span("work", tag=value) as span:
        span.set_attribute("later", value)
        span.set_eval_score("score", value)
        span.set_eval_score(value, 1.0)
        span.set_error(value)
        span.set_metadata("value", value)
        lumiqtrace.set_attribute("on the trace", value)
        lumiqtrace.set_usage(input_tokens=value)
    assert lumiqtrace.flush(30)
    [event] = backend.events
    assert all(type(tag) is str for tag in event["tags"].values())
    assert all(type(score) in (float, int) for score in event["eval_scores"].values())


def test_a_generator_is_not_consumed():
    values = (number for number in range(3))
    assert shown(values).startswith("<generator")
    assert shown({"deep": [values]})["deep"][0].startswith("<generator")
    assert list(values) == [0, 1, 2]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.floats(), inner) | st.tuples(inner),
    max_leaves=20,
))  # fmt: skip
def test_anything_is_one_line_of_strict_json(value):
    line(metadata={"value": value}, tags={"tag": value}, eval_scores={"score": value}, model=str(value))


# ---- D5: endless shapes -------------------------------------------------------------------------------


def endless_shapes():
    cycle = {}
    cycle["self"] = [cycle]
    deep = "end"
    for _ in range(100_000):
        deep = [deep]
    shared = "end"
    for _ in range(100):
        shared = [shared, shared]
    wide = {str(number): list(range(100)) for number in range(2_000)}
    mutual = SimpleNamespace()
    mutual.self = mutual
    return {
        "cycle": cycle,
        "deep": deep,
        "shared": shared,
        "wide": wide,
        "mutual": mutual,
        "endless": Endless([1]),
    }


@pytest.mark.parametrize("name", ["cycle", "deep", "shared", "wide", "mutual", "endless"])
def test_an_endless_shape_ends(deliver, name):
    value = endless_shapes()[name]
    event = deliver(lambda span: (span.set_metadata("value", value), span.set_attribute("tag", value)))
    assert len(json.dumps(event)) <= MAX_LINE_BYTES


# ---- D6: hostile classes ------------------------------------------------------------------------------


def hostile(error):
    def fail(self, *args):
        raise error

    return type(
        "Hostile",
        (),
        dict.fromkeys(("__str__", "__repr__", "__len__", "__iter__", "__hash__", "__eq__", "__bool__"), fail),
    )


HOSTILE = {
    "an error": hostile(ValueError("no")),
    "an exit": hostile(SystemExit(3)),
    "a generator's end": hostile(GeneratorExit()),
    "no memory": hostile(MemoryError()),
    "deeper than there is": hostile(RecursionError()),
    "no text": type("Hostile", (), {"__str__": lambda self: 7}),
    "attributes that fail": type("Hostile", (), {"__getattr__": lambda self, name: 1 / 0, "__str__": lambda self: 1 / 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_object_is_replaced(deliver, name):
    value = HOSTILE[name]()

    def mark(span):
        span.set_attribute("tag", value)
        span.set_metadata("value", {"inside": [value], "good": 1})
        span.set_eval_score("score", value)
        span.set_error(value)
        lumiqtrace.set_attribute("user.id", value)

    event = deliver(mark)
    assert event["tags"]["tag"].startswith("<unprintable")
    assert event["metadata"]["value"]["inside"][0].startswith("<unprintable")
    assert event["metadata"]["value"]["good"] == 1
    assert event["user_id"].startswith("<unprintable")


def test_an_exception_that_cannot_be_shown_passes_as_it_is(client, backend):
    class UnshowableError(Exception):
        def __str__(self):
            raise SystemExit(3)

    error = UnshowableError()
    with pytest.raises(UnshowableError) as caught, lumiqtrace.span("work"):
        raise error
    assert caught.value is error
    assert lumiqtrace.flush(30)
    [event] = backend.events
    assert event["error_code"] == "UnshowableError"
    assert event["error_message"] == "<unprintable UnshowableError>"


def test_a_keyboard_interrupt_while_a_value_is_shown_passes(client):
    with lumiqtrace.span("work") as span, pytest.raises(KeyboardInterrupt):
        span.set_attribute("tag", hostile(KeyboardInterrupt())())


# ---- D7: values that change meanwhile -----------------------------------------------------------------


def test_values_that_another_thread_changes_while_they_are_read(client, backend):
    shared = {"dict": {}, "list": [], "set": set()}
    stop = threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            shared["dict"][number % 500] = number
            shared["dict"].pop((number * 7) % 500, None)
            shared["list"].append(number)
            del shared["list"][:-300]
            shared["set"].add(number)
            if len(shared["set"]) > 500:
                shared["set"].clear()
                stop.wait(0.0005)  # our thread and the backend's want the interpreter as well

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(200):
            with lumiqtrace.span("work", tag=shared["list"]) as span:
                span.set_metadata("value", shared)
                span.set_attribute("text", shared["dict"])
        assert lumiqtrace.flush(30)
    finally:
        stop.set()
        changer.join()
        sys.setswitchinterval(before)
    assert len(backend.events) == 200
    assert client.stats().internal_errors == 0


def test_values_that_other_threads_change_while_garbage_is_collected(client, backend):
    """Up to Python 3.11 a collection may run inside of `list(mapping.items())`, and what it calls may wait."""

    class Ordered(OrderedDict):
        pass

    # Python has up to 2,000 pairs at hand and takes new memory for what is beyond.
    plain = {str(number): number for number in range(3000)}
    ordered = Ordered(plain)
    changes = 0

    def change(phase, info):
        nonlocal changes
        changes += 1
        if changes % 5000 == 0:  # rarely, as threads do, or nothing could ever read them
            for shared in (plain, ordered):
                if shared.pop("1", None) is None:
                    shared["1"] = changes

    before = gc.get_threshold()
    gc.callbacks.append(change)
    gc.set_threshold(1)
    try:
        for _ in range(10):
            with lumiqtrace.span("work") as span:
                span.set_metadata("plain", plain)
                span.set_metadata("ordered", ordered)
        assert lumiqtrace.flush(30)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(change)
    assert changes > 100
    assert len(backend.events) == 10
    assert all(event["metadata"]["ordered"]["0"] == 0 for event in backend.events)


# ---- D10 and D11 --------------------------------------------------------------------------------------


def test_an_exception_is_the_same_object_with_one_frame_more(client, backend):
    error = LookupError("mine")

    def fail():
        raise error

    def depth(function):
        with pytest.raises(LookupError) as caught:
            function()
        assert caught.value is error
        found, traceback = 0, caught.value.__traceback__
        while traceback is not None:
            found, traceback = found + 1, traceback.tb_next
        error.__traceback__ = None
        return found

    assert depth(lumiqtrace.observe_span(fail)) == depth(fail) + 1
    assert error.__cause__ is None
    assert error.__context__ is None
    assert lumiqtrace.flush(30)
    [event] = backend.events
    assert (event["status"], event["error_code"], event["error_message"]) == ("error", "LookupError", "mine")


TAGS = {
    "many": ({f"tag {number}": number for number in range(10_000)}, lambda tags: 0 < len(tags) <= 10_000),
    "an empty name": ({"": "x"}, lambda tags: tags == {"": "x"}),
    "names that collide as text": ({1: "one", "1": "text"}, lambda tags: tags == {"1": "text"}),
    "long names": ({"k" * 100_000: "x"}, lambda tags: max(map(len, tags)) <= MAX_TEXT + 1),
    "names of our own": (
        {"event_id": "x", "trace_id": "y", "cost": "z"},
        lambda tags: tags == {"event_id": "x", "trace_id": "y", "cost": "z"},
    ),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_of_any_name_and_number(deliver, name):
    tags, fits = TAGS[name]
    event = deliver(lambda span: [span.set_attribute(key, value) for key, value in tags.items()])
    assert len(json.dumps(event)) <= MAX_LINE_BYTES
    assert event["name"] == "work"
    assert fits(event["tags"]), list(event["tags"])[:3]


@pytest.mark.parametrize(
    "name",
    ["", " ", "\x00", "n" * 100_000, 7, None, HOSTILE["an exit"]()],
    ids=lambda value: type(value).__name__,
)
def test_a_span_of_any_name_arrives(client, backend, name):
    with lumiqtrace.span(name):
        pass
    assert lumiqtrace.flush(30)
    assert len(backend.events) == 1
