"""One call of a function that a platform's framework answers with: its span, its answer, its delivery.

What the function returns or raises goes on as it is; only the iterator of a streamed answer gets a wrapper,
which ends the span, and delivers, after the last piece and before the response is complete.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final

from .._config import LumiqConfig
from .._context import Labels, SpanContext, ambient, current, enter, surround
from .._guard import Guard
from .._span import Span
from ._flushing import FlushAtEnd, begin_delivery
from ._http import failure_code, is_failure, sample
from ._wsgi_streams import Body

_watching: Final = Guard("watching a function's answer", limit=None)
_ending: Final = Guard("ending a function's span", limit=None)


class Invocation:
    """Runs the function inside `span`, which `begin` begins, and leaves the thread as it found it.

    `method` is that of an HTTP request, None for an event. `flushes`: deliver before the answer is complete,
    within `timeout` seconds; where that is no place to wait, begin to.
    """

    __slots__ = (
        "_delivers",
        "_inside",
        "_method",
        "_outside",
        "_span",
        "_status",
        "_timeout",
        "ended",
        "flushes",
    )

    def __init__(self, span: Span, method: str | None, *, flushes: bool, timeout: float | None) -> None:
        self.ended = False
        self.flushes = flushes
        """Whether it may wait for the delivery; who gives a stream up takes that away."""
        self._delivers = flushes
        self._span = span
        self._method = method
        self._timeout = timeout
        self._status: int | None = None
        self._outside: tuple[SpanContext | None, Labels | None] = current(), ambient()
        self._inside = self._outside

    def begin(self, config: LumiqConfig) -> None:
        """Begin the span. A trace that begins with it is kept or not by the config's rate."""
        self._span.begin()
        trace = self._span.trace
        if trace is not None and trace.root is self._span:
            sample(trace, config)

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self.failed(error)
            raise
        if inspect.iscoroutine(result):  # a wrapper's around a coroutine function: the call is to come
            self.pause()
            return self._awaited(result)
        streamed = self._returned(result)
        if streamed is None:
            self.pause()
            self.end()
            return result
        return streamed

    async def _awaited(self, running: Coroutine[Any, Any, Any]) -> Any:
        self.resume()
        return await self.arun(lambda: running, (), {})

    async def arun(self, function: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            self.pause()
            await self.aend(error)
            raise
        streamed = self._returned(result)
        if streamed is None:
            self.pause()
            await self.aend()
            return result
        return streamed

    # ---- the end, told by the function or by its stream -------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """End the span, once, and deliver; what is cancelled waits for nothing."""
        if self._end(error):
            with FlushAtEnd(self._seconds):
                pass

    async def aend(self, error: BaseException | None = None) -> None:
        if self._end(error):
            async with FlushAtEnd(self._seconds):
                pass

    def failed(self, error: BaseException) -> None:
        """The stream raised: the thread is left as it was found, and the span ends with the error."""
        self.pause()
        self.end(error)

    def closed(self) -> None:
        """Nothing follows. Where something should have, the client left or the server closed early."""
        if not self.ended and self._method != "HEAD" and self._status not in (204, 304):
            why = "the client left before the last byte"
            _ending(self._span.set_status, "cancelled", "client_disconnected", why)
        self.end()

    def _seconds(self) -> float | None:
        return self._timeout

    def _end(self, error: BaseException | None) -> bool:
        """Whether to wait for the delivery now."""
        if self.ended:
            return False
        self.ended = True
        # An event is answered by nobody: whatever it raised was not meant as an answer.
        answered = None if error is None or self._method is None else _ending(answer_of, error)
        if answered is not None:
            # How Flask and Starlette are told to answer with a status; below 500 nothing went wrong.
            _ending(self._note, answered)
        elif error is not None and self._method is not None:
            _ending(self._span.set_attribute, "http.status_code", 500)
        self._span.end(None if answered is not None else error)
        if self.flushes and (error is None or isinstance(error, Exception)):
            return True
        if self._delivers:
            begin_delivery()
        return False

    # ---- the answer -------------------------------------------------------------------------------------

    def _returned(self, result: Any) -> Any:
        """What goes on instead of `result`, where it holds a stream that is followed; else None."""
        if self._method is not None:
            _watching(self._read, result)
        return _watching(self._followed, result)

    def _read(self, result: Any) -> None:
        status = status_of_answer(result)
        # Without one both frameworks answer with 200; without a result, with an error or nothing.
        self._note(200 if status is None and result is not None else status)

    def _note(self, status: int | None) -> None:
        if status is not None:
            self._status = status
            self._span.set_attribute("http.status_code", status)
            if is_failure(status):
                self._span.set_status("error", failure_code(status))

    def _followed(self, result: Any) -> Any:
        if isinstance(result, tuple):  # Flask takes (body, status, headers)
            body = self._followed(result[0]) if result else None
            return None if body is None else (body, *result[1:])
        if isinstance(result, Iterator):
            self.pause()
            return Body(self, result)
        if isinstance(getattr(result, "body_iterator", None), AsyncIterator):  # Starlette's
            self.pause()
            result.body_iterator = Stream(self, result.body_iterator)
            return result
        # A file that is passed through is the server's to send.
        if getattr(result, "is_streamed", False) is True and not result.direct_passthrough:  # Flask's
            self.pause()
            result.response = Body(self, result.response)
            return result
        return None

    # ---- where the span is current ----------------------------------------------------------------------

    def resume(self) -> None:
        """Make the call's span current, or what was current in it when it was paused."""
        self._outside = current(), ambient()
        enter(self._inside[0])
        surround(self._inside[1])

    def pause(self) -> None:
        """Leave the thread as it was found."""
        self._inside = current(), ambient()
        enter(self._outside[0])
        surround(self._outside[1])

    def passes(self, _piece: object) -> None:
        """A piece of the answer goes out."""


class Stream:
    """The pieces of an asynchronous answer, as they come."""

    __slots__ = ("_invocation", "_iterator")

    def __init__(self, invocation: Invocation, iterator: AsyncIterator[Any]) -> None:
        self._invocation = invocation
        self._iterator = iterator

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        invocation = self._invocation
        invocation.resume()
        try:
            piece = await anext(self._iterator)
        except StopAsyncIteration:
            invocation.pause()
            await invocation.aend()
            raise
        except BaseException as error:
            invocation.pause()
            await invocation.aend(error)
            raise
        invocation.pause()
        return piece

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
        self._dropped()

    def __del__(self) -> None:
        self._dropped()

    def _dropped(self) -> None:
        # Given up in the middle, as when the client left: no place to wait.
        self._invocation.flushes = False
        self._invocation.closed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


def status_of_answer(result: Any) -> int | None:
    """The HTTP status of what a function returned; None where it says none.

    Flask's response, Starlette's, and the tuples that both frameworks take: `(body, 404)`, `(body, "404 X")`.
    """
    status = getattr(result, "status_code", None)
    if status is None and isinstance(result, tuple) and len(result) > 1:
        status = result[1]
        if isinstance(status, str):
            code = status.partition(" ")[0]
            status = int(code) if code.isdecimal() else None
        elif not isinstance(status, int):  # (body, headers)
            status = getattr(result[0], "status_code", None)
    return status if isinstance(status, int) else None


def answer_of(error: BaseException) -> int | None:
    """The status that an exception is turned into: werkzeug's and Starlette's `HTTPException`, or None.

    Others have a class of that name, for answers that they got.
    """
    if not any(_answers(kind) for kind in type(error).__mro__):
        return None
    response = getattr(error, "response", None)  # flask.abort(response)
    for found in (response, error):
        for name in ("status_code", "code"):
            status = getattr(found, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def _answers(kind: type) -> bool:
    """Whether the frameworks answer with such an exception."""
    package = kind.__module__.partition(".")[0]
    return kind.__name__ == "HTTPException" and package in ("werkzeug", "starlette", "fastapi")
