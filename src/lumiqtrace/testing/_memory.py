"""A transport without a network: it keeps what it is sent and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._delivery.transport import Reply
from .._encode import decompress


class SentBatch(NamedTuple):
    """One request: its events as they are on the wire, its own headers, and its time in seconds."""

    events: list[dict[str, Any]]
    headers: Mapping[str, str]
    timeout: float


class MemoryTransport:
    """Keeps `batches`, all that were sent, and `events`, those that were accepted, in order.

    `answer` gives the reply to a batch and may raise `TransportError`; the default accepts everything.
    For a client of your own: `Client(config, transport=lambda _config: memory)`.
    """

    def __init__(self, answer: Callable[[SentBatch], Reply] | None = None) -> None:
        self.batches: list[SentBatch] = []
        self.events: list[dict[str, Any]] = []
        self.closed = False
        self._answer = answer
        self._lock = threading.Lock()

    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        """Take one gzip NDJSON body."""
        batch = SentBatch([json.loads(line) for line in decompress(body)], dict(headers), timeout)
        with self._lock:
            self.batches.append(batch)
        reply = Reply(202, {}, b"{}") if self._answer is None else self._answer(batch)
        if 200 <= reply.status < 300:
            with self._lock:
                self.events.extend(batch.events)
        return reply

    def close(self) -> None:
        self.closed = True
