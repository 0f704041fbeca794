"""What a call costs, in US dollars: the user's prices, then those of the genai-prices package, then 0.

The package's prices come from an index of it, and from the package itself where the index has no answer. A
model without a price costs 0, carries the tag `cost` = `unknown`, and is named in `unpriced`. Runs on the
exporter thread; no fault of what it asks loses an event.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from ._config import Prices
from ._event import Event, Usage
from ._guard import Guard, say
from ._lifecycle import loading
from ._price_package import Call, Place, PricePackage

if TYPE_CHECKING:
    from ._price_index import PriceIndex

MAX_REMEMBERED: Final = 1000
"""Model names come from outside; what remembers them must not grow without end."""

_MILLION: Final = 1_000_000


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
        self._package = PricePackage()
        self._asking = Guard("asking the price package", limit=None)
        self._index: PriceIndex | None = None
        self._opened = False
        self._reading = Guard(
            "reading the price index", limit=1, instead="prices come from the package itself"
        )

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
            say(
                logging.WARNING,
                "lumiqtrace: no price is known for model %r; its calls are recorded at cost 0",
                model,
            )

    def _library_cost(self, event: Event, usage: Usage) -> float | None:
        call = _call(event, usage)
        # Whoever loads the package may have set prices of their own in it.
        cost = None if "genai_prices" in sys.modules else self._reading(self._indexed_cost, call)
        return self._asking(self._package.cost, call) if cost is None else cost

    def _indexed_cost(self, call: Call) -> float | None:
        if not self._opened:
            self._opened = True
            self._index = _open_index()
        place = call.places[0]
        if self._index is None or place is None:
            return None
        return self._index.cost(call.model, call.timestamp, place, call.context, call.counts)


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


def _open_index() -> PriceIndex | None:
    with loading():
        from ._price_index import open_index

        return open_index()


def _call(event: Event, usage: Usage) -> Call:
    # Google's clients put a folder before the name that the package knows.
    model = event.model.removeprefix("models/")
    tier, speed = usage.service_tier, usage.speed
    return Call(model, event.timestamp, _places(event, usage), tier, speed, _counts(event, usage))


def _places(event: Event, usage: Usage) -> tuple[Place | None, ...]:
    """By the address that was called, by provider, by name alone."""
    places: list[Place | None] = []
    if usage.api_url:
        places.append(("provider_api_url", usage.api_url))
    if event.provider != "custom":
        places.append(("provider_id", event.provider))
    # A gateway of one's own serves OpenAI's models under OpenAI's names.
    return (*places, None, ("provider_id", "openai"))


def _counts(event: Event, usage: Usage) -> dict[str, float]:
    """The counts under the package's names. Input and output come first; the others are parts of them."""
    counts: dict[str, float] = {"input_tokens": event.input_tokens, "output_tokens": event.output_tokens}
    # A vendor that counts more of a part than there is of the whole has miscounted the part.
    read = min(event.cached_tokens or 0, event.input_tokens)
    written = min(usage.cache_write_tokens, event.input_tokens - read)
    parts: dict[str, float] = {
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": min(usage.cache_write_1h_tokens, written),
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
