"""Frames of an AWS event stream, as Bedrock sends them, to test what reads them."""

from __future__ import annotations

import base64
import json
import struct
import zlib

CHUNK = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}


def frame(body, headers):
    """One frame; values of `headers` are strings, booleans or raw `(type, bytes)`."""
    block = b""
    for name, value in headers.items():
        kind, data = (
            value if isinstance(value, tuple) else (7, struct.pack(">H", len(value)) + value.encode())
        )
        block += bytes([len(name)]) + name.encode() + bytes([kind]) + data
    prelude = struct.pack(">II", 12 + len(block) + len(body) + 4, len(block))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + body
    return start + struct.pack(">I", zlib.crc32(start))


def frames(*events):
    """The frames that bring `events`."""
    bodies = (
        {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abc"} for event in events
    )
    return b"".join(frame(json.dumps(body).encode(), CHUNK) for body in bodies)
