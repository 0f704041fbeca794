"""What goes wrong, as exceptions.

ServerError             for the person at the command line: one sentence
StorageError            for a request whose events were not stored
  QueueFullError          too much waits already
  UnavailableError        the disk is full, the database is locked, or the server is stopping
  QuotaExceededError      the project's month is used up
"""

from __future__ import annotations


class ServerError(Exception):
    """The server cannot start or do what was asked; the message is one sentence to print."""


class StorageError(Exception):
    """The events were not stored; none of them. Sending them again is right."""

    def __init__(self, reason: str, *, retry_after: int) -> None:
        """`retry_after` is whole seconds, for the header of that name."""
        super().__init__(reason)
        self.retry_after = retry_after


class QueueFullError(StorageError):
    """More waits for the disk than may wait."""


class UnavailableError(StorageError):
    """The storage cannot take anything now."""


class QuotaExceededError(StorageError):
    """Storing the events would exceed the project's events per month."""
