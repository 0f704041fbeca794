"""The request's body, within bounds: what is too long is refused before it is held.

Takes plain or gzip NDJSON, with or without a Content-Length. Refuses with 415, 413, 408, 400, and with 503
what would bring all the bodies held together over their bound.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_MIB: Final = 1024 * 1024
MAX_GZIP_BYTES: Final = 5 * _MIB
MAX_BODY_BYTES: Final = 20 * _MIB
MAX_HELD_BYTES: Final = 256 * _MIB  # of all requests together, while they are read
_READ_SECONDS: Final = 30.0

_GZIP_WINDOW: Final = 31  # zlib's way to say: a gzip header and trailer around a 32 KiB window


class HeldBytes:
    """How much is held of the bodies that are being read, all together, and the bound on it.

    Only what has come counts: a length that is merely announced takes nothing from others. Inflated text
    need not count: it is made and parsed without a pause, so there is one at a time.
    """

    def __init__(self) -> None:
        self._held = 0

    def take(self, size: int) -> None:
        """Raises HTTPException 503, and takes nothing, where that would be too much."""
        if self._held + size > MAX_HELD_BYTES:
            raise HTTPException(503, "Too many bodies are being read", {"Retry-After": "1"})
        self._held += size

    def give_back(self, size: int) -> None:
        self._held -= size


async def read_body(request: Request, held: HeldBytes) -> bytes:
    """The NDJSON text. Raises HTTPException 415, 413, 408, 400 or 503."""
    compressed = _is_gzip(request)
    limit = MAX_GZIP_BYTES if compressed else MAX_BODY_BYTES
    kind = "compressed" if compressed else "uncompressed"
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit, kind)
    body = await _read_at_most(request, limit, kind, held)
    return _inflate(body) if compressed else body


def _is_gzip(request: Request) -> bool:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-ndjson":
        raise HTTPException(
            415, "Content-Type must be application/x-ndjson", {"Accept-Post": "application/x-ndjson"}
        )
    # Several headers mean the same as one with commas, and both are a nested encoding.
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise HTTPException(
            415, "Content-Encoding must be gzip, once, or absent", {"Accept-Encoding": "gzip"}
        )
    return encoding == "gzip"


async def _read_at_most(request: Request, limit: int, kind: str, held: HeldBytes) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit, kind)
                held.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise HTTPException(408, f"The body took longer than {_READ_SECONDS:.0f} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "The body ended early") from None
    finally:
        held.give_back(len(body))
    return bytes(body)


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        text = inflater.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise HTTPException(400, "The body is not valid gzip") from None
    if len(text) > MAX_BODY_BYTES:
        raise _too_large(MAX_BODY_BYTES, "uncompressed")
    # Bytes after the end would be a second gzip member; thousands of empty ones cost a lot to follow.
    if not inflater.eof or inflater.unused_data:
        raise HTTPException(400, "The body is not one complete gzip stream")
    return text


def _too_large(limit: int, kind: str) -> HTTPException:
    return HTTPException(413, f"The {kind} body is larger than {limit // _MIB} MiB")
