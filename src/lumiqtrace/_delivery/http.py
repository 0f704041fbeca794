"""One HTTP exchange with one deadline, whatever the other side does: the standard library's, no more.

The deadline is that of the whole: connecting, the TLS handshake, sending, each read. Certificates are always
verified, an answer is read up to a limit and never past it, and nothing is followed. Only its users know
what an answer means. It is loaded when first used; `import lumiqtrace` does without sockets.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from .proxy import Proxy, ProxyError, proxy_for
from .roots import Roots

__all__ = ["ERRORS", "Answer", "Connection", "Deadline", "Roots", "Target", "connect"]

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes that an answer may have besides its body: status line, headers, the frames of its chunks."""

ERRORS: Final = (OSError, HTTPException, UnicodeError, ProxyError)
"""What connecting and an exchange raise. ssl's errors and timeouts are OSErrors."""


class Deadline:
    """A moment that is `seconds` away, on the monotonic clock."""

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, more than 0; raises TimeoutError from then on."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out after {self._seconds:.3g} s")
        return left


class Target(NamedTuple):
    """Where requests go: the parts of an http(s) URL, ready for the wire."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises UnicodeError where the host is no name."""
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, host, port, quote(parts.path or "/", safe="/%:@!$&'()*+,;=~"))

    @property
    def authority(self) -> str:
        """The host with its port, where that is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


class Answer(NamedTuple):
    """`headers` has lower-case names. `whole` is False where the body was longer than the limit."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


def connect(target: Target, roots: Roots, deadline: Deadline) -> Connection:
    """A connection to `target`. Where nobody vouches for it, it is tried once more with all of `roots`.

    Raises one of ERRORS.
    """
    try:
        return Connection(target, roots, deadline)
    except ssl.SSLCertVerificationError:
        if not roots.extend():
            raise
    return Connection(target, roots, deadline)


class Connection:
    """A connection to a target, direct or through the environment's proxy. It has one user at a time.

    `proxy` is set where whole requests go to a proxy, which is so for http; https goes through a tunnel.
    """

    def __init__(self, target: Target, roots: Roots, deadline: Deadline) -> None:
        """Connect. Raises one of ERRORS."""
        self.target = target
        self.answered = False
        self.reusable = False
        self._used = (time.monotonic(), time.time())
        via = proxy_for(target.scheme, target.host, target.port)
        self.proxy = via if target.scheme == "http" else None
        self._socket = _connected(
            via.host if via else target.host, via.port if via else target.port, deadline
        )
        try:
            if target.scheme == "https":
                if via is not None:
                    self._open_tunnel(via, deadline)
                self._socket.settimeout(deadline.left())
                self._socket = roots.context().wrap_socket(self._socket, server_hostname=target.host)
        except BaseException:
            self.close()
            raise

    def head(self, method: str, path: str) -> bytes:
        """The first lines of a request for `path`, the proxy's password among them where it has one."""
        where = path
        if self.proxy is not None:
            where = f"{self.target.scheme}://{self.target.authority}{path}"
        first = f"{method} {where} HTTP/1.1\r\nhost: {self.target.authority}\r\n".encode("ascii")
        return first + _authorization(self.proxy)

    def exchange(self, request: memoryview, deadline: Deadline, limit: int) -> Answer:
        """Send the bytes of a request and read the answer, up to `limit` bytes of its body.

        `answered` tells whether any byte of an answer came, `reusable` whether another request may follow.
        """
        self.answered = self.reusable = False
        gone: OSError | None = None
        try:
            self._send(request, deadline)
        except (BrokenPipeError, ConnectionResetError) as error:
            gone = error  # the answer may have been sent before the other side stopped listening
        try:
            answer, more = self._receive(deadline, limit)
        except (OSError, HTTPException):
            if gone is not None:
                raise gone from None
            raise
        self.reusable = more and gone is None
        self._used = (time.monotonic(), time.time())
        return answer

    def is_alive(self, max_idle: float) -> bool:
        """Whether the connection may be used again: it is open, silent, and was idle for `max_idle` seconds
        at most. In a frozen machine one of the clocks may have stood still.
        """
        monotonic, wall = self._used
        if max(time.monotonic() - monotonic, time.time() - wall) > max_idle:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)  # the end, or what nobody asked for
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close our end. It says nothing to the other side beyond that, so a fork's parent keeps its own."""
        # Also at the end of the process, when the module's own names are gone already.
        try:  # noqa: SIM105
            self._socket.close()
        except OSError:
            pass

    def _send(self, request: memoryview, deadline: Deadline) -> None:
        while request:
            self._socket.settimeout(deadline.left())
            request = request[self._socket.send(request) :]

    def _receive(self, deadline: Deadline, limit: int) -> tuple[Answer, bool]:
        """The answer, and whether the connection can take another request."""
        reader = _Reader(self, deadline)
        response = _response(reader, "POST")
        reader.left += limit
        body = bytearray()
        while len(body) < limit:
            chunk = response.read1(limit - len(body))
            if not chunk:
                break
            body += chunk
        if response.length and len(body) < limit:
            raise IncompleteRead(bytes(body[:100]), response.length)
        whole = len(body) < limit or response.length == 0
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, bytes(body), whole), whole and not response.will_close

    def _open_tunnel(self, via: Proxy, deadline: Deadline) -> None:
        """Have the proxy connect us; it sees the host's name and after that only TLS."""
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        end = f"{host}:{self.target.port}"
        first = f"CONNECT {end} HTTP/1.1\r\nhost: {end}\r\n".encode("ascii")
        self._send(memoryview(first + _authorization(via) + b"\r\n"), deadline)
        response = _response(_Reader(self, deadline), "CONNECT")
        if not 200 <= response.status < 300:
            raise OSError(f"the proxy {via.host}:{via.port} answered {response.status} instead of connecting")


