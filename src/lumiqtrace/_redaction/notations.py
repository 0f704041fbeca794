"""Where a value begins and ends, in the notation in which it stands: quoted, bracketed, encoded, a block of
lines, or bare. Time grows with the length of the value alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

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


class Values:
    """Finds values. Making one compiles its patterns."""

    def __init__(self) -> None:
        # In Markdown `**name:** value` and `name: `value``.
        self._gap = re.compile(r"[=>]?(?:[*`]{1,3}(?=[ \t]))?[ \t]*(?:`|\*\*)?").match
        # After a quoted name, as in JSON, the value may stand in the next line.
        self._wide_gap = re.compile(r"[=>]?(?:\s|\\{1,8}[nrt])*").match
        self._encoded_gap = re.compile(r"(?:\+|%(?:25){0,4}(?:20|0[9AaDd]))*").match
        self._opening = re.compile(rf"[bBrRuUfF]{{0,2}}({QUOTE})").match
        # What `repr` shows of an object, a dataclass, say.
        self._call = re.compile(r"[A-Za-z_][\w.]{0,127}\(").match
        self._smiley = re.compile(r":-?[()](?=\s|\Z)").match
        # What goes on after a value that was redacted before.
        self._behind = re.compile(r"[,;)\]}]+(?=\s|\Z)").match
        # A round bracket; followed by white space it is prose, unless it is closed soon or quotes something.
        self._round = re.compile(r"\((?=\S|\s{1,64}[bBrRuUfF]{0,2}[\"']|[ \t]{1,8}[^\r\n()]{1,128}\))").match
        self._quotes = re.compile(r"\(\s{0,64}[^\r\n\"']{0,256}(?<!\w)[bBrRuUfF]{0,2}[\"']").match
        self._bare = re.compile(r"[^\s&\"'<>]*").match
        self._item = re.compile(r"[^\s,}\]\"'<>]*").match
        self._harmless = re.compile(
            r"(?:null|none|true|false|-?[0-9]+\.[0-9]+)(?=[\s,;&)\]}\"'<>]|\Z)", re.IGNORECASE
        ).match
        self._line = re.compile(r"[^\r\n]*").match
        self._scheme = re.compile(
            r"(?:(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+)?", re.IGNORECASE
        ).match
        # Before a name that begins its line: `  - name`, `export NAME`.
        self._margin = re.compile(r"([ \t]*(?:-[ \t]+)?)(?:export[ \t]+|set[ \t]+)?[\w.\-]+[ \t]*\Z").match
        self._block = re.compile(r"(?:[|>][+\-0-9]{0,2})?[ \t]*(?:#[^\r\n]*)?\r?\n").match
        self._block_line = re.compile(r"([ \t]*)([^\r\n]*)(?:\r?\n|\r|\Z)").match
        self._inside = {
            '"': re.compile(r"(?:[^\"\\]|\\.)*+", re.DOTALL).match,
            "'": re.compile(r"(?:[^'\\]|\\.)*+", re.DOTALL).match,
        }
        # The closing quote may be missing: a quote that nothing closes is looked at once.
        whole = r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?"
        self._brackets = re.compile(whole + r"|[\[\]{}()]", re.DOTALL).finditer

    def after(self, text: str, name: str, sign: re.Match[str], *, quoted: bool) -> Span:
        """Where the value of `name` after the sign begins and ends, without its quotes."""
        encoded = len(sign[0]) > 1
        if self._smiley(text, sign.start()) and not quoted:
            return sign.end(), sign.end()
        gap = self._encoded_gap if encoded else self._wide_gap if quoted else self._gap
        start = _end(gap(text, sign.end()))
        if opening := self._opening(text, start):
            return opening.end(), self._closing(text, opening.end(), opening[1])
        # What was redacted for its looks may be the beginning of a longer value.
        rest = start + len(REDACTED) if text.startswith(REDACTED, start) else start
        if rest > start and self._behind(text, rest):
            return start, start
        if text[rest : rest + 1] in ("{", "["):
            return start, self._closing_bracket(text, rest)
        # After a quoted name, as in JSON, a comma or a bracket ends a number.
        bare = _until(sign[0]) if encoded else self._item if quoted else self._bare
        if self._round(text, rest):
            return start, self._parenthesis(text, rest) or _end(bare(text, rest))
        if name.lower().endswith(_WHOLE_LINE):
            return start, _end(self._line(text, rest))
        if not encoded and not quoted and (span := self._of_a_line(text, name, sign, start)):
            return span
        if self._harmless(text, start):
            return start, start
        end = _end(bare(text, _end(self._scheme(text, rest))))
        if not encoded and (call := self._call(text, rest)):
            closed = self._parenthesis(text, call.end() - 1)
            if closed is not None and closed > end:
                end = closed if text[closed : closed + 1] in _GOES_ON else _end(bare(text, closed))
        return start, end

    def at(self, text: str, start: int) -> Span:
        """The value that begins right at `start`, quoted or not."""
        if opening := self._opening(text, start):
            return opening.end(), self._closing(text, opening.end(), opening[1])
        return start, _end(self._bare(text, start))

    def _of_a_line(self, text: str, name: str, sign: re.Match[str], start: int) -> Span | None:
        """The value of a name that begins its line: a block of lines below it, or, of a variable of the
        environment, the line. None where it is neither.
        """
        at = sign.start()
        if sign[0] == "=" and not name.isupper():
            return None
        # Whether it begins its line is asked first: the rest of a line with many names is long for each.
        begin = max(text.rfind("\n", max(0, at - _MAX_INDENT), at) + 1, at - _MAX_INDENT, 0)
        margin = self._margin(text[begin:at])
        if margin is None:
            return None
        if sign[0] == "=":
            return start, _end(self._line(text, start))
        block = self._block(text, start)
        return self._below(text, block.end(), len(margin[1])) if block else None

    def _below(self, text: str, at: int, indent: int) -> Span | None:
        """The lines from `at` that are further in than `indent`."""
        start = end = -1
        while at < len(text):
            line = self._block_line(text, at)
            assert line is not None
            if line[2]:
                if len(line[1]) <= indent:
                    break
                start = line.start(2) if start < 0 else start
                end = line.end(2)
            at = line.end()
        return (start, end) if start >= 0 else None

    def _closing(self, text: str, at: int, opening: str) -> int:
        """Where the quote ends that began just before `at`; the end of the text where it does not."""
        if len(opening) == 1:
            return _end(self._inside[opening](text, at))
        end = text.find(opening, at)
        while end > at and opening[0] == "\\" and text[end - 1] == "\\":
            end = text.find(opening, end + len(opening))
        return len(text) if end < 0 else end

    def _parenthesis(self, text: str, at: int) -> int | None:
        """Where the round bracket at `at` is closed; None where it is not, and nothing quoted follows that
        was cut off with it.
        """
        end = self._closed(text, at, _MAX_NESTING)
        return len(text) if end is None and self._quotes(text, at) else end

    def _closing_bracket(self, text: str, at: int) -> int:
        """Where the bracket at `at` is closed; the end of the text where it is not."""
        end = self._closed(text, at, len(text))
        return len(text) if end is None else end

    def _closed(self, text: str, at: int, most: int) -> int | None:
        """Where the bracket at `at` is closed; None where it is not, or has more than `most` open in it."""
        depth = 0
        for sign in self._brackets(text, at):
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
