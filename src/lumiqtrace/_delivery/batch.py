"""A batch: compressed lines, in memory, in a file, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._encode import compress, decompress

if TYPE_CHECKING:
    from .spool_folder import SpoolFile

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Compressed; a larger batch is cut in half before it is sent."""


class Batch:
    """Compressed lines, ready to send; `start` is the queue position of the first.

    `file` is its copy in the spool; `body` is None while that is the only one. An `adopted` batch was
    recorded by an earlier process. `gone` is why its file went while it was being sent.
    """

    __slots__ = ("adopted", "body", "events", "file", "gone", "start")

    def __init__(
        self,
        body: bytes | None,
        events: int,
        start: int,
        file: SpoolFile | None = None,
        *,
        adopted: bool = False,
    ) -> None:
        self.body = body
        self.events = events
        self.start = start
        self.file = file
        self.adopted = adopted
        self.gone = ""

    @classmethod
    def of(cls, lines: list[bytes], start: int, *, adopted: bool = False) -> Batch:
        return cls(compress(lines), len(lines), start, adopted=adopted)

    def halves(self, body: bytes) -> list[Batch]:
        lines = decompress(body)
        middle = len(lines) // 2
        return [
            Batch.of(lines[:middle], self.start, adopted=self.adopted),
            Batch.of(lines[middle:], self.start + middle, adopted=self.adopted),
        ]
