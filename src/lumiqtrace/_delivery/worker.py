"""A thread of ours: starts at its first work, sleeps until there is more, and is started again if it died.

It is a daemon that a fork does not inherit; whoever needs its work done waits for the work, not for it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from queue import Empty

from .._own import enter_own_thread


class Worker:
    """Runs `step(slept)` when `until()` seconds are over or it is woken; None sleeps until then.

    `slept` tells whether it was asleep before this step. `ended()` is called when it was stopped.
    """

    def __init__(
        self,
        name: str,
        until: Callable[[], float | None],
        step: Callable[[bool], None],
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.asleep = False
        """Whether it sleeps until it is woken."""
        self.nudged = False
        """Whether it was woken and has not run yet."""
        self.thread: threading.Thread | None = None
        self._name = name
        self._until = until
        self._step = step
        self._ended = ended
        self._stopped = False
        self._parking = False
        self._starting = threading.Lock()
        # SimpleQueue.put is reentrant, which Event.set is not: a destructor may submit at any point.
        # Looked up when it is made: gevent and eventlet, patched in after our import, have their own.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ensure(self) -> bool:
        """Start the thread, also again where it died; False where this process cannot start one."""
        thread = self.thread
        if thread is not None and thread.is_alive():
            return True
        if self._stopped or not self._starting.acquire(blocking=False):
            return self.thread is not None
        try:
            self._parking = False
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the process may have no more threads
            return False
        else:
            self.thread = thread
            return True
        finally:
            self._starting.release()

    def nudge(self) -> None:
        """Have it run soon, for what is called very often."""
        if self.ensure():
            self.nudged = True
            self._calls.put(None)

    def wake(self) -> None:
        self._calls.put(None)

    def stop(self) -> None:
        """Let it end after what it does now."""
        self._stopped = True
        self._calls.put(None)

    def park(self, timeout: float) -> None:
        """End the thread after what it does now, in `timeout` seconds; the next work starts it again."""
        thread = self.thread
        if thread is not None:
            self._parking = True
            self._calls.put(None)
            thread.join(timeout)

    def _run(self) -> None:
        enter_own_thread()
        try:
            while not (self._stopped or self._parking):
                self._step(self._sleep())
            if self._ended is not None:
                self._ended()
        finally:
            self.thread = None
            self.asleep = self.nudged = False

    def _sleep(self) -> bool:
        seconds = self._until()
        if seconds is None:
            self.asleep = True
            # From here on it is woken by what comes; what came just before did not wake it.
            seconds = self._until()
        try:
            self._calls.get(timeout=seconds)
            while True:
                self._calls.get_nowait()
        except Empty:
            pass
        self.asleep = self.nudged = False
        return seconds != 0.0
