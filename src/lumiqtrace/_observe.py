"""The decorators: a function's run as a span, with the function's own signature, results and exceptions.

A generator's span covers its life from the first item to its end. It is current only while the body runs:
between items the consumer's context is as it was, wherever and by whomever the generator is continued.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final, Protocol, TypeVar, overload

from ._context import ambient, current, enter, surround
from ._default import default_client
from ._encode import text_of
from ._guard import Guard
from ._llm_span import LlmSpan
from ._span import Span, kind_of

Function = Callable[..., Any]
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")
Open = Callable[[], Span | None]

_opening: Final = Guard("opening an observed span", limit=None)
_stepping: Final = Guard("following a generator", limit=None)


class Decorator(Protocol):
    """Gives a function of the same type."""

    def __call__(self, function: F, /) -> F: ...


@overload
def observe_span(name: F, /) -> F: ...
@overload
def observe_span(name: str | None = None, span_type: str = "custom") -> Decorator: ...
def observe_span(name: Any = None, span_type: str = "custom") -> Any:
    """Make each run of a function a span: `@observe_span`, `@observe_span("rag", span_type="retriever")`.

    For functions, coroutines, generators, async generators and methods of all kinds. `name` is the
    function's by default; `span_type` is a kind as `span` takes it. An exception passes through as the same
    object and gives the span its status. Raises TypeError for what is no function.
    """
    kind = kind_of(span_type)

    def decorate(function: Any) -> Any:
        return _observed(function, lambda label: lambda: _open_span(label, kind), name)

    if _is_function(name):
        bare, name = name, None
        return decorate(bare)
    return decorate


@overload
def observe_llm(model: F, /) -> F: ...
@overload
def observe_llm(model: str | None = None, provider: str | None = None) -> Decorator: ...
def observe_llm(model: Any = None, provider: str | None = None) -> Any:
    """Make each run of a function that calls a model a span: `@observe_llm(model="gpt-4o")`.

    While the provider's library is not patched, the span carries what the calls made inside it used: tokens,
    cost, tools, finish reason, and model and provider where they are not given. With `patch_openai()` and
    the like those calls are its children, and it carries none. Where no call was seen, the tokens are those
    of the returned object's `.usage`. A provider that is not `openai`, `anthropic`, `google` or `custom` is
    recorded as `custom`, with the tag `vendor`. Otherwise as `observe_span`.
    """
    bare = model if _is_function(model) else None
    told_model = None if bare is not None or model is None else text_of(model)
    told_provider = None if provider is None else text_of(provider)

    def decorate(function: Any) -> Any:
        return _observed(
            function, lambda label: lambda: _open_llm_span(label, told_model, told_provider), None
        )

    return decorate if bare is None else decorate(bare)


def _open_span(name: str, kind: str) -> Span | None:
    client = default_client()
    return Span(client, name, kind, {}).begin() if client.recording else None


def _open_llm_span(name: str, model: str | None, provider: str | None) -> Span | None:
    client = default_client()
    return LlmSpan(client, name, model, provider).begin() if client.recording else None


def _is_function(value: object) -> bool:
    return callable(value) or isinstance(value, classmethod | staticmethod)


def _observed(function: Any, opener: Callable[[str], Open], name: object) -> Any:
    """`function`, with a span that `opener(name)()` gives, or None, around each run."""
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_observed(function.__func__, opener, name))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"a function is needed, not {function!r}; of a class, decorate the methods")
    open_span = opener(_name_of(function) if name is None else text_of(name))
    shape = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if isinstance(function, functools.partial):
        shape = function
    if inspect.iscoroutinefunction(shape):
        observed = _coroutine(function, open_span)
    elif inspect.isasyncgenfunction(shape):
        observed = _async_generator(function, open_span)
    elif inspect.isgeneratorfunction(shape):
        observed = _generator(function, open_span)
    else:
        observed = _plain(function, open_span)
    # An object that can be called has a state of its own, which is not the wrapper's.
    updated = functools.WRAPPER_UPDATES if inspect.isroutine(function) else ()
    return functools.update_wrapper(observed, function, updated=updated)


def _name_of(function: Any) -> str:
    """`Class.method`, without the functions it was defined in."""
    function = getattr(function, "func", function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return text_of(name).rpartition("<locals>.")[2]


def _plain(function: Function, open_span: Open) -> Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        span = _opening(open_span)
        if span is None:
            return function(*args, **kwargs)
        with span:
            result = function(*args, **kwargs)
            span.returns(result)
            return result

    return call


def _coroutine(function: Function, open_span: Open) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        span = _opening(open_span)
        if span is None:
            return await function(*args, **kwargs)
        with span:
            result = await function(*args, **kwargs)
            span.returns(result)
            return result

    return call


# ---- generators ----------------------------------------------------------------------------------------


class _Steps:
    """The life of one generator: what is current in its body, kept from one step to the next."""

    __slots__ = ("_labels", "_outside", "_outside_labels", "_place", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._labels = self._outside_labels = ambient()
        self._place = self._outside = here = span._here
        if here is not None:
            here.token = None  # what is current is put back step by step, in whichever context that is

    def enter(self) -> None:
        self._outside, self._outside_labels = current(), ambient()
        enter(self._place)
        surround(self._labels)

    def leave(self) -> None:
        self._place, self._labels = current(), ambient()
        enter(self._outside)
        surround(self._outside_labels)

    def yields(self, item: object) -> None:
        self._span.returns(item)

    def end(self, error: BaseException | None, result: object = None) -> None:
        self._span.returns(result)
        self.enter()
        self._span.end(error)
        self.leave()


class _NoSteps(_Steps):
    """Where nothing is recorded."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def enter(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def yields(self, item: object) -> None:
        pass

    def end(self, error: BaseException | None, result: object = None) -> None:
        pass


