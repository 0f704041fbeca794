"""Tracing a `BaseHTTPRequestHandler` subclass: one span per request, around its `do_GET` and the like.

What the methods do, write and raise is the application's own, but for one header on the response. The
response is out when the method returns: delivery comes after it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from .._config import LumiqConfig
from .._context import ambient, current, enter, surround
from .._default import default_client
from .._guard import Guard, logger
from .._propagation import extract
from .._span import Span, request_span
from ._http import (
    TRACE_HEADER,
    Exclude,
    excluder,
    failure_code,
    flushes_in_request,
    is_failure,
    recording_client,
    rules,
    sample,
    span_name,
)

_beginning: Final = Guard("beginning a request's span", limit=None)
_ending: Final = Guard("ending a request's span", limit=None)
_watching: Final = Guard("watching a request", limit=None)
_subclassing: Final = Guard("making a handler's subclass", limit=None)


class Call:
    """One request of a handler."""

    __slots__ = ("_lost", "_wrote", "span", "status")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.status = 0
        self._lost: BaseException | None = None
        self._wrote = False

    def watch(self, handler: BaseHTTPRequestHandler) -> Callable[[], None]:
        """See what is written to the client, until what this gives is called."""
        wfile: Any = handler.wfile
        before = dict(vars(wfile))
        wfile.write, wfile.flush = self._watched(wfile.write, wrote=True), self._watched(wfile.flush)

        def stop() -> None:
            for name in ("write", "flush"):
                delattr(wfile, name)
                if name in before:
                    setattr(wfile, name, before[name])

        return stop

    def _watched(self, method: Callable[..., Any], *, wrote: bool = False) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            self._wrote = self._wrote or wrote
            try:
                return method(*args)
            except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError) as error:
                self._lost = error
                raise

        return watched

    def end(self, error: BaseException | None = None) -> None:
        _ending(self._judge, error)
        self._lost = None
        self.span.end(error)

    def _judge(self, error: BaseException | None) -> None:
        span = self.span
        if self.status:
            span.set_attribute("http.status_code", self.status)
        if error is not None:
            if error is self._lost:
                span.set_status("cancelled", type(error).__name__, "the client left before the last byte")
        elif is_failure(self.status):
            span.set_status("error", failure_code(self.status))
        elif not self.status and not self._wrote:
            span.set_status("error", "incomplete_response", "the handler ended without an answer")


class HandlerTracer:
    """What the requests of one class share; options as of the middlewares.

    `tag`: where the request's `x-vercel-id` goes. `deliver` is called when a response is out, where the
    platform may stop the process after it.
    """

    def __init__(
        self,
        config: LumiqConfig | None,
        tag: str,
        deliver: Callable[[], None],
        *,
        exclude: Exclude,
        response_header: bool,
        trust_incoming_trace: bool,
    ) -> None:
        self._flushes = flushes_in_request(rules(config).flush)
        self._config = config
        self._excluded = excluder(exclude)
        self._trusting = trust_incoming_trace
        self._tag = tag
        self._deliver = deliver
        self._route = _route_of_file(os.environ.get("__VC_HANDLER_ENTRYPOINT", ""))
        self.shows_id = response_header

    def run(self, method: Callable[..., Any], handler: BaseHTTPRequestHandler) -> Any:
        """`method(handler)`, inside a span; where no other is current, and on a thread left as it was."""
        if current_call(handler):
            return method(handler)
        before = current(), ambient()
        enter(None)
        surround(None)
        call = _beginning(self._begin, handler)
        if call is None:
            enter(before[0])
            surround(before[1])
            return method(handler)
        vars(handler)[_CALL] = call
        stop = _watching(call.watch, handler)
        try:
            return self._finished(call, method, handler)
        finally:
            if stop is not None:
                _watching(stop)
            vars(handler).pop(_CALL, None)  # the next request on this connection has its own
            enter(before[0])
            surround(before[1])

    def _finished(self, call: Call, method: Callable[..., Any], handler: BaseHTTPRequestHandler) -> Any:
        try:
            result = method(handler)
        except BaseException as error:
            call.end(error)
            if isinstance(error, Exception):
                self._out()
            raise
        call.end()
        self._out()
        return result

    def _begin(self, handler: BaseHTTPRequestHandler) -> Call | None:
        config = self._config or default_client().config
        client = recording_client(config)
        path = handler.path.partition("?")[0]
        if client is None or (self._excluded is not None and self._excluded(path)):
            return None
        headers, method = handler.headers, handler.command
        remote = extract(headers.get("traceparent")) if self._trusting else None
        tags: dict[str, Any] = {"http.method": method, "http.path": path, "http.route": self._route}
        tags[self._tag] = headers.get("x-vercel-id")
        span = request_span(client, span_name(method, self._route), remote=remote, **tags).begin()
        if span.trace is not None:
            sample(span.trace, config)
        return Call(span)

    def _out(self) -> None:
        if self._flushes:
            self._deliver()


_CALL: Final = "_lumiqtrace_call"
_TRACER: Final = "_lumiqtrace_tracer"
_NAMES: Final = ("__qualname__", "__module__", "__doc__")


def current_call(handler: BaseHTTPRequestHandler) -> Call | None:
    """The request that is being handled, where it is traced."""
    return vars(handler).get(_CALL)


def traced_class(handler: type[BaseHTTPRequestHandler], tracer: HandlerTracer) -> Any:
    """A subclass of `handler`, by the same name, whose requests `tracer` runs; `handler` if it is one.

    `handler` too, with a warning, where it takes no such subclass.
    """
    if _TRACER in vars(handler):
        return handler
    made = _subclassing(_subclass, handler, tracer)
    if made is None:
        logger.warning(
            "lumiqtrace: %s cannot be subclassed without more arguments, and is not traced", handler
        )
        return handler
    return made


def _subclass(handler: Any, tracer: HandlerTracer) -> Any:
    def send_response_only(self: Any, code: int, message: str | None = None) -> None:
        super(made, self).send_response_only(code, message)
        _watching(_answered, self, int(code))

    namespace: dict[str, Any] = {name: getattr(handler, name) for name in _NAMES} | {_TRACER: tracer}
    if not hasattr(handler, _TRACER):  # a subclass of a traced class puts the id on the answer already
        namespace["send_response_only"] = send_response_only
    for name in dir(handler):
        method = getattr(handler, name)
        if name.startswith("do_") and callable(method):
            namespace[name] = _run(tracer, method)
    made = type(handler)(handler.__name__, (handler,), namespace)
    return made


def _run(tracer: HandlerTracer, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: BaseHTTPRequestHandler) -> Any:
        return tracer.run(method, self)

    return run


def _answered(handler: Any, code: int) -> None:
    call = current_call(handler)
    if call is None or code < 200:  # 100 Continue is no answer yet
        return
    call.status = code
    if handler._lumiqtrace_tracer.shows_id and call.span.trace_id is not None:
        handler.send_header(TRACE_HEADER, call.span.trace_id)


def _route_of_file(entrypoint: str) -> str | None:
    """The path at which Vercel serves a file of the folder `api`: `api/chat.py` is `/api/chat`."""
    if not entrypoint.startswith("api/"):
        return None
    path = entrypoint.removesuffix(".py")
    return "/" + (path.removesuffix("/index") if path.endswith("/index") else path)
