"""Makes the price index from the price package that is installed; see `_price_index`.

Runs when lumiqtrace is built, and as `lumiqtrace prices`. The rates are the package's own answers, as
`_pricing` gets them; a model is held only if they are the same for every ordinary call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import combinations, product
from pathlib import Path
from typing import Any, Final, NamedTuple

from .._price_index import ALWAYS, COUNTS, ORDINARY, OTHER, PACKAGE, Held, is_held
from .._pricing import linear_rates

ADDRESSES: Final = (
    "https://api.openai.com/",
    "https://api.anthropic.com/",
    "https://generativelanguage.googleapis.com/",
)
"""Known without trying the patterns of all providers, each of which is compiled first."""

MANY: Final = 100_000_000
"""Tokens of a call beyond any that is made: what is linear up to there is linear."""

Ask = Callable[..., Any]
"""Gives the package's calculation for counts and a context, or None. The time is of no matter to it."""


class Made(NamedTuple):
    """What an index holds."""

    release: str
    providers: int
    models: int
    held: int


def make_index(file: Path) -> Made:
    """Write the index of the installed release; raises ImportError where there is none."""
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    lines = {provider.id: _models(provider) for provider in snapshot.providers}
    head = {
        "release": version(PACKAGE),
        "addresses": {url: snapshot.find_provider(None, None, url).id for url in ADDRESSES},
        "patterns": [(provider.api_pattern, provider.id) for provider in snapshot.providers],
        "lines": {provider: number for number, provider in enumerate(lines)},
    }
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines.values()))
    _replace(file, text)
    models = [model for line in lines.values() for model in line]
    held = sum(held is not None for _, held in models)
    return Made(version(PACKAGE), len(lines), len(models), held)


def _models(provider: Any) -> list[tuple[list[Any], Held | None]]:
    """In the package's order, as the first that matches a name is taken."""
    clauses = [_clause(model.match) for model in provider.models]
    return [
        ([OTHER], None) if clause is None else (clause, _held(provider, model))
        for clause, model in zip(clauses, provider.models, strict=True)
    ]


def _clause(match: Any) -> list[Any] | None:
    """As `matches` reads it; None for a kind that a later release of the package may bring."""
    name, value = next(iter(vars(match).items()))
    kind = name.rstrip("_")
    if kind in ("or", "and"):
        parts = [_clause(each) for each in value]
        return None if None in parts else [kind, *parts]
    if kind == "regex":
        return [kind, value]
    return [kind, value.lower()] if kind in ("equals", "starts_with", "ends_with", "contains") else None


def _held(provider: Any, model: Any) -> Held | None:
    """None for a model whose price depends on more than the counts, or not in a straight line."""
    latest = _latest(model.prices)
    if latest is None:
        return None
    prices, since = latest
    moment = max(datetime.now(UTC), datetime.fromisoformat(since).replace(tzinfo=UTC))
    ask = partial(_ask, provider, model, moment)
    up_to = _first_tier(prices)
    most = MANY if up_to is None else up_to
    if len({_total(ask(_counts(most), context)) for context in _contexts()}) > 1:
        return None
    rates = linear_rates(ask, COUNTS, step=most // 128)
    held = None if rates is None else Held(rates, up_to, since)
    return held if held and all(_agrees(ask, held, size) for size in (most, most // 7)) else None


def _latest(prices: Any) -> tuple[Any, str] | None:
    """The price that holds from a day on for good, and that day; None where it depends on the hour."""
    if not isinstance(prices, list):
        return prices, ALWAYS
    days = [ALWAYS if each.constraint is None else _first_day(each.constraint) for each in prices]
    # Of those that hold at a time the package takes the last; from the last day on they all hold.
    return None if None in days else (prices[-1].prices, max(day for day in days if day))


def _first_day(constraint: Any) -> str | None:
    day = getattr(constraint, "start_date", None)
    return None if day is None else str(day.isoformat())


def _first_tier(prices: Any) -> int | None:
    tiers = [tier.start for price in vars(prices).values() for tier in getattr(price, "tiers", ())]
    return min(tiers, default=None)


def _contexts() -> list[dict[str, str | None]]:
    return [dict(zip(ORDINARY, values, strict=True)) for values in product(*ORDINARY.values())]


def _counts(tokens: int) -> dict[str, float]:
    """Those of a call with so many input tokens: the others contain each other as theirs do."""
    return dict(zip(COUNTS, (tokens, tokens // 50, tokens // 3, tokens // 25, tokens // 200), strict=True))


def _agrees(ask: Ask, held: Held, tokens: int) -> bool:
    """Whether the package says of every selection of the counts what the rates say."""
    whole = _counts(tokens)
    rates = dict(zip(COUNTS, held.rates, strict=True))
    for names in _selections():
        counts = {name: whole[name] for name in names}
        told = _total(ask(counts))
        reckoned = sum(rates[name] * count for name, count in counts.items())
        if told is None or abs(told - reckoned) > 1e-9:
            return False
    return True


def _selections() -> list[tuple[str, ...]]:
    """Input and output, with any of the others that a call may come with."""
    always, others = COUNTS[:2], COUNTS[2:]
    found = [(*always, *some) for size in range(len(others) + 1) for some in combinations(others, size)]
    return [names for names in found if is_held(names)]


def _total(calculation: Any) -> float | None:
    return None if calculation is None else float(calculation.total_price)


def _ask(
    provider: Any,
    model: Any,
    moment: datetime,
    counts: dict[str, float],
    context: dict[str, str | None] | None = None,
) -> Any:
    """The package's calculation; None where it has none for such counts."""
    from genai_prices import Usage

    try:
        return model.calc_price(
            Usage(**counts), provider, genai_request_timestamp=moment, price_context=context
        )
    except (LookupError, ValueError):
        return None


def _replace(file: Path, text: str) -> None:
    """Whole or not at all: another process may be reading it."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
