"""Bodies of requests and responses, as they pass: counted whole, kept up to a limit, read only when asked.

`BodyTap.feed` runs in the request and does no more than keep bytes. `BodyTap.value` decodes, parses and
redacts; it belongs on the exporter thread. JSON that was cut is completed first, so that the values of
secret names are found in it as in a whole one; what cannot be read with certainty is not kept.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .._redaction.redact import Redactor

FORM: Final = "application/x-www-form-urlencoded"
EVENT_STREAM: Final = "text/event-stream"

_TEXTS: Final = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/sql",
        "application/toml",
        "application/xml",
        "application/yaml",
        "application/x-yaml",
    }
)
_JSON_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:\-]+)", re.IGNORECASE)

# Codecs that take time linear in their input; Python has others, which are no charset of the web.
_CHARSETS: Final = (
    "ascii", "big5", "cp", "euc", "gb", "iso-8859", "koi8", "latin", "shift", "us-ascii", "utf-", "utf8",
    "windows-",
)  # fmt: skip

# Strings, whole or cut; brackets, commas and colons; runs of anything else. Linear.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+("?)|[\[\]{},:]|\s+|[^"\[\]{},:\s]+', re.DOTALL)


class BodyTap:
    """One body on its way. `content_type` and `encoding` are its headers' values, `limit` is bytes kept.

    `streamed` says that the body is not to be kept, whatever its type. `redactor` goes before the one that
    `value` is given, where a middleware has names of its own to hide.
    """

    __slots__ = ("_encoding", "_full_type", "_kept", "_limit", "_omitted", "_redactor", "size", "type")

    def __init__(
        self,
        content_type: str | None,
        limit: int,
        *,
        encoding: str | None = None,
        streamed: bool = False,
        redactor: Redactor | None = None,
    ) -> None:
        self._redactor = redactor
        self._full_type = content_type or ""
        self.type = self._full_type.partition(";")[0].strip().lower()
        self._encoding = (encoding or "").strip().lower()
        self._limit = limit
        self._omitted = self._why_omitted(streamed=streamed)
        self._kept = bytearray()
        self.size = 0
        """Bytes of the whole body so far."""

    def _why_omitted(self, *, streamed: bool) -> str | None:
        if streamed or self.type == EVENT_STREAM:
            return "streamed"
        if self.type.startswith("multipart/"):
            return "multipart"
        if self._encoding not in ("", "identity"):
            return "encoded"
        known = self._is_json or self._is_text or self.type in _JSON_LINES or self.type in (FORM, "")
        return None if known else "binary"

    @property
    def _is_json(self) -> bool:
        return self.type in ("application/json", "text/json") or self.type.endswith("+json")

    @property
    def _is_text(self) -> bool:
        return self.type.startswith("text/") or self.type in _TEXTS or self.type.endswith("+xml")

    @property
    def kept(self) -> int:
        """Bytes held."""
        return len(self._kept)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what passes; microseconds, and nothing beyond the limit is held."""
        length = data.nbytes if isinstance(data, memoryview) else len(data)
        self.size += length
        room = self._limit - len(self._kept)
        if self._omitted is None and room > 0:
            self._kept += data if length <= room else bytes(data)[:room]

    def value(self, redactor: Redactor) -> dict[str, Any] | None:
        """The body for an event's metadata, redacted; None where there was none.

        `{"type": "application/json", "bytes": 37, "content": {...}}`: `content` is the parsed JSON (a list
        for JSON lines), the text, or the form as text. `"cut": True` where only its beginning is there.
        Without `content`, `omitted` says why: `binary`, `multipart`, `encoded` (compressed), `streamed`,
        or `unreadable`: no text in its charset, or no JSON although its type says so.
        """
        if not self.size:
            return None
        found: dict[str, Any] = {"type": self.type, "bytes": self.size}
        if self._omitted is not None:
            found["omitted"] = self._omitted
            return found
        cut = self.size > len(self._kept)
        try:
            found["content"] = self._content(self._redactor or redactor, cut=cut)
        except (ValueError, LookupError, RecursionError):
            found["omitted"] = "unreadable"
            return found
        if cut:
            found["cut"] = True
        return found

    def _content(self, redactor: Redactor, *, cut: bool) -> Any:
        text = self._text(cut=cut)
        if self._is_json:
            return redactor.value(_parsed(text, cut=cut))
        if self.type in _JSON_LINES:
            return redactor.value(_parsed_lines(text, cut=cut))
        if self.type == FORM:
            return redactor.form(text)
        if text.lstrip()[:1] in ("{", "["):  # JSON without its name; its secrets are found as in any other
            with suppress(ValueError):
                return redactor.value(_parsed(text, cut=cut))
        return redactor.text(text)

    def _text(self, *, cut: bool) -> str:
        """The bytes as text; ValueError or LookupError where they are none."""
        named = _CHARSET.search(self._full_type)
        charset = named.group(1).lower() if named else "utf-8"
        if not charset.startswith(_CHARSETS):
            raise LookupError(charset)
        # A cut may fall inside a character; and what calls itself text may hold a wrong byte.
        errors = "ignore" if cut else "replace" if self._is_text else "strict"
        text = self._kept.decode(charset, errors)
        if "\0" in text and not self._is_text:
            raise ValueError("binary")
        return text.removeprefix("\ufeff")


def _parsed(text: str, *, cut: bool) -> Any:
    """JSON as Python values; ValueError where it is none."""
    return json.loads(completed(text) if cut else text)


def _parsed_lines(text: str, *, cut: bool) -> list[Any]:
    lines = [line for line in text.splitlines() if line.strip()]
    last = len(lines) - 1 if cut else len(lines)
    return [_parsed(line, cut=number == last) for number, line in enumerate(lines)]


def completed(text: str) -> str:
    """The beginning of a JSON text as whole JSON: open strings and brackets closed, a half entry left out.

    `{"a": "xy` becomes `{"a": "xy"}`, and `[1, {"b": tr` becomes `[1, {}]`. What was no JSON before stays
    none, for the parser to refuse. One pass.
    """
    closers: list[str] = []
    sound = 0  # up to here the text needs closing brackets only
    expects_key = False
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "{[":
            closers.append("}" if first == "{" else "]")
            expects_key = first == "{"
            sound = token.end()
        elif first in "}]":
            if closers:
                closers.pop()
            expects_key = False
            sound = token.end()
        elif first == ",":
            sound = token.start()
            expects_key = bool(closers) and closers[-1] == "}"
        elif first == ":":
            expects_key = False
        elif first == '"' and not expects_key:
            if not token.group(1):
                return text[:sound] + _closed_string(text[sound:]) + "".join(reversed(closers))
            sound = token.end()
        elif not first.isspace() and not expects_key and token.end() < len(text):
            sound = token.end()
    return text[:sound] + "".join(reversed(closers))


_HALF_ESCAPE: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")


def _closed_string(text: str) -> str:
    """Text that ends inside a string, with that string closed; half an escape at its end is left out."""
    return _HALF_ESCAPE.sub(r"\1", text) + '"'
