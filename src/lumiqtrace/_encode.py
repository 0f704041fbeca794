"""Events to bytes: one JSON line an event, whatever it holds; a batch is gzip of such lines.

Total and bounded: it never raises, never writes NaN, and no line is longer than `MAX_LINE_BYTES`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import operator
import zlib
from collections.abc import Iterable
from typing import Any, Final

from ._event import Event

MAX_LINE_BYTES: Final = 256 * 1024
"""The longest line the server takes."""
MAX_TEXT: Final = 8 * 1024
MAX_PROMPT: Final = 32 * 1024
"""Characters of a prompt, and of a completion, that are kept."""
MAX_SHORT: Final = 1024
"""Characters of any text in an event whose line was too long; twenty such texts fit, however escaped."""
MAX_NODES: Final = 20_000
"""Containers of one field that are looked into."""
MAX_WRITTEN: Final = 1000
"""Values in a container, and in those that it holds, up to which `str` writes it."""
MARK: Final = "…"
"""Stands where something was left out."""


class Bounds:
    """How much of a value is kept: characters of a text, items of a container, levels of nesting."""

    # No NamedTuple, here and where else one is made at every import: each takes 0.1 ms of it.
    __slots__ = ("depth", "items", "text")

    def __init__(self, text: int, items: int, depth: int) -> None:
        self.text = text
        self.items = items
        self.depth = depth


_BOUNDS: Final = Bounds(MAX_TEXT, 256, 8)
_METADATA: Final = Bounds(64 * 1024, 4096, 32)
"""The bodies of a request are there."""

_ATTEMPTS: Final = 100

_CONTAINERS: Final[tuple[type[Any], ...]] = (dict, list, tuple, set, frozenset)

_FIELDS: Final = tuple(f.name for f in dataclasses.fields(Event) if f.name != "usage")
_values: Final = operator.attrgetter(*_FIELDS)
_LIMITS: Final = {"prompt": MAX_PROMPT, "completion": MAX_PROMPT}

# Made once: `json.dumps` with options builds an encoder at every call, a third of its time.
_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode(event: Event) -> bytes:
    """One line of UTF-8 JSON, without its newline; None and empty fields are left out."""
    record: dict[str, Any] = {}
    for name, value in zip(_FIELDS, _values(event), strict=True):
        kind = type(value)
        if kind is str:
            record[name] = value if len(value) <= MAX_TEXT else cut(value, _LIMITS.get(name, MAX_TEXT))
        elif value is not None and (value or (kind is not dict and kind is not list)):
            record[name] = readable(value, _METADATA if name == "metadata" else _BOUNDS)
    line = _line(record)
    if len(line) > MAX_LINE_BYTES and record.pop("metadata", None) is not None:
        line = _line(record)
    if len(line) > MAX_LINE_BYTES:
        record = {name: value for name, value in record.items() if not isinstance(value, dict | list)}
        line = _line(record)
    if len(line) > MAX_LINE_BYTES:
        line = _line({name: cut(v, MAX_SHORT) if type(v) is str else v for name, v in record.items()})
    return line


def _line(record: dict[str, Any]) -> bytes:
    # A lone surrogate is no Unicode text; strict readers refuse even its escape.
    return _to_json(record).encode("utf-8", "replace")


def compress(lines: Iterable[bytes]) -> bytes:
    """One gzip member. Level 1: a quarter of level 6's time, 13 % more bytes (100 events, measured)."""
    return zlib.compress(b"\n".join(lines), level=1, wbits=31)


def decompress(body: bytes) -> list[bytes]:
    """The lines that `compress` packed."""
    return zlib.decompress(body, wbits=31).split(b"\n")


def readable(value: object, bounds: Bounds) -> Any:
    """`value` as something JSON has, within the bounds; a mark stands where something was left out."""
    return _readable(value, bounds.depth, bounds, [MAX_NODES])


def _readable(value: object, depth: int, bounds: Bounds, left: list[int]) -> Any:
    kind = type(value)
    if kind is str:
        return cut(value, bounds.text)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value
    if kind is int:
        # Beyond 2**53 a reader that knows only doubles would see another number.
        return value if -(2**53) <= value <= 2**53 else text_of(value)  # type: ignore[operator]
    if kind is float:
        return value if math.isfinite(value) else None  # type: ignore[arg-type]
    if not issubclass(kind, _CONTAINERS):
        return text_of(value)
    # What holds itself, or the same thing many times on many levels, is endless otherwise.
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        return MARK
    if isinstance(value, dict):
        pairs = pairs_of(value)[: bounds.items]
        return {text_of(key): _readable(item, depth - 1, bounds, left) for key, item in pairs}
    items = items_of(value)
    found = [_readable(item, depth - 1, bounds, left) for item in items[: bounds.items]]
    return found if len(items) <= bounds.items else [*found, MARK]


def items_of(value: Any) -> list[Any]:
    """What a container holds, with none of the methods that a subclass may have written.

    What another thread may change is copied in one step; an iterator over it would notice the change.
    """
    if isinstance(value, list):
        return list.copy(value)
    if isinstance(value, dict):
        return list(dict.keys(value))
    if isinstance(value, set):
        return list(set[Any]().union(value))
    if isinstance(value, tuple):
        return list(tuple.__iter__(value))
    return list(frozenset.__iter__(value)) if isinstance(value, frozenset) else []


def pairs_of(value: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """The keys of a dict with their values, also of a subclass's, whatever other threads do to it meanwhile.

    Python 3.11 may collect garbage at any pair that it makes, and other threads run while it does.
    """
    if type(value).__iter__ is dict.__iter__:
        return list(dict.copy(value).items())  # one step; of other classes `copy` would ask their own methods
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(RuntimeError):  # its size changed
            return list(dict.items(value))
    return []


def text_of(value: object) -> str:
    """What `str` makes of it; its author may have written one that raises anything."""
    kind = type(value)
    if kind is str:
        return cut(value)  # type: ignore[arg-type]
    try:
        if issubclass(kind, _CONTAINERS) and not _is_small(value):
            value = readable(value, _BOUNDS)
        text = str(value)
        # A subclass may have written its own length.
        return cut(text if type(text) is str else str.__str__(text))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        return cut(f"<unprintable {kind.__name__}>")


def _is_small(value: object) -> bool:
    """Whether a container and what it holds are few enough to be written in full."""
    left, found = [value], 0
    while left:
        item = left.pop()
        if issubclass(type(item), _CONTAINERS):
            held = [*dict.keys(item), *dict.values(item)] if isinstance(item, dict) else items_of(item)
            found += len(held)
            if found > MAX_WRITTEN:
                return False
            left += held
    return True


def cut(text: str, most: int = MAX_TEXT) -> str:
    """At most so many characters, with a mark where more were."""
    return text if len(text) <= most else text[:most] + MARK
