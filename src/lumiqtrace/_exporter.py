"""The one thread: takes recordings off the queue, prices and encodes them, and delivers them in batches.

Decisions are `_retry`'s and `_circuit`'s, the account is the outbox's; this loop only sequences them. A
batch is tried until it is accepted, refused or the process ends; meanwhile it is kept compressed, within the
queue's bounds. With a spool a second thread sends, so that a server that hangs keeps nothing from the disk.
`flush` is a barrier: it waits for what was recorded before it, and never past its timeout.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ._batcher import Batcher
from ._config import Prices
from ._delivery import Delivery
from ._event import MAX_EVENTS_PER_BATCH, Recording
from ._guard import Guard
from ._losses import Losses
from ._outbox import Outbox
from ._own import contained
from ._pace import Pace
from ._pipeline import Pipeline
from ._queue import EventQueue, Stats
from ._retry import Outcome, Verdict
from ._transport import Transport
from ._worker import Worker

if TYPE_CHECKING:
    from ._spool import Spool

SEND_TIMEOUT: Final = 10.0
"""Seconds for one request, so that a server that hangs is noticed."""

MAX_WAIT: Final = 86_400.0
"""Seconds a flush waits at most, whatever it was told; a lock cannot wait for ever."""

MAX_RAW_BYTES: Final = 2 * 1024 * 1024
"""Bytes of recordings that are kept as they are."""

CROWDED: Final = 500
"""Recordings that may wait for our thread before the callers step aside for it."""

STEP_ASIDE_EVERY: Final = 8
"""To deliver a batch takes the interpreter some ten times; at this pace a loop of calls is followed."""

STEP_ASIDE: Final = 50e-6
"""Seconds; the other thread needs about so long to wake up."""

PROMPT: Final = 0.1
"""Seconds; a request that takes longer waits for the server, not for the interpreter."""

LAST_WRITE: Final = 0.25
"""Seconds that a `close` takes beyond its timeout, at most, to have on disk what was just recorded."""

_rand: Final = random.SystemRandom().random
"""Not the generator of the process: its state is in the snapshot that many sandboxes are restored from."""


class Exporter:
    """Delivers what `submit` was given. It makes no thread, no connection and no file before the first."""

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
        losses: Losses | None = None,
        spool: Spool | None = None,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = _rand,
    ) -> None:
        self._clock = clock
        self._queue = EventQueue(max_queue_events, max_queue_bytes)
        self._outbox = Outbox(
            self._queue,
            max_queue_events,
            max_queue_bytes,
            spooled=spool is not None,
            on_error=on_error,
            clock=clock,
            rand=rand,
        )
        self._spool = spool
        if spool is not None:
            spool.complain = self._outbox.complaints.add
        self._batcher = Batcher(self._outbox, prices, pipeline or Pipeline(), spool)
        self._delivery = Delivery(transport, self._outbox, losses or Losses("", ""), spool, clock)
        self._looping = Guard("the exporter", limit=None)
        self._closed = False
        self._clean: bool | None = None
        self._closer: int | None = None

        # Changed under the outbox's lock.
        self._flush_to = 0
        self._hurry = False
        self._drops_reported = 0

        # Each touched by whoever cuts, and by whoever sends, one at a time.
        self._cutting = threading.Lock()
        self._stepping = threading.Lock()
        self._pace = Pace(
            batch_size, flush_interval if spool is None else min(flush_interval, spool.interval)
        )

        if spool is None:
            self._worker = Worker("lumiqtrace-exporter", self._until_due, self._step, transport.close)
            self._sender: Worker | None = None
        else:
            self._worker = Worker("lumiqtrace-exporter", self._until_cut, self._cut_step)
            self._sender = Worker("lumiqtrace-sender", self._until_send, self._send_step, transport.close)

    # ---- what the application's threads call -------------------------------------------------------

    def submit(self, recording: Recording) -> None:
        """Queue one recording. Takes microseconds; does no I/O.

        Where very many wait it steps aside for a moment: a program that computes without a pause can keep
        our thread from running for seconds (10 were measured), and what waits then is lost in the end.
        """
        queue, worker = self._queue, self._worker
        waiting = queue.put(recording)
        if not worker.nudged and (
            waiting >= self._pace.wake_at
            or queue.bytes > MAX_RAW_BYTES
            or worker.asleep
            or worker.thread is None
        ):
            if not self._closed:
                worker.nudge()
        elif waiting >= CROWDED and not waiting % STEP_ASIDE_EVERY and self._wants_to_run():
            time.sleep(STEP_ASIDE)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was recorded before is settled, up to `timeout` seconds.

        True if it is, and neither any of it nor anything since the last flush was given up. Returns early
        where the server told us to stay away for longer than the timeout, and at once where delivery has
        failed again and again and was tried a moment ago.
        """
        return self._flush(timeout, final=False)

    def close(self, timeout: float) -> bool:
        """Flush, then stop; what could not be delivered in time is dropped and counted as `shutdown`.

        What is in the spool stays there for the next process, and counts as `spooled`. Delivery is tried once
        at least, unless the server told us to stay away.
        """
        deadline = self._clock() + min(timeout, MAX_WAIT)
        self._closer = threading.get_ident()
        clean = self._flush(timeout, final=True)
        outbox = self._outbox
        if self._spool is not None and not self._closed:
            self._keep_the_rest(deadline)
            self._finish_replay(deadline)
        self._queue.close()
        with outbox.lock:
            self._closed = True
            lost = outbox.close()
            left = outbox.account().spooled
        self._worker.stop()
        if self._sender is not None:
            self._sender.stop()
        if self._spool is not None:
            self._spool.close()
        if lost:
            why = f"{lost} events were not delivered before the end ({outbox.problem})"
            outbox.complaints.add("shutdown", why)
        if left:
            outbox.complaints.add(
                "spooled", f"{left} events stay in the spool for the next process ({outbox.problem})"
            )
        with outbox.lock:
            if self._clean is None:
                self._clean = clean and not lost
            outbox.lock.notify_all()
        outbox.complaints.speak()
        return self._clean

    def closed(self, timeout: float) -> bool:
        """What `close` answered, after up to `timeout` seconds where it is under way on another thread."""
        deadline = self._clock() + min(timeout, MAX_WAIT)
        if self._clean is None:
            settled = self._flush(timeout, final=True)
            if self._closer == threading.get_ident():  # this code interrupted it, as a signal handler
                return settled
        outbox = self._outbox
        with outbox.lock:
            while self._clean is None and self._clock() < deadline:
                outbox.lock.wait(deadline - self._clock())
            return bool(self._clean)

    def is_settled(self) -> bool:
        """What `flush` would answer now, without waiting."""
        outbox = self._outbox
        with outbox.lock:
            return outbox.settled >= self._queue.recorded and outbox.given_up == self._drops_reported

    def park(self, timeout: float) -> None:
        """End the threads and the connection, and keep the rest; the next event or flush starts them again.

        What waits is cut into batches before, whose events have their ids: from a copy of this process it
        is delivered with the same ones.
        """
        deadline = self._clock() + timeout
        self._keep_the_rest(deadline)
        for worker in (self._worker, self._sender):
            if worker is not None:
                worker.park(max(0.0, deadline - self._clock()))

    def stats(self) -> Stats:
        """A moment at which the account balances."""
        with self._outbox.lock:
            found = self._outbox.account()
        return found._replace(
            unpriced_models=self._batcher.unpriced_models,
            internal_errors=self._batcher.failures + self._looping.failures,
        )

    def _flush(self, timeout: float, *, final: bool) -> bool:
        deadline = self._clock() + min(timeout, MAX_WAIT)
        target = self._queue.recorded
        outbox = self._outbox
        with outbox.lock:
            drops_before = self._drops_reported
            self._flush_to = max(self._flush_to, target)
            waiting = outbox.settled < target
            tries = waiting and outbox.circuit.may_hurry(self._clock(), final=final)
            self._hurry = self._hurry or tries
        if waiting and self._ensure_threads():
            self._wake()
        elif waiting:
            self._drain_here(target, deadline, tries=tries)
        with outbox.lock:
            while outbox.settled < target and not self._hopeless(deadline, tries=tries):
                outbox.lock.wait(deadline - self._clock())
            clean = outbox.settled >= target and outbox.given_up == drops_before
            self._drops_reported = outbox.given_up
        outbox.complaints.speak()
        return clean

    def _hopeless(self, deadline: float, *, tries: bool) -> bool:
        """Whether a flush need not wait on; `tries` is whether it may have delivery tried."""
        outbox = self._outbox
        circuit = outbox.circuit
        if self._closed or self._clock() >= deadline:
            return True
        if circuit.told_to_wait and circuit.retry_at >= deadline:
            return True
        tried = self._hurry or outbox.sending is not None
        return circuit.is_open and not (tries and tried)

    def _keep_the_rest(self, deadline: float) -> None:
        """Have on disk what is still in the queue, which a flush without time did not wait for."""
        end = max(deadline, self._clock() + LAST_WRITE)
        # The thread may have a batch in its hands.
        if self._cutting.acquire(timeout=max(0.0, end - self._clock())):
            try:
                while len(self._queue) and self._clock() < end:
                    self._looping(contained, self._cut)
            finally:
                self._cutting.release()

    def _finish_replay(self, deadline: float) -> None:
        """Give what earlier processes left the time that is ours, as long as the server takes it."""
        outbox = self._outbox
        sender = self._sender
        if sender is None or sender.thread is None:
            return
        with outbox.lock:
            while (
                (outbox.has_adopted or not self._delivery.swept)
                and outbox.circuit.retry_at <= self._clock() < deadline
                and sender.thread is not None
            ):
                outbox.lock.wait(min(0.1, deadline - self._clock()))

    # ---- the threads --------------------------------------------------------------------------------

    def _wants_to_run(self) -> bool:
        """Whether a thread of ours waits for the interpreter: not where it sleeps or waits for the server."""
        began = self._delivery.began
        if began is not None and self._sender is None:
            return self._clock() - began < PROMPT
        return self._batcher.encodes or self._worker.nudged

    def _ensure_threads(self) -> bool:
        return self._worker.ensure() and (self._sender is None or self._sender.ensure())

    def _wake(self) -> None:
        self._worker.wake()
        if self._sender is not None:
            self._sender.wake()

    def _until_due(self) -> float | None:
        """Seconds until there is something to do; None when only a new event can bring it."""
        cut, send = self._until_cut(), self._until_send()
        return cut if send is None else send if cut is None else min(cut, send)

    def _until_cut(self) -> float | None:
        now = self._clock()
        due = self._pace.until_due(len(self._queue), now)
        with self._outbox.lock:
            if self._spool is None and self._outbox.head is not None:
                return 0.0 if self._blocked(now) and self._worth_compressing() else None
            return 0.0 if self._must_cut(now) else due

    def _until_send(self) -> float | None:
        now = self._clock()
        sweep = None if self._spool is None else max(0.0, self._delivery.sweep_at - now)
        with self._outbox.lock:
            if self._outbox.next is None:
                return sweep
            blocked = self._outbox.circuit.retry_at - now if self._blocked(now) else 0.0
            return blocked if sweep is None else min(blocked, sweep)

    def _drain_here(self, target: int, deadline: float, *, tries: bool) -> None:
        """Deliver on the calling thread, for a process that cannot start one."""
        outbox = self._outbox
        while outbox.settled < target and not self._hopeless(deadline, tries=tries):
            self._step(slept=False, deadline=deadline)
            if outbox.settled >= target:
                break
            due = [until for until in (self._until_cut(), self._until_send()) if until is not None]
            pause = min([*due, deadline - self._clock()])
            # Another caller may be starting the thread, which then settles it for us.
            with outbox.lock:
                if outbox.settled < target:
                    outbox.lock.wait(max(0.0, pause))

    def _step(self, slept: bool, deadline: float | None = None) -> None:
        self._cut_step(slept, deadline)
        self._send_step(slept, deadline)

    def _patience(self, deadline: float | None) -> float:
        """Seconds to wait for a lock; a signal handler may have interrupted whoever holds it."""
        return -1.0 if deadline is None else max(0.0, deadline - self._clock())

    # ---- what they do -----------------------------------------------------------------------------------

    def _cut_step(self, slept: bool, deadline: float | None = None) -> None:
        """Cut what is due. Where a batch waits and no spool needs it, what comes after waits as it is."""
        if self._cutting.acquire(timeout=self._patience(deadline)):
            try:
                if slept:
                    self._pace.woke(len(self._queue))
                self._looping(contained, self._cut_due)
            finally:
                self._cutting.release()
        if self._sender is not None and self._sender.ensure() and self._outbox.head is not None:
            self._sender.wake()
        self._outbox.complaints.speak()

    def _cut_due(self) -> None:
        now = self._clock()
        outbox = self._outbox
        if self._spool is not None:
            while not self._closed and self._must_cut(now):
                self._cut()
        elif outbox.head is None:
            if self._must_cut(now):
                self._cut()
        else:
            while self._blocked(now) and self._worth_compressing():
                self._cut()

    def _worth_compressing(self) -> bool:
        """Whether to cut a batch although it is not due: compressed it keeps a fifth of the memory."""
        return len(self._queue) >= MAX_EVENTS_PER_BATCH or (
            self._queue.bytes > MAX_RAW_BYTES and len(self._queue) > 0
        )

    def _must_cut(self, now: float) -> bool:
        waiting = len(self._queue)
        return (
            self._pace.is_due(waiting, now)
            or (waiting > 0 and self._queue.removed < self._flush_to)
            or self._worth_compressing()
        )

    def _cut(self) -> None:
        self._pace.took(self._clock())
        self._batcher.cut()

    def _send_step(self, _slept: bool, deadline: float | None = None) -> None:
        """`deadline` is that of a caller who must not wait longer; the thread has none."""
        if self._stepping.acquire(timeout=self._patience(deadline)):
            try:
                if self._looping(contained, self._send_next, deadline) is None:
                    with self._outbox.lock:
                        self._outbox.sending = None
                        self._outbox.postpone(Outcome(Verdict.RETRY, "internal error"))
                        self._outbox.lock.notify_all()
            finally:
                self._stepping.release()
        self._outbox.complaints.speak()

    def _send_next(self, deadline: float | None) -> bool:
        now = self._clock()
        outbox = self._outbox
        if not self._closed:
            self._delivery.sweep(now)
        with outbox.lock:
            batch = outbox.next
            if batch is None or self._blocked(now):
                return True
            self._hurry = False
            outbox.sending = batch
        left = SEND_TIMEOUT if deadline is None else min(SEND_TIMEOUT, deadline - self._clock())
        self._delivery.deliver(batch, max(0.05, left))
        return True

    def _blocked(self, now: float) -> bool:
        """Whether to wait; a flush cuts our own back-off short, never a wait that the server asked for."""
        circuit = self._outbox.circuit
        return now < circuit.retry_at and (circuit.told_to_wait or not self._hurry)
