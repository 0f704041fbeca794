"""The inbox between the application's threads and the exporter: bounded by count and by bytes, oldest out.

Putting takes no lock, because it may run inside a destructor that interrupted any other code, ours
included. It relies on the interpreter switching threads only at calls and backward jumps: `deque`
operations are atomic, and so is adding to a plain attribute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .._event import Recording


class Stats(NamedTuple):
    """Where every event is: `recorded` = `sent` + `queued` + `in_flight` + `spooled` + the sum of `dropped`.

    `spooled` are in the spool and no longer in memory: while the backend is away, and at the end for a later
    process. `dropped` is by reason: `queue_full`, `spool_full`, `expired` (too old in the spool), `damaged`
    (its file was damaged or taken away), `rejected`, `too_large`, `redirected`, `unreadable` (a fault of
    ours), `before_send` (what yours dropped), `shutdown`. `replayed` and `replay_dropped` are of events that
    earlier processes left in the spool: delivered by this one, or given up; they are in no other number.
    `retried` counts requests that failed and are sent again, `internal_errors` faults of ours that were kept
    from the application, and those of your `before_send` and `prices`. `unpriced_models` are those recorded
    at cost 0 for want of a price.
    """

    recorded: int = 0
    queued: int = 0
    in_flight: int = 0
    sent: int = 0
    retried: int = 0
    dropped: Mapping[str, int] = MappingProxyType({})
    unpriced_models: tuple[str, ...] = ()
    internal_errors: int = 0
    spooled: int = 0
    replayed: int = 0
    replay_dropped: Mapping[str, int] = MappingProxyType({})


class EventQueue:
    """Recordings in the order they came.

    `recorded` counts all that were ever put, `removed` those that left again (taken or evicted), `evicted`
    those that had to make room, `refused` those that came after `close`. `bytes` is about how much memory
    the waiting ones keep alive. Read `removed` before `recorded`: the difference is what waits, at least.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.recorded = 0
        self.removed = 0
        self.evicted = 0
        self.refused = 0
        self.bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._held_events = 0
        self._held_bytes = 0
        self._closed = False
        self._items: deque[Recording] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, recording: Recording) -> int:
        """Add one, at the cost of the oldest where there is no room; gives how many wait now."""
        if self._closed:
            self.refused += 1
            return 0
        items = self._items
        self.recorded += 1
        self.bytes += recording.size
        items.append(recording)
        waiting = len(items)
        if waiting + self._held_events > self._max_events or self.bytes + self._held_bytes > self._max_bytes:
            self._make_room()
        return waiting

    def take(self, most: int) -> list[Recording]:
        """Up to `most` recordings, oldest first."""
        taken: list[Recording] = []
        while len(taken) < most and (item := self._pop()) is not None:
            taken.append(item)
        return taken

    def hold(self, events: int, size: int) -> None:
        """Count what was taken but is not delivered yet against the bounds as well."""
        self._held_events = events
        self._held_bytes = size

    def close(self) -> None:
        self._closed = True

    def _make_room(self) -> None:
        # The newest stays: one that alone is too much is the application's own memory, and is cut soon.
        while len(self._items) > 1 and (
            len(self._items) + self._held_events > self._max_events
            or self.bytes + self._held_bytes > self._max_bytes
        ):
            if self._pop() is None:
                return
            self.evicted += 1

    def _pop(self) -> Recording | None:
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        self.bytes -= item.size
        self.removed += 1
        return item
