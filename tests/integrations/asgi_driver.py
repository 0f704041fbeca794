"""Calls an ASGI application as a server does, and keeps every message it sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    messages: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def status(self) -> int | None:
        starts = [m for m in self.messages if m["type"] == "http.response.start"]
        return starts[0]["status"] if starts else None

    @property
    def headers(self) -> dict[str, str]:
        start = next(m for m in self.messages if m["type"] == "http.response.start")
        return {key.decode(): value.decode() for key, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == "http.response.body")


def http_scope(path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any) -> dict:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": raw, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), **more,
    }  # fmt: skip


async def acall(
    app: Any,
    path: str = "/",
    method: str = "GET",
    *,
    headers: dict[str, str] | None = None,
    body: bytes | list[bytes] = b"",
    leave_after: int | None = None,
    waits: bool = True,
    **more: Any,
) -> Answer:
    """One request. `leave_after`: the client leaves once so many messages were sent; 0 is at once.

    Without `waits` it leaves when it has sent all of its body.
    """
    answer = Answer()
    gone = asyncio.Event()
    if leave_after == 0:
        gone.set()
    pieces = [body] if isinstance(body, bytes) else list(body)
    requests = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]

    async def receive() -> dict[str, Any]:
        if requests and not gone.is_set():
            return requests.pop(0)
        if waits:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        answer.messages.append(message)
        if leave_after is not None and len(answer.messages) >= leave_after:
            gone.set()
        await asyncio.sleep(0)

    try:
        await app(http_scope(path, method, headers, **more), receive, send)
    except BaseException as error:  # noqa: BLE001 - it is what the caller looks at
        answer.error = error
    return answer


def call(app: Any, path: str = "/", method: str = "GET", **options: Any) -> Answer:
    return asyncio.run(acall(app, path, method, **options))


async def awebsocket(app: Any, path: str, said: list[str], close_code: int = 1000) -> Answer:
    """One websocket whose client says so much, then leaves."""
    answer = Answer()
    incoming = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": text} for text in said]
    incoming.append({"type": "websocket.disconnect", "code": close_code, "reason": ""})

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        answer.messages.append(message)

    scope = {**http_scope(path), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    try:
        await app(scope, receive, send)
    except BaseException as error:  # noqa: BLE001 - it is what the caller looks at
        answer.error = error
    return answer
