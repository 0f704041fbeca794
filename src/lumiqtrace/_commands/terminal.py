"""A trace in the terminal: a tree of its spans, each with a time bar, latency, tokens, cost and status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

COLUMNS: Final = ("latency", "ttft", "tokens in/out", "cost", "status")
"""The figures of a span, after its label and its bar."""

GAP: Final = "  "
MIN_LABEL: Final = 24
MIN_BAR: Final = 6
MAX_BAR: Final = 32
NARROW: Final = 110
"""Columns of a terminal below which some figures are left out."""

MAX_INDENT: Final = 24
"""Levels that are still drawn as such."""

_STYLES: Final = {
    "success": "green",
    "error": "bold red",
    "timeout": "bold red",
    "rate_limited": "yellow",
    "cancelled": "dim",
}
_STATES: Final = {"ok": "green", "note": "dim", "warning": "yellow", "failure": "bold red"}


@dataclass(frozen=True, slots=True)
class Row:
    """One span, with the lines that lead to it."""

    span: dict[str, Any]
    guide: str


def console(*, stderr: bool = False) -> Console:
    """A console; where nobody watches, wide enough that no column is cut."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def finding_text(lines: list[str], state: str) -> Text:
    """The lines of a finding of `lumiqtrace doctor`, its state in colour."""
    text = Text("\n".join(lines), overflow="fold")
    text.stylize(_STATES.get(state, "white"), 0, len(state))
    return text


class TraceView:
    """The tree and its totals, from what `GET /v1/traces/...` answers; fits the width it is given."""

    def __init__(self, roots: list[dict[str, Any]]) -> None:
        self._rows = list(_rows(roots))
        starts = [_start(row.span) for row in self._rows]
        begin = min(starts, default=0.0)
        self._offsets = [start - begin for start in starts]
        ends = (o + _number(r.span, "latency_ms") for o, r in zip(self._offsets, self._rows, strict=True))
        self._total = max(ends, default=0.0)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line a span, laid out here: a table would measure each cell again, at 4 ms a row."""
        labels = [_label(row) for row in self._rows]
        facts = [_facts(row.span, narrow=options.max_width < NARROW) for row in self._rows]
        names = [name for name in COLUMNS if any(name in fact for fact in facts)]
        figures = [[fact.get(name, Text()) for name in names] for fact in facts]
        widths = [max(cell_len(n), *(f[i].cell_len for f in figures)) for i, n in enumerate(names)]
        # What the figures leave over goes to the labels, then to the bars.
        left = options.max_width - sum(widths) - len(GAP) * (len(names) + 1)
        label_width = max(MIN_LABEL, min(max((t.cell_len for t in labels), default=0), left - MIN_BAR))
        bar_width = max(MIN_BAR, min(MAX_BAR, left - label_width))
        widths = [label_width, bar_width, *widths]

        yield _line([Text(name, style="dim") for name in ("span", "time", *names)], widths)
        for row, label, offset, cells in zip(self._rows, labels, self._offsets, figures, strict=True):
            yield _line([label, _bar(row.span, offset, self._total, bar_width), *cells], widths)
        yield Text()
        yield _totals([row.span for row in self._rows], self._total)


def _line(cells: list[Text], widths: list[int]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    last = len(cells) - 1
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        if number < last:
            cell.truncate(width, overflow="ellipsis")
            cell.align("left" if number < 2 else "right", width)
        line.append_text(cell).append(GAP if number < last else "")
    return line


def _rows(roots: list[dict[str, Any]]) -> Iterator[Row]:
    """Depth first, without recursion: a chain of agent steps may be thousands deep."""
    waiting = [(span, "", "") for span in reversed(roots)]
    while waiting:
        span, guide, below = waiting.pop()
        yield Row(span, guide)
        children = span.get("children") or []
        deeper = below[: 3 * MAX_INDENT]
        for index, child in reversed(list(enumerate(children))):
            last = index == len(children) - 1
            waiting.append((child, deeper + ("└─ " if last else "├─ "), deeper + ("   " if last else "│  ")))


def _label(row: Row) -> Text:
    span = row.span
    is_call = span.get("span_kind") in (None, "llm")
    label = Text(row.guide, style="dim")
    label.append((_text(span, "model") if is_call else _text(span, "name")) or "?", style="bold")
    label.append("  " + (_text(span, "operation") if is_call else _text(span, "span_kind")), style="dim")
    tools = span.get("tools_used")
    if isinstance(tools, list) and tools:
        label.append("  → " + _printable(", ".join(map(str, tools))), style="cyan")
    return label


def _facts(span: dict[str, Any], *, narrow: bool) -> dict[str, Text]:
    """The figures by their column; a narrow terminal gets the most telling ones."""
    status = _text(span, "status")
    facts = {
        "latency": _duration(_number(span, "latency_ms")),
        "tokens in/out": _tokens(span, cached=not narrow),
        "cost": _cost(_number(span, "cost_usd")),
    }
    if not narrow and span.get("ttft_ms") is not None:
        facts["ttft"] = _duration(_number(span, "ttft_ms"))
    shown = {name: Text(fact) for name, fact in facts.items()}
    shown["status"] = Text(f"{status} {_text(span, 'error_code')}".strip(), style=_style(status))
    return shown


def _style(status: str) -> str:
    return _STYLES.get(status, "white")


def _bar(span: dict[str, Any], offset: float, total: float, width: int) -> Text:
    latency = _number(span, "latency_ms")
    scale = width / total if total > 0 else 0.0
    left = max(0, min(width - 1, int(offset * scale)))
    length = max(1, min(width - left, round(latency * scale)))
    return Text(" " * left).append("━" * length, style=_style(_text(span, "status")))


def _totals(spans: list[dict[str, Any]], total: float) -> Text:
    failed = sum(1 for span in spans if span.get("status") != "success")
    tokens_in = int(sum(_number(span, "input_tokens") for span in spans))
    tokens_out = int(sum(_number(span, "output_tokens") for span in spans))
    cost = sum(_number(span, "cost_usd") for span in spans)
    line = Text(f"{len(spans)} spans", style="bold")
    rest = f"  {_duration(total)}  {tokens_in:,} tokens in, {tokens_out:,} out  {_cost(cost) or '$0'}"
    line.append(rest, style="not bold")
    if failed:
        line.append(f"  {failed} not successful", style="not bold red")
    return line


def _tokens(span: dict[str, Any], *, cached: bool) -> str:
    used = int(_number(span, "input_tokens")), int(_number(span, "output_tokens"))
    from_cache = int(_number(span, "cached_tokens"))
    if not any(used):
        return ""
    return f"{used[0]:,}/{used[1]:,}" + (f" ({from_cache:,} cached)" if cached and from_cache else "")


def _cost(dollars: float) -> str:
    return f"${dollars:.6f}" if dollars else ""


def _duration(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.1f} ms"


def _start(span: dict[str, Any]) -> float:
    """When the span began, in milliseconds of Unix time."""
    try:
        return datetime.fromisoformat(str(span.get("timestamp"))).timestamp() * 1000
    except ValueError:
        return 0.0


def _number(span: dict[str, Any], key: str) -> float:
    value = span.get(key)
    # Beyond 1e15 nothing here is a figure any more, and text of it would not end.
    return float(value) if isinstance(value, int | float) and -1e15 < value < 1e15 else 0.0


def _text(span: dict[str, Any], key: str) -> str:
    value = span.get(key)
    return _printable(str(value)) if value is not None else ""


def _printable(text: str) -> str:
    """What a span says goes to a terminal: without the characters that would drive it."""
    return "".join(character for character in text if character.isprintable())
