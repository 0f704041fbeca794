"""AWS Lambda on loopback: its Runtime and Extensions API, and a sandbox that freezes as the service's does.

In the sandbox runs AWS's own runtime client, `python -m awslambdaric`. The paths and headers are those of the
developer guide's pages on the two interfaces.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import awslambdaric  # noqa: F401 - where the runtime is missing, all that need it fail here
from backend import KEY

RUNTIME = "/2018-06-01/runtime"
EXTENSION = "/2020-01-01/extension"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:checkout"

START = """
import asyncio, logging, os, sys, threading, time
import lumiqtrace
from lumiqtrace.integrations.aws_lambda import traced_handler
lumiqtrace.init()
def work(name="work"):
    with lumiqtrace.span(name):
        pass
"""


@dataclass
class Answer:
    """What a handler answered: `kind` is `response` or `error`, `seconds` how long that took."""

    request_id: str
    kind: str = ""
    body: bytes = b""
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Invocation:
    body: bytes
    deadline: float
    headers: dict[str, str]
    answer: Answer
    began: float = field(default_factory=time.monotonic)


class Api:
    """`timeline` says in which order things happened. `registration` is the status of registrations, `told`
    what extensions are told instead of the truth, `failures` how often they are told nothing but an error."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.timeline: list[str] = []
        self.waiting: set[str] = set()
        self.extensions: dict[str, str] = {}
        self.registration = 200
        self.failures = 0
        self.answers_registrations = threading.Event()
        self.answers_registrations.set()
        self.told: dict[str, Any] = {}
        self.initialised = False
        self.closed = False
        self.address = ""
        self._invocations: deque[Invocation] = deque()
        self._events: deque[dict[str, Any]] = deque()
        self._running: dict[str, Invocation] = {}

    def note(self, what: str) -> None:
        with self.changed:
            self.timeline.append(what)
            self.changed.notify_all()

    def wait_for(self, condition, seconds: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"still waiting; so far {self.timeline}"

    def invoke(self, event: Any = None, seconds: float = 30.0, **headers: str) -> Answer:
        # The service begins one when the last is over, its extensions' part included, as initialising is.
        self.wait_for(self.is_idle)
        body = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
        answer = Answer(str(uuid.uuid4()))
        deadline = time.time() + seconds
        invocation = Invocation(body, deadline, headers, answer)
        with self.changed:
            self._invocations.append(invocation)
            if self.extensions:
                told = {
                    "eventType": "INVOKE",
                    "requestId": answer.request_id,
                    "deadlineMs": int(deadline * 1000),
                }
                self._events.append(told | self.told)
            self.changed.notify_all()
        self.wait_for(lambda: answer.kind)
        return answer

    def is_idle(self) -> bool:
        """Whether the service may freeze the sandbox: everybody waits for the next event."""
        everybody = {"runtime"} | ({"extension"} if self.extensions else set())
        return self.waiting == everybody and not self._invocations and not self._events

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    # ---- the paths -----------------------------------------------------------------------------------

    def next_invocation(self) -> tuple[int, dict[str, str], bytes]:
        found = self._wait("runtime", self._invocations)
        if found is None:
            return 500, {}, b""
        self._running[found.answer.request_id] = found
        headers = {
            "Lambda-Runtime-Aws-Request-Id": found.answer.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(found.deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": "Root=1-65a1-0123;Sampled=1",
            **{f"Lambda-Runtime-{name.replace('_', '-')}": value for name, value in found.headers.items()},
        }
        return 200, headers, found.body

    def answered(self, request_id: str, kind: str, body: bytes) -> None:
        invocation = self._running.pop(request_id)
        with self.changed:
            answer = invocation.answer
            answer.body, answer.seconds = body, time.monotonic() - invocation.began
            answer.kind = kind
            self.timeline.append(kind)
            self.changed.notify_all()

    def register(self, name: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        status = self.registration
        if self.initialised or json.loads(body)["events"] != ["INVOKE"]:
            status = 403
        self.note(f"register {status}")
        if status != 200:
            return status, {}, b'{"errorType": "Extension.RegistrationClosed"}'
        identifier = str(uuid.uuid4())
        self.extensions[identifier] = name
        self.answers_registrations.wait(20)
        return 200, {"Lambda-Extension-Identifier": identifier}, b"{}"

    def next_event(self, identifier: str) -> tuple[int, dict[str, str], bytes]:
        if identifier not in self.extensions:
            return 403, {}, b"{}"
        if self.failures:
            self.failures -= 1
            return 500, {}, b"{}"
        found = self._wait("extension", self._events)
        return (500, {}, b"") if found is None else (200, {}, json.dumps(found).encode())

    def _wait(self, who: str, queue: deque[Any]) -> Any:
        with self.changed:
            self.initialised = self.initialised or who == "runtime"
            self.waiting.add(who)
            self.timeline.append(f"{who} next")
            self.changed.notify_all()
            self.changed.wait_for(lambda: queue or self.closed)
            self.waiting.discard(who)
            return None if self.closed else queue.popleft()


@contextmanager
def serving():
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == RUNTIME + "/invocation/next":
                self._answer(*api.next_invocation())
            elif self.path == RUNTIME + "/restore/next":
                api.note("restore next")
                self._answer(200, {}, b"")
            else:
                assert self.path == EXTENSION + "/event/next", self.path
                self._answer(*api.next_event(self.headers["Lambda-Extension-Identifier"]))

        def do_POST(self) -> None:
            body = (
                self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-length"]
                else b""
            )
            if self.path == EXTENSION + "/register":
                self._answer(*api.register(self.headers["Lambda-Extension-Name"], body))
                return
            if "/invocation/" in self.path:
                *_, request_id, kind = self.path.split("/")
                api.answered(request_id, kind, body)
            else:
                api.note(f"{self.path} {body.decode()}")
            self._answer(202, {}, b"")

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with suppress(OSError):  # the sandbox was killed
                super().handle()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.close()
        server.shutdown()
        thread.join()
        server.server_close()


class Sandbox:
    """A process with AWS's runtime client. With `freezes` it is stopped whenever it may be."""

    def __init__(self, api: Api, process: subprocess.Popen[str], *, freezes: bool) -> None:
        self.api = api
        self.process = process
        self._freezes = freezes
        self._frozen = False

    def invoke(self, event: Any = None, seconds: float = 30.0, **headers: str) -> Answer:
        """One invocation; the sandbox is thawed for it, and stops when all have asked for the next."""
        if self._frozen:
            self.process.send_signal(signal.SIGCONT)
            self._frozen = False
        answer = self.api.invoke(event, seconds, **headers)
        if self._freezes:
            self.api.wait_for(self.api.is_idle)
            self.process.send_signal(signal.SIGSTOP)
            os.waitpid(self.process.pid, os.WUNTRACED)
            self._frozen = True
        return answer

    def output(self) -> str:
        """End it, and give what it printed."""
        self.process.kill()
        return self.process.stdout.read()


@contextmanager
def sandbox(folder, code, backend_url, *, api=None, freezes=False, start=START, **environ):
    """The function `app.handler` of `code` in a sandbox of its own."""
    (folder / "app.py").write_text(textwrap.dedent(start) + textwrap.dedent(code), encoding="utf-8")
    with ExitStack() as stack:
        api = stack.enter_context(serving()) if api is None else api
        yield stack.enter_context(running(folder, api, backend_url, freezes=freezes, **environ))


@contextmanager
def running(folder, api, backend_url, *, freezes=False, **environ):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "_X_AMZN"))}
    path = os.pathsep.join(filter(None, [str(folder), kept.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "app.handler"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=kept | {
            "AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_FUNCTION_NAME": "checkout",
            "AWS_LAMBDA_FUNCTION_VERSION": "7", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_REGION": "eu-central-1", "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "LUMIQTRACE_API_KEY": KEY, "LUMIQTRACE_BASE_URL": backend_url,
            "LUMIQTRACE_FLUSH_INTERVAL": "3600", "PYTHONPATH": path, **environ,
        },
    )  # fmt: skip
    try:
        yield Sandbox(api, process, freezes=freezes)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def invocations(backend) -> list[dict[str, Any]]:
    """The invocations' own events, in the order of their delivery."""
    return [event for event in backend.events if "faas.trigger" in event.get("tags", {})]
