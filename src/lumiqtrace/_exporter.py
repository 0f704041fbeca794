"""The one thread: takes recordings off the queue, prices and encodes them, and delivers them in batches.

Decisions are `_retry`'s, the account is the outbox's; this loop only sequences them. A batch is tried
until it is accepted, refused or the process ends; meanwhile it is kept compressed, within the queue's
bounds. `flush` is a barrier: it waits for what was recorded before it, and never past its timeout.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final

from ._config import Prices
from ._encode import encode
from ._event import MAX_EVENTS_PER_BATCH, Recording
from ._guard import Guard
from ._outbox import MAX_BATCH_BYTES, Batch, Outbox
from ._pace import Pace
from ._pipeline import Pipeline
from ._pricing import Pricer
from ._queue import EventQueue, Stats
from ._retry import Outcome, Verdict, classify
from ._transport import Reply, Transport, TransportError

SEND_TIMEOUT: Final = 10.0
"""Seconds for one request, so that a server that hangs is noticed."""

MAX_WAIT: Final = 86_400.0
"""Seconds a flush waits at most, whatever it was told; a lock cannot wait for ever."""

MAX_RAW_BYTES: Final = 4 * 1024 * 1024
"""Bytes of recordings that are kept as they are."""


CROWDED: Final = 500
"""Recordings that may wait for our thread before the callers step aside for it."""

STEP_ASIDE_EVERY: Final = 8
"""To deliver a batch takes the interpreter some ten times; at this pace a loop of calls is followed."""

STEP_ASIDE: Final = 50e-6
"""Seconds; the other thread needs about so long to wake up."""


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
        prices: Prices | None = None,
        pipeline: Pipeline | None = None,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._queue = EventQueue(max_queue_events, max_queue_bytes)
        self._outbox = Outbox(
            self._queue, max_queue_events, max_queue_bytes, on_error=on_error, clock=clock, rand=rand
        )
        self._pricer = Pricer(prices)
        self._pipeline = pipeline or Pipeline()
        self._building = Guard("building an event", limit=None)
        self._looping = Guard("the exporter", limit=None)

        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # SimpleQueue.put is reentrant, which Event.set is not: a destructor may submit at any point.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._nudged = False
        self._asleep = False
        self._closed = False

        # Changed under the outbox's lock.
        self._flush_to = 0
        self._hurry = False
        self._drops_reported = 0

        # Touched by whoever runs _step, one at a time.
        self._stepping = threading.Lock()
        self._pace = Pace(batch_size, flush_interval)

    # ---- what the application's threads call -------------------------------------------------------

    def submit(self, recording: Recording) -> None:
        """Queue one recording. Takes microseconds; does no I/O.

        Where very many wait it steps aside for a moment: a program that computes without a pause can keep
        our thread from running for seconds (10 were measured), and what waits then is lost in the end.
        """
        queue = self._queue
        waiting = queue.put(recording)
        if not self._nudged and (
            waiting >= self._pace.wake_at
            or queue.bytes > MAX_RAW_BYTES
            or self._asleep
            or self._thread is None
        ):
            self._nudge()
        elif waiting >= CROWDED and not waiting % STEP_ASIDE_EVERY:
            time.sleep(STEP_ASIDE)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was recorded before is settled, up to `timeout` seconds.

        True if it is, and neither any of it nor anything since the last flush was given up. Returns early
        where the server told us to stay away for longer than the timeout.
        """
        deadline = self._clock() + min(timeout, MAX_WAIT)
        target = self._queue.recorded
        outbox = self._outbox
        with outbox.lock:
            drops_before = self._drops_reported
            self._flush_to = max(self._flush_to, target)
            self._hurry = True
            waiting = outbox.settled < target
        if waiting and self._ensure_thread():
            self._wake.put(None)
        elif waiting:
            self._drain_here(target, deadline)
        with outbox.lock:
            while outbox.settled < target and not self._hopeless(deadline):
                outbox.lock.wait(deadline - self._clock())
            clean = outbox.settled >= target and outbox.given_up == drops_before
            self._drops_reported = outbox.given_up
        outbox.speak()
        return clean

    def close(self, timeout: float) -> bool:
        """Flush, then stop; what could not be delivered in time is dropped and counted as `shutdown`."""
        clean = self.flush(timeout)
        self._queue.close()
        outbox = self._outbox
        with outbox.lock:
            self._closed = True
            lost = outbox.close() + len(self._queue.take(self._queue.recorded))
            outbox.dropped["shutdown"] += lost
        self._wake.put(None)
        outbox.speak()
        if lost:
            outbox.say("shutdown", f"{lost} events were not delivered before the end ({outbox.problem})")
        return clean and not lost

    def stats(self) -> Stats:
        """A moment at which the account balances: submits take no lock, so one may be halfway."""
        for _ in range(1000):
            found = self._stats()
            if found.recorded == found.sent + found.queued + found.in_flight + sum(found.dropped.values()):
                break
            time.sleep(0)
        return found

    def _stats(self) -> Stats:
        outbox, queue = self._outbox, self._queue
        with outbox.lock:
            dropped = Counter(outbox.dropped)
            dropped["queue_full"] += queue.evicted
            dropped["shutdown"] += queue.refused
            queued = len(queue) + len(outbox) - outbox.in_flight
            return Stats(
                recorded=queue.recorded + queue.refused,
                queued=queued,
                in_flight=outbox.in_flight,
                sent=outbox.sent,
                retried=outbox.retried,
                dropped={reason: count for reason, count in sorted(dropped.items()) if count},
                unpriced_models=tuple(sorted(self._pricer.unpriced)),
                internal_errors=self._building.failures + self._looping.failures + self._pipeline.failures,
            )

    # ---- the thread ---------------------------------------------------------------------------------

    def _nudge(self) -> None:
        if self._ensure_thread():
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
        try:
            while not self._closed:
                self._sleep(self._until_due())
                self._step_safely()
            self._transport.close()
        finally:
            self._thread = None

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
        if seconds != 0.0:
            self._pace.woke(len(self._queue))

    def _until_due(self) -> float | None:
        """Seconds until there is something to do; None when only a new event can bring it."""
        now = self._clock()
        with self._outbox.lock:
            due = self._pace.until_due(len(self._queue), now)
            blocked = max(0.0, self._outbox.retry_at - now)
            if blocked and not self._may_hurry():
                return 0.0 if self._worth_compressing() else blocked
            return 0.0 if self._outbox.head or self._must_cut(now) else due

    def _drain_here(self, target: int, deadline: float) -> None:
        """Deliver on the calling thread, for a process that cannot start one."""
        while self._outbox.settled < target and not self._hopeless(deadline):
            self._step_safely(deadline)
            pause = min(self._until_due() or 0.0, deadline - self._clock())
            time.sleep(max(0.0, pause))

    def _step_safely(self, deadline: float | None = None) -> None:
        with self._stepping:
            if self._looping(self._step, deadline) is None:
                with self._outbox.lock:
                    self._outbox.postpone(Outcome(Verdict.RETRY, "internal error"))
        self._outbox.speak()

    # ---- one step: cut a batch, send a batch --------------------------------------------------------

    def _step(self, deadline: float | None) -> bool:
        """`deadline` is that of a caller who must not wait longer; the thread has none."""
        now = self._clock()
        outbox = self._outbox
        with outbox.lock:
            if self._may_hurry():
                outbox.retry_at = now
            self._hurry = False
            blocked = now < outbox.retry_at
        if blocked:
            while self._worth_compressing():
                self._cut()
            return True
        if outbox.head is None and self._must_cut(now):
            self._cut()
        if (head := outbox.head) is not None:
            left = SEND_TIMEOUT if deadline is None else min(SEND_TIMEOUT, deadline - self._clock())
            self._deliver(head, max(0.05, left))
        return True

    def _worth_compressing(self) -> bool:
        """Whether to cut a batch although it is not due: compressed it keeps a fifth of the memory."""
        return len(self._queue) >= MAX_EVENTS_PER_BATCH or (
            self._queue.bytes > MAX_RAW_BYTES and len(self._queue) > 0
        )

    def _must_cut(self, now: float) -> bool:
        waiting = len(self._queue)
        return (
            self._pace.is_due(waiting, now)
            or (waiting > 0 and self._outbox.settled < self._flush_to)
            or self._worth_compressing()
        )

    def _cut(self) -> None:
        """Turn up to a request's worth of recordings into a batch."""
        outbox = self._outbox
        with outbox.lock:
            start = self._queue.removed
            taken = self._queue.take(MAX_EVENTS_PER_BATCH)
            outbox.encoding(len(taken))
        self._pace.took(self._clock())
        built = (self._building(self._line, recording) for recording in taken)
        whole = [line for line in built if line is not None]
        lines = [line for line in whole if line]
        with outbox.lock:
            outbox.add(lines, len(taken) - len(whole), start, unwanted=len(whole) - len(lines))
            outbox.lock.notify_all()

    def _line(self, recording: Recording) -> bytes:
        """One line; empty where the pipeline dropped the event."""
        event = recording.event()
        self._pricer.price(event)
        wanted = self._pipeline(event)
        return b"" if wanted is None else encode(wanted)

    def _deliver(self, batch: Batch, timeout: float) -> None:
        outbox = self._outbox
        reply: Reply | None = None
        if len(batch.body) > MAX_BATCH_BYTES and batch.events > 1:
            outcome = Outcome(Verdict.SPLIT)
        else:
            with outbox.lock:
                outbox.in_flight = batch.events
            outcome, reply = self._send(batch, timeout)
        with outbox.lock:
            outbox.settle(batch, outcome, reply)
        # Before the flushes go on, so that who is told False finds the reason in the log.
        outbox.speak()
        with outbox.lock:
            outbox.lock.notify_all()

    def _send(self, batch: Batch, timeout: float) -> tuple[Outcome, Reply | None]:
        try:
            reply = self._transport.send(batch.body, {}, timeout)
        except TransportError as error:
            return Outcome(Verdict.RETRY, str(error)), None
        # A transport of the user's may raise anything; no fault of it ends the delivery.
        except Exception as error:  # noqa: BLE001
            return Outcome(Verdict.RETRY, f"{type(error).__name__} in the transport"), None
        return classify(reply.status, reply.headers.get("retry-after"), datetime.now(UTC)), reply

    def _may_hurry(self) -> bool:
        """A flush cuts our own back-off short, never a wait that the server asked for."""
        return self._hurry and not self._outbox.told_to_wait

    def _hopeless(self, deadline: float) -> bool:
        outbox = self._outbox
        return self._clock() >= deadline or (outbox.told_to_wait and outbox.retry_at >= deadline)
