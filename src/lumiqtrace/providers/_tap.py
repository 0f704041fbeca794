"""A tap on an HTTP response: sees the decoded bytes as the application reads them, and when it stops.

The provider's stream object is left alone. The response below it is given a subclass of its own class,
so that whoever reads it, by whatever method, passes here. Bytes are kept by reference and read later;
only up to the first output are they parsed at once, for the time to first token.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from .._client import Client
from .._guard import Guard
from ._answer import Answer, Route
from ._call import Call
from ._eventstream import FrameStream
from ._failure import failure_of
from ._sse import EventStream

_watching = Guard("watching a stream")

_KEY: Final = "_lumiqtrace_tap"

MAX_HELD: Final = 256 * 1024
"""Bytes of a stream kept before they are folded into numbers."""

MAX_JSON: Final = 8 * 1024 * 1024
"""A JSON body beyond this is not kept; its call is recorded without tokens."""

_open: Final[set[weakref.ref[Tap]]] = set()


def tap(response: Any, call: Call) -> None:
    """Watch `response` for `call`. Does not read from it."""
    content = response.headers.get("content-type", "")
    response.__dict__[_KEY] = Tap(call, _events_of(content), is_json="json" in content)
    kind: Any = type(response)
    response.__class__ = _tapped(kind)


def _events_of(content: str) -> EventStream | FrameStream | None:
    """What reads the events of a stream of that content type; None where it is no stream of events."""
    if "event-stream" in content:
        return EventStream()
    return FrameStream() if "amazon.eventstream" in content else None


def settle(client: Client, final: bool) -> None:
    """End the calls whose stream was left open after its last word; all of them where the end is `final`."""
    for ref in list(_open):
        left = ref()
        if left is not None and left.is_of(client) and (final or (not left.busy and left.said_all())):
            left.ended()


def _here() -> tuple[int, int]:
    """Which thread is here, and which task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return threading.get_ident(), id(task)


class Tap:
    """The notes on one response. `busy` is true while the application waits inside a read."""

    __slots__ = (
        "__weakref__",
        "_call",
        "_chunks",
        "_events",
        "_held",
        "_is_json",
        "_last",
        "_read_by",
        "_ref",
        "busy",
    )

    def __init__(self, call: Call, events: EventStream | FrameStream | None, *, is_json: bool) -> None:
        self._call: Call | None = call
        self._events = events
        self._is_json = is_json
        self._chunks: list[bytes] = []
        self._held = 0
        self._last = time.perf_counter()
        self._read_by: tuple[int, int] | None = None
        self.busy = False
        self._ref = weakref.ref(self)
        _open.add(self._ref)

    def fed(self, chunk: bytes) -> bool:
        """Some bytes passed. False as soon as keeping them with `keep` is all that is left to do."""
        call = self._call
        if call is None:
            return True
        if self._read_by is None:
            self._read_by = _here()
        self.keep(chunk)
        if self._events is None:
            self._is_json = self._is_json and self._held <= MAX_JSON
            if not self._is_json:
                self._chunks.clear()
                self._held = 0
            return True
        if call.awaits_output or self._held > MAX_HELD:
            self._fold(call, self._last)
        return call.awaits_output

    def keep(self, chunk: bytes) -> bool:
        """Keep some bytes by reference, and their time. True once so much is held that `fed` must fold it."""
        self._last = time.perf_counter()
        self._chunks.append(chunk)
        self._held += len(chunk)
        return self._held > MAX_HELD

    def ended(self, error: BaseException | None = None, *, complete: bool = False) -> None:
        """The application read to the end, closed, dropped or broke the response. Only the first counts."""
        call, self._call = self._call, None
        if call is None:
            return
        _open.discard(self._ref)
        if error is not None:
            self._last = time.perf_counter()
        failure = failure_of(error) if error is not None else None
        call.answered_later(self._reader(call, complete=complete), self._held, self._last, failure)

    def is_of(self, client: Client) -> bool:
        call = self._call
        return call is not None and call.client is client

    def said_all(self) -> bool:
        """Whether the last word has passed. Changes nothing: another thread may be reading.

        Usage comes behind the finish reason. Who read the reason and flushes now has left the stream; a
        flush by anyone else waits for the usage, as the reader may still be about to read it.
        """
        call, events = self._call, self._events
        if call is None or events is None:
            return False
        seen = Answer()
        known = call.answer
        seen.finish_reason, seen.complete, seen.has_usage = (
            known.finish_reason,
            known.complete,
            known.has_usage,
        )
        for payload in events.copy().feed(b"".join(list(self._chunks))):
            _fold_one(call.route, payload, seen)
        if seen.complete or (seen.finish_reason is not None and seen.has_usage):
            return True
        return seen.finish_reason is not None and self._read_by == _here()

    def _fold(self, call: Call, at: float) -> None:
        """Parse what is held, of which the last came `at`."""
        assert self._events is not None
        held, self._chunks, self._held = b"".join(self._chunks), [], 0
        for payload in self._events.feed(held):
            event = _fold_one(call.route, payload, call.answer)
            if call.awaits_output and event is not None and call.route.begins(event):
                call.first_output(at)

    def _reader(self, call: Call, *, complete: bool) -> Any:
        events, chunks, is_json = self._events, self._chunks, self._is_json
        self._chunks = []

        def read(answer: Answer) -> None:
            answer.complete = answer.complete or complete
            body = b"".join(chunks)
            if events is not None:
                for payload in events.feed(body) + events.close():
                    _fold_one(call.route, payload, answer)
            elif is_json and body:
                with suppress(ValueError):  # half of a document that was left early
                    call.route.read(json.loads(body), answer)
                    answer.complete = True

        return read

    def __del__(self) -> None:
        if self._call is not None:
            _watching(self.ended)


