"""Iterators of answer pieces, watched: what `google-genai` gives for a streamed request.

They take the generator's place and behave as it does, `send`, `throw` and `close` included; the notes are
those of a tapped response. A generator that is never iterated has sent nothing and makes no event; an
async one was sent its request before it was given out, and does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from .._guard import Guard
from ._call import Call
from ._sse import EventStream
from ._tap import Tap

_watching = Guard("watching a streamed answer")


def watched(call: Call, source: Any) -> Any:
    """`source`, a generator or an async generator of pieces, in a form that tells `call` of them."""
    return _AsyncSegments(call, source) if hasattr(source, "__anext__") else _Segments(call, source)


class _Notes:
    """What passed, kept by a tap. Made when the request is on its way."""

    __slots__ = ("_fold", "_tap")

    def __init__(self, call: Call) -> None:
        self._tap = Tap(call, EventStream(), is_json=False)
        self._fold = True

    def waiting(self, *, busy: bool) -> None:
        self._tap.busy = busy

    def passed(self, piece: Any) -> None:
        """Keep a piece as an event of the stream it came from; a dict, which may change, is written out."""
        body = getattr(piece, "body", piece)
        text = body if isinstance(body, str) else json.dumps(body)
        event = b"data: %b\n\n" % text.encode("utf-8", "surrogatepass")
        self._fold = self._tap.fed(event) if self._fold else self._tap.keep(event)

    def ended(self, error: BaseException) -> None:
        # GeneratorExit is how a reader that lost interest looks from here, not a failure.
        complete = isinstance(error, StopIteration | StopAsyncIteration)
        self._tap.ended(None if complete or isinstance(error, GeneratorExit) else error, complete=complete)

    def left(self) -> None:
        self._tap.ended()


class _Segments(Generator[Any, Any, Any]):
    """A generator's stand-in."""

    def __init__(self, call: Call, source: Generator[Any, Any, Any]) -> None:
        self._call = call
        self._source = source
        self._notes: _Notes | None = None

    def __next__(self) -> Any:
        return self._advance(self._source.__next__)

    def send(self, value: Any) -> Any:
        return self._advance(self._source.send, value)

    def throw(self, *error: Any) -> Any:
        return self._advance(self._source.throw, *error)

    def close(self) -> None:
        self._source.close()
        if self._notes is not None:
            _watching(self._notes.left)

    def _advance(self, step: Callable[..., Any], *args: Any) -> Any:
        notes = self._notes
        if notes is None:
            notes = self._notes = _Notes(self._call)
        notes.waiting(busy=True)
        try:
            piece = step(*args)
        except BaseException as error:
            notes.waiting(busy=False)
            _watching(notes.ended, error)
            raise
        notes.waiting(busy=False)
        _watching(notes.passed, piece)
        return piece


class _AsyncSegments(AsyncGenerator[Any, Any]):
    """An async generator's stand-in."""

    def __init__(self, call: Call, source: AsyncGenerator[Any, Any]) -> None:
        self._source = source
        self._notes = _Notes(call)

    async def __anext__(self) -> Any:
        return await self._advance(self._source.__anext__())

    async def asend(self, value: Any) -> Any:
        return await self._advance(self._source.asend(value))

    async def athrow(self, *error: Any) -> Any:
        return await self._advance(self._source.athrow(*error))

    async def aclose(self) -> None:
        await self._source.aclose()
        _watching(self._notes.left)

    async def _advance(self, step: Awaitable[Any]) -> Any:
        notes = self._notes
        notes.waiting(busy=True)
        try:
            piece = await step
        except BaseException as error:
            notes.waiting(busy=False)
            _watching(notes.ended, error)
            raise
        notes.waiting(busy=False)
        _watching(notes.passed, piece)
        return piece
