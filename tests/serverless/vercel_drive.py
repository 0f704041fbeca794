"""Vercel's own Python runtime as the platform drives it: over its unix socket, under a Python it supports."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ("vercel-runtime>=0.24", "vercel>=0.12")
FRAMEWORKS = ("flask>=3.0", "fastapi>=0.110", "openai>=1.40")
NAMES = ("python3.14", "python3.13", "python3.12")
OLDEST = (3, 12)


def python_for_vercel() -> str | None:
    """A Python that the runtime supports: this one, by its name on the PATH, pyenv's or uv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, *(found for name in NAMES if (found := shutil.which(name)))]
    candidates += sorted((str(each) for each in pyenv.glob("3.1[2-9]*/bin/python")), reverse=True)
    if uv := shutil.which("uv"):
        asked = subprocess.run([uv, "python", "find", ">=3.12"], capture_output=True, text=True, check=False)
        candidates.append(asked.stdout.strip())
    return next((each for each in candidates if each and _is_new_enough(each)), None)


def _is_new_enough(executable: str) -> bool:
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([executable, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def environment(cache: Path) -> Path:
    """The Python of an environment with the runtime; made once, and then kept in `cache`."""
    executable = python_for_vercel()
    if executable is None:
        pytest.skip("vercel-runtime was not run: it needs Python 3.12 or newer, and none was found")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*RUNTIME, *FRAMEWORKS, *project["dependencies"]]
    key = hashlib.sha256("\n".join([executable, *wanted]).encode()).hexdigest()[:12]
    folder = cache / key
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True
        )
        complete.touch()
    return python


class Runtime:
    """A running function: its URL, and the messages it sent to the platform."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.messages: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        (started,) = self.of("server-started")
        return f"http://127.0.0.1:{started['httpPort']}"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message["payload"] for message in self.messages if message["type"] == kind]

    def ended(self, number: int, seconds: float = 20.0) -> bool:
        """Whether `number` invocations end within `seconds`."""
        return self.wait("end", number, seconds)

    def wait(self, kind: str, number: int, seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        with self._changed:
            while len(self.of(kind)) < number:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def listen(self, listening: socket.socket) -> None:
        """Read messages until the function's end; each is JSON, closed by a zero byte."""
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as stream:
            waiting = b""
            while piece := stream.read1():
                *whole, waiting = (waiting + piece).split(b"\0")
                with self._changed:
                    self.messages += [json.loads(each) for each in whole]
                    self._changed.notify_all()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


@contextmanager
def function(python: Path, entrypoint: Path, variable: str, environ: Mapping[str, str]) -> Iterator[Runtime]:
    """Run `variable` of the file `entrypoint`, as the platform's trampoline does."""
    with tempfile.TemporaryDirectory(prefix="vc") as folder, socket.socket(socket.AF_UNIX) as listening:
        path = os.path.join(folder, "ipc")  # noqa: PTH118 - such a path may have 100 characters
        listening.bind(path)
        listening.listen()
        process = subprocess.Popen(
            [python, "-c", "import vercel_runtime.vc_init"],
            env={
                **environ,
                "VERCEL": "1",
                "VERCEL_IPC_PATH": path,
                "PYTHONPATH": os.pathsep.join([environ.get("PYTHONPATH", ""), str(ROOT / "src")]),
                "__VC_HANDLER_ENTRYPOINT": f"api/{entrypoint.name}",
                "__VC_HANDLER_ENTRYPOINT_ABS": str(entrypoint),
                "__VC_HANDLER_MODULE_NAME": entrypoint.stem,
                "__VC_HANDLER_VARIABLE_NAME": variable,
                "__VC_HANDLER_VENDOR_DIR": "_vendor",
            },
        )
        runtime = Runtime(process)
        thread = threading.Thread(target=runtime.listen, args=[listening])
        thread.start()
        try:
            assert runtime.wait("server-started", 1, 40), "the function did not start"
            yield runtime
        finally:
            process.kill()
            process.wait()
            thread.join()
