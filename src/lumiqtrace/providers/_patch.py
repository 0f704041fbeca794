"""Puts a wrapper around one method of a provider's classes, once, and takes it off again.

Works on the class, so it holds for clients made before and after, for their copies and bound methods.
Where the library is not imported yet it waits for that import; it never imports it.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import Any, Final

from .._errors import MissingExtraError
from .._guard import Guard
from ._call import Call
from ._imports import when_imported

_inside: Final[ContextVar[object]] = ContextVar("lumiqtrace_inside", default=None)
"""The request under way: a subclass that another tracer replaced calls the base's method with the same
object, and that is still one call."""


class Target:
    """A method of a class in a module of the library; `alias` is the class's name in other versions."""

    __slots__ = ("alias", "class_name", "is_async", "method", "module")

    def __init__(self, module: str, class_name: str, method: str, *, is_async: bool, alias: str = "") -> None:
        self.module = module
        self.class_name = class_name
        self.method = method
        self.is_async = is_async
        self.alias = alias


class Patch(ABC):
    """Wrappers around methods of one provider library, put in and taken out together."""

    def __init__(
        self, package: str, extra: str, targets: tuple[Target, ...], *, required: bool = True
    ) -> None:
        """`package` is what brings the targets when it is imported.

        Where it is not `required`, it is a part that only some versions of the library have: it is waited
        for, and not looked for.
        """
        self._package = package
        self._extra = extra
        self._targets = targets
        self._required = required
        self._guard = Guard(f"recording {package} calls")
        self._wanted = False
        self._hooked = False
        self._replaced: list[tuple[type[Any], str, Any, Any]] = []

    def install(self) -> None:
        """Idempotent. Raises MissingExtraError where the library is not installed.

        After a `remove` it is a new start, also for a guard that had opened.
        """
        if not self._wanted:
            self._guard.close()
        self._wanted = True
        if all(_loaded(target) for target in self._targets):
            self._attach()
        elif not self._hooked:
            if self._required and not _installed(self._package):
                self._wanted = False
                raise MissingExtraError(f"patch_{self._extra}()", self._extra)
            self._hooked = True
            when_imported(self._package, self._imported)

    def remove(self) -> None:
        """Put the original methods back. What someone else wrapped meanwhile stays, and passes through."""
        self._wanted = False
        while self._replaced:
            owner, name, original, wrapper = self._replaced.pop()
            if owner.__dict__.get(name) is wrapper:
                setattr(owner, name, original)

    def _imported(self, _module: object) -> None:
        if self._wanted:
            self._guard(self._attach)

    @property
    def misses(self) -> bool:
        """Whether the library is there, and nothing of it has been replaced."""
        return not self._replaced and self._package in sys.modules

    def _attach(self) -> None:
        """Without a lock, which a fork could find taken: what two threads wrap at once is wrapped once."""
        for target in self._targets:
            base = _loaded(target)
            for owner in _owners(base, target.method) if base else ():
                original = owner.__dict__[target.method]
                if all(wrapper is not original for *_, wrapper in self._replaced):
                    wrapper = self._wrapper(original, is_async=target.is_async)
                    self._replaced.append((owner, target.method, original, wrapper))
                    setattr(owner, target.method, wrapper)

    @abstractmethod
    def _wrapper(self, original: Any, *, is_async: bool) -> Any:
        """What takes the place of `original`, a function or whatever another tracer left there."""


class Instrumentation(Patch):
    """The wrappers around a library's requests. A provider says what is a call, and how it is answered."""

    @abstractmethod
    def identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """The object that is this request's own: the same one wherever the request passes, and no other's."""

    @abstractmethod
    def begin(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call that the `request` of `identify` is; None for a free one, or where nothing is recorded."""

    @abstractmethod
    def receive(self, call: Call, result: Any) -> Any:
        """Note what the library returned. What this returns is given to the application in its place."""

    def sending(self, original: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:  # noqa: ARG002
        """What makes a streamed call, in the place of `original`: a provider may put its own around it."""
        return original

    def wrap(self, client: Any, method: str, *, is_async: bool) -> None:
        """Record the calls that this one client makes through `method`, patched or not."""
        original = inspect.getattr_static(type(client), method)
        wrapper = self._wrapper(original, is_async=is_async, always=True)
        setattr(client, method, MethodType(wrapper, client))

    def _wrapper(self, original: Any, *, is_async: bool, always: bool = False) -> Any:
        make = self._async if is_async else self._sync
        return make(
            original, original if isinstance(original, FunctionType) else _bound(original), always=always
        )

    def _sync(self, original: Any, call_original: Callable[..., Any], *, always: bool) -> Any:
        stream = self.sending(call_original, is_async=False)

        @functools.wraps(original)
        def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._guard(self._start, client, args, kwargs, always)
            if call is None:
                return call_original(client, *args, **kwargs)
            before = _inside.get()
            _inside.set(call.request)
            try:
                send = stream if call.streamed else call_original
                result = send(client, *args, **kwargs)
            except BaseException as error:
                self._guard(call.raised, error)
                raise
            finally:
                _inside.set(before)
            received = self._guard(self.receive, call, result)
            return result if received is None else received

        return request

    def _async(self, original: Any, call_original: Callable[..., Any], *, always: bool) -> Any:
        stream = self.sending(call_original, is_async=True)

        @functools.wraps(original)
        async def request(client: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._guard(self._start, client, args, kwargs, always)
            if call is None:
                return await call_original(client, *args, **kwargs)
            before = _inside.get()
            _inside.set(call.request)
            try:
                send = stream if call.streamed else call_original
                result = await send(client, *args, **kwargs)
            except BaseException as error:
                self._guard(call.raised, error)
                raise
            finally:
                _inside.set(before)
            received = self._guard(self.receive, call, result)
            return result if received is None else received

        return request

    def _start(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any], always: bool) -> Call | None:
        if not (self._wanted or always):
            return None
        request = self.identify(args, kwargs)
        if request is None or request is _inside.get():
            return None
        call = self.begin(client, request, args, kwargs)
        if call is not None:
            call.request = request
        return call


def _loaded(target: Target) -> Any:
    """The class, if its module has been imported as far as that."""
    module = sys.modules.get(target.module)
    return getattr(module, target.class_name, None) or getattr(module, target.alias, None)


def _installed(package: str) -> bool:
    """Whether `package` could be imported; only the package it lies in, if any, is."""
    if sys.modules.get(package) is not None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _owners(base: type[Any], method: str) -> Iterator[type[Any]]:
    """`base`, and each subclass that has a method of its own of that name."""
    if method in base.__dict__:
        yield base
    for child in base.__subclasses__():
        yield from _owners(child, method)


def _bound(descriptor: Any) -> Callable[..., Any]:
    """What another tracer left in the class need not be a function; it is bound as Python would."""

    def call(client: Any, *args: Any, **kwargs: Any) -> Any:
        return descriptor.__get__(client, type(client))(*args, **kwargs)

    return call
