"""What recording costs the program that is recorded, beside three peers, in one run.

    python benchmarks/overhead.py

Makes an environment for each peer under `benchmarks/.envs` (once for the Python that runs this), runs
`overhead_probe.py` in each, and prints the medians with their ratios to ours. The model provider is a mock
transport in the process; the events go to a sink in a process of its own, so that receiving them is nobody's
overhead.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import venv
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".envs" / f"{sys.version_info.major}.{sys.version_info.minor}"

PEERS = {
    "lumiqtrace": ["-e", str(HERE.parent)],
    "openinference": [
        "openinference-instrumentation-openai",
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-http",
    ],
    "langfuse": ["langfuse"],
    "sentry": ["sentry-sdk"],
}

ROWS = {
    "blocking": ("blocking call, calling thread", "us"),
    "blocking_all": ("blocking call, all threads", "us"),
    "async": ("async call, calling thread", "us"),
    "stream_chunk": ("stream of 100 chunks, per chunk", "us"),
    "setup": ("import + init + patch, after openai", "ms"),
}

LIMITS = {"blocking": 30.0, "blocking_all": 100.0, "async": 40.0, "stream_chunk": 1.0, "setup": 10.0}
"""What we allow ourselves, on the machine of `REFERENCE`."""

REFERENCE = {
    "openinference": {"blocking": 292.0, "blocking_all": 392.0, "setup": 117.0},
    "langfuse": {"blocking": 237.0, "blocking_all": 314.0, "stream_chunk": 6.3},
    "sentry": {"blocking": 923.0, "stream_chunk": 4.6, "setup": 99.0},
}
"""What the peers took where the limits were set: two shared cores, CPython 3.12, openai 3.52."""


class Sink(BaseHTTPRequestHandler):
    """Takes anything, keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        # In one segment: two would wait for each other's acknowledgement, 40 ms.
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    def log_message(self, *_: object) -> None:
        pass


def run_sink(port: multiprocessing.Queue[int]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    port.put(server.server_port)
    server.serve_forever()


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment, made where it is missing."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making an environment for {peer} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-q", "openai", *PEERS[peer]]
        subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
        (folder / "ready").touch()
    return python


def probe(peer: str, sink: str, what: str) -> dict[str, float]:
    command = [str(python_of(peer)), str(HERE / "overhead_probe.py"), peer, sink, what]
    # Compiled modules are kept, as they are where a program is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':40}" + "".join(f"{peer:>22}" for peer in results)]
    for key, (title, unit) in ROWS.items():
        ours = results["lumiqtrace"][key]
        cells = [
            f"{found[key]:8.1f} {unit}" + (f" {found[key] / ours:8.1f} x" if ours > 0 else " " * 11)
            for found in results.values()
        ]
        lines.append(f"{title:40}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def slowness(results: dict[str, dict[str, float]]) -> float:
    """How many times as long as the reference machine this one takes, judged by the peers."""
    return statistics.median(
        results[peer][row] / there for peer, rows in REFERENCE.items() for row, there in rows.items()
    )


def verdict(results: dict[str, dict[str, float]]) -> str:
    """Which limits were kept, on this machine's clock and on the reference machine's."""
    times = slowness(results)
    lines = [f"By its peers this machine takes {times:.2f} times as long as the one the limits were set on."]
    for row, limit in LIMITS.items():
        title, unit = ROWS[row]
        ours = results["lumiqtrace"][row]
        kept = "kept" if ours <= limit else "kept there" if ours <= limit * times else "BROKEN"
        lines.append(f"{title:40}{ours:8.1f} {unit}, there {ours / times:6.1f}; limit {limit:5.0f}: {kept}")
    return "\n".join(lines)


def main() -> None:
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    sink_process = multiprocessing.Process(target=run_sink, args=(ports,), daemon=True)
    sink_process.start()
    sink = f"http://127.0.0.1:{ports.get()}"
    results = {}
    for peer in PEERS:
        calls = probe(peer, sink, "calls")
        setups = sorted(probe(peer, sink, "setup")["setup"] for _ in range(7))
        results[peer] = {**calls, "setup": setups[3]}
    sink_process.terminate()
    print("Added CPU time, medians of paired blocks in one process (setup: of 7 processes)\n")
    print(table(results))
    print()
    print(verdict(results))


if __name__ == "__main__":
    main()
