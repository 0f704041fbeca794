"""What is compressed and waits to be sent, and the account of what became of every event.

It decides nothing about time, threads or files: the exporter asks for the next batch, sends it, and says
how it went. Everything here happens under `lock`, whose waiters are flushes.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from .._event import MAX_EVENTS_PER_BATCH, Recording
from .batch import Batch
from .circuit import OPEN_AFTER, Circuit
from .complaints import Complaints
from .queue import EventQueue, Stats
from .retry import Outcome, Verdict, refusal, refused_lines
from .transport import Reply

if TYPE_CHECKING:
    from .spool_folder import SpoolFile

_WHY: Final = {
    "queue_full": "the queue is full (max_queue_events, max_queue_bytes)",
    "unreadable": "they could not be made an event; enable debug logging to see why",
    "spool_full": "the spool keeps no more",
    "expired": "too old",
}


class Outbox:
    """Batches in the order of their events, and the counters behind `stats()`."""

    def __init__(
        self,
        queue: EventQueue,
        max_events: int,
        max_bytes: int,
        *,
        spooled: bool,
        on_error: Callable[[str], None] | None,
        clock: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:
        self.lock = threading.Condition()
        self.circuit = Circuit()
        self.complaints = Complaints(on_error, clock)
        self.sending: Batch | None = None
        self.problem = "out of time"
        self.done: list[SpoolFile] = []
        """Files whose events are settled; whoever holds no lock removes them."""
        self._dropped: Counter[str] = Counter()
        self._replay_dropped: Counter[str] = Counter()
        self._why = dict(_WHY)
        self._sent = 0
        self._retried = 0
        self._replayed = 0
        self._queue = queue
        # What is compressed leaves room for a request's worth in the queue, so that the oldest goes first.
        self._max_events = max_events - min(MAX_EVENTS_PER_BATCH, max_events // 2)
        self._max_bytes = max_bytes * 3 // 4
        # What is in the spool as well need not be held in memory beyond this.
        self._filed_events = max_events // 4 if spooled else self._max_events
        self._filed_bytes = max_bytes // 4 if spooled else self._max_bytes
        self._batches: deque[Batch] = deque()
        self._adopted: deque[Batch] = deque()
        self._unread: list[Batch] = []
        self._taken = 0
        self._taking = False
        self._encoding = 0
        self._held_events = 0
        self._held_bytes = 0
        self._on_disk = 0
        self._left = 0
        self._abandoned: Batch | None = None
        self._closed = False
        self._clock = clock
        self._rand = rand

    def __len__(self) -> int:
        """How many events wait here, those in flight and those only on disk included."""
        return self._encoding + self._held_events + self._on_disk

    @property
    def head(self) -> Batch | None:
        """The oldest batch of this process."""
        return self._batches[0] if self._batches else None

    @property
    def next(self) -> Batch | None:
        """The batch to send now: what earlier processes left has its turn when nothing of ours waits."""
        return self.head or (self._adopted[0] if self._adopted else None)

    @property
    def has_adopted(self) -> bool:
        return bool(self._adopted)

    @property
    def settled(self) -> int:
        """The queue position before which every event is delivered or given up."""
        head = self.head
        return head.start if head else self._queue.removed - self._encoding

    @property
    def given_up(self) -> int:
        """How many events were given up or left unread, so far."""
        return self._lost().total() + self._left

    def lost(self) -> dict[str, int]:
        """Events given up by reason, those of earlier processes included; what nobody wanted is not lost."""
        return dict(sorted((+(self._lost() + self._replay_dropped)).items()))

    def speak(self, *, final: bool = False) -> None:
        """Say what there is to say of delivery; if `final`, all of it. Not under the lock."""
        with self.lock:
            if self._taking:  # a signal handler's flush, in the middle: what is taken would seem lost
                return
            for reason, count in self.lost().items():
                if reason != "shutdown":  # which has a line of its own
                    self.complaints.lost(reason, count, self._why.get(reason, reason), final=final)
        self.complaints.speak()

    def account(self) -> Stats:
        """The counters of one moment, which balance.

        Submits take no lock. So what waits and what made room in the queue are told from positions: they
        only grow, and the one that grows first is read last.
        """
        queue = self._queue
        evicted = queue.removed - self._taken
        refused = queue.refused
        dropped = Counter(self._dropped)
        dropped["queue_full"] += evicted
        dropped["shutdown"] += refused
        in_flight = self._in_flight()
        recorded = queue.recorded
        return Stats(
            recorded=recorded + refused,
            queued=recorded - self._taken - evicted + self._encoding + self._held_events - in_flight[0],
            in_flight=sum(in_flight),
            sent=self._sent,
            retried=self._retried,
            dropped={reason: count for reason, count in sorted(dropped.items()) if count},
            spooled=self._on_disk - in_flight[1],
            replayed=self._replayed,
            replay_dropped={reason: count for reason, count in sorted(self._replay_dropped.items()) if count},
        )

    def filed(self) -> int:
        """How many events of this process wait in the spool, in memory as well or not."""
        batches = (*self._batches, *self._unread)
        return sum(batch.events for batch in batches if batch.file is not None and not batch.adopted)

    # ---- in ------------------------------------------------------------------------------------------

    def take(self, most: int) -> tuple[list[Recording], int]:
        """Up to `most` recordings to encode, and the queue position of the first."""
        start = self._queue.removed
        self._taking = True
        taken = self._queue.take(most)
        self._taken += len(taken)
        self._encoding = len(taken)
        self._taking = False
        return taken, start

    def add(self, batch: Batch | None, unreadable: int = 0, unwanted: int = 0) -> None:
        """The encoded ones become a batch; the user's `before_send` dropped the unwanted ones."""
        self._encoding = 0
        if self._closed:  # close has counted them
            if batch is not None and batch.file is not None:
                self._dropped["shutdown"] -= batch.events
                self._on_disk += batch.events
            return
        self._dropped["unreadable"] += unreadable
        self._dropped["before_send"] += unwanted
        if batch is not None:
            self._batches.append(batch)
            self._hold(batch, 1)
        self._make_room()

    def adopt(self, files: Iterable[SpoolFile]) -> None:
        """Batches that earlier processes left."""
        if not self._closed:
            self._adopted.extend(Batch(None, file.events, -1, file, adopted=True) for file in files)

    def close(self) -> int:
        """Stop: what has a file stays there, the rest is given up; how many events that were."""
        rest = self._queue.take(self._queue.recorded)
        self._taken += len(rest)
        lost = self._encoding + len(rest)
        for batch in self._batches:
            if batch.file is None:
                lost += batch.events
                self._hold(batch, -1)
            else:
                self._page_out(batch)
        if not self._closed:
            self._abandoned = self.sending
        self._closed = True
        self._batches.clear()
        self._adopted.clear()
        self._unread.clear()
        self._encoding = 0
        self._dropped["shutdown"] += lost
        return lost

    # ---- out -----------------------------------------------------------------------------------------

    def settle(
        self, batch: Batch, outcome: Outcome, reply: Reply | None, halves: Sequence[Batch] = ()
    ) -> None:
        """Apply what the server answered to the batch that was sent; `halves` are what to send instead."""
        self.sending = None
        if batch is self._abandoned:
            self._settle_late(batch, outcome, reply)
            return
        line = self._adopted if batch.adopted else self._batches
        if not line or line[0] is not batch:
            return
        if outcome.verdict in (Verdict.RETRY, Verdict.UNAUTHORIZED):
            self.postpone(outcome)
            return
        if reply is not None and self.circuit.worked():
            self.complaints.good_news("works", f"delivery works again; {self._waiting()} events waited")
        line.popleft()
        self._hold(batch, -1)
        if batch.file is not None:
            self.done.append(batch.file)
        if outcome.verdict is Verdict.ACCEPTED:
            self._accept(batch, reply)
        elif halves:
            for half in reversed(halves):
                line.appendleft(half)
                self._hold(half, 1)
        else:
            gone = batch.gone if reply is None else None
            self._drop(
                gone or outcome.reason,
                batch,
                _WHY[gone] if gone else refusal(reply.status if reply else None),
            )
        self._make_room()

    def postpone(self, outcome: Outcome) -> None:
        """Try again later: when the server said, else after a back-off with jitter."""
        self._retried += 1
        self.problem = outcome.reason
        was_open = self.circuit.is_open
        opened = self.circuit.failed(outcome, self._clock(), self._rand())
        if outcome.verdict is Verdict.UNAUTHORIZED:
            message = (
                "the server refuses the API key; events are kept and tried again slowly "
                "(`lumiqtrace doctor` says more)"
            )
        elif opened:
            message = (
                f"delivery failed {OPEN_AFTER} times in a row ({outcome.reason}); "
                f"{self._waiting()} events wait and are tried again slowly"
            )
        else:
            message = f"events cannot be delivered now ({outcome.reason}); they are kept and tried again"
        if not was_open or outcome.verdict is Verdict.UNAUTHORIZED:
            self.complaints.add("opened" if opened else outcome.verdict.value, message)

    def lose(self, file: SpoolFile, reason: str) -> None:
        """A file is gone: given up is what was only there, and all that is too old."""
        for line in (self._batches, self._adopted, self._unread):
            batch = next((batch for batch in line if batch.file is file), None)
            if batch is None:
                continue
            if batch is self.sending or (reason == "spool_full" and batch.body is not None):
                batch.file = None
                batch.gone = reason
                return
            line.remove(batch)
            self._hold(batch, -1)
            self._drop(reason, batch, _WHY[reason])
            return

    def leave(self, batch: Batch, why: str) -> None:
        """Its file cannot be read now: it stays in the spool until `take_back`, or for the next process."""
        self.sending = None
        line = self._adopted if batch.adopted else self._batches
        if line and line[0] is batch:
            line.popleft()
            self._unread.append(batch)
            self._left += 0 if batch.adopted else batch.events
            told = f"{batch.events} events stay in the spool, which cannot be read now ({why})"
            self.complaints.add("unread", told)

    def take_back(self) -> None:
        """Have what could not be read tried again, in its place."""
        unread, self._unread = self._unread, []
        self._adopted.extend(batch for batch in unread if batch.adopted)
        ours = [*self._batches, *(batch for batch in unread if not batch.adopted)]
        self._batches = deque(sorted(ours, key=lambda batch: batch.start))

    def keep_read(self, batch: Batch, body: bytes) -> None:
        """Its file went while it was being sent: what was read of it is the only copy."""
        if batch.file is None and batch.body is None and batch is not self._abandoned:
            self._hold(batch, -1)
            batch.body = body
            self._hold(batch, 1)

    def take_done(self) -> list[SpoolFile]:
        done, self.done = self.done, []
        return done

    def _settle_late(self, batch: Batch, outcome: Outcome, reply: Reply | None) -> None:
        """The answer came after `close` had given the batch up, or left it on disk."""
        self._abandoned = None
        if outcome.verdict is not Verdict.ACCEPTED:
            return
        if batch.file is not None:
            self.done.append(batch.file)
        if not batch.adopted and batch.file is not None:
            self._on_disk -= batch.events
        elif not batch.adopted:
            self._dropped["shutdown"] -= batch.events
        self._accept(batch, reply)

    def _accept(self, batch: Batch, reply: Reply | None) -> None:
        errors = refused_lines(reply.body if reply else b"")
        refused = min(len(errors), batch.events)
        if batch.adopted:
            self._replayed += batch.events - refused
        else:
            self._sent += batch.events - refused
        if refused:
            self._drop("rejected", batch, f"the server refused it: {str(errors[0])[:200]}", refused)

    def _drop(self, reason: str, batch: Batch, why: str, events: int | None = None) -> None:
        count = batch.events if events is None else events
        (self._replay_dropped if batch.adopted else self._dropped)[reason] += count
        self._why[reason] = why

    # ---- what is kept ----------------------------------------------------------------------------------

    def _hold(self, batch: Batch, sign: int) -> None:
        """Count a batch in, or out again (-1)."""
        if batch.body is not None and not batch.adopted:
            self._held_bytes += sign * len(batch.body)
            self._held_events += sign * batch.events
        elif not batch.adopted:
            self._on_disk += sign * batch.events

    def _page_out(self, batch: Batch) -> None:
        self._hold(batch, -1)
        batch.body = None
        self._hold(batch, 1)

    def _make_room(self) -> None:
        """Within the bounds: what has a file stays only there, else the oldest is given up."""
        while self._held_events > self._filed_events or self._held_bytes > self._filed_bytes:
            kept = [batch for batch in self._batches if batch.body is not None and batch is not self.sending]
            filed = [batch for batch in kept if batch.file is not None]
            too_many = self._held_events > self._max_events or self._held_bytes > self._max_bytes
            if filed:
                self._page_out(filed[-1])
            elif too_many and len(kept) > 1:
                self._batches.remove(kept[0])
                self._hold(kept[0], -1)
                self._drop("queue_full", kept[0], _WHY["queue_full"])
            else:
                break
        self._queue.hold(self._held_events, self._held_bytes)

    def _in_flight(self) -> tuple[int, int]:
        """How many events are being sent, of those in memory and of those on disk."""
        batch = self.sending
        if batch is None or batch.adopted or batch is self._abandoned:
            return 0, 0
        return (0, batch.events) if batch.body is None else (batch.events, 0)

    def _lost(self) -> Counter[str]:
        """By reason, what was given up of this process's events."""
        lost = Counter(self._dropped)
        lost.pop("before_send", None)
        lost["queue_full"] += self._queue.removed - self._taken
        lost["shutdown"] += self._queue.refused
        return lost

    def _waiting(self) -> int:
        return len(self) + len(self._queue) + sum(batch.events for batch in self._adopted)
