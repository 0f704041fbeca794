"""The prices of most models, read in a millisecond; the whole price package takes thirty of CPU.

The file beside this module is made from the package whenever lumiqtrace is built, and by `lumiqtrace prices`.
It is used only beside the very release that it was made from, and only until something loads the package,
which may have set prices of its own. It has no opinion: what it leaves out, such as prices that depend on the
hour, on service tiers or on images, is the package's to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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
"""What a rate is held for, in this order. The last three are parts of the input."""

ORDINARY: Final[Mapping[str, tuple[str | None, ...]]] = {
    "service_tier": (None, "default", "standard"),
    "speed": (None, "standard"),
}
"""The contexts of a call for which the rates hold."""

ALWAYS: Final = "1970-01-01"

OTHER: Final = "other"
"""A clause that says yes to every name, and holds no rates: the package is to be asked."""

MAX_FOUND: Final = 1000
"""Models that are remembered; their names come from outside."""


class Held(NamedTuple):
    """What a model costs: US dollars for one more of each count, the others staying as they are."""

    rates: Sequence[float]
    """In the order of `COUNTS`."""
    up_to: int | None = None
    """Input tokens, beyond which another tier begins."""
    since: str = ALWAYS
    """The day of the call, ISO 8601 in UTC, before which there was another price."""


class PriceIndex:
    """The models of each provider, read when first asked for. One thread at a time uses it.

    Raises ValueError, LookupError or TypeError where `text` is not what `lumiqtrace prices` writes.
    """

    def __init__(self, text: str) -> None:
        head, *self._lines = text.splitlines()
        self._head: dict[str, Any] = json.loads(head)
        self._models: dict[str, list[tuple[list[Any], list[Any] | None]]] = {}
        self._found: dict[tuple[str, str, str], Held | None] = {}
        if len(self._lines) != len(self._head["lines"]):
            raise ValueError(f"the price index has {len(self._lines)} of {len(self._head['lines'])} lines")

    @property
    def release(self) -> str:
        """The release of the price package that it was made from."""
        return str(self._head["release"])

    @property
    def size(self) -> int:
        """The bytes of that release's data, which tells an edited copy from it."""
        return int(self._head["size"])

    def cost(
        self,
        model: str,
        timestamp: str,
        place: tuple[str, str],
        context: Mapping[str, str | None],
        counts: Mapping[str, float],
    ) -> float | None:
        """US dollars, to rounding what the package says; None where the package has to be asked.

        `timestamp` is ISO 8601 in UTC; `place` is what to look the model up by, `provider_api_url` or
        `provider_id`, with its value; `context` has `service_tier` and `speed`; `counts` are under the names
        of `COUNTS`, input and output always among them, parts no larger than what they are parts of.
        """
        if not counts.keys() <= _NAMES or any(value not in ORDINARY[name] for name, value in context.items()):
            return None
        key = (*place, model)
        if key not in self._found:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[key] = self._find(self._provider(*place), model.lower())
        held = self._found[key]
        if held is None or timestamp < held.since:
            return None
        if held.up_to is not None and counts["input_tokens"] > held.up_to:
            return None
        return sum(rate * counts.get(name, 0) for name, rate in zip(COUNTS, held.rates, strict=True))

    def _provider(self, by: str, value: str) -> str | None:
        if by == "provider_id":
            return value
        for prefix, provider in self._head["addresses"].items():
            if value.startswith(prefix):
                return str(provider)
        patterns = self._head["patterns"]
        return next((provider for pattern, provider in patterns if re.match(pattern, value)), None)

    def _find(self, provider: str | None, model: str) -> Held | None:
        """What is held for the first model that the name matches, the provider's or of those it resells."""
        for each in (provider, *self._head["resold"].get(provider, ())):
            for clause, held in self._models_of(each):
                if matches(clause, model):
                    return None if held is None else Held(*held)
        return None

    def _models_of(self, provider: str | None) -> list[tuple[list[Any], list[Any] | None]]:
        if provider is None or provider not in self._head["lines"]:
            return []
        models = self._models.get(provider)
        if models is None:
            models = self._models[provider] = json.loads(self._lines[self._head["lines"][provider]])
        return models


def matches(clause: list[Any], model: str) -> bool:
    """Whether a model's name, in lower case, is what the clause describes.

    A clause is `[kind, text]`, `["or" | "and", clause, ...]` or `["other"]`.
    """
    kind, *what = clause
    if kind == "or":
        return any(matches(each, model) for each in what)
    if kind == "and":
        return all(matches(each, model) for each in what)
    if kind == OTHER:
        return True
    text: str = what[0]
    if kind == "equals":
        return model == text
    if kind == "starts_with":
        return model.startswith(text)
    if kind == "ends_with":
        return model.endswith(text)
    if kind == "contains":
        return text in model
    return re.search(text, model) is not None


def open_index(file: Path | None = None) -> PriceIndex | None:
    """The index, where there is one of the release that is installed; else None.

    Raises OSError, or what `PriceIndex` raises, where the file cannot be read.
    """
    spec = find_spec(PACKAGE)
    file = file or FILE
    if spec is None or spec.origin is None or not file.exists():
        return None
    index = PriceIndex(file.read_text(encoding="utf-8"))
    package = Path(spec.origin).parent
    # Where packages are installed over each other, of an older release its description may be left.
    described = [entry.name for entry in package.parent.iterdir() if _DESCRIPTION.fullmatch(entry.name)]
    if described != [f"{PACKAGE}-{index.release}.dist-info"]:
        return None
    return index if (package / "data.py").stat().st_size == index.size else None


_NAMES: Final = frozenset(COUNTS)
_DESCRIPTION: Final = re.compile(rf"{PACKAGE}-.*\.dist-info")
