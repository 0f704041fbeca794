"""The events of a block, as a sequence that is up to date whenever it is looked at, and what to assert.

A failing assertion says what was wanted, what there is, and lists what was recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, overload

from ._event import CapturedEvent

UNKNOWN_COST: Final = ("cost", "unknown")
"""The tag of a call whose model has no price."""

MISSING_USAGE: Final = ("usage", "missing")
"""The tag of a call whose answer did not tell what was used."""

MAX_SHOWN: Final = 50
"""Lines that an assertion's message lists."""


class Events(Sequence[CapturedEvent]):
    """What was recorded, in the order in which it ended.

    Every look delivers first what was recorded before it, and raises AssertionError where an event got
    lost. `source` gives the lines there are by now.
    """

    def __init__(self, source: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._source = source
        self._read: list[CapturedEvent] = []
        self._trees: dict[str, list[CapturedEvent]] = {}
        self._reading = threading.Lock()

    # ---- looking -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> CapturedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> list[CapturedEvent]: ...
    def __getitem__(self, index: int | slice) -> CapturedEvent | list[CapturedEvent]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        """Whether it is that list of events: `assert events == []`."""
        return self._all() == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.describe()}>"

    @property
    def llm_calls(self) -> list[CapturedEvent]:
        """The calls of models."""
        return [event for event in self._all() if event.is_call]

    @property
    def spans(self) -> list[CapturedEvent]:
        """The spans: all that is no call of a model."""
        return [event for event in self._all() if not event.is_call]

    @property
    def tools_used(self) -> list[str]:
        """The names of the tools that models asked for, in order; of one call, each name once."""
        return [tool for event in self._all() for tool in event.tools_used]

    @property
    def total_cost_usd(self) -> float:
        """What everything cost together, in US dollars."""
        return sum(event.cost_usd for event in self._all())

    @property
    def total_tokens(self) -> int:
        """Input and output tokens of everything together."""
        return sum(event.total_tokens for event in self._all())

    @property
    def traces(self) -> dict[str, list[CapturedEvent]]:
        """The roots of each trace by its id; what is below them is in their `children`."""
        self._all()
        return dict(self._trees)

    def find(self, **fields: object) -> list[CapturedEvent]:
        """Those whose fields have these values: `find(model="gpt-4o", status="success")`.

        A `model` also matches the dated name that a provider answers with (`gpt-4o` is
        `gpt-4o-2024-08-06`, and not `gpt-4o-mini`); of a mapping such as `tags`, the given items must be
        there. Raises TypeError for a name that no field has.
        """
        return [event for event in self._all() if event.matches(**fields)]

    def one(self, **fields: object) -> CapturedEvent:
        """The only one whose fields have these values. Raises AssertionError where there is not one."""
        __tracebackhide__ = True
        found = self.find(**fields)
        if len(found) != 1:
            raise AssertionError(self._message(f"one event with {_told(fields)}", f"{len(found)}"))
        return found[0]

    def describe(self) -> str:
        """All of it as text, a line an event, children below their parents."""
        events = self._all()
        lines = [f"{'no' if not events else len(events)} event{'' if len(events) == 1 else 's'} recorded"]
        waiting = [(root, 1) for roots in reversed(self._trees.values()) for root in reversed(roots)]
        while waiting and len(lines) <= MAX_SHOWN:
            event, depth = waiting.pop()
            lines.append("  " * depth + event.line())
            waiting.extend((child, depth + 1) for child in reversed(event.children))
        if waiting:
            lines.append("  ...")
        return "\n".join(lines)

    # ---- asserting -----------------------------------------------------------------------------------

    def assert_called(self, *, times: int | None = None, **fields: object) -> None:
        """A model was called, `times` times if given, else at least once; `fields` as in `find`."""
        __tracebackhide__ = True
        found = [event for event in self.llm_calls if event.matches(**fields)]
        if (found and times is None) or len(found) == times:
            return
        wanted = "at least 1 call" if times is None else f"{times} call{'' if times == 1 else 's'}"
        raise AssertionError(self._message(f"{wanted}{_with(fields)}", str(len(found))))

    def assert_not_called(self, **fields: object) -> None:
        """No model was called; with `fields`, none with these values."""
        __tracebackhide__ = True
        self.assert_called(times=0, **fields)

    def assert_cost_below(self, usd: float) -> None:
        """Everything together cost less than `usd`. Fails where a call succeeded whose cost is not known."""
        __tracebackhide__ = True
        self._assert_counted(f"a cost below ${usd:g}", lambda event: not event.cost_usd)
        key, value = UNKNOWN_COST
        unpriced = sorted({event.model for event in self._all() if event.tags.get(key) == value})
        if unpriced:
            names = ", ".join(unpriced)
            hint = f"unknown: {names} has no price; pass init(prices={{{unpriced[0]!r}: ...}})"
            raise AssertionError(self._message(f"a cost below ${usd:g}", hint))
        if not self.total_cost_usd < usd:
            raise AssertionError(self._message(f"a cost below ${usd:g}", f"${self.total_cost_usd:.6f}"))

    def assert_tokens_below(self, tokens: int) -> None:
        """Everything together used less than so many input and output tokens.

        Fails where a call that succeeded was answered without counts.
        """
        __tracebackhide__ = True
        self._assert_counted(f"fewer than {tokens} tokens", lambda _event: True)
        if not self.total_tokens < tokens:
            raise AssertionError(self._message(f"fewer than {tokens} tokens", str(self.total_tokens)))

    def assert_tools(self, names: Iterable[str], *, any_order: bool = False) -> None:
        """The models asked for exactly these tools, as in `tools_used`, in this order unless `any_order`."""
        __tracebackhide__ = True
        wanted, found = list(names), self.tools_used
        if any_order:
            wanted, found = sorted(wanted), sorted(found)
        if wanted != found:
            raise AssertionError(self._message(f"the tools {wanted}", str(found)))

    def assert_no_errors(self) -> None:
        """Every event's status is `success`."""
        __tracebackhide__ = True
        failed = [event for event in self._all() if event.status != "success"]
        if failed:
            first = f"{len(failed)}, the first: {failed[0].line()}: {failed[0].error_message or 'no message'}"
            raise AssertionError(self._message("no errors", first))

    def _assert_counted(self, wanted: str, needs: Callable[[CapturedEvent], bool]) -> None:
        """Every call that succeeded and needs them has token counts."""
        __tracebackhide__ = True
        key, value = MISSING_USAGE
        found = self.find(status="success", tags={key: value})
        uncounted = {event.model: event for event in found if needs(event)}
        if uncounted:
            event = next(iter(uncounted.values()))
            hint = f"unknown: {', '.join(sorted(uncounted))} answered without token counts"
            if event.stream and event.provider in ("openai", "custom"):
                hint += '; ask for them with stream_options={"include_usage": True}'
            raise AssertionError(self._message(wanted, hint))

    def _message(self, wanted: str, found: str) -> str:
        return f"expected {wanted}, got {found}\n{self.describe()}"

    # ---- reading -------------------------------------------------------------------------------------

    def _all(self) -> list[CapturedEvent]:
        __tracebackhide__ = True
        lines = self._source()
        with self._reading:
            if len(lines) != len(self._read):
                self._read += [CapturedEvent.of(line) for line in lines[len(self._read) :]]
                self._trees = _grown(self._read)
            return list(self._read)


def _grown(events: list[CapturedEvent]) -> dict[str, list[CapturedEvent]]:
    """The roots by trace; the children are put below their parents, ordered by timestamp."""
    by_id = {(event.trace_id, event.span_id): event for event in events}
    trees: dict[str, list[CapturedEvent]] = {}
    for event in events:
        event.children = []
    for event in sorted(events, key=lambda event: event.timestamp):
        parent = by_id.get((event.trace_id, event.parent_span_id or ""))
        siblings = trees.setdefault(event.trace_id, []) if parent is None else parent.children
        siblings.append(event)
    return trees


def _with(fields: Mapping[str, object]) -> str:
    return f" with {_told(fields)}" if fields else ""


def _told(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items()) or "anything"
