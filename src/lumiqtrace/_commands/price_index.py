"""Makes the price index from the price package that is installed; see `_price_index`.

Runs when lumiqtrace is built, and as `lumiqtrace prices`. The rates are the package's own answers. A model is
held only if everything its price depends on is of a kind known here, and the answers bear the rates out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

from .._price_index import ALWAYS, COUNTS, ORDINARY, OTHER, PACKAGE, Held
from .._price_package import linear_rates

ADDRESSES: Final = (
    "https://api.openai.com/",
    "https://api.anthropic.com/",
    "https://generativelanguage.googleapis.com/",
)
"""Known without trying the patterns of all providers, each of which is compiled first."""

STEP: Final = 1_000_000
"""By so much each count is raised to see its rate, and by a 128th of a tier where that is less."""

PROBED: Final = (1, 1_000, 50_000, 300_000, 10_000_000)
"""Input tokens of the calls that rates are tried with."""

Ask = Callable[[Mapping[str, float]], Any]
"""Gives the package's calculation for counts, or None."""


class Made(NamedTuple):
    """What an index holds."""

    release: str
    providers: int
    models: int
    held: int


def make_index(file: Path) -> Made:
    """Write the index of the installed release. Raises ImportError where there is none, and OSError."""
    from genai_prices import data
    from genai_prices.data_snapshot import DataSnapshot

    lines = {provider.id: [_row(provider, model) for model in provider.models] for provider in data.providers}
    head = {
        "release": version(PACKAGE),
        "size": Path(str(data.__file__)).stat().st_size,
        "addresses": _addresses(DataSnapshot(providers=data.providers, from_auto_update=False)),
        "patterns": [(provider.api_pattern, provider.id) for provider in data.providers],
        "resold": {
            provider.id: provider.fallback_model_providers
            for provider in data.providers
            if provider.fallback_model_providers
        },
        "lines": {provider: number for number, provider in enumerate(lines)},
    }
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines.values()))
    _replace(file, text)
    held = sum(held is not None for line in lines.values() for _, held in line)
    return Made(version(PACKAGE), len(lines), sum(map(len, lines.values())), held)


def _addresses(snapshot: Any) -> dict[str, str]:
    found = {}
    for url in ADDRESSES:
        with suppress(LookupError):
            found[url] = snapshot.find_provider(None, None, url).id
    return found


def _row(provider: Any, model: Any) -> tuple[list[Any], Held | None]:
    clause = _clause(model.match)
    if clause is None:
        return [OTHER], None
    try:
        return clause, _held(provider, model)
    except Exception:  # noqa: BLE001 - a release of another shape: of this model the package is asked
        return clause, None


def _clause(match: Any) -> list[Any] | None:
    """As `matches` reads it; None for a kind that a later release may bring."""
    fields = list(getattr(match, "__dict__", {}).items())
    if len(fields) != 1:
        return None
    kind, value = fields[0][0].rstrip("_"), fields[0][1]
    if kind in ("or", "and"):
        parts = [_clause(each) for each in value]
        return None if None in parts else [kind, *parts]
    if kind == "regex":
        return [kind, value]
    return [kind, value.lower()] if kind in ("equals", "starts_with", "ends_with", "contains") else None


def _held(provider: Any, model: Any) -> Held | None:
    """None for a model whose price depends on more than the counts and a day, or not in a straight line."""
    latest = _latest(model.prices)
    if latest is None or not all(_is_known(price) for price in vars(latest[0]).values()):
        return None
    prices, since = latest
    if any(_matters(variant, prices) for variant in model.price_variants or ()):
        return None
    moment = max(datetime.now(UTC), datetime.fromisoformat(since).replace(tzinfo=UTC))
    ask = partial(_ask, provider, model, moment)
    up_to = _first_tier(prices)
    step = STEP if up_to is None else min(STEP, up_to // 128)
    rates = linear_rates(ask, COUNTS, step) if step else None
    held = None if rates is None else Held(rates, up_to, since)
    tried = [size for size in (*PROBED, up_to) if size and (up_to is None or size <= up_to)]
    return held if held and all(_agrees(ask, held, size) for size in tried) else None


def _latest(prices: Any) -> tuple[Any, str] | None:
    """The price that holds from a day on for good, and that day; None where it depends on more."""
    if not isinstance(prices, list):
        return prices, ALWAYS
    days = [_first_day(each.constraint) for each in prices]
    # Of those that hold at a time the package takes the last; from the last day on they all hold.
    return None if None in days else (prices[-1].prices, max(day for day in days if day))


def _first_day(constraint: Any) -> str | None:
    if constraint is None:
        return ALWAYS
    return str(constraint.start_date.isoformat()) if vars(constraint).keys() == {"start_date"} else None


def _is_known(price: Any) -> bool:
    """Whether it is a plain price, or one with tiers by the input tokens."""
    return price is None or isinstance(price, Decimal) or vars(price).keys() == {"base", "tiers"}


def _matters(variant: Any, prices: Any) -> bool:
    """Whether an ordinary call may be priced by it, and otherwise than by `prices`."""
    if not all(value in ORDINARY.get(name, ()) for name, value in variant.when.items()):
        return False
    own = {name: price for name, price in vars(variant.prices).items() if price is not None}
    return any(vars(prices).get(name) != price for name, price in own.items())


def _first_tier(prices: Any) -> int | None:
    tiers = [tier.start for price in vars(prices).values() for tier in getattr(price, "tiers", ())]
    return min(tiers, default=None)


def _agrees(ask: Ask, held: Held, tokens: int) -> bool:
    """Whether the package says what the rates say, of a call with so many input tokens."""
    read, written, long_written = tokens // 3, tokens // 25, tokens // 200
    whole = dict(zip(COUNTS, (tokens, tokens // 50 + 1, read, written, long_written), strict=True))
    rates = dict(zip(COUNTS, held.rates, strict=True))
    for names in _selections():
        counts: dict[str, float] = {name: whole[name] for name in names}
        told = ask(counts)
        reckoned = sum(rates[name] * count for name, count in counts.items())
        if told is None or abs(float(told.total_price) - reckoned) > 1e-9 * max(1.0, reckoned):
            return False
    return True


def _selections() -> list[tuple[str, ...]]:
    """Input and output, with any of the others; what is written for an hour is a part of what is written."""
    always, (read, written, long_written) = COUNTS[:2], COUNTS[2:]
    parts = (read, written, long_written)
    found = [(*always, *some) for size in range(len(parts) + 1) for some in combinations(parts, size)]
    return [names for names in found if written in names or long_written not in names]


def _ask(provider: Any, model: Any, moment: datetime, counts: Mapping[str, float]) -> Any:
    """The package's calculation; None where it has none for such counts."""
    from genai_prices import Usage

    try:
        return model.calc_price(Usage(**counts), provider, genai_request_timestamp=moment)
    except (LookupError, ValueError):
        return None


def _replace(file: Path, text: str) -> None:
    """Whole or not at all, and for everybody to read: another process may be reading it."""
    handle, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        beside.chmod(0o644)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    make_index(Path(sys.argv[1]))
