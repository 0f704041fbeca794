"""Delivers what it is given, and tells the truth about it: the face of everything in this folder.

What the threads do is the loop's. A batch is tried until it is accepted, refused or the process ends;
meanwhile it is kept compressed, within the queue's bounds. `flush` is a barrier: it waits for what was
recorded before it, and never past its timeout.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .._config import Prices
from .._event import Recording
from .._pipeline import Pipeline
from .batcher import Batcher
from .loop import MAX_RAW_BYTES, Loop
from .losses import Losses
from .outbox import Outbox
from .pace import Pace
from .queue import EventQueue, Stats
from .sending import Delivery
from .transport import Transport

if TYPE_CHECKING:
    from .spool import Spool

MAX_WAIT: Final = 86_400.0
"""Seconds a flush waits at most, whatever it was told; a lock cannot wait for ever."""

JUST_NOW: Final = 1.0
"""Seconds; waits in vain that follow each other within them belong together."""

MOST_WAITS: Final = 100
"""That are remembered of those."""

CROWDED: Final = 500
"""Recordings that may wait for our thread before the callers step aside for it."""

STEP_ASIDE_EVERY: Final = 8
"""To deliver a batch takes the interpreter some ten times; at this pace a loop of calls is followed."""

STEP_ASIDE: Final = 50e-6
"""Seconds; the other thread needs about so long to wake up."""

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
        self._losses = losses or Losses("", "")
        self._delivery = Delivery(transport, self._outbox, self._losses, spool, clock)
        self._pace = Pace(
            batch_size, flush_interval if spool is None else min(flush_interval, spool.interval)
        )
        self._loop = Loop(
            self._queue,
            self._outbox,
            batcher=self._batcher,
            delivery=self._delivery,
            pace=self._pace,
            spool=spool,
            clock=clock,
        )
        self._worker = self._loop.worker
        self._closed = False
        self._clean: bool | None = None
        self._closer: int | None = None
        self._drops_reported = 0  # changed under the outbox's lock
        self._in_vain: tuple[tuple[float, float], ...] = ()  # when each began and ended; none overlap

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
        elif waiting >= CROWDED and not waiting % STEP_ASIDE_EVERY:
            if self._loop.wants_to_run():
                time.sleep(STEP_ASIDE)
            elif queue.bytes > MAX_RAW_BYTES:
                self._loop.relieve()
                time.sleep(STEP_ASIDE)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was recorded before is settled, up to `timeout` seconds.

        True if it is, and neither any of it nor anything since the last flush was given up. Returns early
        where the server told us to stay away for longer than the timeout, and at once where delivery has
        failed again and again and was tried a moment ago.
        """
        return self._flush(timeout, final=False)

    def pause(self, timeout: float) -> None:
        """Deliver as `close` does, and go on: the process may end now without another word.

        So all is told: what was given up, what waits in memory alone, and what is in the spool.
        """
        deadline = self._clock() + min(timeout, MAX_WAIT)
        self._flush(timeout, final=True)
        if self._spool is not None:
            self._loop.cut_the_rest(deadline)
        outbox = self._outbox
        with outbox.lock:
            filed = outbox.filed()
            waiting = len(outbox) + len(self._queue) - filed
        if waiting:
            are = _counted(waiting, "event is", "events are")
            outbox.complaints.add("paused", f"{are} not delivered as the server stops ({outbox.problem})")
        if filed:
            stay = _counted(filed, "event stays", "events stay")
            outbox.complaints.add("filed", f"{stay} in the spool as the server stops ({outbox.problem})")
        outbox.speak(final=True)

    def holds_its_lock(self) -> bool:
        """Whether this thread does; a signal may ask, which interrupts any code."""
        lock: Any = self._outbox.lock
        return bool(lock._is_owned())  # as `wait` and `notify` ask

    def waited_in_vain(self, since: float) -> float:
        """Seconds after `since` that flushes have waited up to now, without all being delivered."""
        waits = self._in_vain
        if not waits or self._clock() - waits[-1][1] >= JUST_NOW:
            return 0.0
        return sum(max(0.0, ended - max(began, since)) for began, ended in waits)

    def close(self, timeout: float) -> bool:
        """Flush, then stop; what could not be delivered in time is dropped and counted as `shutdown`.

        What is in the spool stays there for the next process, and counts as `spooled`. Given any time,
        delivery is tried once at least, unless the server told us to stay away.
        """
        deadline = self._clock() + min(timeout, MAX_WAIT)
        self._closer = threading.get_ident()
        clean = self._flush(timeout, final=True)
        outbox = self._outbox
        if self._spool is not None and not self._closed:
            self._loop.cut_the_rest(deadline)
            self._loop.finish_replay(deadline)
        self._queue.close()
        with outbox.lock:
            self._closed = self._loop.closed = True
            lost = outbox.close()
            left = outbox.account().spooled
        self._loop.stop()
        if self._spool is not None:
            self._spool.close()
        if lost:
            were = _counted(lost, "event was", "events were")
            outbox.complaints.add("shutdown", f"{were} not delivered before the end ({outbox.problem})")
        if left:
            stay = _counted(left, "event stays", "events stay")
            outbox.complaints.add("spooled", f"{stay} in the spool for the next process ({outbox.problem})")
        with outbox.lock:
            if self._clean is None:
                self._clean = clean and not lost
            outbox.lock.notify_all()
        outbox.speak(final=True)
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
        is delivered with the same ones, and tells its own losses.
        """
        self._loop.park(self._clock() + timeout)
        self._losses.renew()

    def stats(self) -> Stats:
        """A moment at which the account balances."""
        with self._outbox.lock:
            found = self._outbox.account()
        return found._replace(
            unpriced_models=self._batcher.unpriced_models,
            internal_errors=self._batcher.failures + self._loop.failures,
        )

    def _flush(self, timeout: float, *, final: bool) -> bool:
        began = self._clock()
        deadline = began + min(timeout, MAX_WAIT)
        target = self._queue.recorded
        outbox = self._outbox
        with outbox.lock:
            drops_before = self._drops_reported
            self._loop.flush_to = max(self._loop.flush_to, target)
            waiting = outbox.settled < target
            tries = waiting and outbox.circuit.may_hurry(self._clock(), final=final)
            self._loop.hurry = self._loop.hurry or tries
        if waiting and self._loop.ensure_threads():
            self._loop.wake()
        elif waiting:
            self._drain_here(target, deadline, tries=tries)
        with outbox.lock:
            while outbox.settled < target and not self._hopeless(deadline, tries=tries):
                outbox.lock.wait(deadline - self._clock())
            settled = outbox.settled >= target
            clean = settled and outbox.given_up == drops_before
            self._drops_reported = outbox.given_up
            self._in_vain = () if settled else self._waits_with(began)
        outbox.speak()
        return clean

    def _waits_with(self, began: float) -> tuple[tuple[float, float], ...]:
        """The waits in vain with the one that ends now, which takes up those that it overlaps."""
        waits = list(self._in_vain)
        if waits and began - waits[-1][1] >= JUST_NOW:
            waits.clear()
        while waits and waits[-1][1] >= began:
            began = min(began, waits.pop()[0])
        return (*waits[1 - MOST_WAITS :], (began, self._clock()))

    def _hopeless(self, deadline: float, *, tries: bool) -> bool:
        """Whether a flush need not wait on; `tries` is whether it may have delivery tried."""
        outbox = self._outbox
        circuit = outbox.circuit
        if self._closed or self._clock() >= deadline:
            return True
        if circuit.told_to_wait and circuit.retry_at >= deadline:
            return True
        tried = self._loop.hurry or outbox.sending is not None
        return circuit.is_open and not (tries and tried)

    def _drain_here(self, target: int, deadline: float, *, tries: bool) -> None:
        """Deliver on the calling thread, for a process that cannot start one."""
        outbox = self._outbox
        while outbox.settled < target and not self._hopeless(deadline, tries=tries):
            self._loop.step(slept=False, deadline=deadline)
            if outbox.settled >= target:
                break
            due = self._loop.until_due()
            left = deadline - self._clock()
            pause = left if due is None else min(due, left)
            # Another caller may be starting the thread, which then settles it for us.
            with outbox.lock:
                if outbox.settled < target:
                    outbox.lock.wait(max(0.0, pause))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
