"""What a platform runs, as a process on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backend import KEY, Backend

PATIENCE = 40.0
"""Seconds for a server to start or to stop on a busy machine."""


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    url: str

    def terminate(self) -> int:
        """Send SIGTERM to every process of it, as a container's end does, and wait."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


def to_backend(backend: Backend, **more: str) -> dict[str, str]:
    """An environment in which nothing leaves before a flush, a full batch or the end."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return {
        **plain,
        "LUMIQTRACE_API_KEY": KEY,
        "LUMIQTRACE_BASE_URL": backend.url,
        "LUMIQTRACE_FLUSH_INTERVAL": "600",
        "LUMIQTRACE_BATCH_SIZE": "100",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def serving(
    command: Sequence[str], port: int, environ: Mapping[str, str], folder: Path | None = None
) -> Iterator[Served]:
    """Run `command`, which listens on `port`; its processes are killed at the end."""
    process = subprocess.Popen(command, env=environ, cwd=folder, start_new_session=True)
    try:
        wait_until_open(process, port)
        yield Served(process, f"http://127.0.0.1:{port}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "the server ended at its start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.02)  # a port that nobody listens on cannot be waited for
        else:
            return
