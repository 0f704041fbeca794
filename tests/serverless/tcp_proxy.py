"""A way to the backend that can be cut, closed or made to swallow everything."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends a reset."""


class Proxy:
    """`url` leads to the backend. `swallows`: bytes go nowhere. `connections` counts those that came."""

    def __init__(self, port: int) -> None:
        self.swallows = False
        self.connections = 0
        self._target = port
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close_connections(self, *, reset: bool = False) -> None:
        """End every connection there is, as a backend does with those that were idle for long."""
        with self._lock:
            closing, self._open = self._open, []
        for each in closing:
            if reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            each.close()

    def run(self) -> None:
        while True:
            try:
                came, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            to = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [came, to]
            for source, sink in ((came, to), (to, came)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.swallows:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.close_connections()


@contextmanager
def proxied(url: str):
    proxy = Proxy(int(url.rpartition(":")[2]))
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
