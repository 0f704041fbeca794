"""From a batch to the server's answer and back to the account; and what earlier processes left.

One thread at a time delivers. A batch's file goes when the server has the batch, or refused it for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from .batch import MAX_BATCH_BYTES, Batch
from .batcher import write
from .losses import Losses
from .outbox import Outbox
from .retry import Outcome, Verdict, classify
from .transport import Reply, Transport, TransportError

if TYPE_CHECKING:
    from .spool import Spool

SWEEP_EVERY: Final = 30.0
"""Seconds between two looks for what processes left in the spool that are gone."""


class Delivery:
    """`began` is when the request under way began, `sweep_at` when the spool is looked through again."""

    def __init__(
        self,
        transport: Transport,
        outbox: Outbox,
        losses: Losses,
        spool: Spool | None,
        clock: Callable[[], float],
    ) -> None:
        self.began: float | None = None
        self.sweep_at = 0.0
        self.swept = False
        """Whether the spool was looked through at all."""
        self._transport = transport
        self._outbox = outbox
        self._losses = losses
        self._spool = spool
        self._clock = clock

    def deliver(self, batch: Batch, timeout: float) -> None:
        """Send it once, and settle what came of that. `timeout` is seconds."""
        outbox = self._outbox
        with outbox.lock:
            lost = outbox.lost()
            was_open = outbox.circuit.is_open
        reply: Reply | None = None
        try:
            body, outcome = self._body(batch)
        except OSError as error:
            self._leave(batch, error)
            return
        if body is not None and outcome.verdict is Verdict.ACCEPTED:
            outcome, reply = self._send(body, self._losses.headers(lost), timeout)
        halves: list[Batch] = []
        if body is not None and outcome.verdict is Verdict.SPLIT and batch.events > 1:
            halves = self._halves(batch, body)
        with outbox.lock:
            if outcome.verdict is Verdict.ACCEPTED:
                self._losses.told(lost)
            if body is not None:
                outbox.keep_read(batch, body)
            outbox.settle(batch, outcome, reply, halves)
            done = outbox.take_done()
            more = batch.adopted and not outbox.has_adopted and self._spool is not None and self._spool.more
            if more or (was_open and not outbox.circuit.is_open):
                self.sweep_at = 0.0
        if self._spool is not None:
            for file in done:
                self._spool.remove(file)
        # Before the flushes go on, so that who is told False finds the reason in the log.
        outbox.speak()
        with outbox.lock:
            outbox.lock.notify_all()

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def sweep(self, now: float) -> None:
        """Take over what processes left in the spool that are gone, where it is time to look."""
        spool, outbox = self._spool, self._outbox
        if spool is None or now < self.sweep_at:
            return
        self.sweep_at = now + SWEEP_EVERY
        adopted, expired = spool.sweep(None)
        with outbox.lock:
            outbox.take_back()
            outbox.adopt(adopted)
            for file in expired:
                outbox.lose(file, "expired")
            self.swept = True
            outbox.lock.notify_all()

    def _leave(self, batch: Batch, error: OSError) -> None:
        """What cannot be read now must not stand in the way of the others."""
        outbox = self._outbox
        with outbox.lock:
            outbox.leave(batch, error.strerror or type(error).__name__)
        outbox.speak()
        with outbox.lock:
            outbox.lock.notify_all()

    def _body(self, batch: Batch) -> tuple[bytes | None, Outcome]:
        """What to send, and ACCEPTED where it can be sent as it is; else what is to become of the batch."""
        body = batch.body
        if body is None and self._spool is not None and batch.file is not None:
            body = self._spool.read(batch.file)
        if body is None:
            return None, Outcome(Verdict.REJECTED, "damaged")
        if len(body) > MAX_BATCH_BYTES and batch.events > 1:
            return body, Outcome(Verdict.SPLIT)
        return body, Outcome(Verdict.ACCEPTED)

    def _send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> tuple[Outcome, Reply | None]:
        self.began = self._clock()
        try:
            reply = self._transport.send(body, headers, timeout)
        except TransportError as error:
            return Outcome(Verdict.RETRY, str(error)), None
        # A transport of the user's may raise anything; no fault of it ends the delivery.
        except Exception as error:  # noqa: BLE001
            return Outcome(Verdict.RETRY, f"{type(error).__name__} in the transport"), None
        finally:
            self.began = None
        return classify(reply.status, reply.headers.get("retry-after"), datetime.now(UTC)), reply

    def _halves(self, batch: Batch, body: bytes) -> list[Batch]:
        """Both with files of their own before the whole one's goes."""
        halves = batch.halves(body)
        if self._spool is not None:
            for half in halves:
                write(half, self._spool, self._outbox)
        return halves