_no_steps: Final = _NoSteps()


def _begun(open_span: Open) -> _Steps | None:
    """The steps of a generator that begins now; what was current stays so."""
    before = current()
    span = open_span()
    if span is None:
        return None
    enter(before)
    return _Steps(span)


def _generator(function: Function, open_span: Open) -> Function:
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body: Generator[Any, Any, Any] = function(*args, **kwargs)
        steps = _stepping(_begun, open_span) or _no_steps
        sent: Any = None
        error: BaseException | None = None
        try:
            while True:
                steps.enter()
                try:
                    item = body.send(sent) if error is None else body.throw(error)
                except StopIteration as stop:
                    result = stop.value
                    break
                finally:
                    steps.leave()
                steps.yields(item)
                sent = error = None
                try:
                    sent = yield item
                # Thrown into the body outside of this clause, which would show in what the body raises.
                except BaseException as thrown:  # noqa: BLE001
                    error = thrown
        except BaseException as failure:
            steps.end(failure)
            raise
        finally:
            error = None  # else the exception and this frame hold each other
        steps.end(None, result)
        return result

    return generate


def _async_generator(function: Function, open_span: Open) -> Function:
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        steps = _stepping(_begun, open_span) or _no_steps
        step = _first_step(body)
        error: BaseException | None = None
        try:
            while True:
                try:
                    item = await _through(step, steps)
                except StopAsyncIteration:
                    break
                steps.yields(item)
                try:
                    step = body.asend((yield item))
                except BaseException as thrown:  # noqa: BLE001 - as above
                    error = thrown
                if error is not None:
                    step, error = body.athrow(error), None
        except BaseException as failure:
            steps.end(failure)
            raise
        finally:
            del step  # it holds what was thrown, which holds this frame
        steps.end(None)

    return generate


@types.coroutine
def _through(step: Any, steps: _Steps) -> Generator[Any, Any, Any]:
    """Await one step of an async generator; what is current in its body is so only while that runs."""
    sent: Any = None
    error: BaseException | None = None
    try:
        while True:
            steps.enter()
            try:
                waited = step.send(sent) if error is None else step.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                steps.leave()
            sent = error = None
            try:
                sent = yield waited
            except BaseException as thrown:  # noqa: BLE001 - as above
                error = thrown
    finally:
        error = None


def _first_step(body: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Without the event loop's hooks: the wrapper, which has them, closes the body."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
