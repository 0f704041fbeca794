"""Flushing when a function returns, for any platform that may stop the process after it.

Azure Functions, Modal, Knative, or whatever comes: decorate the handler with `flush_on_return`. AWS Lambda,
Google Cloud Run and Vercel have modules of their own, which also make the span.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Final, Protocol, TypeVar, overload

from ._flushing import FlushAtEnd, checked_seconds

__all__ = ["flush_on_return"]

Function = Callable[..., Any]
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")
Timeout = float | Callable[..., float | None] | None

_ACCEPTED: Final = "a function is needed, not {!r}; of a class, decorate the methods"


class Decorator(Protocol):
    """Gives a function of the same type."""

    def __call__(self, function: F, /) -> F: ...


@overload
def flush_on_return(function: F, /) -> F: ...
@overload
def flush_on_return(*, timeout: Timeout = None) -> Decorator: ...
def flush_on_return(function: Any = None, /, *, timeout: Timeout = None) -> Any:
    """Flush when the function returns or raises: `@flush_on_return`, `@flush_on_return(timeout=1.5)`.

    For functions, coroutine functions, generators and async generators (which end with their last item), and
    methods of all kinds. `timeout` is the seconds that the flush may take, by default the option
    `flush_timeout` (5.0); or a function of the call's arguments that gives them when the call is over: the
    time that a platform leaves, say. 0 or less leaves the events for the next flush, None is the default.

    Result and exception are those of the function. Where nothing was recorded it costs nothing; where calls
    are nested the outermost flushes (a generator counts as a call of its own). What is given up, a generator
    before its end, begins the delivery and does not wait for it. A coroutine function that is cancelled while
    it waits for the delivery is cancelled, although its result was there: under an `asyncio.wait_for` have
    `timeout` be less than what that leaves. Works before `init`, and does nothing without it. Raises
    TypeError or ValueError where an option or the function is of no use.
    """
    if timeout is not None and not callable(timeout):
        timeout = checked_seconds("timeout", timeout)

    def decorate(function: Any) -> Any:
        return _flushing(function, timeout)

    return decorate if function is None else decorate(function)


def _flushing(function: Any, timeout: Timeout) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_flushing(function.__func__, timeout))
    if isinstance(function, type) or not callable(function):
        raise TypeError(_ACCEPTED.format(function))
    shape = function
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        shape = getattr(function, "__call__", function)  # noqa: B004 - an object with a method of that name
    if inspect.iscoroutinefunction(shape):
        made = _coroutine(function, timeout)
    elif inspect.isasyncgenfunction(shape):
        made = _async_generator(function, timeout)
    elif inspect.isgeneratorfunction(shape):
        made = _generator(function, timeout)
    else:
        made = _plain(function, timeout)
    # An object that can be called has a state of its own, which is not the wrapper's.
    updated = functools.WRAPPER_UPDATES if inspect.isroutine(function) else ()
    return functools.update_wrapper(made, function, updated=updated)


def _at_end(timeout: Timeout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlushAtEnd:
    if callable(timeout):
        return FlushAtEnd(lambda: _number(timeout(*args, **kwargs)))
    return FlushAtEnd(lambda: timeout)


def _number(seconds: object) -> float | None:
    """What a function of the user's gave; what is no number counts as not given."""
    return float(seconds) if isinstance(seconds, int | float) else None


def _plain(function: Function, timeout: Timeout) -> Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        end = _at_end(timeout, args, kwargs)
        with end:
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):  # a wrapper's around a coroutine function: the call is to come
                end.leave()
                return _awaited(result, _at_end(timeout, args, kwargs))
            return result

    return call


async def _awaited(running: Coroutine[Any, Any, Any], end: FlushAtEnd) -> Any:
    async with end:
        return await running


def _coroutine(function: Function, timeout: Timeout) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with _at_end(timeout, args, kwargs):
            return await function(*args, **kwargs)

    return call


# Between the items of a generator its consumer runs, whose own flushes are none of ours: the end alone is
# a call that flushes.


def _generator(function: Function, timeout: Timeout) -> Function:
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        end = _at_end(timeout, args, kwargs)
        try:
            return (yield from function(*args, **kwargs))
        except GeneratorExit:  # given up, which a collector may do anywhere: no place to wait
            end.waits = False
            raise
        finally:
            with end:
                pass

    return generate


def _async_generator(function: Function, timeout: Timeout) -> Function:
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        try:
            item = await anext(body)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await body.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - the body decides what becomes of it
                    item = await body.athrow(error)
                else:
                    item = await body.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            async with _at_end(timeout, args, kwargs):
                pass

    return generate
