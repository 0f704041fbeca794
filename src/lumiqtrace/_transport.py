"""The one seam to the network: `send(body, timeout) -> Reply`.

Everything above it is pure code and one thread. The default speaks HTTP with httpx, or with httpx2 where
the process already loaded that (the same API; it saves a second import). TLS is verified, redirects are
never followed, and the API key is put on the request here and nowhere else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from ._config import LumiqConfig, Secret
from ._lifecycle import loading
from ._redact import redact_text
from ._version import __version__

MAX_REPLY_BYTES: Final = 64 * 1024
"""No answer of the ingest endpoint is longer; what follows is not read."""

INGEST_PATH: Final = "/v1/ingest"


class Reply(NamedTuple):
    """What came back. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class TransportError(Exception):
    """No usable answer: no connection, a timeout, or bytes that are not HTTP. Always worth another try."""


class Transport(Protocol):
    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        """Post one gzip NDJSON body. Raises TransportError.

        `headers` go beside those of every request; `timeout` is seconds for the whole exchange.
        """
        ...

    def close(self) -> None: ...


class HttpTransport:
    """Keep-alive HTTP to the ingest endpoint of one `LumiqConfig`."""

    def __init__(self, config: LumiqConfig) -> None:
        assert isinstance(config.api_key, Secret)
        self._key = config.api_key
        self._url = config.base_url + INGEST_PATH
        self._http: Any = None
        self._library: Any = None
        self._dropped: tuple[type[Exception], ...] = ()
        self._kept = False

    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        client = self._client()
        deadline = time.monotonic() + timeout
        while True:
            kept, self._kept = self._kept, False
            try:
                reply = self._exchange(client, body, headers, deadline)
            except self._library.HTTPError as error:
                # A kept connection that the peer dropped meanwhile fails like this, a fresh one will not:
                # one more try at once. The event ids make a repeated delivery harmless.
                if kept and isinstance(error, self._dropped):
                    continue
                raise TransportError(_reason(error)) from error
            self._kept = True
            return reply

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _client(self) -> Any:
        if self._http is None:
            with loading():
                library = self._library = _http_library()
                self._dropped = (library.RemoteProtocolError, library.ReadError, library.WriteError)
                self._http = library.Client(follow_redirects=False, verify=True)
                "".encode("idna")  # loads the codec that the first connection would
        return self._http

    def _exchange(self, client: Any, body: bytes, headers: Mapping[str, str], deadline: float) -> Reply:
        left = max(0.05, deadline - time.monotonic())
        sent = {
            **headers,
            "x-api-key": self._key.reveal(),
            "content-type": "application/x-ndjson",
            "content-encoding": "gzip",
            "user-agent": f"lumiqtrace-python/{__version__}",
        }
        with client.stream("POST", self._url, content=body, headers=sent, timeout=left) as response:
            answer = bytearray()
            for chunk in response.iter_raw():
                answer += chunk
                # Each read has its own timeout; a server that trickles must not stretch the whole.
                if len(answer) >= MAX_REPLY_BYTES or time.monotonic() > deadline:
                    break
            found = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status_code, found, bytes(answer[:MAX_REPLY_BYTES]))


def _http_library() -> Any:
    loaded = sys.modules.get("httpx2")
    if loaded is not None and hasattr(loaded, "Client"):
        return loaded
    import httpx

    return httpx


def _reason(error: Exception) -> str:
    """The kind of fault and its text, without what looks like a key."""
    text = redact_text(str(error).strip())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
