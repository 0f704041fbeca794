"""AWS Lambda: a span for every invocation, and its events delivered before the sandbox may freeze.

A sandbox stops when the answer has left; a background thread then sends nothing. So `traced_handler` flushes
before the answer leaves, within the time that remains; with `background=True` after it, which Lambda bills
but nobody waits for.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from .._default import default_client
from .._guard import Guard, logger
from ._flushing import checked_seconds
from ._kept_loop import is_looping, run_to_end
from ._lambda_invocation import Invocation, Options, is_inside
from ._snapstart import is_snapshotted, prepare_for_snapshot

if TYPE_CHECKING:
    from ._extension import Extension

__all__ = ["traced_handler"]

F = TypeVar("F", bound=Callable[..., Any])

_preparing: Final = Guard("preparing a Lambda handler", limit=None)


@overload
def traced_handler(function: F, /) -> F: ...
@overload
def traced_handler(
    *, flush_timeout: float = 2.0, background: bool = False, trust_incoming_trace: bool = False
) -> Callable[[F], F]: ...
def traced_handler(
    function: Any = None,
    /,
    *,
    flush_timeout: float = 2.0,
    background: bool = False,
    trust_incoming_trace: bool = False,
) -> Any:
    """Trace a Lambda handler: `@traced_handler`, or `@traced_handler(flush_timeout=1.5, background=True)`.

    Each invocation is a trace of its own, named by the function, with tags for what caused it
    (`faas.trigger`), its request id, version, memory, region and cold start, and for the route of an HTTP
    request. It fails with an exception, or with a `statusCode` from 500. Result and exception are those of
    the handler.

    An `async def` handler runs to its end, which AWS's runtime does not see to: on one event loop that is
    kept from one invocation to the next, as are the connections of clients that were made on it. What such
    a handler leaves running goes on in the next invocation.

    `flush_timeout`: seconds that delivering the events may add to an invocation, at most, and never into the
    last 300 ms before its deadline; what is not delivered then is so with the next invocation. `background`:
    deliver after the answer has left; the platform's timeout and bill still count that time. It takes effect
    where the handler is decorated while its module is imported, on standard functions; with SnapStart and on
    managed instances the events go before the answer. `trust_incoming_trace`: continue the trace that the
    request's `traceparent`, or that of the invocation's context, names; only where every caller is your own.

    Applied twice it counts once. Raises TypeError or ValueError where an option is of no use.
    """
    limit = checked_seconds("flush_timeout", flush_timeout)

    def decorate(function: Any) -> Any:
        return _traced(function, limit, background=background, trusting=trust_incoming_trace)

    return decorate if function is None else decorate(function)


def _traced(function: Any, limit: float, *, background: bool, trusting: bool) -> Any:
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"a handler is needed, a function of event and context, not {function!r}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    _preparing(_prepare, background)
    options = Options(name, limit, _extension, background=background, trusting=trusting)

    @functools.wraps(function)
    def handler(*args: Any, **kwargs: Any) -> Any:
        if is_inside():
            return function(*args, **kwargs)
        invocation = Invocation(options, args, kwargs)
        if inspect.iscoroutinefunction(function) and is_looping():
            return _awaited(invocation, function(*args, **kwargs))
        with invocation:
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result) and not is_looping():
                result = run_to_end(result)
            invocation.returns(result)
            return result

    return handler


async def _awaited(invocation: Invocation, running: Coroutine[Any, Any, Any]) -> Any:
    """A handler that is awaited, as tests do; the flush at its end blocks the loop as it does the runtime."""
    with invocation:
        result = await running
        invocation.returns(result)
        return result


_registration: tuple[int, Extension | None] | None = None


def _prepare(background: bool) -> None:
    global _registration  # noqa: PLW0603 - a process registers once, whatever becomes of it
    prepare_for_snapshot()
    if background and (_registration is None or _registration[0] != os.getpid()):
        _registration = os.getpid(), _registered()


def _extension() -> Extension | None:
    """The one that a handler of this process has registered, be it another; it waits for every invocation."""
    return None if _registration is None else _registration[1]


def _registered() -> Extension | None:
    api = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    extension: Extension | None = None
    if not api:
        why = "this is not AWS Lambda"
    elif is_snapshotted():
        why = "SnapStart takes no extension of this kind"
    elif "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ:
        why = "managed instances take no extension of this kind"
    else:
        from ._extension import Extension

        extension = Extension(api, lambda seconds: default_client().flush(seconds))
        if extension.start():
            return extension
        why = "the platform did not take the registration"
    logger.info("lumiqtrace: background=True: %s; events are delivered before the answer instead", why)
    # Also one that is not registered: its answer may only be late, and it says of itself whether it holds.
    return extension
