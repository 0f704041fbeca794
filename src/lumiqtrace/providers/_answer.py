"""What an answer says about its call, however it came: as the client's object, as JSON, or event by event.

A route is one row of a provider's table: which operation its requests are, and how their answers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from .._encode import pairs_of
from .._event import Usage


class Answer:
    """The facts, filled in as they are seen.

    `complete` says that a stream's end was seen, whether or not it gave a reason. `status` is set where
    the answer itself tells of a failure. `spoken` is what the model wrote, piece by piece; None where
    texts are not kept. `reported` is the usage as the provider told it; its numbers are worked out from it
    once, by the route's `account`.
    """

    # Defaults are the class's: what is made for each call has little to set up.
    model: str | None = None
    input_tokens = 0
    output_tokens = 0
    cached_tokens = 0
    has_usage = False
    finish_reason: str | None = None
    complete = False
    status: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    def __init__(self, *, spoken: list[str] | None = None) -> None:
        self.reported: dict[str, Any] = {}
        self.tools: list[str] = []
        self.spoken = spoken

    def said(self, piece: object) -> None:
        """Keep a piece of the output's text, if texts are kept."""
        if self.spoken is not None and isinstance(piece, str) and piece:
            self.spoken.append(piece)

    def reports(self, usage: object) -> None:
        """Keep what a usage object says. A stream may report in parts, whose later numbers replace."""
        if usage is None:
            return
        for name, value in fields(usage).items():
            if value is not None:
                self.reported[name] = value if type(value) is int else _copied(value)
                self.has_usage = True

    def used(self, tool: object) -> None:
        if isinstance(tool, str) and tool and tool not in self.tools:
            self.tools.append(tool)


def never_plain(_payload: bytes) -> bool:
    return False


class Route:
    """How the calls to one path are read.

    `prompt` names the request's fields that hold the prompt; `read` takes a whole answer, `fold` one
    event of a stream, `begins` says whether that event carries generated output. `account` turns the
    usage that these kept into numbers: last, and not on the application's thread. `is_plain` says of an
    event's JSON that it carries a piece of text, or what else is not kept, and nothing that is.
    """

    __slots__ = ("account", "begins", "fold", "is_plain", "operation", "prompt", "read")

    def __init__(  # noqa: PLR0917 - the columns of a table
        self,
        operation: str,
        prompt: tuple[str, ...],
        read: Callable[[Any, Answer], object],
        fold: Callable[[Any, Answer], object],
        begins: Callable[[Any], bool],
        account: Callable[[Answer, Usage], None],
        is_plain: Callable[[bytes], bool] = never_plain,
    ) -> None:
        self.operation = operation
        self.prompt = prompt
        self.read = read
        self.fold = fold
        self.begins = begins
        self.account = account
        self.is_plain = is_plain


def pick(node: Any, *path: str) -> Any:
    """Follow `path` through objects and dicts alike; None where it ends early.

    Clients give objects for what they know and plain dicts for what they do not, side by side; frameworks
    give dicts of a class of their own, whose methods are not called.
    """
    for key in path:
        node = dict.get(node, key) if issubclass(type(node), dict) else _member(node, key)
        if node is None:
            return None
    return node


def _member(node: Any, key: str) -> Any:
    """An attribute; of a pydantic model without its `__getattr__`, which takes 1.7 us to say no."""
    try:
        own = node.__dict__
    except AttributeError:
        return getattr(node, key, None)
    if key in own:
        return own[key]
    extra = getattr(node, "__pydantic_extra__", own)
    if extra is own:
        return getattr(node, key, None)
    return extra.get(key) if extra else None


_BEYOND: Final = 2**53
_NOTHING: Final[dict[str, Any]] = {}


def fields(node: Any) -> dict[str, Any]:
    """The members of an object or a dict, to be looked up one by one; none of None or a plain value.

    A tenth of the time of as many `pick`s, for what is read on the application's thread (measured).
    """
    kind = type(node)
    if kind is dict:
        told: dict[str, Any] = node
        return told
    if issubclass(kind, dict):
        return dict(pairs_of(node))
    own = getattr(node, "__dict__", _NOTHING)
    extra = getattr(node, "__pydantic_extra__", None)
    return {**own, **extra} if extra else own


_PLAIN: Final = frozenset({int, str, float, bool, type(None)})


def _copied(value: Any) -> Any:
    """A part of a usage object, as it is now: applications add up the objects that the clients gave them."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, Enum):
        return value
    if issubclass(kind, list):
        return [_copied(item) for item in list.__iter__(value)]
    told = fields(value).items()
    return {name: item if type(item) in _PLAIN else _copied(item) for name, item in told} or value


def each(node: Any) -> list[Any]:
    """The items of a list or tuple, also of a class of its own; none of anything else."""
    kind = type(node)
    if kind is list:
        items: list[Any] = node
        return items
    if issubclass(kind, list):
        return list.copy(node)
    return list(tuple.__getitem__(node, slice(None))) if issubclass(kind, tuple) else []


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def count(value: Any) -> int:
    """A token count: 0 for what is none."""
    if type(value) is int:
        return value if 0 <= value < _BEYOND else 0
    if type(value) is float:
        return int(value) if 0 <= value < _BEYOND else 0
    return 0


def first_count(node: Any, paths: tuple[tuple[str, ...], ...]) -> int:
    """The first of several spellings that gives a count; vendors disagree on names."""
    for path in paths:
        found = count(pick(node, *path))
        if found:
            return found
    return 0
