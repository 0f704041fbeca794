"""An event as it left the process, with its place in its trace."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from .._event import Event

_DATED: Final = re.compile(r"(-\d{4}-\d{2}-\d{2}|[-@]\d{3,8})")
"""What providers put behind the name that was asked for: `-2024-08-06`, `-20241022`, `-0613`, `-001`."""


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class CapturedEvent(Event):
    """The fields of the ingest schema as attributes, and `children`, in the order in which they began.

    Of children that began within one millisecond, which is what a timestamp tells, the first to end is first.
    """

    children: list[CapturedEvent] = field(default_factory=list)

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """The event of one line; a field that is not there has its default."""
        return cls(**{name: value for name, value in line.items() if name in _FIELDS})

    @property
    def is_call(self) -> bool:
        """Whether it is a call of a model, rather than a span of the application's.

        A span around calls that are events of their own, such as `@observe_llm` makes with `patch_openai()`
        on, is none.
        """
        below = (event.span_kind for event in self.walk() if event is not self)
        return self.span_kind == "llm" and "llm" not in below

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def walk(self) -> Iterator[CapturedEvent]:
        """This event and all below it, depth first."""
        waiting: list[CapturedEvent] = [self]
        while waiting:
            event = waiting.pop()
            yield event
            waiting.extend(reversed(event.children))

    def matches(self, **fields: object) -> bool:
        """Whether every field has the value given; see `Events.find`. Raises TypeError for an unknown one."""
        return all(self._is(name, wanted) for name, wanted in fields.items())

    def _is(self, name: str, wanted: object) -> bool:
        if name not in _FIELDS:
            raise TypeError(f"an event has no field {name!r}; it has {', '.join(sorted(_FIELDS))}")
        found = getattr(self, name)
        if name == "model" and isinstance(wanted, str) and found.startswith(wanted):
            return not (rest := found[len(wanted) :]) or _DATED.fullmatch(rest) is not None
        if isinstance(found, Mapping) and isinstance(wanted, Mapping):
            return all(key in found and found[key] == value for key, value in wanted.items())
        return bool(found == wanted)

    def __repr__(self) -> str:
        return f"<{self.line()}>"

    def line(self) -> str:
        """`llm gpt-4o chat success 12+5 tokens $0.000080 tools: search`: what matters, on one line."""
        parts = [self.span_kind or "event", self.model if self.is_call else self.name or self.model]
        if self.is_call:
            parts.append(self.operation)
        parts.append(f"{self.status} {self.error_code or ''}".strip())
        if self.total_tokens:
            parts.append(f"{self.input_tokens}+{self.output_tokens} tokens")
        if self.cost_usd:
            parts.append(f"${self.cost_usd:.6f}")
        if self.tools_used:
            parts.append(f"tools: {', '.join(self.tools_used)}")
        return " ".join(parts)


_FIELDS: Final = frozenset(each.name for each in dataclasses.fields(Event)) - {"usage"}
