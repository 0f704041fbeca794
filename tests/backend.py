"""An ingest endpoint on loopback that keeps what it is sent and answers as it is told."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "lqt_" + "ab12" * 16


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    events: list[dict[str, Any]]
    size: int


@dataclass
class Answer:
    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


def accept(_request: Request) -> Answer:
    return Answer()


class Backend:
    """`answer` decides each reply; `requests` is what came, `events` what was accepted, in order."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Answer] = accept
        self.requests: list[Request] = []
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self.url = ""

    def receive(self, request: Request) -> Answer:
        answer = self.answer(request)
        with self._changed:
            self.requests.append(request)
            if answer.status == 202:
                self.events.extend(request.events)
            self._changed.notify_all()
        return answer

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"still waiting after {seconds} s; got {len(self.events)} events"
                self._changed.wait(left)


@contextmanager
def running(backend: Backend) -> Iterator[Backend]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            lines = zlib.decompress(body, wbits=31).split(b"\n")
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, [json.loads(line) for line in lines], len(body))
            answer = backend.receive(request)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    backend.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
