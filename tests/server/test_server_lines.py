"""What a line must hold to be an event, and that nothing in a line is ever the server's undoing."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_helpers import Api, event, ndjson

from lumiqtrace.server.lines import MAX_EVENT_BYTES, BadLineError, parse_line

REQUIRED = sorted(set(event()))
TIME = 'an ISO 8601 time with a zone, like "2026-04-20T10:00:00.000Z"'
ID = "a string of 1 to 256 characters"
COUNT = "an integer from 0 to 2**53"
HTTP = settings(
    deadline=None,
    max_examples=100,
    # The server and its project outlive the examples; that is meant.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def error_of(line: bytes) -> str:
    with pytest.raises(BadLineError) as caught:
        parse_line(line)
    return str(caught.value)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_left_out_or_null_is_named(name: str) -> None:
    without = {key: value for key, value in event().items() if key != name}
    assert error_of(ndjson([without])) == f"{name}: required"
    assert error_of(ndjson([without | {name: None}])) == f"{name}: required"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("event_id", "not-a-uuid", "a UUID"),
        ("event_id", 7, "a UUID"),
        ("trace_id", "", ID),
        ("trace_id", "x" * 257, ID),
        ("span_id", 12, ID),
        ("parent_span_id", ["span-001"], "a string of at most 256 characters"),
        ("timestamp", "yesterday", TIME),
        ("timestamp", "2026-04-20T10:00:00", TIME),
        ("timestamp", 1776679200, TIME),
        ("provider", "mistral", "one of openai, anthropic, google, custom"),
        ("operation", "Chat", "one of chat, embed, image, tts, custom, tool, agent"),
        ("status", "ok", "one of success, error, timeout, rate_limited, cancelled"),
        ("model", False, "a string"),
        ("latency_ms", "843", "a number from 0"),
        ("latency_ms", -0.5, "a number from 0"),
        ("ttft_ms", True, "a number from 0"),
        ("cost_usd", [0.1], "a number from 0"),
        ("input_tokens", 1.5, COUNT),
        ("output_tokens", -1, COUNT),
        ("cached_tokens", 10**30, COUNT),
        ("stream", "false", "true or false"),
        ("tags", {"team": 7}, "an object of strings"),
        ("tags", ["team"], "an object of strings"),
        ("tools_used", "search", "a list of strings"),
        ("tools_used", ["search", None], "a list of strings"),
        ("eval_scores", {"faithfulness": "high"}, "an object of numbers"),
        ("user_id", 4421, "a string"),
    ],
)
def test_a_wrong_value_is_shown_beside_what_would_be_right(name: str, value: Any, right: str) -> None:
    message = error_of(ndjson([event(**{name: value})]))
    sent = json.dumps(value)
    shown = sent if len(sent) <= 40 else sent[:40] + "..."
    assert message == f"{name}: {shown} is not {right}"


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "tool"},
        {"operation": "agent"},
        {"input_tokens": 12.0, "output_tokens": 0, "cached_tokens": 3e2},
        {"latency_ms": 0, "cost_usd": 0},
        {"timestamp": "2026-04-20T12:00:00+02:00"},
        {"timestamp": "2026-04-20T10:00:00.123456789Z"},
        {"timestamp": "0001-01-01T00:00:00+14:00"},
        {"parent_span_id": ""},
        {"parent_span_id": None, "ttft_ms": None, "tags": None, "tools_used": None, "user_id": None},
        {"tags": {}, "tools_used": [], "eval_scores": {"a": 1, "b": -0.5}},
        {"trace_id": "x" * 256},
        {"span_kind": "whatever", "name": "step", "metadata": {"deep": [1, {"er": None}]}},
    ],
)
def test_what_the_schema_allows_is_taken_and_given_back_as_sent(api: Api, fields: dict[str, Any]) -> None:
    sent = event(**fields)
    answer = api.send(sent)
    assert answer.json() == {"accepted": 1}
    assert api.spans(sent["trace_id"]) == [{"parent_span_id": None} | sent]


def test_unknown_fields_and_numbers_keep_their_bytes(api: Api) -> None:
    line = ndjson([event()])[:-1] + b', "exact": 1.50, "huge": 1e999, "children": "mine"}'
    assert api.post(line).json() == {"accepted": 1}
    text = api.get("trace-abc").text
    assert '"exact":1.50' in text
    assert '"huge":1e999' in text
    assert '"children":[]' in text
    assert "mine" not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'"text"', "not a JSON object"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b'{"latency_ms": NaN}', "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b'{"unknown": "\\ud800"}', "not valid JSON"),
        (b'{"unknown": "\xff"}', "not UTF-8"),
        (b'{"unknown": ' + b"[" * 100_000 + b"}", "nested too deeply"),
        (b"[" * 100_000, "not a JSON object"),
        (ndjson([event(model="x" * MAX_EVENT_BYTES)]), "event too large"),
        (ndjson([event()]).replace(b"843", b"1e999"), "latency_ms: 1e999 is not a number from 0"),
    ],
    ids=range(11),
)
def test_hostile_lines_get_a_reason(line: bytes, message: str) -> None:
    assert error_of(line).startswith(message)


@pytest.mark.parametrize(
    "trace_id",
    ["a/b", "../x", "nul\0", "'; DROP TABLE events; --", "line\nend\n", "\u00e9 \U0001f600", "%2e"],
)
def test_an_id_is_just_a_string(api: Api, trace_id: str) -> None:
    sent = event(trace_id=trace_id, span_id="s\0", model="m\0")
    assert api.send(sent).json() == {"accepted": 1}
    quoted = "".join(f"%{byte:02X}" for byte in trace_id.encode())
    assert api.spans(quoted) == [sent | {"parent_span_id": None}]


def json_of(numbers: st.SearchStrategy[float], text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | numbers | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


# Python's json writes NaN, Infinity and lone surrogates, which are not JSON.
json_values = json_of(st.floats(), st.text(st.characters(exclude_categories=[]), max_size=8))
almost_events = st.dictionaries(
    st.sampled_from([*REQUIRED, "tags", "tools_used", "eval_scores", "ttft_ms"]), json_values, max_size=3
).map(lambda changes: event(**changes))
lines = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    almost_events.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b" ")),
)


@HTTP
@given(body=st.lists(lines, max_size=8).map(b"\n".join))
def test_no_body_whatever_is_the_servers_fault(api: Api, body: bytes) -> None:
    answer = api.post(body)
    assert answer.status_code in (202, 400), answer.text
    found = answer.json().get("accepted", 0) + len(answer.json().get("errors", []))
    assert found == sum(1 for line in body.split(b"\n") if line.strip(b" \t\r\n"))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
identifiers = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
amounts = st.floats(0, 1e300)
counts = st.integers(0, 2**53)
finite = st.floats(allow_nan=False, allow_infinity=False)
strict_values = json_of(finite, text)
events = st.fixed_dictionaries(
    {
        "span_id": identifiers,
        "timestamp": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
        "provider": st.sampled_from(["openai", "anthropic", "google", "custom"]),
        "model": text,
        "latency_ms": amounts,
        "input_tokens": counts,
        "output_tokens": counts,
        "cost_usd": amounts,
        "status": st.sampled_from(["success", "error", "timeout", "rate_limited", "cancelled"]),
        "stream": st.booleans(),
    },
    optional={
        "parent_span_id": text,
        "tags": st.dictionaries(text, text, max_size=3),
        "tools_used": st.lists(text, max_size=3),
        "eval_scores": st.dictionaries(text, finite, max_size=3),
        "error_message": text,
        "x_unknown": strict_values,
    },
)


@HTTP
@given(sent=st.lists(events, min_size=1, max_size=10))
def test_any_mix_of_good_events_comes_back_as_it_was(api: Api, sent: list[dict[str, Any]]) -> None:
    # The ids are new even when an example is run again, or it would be a repetition for the server too.
    trace_id = str(uuid.uuid4())
    whole = [event(**fields, trace_id=trace_id) for fields in sent]
    assert api.send(*whole).json() == {"accepted": len(whole)}
    stored = {span["event_id"]: span for span in api.spans(trace_id)}
    assert stored == {each["event_id"]: {"parent_span_id": None} | each for each in whole}


def test_the_same_moment_in_two_zones_is_the_same_time() -> None:
    here = parse_line(ndjson([event(timestamp="1970-01-01T02:00:01.5+02:00")]))
    assert here.timestamp == 1_500_000
    assert math.isclose(parse_line(ndjson([event()])).timestamp / 1e6, 1_776_679_200)
