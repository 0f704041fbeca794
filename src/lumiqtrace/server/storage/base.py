"""What the server needs of a storage, and the shapes that cross that line.

An event is stored as the JSON object its sender wrote. Beside it stand only the columns that find it:
nothing is said twice, and a field the server does not know is as safe as one it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class LossReport(NamedTuple):
    """What one process says it lost: counts by reason since it started, never smaller than those before."""

    process: str
    service: str | None
    environment: str | None
    dropped: Mapping[str, int]


class Rise(NamedTuple):
    """So many `events` more than were known are lost."""

    project: str
    service: str | None
    environment: str | None
    reason: str
    events: int


class Loss(NamedTuple):
    """What a service lost for one reason, all its `processes` together; times are microseconds since 1970."""

    service: str | None
    environment: str | None
    reason: str
    events: int
    processes: int
    first_seen: int
    last_seen: int


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
        self,
        project: str,
        events: Sequence[NewEvent],
        *,
        monthly_events: int | None = None,
        losses: LossReport | None = None,
    ) -> Future[None]:
        """Done when all the events, and the sender's `losses`, are durable.

        Events stored before are stored already, and of losses the larger count is kept. Raises StorageError,
        or fails with it, having stored none of the events: QuotaExceededError when the project would have
        more than `monthly_events` new ones this month.
        """
        ...

    def trace(self, project: str, trace_id: str) -> list[StoredSpan]:
        """The spans of a trace by timestamp, those of the same time as they came; none is no such trace."""
        ...

    def losses(self, project: str) -> list[Loss]:
        """What was reported lost, the one reported last first."""
        ...

    def close(self) -> None:
        """Refuse new writes, finish those that wait, and let go of everything. Again is nothing."""
        ...
