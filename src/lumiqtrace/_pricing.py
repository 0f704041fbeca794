"""What a call costs, in US dollars: the user's prices, then those of the genai-prices package, then 0.

The package's prices come from an index of it, or from the package itself, loaded on the exporter thread when
an event first needs it; never from the network. A model without a price costs 0, carries the tag `cost` =
`unknown`, and is named in `unpriced`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ._config import Prices
from ._event import Event, Usage
from ._guard import Guard
from ._lifecycle import loading

if TYPE_CHECKING:
    from ._price_index import PriceIndex

logger = logging.getLogger("lumiqtrace")

MAX_REMEMBERED: Final = 1000
"""Model names come from outside; what remembers them must not grow without end."""

_MILLION: Final = 1_000_000

_PROBE: Final = {
    "input_tokens": 100,
    "output_tokens": 100,
    "cache_write_1h_tokens": 1,
    "cache_audio_read_tokens": 1,
    "cache_image_read_tokens": 1,
}
"""Steps to probe a price with, 10 for the others: a count is larger than those that are parts of it."""


class Parts(Usage):
    """What several calls used that are one event: each is priced by its own model, and so is their sum."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events


class Pricer:
    """Sets `cost_usd` on events. One thread at a time uses it."""

    def __init__(self, prices: Prices | None = None) -> None:
        self.unpriced: set[str] = set()
        self._prices = prices
        self._own = Guard("your own prices")
        self._library: Any = None
        self._index: PriceIndex | None = None
        self._opened = False
        self._rates: dict[tuple[Any, ...], tuple[float, ...] | None] = {}

    def price(self, event: Event) -> None:
        """Fill in the cost of a model call; one of which nothing was counted is left as it is."""
        usage = event.usage
        if usage is None:
            return
        if isinstance(usage, Parts):
            unpriced = self._price_parts(event, usage.events)
        else:
            unpriced = [] if self._price_one(event, usage) else [event]
        if unpriced:
            event.tags["cost"] = "unknown"
        for part in unpriced:
            self._remember(part.model)

    def _price_one(self, event: Event, usage: Usage) -> bool:
        """Set the cost of one call; False where no price is known for it."""
        cost = None if self._prices is None else self._own(users_cost, self._prices, event, usage)
        counted = event.input_tokens or event.output_tokens or any(_counts(event, usage).values())
        if cost is None and not counted:
            return True
        if cost is None:
            cost = self._library_cost(event, usage)
        if cost is not None:
            event.cost_usd = cost
        return cost is not None

    def _price_parts(self, event: Event, parts: list[Event]) -> list[Event]:
        """The parts without a price. One call alone may have it under the event's name, which was told us."""
        unpriced = [part for part in parts if part.usage and not self._price_one(part, part.usage)]
        event.cost_usd = sum(part.cost_usd for part in parts)
        if len(parts) == 1 and unpriced:
            return [] if self._price_one(event, unpriced[0].usage or Usage()) else [event]
        return unpriced

    def _remember(self, model: str) -> None:
        if model not in self.unpriced and len(self.unpriced) < MAX_REMEMBERED:
            self.unpriced.add(model)
            logger.warning(
                "lumiqtrace: no price is known for model %r; its calls are recorded at cost 0", model
            )

    def _library_cost(self, event: Event, usage: Usage) -> float | None:
        """By the index; else by the rates of the last such call, as the package takes 50 us (measured)."""
        counts = _counts(event, usage)
        cost = self._indexed_cost(event, usage, counts)
        if cost is not None:
            return cost
        # To the minute, because some prices depend on the time of day.
        kind = (event.model, usage.api_url, event.provider, usage.service_tier, usage.speed)
        key = (*kind, event.timestamp[:16], *counts)
        rates = self._rates.get(key, ())
        if rates == ():
            cost, rates = self._look_up(event, usage, counts)
            if rates == ():
                return cost
            if len(self._rates) >= MAX_REMEMBERED:
                self._rates.clear()
            self._rates[key] = rates
        if rates is None:
            return None
        return sum(rate * count for rate, count in zip(rates, counts.values(), strict=True))

    def _indexed_cost(self, event: Event, usage: Usage, counts: dict[str, float]) -> float | None:
        """What the index says, until something loads the package: that may have set prices of its own."""
        if "genai_prices" in sys.modules:
            return None
        if not self._opened:
            self._opened = True
            self._index = _open_index()
        if self._index is None:
            return None
        place = _places(event, usage)[0]
        return self._index.cost(_model(event), event.timestamp, place, _context(usage), counts)

    def _look_up(
        self, event: Event, usage: Usage, counts: dict[str, float]
    ) -> tuple[float | None, tuple[float, ...] | None]:
        """The cost, and the rate of each count: None for an unknown model, () where the price has tiers."""
        found = self._calculate(event, usage, counts)
        if found is None:
            return None, None
        cost = float(found.total_price)
        if not all(price is None or isinstance(price, Decimal) for price in vars(found.model_price).values()):
            return cost, ()
        return cost, linear_rates(partial(self._calculate, event, usage), counts) or ()

    def _calculate(self, event: Event, usage: Usage, counts: dict[str, float]) -> Any:
        if self._library is None:
            self._library = _load()
        used = self._library.Usage(**counts)
        moment = datetime.fromisoformat(event.timestamp)
        for where in _places(event, usage):
            try:
                return self._library.calc_price(
                    used,
                    _model(event),
                    genai_request_timestamp=moment,
                    price_context=_context(usage),
                    **where,
                )
            except (LookupError, ValueError):
                continue
        return None