def _fold_one(route: Route, payload: bytes, answer: Answer) -> Any:
    """One event of the stream into the answer; what is no JSON says nothing."""
    if payload.startswith(b"[DONE]"):
        answer.complete = True
        return None
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    route.fold(event, answer)
    return event


@lru_cache(maxsize=64)
def _tapped(kind: type[Any]) -> type[Any]:
    """`kind` with its reading methods observed; by name and module it is still `kind`."""

    # Not super(): by the time a method runs, the response may have its own class back.
    class Tapped(kind):  # type: ignore[misc] # the class is only known at run time
        def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            watched: Tap | None = self.__dict__.get(_KEY)
            if watched is None:  # closed before it was read
                yield from kind.iter_bytes(self, *args, **kwargs)
                return
            watched.busy = watching = True
            try:
                for chunk in kind.iter_bytes(self, *args, **kwargs):
                    watched.busy = False
                    watching = _watching(watched.fed, chunk) is not False if watching else watched.keep(chunk)
                    yield chunk
                    watched.busy = True
            except BaseException as error:
                watched.busy = False
                _watching(_ended_by, self, watched, error)
                raise
            watched.busy = False
            _watching(_ended_whole, self, watched)

        async def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            watched: Tap | None = self.__dict__.get(_KEY)
            if watched is None:  # closed before it was read
                async for chunk in kind.aiter_bytes(self, *args, **kwargs):
                    yield chunk
                return
            watched.busy = watching = True
            try:
                async for chunk in kind.aiter_bytes(self, *args, **kwargs):
                    watched.busy = False
                    watching = _watching(watched.fed, chunk) is not False if watching else watched.keep(chunk)
                    yield chunk
                    watched.busy = True
            except BaseException as error:
                watched.busy = False
                _watching(_ended_by, self, watched, error)
                raise
            watched.busy = False
            _watching(_ended_whole, self, watched)

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
    if watched is not None and not watched.busy:
        watched.ended()
        _restore(response)


def _restore(response: Any) -> None:
    """Leave the response as it was: it can be pickled again, and a copy of it holds nothing of ours."""
    if response.__dict__.pop(_KEY, None) is not None:
        response.__class__ = type(response).__mro__[1]
