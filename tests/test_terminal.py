from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lumiqtrace._commands.terminal import TraceView


def span(name, *children, at=0, latency=100.0, **fields):
    return {
        "timestamp": f"2026-04-20T10:00:00.{at:03d}Z", "model": name, "name": name, "operation": "chat",
        "span_kind": "llm", "latency_ms": latency, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0,
        "status": "success", **fields, "children": list(children),
    }  # fmt: skip


def shown(roots, width=140):
    out = io.StringIO()
    Console(file=out, width=width).print(TraceView(roots))
    return out.getvalue()


TRACE = [
    span(
        "root",
        span("gpt-4o", at=10, latency=500.0, ttft_ms=50.5, input_tokens=1200, output_tokens=34,
             cached_tokens=1000, cost_usd=0.0125, tools_used=["look_up"]),
        span("claude", span("deep", at=600), at=600, latency=200.0, status="error", error_code="overloaded"),
        latency=1000.0,
    )
]  # fmt: skip


def test_the_tree_with_all_its_figures():
    lines = shown(TRACE).splitlines()
    assert lines[1].startswith("root")
    assert lines[2].startswith("├─ gpt-4o")
    assert lines[3].startswith("└─ claude")
    assert lines[4].startswith("   └─ deep")
    for part in ("→ look_up", "500.0 ms", "50.5 ms", "1,200/34 (1,000 cached)", "$0.012500"):
        assert part in lines[2]
    assert lines[3].rstrip().endswith("error overloaded")
    assert lines[6].strip() == "4 spans  1.00 s  1,200 tokens in, 34 out  $0.012500  1 not successful"


def test_bars_stand_where_the_time_was():
    lines = shown(TRACE).splitlines()
    root, call, late = (line.index("━") for line in lines[1:4])
    assert root <= call < late
    assert lines[1].count("━") > lines[2].count("━") > lines[3].count("━")


def test_what_a_span_says_beside_its_figures_stands_below_it():
    root = span(
        "POST /ask", span("search", eval_scores={"best": 0.49613945}), span("gpt-4o", status="error", error_message="no\nsuch model"),
        tags={"http.method": "POST", "http.path": "/ask", "http.status_code": "500"}, user_id="u-7", session_id="s-1",
    )  # fmt: skip
    lines = [line.rstrip() for line in shown([root]).splitlines()]
    assert lines[2] == "│  POST /ask 500  user u-7  session s-1"
    assert lines[3].startswith("├─ search")
    assert lines[4] == "│     score best 0.496139"
    assert lines[6] == "      no such model"


def test_a_user_is_told_once():
    text = shown([span("root", span("inner", user_id="u-7"), user_id="u-7")])
    assert text.count("u-7") == 1


@pytest.mark.parametrize(
    ("fields", "figures"),
    [
        ({"tags": {"usage": "missing"}}, ["unknown", "unknown"]),
        ({"tags": {"usage": "missing"}, "status": "cancelled"}, ["unknown", "unknown"]),
        ({"tags": {"usage": "missing"}, "status": "error", "ttft_ms": 3.0}, ["unknown", "unknown"]),
        ({"tags": {"usage": "missing"}, "status": "error"}, []),
        ({"tags": {"usage": "missing"}, "cost_usd": 0.5}, ["unknown", "$0.500000"]),
        ({"tags": {"cost": "unknown"}, "input_tokens": 7}, ["7/0", "unknown"]),
        ({"tags": {"cost": "unknown"}, "input_tokens": 7, "cost_usd": 0.5}, ["7/0", "$0.500000 + unknown"]),
        ({"tags": {"usage": "told", "cost": "told"}}, []),
    ],
)
def test_what_nobody_counted_or_priced_is_unknown(fields, figures):
    line = shown([span("root", span("gpt-4o", **fields), input_tokens=1, cost_usd=1)]).splitlines()[2]
    found = [part for part in line.split("  ") if "unknown" in part or "/" in part or "$" in part]
    assert [part.strip() for part in found] == figures


def test_the_totals_say_what_they_do_not_know():
    missing, unpriced = {"tags": {"usage": "missing"}}, {"tags": {"cost": "unknown"}, "input_tokens": 7}
    spans = [span("a", **missing), span("b", **unpriced), span("c", input_tokens=10, cost_usd=0.25)]
    assert shown(spans).splitlines()[-1] == (
        "3 spans  100.0 ms  17 tokens in, 0 out + 1 call unknown  $0.250000 + 2 calls unknown"
    )
    assert shown([span("b", **unpriced)]).splitlines()[-1].endswith("7 tokens in, 0 out  1 call unknown")


@pytest.mark.parametrize(("ends", "total"), [(0.9, "0.6 ms"), (1.7, "1.7 ms")])
def test_the_total_is_the_roots_time_unless_a_child_surely_outlasted_it(ends, total):
    root = span("root", span("inner", at=0, latency=ends), latency=0.6)
    assert f"2 spans  {total}  " in shown([root])


@pytest.mark.parametrize("width", [20, 60, 80, 100, 250])
def test_it_fits_whatever_it_is_given(width):
    assert all(len(line) <= width for line in shown(TRACE, width).splitlines())


def test_a_chain_of_thousands_is_shown():
    chain = span("end")
    for number in range(5000):
        chain = span(f"step {number}", chain)
    assert "5,001" not in shown([chain])
    assert shown([chain]).splitlines()[-1].startswith("5001 spans")


def test_nothing_at_all_is_shown_as_such():
    assert "0 spans" in shown([])


def test_one_is_not_many():
    assert shown([span("root")]).splitlines()[-1].startswith("1 span  ")


def test_what_drives_a_terminal_is_left_out():
    odd = "\x1b]0;owned\x07"
    text = shown(
        [
            span(
                "\x1b[31mred\x07\r\n", tools_used=["\x9b2J"], status=odd, error_message=odd, user_id=odd,
                session_id=odd, eval_scores={odd: odd},
                tags={"http.method": odd, "http.path": odd, "http.status_code": odd},
            )
        ]
    )  # fmt: skip
    assert not any(character in text for character in "\x1b\x07\x9b\r")


values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text())
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("timestamp", "model", "latency_ms", "status", "input_tokens", "cost_usd", "tools_used"),
                *("tags", "eval_scores", "error_message", "user_id", "session_id", "ttft_ms"),
            ]
        ),
        values | st.dictionaries(st.sampled_from(["usage", "cost", "http.path", "http.status_code"]), values),
    )
)
def test_no_span_is_too_odd(fields):
    shown([{**fields, "children": None}])
