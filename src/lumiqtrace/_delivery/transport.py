"""The one seam to the network: `send(body, headers, timeout) -> Reply`.

Everything above it is pure code and one thread. The default speaks HTTP over a connection that is kept.
Certificates are verified, redirects are never followed, the timeout is that of the whole, and the API key is
put on the request here and nowhere else, in bytes that no traceback shows.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .._config import LumiqConfig, Secret
from .._lifecycle import loading
from .._version import __version__

if TYPE_CHECKING:
    from .http import Answer, Connection, Deadline

MAX_REPLY_BYTES: Final = 64 * 1024
"""No answer of the ingest endpoint is longer; what follows is not read."""

INGEST_PATH: Final = "/v1/ingest"

MAX_IDLE: Final = 30.0
"""Seconds after which a kept connection is not trusted: what lies between forgets it without a word."""

MAX_REASON: Final = 300

_NUMBERED: Final = rb"\\u00(?!22|5[cC])([2-7][0-9a-fA-F])"
"""What a key can hold where JSON writes it by its number; a quote or a backslash would end a text there."""


class Reply(NamedTuple):
    """What came back. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class TransportError(Exception):
    """No usable answer: no connection, a timeout, bytes that are not HTTP, or an acceptance that is not the
    ingest endpoint's. Always worth another try.
    """


class Transport(Protocol):
    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        """Post one gzip NDJSON body. Raises TransportError.

        `headers` go beside those of every request; `timeout` is seconds for the whole exchange.
        """
        ...

    def close(self) -> None: ...


