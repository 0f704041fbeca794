"""The loopback ingest endpoint that lumiqtrace ships, under the names that these tests use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lumiqtrace.testing import KEY, Answer, Request, accept
from lumiqtrace.testing import LoopbackBackend as Backend

__all__ = ["KEY", "Answer", "Backend", "Request", "accept", "running"]


@contextmanager
def running(backend: Backend) -> Iterator[Backend]:
    """`backend`, answering at its `url`."""
    with backend:
        yield backend
