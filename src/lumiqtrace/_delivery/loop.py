"""What the threads do: cut what is due into batches, send the next one, and sleep until there is more.

Decisions are `retry`'s, `circuit`'s and `pace`'s, the account is the outbox's; this only sequences them. One
thread does both. With a spool a second one sends, so that a server that hangs keeps nothing from the disk;
without one a second one compresses, while the first waits for such a server and very much has come in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .._event import MAX_EVENTS_PER_BATCH
from .._guard import Guard
from .._own import contained
from .batcher import Batcher
from .outbox import Outbox
from .pace import Pace
from .queue import EventQueue
from .retry import Outcome, Verdict
from .sending import Delivery
from .worker import Worker

if TYPE_CHECKING:
    from .spool import Spool

SEND_TIMEOUT: Final = 10.0
"""Seconds for one request, so that a server that hangs is noticed."""

MAX_RAW_BYTES: Final = 2 * 1024 * 1024
"""Bytes of recordings that are kept as they are."""

PROMPT: Final = 0.1
"""Seconds; a request that takes longer waits for the server, not for the interpreter."""

LOAD_AGAIN: Final = 1.0
"""Seconds after which what could not be loaded is tried again: a process may be out of file descriptors."""

LAST_WRITE: Final = 0.25
"""Seconds that a `close` takes beyond its timeout, at most, to have on disk what was just recorded."""


class Loop:
    """Cuts and sends. `flush_to` and `hurry` are set under the outbox's lock, by a flush."""

    def __init__(
        self,
        queue: EventQueue,
        outbox: Outbox,
        *,
        batcher: Batcher,
        delivery: Delivery,
        pace: Pace,
        spool: Spool | None,
        clock: Callable[[], float],
    ) -> None:
        self.flush_to = 0
        """The position in the queue up to which nothing waits for its turn."""
        self.hurry = False
        """Whether our own back-off is cut short, once."""
        self.closed = False
        self._queue = queue
        self._outbox = outbox
        self._batcher = batcher
        self._delivery = delivery
        self._pace = pace
        self._spool = spool
        self._clock = clock
        self._loads_at = 0.0
        """When to try again to load what a batch takes."""
        self._looping = Guard("the exporter", limit=None)
        # Each touched by whoever cuts, and by whoever sends, one at a time.
        self._cutting = threading.Lock()
        self._stepping = threading.Lock()
        if spool is None:
            self.worker = Worker("lumiqtrace-exporter", self.until_due, self.step, delivery.close)
            self._sender: Worker | None = None
            self._relief: Worker | None = Worker("lumiqtrace-relief", lambda: None, self._cut_step)
        else:
            self.worker = Worker("lumiqtrace-exporter", self._until_cut, self._cut_step)
            self._sender = Worker("lumiqtrace-sender", self._until_send, self._send_step, delivery.close)
            self._relief = None

    @property
    def failures(self) -> int:
        """Faults of ours that were kept in here."""
        return self._looping.failures

    # ---- what the exporter asks for --------------------------------------------------------------------

    def wants_to_run(self) -> bool:
        """Whether a thread of ours waits for the interpreter: not where it sleeps or waits for the server."""
        began = self._delivery.began
        if began is not None and self._sender is None:
            return self._clock() - began < PROMPT
        return self._batcher.encodes or self.worker.nudged

    def ensure_threads(self) -> bool:
        """Start what is not alive; False where this process cannot."""
        return self.worker.ensure() and (self._sender is None or self._sender.ensure())

    def wake(self) -> None:
        self.worker.wake()
        if self._sender is not None:
            self._sender.wake()

    def relieve(self) -> None:
        """Have compressed what waits as it is, where the thread waits for a server that does not answer."""
        if self._relief is not None and self._is_waiting(self._clock()) and self._relief.ensure():
            self._relief.wake()

    def stop(self) -> None:
        """Let the threads end after what they do now."""
        for worker in self._workers:
            worker.stop()

    def park(self, deadline: float) -> None:
        """Cut what waits into batches, and end the threads; the next work starts them again."""
        self.cut_the_rest(deadline)
        for worker in self._workers:
            worker.park(max(0.0, deadline - self._clock()))

    @property
    def _workers(self) -> list[Worker]:
        return [each for each in (self.worker, self._sender, self._relief) if each is not None]

    def _is_waiting(self, now: float) -> bool:
        began = self._delivery.began
        return began is not None and now - began >= PROMPT

    def cut_the_rest(self, deadline: float) -> None:
        """Have on disk what is still in the queue, which a flush without time did not wait for."""
        end = max(deadline, self._clock() + LAST_WRITE)
        # The thread may have a batch in its hands.
        if self._cutting.acquire(timeout=max(0.0, end - self._clock())):
            try:
                while len(self._queue) and self._clock() < end and self._looping(contained, self._cut):
                    pass
            finally:
                self._cutting.release()

    def finish_replay(self, deadline: float) -> None:
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

    # ---- when --------------------------------------------------------------------------------------------

    def until_due(self) -> float | None:
        """Seconds until there is something to do; None when only a new event can bring it."""
        cut, send = self._until_cut(), self._until_send()
        return cut if send is None else send if cut is None else min(cut, send)

    def _until_cut(self) -> float | None:
        now = self._clock()
        if now < self._loads_at:
            return self._loads_at - now
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

    # ---- what ---------------------------------------------------------------------------------------------

    def step(self, slept: bool, deadline: float | None = None) -> None:
        self._cut_step(slept, deadline)
        self._send_step(slept, deadline)

    def _patience(self, deadline: float | None) -> float:
        """Seconds to wait for a lock; a signal handler may have interrupted whoever holds it."""
        return -1.0 if deadline is None else max(0.0, deadline - self._clock())

    def _in_time(self, deadline: float | None) -> bool:
        return deadline is None or self._clock() < deadline

    def _cut_step(self, slept: bool, deadline: float | None = None) -> None:
        """Cut what is due. Where a batch waits and no spool needs it, what comes after waits as it is."""
        if self._cutting.acquire(timeout=self._patience(deadline)):
            try:
                if slept:
                    self._pace.woke(len(self._queue))
                self._looping(contained, self._cut_due, deadline)
            finally:
                self._cutting.release()
        if self._sender is not None and self._sender.ensure() and self._outbox.head is not None:
            self._sender.wake()
        self._outbox.speak()

    def _cut_due(self, deadline: float | None) -> None:
        now = self._clock()
        outbox = self._outbox
        if now < self._loads_at:
            return
        if self._spool is not None:
            while not self.closed and self._must_cut(now) and self._in_time(deadline) and self._cut():
                pass
        elif outbox.head is None:
            if self._must_cut(now):
                self._cut()
        else:
            while (
                (self._blocked(now) or self._is_waiting(now))
                and self._worth_compressing()
                and self._in_time(deadline)
                and self._cut()
            ):
                pass

    def _worth_compressing(self) -> bool:
        """Whether to cut a batch although it is not due: compressed it keeps a fifth of the memory."""
        return len(self._queue) >= MAX_EVENTS_PER_BATCH or (
            self._queue.bytes > MAX_RAW_BYTES and len(self._queue) > 0
        )

    def _must_cut(self, now: float) -> bool:
        waiting = len(self._queue)
        return (
            self._pace.is_due(waiting, now)
            or (waiting > 0 and self._queue.removed < self.flush_to)
            or self._worth_compressing()
        )

    def _cut(self) -> bool:
        """False where what a batch takes could not be loaded: then nothing was taken."""
        if not self._looping(self._batcher.load):
            self._loads_at = self._clock() + LOAD_AGAIN
            self._outbox.complaints.add("load", "events wait: lumiqtrace could not load a module of its own")
            return False
        self._pace.took(self._clock())
        self._batcher.cut()
        return True

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
        self._outbox.speak()

    def _send_next(self, deadline: float | None) -> bool:
        now = self._clock()
        outbox = self._outbox
        if not self.closed:
            self._delivery.sweep(now)
        with outbox.lock:
            batch = outbox.next
            if batch is None or self._blocked(now):
                return True
            self.hurry = False
            outbox.sending = batch
        left = SEND_TIMEOUT if deadline is None else min(SEND_TIMEOUT, deadline - self._clock())
        self._delivery.deliver(batch, max(0.05, left))
        return True

    def _blocked(self, now: float) -> bool:
        """Whether to wait; a flush cuts our own back-off short, never a wait that the server asked for."""
        circuit = self._outbox.circuit
        return now < circuit.retry_at and (circuit.told_to_wait or not self.hurry)
