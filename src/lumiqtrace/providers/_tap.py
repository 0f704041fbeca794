"""A tap on an HTTP response: sees the decoded bytes as the application reads them, and when it stops.

The provider's stream object is left alone. The response below it is given a subclass of its own class,
so that whoever reads it, by whatever method, passes here. Bytes are kept by reference, with the time each
piece came, and read later, off the application's thread: 0.4 us a piece (measured).
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from .._client import Client, before_flush
from .._guard import Guard
from ._call import Call
from ._eventstream import FrameStream
from ._failure import failure_of
from ._pieces import Pieces, fold, fold_one, joined, reader, size_of
from ._sse import EventStream

_watching = Guard("watching a stream")

_KEY: Final = "_lumiqtrace_tap"

_CONTENT_TYPE: Final = b"content-type"

MAX_HELD: Final = 256 * 1024
"""Bytes of a stream kept before they are folded into numbers."""

EVERY: Final = 64
"""One of so many pieces is looked at; the others are only kept."""

MAX_JSON: Final = 8 * 1024 * 1024
"""A JSON body beyond this is not kept; its call is recorded without tokens."""

_open: Final[set[weakref.ref[Tap]]] = set()


def tap(response: Any, call: Call) -> None:
    """Watch `response` for `call`. Does not read from it; what was read already is all there is."""
    content = _content_type(response.headers)
    watched = Tap(call, _events_of(content), is_json="json" in content)
    if response.is_closed:
        watched.keep(response.content)
        watched.ended(complete=True)
        return
    response.__dict__[_KEY] = watched
    kind: Any = type(response)
    response.__class__ = _tapped(kind)


def _content_type(headers: Any) -> str:
    """Without the mapping's own look-up, which takes 5 us where this takes 1 (measured)."""
    return next((value.decode("latin-1") for name, value in headers.raw if name.lower() == _CONTENT_TYPE), "")


def _events_of(content: str) -> EventStream | FrameStream | None:
    """What reads the events of a stream of that content type; None where it is no stream of events."""
    if "event-stream" in content:
        return EventStream()
    return FrameStream() if "amazon.eventstream" in content else None


def settle(client: Client, final: bool) -> None:
    """End the calls whose stream was left open after its last word; all of them where the end is `final`."""
    for ref in list(_open):
        left = ref()
        if left is not None and left.is_of(client) and (final or (not left.is_busy() and left.said_all())):
            left.ended()


def here(*, is_async: bool) -> tuple[int, int | None]:
    """Who reads: the thread, and in asynchronous code the task."""
    return threading.get_ident(), _task() if is_async else None


def _task() -> int | None:
    try:
        return id(asyncio.current_task())
    except RuntimeError:  # another library's event loop, such as trio's
        return None


