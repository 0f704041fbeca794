"""Where a value begins and ends, in the notation in which it stands: quoted, bracketed, encoded, a block of
lines, or bare. Time grows with the length of the value alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from .patterns import lazy
from .secrets import REDACTED

_WHOLE_LINE: Final = ("authorization", "cookie")
"""The names whose values have spaces."""
_MAX_INDENT: Final = 256
_MAX_NESTING: Final = 16
"""Brackets within round ones; more are not looked at, so that those that are never closed cost no more."""

QUOTE: Final = r"\"\"\"|'''|\\*[\"']|\\u002[27]|&quot;|&#3[49];|&#x2[27];|%(?:25){0,4}2[27]"
_ENTITIES: Final = (("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'"), ("&#x22;", '"'), ("&#x27;", "'"))

Span = tuple[int, int]
Matcher = Callable[[str, int], re.Match[str] | None]

# What may stand behind an object that is one of several.
_GOES_ON: Final = ("", ",", ";", ")", "]", "}")


def plain(text: str) -> str:
    """A few letters as they were before they were encoded: in URLs, however often, in JSON, in HTML."""
    for _ in range(4):
        if "%" not in text:
            break
        text = unquote(text)
    if "\\u" in text:
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    if "&" in text:
        for entity, sign in _ENTITIES:
            text = text.replace(entity, sign)
    return text


# In Markdown `**name:** value` and `name: `value``.
_GAP: Final = lazy(r"[=>]?(?:[*`]{1,3}(?=[ \t]))?[ \t]*(?:`|\*\*)?")
# After a quoted name, as in JSON, the value may stand in the next line.
_WIDE_GAP: Final = lazy(r"[=>]?(?:\s|\\{1,8}[nrt])*")
_ENCODED_GAP: Final = lazy(r"(?:\+|%(?:25){0,4}(?:20|0[9AaDd]))*")
_OPENING: Final = lazy(rf"[bBrRuUfF]{{0,2}}({QUOTE})")
# What `repr` shows of an object, a dataclass, say.
_CALL: Final = lazy(r"[A-Za-z_][\w.]{0,127}\(")
_SMILEY: Final = lazy(r":-?[()](?=\s|\Z)")
# What goes on after a value that was redacted before.
_BEHIND: Final = lazy(r"[,;)\]}]+(?=\s|\Z)")
# A round bracket; followed by white space it is prose, unless it is closed soon or quotes something.
_ROUND: Final = lazy(r"\((?=\S|\s{1,64}[bBrRuUfF]{0,2}[\"']|[ \t]{1,8}[^\r\n()]{1,128}\))")
_QUOTES: Final = lazy(r"\(\s{0,64}[^\r\n\"']{0,256}(?<!\w)[bBrRuUfF]{0,2}[\"']")
_BARE: Final = lazy(r"[^\s&\"'<>]*")
_ITEM: Final = lazy(r"[^\s,}\]\"'<>]*")
_HARMLESS: Final = lazy(r"(?:null|none|true|false|-?[0-9]+\.[0-9]+)(?=[\s,;&)\]}\"'<>]|\Z)", re.IGNORECASE)
_LINE: Final = lazy(r"[^\r\n]*")
_SCHEME: Final = lazy(r"(?:(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+)?", re.IGNORECASE)
# Before a name that begins its line: `  - name`, `export NAME`.
_MARGIN: Final = lazy(r"([ \t]*(?:-[ \t]+)?)(?:export[ \t]+|set[ \t]+)?[\w.\-]+[ \t]*\Z")
_BLOCK: Final = lazy(r"(?:[|>][+\-0-9]{0,2})?[ \t]*(?:#[^\r\n]*)?\r?\n")
_BLOCK_LINE: Final = lazy(r"([ \t]*)([^\r\n]*)(?:\r?\n|\r|\Z)")
_INSIDE: Final = {
    '"': lazy(r"(?:[^\"\\]|\\.)*+", re.DOTALL),
    "'": lazy(r"(?:[^'\\]|\\.)*+", re.DOTALL),
}
# The closing quote may be missing: a quote that nothing closes is looked at once.
_BRACKETS: Final = lazy(r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?|[\[\]{}()]", re.DOTALL)


def value_after(text: str, name: str, sign: re.Match[str], *, quoted: bool) -> Span:
    """Where the value of `name` after the sign begins and ends, without its quotes."""
    encoded = len(sign[0]) > 1
    if _SMILEY.match(text, sign.start()) and not quoted:
        return sign.end(), sign.end()
    gap = _ENCODED_GAP.match if encoded else _WIDE_GAP.match if quoted else _GAP.match
    start = _end(gap(text, sign.end()))
    if opening := _OPENING.match(text, start):
        return opening.end(), _closing(text, opening.end(), opening[1])
    # What was redacted for its looks may be the beginning of a longer value.
    rest = start + len(REDACTED) if text.startswith(REDACTED, start) else start
    if rest > start and _BEHIND.match(text, rest):
        return start, start
    if text[rest : rest + 1] in ("{", "["):
        return start, _closing_bracket(text, rest)
    # After a quoted name, as in JSON, a comma or a bracket ends a number.
    bare = _until(sign[0]) if encoded else _ITEM.match if quoted else _BARE.match
    if _ROUND.match(text, rest):
        return start, _parenthesis(text, rest) or _end(bare(text, rest))
    if name.lower().endswith(_WHOLE_LINE):
        return start, _end(_LINE.match(text, rest))
    if not encoded and not quoted and (span := _of_a_line(text, name, sign, start)):
        return span
    if _HARMLESS.match(text, start):
        return start, start
    end = _end(bare(text, _end(_SCHEME.match(text, rest))))
    if not encoded and (call := _CALL.match(text, rest)):
        closed = _parenthesis(text, call.end() - 1)
        if closed is not None and closed > end:
            end = closed if text[closed : closed + 1] in _GOES_ON else _end(bare(text, closed))
    return start, end


def value_at(text: str, start: int) -> Span:
    """The value that begins right at `start`, quoted or not."""
    if opening := _OPENING.match(text, start):
        return opening.end(), _closing(text, opening.end(), opening[1])
    return start, _end(_BARE.match(text, start))


def _of_a_line(text: str, name: str, sign: re.Match[str], start: int) -> Span | None:
    """The value of a name that begins its line: a block of lines below it, or, of a variable of the
    environment, the line. None where it is neither.
    """
    at = sign.start()
    if sign[0] == "=" and not name.isupper():
        return None
    # Whether it begins its line is asked first: the rest of a line with many names is long for each.
    begin = max(text.rfind("\n", max(0, at - _MAX_INDENT), at) + 1, at - _MAX_INDENT, 0)
    margin = _MARGIN.match(text[begin:at])
    if margin is None:
        return None
    if sign[0] == "=":
        return start, _end(_LINE.match(text, start))
    block = _BLOCK.match(text, start)
    return _below(text, block.end(), len(margin[1])) if block else None


def _below(text: str, at: int, indent: int) -> Span | None:
    """The lines from `at` that are further in than `indent`."""
    start = end = -1
    while at < len(text):
        line = _BLOCK_LINE.match(text, at)
        assert line is not None
        if line[2]:
            if len(line[1]) <= indent:
                break
            start = line.start(2) if start < 0 else start
            end = line.end(2)
        at = line.end()
    return (start, end) if start >= 0 else None


def _closing(text: str, at: int, opening: str) -> int:
    """Where the quote ends that began just before `at`; the end of the text where it does not."""
    if len(opening) == 1:
        return _end(_INSIDE[opening].match(text, at))
    end = text.find(opening, at)
    while end > at and opening[0] == "\\" and text[end - 1] == "\\":
        end = text.find(opening, end + len(opening))
    return len(text) if end < 0 else end


def _parenthesis(text: str, at: int) -> int | None:
    """Where the round bracket at `at` is closed; None where it is not, and nothing quoted follows that
    was cut off with it.
    """
    end = _closed(text, at, _MAX_NESTING)
    return len(text) if end is None and _QUOTES.match(text, at) else end


def _closing_bracket(text: str, at: int) -> int:
    """Where the bracket at `at` is closed; the end of the text where it is not."""
    end = _closed(text, at, len(text))
    return len(text) if end is None else end


def _closed(text: str, at: int, most: int) -> int | None:
    """Where the bracket at `at` is closed; None where it is not, or has more than `most` open in it."""
    depth = 0
    for sign in _BRACKETS.finditer(text, at):
        if sign[0] in "([{":
            depth += 1
            if depth > most:
                return None
        elif sign[0] in ")]}":
            depth -= 1
            if depth == 0:
                return sign.end()
    return None


@functools.cache
def _until(sign: str) -> Matcher:
    """Reads a bare value up to an `&` that is encoded as the sign before the value is."""
    stop = sign[:-1].removesuffix("3") + "26"
    first, rest = re.escape(stop[0]), re.escape(stop[1:])
    return re.compile(rf"(?:[^\s&\"'<>{first}]|{first}(?!{rest}))*+").match


def _end(match: re.Match[str] | None) -> int:
    """The end of a match of a pattern that matches also where nothing is."""
    assert match is not None
    return match.end()
