"""One request and its answer, as WSGI passes them: what they say about the span.

The span is current while the application and its iterable run, and never between: the server's thread is left
as it was found. It ends when the application has handed over the last byte, before that byte is sent: whoever
has the whole answer finds its event recorded. Work in the iterable's `close()` is in the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from .._config import LumiqConfig
from .._context import Labels, SpanContext, ambient, current, enter, surround
from .._default import default_client
from .._guard import Guard
from .._redaction.redact import Redactor
from .._span import Span
from ._bodies import BodyTap
from ._http import REQUEST_BODY, RESPONSE_BODY, TRACE_HEADER, failure_code, is_failure, sample, span_name
from ._wsgi_streams import Body, Input, SizedBody

Environ = dict[str, Any]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ROUTE_KEY: Final = "lumiqtrace.route"
"""Where an application may put the route template of a request into its environ."""

REQUEST_KEY: Final = "lumiqtrace.request"
"""Where the environ holds the request's `Exchange`, until it ends."""

_watching: Final = Guard("watching a request", limit=None)
_ending: Final = Guard("ending a request's span", limit=None)
_flushing: Final = Guard("flushing", limit=None)


class Exchange:
    """One request and its answer: what the application starts, writes and yields passes through here."""

    __slots__ = (
        "_config", "_environ", "_expected", "_inside", "_outside", "_request_body", "_response_body",
        "_route", "_sent", "_start_response", "_status", "_write", "ended", "flushes", "handled", "redactor",
        "shows_id", "span",
    )  # fmt: skip

    def __init__(
        self, span: Span, environ: Environ, start_response: StartResponse, config: LumiqConfig
    ) -> None:
        self.span = span
        self.ended = False
        self.flushes = False
        self.shows_id = True
        self.redactor: Redactor | None = None
        self.handled: BaseException | None = None
        """What the application raised and answered itself."""
        self._environ = environ
        self._start_response = start_response
        self._config = config
        self._write: Write | None = None
        self._route: str | None = None
        self._status = 0
        self._expected: int | None = None  # the response's content-length
        self._sent = 0
        self._request_body: BodyTap | None = None
        self._response_body: BodyTap | None = None

    def begin(self) -> None:
        self._outside = self._inside = current(), ambient()
        try:
            self.span.begin()
            if self.span.trace is not None:
                sample(self.span.trace, self._config)
            if self._config.capture_request_body:
                self._tap_request()
            self._environ[REQUEST_KEY] = self
            self._inside = current(), ambient()
        except BaseException:
            self._restore(self._outside)
            raise

    def run(self, app: WsgiApp) -> Iterable[bytes]:
        try:
            result = app(self._environ, self.start)
        except BaseException as error:
            self.failed(error)
            raise
        self.pause()
        watched = _watching(self._watched, result)
        return result if watched is None else watched

    def resume(self) -> None:
        """Make the request's span current, or what was current in it when it was paused."""
        self._outside = current(), ambient()
        self._restore(self._inside)

    def pause(self) -> None:
        """Leave the thread as it was found."""
        self._inside = current(), ambient()
        self._restore(self._outside)

    @staticmethod
    def _restore(place: tuple[SpanContext | None, Labels | None]) -> None:
        enter(place[0])
        surround(place[1])

    def start(self, status: str, headers: list[tuple[str, str]], *rest: Any, **named: Any) -> Write:
        """The application's `start_response`; the server's answers to it, errors included, are its own."""
        instead = _watching(self._started, status, headers)
        self._write = self._start_response(status, instead or headers, *rest, **named)
        return self.write

    def write(self, data: bytes) -> object:
        assert self._write is not None
        self.passes(data)
        return self._write(data)

    def see_route(self) -> None:
        """Read the route while it is there: Flask takes it out of the environ when its own work is done."""
        self._route = route_of(self._environ) or self._route

    def passes(self, data: bytes) -> None:
        """Take note of a piece of the response that is about to be sent."""
        _watching(self._count, data)

    def _count(self, data: bytes) -> None:
        self._sent += len(data)
        if self._response_body is not None and not self.ended:
            self._response_body.feed(data)
        if self._expected is not None and self._sent >= self._expected:
            self.end()

    def failed(self, error: BaseException) -> None:
        """The application raised: what is current is restored, and the span ends with the error."""
        self.pause()
        if not self._sent:
            self._status = 500  # what the server makes of it
        self.end(error)

    def closed(self) -> None:
        """Nothing follows. Where something should have, the client left or the server closed early."""
        bodiless = self._environ["REQUEST_METHOD"] == "HEAD" or self._status in (204, 304)
        if not self.ended and not bodiless:
            why = "the client left before the last byte"
            _ending(self.span.set_status, "cancelled", "client_disconnected", why)
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End the span, once; and deliver it at once where the platform may stop after the response."""
        if not self.ended:
            self.ended = True
            self._environ.pop(REQUEST_KEY, None)
            _ending(self._end, error or self.handled)
            self.handled = None  # its traceback leads back here
            if self.flushes and (error is None or isinstance(error, Exception)):  # else the process ends
                _flushing(default_client().flush)

    def _end(self, error: BaseException | None) -> None:
        span = self.span
        self.see_route()
        if self._route is not None:
            span.set_name(span_name(self._environ["REQUEST_METHOD"], self._route))
            span.set_attribute("http.route", self._route)
        if self._status:
            span.set_attribute("http.status_code", self._status)
            if error is None and is_failure(self._status):
                span.set_status("error", failure_code(self._status))
        for key, tap in ((REQUEST_BODY, self._request_body), (RESPONSE_BODY, self._response_body)):
            if tap is not None:
                span.set_metadata(key, tap)
        span.end(error)

    def _started(self, status: str, headers: Any) -> list[tuple[str, str]] | None:
        """Read the head of the response; gives the headers that go instead, if any."""
        self.see_route()
        self._status = int(status[:3])
        if not isinstance(headers, list | tuple):  # reading something else might use it up
            return None
        length = _header(headers, "content-length")
        self._expected = int(length) if length is not None else None
        if self._config.capture_response_body:
            kind, encoding = _header(headers, "content-type"), _header(headers, "content-encoding")
            limit, streamed = self._config.max_body_bytes, length is None
            self._response_body = BodyTap(
                kind, limit, encoding=encoding, streamed=streamed, redactor=self.redactor
            )
        # Servers refuse what is no list, and an application may keep the one it passed.
        if not self.shows_id or type(headers) is not list or _header(headers, TRACE_HEADER) is not None:
            return None
        trace_id = self.span.trace_id
        return None if trace_id is None else [*headers, (TRACE_HEADER, trace_id)]

    def _tap_request(self) -> None:
        environ, stream = self._environ, self._environ.get("wsgi.input")
        if stream is not None:
            kind, encoding = environ.get("CONTENT_TYPE"), environ.get("HTTP_CONTENT_ENCODING")
            limit = self._config.max_body_bytes
            tap = self._request_body = BodyTap(kind, limit, encoding=encoding, redactor=self.redactor)
            environ["wsgi.input"] = Input(stream, tap)

    def _watched(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """What the server gets instead of `result`: the same pieces, of the same length where it has one."""
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(result, wrapper):
            # The server recognises its own class and sends the file by itself.
            self._end_at_close(result)
            return result
        return SizedBody(self, result) if hasattr(result, "__len__") else Body(self, result)

    def _end_at_close(self, file: Any) -> None:
        close = getattr(file, "close", None)

        def closing() -> None:
            self.end()
            if close is not None:
                close()

        if self.flushes:  # the server sends the last byte without us
            self.end()
            return
        try:
            file.close = closing
        except (AttributeError, TypeError):
            self.end()


def route_of(environ: Environ) -> str | None:
    """The route template as the application left it in the environ, below where it is mounted.

    Flask's and Bottle's are found; another application may put its own under `lumiqtrace.route`.
    """
    route = environ.get(ROUTE_KEY)
    if route is None:
        chosen = getattr(environ.get("werkzeug.request"), "url_rule", None) or environ.get("bottle.route")
        route = getattr(chosen, "rule", None)
    if not isinstance(route, str):
        return None
    mount: str = environ.get("SCRIPT_NAME", "")
    return mount.rstrip("/") + route


def _header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The first value of a header."""
    for key, value in headers:
        if len(key) == len(name) and key.lower() == name:
            return value
    return None
