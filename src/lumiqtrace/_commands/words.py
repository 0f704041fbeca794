"""What others wrote, made fit for a terminal: a server's reason, without what would drive the terminal."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """The text on one line, without the characters that would drive a terminal."""
    return "".join(character for character in text if character.isprintable())


def error_of(body: bytes) -> str:
    """The `error` of an answer in JSON, a text or an object with a `message`; empty for any other answer."""
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    if isinstance(told, dict):
        told = told.get("message") or ""
    return str(told)