def users_cost(prices: Prices, event: Event, usage: Usage) -> float | None:
    """What the user's prices say, by the longest name the model begins with; None where they say nothing."""
    if callable(prices):
        cost = prices(event)
        return None if cost is None else float(cost)
    name = max((name for name in prices if event.model.startswith(name)), key=len, default=None)
    if name is None:
        return None
    price = prices[name]
    inputs = float(price.get("input", 0.0))
    cached = min(event.cached_tokens or 0, event.input_tokens)
    written = usage.cache_write_tokens
    return (
        (event.input_tokens - cached - written) * inputs
        + cached * float(price.get("cached", inputs))
        + written * float(price.get("cache_write", inputs))
        + event.output_tokens * float(price.get("output", 0.0))
    ) / _MILLION


def linear_rates(
    ask: Callable[[dict[str, float]], Any], names: Iterable[str], step: int = _MILLION
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


def _open_index() -> PriceIndex | None:
    with loading():
        from ._price_index import open_index

        return open_index()


def _load() -> Any:
    """The price package with its data, which it would import at the first price."""
    with loading():
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot

        get_snapshot()
        return genai_prices


def _model(event: Event) -> str:
    """The name that the package knows: Google's clients put a folder before it."""
    return event.model.removeprefix("models/")


def _context(usage: Usage) -> dict[str, str | None]:
    return {"service_tier": usage.service_tier, "speed": usage.speed}


def _places(event: Event, usage: Usage) -> list[dict[str, str]]:
    """Where to look a model up, best first: by the address that was called, by provider, by name alone."""
    places: list[dict[str, str]] = []
    if usage.api_url:
        places.append({"provider_api_url": usage.api_url})
    if event.provider != "custom":
        places.append({"provider_id": event.provider})
    # A gateway of one's own serves OpenAI's models under OpenAI's names.
    return [*places, {}, {"provider_id": "openai"}]


def _counts(event: Event, usage: Usage) -> dict[str, float]:
    """The counts under the package's names. Input and output come first; the others are parts of them."""
    counts: dict[str, float] = {"input_tokens": event.input_tokens, "output_tokens": event.output_tokens}
    parts: dict[str, float] = {
        # A vendor that counts more cached tokens than there were has miscounted those.
        "cache_read_tokens": min(event.cached_tokens or 0, event.input_tokens),
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "input_audio_tokens": usage.input_audio_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
        "cache_audio_read_tokens": usage.cached_audio_tokens,
        "input_image_tokens": usage.input_image_tokens,
        "input_video_tokens": usage.input_video_tokens,
        "output_image_tokens": usage.output_image_tokens,
        "cache_image_read_tokens": usage.cached_image_tokens,
        "web_searches": usage.web_searches,
        "storage_searches": usage.file_searches,
        "audio_seconds": usage.audio_seconds,
        "input_characters": usage.input_characters,
    }
    found = {name: count for name, count in parts.items() if count}
    if usage.input_audio_tokens and event.cached_tokens:
        # Where a prompt has audio and a cached part, the package wants to know of both at once, also of none.
        found["cache_audio_read_tokens"] = usage.cached_audio_tokens
    if usage.input_image_tokens and event.cached_tokens:
        found["cache_image_read_tokens"] = usage.cached_image_tokens
    return counts | found