class HttpTransport:
    """Keep-alive HTTP to the ingest endpoint of one `LumiqConfig`; each process has its own connection."""

    def __init__(self, config: LumiqConfig) -> None:
        assert isinstance(config.api_key, Secret)
        self._key = config.api_key
        self._url = config.base_url + INGEST_PATH
        self._http: Any = None
        self._target: Any = None
        self._roots: Any = None
        self._kept: Connection | None = None
        self._owner = 0

    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        self._load()
        deadline = self._http.Deadline(timeout)
        answer: Answer | None = None
        problem = ""
        try:
            answer = self._without_key(_inflated(self._answer(body, headers, deadline)))
        except self._http.ERRORS as error:
            problem = self._reason(error)
        if answer is None:  # without the error itself, whose frames hold what the server said
            raise TransportError(problem)
        return _checked(answer, self._url)

    def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    # Also in a child that drops what it has of its parent: closing says nothing to the other side.
    __del__ = close

    def _load(self) -> None:
        if self._http is None:
            with loading():
                from . import http

                "".encode("idna")  # loads the codec that the first connection would
                self._roots = http.Roots()
                self._http = http

    def _answer(self, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> Answer:
        if self._target is None:
            self._target = self._http.Target.of(self._url)
        while True:
            connection = self._reused()
            again = connection is not None
            connection = connection or self._connected(deadline)
            try:
                answer = connection.exchange(
                    self._request(connection, body, headers), deadline, MAX_REPLY_BYTES
                )
            except BaseException as error:
                connection.close()
                # A kept connection that the peer dropped meanwhile fails like this, a fresh one will not:
                # one more try at once. The event ids make a repeated delivery harmless.
                if again and not connection.answered and self._is_dropped(error):
                    continue
                raise
            if connection.reusable:
                self._kept = connection
            else:
                connection.close()
            return answer

    def _reused(self) -> Connection | None:
        """The kept connection, where it is this process's and still good."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        if self._owner == os.getpid() and kept.is_alive(MAX_IDLE):
            return kept
        kept.close()
        return None

    def _connected(self, deadline: Deadline) -> Connection:
        self._owner = os.getpid()
        connection: Connection = self._http.connect(self._target, self._roots, deadline)
        return connection

    def _request(self, connection: Connection, body: bytes, headers: Mapping[str, str]) -> memoryview:
        """The request's bytes, head and body in one piece; a view, for it does not show them to anyone."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            raise ValueError("a header with a line break in it")
        fixed = (
            f"user-agent: lumiqtrace-python/{__version__}\r\n"
            "accept: application/json\r\naccept-encoding: identity\r\n"
            "content-type: application/x-ndjson\r\ncontent-encoding: gzip\r\n"
            f"content-length: {len(body)}\r\n"
        )
        return memoryview(
            b"".join(
                (
                    connection.head("POST", self._target.path),
                    (lines + fixed).encode("latin-1", "replace"),
                    b"x-api-key: " + self._key.reveal().encode("ascii") + b"\r\n\r\n",
                    body,
                )
            )
        )

    def _without_key(self, answer: Answer) -> Answer:
        """The answer of a server that repeats the key it was given, without it."""
        with loading():
            from .._redaction.secrets import REDACTED

        key = self._key.reveal()
        body = answer.body
        # JSON may write any letter by its number; where the key is written so, it is read first.
        if b"\\u00" in body and key.encode() in (read := re.sub(_NUMBERED, _letter, body)):
            body = read
        body = body.replace(key.encode(), REDACTED.encode())
        headers = {
            name.replace(key.lower(), REDACTED): value.replace(key, REDACTED)
            for name, value in answer.headers.items()
        }
        return answer._replace(headers=headers, body=body)

    @staticmethod
    def _is_dropped(error: BaseException) -> bool:
        """Whether the other side ended the connection; a timeout says nothing of the kind."""
        return isinstance(error, OSError) and not isinstance(error, TimeoutError)

    def _reason(self, error: Exception) -> str:
        """What went wrong, and what can be done where that is known; nothing in it looks like a key."""
        http, where = self._http, self._url
        text = f"{type(error).__name__}: {error}" if str(error).strip() else type(error).__name__
        if isinstance(error, http.ProxyError):
            text = str(error)
        elif isinstance(error, http.ssl.SSLCertVerificationError):
            text = (
                f"the certificate of {self._target.authority} is not trusted: "
                # `http` is Any, being loaded late, and its classes narrow nothing.
                f"{error.verify_message} "  # pyright: ignore[reportAttributeAccessIssue]
                "(the file of a private authority's certificate goes into SSL_CERT_FILE)"
            )
        elif isinstance(error, http.ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
            text = f"{self._target.authority} does not speak TLS; is its base_url an http:// one? ({text})"
        elif isinstance(error, http.socket.gaierror):
            text = f"the name in {where} cannot be resolved ({text})"
        elif isinstance(error, UnicodeError):
            text = f"a name on the way to {where} is no host name"
        # It may quote the other side, which has no business writing lines into our log.
        shown = "".join(letter if letter.isprintable() else " " for letter in text)
        with loading():
            from .._redaction.redact import redact_text

        return redact_text(shown)[:MAX_REASON].strip()


def _checked(answer: Answer, url: str) -> Reply:
    """The reply, where it is one: the page that a hotel's network shows with 200 is no acceptance."""
    if answer.status == 407:
        raise TransportError(
            "the proxy answered 407: it wants a user and password, http://user:password@host"
        )
    if 200 <= answer.status < 300 and not _is_json(answer.body, whole=answer.whole):
        kind = answer.headers.get("content-type", "no content-type")[:60]
        raise TransportError(
            f"{url} answered {answer.status} with something that is not JSON ({kind!r}); "
            "is this the base_url of a lumiqtrace server?"
        )
    return Reply(answer.status, answer.headers, answer.body)


def _inflated(answer: Answer) -> Answer:
    """With its body as it was meant: we ask for it plain; what comes compressed all the same is cut short."""
    if answer.headers.get("content-encoding", "identity").lower() not in ("gzip", "x-gzip", "deflate"):
        return answer
    try:
        body = zlib.decompressobj(wbits=47).decompress(answer.body, MAX_REPLY_BYTES)
    except zlib.error:
        return answer
    return answer._replace(body=body)


def _letter(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])


def _is_json(body: bytes, *, whole: bool) -> bool:
    """Whether it is JSON or nothing at all; of a body that was cut, whether it begins as an object does."""
    if not whole or len(body) >= MAX_REPLY_BYTES:
        return body.lstrip()[:1] == b"{"
    if not body.strip():
        return True
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
