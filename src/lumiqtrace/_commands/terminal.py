"""A trace in the terminal: a tree of its spans, each with a time bar, latency, tokens, cost and status.

Below a span stands, on one line, what it says about its request, its scores and its error. What was used and
not counted, or has no price, is `unknown`, in the totals too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from .words import printable

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

TIMESTAMP_STEP: Final = 1.0
"""Milliseconds: spans say in whole ones when they began, so that a child may seem to outlast its parent."""

UNKNOWN: Final = "unknown"

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
    """One span, with the lines that lead to it, and those beside what is written under it."""

    span: dict[str, Any]
    guide: str
    under: str


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
        ends = [o + _number(r.span, "latency_ms") for o, r in zip(self._offsets, self._rows, strict=True)]
        of_roots = max((end for end, row in zip(ends, self._rows, strict=True) if not row.guide), default=0.0)
        last = max(ends, default=0.0)
        self._total = last if last - of_roots >= TIMESTAMP_STEP else of_roots

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
            notes = _notes(row.span, is_root=not row.guide)
            if notes:
                yield Text(row.under, style="dim", no_wrap=True, overflow="ellipsis").append_text(notes)
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
        children = span.get("children") or []
        yield Row(span, guide, below + ("│  " if children else "   "))
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
        label.append("  → " + printable(", ".join(map(str, tools))), style="cyan")
    return label


def _notes(span: dict[str, Any], *, is_root: bool) -> Text:
    """What a span says beside its figures; the user and the session, which all have, of a root alone."""
    tags, notes = _mapping(span, "tags"), []
    if "http.status_code" in tags:
        request = (tags.get(name) for name in ("http.method", "http.path", "http.status_code"))
        notes.append(" ".join(_one_line(part) for part in request if part))
    if is_root:
        owners = (("user", span.get("user_id")), ("session", span.get("session_id")))
        notes += [f"{name} {_one_line(value)}" for name, value in owners if value]
    scores = _mapping(span, "eval_scores").items()
    notes += [f"score {_one_line(name)} {_one_line(_rounded(score))}" for name, score in scores]
    line = Text(GAP.join(notes), style="not bold")
    if span.get("error_message"):
        message = _one_line(span["error_message"])
        line.append((GAP if notes else "") + message, style=f"not dim {_style(_text(span, 'status'))}")
    return line


def _facts(span: dict[str, Any], *, narrow: bool) -> dict[str, Text]:
    """The figures by their column; a narrow terminal gets the most telling ones."""
    status, dollars = _text(span, "status"), _number(span, "cost_usd")
    missing = "?" if narrow and dollars else UNKNOWN
    facts = {
        "latency": _duration(_number(span, "latency_ms")),
        "tokens in/out": _tokens(span, cached=not narrow),
        "cost": _cost(dollars, missing=missing if _is_unpriced(span) else ""),
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
    uncounted = _calls(sum(map(_is_uncounted, spans)))
    tokens = f"{tokens_in:,} tokens in, {tokens_out:,} out" + (uncounted and f" + {uncounted}")
    dollars = _cost(cost, missing=_calls(sum(map(_is_unpriced, spans)))) or "$0"
    line = Text(f"{len(spans)} span{'' if len(spans) == 1 else 's'}", style="bold")
    line.append(GAP + GAP.join((_duration(total), tokens, dollars)), style="not bold")
    if failed:
        line.append(f"  {failed} not successful", style="not bold red")
    return line


def _tokens(span: dict[str, Any], *, cached: bool) -> str:
    used = int(_number(span, "input_tokens")), int(_number(span, "output_tokens"))
    from_cache = int(_number(span, "cached_tokens"))
    if not any(used):
        return UNKNOWN if _is_uncounted(span) else ""
    return f"{used[0]:,}/{used[1]:,}" + (f" ({from_cache:,} cached)" if cached and from_cache else "")


def _is_uncounted(span: dict[str, Any]) -> bool:
    """Whether the provider did not say what a call used; one that it refused at once used nothing."""
    refused = span.get("status") in ("error", "rate_limited") and span.get("ttft_ms") is None
    return _mapping(span, "tags").get("usage") == "missing" and not refused


def _is_unpriced(span: dict[str, Any]) -> bool:
    """Whether a call cost more than it says."""
    unsaid = _is_uncounted(span) and not _number(span, "cost_usd")
    return unsaid or _mapping(span, "tags").get("cost") == "unknown"


def _calls(unknown: int) -> str:
    return f"{unknown} call{'' if unknown == 1 else 's'} {UNKNOWN}" if unknown else ""


def _cost(dollars: float, *, missing: str) -> str:
    """`missing` says what has no price."""
    known = f"${dollars:.6f}" if dollars else ""
    return " + ".join(part for part in (known, missing) if part)


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
    return printable(str(value)) if value is not None else ""


def _mapping(span: dict[str, Any], key: str) -> dict[Any, Any]:
    value = span.get(key)
    return value if isinstance(value, dict) else {}


def _rounded(score: object) -> object:
    return f"{score:g}" if isinstance(score, float) else score


def _one_line(value: object) -> str:
    return printable(" ".join(str(value).split()))
