"""Real servers in processes of their own: every request's events are delivered although SIGTERM follows at once."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from backend import KEY

HERE = Path(__file__).parent
REQUESTS = 200

SERVERS = {
    "uvicorn": ["uvicorn", "--fd", "{fd}"],
    "hypercorn": ["hypercorn", "--bind", "fd://{fd}"],
    "gunicorn-uvicorn": ["gunicorn", "-k", "uvicorn.workers.UvicornWorker", "--bind", "fd://{fd}"],
    "gunicorn-uvicorn-preload": [
        "gunicorn", "-k", "uvicorn.workers.UvicornWorker", "--preload", "-w", "2", "--bind", "fd://{fd}",
    ],
    "gunicorn-asgi": ["gunicorn", "-k", "asgi", "--bind", "fd://{fd}"],
}  # fmt: skip


@contextmanager
def serving(command, backend, *, traced):
    """A server on a free port of loopback; gives its process and its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        listening.set_inheritable(True)
        fd = listening.fileno()
        arguments = [part.format(fd=fd) for part in command]
        environment = {**os.environ, "TRACED": str(int(traced)), "KEY": KEY, "BACKEND": backend.url}
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments, "served_asgi:app"], cwd=HERE, env=environment, pass_fds=[fd],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield process, listening.getsockname()[1]
        finally:
            process.kill()
            process.communicate()


def ask(port, paths):
    """One connection, one request after the other; gives status, headers and body of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answers = []
    for path in paths:
        connection.request("GET", path)
        response = connection.getresponse()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        answers.append((response.status, headers, response.read()))
    connection.close()
    return answers


def run_to_its_end(command, backend, *, traced):
    """200 requests on four connections, then SIGTERM at once; gives the exit status and the answers."""
    with serving(command, backend, traced=traced) as (process, port):
        parts = [[f"/items/{n}" for n in range(start, REQUESTS, 4)] for start in range(4)]
        with ThreadPoolExecutor(4) as threads:
            answers = [answer for part in threads.map(lambda part: ask(port, part), parts) for answer in part]
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
    assert "Traceback" not in output, output
    return process.returncode, answers


def unmarked(answers):
    """Answers without what differs from one request to the next."""
    varies = ("date", "x-lumiqtrace-id")
    return [
        (code, [pair for pair in headers if pair[0] not in varies], body) for code, headers, body in answers
    ]


@pytest.mark.parametrize("server", SERVERS)
def test_every_event_is_delivered_and_the_exit_is_what_it_is_without_us(backend, server):
    command = SERVERS[server]
    without, plain = run_to_its_end(command, backend, traced=False)
    assert backend.events == []
    status, answers = run_to_its_end(command, backend, traced=True)
    requests = [event for event in backend.events if event["name"] == "GET /items/{item}"]
    inner = {event["trace_id"] for event in backend.events if event["name"] == "look up"}
    assert sorted(int(event["tags"]["http.path"].rpartition("/")[2]) for event in requests) == [
        *range(REQUESTS)
    ]
    assert {event["trace_id"] for event in requests} == inner
    assert len(backend.events) == 2 * REQUESTS
    assert status == without
    assert unmarked(answers) == unmarked(plain)
    shown = {dict(headers)["x-lumiqtrace-id"] for _, headers, _ in answers}
    assert shown == inner


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_without_requests_the_server_ends_as_it_does_without_us(backend, server):
    ends = []
    for traced in (False, True):
        with serving(SERVERS[server], backend, traced=traced) as (process, port):
            assert ask(port, ["/quiet"])[0][0] == 200
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            ends.append(process.returncode)
    assert ends[0] == ends[1]
    assert backend.requests == []


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "gunicorn-asgi"])
def test_a_client_that_leaves_a_stream_gives_a_cancelled_request(backend, server):
    with serving(SERVERS[server], backend, traced=True) as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n")
            received = b""
            while b"tick" not in received:
                received += client.recv(4096)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)
    [event] = backend.events
    assert b"x-lumiqtrace-id: " + event["trace_id"].encode() in received
    assert (event["name"], event["status"]) == ("GET /endless", "cancelled")
