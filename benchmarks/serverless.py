"""What a cold AWS Lambda process costs more with a tracer, beside two peers' Lambda wrappers, in one run.

    python benchmarks/serverless.py

Makes an environment for each under `benchmarks/.envs` (once), in which the real runtime client, awslambdaric,
runs `serverless_function.py` against a stand-in for Lambda's Runtime API: one invocation, and the process is
ended when it asks for the next. Counted is all the CPU time of that process, import to last request.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import venv
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from overhead import ENVIRONMENTS, HERE, run_sink

RUNTIME = ["awslambdaric", "openai"]
PEERS = {
    "lumiqtrace": ["-e", str(HERE.parent)],
    "opentelemetry": [
        "opentelemetry-instrumentation-aws-lambda",
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-http",
        "openinference-instrumentation-openai",
    ],
    "sentry": ["sentry-sdk"],
}
ROUNDS = 31
LIMIT = 50.0
"""Milliseconds of CPU that we allow ourselves."""


class RuntimeApi(BaseHTTPRequestHandler):
    """One invocation; whoever asks for a second one waits."""

    protocol_version = "HTTP/1.1"
    invoked = threading.Event()
    over = threading.Event()
    answer = b""

    def do_GET(self) -> None:
        if self.invoked.is_set():
            self.over.set()
            time.sleep(60)
            return
        self.invoked.set()
        self._reply(200, b'{"question": "hello"}', deadline=int((time.time() + 30) * 1000))

    def do_POST(self) -> None:
        RuntimeApi.answer = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._reply(202, b"{}")

    def _reply(self, status: int, body: bytes, deadline: int = 0) -> None:
        self.send_response(status)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:1:function:f")
        self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment, made where it is missing."""
    folder = ENVIRONMENTS / f"lambda-{peer}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making an environment for {peer} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *RUNTIME, *PEERS[peer]], check=True)
        (folder / "ready").touch()
    return python


def cpu_of_one_process(peer: str, tracer: str, api: str, sink: str) -> float:
    """Milliseconds of CPU, user and system, of a process that serves one invocation."""
    RuntimeApi.invoked.clear()
    RuntimeApi.over.clear()
    RuntimeApi.answer = b""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "AWS_LAMBDA_RUNTIME_API": api,
        "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_REGION": "eu-west-1",
        "_HANDLER": "serverless_function.handler",
        "LAMBDA_TASK_ROOT": str(HERE),
        "PYTHONPATH": str(HERE),
        "TRACER": tracer,
        "SINK": sink,
    }
    command = [str(python_of(peer)), "-m", "awslambdaric", "serverless_function.handler"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if not RuntimeApi.over.wait(30) or json.loads(RuntimeApi.answer).get("statusCode") != 200:
        process.kill()
        raise RuntimeError(f"{tracer}: {RuntimeApi.answer!r} {process.communicate()[1]!r}")
    process.send_signal(signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it was waited for above
    assert process.stderr is not None
    process.stderr.close()
    return (usage.ru_utime + usage.ru_stime) * 1e3


def measure(peer: str, api: str, sink: str) -> tuple[float, float]:
    """Medians: what a process without a tracer takes in this environment, and what the tracer adds."""
    pairs = []
    for round_ in range(ROUNDS + 1):
        order = ("bare", peer) if round_ % 2 else (peer, "bare")
        found = {tracer: cpu_of_one_process(peer, tracer, api, sink) for tracer in order}
        pairs.append((found["bare"], found[peer] - found["bare"]))
    pairs = pairs[1:]  # the first one compiled the modules
    return statistics.median(bare for bare, _ in pairs), statistics.median(added for _, added in pairs)


def main() -> None:
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    sink_process = multiprocessing.Process(target=run_sink, args=(ports,), daemon=True)
    sink_process.start()
    sink = f"http://127.0.0.1:{ports.get()}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = f"127.0.0.1:{server.server_port}"
    results = {peer: measure(peer, api, sink) for peer in PEERS}
    sink_process.terminate()
    print(f"CPU of a cold Lambda process that serves one invocation, medians of {ROUNDS} pairs\n")
    ours = results["lumiqtrace"][1]
    for peer, (bare, added) in results.items():
        print(f"{peer:16}{added:8.1f} ms more than {bare:.0f} ms {added / ours:8.1f} x")
    print(f"\nThe limit is {LIMIT:.0f} ms: {'kept' if ours <= LIMIT else 'BROKEN'}.")


if __name__ == "__main__":
    main()
