"""One request and its answer, or one websocket, as its messages pass: what they say about the span.

The span ends at the last byte; that of a failure when the application returns or raises, which says why.
Work that goes on after it, as background tasks do, stays in the trace until the application returns. What
the application raises passes through, whatever we were doing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from .._config import LumiqConfig
from .._context import SpanContext, current, enter
from .._guard import Guard
from .._redaction.redact import Redactor
from .._span import Span
from ._bodies import BodyTap
from ._http import REQUEST_BODY, RESPONSE_BODY, TRACE_HEADER, failure_code, is_failure, sample, span_name
from ._routes import route_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_TRACE_HEADER: Final = TRACE_HEADER.encode()
_SERVER_FAILED: Final = 1011
"""The websocket close code of a server that failed (RFC 6455, 7.4.1)."""

_watching: Final = Guard("watching a request", limit=None)
_ending: Final = Guard("ending a request's span", limit=None)


class Exchange:
    """Wraps `receive` and `send` of one scope, and ends `span` when its answer is complete."""

    __slots__ = (
        "_close_code", "_complete", "_config", "_ended", "_gone", "_outside", "_receive", "_request_body",
        "_response_body", "_response_headers", "_scope", "_send", "_status", "_trailers",
        "flush", "redactor", "shows_id", "span",
    )  # fmt: skip

    def __init__(self, span: Span, scope: Scope, receive: Receive, send: Send, config: LumiqConfig) -> None:
        self.span = span
        self.shows_id = True
        self.redactor: Redactor | None = None
        self.flush: Callable[[], Awaitable[None]] | None = None
        """Awaited before the last byte leaves, where the platform may stop the process after it."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._config = config
        self._outside: SpanContext | None = None
        self._status = 0
        self._complete = False
        self._ended = False
        self._gone = False  # the client left
        self._trailers = False
        self._close_code: int | None = None
        self._request_body: BodyTap | None = None
        self._response_body: BodyTap | None = None
        self._response_headers: Headers = ()

    def begin(self) -> None:
        """Begin the span and make it current. The trace is kept or not by the config's rate."""
        if self._config.capture_request_body:
            self._request_body = self._tap(self._scope["headers"])
        self._outside = current()
        self.span.begin()
        if self.span.trace is not None:
            sample(self.span.trace, self._config)

    async def run(self, app: AsgiApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as error:
            _ending(self._failed, error)
            if self.flush is not None and isinstance(error, Exception):
                await self.flush()
            raise
        else:
            ended = self._ended
            _ending(self._returned)
            if self.flush is not None and not ended:
                await self.flush()
        finally:
            self._leave()

    async def receive(self) -> Message:
        message = await self._receive()
        _watching(self._came, message)
        return message

    async def send(self, message: Message) -> None:
        message = _watching(self._goes, message) or message
        if self._complete and not self._ended and self.flush is not None:
            message = await self._flushed_before(message)
        try:
            await self._send(message)
        except OSError:
            self._gone = True
            raise
        if self._complete and not self._ended:
            _ending(self._completed)

    async def _flushed_before(self, last: Message) -> Message:
        """Deliver the events before the last message, which stays as it is: others may count the pieces."""
        assert self.flush is not None
        _ending(self._end_and_stay)
        await self.flush()
        return last

    def _came(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.request":
            if self._request_body is not None:
                self._request_body.feed(message.get("body") or b"")
        elif kind == "http.disconnect":
            self._gone = True
        elif kind == "websocket.disconnect":
            self._gone = True
            self._close_code = message.get("code", 1005)

    def _goes(self, message: Message) -> Message:
        """Note what is sent; gives the message that goes, which is another where a header is put on it."""
        kind = message["type"]
        if kind == "http.response.body":
            more = bool(message.get("more_body", False))
            if self._config.capture_response_body:
                self._tap_response(message.get("body") or b"", more=more)
            self._complete = not more and not self._trailers
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._status = int(message["status"])
            self._trailers = bool(message.get("trailers", False))
            return self._with_id(message)
        elif kind == "http.response.trailers":
            self._complete = not message.get("more_trailers", False)
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._complete = not message.get("more_body", False) and not self._trailers
        elif kind == "websocket.accept":
            self._status = 101
            return self._with_id(message)
        elif kind == "websocket.close":
            self._status = self._status or 403
            self._close_code = message.get("code", 1000)
        return message

    def _with_id(self, message: Message) -> Message:
        """The start of an answer, with the trace's id on it where that is wanted and new."""
        headers = message.get("headers") or ()
        if type(headers) is not list:
            headers = list(headers)
            message = {**message, "headers": headers}
        self._response_headers = headers
        trace_id = self.span.trace_id
        if not self.shows_id or trace_id is None or header_of(headers, _TRACE_HEADER) is not None:
            return message
        return {**message, "headers": [*headers, (_TRACE_HEADER, trace_id.encode())]}

    def _tap_response(self, body: bytes, *, more: bool) -> None:
        tap = self._response_body
        if tap is None:
            headers = self._response_headers
            # A length is known before the first byte, or the first message is the last; else it is a stream.
            streamed = more and header_of(headers, b"content-length") is None
            tap = self._response_body = self._tap(headers, streamed=streamed)
        tap.feed(body)

    def _tap(self, headers: Headers, *, streamed: bool = False) -> BodyTap:
        return BodyTap(
            header_of(headers, b"content-type"),
            self._config.max_body_bytes,
            encoding=header_of(headers, b"content-encoding"),
            streamed=streamed,
            redactor=self.redactor,
        )

    def _returned(self) -> None:
        if self._ended:
            return
        if self._complete:
            self._judge()
        elif self._scope["type"] == "http":
            if self._gone:
                self.span.set_status(
                    "cancelled", "client_disconnected", "the client left before the last byte"
                )
            else:
                self._status = self._status or 500  # what the server makes of it
                self.span.set_status(
                    "error", "incomplete_response", "the application ended without an answer"
                )
        elif self._close_code == _SERVER_FAILED:
            self.span.set_status("error", f"websocket_{_SERVER_FAILED}")
        else:
            self._judge()
        self._end()

    def _judge(self) -> None:
        """The span's status by that of the whole answer."""
        if is_failure(self._status):
            self.span.set_status("error", failure_code(self._status))

    def _failed(self, error: BaseException) -> None:
        if self._ended:  # after the last byte, as a background task does: the answer itself was given
            return
        kind = type(error).__name__
        if self._gone and kind == "WebSocketDisconnect":  # how Starlette tells a handler that it is over
            self._end()
        elif self._complete and not isinstance(error, Exception):
            self._judge()
            self._end()
        elif not self._complete and (self._gone or not isinstance(error, Exception)):
            self.span.set_status("cancelled", kind, "the client left" if self._gone else None)
            self._end()
        else:
            self._status = self._status or 500
            self._end(error)

    def _completed(self) -> None:
        """The last byte has left."""
        if is_failure(self._status):
            self.span.stop()  # what the application raises after it says why it failed
        else:
            self._end_and_stay()

    def _end_and_stay(self) -> None:
        """End the span at its last byte, and keep current what is, for what the application still does."""
        here = current()
        self._judge()
        self._end()
        enter(here)

    def _leave(self) -> None:
        # Not marked as ended: a task that the request left behind stays in its trace.
        enter(self._outside)

    def _end(self, error: BaseException | None = None) -> None:
        self._ended = True
        span, scope = self.span, self._scope
        route = route_of(scope)
        if route is not None:
            span.set_name(name_of(scope, route))
            span.set_attribute("http.route", route)
        if self._status:
            span.set_attribute("http.status_code", self._status)
        if self._close_code is not None:
            span.set_attribute("websocket.close_code", self._close_code)
        for key, tap in ((REQUEST_BODY, self._request_body), (RESPONSE_BODY, self._response_body)):
            if tap is not None:
                span.set_metadata(key, tap)
        span.end(error)


def name_of(scope: Scope, route: str | None) -> str:
    """The span's name: `GET /users/{id}`, `WEBSOCKET /rooms/{room}`."""
    if scope["type"] == "websocket":
        return f"WEBSOCKET {route}" if route else "WEBSOCKET"
    return span_name(scope["method"], route)


def header_of(headers: Headers, name: bytes) -> str | None:
    """The first value of a header; ASGI has names in lower case, and some applications do not know."""
    for key, value in headers:
        if len(key) == len(name) and key.lower() == name:
            return value.decode("latin-1")
    return None