class _Reader(io.RawIOBase):
    """The reading side of a connection as a file, each read of it within the deadline.

    `left` is how many bytes may still come, `ended` whether the other side sends no more.
    """

    def __init__(self, connection: Connection, deadline: Deadline) -> None:
        self.left = MAX_HEAD_BYTES
        self.ended = False
        self._connection = connection
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks of its socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        socket_ = self._connection._socket
        socket_.settimeout(self._deadline.left())
        count = socket_.recv_into(buffer)
        if count:
            self._connection.answered = True
        elif buffer:
            self.ended = True
        self.left -= count
        if self.left < 0:
            raise HTTPException("the answer's headers are too long")
        return count


def _response(reader: _Reader, method: str) -> HTTPResponse:
    """The answer, read up to its body."""
    response = HTTPResponse(reader, method=method)  # type: ignore[arg-type] # it calls makefile alone
    response.begin()
    while 100 <= response.status < 200 and response.status != 101 and not reader.ended:
        # Early Hints, say: the answer itself is still to come. With headers it would not begin again.
        response.headers = None  # type: ignore[assignment] # as it was made
        response.begin()
    if reader.ended:  # else its end is read with the body, or not at all
        raise HTTPException("the answer ends within its headers")
    if response.status < 200:
        raise HTTPException(f"the answer begins with {response.status}, which was not asked for")
    return response


def _connected(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first of the host's addresses that takes one; each has its share of the time.

    A lookup cannot be bounded from here: the resolver has timeouts of its own.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        share = deadline.left() / (len(addresses) - number + 1)
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(share)
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException as error:
            made.close()
            if number < len(addresses) and isinstance(error, OSError):
                continue
            raise
        return made
    raise OSError(f"{host} has no address")


def _authorization(proxy: Proxy | None) -> bytes:
    if proxy is None or proxy.credentials is None:
        return b""
    import base64

    encoded = base64.b64encode(proxy.credentials.reveal().encode())
    return b"proxy-authorization: Basic " + encoded + b"\r\n"
