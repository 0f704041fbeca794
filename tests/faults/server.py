"""One loopback server that misbehaves on request, in bytes of its own choosing.

    with misbehaving(answering(500)) as server:
        ...
        server.behave(answering(202))

A behaviour is a function from a `Peer`, one connection that was accepted, to nothing; it may be changed at
any time, and each request that follows is met with the new one. `server.heard` is what came, in order, and
`server.stored` the events of the requests that were accepted, whether or not the answer went out.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 20.0
"""Seconds a behaviour goes on at most; the end of its server ends it before."""


@dataclass
class Heard:
    """A request: its first line, its headers with lower-case names, the events of its body."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in zlib.decompress(self.body, wbits=31).split(b"\n")]


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: Misbehaving, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self._rest = b""

    def hear(self) -> Heard | None:
        """Read one whole request; None where the connection ended before."""
        while b"\r\n\r\n" not in self._rest:
            if not self._read():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length:
            if not self._read():
                return None
        body, self._rest = self._rest[:length], self._rest[length:]
        heard = Heard(first, headers, body)
        self.server.note(heard)
        return heard

    def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> None:
        lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1")
        self.connection.sendall(head + body)

    def store(self, heard: Heard) -> None:
        self.server.store(heard.events)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Do nothing for so long; True where the server ends meanwhile."""
        return self.server.ending.wait(seconds)

    def close(self) -> None:
        """End the connection in order: the other side reads what was sent, and then the end."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            while self.connection.recv(65536):
                pass
        self.connection.close()

    def reset(self) -> None:
        """End the connection with an RST: the other side may even lose what was sent."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _read(self) -> bool:
        part = self.connection.recv(65536)
        self._rest += part
        return bool(part)


Behaviour = Callable[[Peer], None]
"""Meets one request, from its first byte on. To return keeps the connection for the next one."""


class Misbehaving:
    """The server; make it with `misbehaving`, `refusing` or `with_full_backlog`."""

    def __init__(
        self, behaviour: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.behaviour = behaviour
        self.heard: list[Heard] = []
        self.stored: list[dict[str, Any]] = []
        self.connections = 0
        self.relayed = bytearray()
        """What clients sent through a tunnel of ours."""
        self.ending = threading.Event()
        self._changed = threading.Condition()
        self._tls = tls
        self._peers: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def behave(self, behaviour: Behaviour) -> None:
        """Meet every request from now on with this."""
        self.behaviour = behaviour

    def listen(self, backlog: int = 128) -> None:
        """Take connections from now on; until then they are refused."""
        self._listener.listen(backlog)
        self._start(self._accept)

    def note(self, heard: Heard) -> None:
        with self._changed:
            self.heard.append(heard)
            self._changed.notify_all()

    def store(self, events: list[dict[str, Any]]) -> None:
        with self._changed:
            self.stored += events
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until `condition()` holds."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"still waiting after {seconds} s; heard {len(self.heard)} requests"
                self._changed.wait(min(left, 0.1))

    def close(self) -> None:
        self.ending.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self._peers):
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._peers.add(connection)
        try:
            if self._tls is not None:
                self._peers.discard(connection)
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._peers.add(connection)
            peer = Peer(self, connection)
            while not self.ending.is_set() and connection.fileno() >= 0:
                peer._rest or peer._read()  # the behaviour of when the request came, not of when we waited
                if not peer._rest:
                    return
                self.behaviour(peer)
        except OSError:
            pass
        finally:
            self._peers.discard(connection)
            connection.close()


@contextmanager
def misbehaving(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Misbehaving]:
    """A server that meets every request with `behaviour`, over TLS where a context is given."""
    with refusing(behaviour, tls) as server:
        server.listen()
        yield server


@contextmanager
def refusing(behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Misbehaving]:
    """A port of ours that refuses connections until `listen()` is called."""
    server = Misbehaving(behaviour or accepting, tls)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def with_full_backlog() -> Iterator[str]:
    """The URL of a port that neither takes nor refuses a connection: its queue of them is full."""
    parked: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        try:
            for _ in range(4):
                one = socket.socket()
                parked.append(one)
                one.setblocking(False)
                one.connect_ex(address)
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for one in parked:
                one.close()


# ---- behaviours --------------------------------------------------------------------------------------


def accepting(peer: Peer) -> None:
    """What a good server does."""
    heard = peer.hear()
    if heard is not None:
        peer.store(heard)
        peer.answer(202)


def answering(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Behaviour:
    """Answers everything alike: 500, 503 or 429 with `retry-after`, 401, 200 with HTML, a redirect."""

    def behave(peer: Peer) -> None:
        heard = peer.hear()
        if heard is not None:
            if 200 <= status < 300:
                peer.store(heard)
            peer.answer(status, headers, body)

    return behave


def redirecting(location: str, status: int = 307) -> Behaviour:
    return answering(status, {"location": location})


def refusing_bodies_over(limit: int) -> Behaviour:
    """413 for a body of more than `limit` bytes."""

    def behave(peer: Peer) -> None:
        heard = peer.hear()
        if heard is not None and len(heard.body) > limit:
            peer.answer(413)
        elif heard is not None:
            peer.store(heard)
            peer.answer(202)

    return behave


def refusing_events_with(text: bytes) -> Behaviour:
    """400 for a body with this text in it, as for one bad line."""

    def behave(peer: Peer) -> None:
        heard = peer.hear()
        if heard is not None and text in zlib.decompress(heard.body, wbits=31):
            peer.answer(400, body=b'{"error":"line 1 is wrong"}')
        elif heard is not None:
            peer.store(heard)
            peer.answer(202)

    return behave


def hanging(peer: Peer) -> None:
    """Takes the request and never answers."""
    peer.hear()
    peer.wait()


def not_reading(peer: Peer) -> None:
    """Takes the connection and not one byte of the request beyond its first."""
    peer.wait()


def trickling(text: bytes, every: float = 0.1) -> Behaviour:
    """Answers with `text` at once and then one more byte at a time: a slow loris, in headers or in body."""

    def behave(peer: Peer) -> None:
        peer.hear()
        peer.connection.sendall(text)
        while not peer.wait(every):
            peer.connection.sendall(b"x")

    return behave


def saying(text: bytes) -> Behaviour:
    """Answers with just these bytes and closes: garbage, half a header, half a body."""

    def behave(peer: Peer) -> None:
        peer.hear()
        peer.connection.sendall(text)
        peer.close()

    return behave


def resetting(peer: Peer) -> None:
    """Takes the request and resets the connection."""
    peer.hear()
    peer.reset()


def storing_then_resetting(peer: Peer) -> None:
    """Accepts the events, and the answer is lost."""
    heard = peer.hear()
    if heard is not None:
        peer.store(heard)
    peer.reset()


def closing_each(peer: Peer) -> None:
    """Accepts, and closes the connection after each answer without having said so."""
    accepting(peer)
    peer.close()


def flooding(head: bytes = b"HTTP/1.1 202 x\r\n\r\n", part: bytes = b"y" * 65536) -> Behaviour:
    """Answers without an end."""

    def behave(peer: Peer) -> None:
        peer.hear()
        peer.connection.sendall(head)
        while not peer.server.ending.is_set():
            peer.connection.sendall(part)

    return behave


def gzip_bomb(peer: Peer) -> None:
    """Accepts with an answer that is 64 MiB of JSON once it is inflated."""
    heard = peer.hear()
    if heard is not None:
        peer.store(heard)
        packer = zlib.compressobj(9, wbits=31)
        parts = [packer.compress(b'{"accepted":1,"x":"')]
        parts += [packer.compress(b"0" * 1024 * 1024) for _ in range(64)]
        body = b"".join([*parts, packer.compress(b'"}'), packer.flush()])
        peer.answer(202, {"content-encoding": "gzip", "content-type": "application/json"}, body)


def then(first: Behaviour, *others: Behaviour) -> Behaviour:
    """One behaviour for each request in turn, the last one for good."""
    left = [first, *others]

    def behave(peer: Peer) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(peer)

    return behave


def tunnelling(to: int, password: str | None = None) -> Behaviour:
    """A proxy that connects every tunnel to the loopback port `to`; 407 without `user:password` in base64."""

    def behave(peer: Peer) -> None:
        heard = peer.hear()
        if heard is None:
            return
        if password is not None and heard.headers.get("proxy-authorization") != f"Basic {password}":
            peer.answer(407, {"proxy-authenticate": "Basic"})
            return
        with socket.create_connection(("127.0.0.1", to)) as beyond:
            peer.connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=_pump, args=(beyond, peer.connection, bytearray()), daemon=True)
            back.start()
            _pump(peer.connection, beyond, peer.server.relayed)
            back.join(10)
        peer.connection.close()

    return behave


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            seen += part
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
