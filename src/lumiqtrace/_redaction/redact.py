"""Secrets out of what leaves: by the names of fields, at any depth and in any notation, and by their looks.

Names are compared without case, underscores and dashes, so `api_key`, `apiKey` and `API-KEY` are one. Time
grows in proportion to the length of what is read.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, unquote_plus

from .._encode import items_of, pairs_of, text_of
from .pairs import NAMING, VALUED, Pairs
from .secrets import REDACTED, is_card, redact_text

__all__ = ["BUILT_IN", "REDACTED", "Redactor", "redact_text"]

BUILT_IN: Final = (
    *("password", "token", "api_key", "secret", "apikey", "auth", "authorization", "access_token"),
    *("refresh_token", "private_key", "credential", "ssn", "social_security", "credit_card", "card_number"),
    *("cvv", "passwd", "pwd", "passphrase", "passwords", "secrets", "credentials", "secret_key"),
    *("secret_access_key", "cookie", "set_cookie"),
)
"""The names that are redacted without being told; also at the end of a longer name, as in `new_password`."""

HEADERS: Final = frozenset({"authorization", "proxyauthorization", "cookie", "setcookie", "xapikey"})

MAX_DEPTH: Final = 100
"""Levels that are looked into; what is deeper does not leave."""
MAX_NAME: Final = 256
"""Characters of a name that are compared, from its end."""
MAX_SHORT_NAME: Final = 32
"""Characters of a name that is remembered; keys and tokens are longer."""

_ARGUMENT: Final = r"[\w.\-\[\]]{1,64}"
"""What can be the name of the item after it: no white space."""
_NUMBER: Final = "0123456789_-.[]"
"""What may follow a name: `password2`, `token[0]`."""
_TELLING: Final = frozenset({"loc"}) | NAMING
_TEXTS: Final = frozenset({str, bytes})

# `apiKey`, `APIKey`
_HUMP: Final = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
_JSON_ENDS: Final = frozenset({"{}", "[]", '""'})


def _joined(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


class Redactor:
    """Replaces by `[REDACTED]` what must not leave.

    `fields` are names to redact besides the built-in ones, or with `replace` instead of them: whole names,
    or the last part of `customer.iban` and `customer[iban]`. Built-in names count at the end of a longer one
    too. `secrets` says whether values that look like a secret are redacted under any name. Nothing is changed
    in place.
    """

    def __init__(self, fields: Iterable[str] = (), *, replace: bool = False, secrets: bool = True) -> None:
        built_in = () if replace else BUILT_IN
        self._endings = frozenset(map(_joined, built_in))
        self._names = frozenset(map(_joined, fields))
        self._secrets = secrets
        # Names are few and come again.
        self._is_known = functools.lru_cache(4096)(self._is_sensitive)
        self._short_name = functools.lru_cache(4096)(self.text)
        self._pairs = Pairs(self.is_sensitive)

    def is_sensitive(self, name: str) -> bool:
        """Whether the value under this name is redacted."""
        return self._is_known(name[-MAX_NAME:])

    def value(self, value: Any) -> Any:
        """A copy of dicts, lists and texts without secrets. What JSON has no word for becomes text."""
        try:
            return self._value(value, MAX_DEPTH, {})
        except RecursionError:  # a caller that is deep itself
            return REDACTED

    def looked_at(self, text: str) -> str:
        """`text` without values that look like secrets, whatever names stand before them."""
        return redact_text(text) if self._secrets else text

    def text(self, text: str) -> str:
        """`text` without secrets: in JSON, in `name=value` and `name: value`, and by their looks."""
        if len(text) < 4:
            return text
        text = self._pairs.redact(self._json(text))
        return redact_text(text) if self._secrets else text

    def headers(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> dict[str, str]:
        """Headers as a dict, names in lower case, repeated ones joined by a comma; names and values may
        be bytes, as in ASGI. Those that carry credentials are always redacted.
        """
        pairs = items.items() if isinstance(items, Mapping) else items
        found: dict[str, str] = {}
        for name, value in pairs:
            key, shown = _decoded(name).lower(), _decoded(value)
            hidden = _joined(key) in HEADERS or self.is_sensitive(key)
            shown = REDACTED if hidden else self.text(shown)
            found[key] = f"{found[key]}, {shown}" if key in found and not hidden else shown
        return found

    def query(self, query: str) -> str:
        """A query string, with or without its question mark; what is harmless stays as it was written."""
        mark = "?" if query.startswith("?") else ""
        return mark + self.form(query[len(mark) :])

    def form(self, form: str) -> str:
        """A form as `application/x-www-form-urlencoded` writes it; many clients send JSON under that name."""
        if form.lstrip()[:1] in ("{", "[", '"'):
            return self.text(form)
        return "&".join(map(self._field, form.split("&")))

    def _field(self, field: str) -> str:
        name, equals, value = field.partition("=")
        if equals and value and self.is_sensitive(unquote_plus(name)):
            return f"{name}={REDACTED}"
        return "=".join(self._unquoted(part) for part in (name, value)[: 1 + bool(equals)])

    def _unquoted(self, part: str) -> str:
        plain = unquote_plus(part)
        found = self.text(plain)
        return part if found == plain else quote_plus(found, safe="[]")

    def _is_sensitive(self, name: str) -> bool:
        # The last part of `customer.iban` and `user[iban]` is the field; so is the first of `password[0]`.
        if _joined(name) in self._names or any(map(self._names.__contains__, _last_part(name))):
            return True
        if "[" in name and self.is_sensitive(name.partition("[")[0]):
            return True
        bare = name.rstrip(_NUMBER)
        numbered = bare != name and not bare.lower().endswith("auth")  # Auth0 is a company
        return self._ends_as_one(name) or (numbered and self._ends_as_one(bare))

    def _ends_as_one(self, name: str) -> bool:
        """Whether the last words of the name are a built-in one."""
        words = [word.lower() for part in re.findall(r"[^\W_]+", name) for word in re.split(_HUMP, part)]
        endings = ("".join(words[first:]) for first in range(len(words)))
        return any(ending in self._endings for ending in endings)

    def _value(self, value: Any, depth: int, done: dict[int, Any]) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return REDACTED if self._secrets and 0 < value < 10**19 and is_card(str(value)) else value
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return self.text(text_of(value))
        if depth <= 0:
            return REDACTED
        if id(value) not in done:
            done[id(value)] = "…"  # what holds itself
            if isinstance(value, dict):
                done[id(value)] = self._mapping(value, depth - 1, done)
            elif isinstance(value, list | tuple):
                done[id(value)] = self._items(items_of(value), depth - 1, done)
            else:
                done[id(value)] = [self._value(item, depth - 1, done) for item in items_of(value)]
        return done[id(value)]

    def _mapping(self, value: dict[Any, Any], depth: int, done: dict[int, Any]) -> dict[str, Any]:
        items = [(text_of(key), item) for key, item in pairs_of(value)]
        told = {name.lower(): item for name, item in items if name.lower() in _TELLING}
        # pydantic, and so FastAPI's answer 422, says in `loc` which field was wrong and quotes its `input`.
        where = told.get("loc")
        wrong = where if isinstance(where, list | tuple) else ()
        hidden = {"input"} if any(type(name) is str and self.is_sensitive(name) for name in wrong) else set()
        # HAR, Postman and many others: `{"name": "authorization", "value": "..."}`
        if any(self._names_an_item(told.get(key)) for key in NAMING):
            hidden |= VALUED
        return {
            self._name(name): self._named(name, item, depth, done, hidden=name.lower() in hidden)
            for name, item in items
        }

    def _items(self, items: list[Any], depth: int, done: dict[int, Any]) -> list[Any]:
        """The items of a list; a name may be one of them, and its value the next, as in lists of headers."""
        found: list[Any] = []
        pairs = len(items) == 2 or (len(items) % 2 == 0 and all(type(item) in _TEXTS for item in items))
        hidden = False
        for place, item in enumerate(items):
            found.append(self._named("", item, depth, done, hidden=hidden))
            option = type(item) is str and item[:2] == "--"
            hidden = ((pairs and place % 2 == 0) or option) and self._names_an_item(item)
        return found

    def _names_an_item(self, item: Any) -> bool:
        name = item.decode("latin-1") if type(item) is bytes else item
        return type(name) is str and bool(re.fullmatch(_ARGUMENT, name)) and self.is_sensitive(name)

    def _name(self, name: str) -> str:
        return self._short_name(name) if len(name) <= MAX_SHORT_NAME else self.text(name)

    def _named(self, name: str, value: Any, depth: int, done: dict[int, Any], *, hidden: bool) -> Any:
        # Neither of these is anyone's secret; `time_to_first_token` is a number of seconds.
        harmless = value is None or type(value) is bool or type(value) is float
        if not harmless and (hidden or self.is_sensitive(name)):
            return REDACTED
        return self._value(value, depth, done)

    def _json(self, text: str) -> str:
        """JSON text without what its names say; the text as it was where that is nothing, or it is none."""
        bare = text.strip()
        if bare[:1] + bare[-1:] not in _JSON_ENDS:
            return text
        try:
            document = json.loads(bare)
        except (ValueError, RecursionError):
            return text
        found = self.value(document)
        return text if found == document else json.dumps(found, ensure_ascii=False)


def _last_part(name: str) -> list[str]:
    return [_joined(part) for part in re.findall(r"[\w\-]+", name)[-1:]]


def _decoded(text: object) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text_of(text)
