"""From recordings to a batch: each is made an event, priced, passed through the pipeline and encoded.

One recording that fails costs itself alone, and is counted. With a spool the batch is on disk before anybody
may send it. One thread at a time cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .._config import Prices
from .._encode import encode
from .._event import MAX_EVENTS_PER_BATCH, Event, Recording, ids_for
from .._guard import Guard
from .._lifecycle import loading
from .._own import contained
from .._pipeline import Pipeline
from .batch import Batch
from .outbox import Outbox

if TYPE_CHECKING:
    from .._pricing import Pricer
    from .spool import Spool


class UsersPrices:
    """The application's own function for prices; `failures` is how often it raised."""

    def __init__(self, ask: Callable[[Event], float | None]) -> None:
        self.failures = 0
        self._ask = ask

    def __call__(self, event: Event) -> float | None:
        try:
            return contained(self._ask, event)
        except Exception:
            self.failures += 1
            raise


class Batcher:
    """`encodes` is whether it computes right now."""

    def __init__(
        self, outbox: Outbox, prices: Prices | None, pipeline: Pipeline, spool: Spool | None
    ) -> None:
        self.encodes = False
        self._outbox = outbox
        self._asked = UsersPrices(prices) if callable(prices) else None
        self._prices = self._asked or prices
        self._pricer: Pricer | None = None
        self._pipeline = pipeline
        self._spool = spool
        self._building = Guard("building an event", limit=None)

    @property
    def failures(self) -> int:
        return (
            self._building.failures + self._pipeline.failures + (self._asked.failures if self._asked else 0)
        )

    @property
    def unpriced_models(self) -> tuple[str, ...]:
        return tuple(sorted(self._pricer.unpriced)) if self._pricer else ()

    def load(self) -> bool:
        """Import what the first batch takes; to be called before `cut`. Raises what an import does."""
        if self._pricer is None:
            self._pipeline.load()
            with loading():
                from .._pricing import Pricer

            self._pricer = Pricer(self._prices)
        return True

    def cut(self) -> None:
        """Turn up to a request's worth of recordings into a batch."""
        outbox = self._outbox
        with outbox.lock:
            taken, start = outbox.take(MAX_EVENTS_PER_BATCH)
        batch: Batch | None = None
        unreadable, unwanted = len(taken), 0
        try:
            self.encodes = True
            with ids_for(len(taken)):
                built = [self._building(contained, self._line, recording) for recording in taken]
            lines = [line for line in built if line]
            batch = Batch.of(lines, start) if lines else None
            unreadable, unwanted = built.count(None), built.count(b"")
            self.encodes = False
            if batch is not None and self._spool is not None:
                write(batch, self._spool, outbox)
        finally:
            # Also where the thread is ended in the middle: what it had in hand is counted.
            self.encodes = False
            with outbox.lock:
                outbox.add(batch, unreadable, unwanted)
                outbox.lock.notify_all()

    def _line(self, recording: Recording) -> bytes:
        """One line; empty where the pipeline dropped the event."""
        assert self._pricer is not None
        event = recording.event()
        self._pricer.price(event)
        wanted = self._pipeline(event)
        return b"" if wanted is None else encode(wanted)


def write(batch: Batch, spool: Spool, outbox: Outbox) -> None:
    """Have the batch on disk, where that is possible; the oldest files may have to make room."""
    assert batch.body is not None
    sending = outbox.sending
    batch.file, evicted = spool.write(batch.body, batch.events, sending.file if sending else None)
    for file in evicted:
        with outbox.lock:
            outbox.lose(file, "spool_full")
