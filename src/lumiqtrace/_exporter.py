"""The one thread: takes recordings off the queue, prices and encodes them, and delivers them in batches.

Decisions are `_retry`'s; this loop only sequences them. A batch is tried until it is accepted, refused or
the process ends; meanwhile it is kept compressed, within the queue's bounds. `flush` is a barrier: it
waits for what was recorded before it, and never longer than its timeout.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final

from ._encode import compress, decompress, encode
from ._event import MAX_EVENTS_PER_BATCH, Recording
from ._guard import Guard, RateLimitedLog
from ._pricing import Pricer
from ._queue import EventQueue, Stats
from ._retry import Outcome, Verdict, backoff, classify
from ._transport import Reply, Transport, TransportError

SEND_TIMEOUT: Final = 10.0
"""Seconds for one request, so that a server that hangs is noticed."""

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Compressed; a larger batch is cut in half before it is sent."""


@dataclass(slots=True)
class Batch:
    """Compressed lines, ready to send; `start` is the queue position of the first."""

    body: bytes
    events: int
    start: int


class Exporter:
    """Delivers what `submit` was given. It makes no thread and no connection before the first."""

    def __init__(
        self,
        transport: Transport,
        *,
        batch_size: int = 50,
        flush_interval: float = 2.0,
        max_queue_events: int = 50_000,
        max_queue_bytes: int = 32 * 1024 * 1024,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._queue = EventQueue(max_queue_events, max_queue_bytes)
        self._batch_size = batch_size
        self._interval = flush_interval
        # What is compressed leaves room for a request's worth in the queue, so that the oldest goes first.
        self._max_pending = max_queue_events - min(MAX_EVENTS_PER_BATCH, max_queue_events // 2)
        self._max_pending_bytes = max_queue_bytes * 3 // 4
        self._on_error = on_error
        self._clock = clock
        self._rand = rand
        self._pricer = Pricer()
        self._building = Guard("building an event", limit=None)
        self._looping = Guard("the exporter", limit=None)
        self._log = RateLimitedLog(clock)

        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # SimpleQueue.put is reentrant, which Event.set is not: a destructor may submit at any point.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._nudged = False
        self._asleep = False
        self._closed = False

        # Below: changed under _state, whose waiters are flushes.
        self._state = threading.Condition()
        self._pending: deque[Batch] = deque()
        self._encoding = 0
        self._in_flight = 0
        self._sent = 0
        self._retried = 0
        self._dropped: Counter[str] = Counter()
        self._drops_reported = 0
        self._flush_to = 0
        self._hurry = False
        self._retry_at = 0.0
        self._told_to_wait = False
        self._problem = ""

        # Below: touched by whoever runs _step, one at a time.
        self._stepping = threading.Lock()
        self._waiting_since: float | None = None
        self._failures = 0

    # ---- what the application's threads call -------------------------------------------------------

    def submit(self, recording: Recording) -> None:
        """Queue one recording. Takes microseconds; does no I/O."""
        self._queue.put(recording)
        if self._asleep or self._thread is None or len(self._queue) >= self._batch_size:
            self._nudge()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was recorded before is settled, up to `timeout` seconds.

        True if it is, and neither any of it nor anything since the last flush was given up. Returns early
        where the server told us to stay away for longer than the timeout.
        """
        deadline = self._clock() + timeout
        target = self._queue.recorded
        with self._state:
            self._flush_to = max(self._flush_to, target)
            self._hurry = True
        if self._settled() < target:
            if self._ensure_thread():
                self._wake.put(None)
            else:
                self._drain_here(target, deadline)
        with self._state:
            while self._settled() < target and not self._hopeless(deadline):
                self._state.wait(deadline - self._clock())
            drops = self._given_up()
            clean = self._settled() >= target and drops == self._drops_reported
            self._drops_reported = drops
        return clean

    def close(self, timeout: float) -> bool:
        """Flush, then stop; what could not be delivered in time is dropped and counted as `shutdown`."""
        clean = self.flush(timeout)
        self._queue.close()
        with self._state:
            self._closed = True
            lost = len(self._queue.take(self._queue.recorded)) + sum(batch.events for batch in self._pending)
            self._pending.clear()
            self._in_flight = 0
            self._dropped["shutdown"] += lost
        self._wake.put(None)
        if lost:
            self._complain(
                "shutdown",
                f"{lost} events were not delivered before the end ({self._problem or 'out of time'})",
            )
        return clean and not lost

    def stats(self) -> Stats:
        with self._state:
            dropped = Counter(self._dropped)
            dropped["queue_full"] += self._queue.evicted
            dropped["shutdown"] += self._queue.refused
            held = self._encoding + sum(batch.events for batch in self._pending)
            queued = len(self._queue) + held - self._in_flight
            return Stats(
                recorded=self._sent + queued + self._in_flight + dropped.total(),
                queued=queued,
                in_flight=self._in_flight,
                sent=self._sent,
                retried=self._retried,
                dropped={reason: count for reason, count in sorted(dropped.items()) if count},
                unpriced_models=tuple(sorted(self._pricer.unpriced)),
                internal_errors=self._building.failures + self._looping.failures,
            )

    # ---- the thread ---------------------------------------------------------------------------------

    def _nudge(self) -> None:
        if not self._nudged and self._ensure_thread():
            self._nudged = True
            self._wake.put(None)

    def _ensure_thread(self) -> bool:
        """Start the thread, also again where it died; False where this process cannot start one."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            return True
        if self._closed or not self._starting.acquire(blocking=False):
            return self._thread is not None
        try:
            thread = threading.Thread(target=self._run, name="lumiqtrace-exporter", daemon=True)
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the process may have no more threads
            return False
        else:
            self._thread = thread
            return True
        finally:
            self._starting.release()

    def _run(self) -> None:
        while not self._closed:
            self._sleep(self._until_due())
            with self._stepping:
                if self._looping(self._step) is None:
                    with self._state:
                        self._postpone(Outcome(Verdict.RETRY, "internal error"))
        self._transport.close()

    def _sleep(self, seconds: float | None) -> None:
        if seconds is None:
            self._asleep = True
            # From here on a submit wakes us; what came just before did not.
            if len(self._queue):
                seconds = 0.0
        try:
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
        except Empty:
            pass
        self._asleep = False
        self._nudged = False

    def _until_due(self) -> float | None:
        """Seconds until there is something to do; None when only a new event can bring it."""
        now = self._clock()
        with self._state:
            waiting = len(self._queue)
            if self._waiting_since is None and waiting:
                self._waiting_since = now
            blocked = max(0.0, self._retry_at - now)
            if blocked and not self._may_hurry():
                return 0.0 if waiting >= MAX_EVENTS_PER_BATCH else blocked
            if self._pending or self._batch_is_due(now):
                return 0.0
            if self._waiting_since is not None:
                return max(0.0, self._waiting_since + self._interval - now)
            return None

    def _drain_here(self, target: int, deadline: float) -> None:
        """Deliver on the calling thread, for a process that cannot start one."""
        while self._settled() < target and not self._hopeless(deadline):
            with self._stepping:
                if self._looping(self._step) is None:
                    return
            time.sleep(max(0.0, min(self._until_due() or 0.0, deadline - self._clock())))

    # ---- one step: cut a batch, send a batch ----------------------------------------------------------

    def _step(self) -> bool:
        now = self._clock()
        with self._state:
            if self._may_hurry():
                self._retry_at = now
            self._hurry = False
            blocked = now < self._retry_at
        if blocked:
            # Nothing can be sent: what fills a request is kept compressed, a fifth of its size.
            while len(self._queue) >= MAX_EVENTS_PER_BATCH:
                self._cut()
            return True
        if not self._pending and self._batch_is_due(now):
            self._cut()
        if self._pending:
            self._deliver(self._pending[0])
        return True

    def _batch_is_due(self, now: float) -> bool:
        waiting = len(self._queue)
        if not waiting:
            return False
        since = self._waiting_since
        return (
            waiting >= self._batch_size
            or self._settled() < self._flush_to
            or (since is not None and now >= since + self._interval)
        )

    def _cut(self) -> None:
        """Turn up to a request's worth of recordings into a batch."""
        with self._state:
            start = self._queue.removed
            taken = self._queue.take(MAX_EVENTS_PER_BATCH)
            self._encoding = len(taken)
        self._waiting_since = self._clock() if len(self._queue) else None
        lines = [line for line in map(self._line, taken) if line is not None]
        body = compress(lines)
        with self._state:
            self._encoding = 0
            self._dropped["unreadable"] += len(taken) - len(lines)
            if self._closed:
                self._dropped["shutdown"] += len(lines)
            elif lines:
                self._pending.append(Batch(body, len(lines), start))
            self._make_room()
            self._state.notify_all()

    def _line(self, recording: Recording) -> bytes | None:
        return self._building(self._build, recording)

    def _build(self, recording: Recording) -> bytes:
        event = recording.event()
        self._pricer.price(event)
        return encode(event)

    def _make_room(self) -> None:
        """Give up the oldest batches beyond the bounds. Under _state."""
        events = sum(batch.events for batch in self._pending)
        size = sum(len(batch.body) for batch in self._pending)
        while len(self._pending) > 1 and (events > self._max_pending or size > self._max_pending_bytes):
            oldest = self._pending.popleft()
            events -= oldest.events
            size -= len(oldest.body)
            self._dropped["queue_full"] += oldest.events
        self._queue.hold(events, size)

    def _deliver(self, batch: Batch) -> None:
        if len(batch.body) > MAX_BATCH_BYTES and batch.events > 1:
            outcome, reply = Outcome(Verdict.SPLIT), None
        else:
            with self._state:
                self._in_flight = batch.events
            outcome, reply = self._send(batch)
        with self._state:
            self._in_flight = 0
            # A close in the meantime has given the batch up and counted it.
            if self._pending and self._pending[0] is batch:
                self._settle(batch, outcome, reply)
            self._make_room()
            self._state.notify_all()

    def _send(self, batch: Batch) -> tuple[Outcome, Reply | None]:
        try:
            reply = self._transport.send(batch.body, {}, SEND_TIMEOUT)
        except TransportError as error:
            return Outcome(Verdict.RETRY, str(error)), None
        # A transport of the user's may raise anything; no fault of it ends the delivery.
        except Exception as error:  # noqa: BLE001
            return Outcome(Verdict.RETRY, f"{type(error).__name__} in the transport"), None
        return classify(reply.status, reply.headers.get("retry-after"), datetime.now(UTC)), reply

    # ---- what an answer means; all under _state -------------------------------------------------------

    def _settle(self, batch: Batch, outcome: Outcome, reply: Reply | None) -> None:
        if outcome.verdict in (Verdict.RETRY, Verdict.UNAUTHORIZED):
            self._postpone(outcome)
            return
        self._failures = 0
        self._retry_at = 0.0
        self._told_to_wait = False
        self._pending.popleft()
        if outcome.verdict is Verdict.ACCEPTED:
            self._accept(batch, reply)
        elif outcome.verdict is Verdict.SPLIT and batch.events > 1:
            self._pending.extendleft(reversed(_halves(batch)))
        else:
            status = reply.status if reply else 0
            self._drop(outcome.reason, batch.events, f"the server answered {status}")

    def _accept(self, batch: Batch, reply: Reply | None) -> None:
        refused = _refused_lines(reply.body if reply else b"")
        self._sent += batch.events - min(len(refused), batch.events)
        if refused:
            self._drop("rejected", min(len(refused), batch.events), str(refused[0])[:200])

    def _postpone(self, outcome: Outcome) -> None:
        self._failures += 1
        self._retried += 1
        self._problem = outcome.reason
        self._told_to_wait = outcome.wait is not None
        wait = outcome.wait if outcome.wait is not None else backoff(self._failures, self._rand())
        self._retry_at = self._clock() + wait
        if outcome.verdict is Verdict.UNAUTHORIZED:
            self._complain(
                "unauthorized", "the server refuses the API key; events are kept and tried again slowly"
            )
        else:
            self._complain(
                "retry", f"events cannot be delivered now ({outcome.reason}); they are kept and tried again"
            )

    def _drop(self, reason: str, events: int, why: str) -> None:
        self._dropped[reason] += events
        self._complain(reason, f"{events} events were given up ({reason}): {why}")

    def _complain(self, cause: str, message: str) -> None:
        self._log(logging.WARNING, cause, "%s", message)
        if self._on_error is not None:
            self._on_error(f"lumiqtrace: {message}")

    def _settled(self) -> int:
        """The queue position before which every event is delivered or given up."""
        with self._state:
            return self._pending[0].start if self._pending else self._queue.removed - self._encoding

    def _given_up(self) -> int:
        return self._dropped.total() + self._queue.evicted

    def _may_hurry(self) -> bool:
        """A flush cuts our own back-off short, never a wait that the server asked for."""
        return self._hurry and not self._told_to_wait

    def _hopeless(self, deadline: float) -> bool:
        return self._clock() >= deadline or (self._told_to_wait and self._retry_at >= deadline)


def _halves(batch: Batch) -> list[Batch]:
    lines = decompress(batch.body)
    middle = len(lines) // 2
    return [
        Batch(compress(lines[:middle]), middle, batch.start),
        Batch(compress(lines[middle:]), len(lines) - middle, batch.start + middle),
    ]


def _refused_lines(body: bytes) -> list[object]:
    """The `errors` of a 202 that did not take every line; other servers answer without them."""
    try:
        errors = json.loads(body).get("errors")
    except (ValueError, AttributeError, RecursionError):
        return []
    return errors if isinstance(errors, list) else []
