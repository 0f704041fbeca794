"""A request's prompt: kept as it was when it was sent, and its canonical JSON, which is hashed.

Some clients hand on the caller's own lists and dicts, which the caller may change while the recording
waits: the containers are copied, the texts in them are shared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from .._encode import MARK, MAX_PROMPT, pairs_of, text_of
from .._guard import Guard

_writing = Guard("writing a prompt", limit=None)

_NOT_GIVEN: Final = frozenset({"Omit", "NotGiven"})
"""The classes of what clients write for an argument that was left out."""

_OVERHEAD: Final = 64

# Possessive, and tried at the beginning of a word alone: linear. What stands beside a dot may be a part of
# a token, which the redactor has to see whole.
_DATA: Final = r"(?<![A-Za-z0-9+/=_.\-])[A-Za-z0-9+/_\-]{1024,}+={0,2}(?![A-Za-z0-9+/=_.\-])"


class Heard:
    """An iterator that is passed on; what it gave is kept."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.kept: list[Any] = []

    def __iter__(self) -> Heard:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.kept.append(item)
        return item


def overheard(body: Any, names: tuple[str, ...]) -> Any:
    """`body`, where a prompt in it can be read again; else a copy in which one hears what it gives."""
    if type(body) is not dict:
        return body
    for name in names:
        kind = type(body.get(name))
        if kind is not list and kind is not str and hasattr(kind, "__next__"):
            body = {**body, name: Heard(body[name])}
    return body


def snapshot(body: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, int]:
    """The prompt in the fields `names`, and about how many bytes it keeps alive.

    It is the value of the only field there, else a dict of them all, or None.
    """
    found, size = {}, 0
    for name in names:
        value = body.get(name)
        if value is not None and type(value).__name__ not in _NOT_GIVEN:
            found[name], more = _copied(value)
            size += more
    if len(found) == 1:
        return found.popitem()[1], size
    return (found or None), size


def _copied(value: Any) -> tuple[Any, int]:
    kind = type(value)
    if kind is str or kind is bytes:
        return value, len(value)
    copy: Any = value
    if kind is list or kind is tuple:
        copy = list(value)
    elif kind is dict:
        copy = value.copy()
    elif issubclass(kind, dict):  # a framework's own; none of its methods is called, and so below
        copy = dict(pairs_of(value))
    elif issubclass(kind, list):
        copy = list.copy(value)
    else:
        return value, _OVERHEAD
    size = _OVERHEAD
    for key, item in copy.items() if type(copy) is dict else enumerate(copy):
        if type(item) is str:  # most are; a call for each would be half of the time
            size += len(item)
        else:
            copy[key], more = _copied(item)
            size += more
    return copy, size


def _plain(value: Any) -> Any:
    """What JSON has no word for: models in the form in which the clients send them, all else as text."""
    if type(value) is Heard:
        return value.kept
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return text_of(value)
    return dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)


_to_json: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
).encode


def canonical(prompt: Any) -> str:
    """Canonical JSON: keys sorted, no white space, letters beyond ASCII as they are. Else what `str` says."""
    document = _writing(_to_json, prompt)
    return text_of(prompt) if document is None else document


def readable(document: str) -> str:
    """A prompt that is too long to be kept whole, without what nobody reads in it: images, sounds and files
    as base64, of which the length is told. Of any other it is all.
    """
    return document if len(document) <= MAX_PROMPT else re.sub(_DATA, _length, document)


def _length(data: re.Match[str]) -> str:
    return f"{MARK} ({len(data[0]):,} characters)"
