"""The backend of `delivery.py`, in a process of its own: counts the model calls that arrive, and can fail.

It reads commands from its standard input, a line each, and answers each with a line of JSON: `ok`, `down`
(nobody listens), `hang` (takes connections and never answers), `count` (model calls and requests so far).
Runs in the environment of the peer whose requests it is to understand.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def of_lumiqtrace(body: bytes) -> int:
    return sum(json.loads(line)["provider"] == "openai" for line in body.splitlines())


def of_langfuse(body: bytes) -> int:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def of_sentry(body: bytes) -> int:
    """An envelope's items of streamed spans, which are the model calls; a transaction has the HTTP ones."""
    return sum(len(json.loads(line).get("items", ())) for line in body.splitlines() if line[:1] == b"{")


READERS: dict[str, Callable[[bytes], int]] = {
    "lumiqtrace": of_lumiqtrace,
    "langfuse": of_langfuse,
    "sentry": of_sentry,
}


class Sink:
    def __init__(self, read: Callable[[bytes], int]) -> None:
        self._read = read
        self._bodies: list[bytes] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._answering = threading.Event()
        self.ok()

    def ok(self) -> dict[str, Any]:
        self._answering.set()
        if self._server is None:
            self._server = self._listening()
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return {"port": self._port}

    def down(self) -> dict[str, Any]:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        return {}

    def hang(self) -> dict[str, Any]:
        self.ok()
        self._answering.clear()
        return {}

    def count(self) -> dict[str, Any]:
        """Bodies are read when they are asked for: taking them in is to cost as little as can be."""
        return {"calls": sum(map(self._read, self._bodies)), "requests": len(self._bodies)}

    def _listening(self) -> ThreadingHTTPServer:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if not sink._answering.is_set() or sink._server is not self.server:
                    sink._answering.wait()  # nobody will hear the answer
                    self.close_connection = True
                    return
                if self.headers.get("content-encoding") == "gzip":
                    body = zlib.decompress(body, wbits=31)
                sink._bodies.append(body)
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.request_queue_size = 128
        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = server.server_port
        return server


def main() -> None:
    sink = Sink(READERS[sys.argv[1]])
    for line in sys.stdin:
        answer = getattr(sink, line.strip())()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
