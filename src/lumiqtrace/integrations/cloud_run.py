"""Google Cloud Run functions: one trace per call, delivered before the call is answered.

    @functions_framework.http
    @traced_function
    def summarize(request): ...

For HTTP, CloudEvent and background functions, sync and async, below or above the framework's own decorator.
Flask and FastAPI applications on Cloud Run need nothing from here: their middlewares do the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from .._client import Client
from .._context import current
from .._default import default_client
from .._guard import Guard
from .._propagation import extract
from .._span import Span, _RequestSpan, request_span
from ._flushing import checked_seconds, flush_is_due
from ._http import flushes_in_request
from ._invocation import Invocation
from ._triggers import Trigger, trigger_of

__all__ = ["traced_function"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__lumiqtrace_traced_function__"

_beginning: Final = Guard("beginning a function's span", limit=None)


@overload
def traced_function(function: F, /) -> F: ...
@overload
def traced_function(
    *, flush_timeout: float | None = None, trust_incoming_trace: bool = False
) -> Callable[[F], F]: ...
def traced_function(
    function: Any = None, /, *, flush_timeout: float | None = None, trust_incoming_trace: bool = False
) -> Any:
    """Make each call of a function of the Functions Framework a trace of its own, named by the function.

    Its tags tell the trigger (`faas.trigger`: `http` or `event`; `http.method`, `http.path`,
    `cloudevents.event_type`, `cloudevents.event_source`, `cloudevents.event_id`), the deployment
    (`faas.name`, `faas.version`, `faas.target`: the service, its revision, the function it runs) and the
    answer (`http.status_code`). The status is `error` from 500 up or when the function raised; the exception
    goes on as the same object. A streamed answer belongs to the call until its last piece.

    With `LumiqConfig(flush="request")`, and by itself on Cloud Run, the events are out before the answer is
    complete, or `flush_timeout` seconds later (default: the option of that name); what is not out by then
    is kept for the next call. Calls at the same time share the requests to the backend.
    `trust_incoming_trace`: continue the trace that a request's `traceparent` names; only where every caller
    is your own. Applied twice it acts once; below a middleware of ours it is a span of the request's trace.
    Raises TypeError or ValueError where the function or `flush_timeout` is of no use.
    """
    if flush_timeout is not None:
        flush_timeout = checked_seconds("flush_timeout", flush_timeout)

    def decorate(function: Any) -> Any:
        if getattr(function, _MARK, False):
            return function
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"traced_function: a function is needed, not {function!r}")
        return _traced(function, flush_timeout, trusting=trust_incoming_trace)

    return decorate if function is None else decorate(function)


def _traced(function: Any, flush_timeout: float | None, *, trusting: bool) -> Any:
    name = str(getattr(function, "__name__", type(function).__name__))

    def begin(args: tuple[Any, ...]) -> Invocation | None:
        client = default_client()
        if not client.recording:
            return None
        trigger = trigger_of(args)
        span = _span(client, name, trigger, trusting=trusting)
        flushes = flushes_in_request(client.config.flush) and not _is_delivered_further_out()
        invocation = Invocation(span, trigger.method, flushes=flushes, timeout=flush_timeout)
        invocation.begin(client.config)
        return invocation

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            invocation = _beginning(begin, args)
            if invocation is None:
                return await function(*args, **kwargs)
            return await invocation.arun(function, args, kwargs)

        traced: Any = acall
    else:

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            invocation = _beginning(begin, args)
            if invocation is None:
                return function(*args, **kwargs)
            return invocation.run(function, args, kwargs)

        traced = call
    setattr(traced, _MARK, True)
    return traced


def _is_delivered_further_out() -> bool:
    """Whether one of ours ends later and delivers for both; a span of the user's own delivers nothing."""
    here = current()
    root = None if here is None else here.trace.root
    return flush_is_due() or (isinstance(root, _RequestSpan) and not root.ended)


def _span(client: Client, name: str, trigger: Trigger, *, trusting: bool) -> Span:
    if current() is not None:
        return Span(client, name, "general", trigger.tags)
    remote = extract(trigger.traceparent) if trusting else None
    return request_span(client, name, remote=remote, **trigger.tags)
