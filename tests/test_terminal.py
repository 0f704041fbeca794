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


def test_what_drives_a_terminal_is_left_out():
    text = shown([span("\x1b[31mred\x07\r\n", tools_used=["\x9b2J"], status="\x1b]0;owned\x07")])
    assert not any(character in text for character in "\x1b\x07\x9b\r")


values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text())
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["timestamp", "model", "latency_ms", "status", "input_tokens", "cost_usd", "tools_used"]
        ),
        values,
    )
)
def test_no_span_is_too_odd(fields):
    shown([{**fields, "children": None}])
