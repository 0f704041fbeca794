"""What the server needs of a storage, and the two shapes that cross that line.

An event is stored as the JSON object its sender wrote. Beside it stand only the columns that find it:
nothing is said twice, and a field the server does not know is as safe as one it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from lumiqtrace.server.credentials import Credentials
from lumiqtrace.server.errors import StorageError


class NewEvent(NamedTuple):
    """A valid event on its way in."""

    event_id: bytes
    """The UUID's 16 bytes, so that two spellings of one UUID are one event."""
    trace_id: str
    span_id: str
    parent_span_id: str | None
    timestamp: int
    """Microseconds since 1970."""
    body: bytes
    """The event's JSON object: `parent_span_id` always there, `children` never; it ends with its brace."""


class StoredSpan(NamedTuple):
    """An event on its way out; `body` is that of the `NewEvent`."""

    span_id: str
    parent_span_id: str | None
    body: bytes


class Project(NamedTuple):
    """A project by id and name."""

    id: str
    name: str


class Store(Protocol):
    """A place for events. Every method may be called from any thread."""

    def create_project(self, name: str) -> Credentials:
        """A new project, with a key and a token that cannot be shown again. Raises ServerError."""
        ...

    def projects(self) -> list[Project]:
        """All projects, the oldest first."""
        ...

    def project_of_key(self, digest: bytes) -> str | None:
        """The id of the project that an API key with this SHA-256 writes to."""
        ...

    def project_of_token(self, digest: bytes) -> str | None:
        """The id of the project that a read token with this SHA-256 reads."""
        ...

    def refusal(self) -> StorageError | None:
        """Why a write would be refused now, if it would."""
        ...

    def write(
        self, project: str, events: Sequence[NewEvent], *, monthly_events: int | None = None
    ) -> Future[None]:
        """Done when all the events are durable; those stored before are stored already.

        Raises StorageError, or fails with it, having stored none: QuotaExceededError when the project would
        have more than `monthly_events` new ones this month.
        """
        ...

    def trace(self, project: str, trace_id: str) -> list[StoredSpan]:
        """The spans of a trace by timestamp, those of the same time as they came; none is no such trace."""
        ...

    def close(self) -> None:
        """Refuse new writes, finish those that wait, and let go of everything. Again is nothing."""
        ...
