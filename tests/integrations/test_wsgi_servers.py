"""Real WSGI servers: every request's event is delivered before they end, and they end and answer as ever."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from backend import KEY
from wsgi_helpers import roots, tag

HERE = Path(__file__).parent
GUNICORN = [
    sys.executable,
    "-m",
    "gunicorn",
    "--chdir",
    str(HERE),
    "--bind",
    "fd://{fd}",
    "--log-level",
    "error",
]
SERVERS = {
    "gunicorn sync": [*GUNICORN, "--workers", "2", "wsgi_site:app"],
    "gunicorn gthread": [*GUNICORN, "--workers", "2", "--threads", "4", "wsgi_site:app"],
    "gunicorn preload": [*GUNICORN, "--workers", "2", "--preload", "wsgi_site:app"],
    "werkzeug": [sys.executable, str(HERE / "wsgi_site.py"), "{fd}"],
}

REQUESTS = 250
"""More than two full batches, so that something is left for the end."""


@dataclass
class Site:
    process: subprocess.Popen[bytes]
    url: str
    address: tuple[str, int]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def serving(server, backend, traced=""):
    """A server on a socket that listens already: what is sent before it is up waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        fd = listening.fileno()
        process = subprocess.Popen(
            [part.format(fd=fd) for part in SERVERS[server]],
            pass_fds=[fd],
            env={
                **os.environ,
                "TRACED": traced,
                "KEY": KEY,
                "LUMIQTRACE_BASE_URL": backend.url,
                "PYTHONHASHSEED": "0",  # Flask lists a route's methods in the order of a set
            },
            stdout=subprocess.DEVNULL,
            stderr=None,  # pytest shows it where a test fails
        )
        host, port = listening.getsockname()
    try:
        yield Site(process, f"http://{host}:{port}", (host, port))
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("server", SERVERS)
def test_every_request_is_delivered_when_the_server_is_told_to_stop(server, backend):
    def get(number):
        kind = "stream" if number % 5 == 0 else "items"
        answer = http.get(f"/{kind}/{number}")
        assert answer.status_code == 200, answer.text
        return answer.headers["x-lumiqtrace-id"]

    with serving(server, backend, "with header") as site:
        with httpx.Client(base_url=site.url, timeout=30) as http, ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(get, range(REQUESTS)))
        traced_exit = site.stop()
    with serving(server, backend) as site:
        httpx.get(f"{site.url}/items/1", timeout=30)
        assert site.stop() == traced_exit

    assert sorted(found["trace_id"] for found in roots(backend)) == sorted(ids)
    assert {found["name"] for found in roots(backend)} == {
        "GET /items/<int:number>",
        "GET /stream/<int:number>",
    }
    assert len({found["event_id"] for found in backend.events}) == len(backend.events) == 2 * REQUESTS
    for found in backend.events:
        number = re.search(r"\d+", tag(found, "http.path") or found["name"])
        assert found["trace_id"] == ids[int(number[0])]


PATHS = [
    "/items/7", "/stream/7", "/file", "/memory", "/fails", "/missing", "/odd/writes", "/odd/length_of_one_piece",
    "/odd/nothing", "/odd/raises_late", "/odd/reads", "/odd/a_file",
]  # fmt: skip


def raw(address, method, path, body=b""):
    """All bytes of the answer, but for the time of day."""
    with socket.create_connection(address, timeout=30) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    answer = re.sub(rb"\r\n(Date|Expires): [^\r]*", b"", answer)
    return re.sub(rb'"trace":("\w+"|null)', b"", answer)


@pytest.mark.parametrize("server", SERVERS)
def test_answers_are_the_same_byte_for_byte(server, backend):
    def answers(site):
        asked = [("GET", path, b"") for path in PATHS] + [("HEAD", path, b"") for path in PATHS]
        asked += [("POST", "/odd/reads", b"two\nlines\nand more"), ("POST", "/items/7", b"{}")]
        found = {each[:2]: raw(site.address, *each) for each in asked}
        site.stop()
        return found

    with serving(server, backend) as site:
        plain = answers(site)
    with serving(server, backend, "without header") as site:
        traced = answers(site)
    # Flask writes the length of the trace's id into the answer, which is none without us.
    lengths = {("GET", "/items/7"), ("HEAD", "/items/7")}
    assert {key: traced[key] for key in traced if key not in lengths} == {
        key: plain[key] for key in plain if key not in lengths
    }
    assert all(plain.values())
    assert len(roots(backend)) == len(traced)


@pytest.mark.parametrize("server", SERVERS)
def test_failures_and_clients_that_leave(server, backend):
    with serving(server, backend, "with header") as site:
        assert httpx.get(f"{site.url}/fails", timeout=30).status_code == 500
        with httpx.stream("GET", f"{site.url}/endless", timeout=30) as answer:
            assert next(answer.iter_raw())
        # One worker serves one request at a time: it has given up the endless one when it answers again.
        assert httpx.get(f"{site.url}/file", timeout=30).status_code == 200
        site.stop()
    found = {event["name"]: event for event in roots(backend)}
    failed = found["GET /fails"]
    assert (failed["status"], failed["error_code"], failed["error_message"]) == (
        "error",
        "LookupError",
        "[REDACTED]",
    )
    assert failed["tags"]["http.status_code"] == "500"
    assert found["GET /file"]["status"] == "success"
    assert found["GET /endless"]["status"] == "cancelled"


@pytest.mark.parametrize("traced", ["", "with header"])
def test_ctrl_c_under_the_debugger_and_reloader(backend, traced):
    """`app.run(debug=True)`, as the documentation has it: two processes, and a terminal that signals both."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "wsgi_site.py"), "debug"],
        env={**os.environ, "TRACED": traced, "KEY": KEY, "LUMIQTRACE_BASE_URL": backend.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.:]+", line)))
        with httpx.Client(base_url=url, timeout=30) as http:
            ids = {http.get("/items/7").headers.get("x-lumiqtrace-id") for _ in range(5)}
            assert "LookupError" in http.get("/fails").text  # the debugger's page
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()
    if traced:
        *items, failed = roots(backend)
        assert {found["trace_id"] for found in items} == ids
        assert (failed["name"], failed["error_code"], failed["status"]) == (
            "GET /fails",
            "LookupError",
            "error",
        )
    else:
        assert ids == {None}
