"""`name=value` and `name: value` in any text: messages, queries, broken JSON, what `repr` shows of a dict.
And `<name>value</name>`, as in XML.

It looks at every `=` and `:`, reads the name before it, and where that is sensitive replaces the value after
it: a quoted text, a whole bracket, or what stands up to the next space. What is never closed goes to the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ._secrets import REDACTED

MAX_NAME: Final = 64
"""Characters before the sign in which the name is looked for."""

_WHOLE_LINE: Final = ("authorization", "cookie")
"""The names whose values have spaces."""


class Pairs:
    """Redacts the values of the names for which `is_sensitive` is true. Making one compiles its patterns."""

    def __init__(self, is_sensitive: Callable[[str], bool]) -> None:
        self._is_sensitive = is_sensitive
        self._signs = re.compile(r"[:=]").finditer
        self._name = re.compile(r"(?<![\w.\-])[\w.\-]+\Z").search
        self._gap = re.compile(r"[=>]?[ \t]*").match
        self._opening = re.compile(r"[bBrRuUfF]{0,2}(\\*)([\"'])").match
        self._bare = re.compile(r"[^\s&\"'<>]*").match
        self._item = re.compile(r"[^\s,}\]\"'<>]*").match
        self._harmless = re.compile(
            r"(?:null|none|true|false|-?[0-9]+\.[0-9]+)(?=[\s,;&)\]}\"'<>]|\Z)", re.IGNORECASE
        ).match
        self._line = re.compile(r"[^\r\n]*").match
        self._scheme = re.compile(
            r"(?:(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+)?", re.IGNORECASE
        ).match
        self._inside = {
            '"': re.compile(r"(?:[^\"\\]|\\.)*+", re.DOTALL).match,
            "'": re.compile(r"(?:[^'\\]|\\.)*+", re.DOTALL).match,
        }
        # The closing quote may be missing: a quote that nothing closes is looked at once.
        whole = r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?"
        self._brackets = re.compile(whole + r"|[\[\]{}()]", re.DOTALL).finditer

        content = r"(?:<!\[CDATA\[[\s\S]*?(?:\]\]>|\Z)|[^<]+)"
        self._elements = re.compile(r"(<(?:[\w\-]+:)?([\w.\-]+)(?:\s[^<>]*)?>)" + content).sub

    def redact(self, text: str) -> str:
        """`text` with `[REDACTED]` where the values were."""
        return self._signed(self._elements(self._element, text) if "</" in text else text)

    def _element(self, match: re.Match[str]) -> str:
        return match[1] + REDACTED if self._is_sensitive(match[2]) else match[0]

    def _signed(self, text: str) -> str:
        kept: list[str] = []
        done = 0
        for sign in self._signs(text):
            at = sign.start()
            if at < done:
                continue
            name = self._name(text[max(done, at - MAX_NAME) : at].rstrip(" \t\"'\\[]"))
            if name is None or not self._is_sensitive(name[0]):
                continue
            start, end = self._value(text, name[0], at + 1)
            if end > start and text[start:end] != REDACTED:
                kept += text[done:start], REDACTED
                done = end
        return "".join([*kept, text[done:]]) if kept else text

    def _value(self, text: str, name: str, at: int) -> tuple[int, int]:
        """Where the value after the sign begins and ends, without its quotes."""
        start = _end(self._gap(text, at))
        if opening := self._opening(text, start):
            return opening.end(), self._closing(text, opening.end(), opening[1], opening[2])
        # What was redacted for its looks may be the beginning of a longer value.
        rest = start + len(REDACTED) if text.startswith(REDACTED, start) else start
        if text[rest : rest + 1] in ("{", "[", "("):
            return start, self._closing_bracket(text, rest)
        if name.lower().endswith(_WHOLE_LINE):
            return start, _end(self._line(text, rest))
        if self._harmless(text, start):
            return start, start
        # After a quoted name, as in JSON, a comma or a bracket ends a number.
        bare = self._item if text[at - 2 : at - 1] in ('"', "'") else self._bare
        return start, _end(bare(text, _end(self._scheme(text, rest))))

    def _closing(self, text: str, at: int, escape: str, quote: str) -> int:
        """Where the quote ends that began just before `at`; the end of the text where it does not."""
        if not escape:
            return _end(self._inside[quote](text, at))
        sign = escape + quote
        end = text.find(sign, at)
        while end > at and text[end - 1] == "\\":
            end = text.find(sign, end + len(sign))
        return len(text) if end < 0 else end

    def _closing_bracket(self, text: str, at: int) -> int:
        """Where the bracket at `at` is closed; the end of the text where it is not."""
        depth = 0
        for sign in self._brackets(text, at):
            if sign[0] in "([{":
                depth += 1
            elif sign[0] in ")]}":
                depth -= 1
                if depth == 0:
                    return sign.end()
        return len(text)


def _end(match: re.Match[str] | None) -> int:
    """The end of a match of a pattern that matches also where nothing is."""
    assert match is not None
    return match.end()
