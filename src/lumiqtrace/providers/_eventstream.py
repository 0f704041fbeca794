"""The events of an AWS event stream (`application/vnd.amazon.eventstream`), which Amazon Bedrock sends.

It reads the frames itself: botocore is not needed, and bytes that are no frames give no events. An
exception of the service comes out in the shape that Anthropic's own API gives an error inside a stream.
"""

from __future__ import annotations

import binascii
import json
import zlib
from struct import Struct
from typing import Any, Final

_PRELUDE: Final = Struct(">III")  # length of the frame, length of its headers, checksum of these two
_CHECKSUM_SIZE: Final = 4
_LENGTH_SIZE: Final = 2

_VALUE_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; the other two types, 6 and 7, say their own length."""

_STRING: Final = 7

MAX_FRAME: Final = 24 * 1024 * 1024
"""AWS promises no frame beyond this; what claims to be larger is not waited for."""


class FrameStream:
    """Feed it bytes; it gives the JSON of every event that is complete, as `EventStream` does."""

    __slots__ = ("_lost", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._lost:
            return []
        buffer, at = self._rest + chunk, 0
        payloads: list[bytes] = []
        while len(buffer) - at >= _PRELUDE.size:
            size, headers_size, checksum = _PRELUDE.unpack_from(buffer, at)
            if checksum != zlib.crc32(buffer[at : at + 8]) or not _PRELUDE.size < size <= MAX_FRAME:
                # There is no mark to find the next frame by.
                self._lost, self._rest = True, b""
                return payloads
            if len(buffer) - at < size:
                break
            payload = _event(buffer[at : at + size], _PRELUDE.size + headers_size)
            if payload:
                payloads.append(payload)
            at += size
        self._rest = buffer[at:]
        return payloads

    def copy(self) -> FrameStream:
        twin = FrameStream()
        twin._rest, twin._lost = self._rest, self._lost
        return twin

    def close(self) -> list[bytes]:
        """Half a frame holds nothing."""
        self._rest = b""
        return []


def _event(frame: bytes, headers_end: int) -> bytes:
    """The JSON that a frame brings; empty where it brings none that can be read."""
    try:
        headers = _headers(frame[_PRELUDE.size : headers_end])
        body = frame[headers_end:-_CHECKSUM_SIZE]
        kind = headers.get(":message-type")
        if kind == "exception":
            return _failure(headers.get(":exception-type"), json.loads(body).get("message"))
        if kind == "error":
            return _failure(headers.get(":error-code"), headers.get(":error-message"))
        return binascii.a2b_base64(json.loads(body)["bytes"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return b""


def _failure(code: Any, message: Any) -> bytes:
    return json.dumps({"type": "error", "error": {"type": code, "message": message}}).encode()


def _headers(block: bytes) -> dict[str, str]:
    """The headers that are strings; `block` is name length, name, type and value, one after the other."""
    found: dict[str, str] = {}
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        name, kind = block[at + 1 : name_end].decode(), block[name_end]
        at = name_end + 1
        if kind in _VALUE_SIZES:
            at += _VALUE_SIZES[kind]
            continue
        size = int.from_bytes(block[at : at + _LENGTH_SIZE], "big")
        at += _LENGTH_SIZE
        if kind == _STRING:
            found[name] = block[at : at + size].decode()
        at += size
    return found
