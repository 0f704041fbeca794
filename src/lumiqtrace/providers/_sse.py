"""Server-sent events out of a stream's decoded bytes, however the network cut them."""

from __future__ import annotations

from typing import Final

_DATA: Final = b"data:"


class EventStream:
    """Feed it bytes; it gives the `data` payload of every event that is complete.

    Lines end in LF, CRLF or CR; comments, ids and event names are passed over (WHATWG HTML, 9.2.6).
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        text = self._rest + chunk
        # A CR at the very end may be half of a CRLF; it waits for what follows.
        held = b"\r" if text.endswith(b"\r") else b""
        blocks = _with_plain_newlines(text[: len(text) - len(held)]).split(b"\n\n")
        self._rest = blocks.pop() + held
        return [payload for block in blocks if (payload := _payload(block))]

    def copy(self) -> EventStream:
        twin = EventStream()
        twin._rest = self._rest
        return twin

    def close(self) -> list[bytes]:
        """What a last event without its closing blank line holds."""
        block, self._rest = _with_plain_newlines(self._rest), b""
        payload = _payload(block)
        return [payload] if payload else []


def _with_plain_newlines(text: bytes) -> bytes:
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payload(block: bytes) -> bytes:
    if b"\n" not in block:  # as nearly every event of a model's stream
        return block[5:].removeprefix(b" ") if block.startswith(_DATA) else b""
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(_DATA)]
    return b"\n".join(lines)
