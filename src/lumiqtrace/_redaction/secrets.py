"""Values that look like secrets, whatever their name: provider keys, tokens, private keys, card numbers.

Every pattern is linear: each is tried only where its first letters stand, at the beginning of a word, and
none can backtrack further than that word.
"""

from __future__ import annotations

import re
from typing import Final

from .patterns import lazy

REDACTED: Final = "[REDACTED]"

# The beginning of a word; also after `%3D`, and after `\n` as `repr` writes it.
_START: Final = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"

# What must stand in a text for the pattern to be tried at all, and the pattern. Providers shorten a key
# they quote with asterisks, which is why these are part of a key here.
_KINDS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    # OpenAI, Anthropic and those who copied the shape; Stripe
    # OpenRouter and services of OpenAI among them; any other has a digit or a capital soon, as no word has
    (
        ("sk-", "pk-", "rk-"),
        _START
        + r"[spr]k-(?:(?:proj|ant|svcacct|admin|or|lf)-|(?=[a-z_\-]{0,64}+[0-9A-Z*]))[A-Za-z0-9_*\-]{6,}+",
    ),
    (("sk_", "pk_", "rk_"), _START + r"[spr]k_(?:live|test)_[A-Za-z0-9*]{8,}+"),
    (("lqt_", "lqr_"), _START + r"lq[tr]_[A-Za-z0-9_*]{4,}+"),  # ours
    (("AIza",), _START + r"AIza[A-Za-z0-9_*\-]{10,}+"),  # Google
    (("ya29.",), _START + r"ya29\.[A-Za-z0-9_\-]{10,}+"),
    # Groq, xAI, Hugging Face, Perplexity, Fireworks
    # with a digit soon, or as long as no word is
    (
        ("gsk", "xai", "hf", "pplx", "fw"),
        _START + r"(?:gsk|xai|hf|pplx|fw)[_-](?:(?=[A-Za-z]{0,64}+[0-9*])[A-Za-z0-9*]{16,}+|[A-Za-z]{30,}+)",
    ),
    (
        ("AKIA", "ASIA", "ABIA", "ACCA", "AROA", "AIDA"),  # AWS
        _START + r"(?:A(?:KIA|SIA|BIA|CCA|ROA|IDA))[A-Z0-9]{16}(?![A-Za-z0-9])",
    ),
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
        _START + r"(?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_\-]{16,}+",
    ),
    (("xox", "xapp-"), _START + r"(?:xox[a-z]|xapp)(?:-[A-Za-z0-9]+){2,}+"),  # Slack
    (
        ("eyJ",),
        r"(?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}+(?:\.[A-Za-z0-9_\-]*+){1,3}+",
    ),  # a JWT
    # what follows an Authorization scheme: with a digit or a capital within, or as long as no word is
    (
        ("earer ", "EARER "),
        (
            r"(?<=[Bb]earer\ |BEARER\ )"
            r"(?:(?=[A-Za-z._~+/=\-]{0,200}+[0-9]|[A-Z]{0,9}+[a-z._~+/=\-]{1,200}+[A-Z])[A-Za-z0-9._~+/=\-]{8,}+"
            r"|[A-Za-z0-9._~+/=\-]{24,}+)"
        ),
    ),
    (
        ("PRIVATE KEY",),
        # cut off, it goes to the end
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z ]{0,8}-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,50}-----|\Z)",
    ),
    # user:password@ in an address; a password may hold anything but white space, and begins like no port
    (
        ("://",),
        (
            r"(?<=://)(?:[^\s/?#@:\"'<>]*+:(?![0-9]{1,5}[?#])[^\s/\"'<>]*|[^\s/?#@\"'<>]++"
            r"|[^\s/?#@:\"'<>]*+:(?![0-9]{0,5}[/?#])[^\s@\"'<>]{1,256}+)(?=@)"
        ),
    ),
    (("%3A%2F%2F", "%3a%2f%2f"), r"(?<=%3[Aa]%2[Ff]%2[Ff])(?:[^\s/?#@%\"'<>&]|%(?!40|2[Ff]))++(?=%40)"),
    # The same, cut off before the @. What may be a port stays.
    (("://",), r"(?<=://)[^\s/?#@:\"'<>\[]++:(?![0-9]{0,5}(?:[?#]|[^\w\s]*\Z))[^\s/@\"'<>]++\Z"),
)

_PATTERNS: Final = tuple((starts, lazy(pattern)) for starts, pattern in _KINDS)

# Not inside a word or after a decimal point, and no later group of a UUID.
_RUN: Final = lazy(r"[0-9](?<![0-9A-Za-z_].)(?<![0-9]\..)(?<![0-9a-fA-F]{4}-.)[0-9 \-]{11,}(?![A-Za-z0-9_])")


def redact_text(text: str) -> str:
    """`text` with every secret-looking value replaced by `[REDACTED]`."""
    if len(text) < 8:
        return text
    for starts, pattern in _PATTERNS:
        for start in starts:
            if start in text:
                text = pattern.sub(REDACTED, text)
                break
    return redact_cards(text)


# ---- card numbers ------------------------------------------------------------------------------------


MIN_DIGITS: Final = 13
MAX_DIGITS: Final = 19
"""Of a card number."""
MAX_GROUPS: Final = 7
"""Groups of digits that one card number is written in."""

_GROUP: Final = lazy(r"[0-9]+")


def redact_cards(text: str) -> str:
    """`text` without numbers of 13 to 19 digits, in groups or not, that cards could have."""
    return text if len(text) < MIN_DIGITS else _RUN.sub(_without_cards, text)


def _without_cards(match: re.Match[str]) -> str:
    """A run of digits, spaces and dashes without the cards in it; each is some whole groups of digits."""
    run = match[0]
    groups = [(group.start(), group.end()) for group in _GROUP.finditer(run)]
    kept: list[str] = []
    at = first = 0
    while first < len(groups):
        last = _card_from(run, groups, first)
        if last is None:
            first += 1
            continue
        kept += run[at : groups[first][0]], REDACTED
        at = groups[last][1]
        first = last + 1
    return "".join([*kept, run[at:]])


def _card_from(run: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of a card number that begins with the group `first`; None where none does."""
    last = min(first + MAX_GROUPS, len(groups)) - 1
    # Between two groups is a sign or more.
    if (
        groups[last][1] - groups[first][0] - (last - first) < MIN_DIGITS
        or run[groups[first][0]] not in "23456"
    ):
        return None
    found, digits = None, ""
    for number in range(first, min(len(groups), first + MAX_GROUPS)):
        start, end = groups[number]
        if number > first and start - groups[number - 1][1] > 1:
            break
        digits += run[start : min(end, start + MAX_DIGITS + 1)]
        if len(digits) > MAX_DIGITS:
            break
        if is_card(digits) and not _is_uuid(groups[first : number + 1]):
            found = number
    return found


def _is_uuid(groups: list[tuple[int, int]]) -> bool:
    """Whether the groups are as long as the first three of a UUID."""
    return [end - start for start, end in groups] == [8, 4, 4]


def is_card(digits: str) -> bool:
    """Whether the digits, 13 to 19, are a card number: one of the networks' first digits, and the Luhn sum.

    Payment cards begin with 3 to 6 or 2221 to 2720; times in milliseconds begin with 1, dates with 20.
    """
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        return False
    if digits[0] not in "3456" and not (len(digits) == 16 and "2221" <= digits[:4] <= "2720"):
        return False
    odd = sum(map(int, digits[-1::-2]))
    even = sum(_DOUBLED[digit] for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


_DOUBLED: Final = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}
