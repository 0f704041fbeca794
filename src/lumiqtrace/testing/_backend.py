"""An ingest endpoint on loopback, for tests that want real HTTP: it keeps what it is sent.

with LoopbackBackend() as backend:
    lumiqtrace.init(backend.key, base_url=backend.url)
    ...
    backend.wait_for(lambda: len(backend.events) == 3)
"""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

KEY: Final = "lqt_" + "ab12" * 16
"""A key of the right form, which opens nothing."""


@dataclass
class Request:
    """What came: `headers` have lower-case names, `size` is the body's bytes as sent."""

    path: str
    headers: dict[str, str]
    events: list[dict[str, Any]]
    size: int


@dataclass
class Answer:
    """What goes back."""

    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


def accept(_request: Request) -> Answer:
    """202, to everything."""
    return Answer()


class LoopbackBackend:
    """`answer` decides each reply; `requests` is what came, `events` what was accepted, in order.

    Use it as a context manager; `url` and `key` are for `init`. `answer` may be replaced at any time, and
    what it waits for holds up that one request alone.
    """

    def __init__(self, answer: Callable[[Request], Answer] = accept) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.events: list[dict[str, Any]] = []
        self.url = ""
        self.key = KEY
        self._changed = threading.Condition()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.01,), name="lumiqtrace-loopback", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, thread = self._server, self._thread
        if server is not None and thread is not None:
            self._server = self._thread = None
            server.shutdown()
            thread.join()
            server.server_close()
            server.hang_up()

    def receive(self, request: Request) -> Answer:
        """Take a request as if it had come over the network."""
        answer = self.answer(request)
        with self._changed:
            self.requests.append(request)
            if 200 <= answer.status < 300:
                self.events.extend(request.events)
            self._changed.notify_all()
        return answer

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until `condition()` holds, asked whenever a request came. Raises AssertionError after that."""
        __tracebackhide__ = True
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    came = f"{len(self.requests)} requests with {len(self.events)} accepted events"
                    raise AssertionError(f"still waiting after {seconds} s; so far came {came}")
                self._changed.wait(left)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, backend: LoopbackBackend) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = backend
        self._accepted: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._accepted.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._accepted.discard(request)
        super().close_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep: nobody is there any more to answer on them."""
        with self._lock:
            for accepted in self._accepted:
                with suppress(OSError):
                    accepted.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the answer in one segment: two would wait for each other's acknowledgement, 40 ms

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        text = zlib.decompress(body, wbits=31) if headers.get("content-encoding") == "gzip" else body
        events = [json.loads(line) for line in text.split(b"\n") if line.strip()]
        answer = self.server.backend.receive(Request(self.path, headers, events, len(body)))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""
