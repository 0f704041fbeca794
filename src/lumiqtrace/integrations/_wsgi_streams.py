"""What passes between application and server in pieces: the response's iterable, and `wsgi.input`.

Every piece, error and end is the application's own, or the server's; nothing is read ahead or held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from .._guard import Guard
from ._bodies import BodyTap

_reading: Final = Guard("watching a request's body", limit=None)


class Watcher(Protocol):
    """Who is told what the iterable does; `Exchange`."""

    ended: bool
    flushes: bool

    def resume(self) -> None: ...
    def pause(self) -> None: ...
    def passes(self, data: bytes, /) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def closed(self) -> None: ...
    def end(self) -> None: ...


class Body:
    """The response's iterable: its pieces, its errors, and one `close()`."""

    __slots__ = ("_closed", "_exchange", "_iterator", "_result")

    def __init__(self, exchange: Watcher, result: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._result = result
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = None
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        exchange.resume()
        try:
            if self._iterator is None:
                self._iterator = iter(self._result)
            piece = next(self._iterator)
        except StopIteration:
            exchange.pause()
            exchange.end()
            raise
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.pause()
        exchange.passes(piece)
        return piece

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        exchange = self._exchange
        exchange.resume()
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.pause()
        exchange.closed()

    def __del__(self) -> None:
        # A server that neither finished nor closed. This can be anywhere: no place to wait.
        exchange = self._exchange
        if not exchange.ended:
            exchange.flushes = False
            exchange.closed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)


class SizedBody(Body):
    """One whose number of pieces is known; servers take the length of a single piece for the response's."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._result)  # type: ignore[arg-type]


class Input:
    """`wsgi.input` with a tap: the application reads what it would have read."""

    __slots__ = ("_stream", "_tap")

    def __init__(self, stream: Any, tap: BodyTap) -> None:
        self._stream = stream
        self._tap = tap

    def read(self, *size: Any) -> Any:
        return self._seen(self._stream.read(*size))

    def readline(self, *size: Any) -> Any:
        return self._seen(self._stream.readline(*size))

    def readlines(self, *hint: Any) -> list[Any]:
        return [self._seen(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._seen, self._stream)

    def __next__(self) -> Any:
        return self._seen(next(self._stream))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return self._reading_into(found) if name in ("readinto", "readinto1") else found

    def _reading_into(self, read: Callable[[Any], int]) -> Callable[[Any], int]:
        def readinto(buffer: Any) -> int:
            count = read(buffer)
            if count:
                self._seen(memoryview(buffer).cast("B")[:count])
            return count

        return readinto

    def _seen(self, data: Any) -> Any:
        if data:
            _reading(self._tap.feed, data)
        return data
