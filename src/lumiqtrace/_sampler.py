"""Which traces are kept: decided from the trace id alone, so that every process of a trace agrees.

With `sample_errors` the recordings of the other traces are held until the trace's root has ended, and sent
if one of them failed. What is held is bounded, takes no lock and was never counted as recorded.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Protocol

from ._event import Recording

MAX_HELD_EVENTS: Final = 10_000
MAX_HELD_BYTES: Final = 8 * 1024 * 1024

_RANGE: Final = 1 << 56
_HEX: Final = frozenset("0123456789abcdef")


def keeps(trace_id: str, rate: float) -> bool:
    """Whether the trace is in the share `rate` (0.0 to 1.0) of all traces.

    W3C Trace Context makes the last 56 bits of an id random; the byte before them is not, where an id was
    made from a UUID. Ids of another shape are hashed.
    """
    if rate >= 1.0:
        return True
    if rate <= 0.0:
        return False
    digits = trace_id if len(trace_id) == 32 and _HEX.issuperset(trace_id) else _hashed(trace_id)
    return int(digits[-14:], 16) < rate * _RANGE


def _hashed(trace_id: str) -> str:
    return hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).hexdigest()


class Sampled(Protocol):
    """What is asked of a trace. `root` is the span that began it here; its recording comes last."""

    trace_id: str
    sampled: bool
    holds: bool
    root: Any


class Held:
    """Recordings of traces that are not sampled, by trace, the oldest trace out.

    A recording says with `failed` whether its status is neither success nor cancelled; one that does not
    say has not failed. Like the queue it relies on the atomic operations of `dict` and `list`.
    """

    def __init__(self, max_events: int = MAX_HELD_EVENTS, max_bytes: int = MAX_HELD_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._traces: dict[Sampled, list[Recording]] = {}
        self._events = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many recordings are held."""
        return sum(len(self._traces.get(trace, ())) for trace in list(self._traces))

    def add(self, recording: Recording, trace: Sampled) -> list[Recording]:
        """Hold one recording; gives those that are to be sent now.

        The root's recording decides about its trace: when one failed, `trace.sampled` becomes True, so
        that what comes later is sent as well. What comes late to a trace that did not fail is sent only
        if it failed itself.
        """
        if trace.root is None or trace.root is recording or _ended(trace.root):
            return self._decide([*self._take(trace), recording], trace)
        found = self._traces.get(trace)
        if found is None:
            found = self._traces.setdefault(trace, [])
        found.append(recording)
        self._events += 1
        self._bytes += recording.size
        if self._events > self._max_events or self._bytes > self._max_bytes:
            self._make_room()
        return []

    def release(self) -> list[Recording]:
        """Decide about all that is held, at the end of the process; gives what is to be sent."""
        traces = list(self._traces)
        return [recording for trace in traces for recording in self._decide(self._take(trace), trace)]

    def _take(self, trace: Sampled) -> list[Recording]:
        group = self._traces.pop(trace, [])
        self._events -= len(group)
        self._bytes -= sum(recording.size for recording in group)
        return group

    def _decide(self, group: list[Recording], trace: Sampled) -> list[Recording]:
        if not any(_failed(recording) for recording in group):
            return []
        trace.sampled = True
        return group

    def _make_room(self) -> None:
        """Count what is there, for threads may have met; then let the oldest traces go.

        Room is made for a tenth of the events, so that not every one of the next has to count.
        """
        traces = list(self._traces)
        groups = [self._traces.get(trace, []) for trace in traces]
        self._events = sum(len(group) for group in groups)
        self._bytes = sum(recording.size for group in groups for recording in group)
        for trace in traces:
            if self._events <= self._max_events * 0.9 and self._bytes <= self._max_bytes:
                break
            self._take(trace)


def _failed(recording: Recording) -> bool:
    return bool(getattr(recording, "failed", False))


def _ended(root: object) -> bool:
    return bool(getattr(root, "ended", False))