class Tap:
    """The notes on one response: what passed, and when. What it means is read later, off this thread.

    `busy` is true while the application waits inside a read, as whoever hands on the pieces says; where a
    generator does, `reading` is a weak reference to it, and that tells. `read_by` is who reads.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_events",
        "_is_json",
        "_last",
        "_ref",
        "busy",
        "every",
        "pieces",
        "read_by",
        "reading",
    )

    def __init__(self, call: Call, events: EventStream | FrameStream | None, *, is_json: bool) -> None:
        self._call: Call | None = call
        self._events = events
        self._is_json = is_json
        self._last = time.perf_counter()
        self.pieces: Pieces = []
        self.every = EVERY if events is not None or is_json else 1
        self.busy = False
        self.reading: weakref.ref[Any] | None = None
        self.read_by: tuple[int, int | None] | None = None
        self._ref: weakref.ref[Tap] = weakref.ref(self)
        _open.add(self._ref)
        before_flush(settle)

    def keep(self, chunk: bytes) -> None:
        """Keep some bytes by reference, and their time."""
        self.pieces.append((chunk, time.perf_counter()))
        if not len(self.pieces) % self.every:
            self.bound()

    def bound(self) -> None:
        """Let go of what need not be kept any longer; to be called after `every` pieces."""
        call = self._call
        held = size_of(self.pieces)
        if call is not None and self._events is None:
            self._is_json = self._is_json and held <= MAX_JSON
        if call is None or (self._events is None and not self._is_json):
            self._taken()
        elif self._events is not None and held > MAX_HELD:
            fold(call, self._events, self._taken())

    def _taken(self) -> Pieces:
        """What is held. The list stays, for the reader goes on appending to it."""
        taken = self.pieces[:]
        self.pieces.clear()
        if taken:
            self._last = taken[-1][1]
        return taken

    def ended(self, error: BaseException | None = None, *, complete: bool = False) -> None:
        """The application read to the end, closed, dropped or broke the response. Only the first counts."""
        call, self._call = self._call, None
        if call is None:
            return
        _open.discard(self._ref)
        pieces = self._taken()
        at = time.perf_counter() if error is not None else self._last
        failure = failure_of(error) if error is not None else None
        read = reader(call, self._events, pieces, complete=complete, is_json=self._is_json)
        call.answered_later(read, size_of(pieces), at, failure)

    def is_busy(self) -> bool:
        generator = self.reading() if self.reading is not None else None
        return self.busy or getattr(generator, "gi_running", False) or getattr(generator, "ag_running", False)

    def is_of(self, client: Client) -> bool:
        call = self._call
        return call is not None and call.client is client

    def said_all(self) -> bool:
        """Whether the last word has passed. Changes nothing: another thread may be reading.

        Usage comes behind the finish reason. Who read the reason and flushes now has left the stream; a
        flush by anyone else waits for the usage, as the reader may still be about to read it.
        """
        call, events = self._call, self._events
        if call is None or events is None or self.read_by is None:
            return False
        seen, known = type(call.answer)(), call.answer
        seen.finish_reason, seen.complete = known.finish_reason, known.complete
        seen.has_usage = known.has_usage
        for payload in events.copy().feed(joined(self.pieces[:])):
            fold_one(call.route, payload, seen)
        if seen.complete or (seen.finish_reason is not None and seen.has_usage):
            return True
        return seen.finish_reason is not None and self._read_here()

    def _read_here(self) -> bool:
        assert self.read_by is not None
        thread, task = self.read_by
        return thread == threading.get_ident() and (task is None or here(is_async=True)[1] == task)

    def __del__(self) -> None:
        if self._call is not None:
            _watching(self.ended)


# ---- the response ----------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _tapped(kind: type[Any]) -> type[Any]:
    """`kind` with its reading methods observed; by name and module it is still `kind`."""

    # Not super(): by the time a method runs, the response may have its own class back.
    class Tapped(kind):  # type: ignore[misc] # the class is only known at run time
        def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            pieces = kind.iter_bytes(self, *args, **kwargs)
            watched: Tap | None = self.__dict__.get(_KEY)
            if watched is None:  # closed before it was read
                return iter(pieces)
            reading = _passing(self, watched, iter(pieces))
            watched.reading = weakref.ref(reading)
            return reading

        def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            pieces = kind.aiter_bytes(self, *args, **kwargs)
            watched: Tap | None = self.__dict__.get(_KEY)
            if watched is None:  # closed before it was read
                return aiter(pieces)
            reading = _apassing(self, watched, pieces)
            watched.reading = weakref.ref(reading)
            return reading

        def close(self) -> None:
            try:
                kind.close(self)
            finally:
                _watching(_ended_by_close, self)

        async def aclose(self) -> None:
            try:
                await kind.aclose(self)
            finally:
                _watching(_ended_by_close, self)

    Tapped.__name__ = kind.__name__
    Tapped.__qualname__ = kind.__qualname__
    Tapped.__module__ = kind.__module__
    return Tapped


def _passing(response: Any, watched: Tap, pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Hand on what `pieces` gives: `Tap.keep` written out, for each step here is paid once a piece."""
    watched.read_by = here(is_async=False)
    keep, clock = watched.pieces.append, time.perf_counter
    more = True
    try:
        while more:
            more = False
            for piece in islice(pieces, watched.every):
                keep((piece, clock()))
                yield piece
                more = True
            _watching(watched.bound)
    except BaseException as error:
        _watching(_ended_by, response, watched, error)
        raise
    _watching(_ended_whole, response, watched)


async def _apassing(response: Any, watched: Tap, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    watched.read_by = here(is_async=True)
    keep, clock = watched.pieces.append, time.perf_counter
    passed = 0
    try:
        async for piece in pieces:
            keep((piece, clock()))
            passed += 1
            if not passed % watched.every:
                _watching(watched.bound)
            yield piece
    except BaseException as error:
        _watching(_ended_by, response, watched, error)
        raise
    _watching(_ended_whole, response, watched)


def _ended_by(response: Any, watched: Tap, error: BaseException) -> None:
    # GeneratorExit is how a reader that lost interest looks from here, not a failure.
    watched.ended(None if isinstance(error, GeneratorExit) else error)
    _restore(response)


def _ended_whole(response: Any, watched: Tap) -> None:
    watched.ended(complete=True)
    _restore(response)


def _ended_by_close(response: Any) -> None:
    watched: Tap | None = response.__dict__.get(_KEY)
    # While a read is under way the close is the client's own; the read tells how it ended.
    if watched is not None and not watched.is_busy():
        watched.ended()
        _restore(response)


def _restore(response: Any) -> None:
    """Leave the response as it was: it can be pickled again, and a copy of it holds nothing of ours."""
    if response.__dict__.pop(_KEY, None) is not None:
        response.__class__ = type(response).__mro__[1]
