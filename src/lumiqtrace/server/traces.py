"""The spans of one trace as a tree, and the tree as JSON.

Whatever the parents say - a chain of any depth, cycles, a span that is its own parent, ids given twice,
parents never sent - every event is in the tree exactly once. Nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse

from .auth import project_of_reader
from .storage.base import Store, StoredSpan

# Each piece costs a change of threads, and each answer under way holds a few of them.
_PIECE_BYTES: Final = 256 * 1024


class Traces:
    """`GET /v1/traces/{traceId}?projectId=` over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request) -> StreamingResponse:
        """200 with the array of root spans; 404 when the project has no such trace."""
        project = project_of_reader(request, self._store)
        # A long trace takes a while to read and to write out; ingest goes on meanwhile.
        spans = await run_in_threadpool(self._store.trace, project, request.path_params["trace_id"])
        if not spans:
            raise HTTPException(404, "Trace not found")
        return StreamingResponse(tree_json(spans), media_type="application/json")


def tree(spans: Sequence[StoredSpan]) -> tuple[list[int], list[list[int]]]:
    """The roots, and the children of each span, as indexes into `spans`; order among siblings is kept.

    A span whose parent is not there is a root. Of spans with the same id, the first takes the children.
    Of a cycle, the first in order becomes a root and the others stay below it.
    """
    holders: dict[str, int] = {}
    for index, span in enumerate(spans):
        holders.setdefault(span.span_id, index)
    parents = [None if s.parent_span_id is None else holders.get(s.parent_span_id) for s in spans]
    _cut_cycles(parents)
    roots: list[int] = []
    children: list[list[int]] = [[] for _ in spans]
    for index, parent in enumerate(parents):
        (roots if parent is None else children[parent]).append(index)
    return roots, children


def _cut_cycles(parents: list[int | None]) -> None:
    """Take the parent of the first span of each cycle, in place, by climbing from every span once."""
    climbed_from: list[int | None] = [None] * len(parents)
    for start in range(len(parents)):
        at: int | None = start
        while at is not None and climbed_from[at] is None:
            climbed_from[at] = start
            at = parents[at]
        # Met on this very climb: what lies from here to here is a cycle.
        if at is not None and climbed_from[at] == start:
            parents[_first_of_cycle(parents, at)] = None


def _first_of_cycle(parents: list[int | None], member: int) -> int:
    first, at = member, parents[member]
    while at is not None and at != member:
        first = min(first, at)
        at = parents[at]
    return first


def tree_json(spans: Sequence[StoredSpan]) -> Iterator[bytes]:
    """The array of root spans, each the event as stored plus `children`, nested; in pieces to be joined."""
    piece = bytearray()
    for token in _tokens(spans):
        piece += token
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _tokens(spans: Sequence[StoredSpan]) -> Iterator[bytes]:
    roots, children = tree(spans)
    yield b"["
    # What is still to be written, the next at the end: spans by index, punctuation as it is.
    pending: list[int | bytes] = [b"]"]
    _push_siblings(pending, roots)
    while pending:
        item = pending.pop()
        if isinstance(item, bytes):
            yield item
            continue
        yield spans[item].body[:-1]
        yield b',"children":['
        pending.append(b"]}")
        _push_siblings(pending, children[item])


def _push_siblings(pending: list[int | bytes], siblings: Sequence[int]) -> None:
    for position, sibling in enumerate(reversed(siblings)):
        if position:
            pending.append(b",")
        pending.append(sibling)
