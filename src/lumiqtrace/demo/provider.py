"""A provider on loopback that speaks the OpenAI dialect, so that the demonstration needs no key.

It embeds by the words of a text, calls the tool it is offered, streams, refuses one request for its rate
and one for its model. Tokens are counted as a quarter of the characters.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

ANSWER: Final = (
    "Yes. Order 1042, the kettle, was delivered on 2026-03-02. A kettle that leaks is faulty, "
    "and faulty goods can be returned within two years. Please do not use it any more."
)
VERSIONS: Final = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "text-embedding-3-small": "text-embedding-3-small",
}
DIMENSIONS: Final = 64
TOKEN_PAUSE: Final = 0.01
"""Seconds between the pieces of a streamed answer, so that its time bar has a length."""


@contextmanager
def serving() -> Iterator[str]:
    """Run it in a thread on a free port; gives the `base_url` for a client."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    refused_once = threading.Event()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(TOKEN_PAUSE)
        if request["model"] not in VERSIONS:
            self._error(404, "model_not_found", f"The model `{request['model']}` does not exist.")
        elif self.path.endswith("/embeddings"):
            self._json(200, _embeddings(request))
        elif request.get("stream"):
            self._stream(request)
        elif request.get("tools") or self.refused_once.is_set():
            self._json(200, _completion(request))
        else:
            self.refused_once.set()
            self._error(429, "rate_limit_exceeded", "Rate limit reached.", {"retry-after-ms": "40"})

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
        self._json(status, {"error": error}, headers)

    def _stream(self, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in _chunks(request):
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()
            time.sleep(TOKEN_PAUSE)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the demonstration."""


def _tokens(value: Any) -> int:
    return max(1, len(value if isinstance(value, str) else json.dumps(value)) // 4)


def _usage(request: dict[str, Any], output: int) -> dict[str, Any]:
    used = _tokens(request["messages"])
    return {
        "prompt_tokens": used,
        "completion_tokens": output,
        "total_tokens": used + output,
        "prompt_tokens_details": {"cached_tokens": used // 2 if request.get("stream") else 0},
    }


def _head(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-demo",
        "object": kind,
        "created": int(time.time()),
        "model": VERSIONS[request["model"]],
    }


def _completion(request: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "yes"}
    reason = "stop"
    if request.get("tools"):
        order = re.search(r"order (\d+)", json.dumps(request["messages"]))
        arguments = json.dumps({"order_id": order.group(1) if order else ""})
        name = request["tools"][0]["function"]["name"]
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message |= {"content": None, "tool_calls": [call]}
        reason = "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return _head(request, "chat.completion") | {
        "choices": [choice],
        "usage": _usage(request, _tokens(message)),
    }


def _chunks(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    head = _head(request, "chat.completion.chunk")
    pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    pieces += [{"content": word} for word in re.findall(r"\S+\s*", ANSWER)]
    for piece in pieces:
        yield head | {"choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
    yield head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield head | {"choices": [], "usage": _usage(request, _tokens(ANSWER))}


def _embeddings(request: dict[str, Any]) -> dict[str, Any]:
    texts = request["input"]
    data = [
        {"object": "embedding", "index": i, "embedding": _embedding(text)} for i, text in enumerate(texts)
    ]
    used = sum(map(_tokens, texts))
    return {
        "object": "list",
        "model": VERSIONS[request["model"]],
        "data": data,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _embedding(text: str) -> list[float]:
    """A unit vector with a place for each word: texts that share words are near each other."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"[a-z]{4,}", text.lower()):
        vector[zlib.crc32(word[:5].encode()) % DIMENSIONS] += 1.0
    length = sum(value * value for value in vector) ** 0.5 or 1.0
    return [value / length for value in vector]
