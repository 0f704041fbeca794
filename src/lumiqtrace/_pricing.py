"""What a call costs, in US dollars: current provider prices from the genai-prices package.

Loaded on the exporter thread when the first event with tokens is priced; never on the network. A model
without a price costs 0, carries the tag `cost` = `unknown`, and is named in `unpriced`.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Final

from ._event import Event, Usage
from ._lifecycle import loading

logger = logging.getLogger("lumiqtrace")

MAX_REMEMBERED: Final = 1000
"""Model names come from outside; the sets that remember them must not grow without end."""


class Pricer:
    """Sets `cost_usd` on events. One thread at a time uses it."""

    def __init__(self) -> None:
        self.unpriced: set[str] = set()
        self._library: Any = None

    def price(self, event: Event) -> None:
        """Fill in the cost of a model call; an event without tokens is left as it is."""
        if event.usage is None or not (event.input_tokens or event.output_tokens):
            return
        cost = self._cost(event, event.usage)
        if cost is not None:
            event.cost_usd = cost
            return
        event.tags["cost"] = "unknown"
        if event.model not in self.unpriced and len(self.unpriced) < MAX_REMEMBERED:
            self.unpriced.add(event.model)
            logger.warning(
                "lumiqtrace: no price is known for model %r; its calls are recorded at cost 0", event.model
            )

    def _cost(self, event: Event, usage: Usage) -> float | None:
        if self._library is None:
            self._library = _load()
        counts = self._library.Usage(**_counts(event, usage))
        context = {"service_tier": usage.service_tier} if usage.service_tier else None
        moment = datetime.fromisoformat(event.timestamp)
        for where in _places(event, usage):
            try:
                price = self._library.calc_price(
                    counts, event.model, genai_request_timestamp=moment, price_context=context, **where
                )
            except (LookupError, ValueError):
                continue
            return float(price.total_price)
        return None


def _load() -> Any:
    """The price package with its data, which it would import at the first price."""
    with loading():
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot

        get_snapshot()
        return genai_prices


def _places(event: Event, usage: Usage) -> list[dict[str, str]]:
    """Where to look a model up, best first: by the address that was called, by provider, by name alone."""
    places: list[dict[str, str]] = []
    if usage.api_url:
        places.append({"provider_api_url": usage.api_url})
    if event.provider != "custom":
        places.append({"provider_id": event.provider})
    # A gateway of one's own serves OpenAI's models under OpenAI's names.
    return [*places, {}, {"provider_id": "openai"}]


def _counts(event: Event, usage: Usage) -> dict[str, int]:
    counts = {
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cache_read_tokens": event.cached_tokens or 0,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "input_audio_tokens": usage.input_audio_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
        "cache_audio_read_tokens": usage.cached_audio_tokens,
    }
    return {name: count for name, count in counts.items() if count}
