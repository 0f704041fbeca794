"""One thread that commits what waits, many batches at a time.

A commit costs a wait for the disk, whatever is in it: batches that come while one is under way share the
next. What waits is bounded in number and in bytes. A batch that cannot be stored fails alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from lumiqtrace.server.errors import QueueFullError, StorageError, UnavailableError

from .base import LossReport, NewEvent

_MAX_WAITING_BATCHES: Final = 1000
_MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_BATCHES_PER_COMMIT: Final = 32


@dataclass(slots=True, eq=False)
class Batch:
    """The events of one request; `done` is settled when it is known whether they are durable."""

    project: str
    events: Sequence[NewEvent]
    monthly_events: int | None
    losses: LossReport | None = None
    done: Future[None] = field(default_factory=Future)

    def size(self) -> int:
        """About how many bytes it keeps alive."""
        return sum(len(event.body) for event in self.events)


class GroupWriter:
    """Runs `commit` in its thread, which starts with the first batch, and `tidy` after each commit.

    `commit` stores batches in one transaction and gives, for each, None or why it was left out; raising
    StorageError it says that nothing can be stored now, raising anything else that one batch is at fault.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Batch]], Sequence[StorageError | None]],
        tidy: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._tidy = tidy
        self._changed = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._held_batches = 0
        self._held_bytes = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def refusal(self) -> StorageError | None:
        """Why a batch would be refused now, if it would."""
        if self._closed:
            return UnavailableError("the server is stopping", retry_after=5)
        if self._held_batches >= _MAX_WAITING_BATCHES or self._held_bytes >= _MAX_WAITING_BYTES:
            return QueueFullError("too many events wait to be stored", retry_after=1)
        return None

    def submit(self, batch: Batch) -> None:
        """Let the batch wait for the next commit. Raises StorageError."""
        with self._changed:
            if refusal := self.refusal():
                raise refusal
            if self._thread is None:
                # What is not committed is not acknowledged, so an exit need not wait for this thread.
                self._thread = threading.Thread(target=self._run, name="lumiqtrace-writer", daemon=True)
                self._thread.start()
            self._held_batches += 1
            self._held_bytes += batch.size()
            self._waiting.append(batch)
            self._changed.notify()

    def close(self) -> None:
        """Refuse new batches, commit those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            # A request that was given up meanwhile needs no storing; from here on none can be.
            self._settle([batch for batch in group if batch.done.set_running_or_notify_cancel()])
            with self._changed:
                self._held_batches -= len(group)
                self._held_bytes -= sum(batch.size() for batch in group)
            self._tidy()

    def _next_group(self) -> list[Batch]:
        """The batches of the next commit; none when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCHES_PER_COMMIT))]

    def _settle(self, group: list[Batch]) -> None:
        try:
            outcomes = self._commit(group)
        except StorageError as exc:
            for batch in group:
                batch.done.set_exception(exc)
        except Exception as exc:  # noqa: BLE001 - the request that brought it answers for it
            if len(group) == 1:
                group[0].done.set_exception(exc)
            else:
                for batch in group:
                    self._settle([batch])
        else:
            for batch, outcome in zip(group, outcomes, strict=True):
                if outcome is None:
                    batch.done.set_result(None)
                else:
                    batch.done.set_exception(outcome)
