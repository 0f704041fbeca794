"""The prices of the genai-prices package, loaded when a call is first priced by it; never from the network.

A calculation takes it 50 us (measured); where a price is linear in the counts, the rates of the last call of
the kind are kept for a minute, because some prices depend on the time of day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

from ._lifecycle import loading

MAX_KEPT: Final = 1000
"""Kinds of calls whose rates are kept; model names come from outside."""

_MILLION: Final = 1_000_000

_PROBE: Final = {
    "input_tokens": 100,
    "output_tokens": 100,
    "cache_write_1h_tokens": 1,
    "cache_audio_read_tokens": 1,
    "cache_image_read_tokens": 1,
}
"""Steps to probe a price with, 10 for the others: a count is larger than those that are parts of it."""

Place = tuple[str, str]
"""What a model is looked up by, `provider_api_url` or `provider_id`, with its value."""


class Call(NamedTuple):
    """What the package wants to know of a call."""

    model: str
    timestamp: str
    """ISO 8601 in UTC."""
    places: tuple[Place | None, ...]
    """Where to look the model up, best first; None is by its name alone."""
    service_tier: str | None
    speed: str | None
    counts: Mapping[str, float]
    """Under the package's names; input and output come first, the others are parts of them."""

    @property
    def context(self) -> dict[str, str | None]:
        """What prices may depend on beside the counts and the time."""
        return {"service_tier": self.service_tier, "speed": self.speed}


class PricePackage:
    """The package, and what it said. One thread at a time uses it."""

    def __init__(self) -> None:
        self._library: Any = None
        self._rates: dict[tuple[Any, ...], tuple[float, ...] | None] = {}

    def cost(self, call: Call) -> float | None:
        """US dollars; None for a model without a price."""
        key = (*call[:1], call.timestamp[:16], *call.places, *call[3:5], *call.counts)
        rates = self._rates.get(key, ())
        if rates == ():
            cost, rates = self._look_up(call)
            if rates == ():
                return cost
            if len(self._rates) >= MAX_KEPT:
                self._rates.clear()
            self._rates[key] = rates
        if rates is None:
            return None
        return sum(rate * count for rate, count in zip(rates, call.counts.values(), strict=True))

    def _look_up(self, call: Call) -> tuple[float | None, tuple[float, ...] | None]:
        """The cost, and the rate of each count: None for an unknown model, () where none can be kept."""
        found = self._calculate(call, call.counts)
        if found is None:
            # Of a known model, counts that contradict each other have no price; the next call's may.
            return None, None if len(call.counts) == 2 else ()
        cost = float(found.total_price)
        if not all(price is None or isinstance(price, Decimal) for price in vars(found.model_price).values()):
            return cost, ()
        return cost, linear_rates(partial(self._calculate, call), call.counts) or ()

    def _calculate(self, call: Call, counts: Mapping[str, float]) -> Any:
        if self._library is None:
            self._library = _load()
        used = self._library.Usage(**counts)
        moment = datetime.fromisoformat(call.timestamp)
        for place in call.places:
            where = {} if place is None else dict([place])
            try:
                return self._library.calc_price(
                    used, call.model, genai_request_timestamp=moment, price_context=call.context, **where
                )
            except (LookupError, ValueError):
                continue
        return None


def linear_rates(
    ask: Callable[[Mapping[str, float]], Any], names: Iterable[str], step: int = _MILLION
) -> tuple[float, ...] | None:
    """US dollars for one more of each count, where the price is linear: one `step` more of a count shows it.

    `ask` gives the package's calculation for counts under `names`, or None, which makes this None.
    """
    base: dict[str, float] = {name: step * _PROBE.get(name, 10) for name in names}
    start = ask(base)
    steps = [ask({**base, name: base[name] + step}) for name in base]
    if start is None or None in steps:
        return None
    return tuple(float(each.total_price - start.total_price) / step for each in steps)


def _load() -> Any:
    """The package with all that it imports at the first price, so that no fork happens in the middle."""
    with loading():
        import genai_prices

        with suppress(LookupError, ValueError):
            genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "gpt-4o", provider_id="openai")
        return genai_prices
