"""What is compressed and waits to be sent, and the account of what became of every event.

It decides nothing about time or threads: the exporter asks for the head, sends it, and says how it went.
Everything here happens under `lock`, whose waiters are flushes.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ._encode import compress, decompress
from ._event import MAX_EVENTS_PER_BATCH
from ._guard import Guard, RateLimitedLog
from ._queue import EventQueue
from ._retry import Outcome, Verdict, backoff
from ._transport import Reply

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Compressed; a larger batch is cut in half before it is sent."""

_speaking: Final = Guard("writing to the log", limit=None)


class Batch(NamedTuple):
    """Compressed lines, ready to send; `start` is the queue position of the first."""

    body: bytes
    events: int
    start: int

    @classmethod
    def of(cls, lines: list[bytes], start: int) -> Batch:
        return cls(compress(lines), len(lines), start)

    def halves(self) -> list[Batch]:
        lines = decompress(self.body)
        middle = len(lines) // 2
        return [Batch.of(lines[:middle], self.start), Batch.of(lines[middle:], self.start + middle)]


class Outbox:
    """Batches in the order of their events, and the counters behind `stats()`."""

    def __init__(
        self,
        queue: EventQueue,
        max_events: int,
        max_bytes: int,
        *,
        on_error: Callable[[str], None] | None,
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self.lock = threading.Condition()
        self.in_flight = 0
        self.sent = 0
        self.retried = 0
        self.dropped: Counter[str] = Counter()
        self.retry_at = 0.0
        self.told_to_wait = False
        self.problem = "out of time"
        self._queue = queue
        # What is compressed leaves room for a request's worth in the queue, so that the oldest goes first.
        self._max_events = max_events - min(MAX_EVENTS_PER_BATCH, max_events // 2)
        self._max_bytes = max_bytes * 3 // 4
        self._batches: deque[Batch] = deque()
        self._encoding = 0
        self._failures = 0
        self._closed = False
        self._on_error = on_error
        self._clock = clock
        self._rand = rand
        self._log = RateLimitedLog(clock)
        self._unsaid: deque[tuple[str, str]] = deque(maxlen=100)

    def __len__(self) -> int:
        """How many events wait, those in flight included."""
        return self._encoding + sum(batch.events for batch in self._batches)

    @property
    def head(self) -> Batch | None:
        return self._batches[0] if self._batches else None

    @property
    def settled(self) -> int:
        """The queue position before which every event is delivered or given up."""
        head = self.head
        return head.start if head else self._queue.removed - self._encoding

    @property
    def given_up(self) -> int:
        lost = self.dropped.total() - self.dropped["before_send"]  # those were not wanted
        return lost + self._queue.evicted + self._queue.refused

    # ---- in ------------------------------------------------------------------------------------------

    def encoding(self, events: int) -> None:
        """So many left the queue and are being encoded."""
        self._encoding = events

    def add(self, lines: list[bytes], unreadable: int, start: int, unwanted: int = 0) -> None:
        """The encoded ones become a batch; the user's `before_send` dropped the unwanted ones."""
        self._encoding = 0
        if self._closed:
            return  # close has counted them
        self.dropped["unreadable"] += unreadable
        self.dropped["before_send"] += unwanted
        if lines:
            self._batches.append(Batch.of(lines, start))
        self._make_room()

    def close(self) -> int:
        """Give up all that waits; how many that were."""
        self._closed = True
        lost = len(self)
        self._batches.clear()
        self._encoding = 0
        self.in_flight = 0
        return lost

    # ---- out -----------------------------------------------------------------------------------------

    def settle(self, batch: Batch, outcome: Outcome, reply: Reply | None) -> None:
        """Apply what the server answered to the batch that was sent."""
        self.in_flight = 0
        if self.head is not batch:
            return  # a close in the meantime gave it up and counted it
        if outcome.verdict in (Verdict.RETRY, Verdict.UNAUTHORIZED):
            self.postpone(outcome)
            return
        self._failures = 0
        self.retry_at = 0.0
        self.told_to_wait = False
        self._batches.popleft()
        if outcome.verdict is Verdict.ACCEPTED:
            self._accept(batch, reply)
        elif outcome.verdict is Verdict.SPLIT and batch.events > 1:
            self._batches.extendleft(reversed(batch.halves()))
        else:
            self._drop(outcome.reason, batch.events, f"the server answered {reply.status if reply else 0}")
        self._make_room()

    def postpone(self, outcome: Outcome) -> None:
        """Try the head again later: when the server said, else after a back-off with jitter."""
        self._failures += 1
        self.retried += 1
        self.problem = outcome.reason
        self.told_to_wait = outcome.wait is not None
        wait = outcome.wait if outcome.wait is not None else backoff(self._failures, self._rand())
        self.retry_at = self._clock() + wait
        if outcome.verdict is Verdict.UNAUTHORIZED:
            message = "the server refuses the API key; events are kept and tried again slowly"
        else:
            message = f"events cannot be delivered now ({outcome.reason}); they are kept and tried again"
        self.complain(outcome.verdict.value, message)

    def complain(self, cause: str, message: str) -> None:
        """Have it said by the next `speak`. Whoever listens to the log may ask for the statistics."""
        self._unsaid.append((cause, message))

    def speak(self) -> None:
        """Say in the log what there is to say, once a minute for each cause. Not under `lock`."""
        while self._unsaid:
            self.say(*self._unsaid.popleft())

    def say(self, cause: str, message: str) -> None:
        _speaking(self._log, logging.WARNING, cause, "%s", message)
        if self._on_error is not None:
            _speaking(self._on_error, f"lumiqtrace: {message}")

    def _accept(self, batch: Batch, reply: Reply | None) -> None:
        errors = _refused_lines(reply.body if reply else b"")
        refused = min(len(errors), batch.events)
        self.sent += batch.events - refused
        if refused:
            self._drop("rejected", refused, f"the server refused it: {str(errors[0])[:200]}")

    def _drop(self, reason: str, events: int, why: str) -> None:
        self.dropped[reason] += events
        self.complain(reason, f"{events} events were given up ({reason}): {why}")

    def _make_room(self) -> None:
        events = sum(batch.events for batch in self._batches)
        size = sum(len(batch.body) for batch in self._batches)
        while len(self._batches) > 1 and (events > self._max_events or size > self._max_bytes):
            oldest = self._batches.popleft()
            events -= oldest.events
            size -= len(oldest.body)
            self._drop("queue_full", oldest.events, "the queue is full")
        self._queue.hold(events, size)


def _refused_lines(body: bytes) -> list[object]:
    """The `errors` of a 202 that did not take every line; other servers answer without them."""
    try:
        errors = json.loads(body).get("errors")
    except (ValueError, AttributeError, RecursionError):
        return []
    return errors if isinstance(errors, list) else []
