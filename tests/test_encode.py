from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._encode import MAX_LINE_BYTES, compress, decompress, encode
from lumiqtrace._event import Event, iso_timestamp, new_event_id, new_span_id, new_trace_id


def make(**fields):
    known = {
        "event_id": new_event_id(),
        "trace_id": new_trace_id(),
        "span_id": new_span_id(),
        "timestamp": iso_timestamp(1_776_679_200.25),
        "provider": "openai",
        "model": "gpt-4o",
        "operation": "chat",
        "latency_ms": 12.5,
    }
    return Event(**{**known, **fields})


def read(line):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line.decode("utf-8"), parse_constant=refuse)


REQUIRED = [
    "event_id",
    "trace_id",
    "span_id",
    "timestamp",
    "provider",
    "model",
    "operation",
    "latency_ms",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "status",
    "stream",
    "environment",
    "sdk_version",
]


def test_every_required_field_is_there_and_nothing_that_is_unknown():
    found = read(encode(make()))
    assert set(found) == set(REQUIRED)
    assert found["timestamp"] == "2026-04-20T10:00:00.250Z"


def test_the_names_are_those_of_the_ingest_schema():
    full = make(
        parent_span_id="a" * 16, ttft_ms=1.0, cached_tokens=1, error_code="x", error_message="y",
        finish_reason="stop", user_id="u", session_id="s", tags={"a": "b"}, tools_used=["t"],
        eval_scores={"e": 1.0}, prompt_hash="f" * 64, span_kind="llm", name="n", metadata={"m": 1},
    )  # fmt: skip
    extra = (
        "parent_span_id ttft_ms cached_tokens error_code error_message finish_reason user_id session_id "
        "tags tools_used eval_scores prompt_hash span_kind name metadata"
    )
    assert set(read(encode(full))) == {*REQUIRED, *extra.split()}


class Colour(Enum):
    RED = 1


class Hostile:
    def __str__(self):
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"bytes", "b'bytes'"),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        (Decimal("1.50"), "1.50"),
        (datetime(2026, 1, 2), "2026-01-02 00:00:00"),  # noqa: DTZ001 - any will do
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "Colour.RED"),
        (math.nan, None),
        (math.inf, None),
        (-0.0, -0.0),
        (2**53 + 1, str(2**53 + 1)),
        (10**6000, "<unprintable int>"),
        (Hostile(), "<unprintable Hostile>"),
        ({(1, 2): "x"}, {"(1, 2)": "x"}),
        ("a\ud800b", "a?b"),
        ("nul \x00 line\u2028", "nul \x00 line\u2028"),
        ("x" * 70_000, "x" * 65_536 + "…"),
        (list(range(5000)), [*range(4096), "…"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_becomes_something_readable(value, shown):
    found = read(encode(make(metadata={"value": value})))
    assert found["metadata"].get("value") == shown


def test_depth_and_cycles_end():
    cycle: list[object] = []
    cycle.append(cycle)
    deep: object = "end"
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        assert len(encode(make(metadata={"value": value}))) < 20_000


def test_the_same_thing_many_times_on_many_levels_ends():
    value: object = "end"
    for _ in range(64):
        value = [value, value]
    assert len(encode(make(metadata={"value": value}))) < MAX_LINE_BYTES


def test_metadata_goes_before_tags_where_a_line_is_too_long():
    found = read(encode(make(metadata={str(n): "y" * 60_000 for n in range(9)}, tags={"a": "b"})))
    assert "metadata" not in found
    assert found["tags"] == {"a": "b"}


def test_a_huge_event_is_cut_to_a_line_the_server_takes():
    tags = {f"tag{n}": "y" * 8000 for n in range(200)}
    line = encode(make(tags=tags))
    assert len(line) <= MAX_LINE_BYTES
    assert "tags" not in read(line)


def test_texts_that_grow_when_they_are_escaped_still_fit():
    texts = dict.fromkeys(("prompt", "completion", "model", "name", "error_message"), "\x01" * 40000)
    line = encode(make(**texts))
    assert len(line) <= MAX_LINE_BYTES
    assert read(line)["prompt"].startswith("\x01")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(json_like, st.text())
def test_one_line_of_valid_json_whatever_comes(value, text):
    line = encode(make(metadata={"value": value}, model=text, tags={text: text}))
    assert b"\n" not in line
    assert read(line)["provider"] == "openai"


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line), min_size=1))
def test_a_batch_gives_back_its_lines(lines):
    assert decompress(compress(lines)) == lines
