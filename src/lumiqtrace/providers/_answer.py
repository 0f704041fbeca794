"""What an answer says about its call, however it came: as the client's object, as JSON, or event by event.

A route is one row of a provider's table: which operation its requests are, and how their answers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._event import Usage


@dataclass(slots=True)
class Answer:
    """The facts, filled in as they are seen. `status` is set where the answer itself tells of a failure."""

    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usage: Usage = field(default_factory=Usage)
    has_usage: bool = False
    finish_reason: str | None = None
    tools: list[str] = field(default_factory=list)
    complete: bool = False
    """A stream's end was seen, whether or not it gave a reason."""
    status: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    spoken: list[str] | None = None
    """What the model wrote, piece by piece; None where it is not to be kept."""

    def said(self, piece: object) -> None:
        """Keep a piece of the output's text, if texts are kept."""
        if self.spoken is not None and isinstance(piece, str) and piece:
            self.spoken.append(piece)

    def used(self, tool: object) -> None:
        if isinstance(tool, str) and tool and tool not in self.tools:
            self.tools.append(tool)


@dataclass(frozen=True, slots=True)
class Route:
    """How the calls to one path are read.

    `prompt` names the request's fields that hold the prompt; `read` takes a whole answer, `fold` one
    event of a stream, `begins` says whether that event carries generated output.
    """

    operation: str
    prompt: tuple[str, ...]
    read: Callable[[Any, Answer], None]
    fold: Callable[[Any, Answer], None]
    begins: Callable[[Any], bool]


def pick(node: Any, *path: str) -> Any:
    """Follow `path` through objects and dicts alike; None where it ends early.

    Clients give objects for what they know and plain dicts for what they do not, side by side.
    """
    for key in path:
        node = node.get(key) if type(node) is dict else _member(node, key)
        if node is None:
            return None
    return node


def _member(node: Any, key: str) -> Any:
    """An attribute; for a pydantic model without its `__getattr__`, which takes 1.7 us to say no (measured)."""
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


def each(node: Any) -> list[Any]:
    """The items of a list or tuple; none of anything else."""
    return list(node) if isinstance(node, list | tuple) else []


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def count(value: Any) -> int:
    """A token count: 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return 0
    return int(value)


def first_count(node: Any, paths: tuple[tuple[str, ...], ...]) -> int:
    """The first of several spellings that gives a count; vendors disagree on names."""
    for path in paths:
        found = count(pick(node, *path))
        if found:
            return found
    return 0
