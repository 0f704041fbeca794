"""Google's API on loopback, for the real client of any version, whichever HTTP library it brings."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google import genai

CLOSES_ASYNC = hasattr(genai.client.AsyncClient, "aclose")


@dataclass
class Sent:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """What is answered. `pieces` are sent one by one; one that is short of `length` ends in the middle."""

    pieces: Iterable[bytes]
    status: int = 200
    content_type: str = "application/json"
    length: int | None = None


def reply(body: Any, status: int = 200) -> Callable[[Sent], Reply]:
    return lambda _sent: Reply([json.dumps(body).encode()], status)


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(chunk).encode() for chunk in chunks)


def streamed(chunks: Iterable[Any], length: int | None = None) -> Callable[[Sent], Reply]:
    return lambda _sent: Reply((sse(chunk) for chunk in chunks), 200, "text/event-stream", length)


class Held:
    """A stream whose second half is sent when the test allows it."""

    def __init__(self, chunks: Sequence[Any], first: int) -> None:
        self.go = threading.Event()
        self._chunks, self._first = chunks, first

    def __call__(self, _sent: Sent) -> Reply:
        return Reply(self._pieces(), 200, "text/event-stream")

    def _pieces(self) -> Iterator[bytes]:
        for index, chunk in enumerate(self._chunks):
            if index == self._first:
                self.go.wait(30)
            yield sse(chunk)


@dataclass
class Google:
    """`answer` decides each reply; `sent` is what came."""

    answer: Callable[[Sent], Reply]
    url: str = ""
    sent: list[Sent] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)

    def client(self, *, http: dict[str, Any] | None = None, **options: Any) -> Any:
        http_options = {"base_url": self.url, "api_version": "v1beta", **(http or {})}
        made = genai.Client(api_key="test", http_options=http_options, **options)
        self.clients.append(made)
        return made

    def generate(self, *, is_async: bool = False, **arguments: Any) -> Any:
        arguments = {"model": "gemini-flash-latest", "contents": "Say hello", **arguments}
        return self.run(lambda models: models.generate_content(**arguments), is_async=is_async)

    def run(self, call: Callable[[Any], Any], *, is_async: bool = False, **options: Any) -> Any:
        """What `call` gives with the models of a client, blocking or in a loop of its own."""
        client = self.client(**options)
        if not is_async:
            return call(client.models)

        async def main() -> Any:
            try:
                return await call(client.aio.models)
            finally:
                await closed(client)

        return asyncio.run(main())

    def pieces(self, *, is_async: bool = False, **arguments: Any) -> list[Any]:
        """A streamed answer, read to its end."""
        arguments = {"model": "gemini-flash-latest", "contents": "Say hello", **arguments}
        if not is_async:
            return list(self.stream(**arguments))

        async def read(models: Any) -> list[Any]:
            stream = await opened(models.generate_content_stream(**arguments))
            return [piece async for piece in stream]

        return self.run(read, is_async=True)

    def stream(self, **arguments: Any) -> Iterator[Any]:
        arguments = {"model": "gemini-flash-latest", "contents": "Say hello", **arguments}
        return self.client().models.generate_content_stream(**arguments)


async def opened(stream: Any) -> Any:
    """An async stream; version 1.0 gives it without having to be awaited when functions may be called."""
    return await stream if asyncio.iscoroutine(stream) else stream


async def closed(client: Any) -> None:
    if CLOSES_ASYNC:
        await client.aio.aclose()


@contextmanager
def serving(google: Google) -> Iterator[Google]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = Sent(self.command, self.path, headers, json.loads(raw) if raw else None)
            google.sent.append(sent)
            answer = google.answer(sent)
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            if answer.length is not None:
                self.send_header("content-length", str(answer.length))
            self.end_headers()
            try:
                for piece in answer.pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # the client has left

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    google.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield google
    finally:
        for client in google.clients:
            if hasattr(client, "close"):
                client.close()
        server.shutdown()
        thread.join()
        server.server_close()
