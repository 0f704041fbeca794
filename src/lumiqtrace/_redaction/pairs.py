"""`name=value` and `name: value` in any text: messages, queries, broken JSON, what `repr` shows of a dict.

And what says the same in other ways: percent-encoded, as `<name>value</name>`, as two items of a list, as
`"name": "authorization", "value": "..."`, as `--name value`, as a block of lines under a YAML key. It looks
at every sign, reads the name before it, and where that is sensitive replaces the value after it: a quoted
text, a whole bracket, or what stands up to the next space. What is never closed goes to the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .notations import QUOTE, plain, value_after, value_at
from .patterns import lazy
from .secrets import REDACTED

MAX_NAME: Final = 64
"""Characters before the sign in which the name is looked for."""
MAX_BETWEEN: Final = 256
"""Characters that may stand between a name that is itself a value, and what it names."""
MAX_VALUE: Final = 512
"""Characters of a value that may stand before its name."""

NAMING: Final = frozenset({"name", "key", "header", "field", "param", "parameter", "variable", "property"})
"""What a name is called where it is a value itself, as in HAR, Postman and HTML."""
VALUED: Final = frozenset({"value", "values", "val"})
"""What its value is called there."""

_AROUND: Final = " \t\"'\\[]*`"
_JUDGED: Final = "input_value"
"""What pydantic calls the value that it refuses; the field stands in the line above."""

Span = tuple[int, int]

# One sign in all its spellings. The first letter is what the search goes by.
_SIGN: Final = lazy(r"[:=%\\](?:(?<=[:=])|(?<=%)(?:25){0,4}3[AaDd]|(?<=\\)u003[AaDd])")
_NAME: Final = lazy(r"[\w.\-]+")
_WORDS: Final = lazy(r"[\w\-]+(?:[ \t]{1,2}[\w\-]+){1,2}")
_TOLD: Final = lazy(rf"[=>]?(?:\s|\\[nrt]){{0,64}}(?:[bBuU]?({QUOTE}))?([\w.\-\[\]]{{1,64}})(?![\w.\-])")
_VALUE_BEFORE: Final = lazy(
    rf"\bval(?:ues?)?(?:{QUOTE})?\s{{0,8}}[:=]\s{{0,8}}"
    rf"(?:({QUOTE})((?:(?!\1)[^{{}}<>]){{1,{MAX_VALUE}}})\1|([^\s,\"'{{}}<>]+))\s*,?\s*(?:{QUOTE})?\w+(?:{QUOTE})?\s*\Z",
    re.IGNORECASE,
)
_ITEM: Final = lazy(
    r"[\[(]\s{0,64}[bBuU]?(\\{0,8}[\"'])([\w.\-\[\]]{1,64})\1\s{0,64},\s{0,64}(?=[bBuU]?\\{0,8}[\"'])"
)
_ITEM_END: Final = lazy(r"(?:\\{0,8}[\"'])?\s{0,64}(?:[\])]|\Z)")
# Words that go on after an option, where a sentence speaks of it.
_OPTION: Final = lazy(
    r"(?<![\w\-])--([A-Za-z][\w\-]{1,62})(?:[\"'],\s{0,8}|[ \t]{1,8})"
    r"(?![\s\-]|(?:is|are|was|or|and|to|must|option|flag|can|cannot|could|not|in|with|for|has|requires|"
    r"required|argument|given|instead|if|as|on|from|the|a|an|may|should|will|needs)\b)"
)
_JUDGED_FIELD: Final = lazy(
    r"(?:\A|\n)([\w.\[\]\-]{1,128})\r?\n[ \t]{1,8}[^\n]{0,200}\[type=\w{1,64}, input_value\Z"
)
_NEW_LINE: Final = r"(?:\r?\n|\\r\\n)"
"""The second as `repr` shows it."""
_PART: Final = lazy(
    rf"[\"']?(?:;[^\r\n\\]{{0,256}})?(?:{_NEW_LINE}[\w\-]{{1,64}}:[^\r\n\\]{{0,256}}){{0,8}}{_NEW_LINE}{{2}}"
    rf"([\s\S]+?)(?={_NEW_LINE}--|\Z)"
)
_ELEMENT: Final = lazy(r"(<(?:[\w\-]+:)?([\w.\-]+)(?:\s[^<>]*)?>)(?:<!\[CDATA\[[\s\S]*?(?:\]\]>|\Z)|[^<]+)")


class Pairs:
    """Redacts the values of the names for which `is_sensitive` is true."""

    __slots__ = ("_is_sensitive",)

    def __init__(self, is_sensitive: Callable[[str], bool]) -> None:
        self._is_sensitive = is_sensitive

    def redact(self, text: str) -> str:
        """`text` with `[REDACTED]` where the values were."""
        # Each pass only where it can find something, for most texts have nothing of the kind.
        if "</" in text:
            text = _ELEMENT.sub(self._element, text)
        if ":" in text or "=" in text or "%" in text or "\\" in text:
            text = _without(text, self._signed(text))
        if "--" in text:
            text = _without(text, self._given(text))
        if "," in text and ("[" in text or "(" in text):
            text = _without(text, self._listed(text))
        return text

    def _element(self, match: re.Match[str]) -> str:
        return match[1] + REDACTED if self._is_sensitive(match[2]) else match[0]

    # ---- at a sign -----------------------------------------------------------------------------------

    def _signed(self, text: str) -> list[Span]:
        found: list[Span] = []
        done = 0
        named = -1  # where a sensitive name ends that was itself a value
        for sign in _SIGN.finditer(text):
            at = sign.start()
            if at < done:
                continue
            name, quoted = self._name_in(plain(text[max(done, at - MAX_NAME) : at]))
            if name is None:
                continue
            called = name.lower()
            if called in NAMING:
                told = _TOLD.match(text, sign.end())
                if told is not None and self._is_sensitive(told[2]):
                    named = told.end()
                    found += self._said_before(text, done, at)
                    if part := self._part_of_form(text, at, named):
                        found.append(part)
                        done = part[1]
                        continue
            hidden = self._is_sensitive(name) or (called == _JUDGED and self._was_judged(text, done, at))
            if hidden or (called in VALUED and _are_near(text, named, at)):
                start, end = value_after(text, name, sign, quoted=quoted)
                if end > start:
                    found.append((start, end))
                    done = end
        return found

    def _name_in(self, window: str) -> tuple[str | None, bool]:
        """The name at the end of the text before a sign, and whether it stands in quotes.

        Of `user[password]` and `password[0]` the part that is sensitive.
        """
        bare = window.rstrip()
        quoted = bare.endswith(('"', "'"))
        if not quoted and "\n" in window[len(bare) :]:
            return None, False
        first: str | None = None
        while True:
            before = bare.rstrip(_AROUND)
            match = _NAME.match(before[::-1])  # read from its end: the beginning would have to be looked for
            name = match[0][::-1] if match else None
            # `\npassword`, as `repr` writes the beginning of a line
            if name is not None and name[0] in "nrt" and before[: -len(name)].endswith("\\"):
                name = name[1:] or None
            first = first or name
            if name is not None and self._is_sensitive(name):
                return name, quoted
            opened = bare.rfind("[") if bare.endswith("]") else -1
            if opened < 1 or bare[opened - 1].isspace():
                return self._of_words(window) or first, quoted
            bare = bare[:opened]

    def _of_words(self, window: str) -> str | None:
        """A sensitive name of two words or three, as people write it: `API key`."""
        match = _WORDS.match(window.rstrip().rstrip(_AROUND)[::-1])
        if match is None:
            return None
        words = match[0][::-1].split()
        names = ["_".join(words[-2:]), "_".join(words)]
        # `\nAPI key`, as `repr` writes the beginning of a line
        names += [name[1:] for name in names if name[0] in "nrt"]
        return next(filter(self._is_sensitive, names), None)

    def _said_before(self, text: str, done: int, at: int) -> list[Span]:
        """The value that stands before its name: `"value": "...", "name": "authorization"`."""
        begin = max(done, at - MAX_VALUE)
        match = _VALUE_BEFORE.search(text[begin:at])
        if match is None:
            return []
        start, end = match.span(2 if match[1] else 3)
        return [(begin + start, begin + end)]

    def _part_of_form(self, text: str, at: int, named: int) -> Span | None:
        """The value in a multipart form, below the line that names it."""
        if "form-data" not in text[max(0, at - MAX_NAME) : at]:
            return None
        part = _PART.match(text, named)
        return part.span(1) if part else None

    def _was_judged(self, text: str, done: int, at: int) -> bool:
        field = _JUDGED_FIELD.search(text[max(done, at - 2 * MAX_BETWEEN) : at])
        return field is not None and self._is_sensitive(field[1])

    # ---- without a sign ------------------------------------------------------------------------------

    def _listed(self, text: str) -> list[Span]:
        """`["authorization", "Basic ..."]` and its like in other languages."""
        found: list[Span] = []
        done = 0
        for match in _ITEM.finditer(text):
            if match.end() >= done and self._is_sensitive(match[2]):
                span = value_at(text, match.end())
                done = span[1]
                if _ITEM_END.match(text, done):
                    found.append(span)
        return found

    def _given(self, text: str) -> list[Span]:
        """`--password hunter2`, in one line or as a list of arguments."""
        found: list[Span] = []
        done = 0
        for match in _OPTION.finditer(text):
            if match.end() >= done and self._is_sensitive(match[1]):
                found.append(value_at(text, match.end()))
                done = found[-1][1]
        return found


def _are_near(text: str, end: int, at: int) -> bool:
    """Whether what ended at `end` and the sign at `at` can be of one object."""
    return 0 <= end <= at <= end + MAX_BETWEEN and not any(sign in text[end:at] for sign in "{}<>")


def _without(text: str, spans: list[Span]) -> str:
    """`text` with `[REDACTED]` in the place of each span."""
    if not spans:
        return text
    kept: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done and end > start:
            kept += text[done:start], REDACTED
            done = end
    return "".join([*kept, text[done:]])
