"""What the ASGI middleware adds to a request, beside OpenTelemetry's and Sentry's, in one run.

    python benchmarks/middleware.py

Makes an environment for each under `benchmarks/.envs` (once), runs `middleware_probe.py` in each, and prints
the CPU time that a request costs more. What is recorded goes to a sink in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import venv
from pathlib import Path

from overhead import ENVIRONMENTS, HERE, run_sink

PEERS = {
    "lumiqtrace": ["-e", str(HERE.parent)],
    "opentelemetry": [
        "opentelemetry-instrumentation-asgi",
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-http",
    ],
    "sentry": ["sentry-sdk"],
}

LIMIT = 60.0
"""Microseconds of CPU that we allow ourselves."""


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment, made where it is missing."""
    folder = ENVIRONMENTS / f"asgi-{peer}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making an environment for {peer} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[peer]], check=True)
        (folder / "ready").touch()
    return python


def probe(peer: str, sink: str) -> dict[str, float]:
    command = [str(python_of(peer)), str(HERE / "middleware_probe.py"), peer, sink]
    # Compiled modules are kept, as they are where a program is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    sink_process = multiprocessing.Process(target=run_sink, args=(ports,), daemon=True)
    sink_process.start()
    sink = f"http://127.0.0.1:{ports.get()}"
    results = {peer: probe(peer, sink) for peer in PEERS}
    sink_process.terminate()
    print("CPU time that the middleware adds to a request, medians of paired blocks in one process\n")
    ours = results["lumiqtrace"]["added"]
    for peer, found in results.items():
        print(f"{peer:16}{found['added']:8.1f} us {found['added'] / ours:8.1f} x")
    print(f"\nThe limit is {LIMIT:.0f} us: {'kept' if ours <= LIMIT else 'BROKEN'}.")


if __name__ == "__main__":
    main()
