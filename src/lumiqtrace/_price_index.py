"""The prices of most models, read in a millisecond; the whole price package takes thirty of CPU.

The file beside this module is made from the package whenever lumiqtrace is built, and by `lumiqtrace prices`.
It is used only beside the very release that it was made from, and only until something loads the package,
which may have set prices of its own. It has no opinion: what it leaves out, such as prices that depend on the
hour, on service tiers or on images, is the package's to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

PACKAGE: Final = "genai_prices"

FILE: Final = Path(__file__).with_name("_price_index.jsonl")
"""A line that describes the rest, then one for each provider."""

COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)
"""What a rate is held for, in this order. Each but the first two is a part of the first."""

ALWAYS: Final = "1970-01-01"

_KNOWN: Final = frozenset(COUNTS)

MAX_REMEMBERED: Final = 1000
"""Model names come from outside; what remembers them must not grow without end."""

ORDINARY: Final[Mapping[str, tuple[str | None, ...]]] = {
    "service_tier": (None, "default", "standard"),
    "speed": (None, "standard"),
}
"""The contexts of a call for which the rates hold."""


OTHER: Final = "other"
"""A clause that says yes to every name, and holds no rates: the package is to be asked."""


class Held(NamedTuple):
    """What a model costs: US dollars for one more of each count, the others staying as they are."""

    rates: Sequence[float]
    """In the order of `COUNTS`."""
    up_to: int | None = None
    """Input tokens, beyond which another tier begins."""
    since: str = ALWAYS
    """The day of the call, ISO 8601 in UTC, before which there was another price."""


class PriceIndex:
    """The models of each provider, read when first asked for. One thread at a time uses it."""

    def __init__(self, text: str) -> None:
        head, *self._lines = text.splitlines()
        self._head: dict[str, Any] = json.loads(head)
        self._models: dict[str, list[tuple[list[Any], list[Any] | None]]] = {}
        self._found: dict[tuple[str, str], Held | None] = {}

    @property
    def release(self) -> str:
        """The release of the price package that it was made from."""
        return str(self._head["release"])

    def cost(
        self,
        model: str,
        timestamp: str,
        place: Mapping[str, str],
        context: Mapping[str, str | None],
        counts: Mapping[str, float],
    ) -> float | None:
        """US dollars; None where the package has to be asked, with these very arguments.

        `timestamp` is ISO 8601 in UTC; `place` has one entry, `provider_api_url` or `provider_id`, or none;
        `context` has `service_tier` and `speed`; `counts` are under the names of `COUNTS`, input and output
        always among them.
        """
        if not place or not is_held(counts):
            return None
        if any(value not in ORDINARY[name] for name, value in context.items()):
            return None
        (where,) = place.values()
        key = (where, model)
        if key not in self._found:
            if len(self._found) >= MAX_REMEMBERED:
                self._found.clear()
            self._found[key] = self._find(self._provider(place), model.lower())
        held = self._found[key]
        if held is None or timestamp < held.since:
            return None
        if held.up_to is not None and counts["input_tokens"] > held.up_to:
            return None
        return sum(rate * counts.get(name, 0) for name, rate in zip(COUNTS, held.rates, strict=True))

    def _provider(self, place: Mapping[str, str]) -> str | None:
        url = place.get("provider_api_url")
        if url is None:
            return place["provider_id"]
        for prefix, provider in self._head["addresses"].items():
            if url.startswith(prefix):
                return str(provider)
        return next(
            (provider for pattern, provider in self._head["patterns"] if re.match(pattern, url)), None
        )

    def _find(self, provider: str | None, model: str) -> Held | None:
        """What is held for the first model of the provider that the name matches."""
        if provider is None or provider not in self._head["lines"]:
            return None
        models = self._models.get(provider)
        if models is None:
            models = self._models[provider] = json.loads(self._lines[self._head["lines"][provider]])
        found = next((held for clause, held in models if matches(clause, model)), None)
        return None if found is None else Held(*found)


def is_held(names: Iterable[str]) -> bool:
    """Whether rates are held for these counts; what is written for an hour is a part of what is written."""
    counts = set(names)
    return counts <= _KNOWN and (COUNTS[4] not in counts or COUNTS[3] in counts)


def matches(clause: list[Any], model: str) -> bool:
    """Whether a model's name, in lower case, is what the clause describes.

    A clause is `[kind, text]`, `["or" | "and", clause, ...]` or `["other"]`.
    """
    kind, *what = clause
    if kind == "equals":
        return bool(model == what[0])
    if kind == "starts_with":
        return model.startswith(str(what[0]))
    if kind == "ends_with":
        return model.endswith(str(what[0]))
    if kind == "contains":
        return bool(what[0] in model)
    if kind == "regex":
        return bool(re.search(what[0], model))
    if kind == "or":
        return any(matches(each, model) for each in what)
    if kind == "and":
        return all(matches(each, model) for each in what)
    return bool(kind == OTHER)


def open_index(file: Path = FILE) -> PriceIndex | None:
    """The index, where there is one of the release that is installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or not file.exists():
        return None
    index = PriceIndex(file.read_text(encoding="utf-8"))
    installed = Path(spec.origin).parent.with_name(f"{PACKAGE}-{index.release}.dist-info")
    return index if installed.is_dir() else None
