"""Iterators of answer pieces, watched: what `google-genai` gives for a streamed request.

They take the generator's place and behave as it does, `send`, `throw` and `close` included; the notes are
those of a tapped response. A generator that is never iterated has sent nothing and makes no event; an
async one was sent its request before it was given out, and does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final

from .._guard import Guard
from ._call import Call
from ._sse import EventStream
from ._tap import Tap, here

_watching: Final = Guard("watching a streamed answer")


def watched(call: Call, source: Any) -> Any:
    """`source`, a generator or an async generator of pieces, in a form that tells `call` of them."""
    return _AsyncSegments(call, source) if hasattr(source, "__anext__") else _Segments(call, source)


def _passed(tap: Tap, piece: Any) -> None:
    """Keep a piece as an event of the stream it came from; a dict, which may change, is written out."""
    body = getattr(piece, "body", piece)
    if not isinstance(body, str):
        body = json.dumps(body)
    event = b"data: %b\n\n" % body.encode("utf-8", "surrogatepass")
    tap.keep(event)


def _ended(tap: Tap, error: BaseException) -> None:
    # GeneratorExit is how a reader that lost interest looks from here, not a failure.
    complete = isinstance(error, StopIteration | StopAsyncIteration)
    tap.ended(None if complete or isinstance(error, GeneratorExit) else error, complete=complete)


class _Segments(Generator[Any, Any, Any]):
    """A generator's stand-in."""

    def __init__(self, call: Call, source: Generator[Any, Any, Any]) -> None:
        self._call = call
        self._source = source
        self._tap: Tap | None = None

    def __next__(self) -> Any:
        return self._advance(self._source.__next__)

    def send(self, value: Any) -> Any:
        return self._advance(self._source.send, value)

    def throw(self, *error: Any) -> Any:
        return self._advance(self._source.throw, *error)

    def close(self) -> None:
        self._source.close()
        if self._tap is not None:
            _watching(self._tap.ended)

    def _advance(self, step: Callable[..., Any], *args: Any) -> Any:
        tap = self._tap
        if tap is None:
            tap = self._tap = Tap(self._call, EventStream(), is_json=False)
        tap.busy = True
        tap.read_by = here(is_async=False)
        try:
            piece = step(*args)
        except BaseException as error:
            tap.busy = False
            _watching(_ended, tap, error)
            raise
        tap.busy = False
        _watching(_passed, tap, piece)
        return piece


class _AsyncSegments(AsyncGenerator[Any, Any]):
    """An async generator's stand-in."""

    def __init__(self, call: Call, source: AsyncGenerator[Any, Any]) -> None:
        self._source = source
        self._tap = Tap(call, EventStream(), is_json=False)

    async def __anext__(self) -> Any:
        return await self._advance(self._source.__anext__())

    async def asend(self, value: Any) -> Any:
        return await self._advance(self._source.asend(value))

    async def athrow(self, *error: Any) -> Any:
        return await self._advance(self._source.athrow(*error))

    async def aclose(self) -> None:
        await self._source.aclose()
        _watching(self._tap.ended)

    async def _advance(self, step: Awaitable[Any]) -> Any:
        tap = self._tap
        tap.busy = True
        tap.read_by = here(is_async=True)
        try:
            piece = await step
        except BaseException as error:
            tap.busy = False
            _watching(_ended, tap, error)
            raise
        tap.busy = False
        _watching(_passed, tap, piece)
        return piece
