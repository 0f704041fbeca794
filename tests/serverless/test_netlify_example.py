"""`examples/serverless/netlify` under a real node: its events are whole, and read back from the server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from backend import KEY, Answer
from served import free_port, serving

from lumiqtrace.demo.provider import serving as provider
from lumiqtrace.server import create_project

EXAMPLE = Path(__file__).parents[2] / "examples" / "serverless" / "netlify"
HOST = Path(__file__).with_name("netlify_host.mjs")
QUESTION = {"message": "My kettle leaks. Can I return it?", "user": "ada"}

REQUIRED = {
    "event_id", "trace_id", "span_id", "timestamp", "provider", "model", "operation", "latency_ms",
    "input_tokens", "output_tokens", "cost_usd", "status", "stream", "environment", "sdk_version",
}  # fmt: skip


@contextmanager
def deployed(key, url, models, **more):
    """The function under node; gives its URL."""
    node = shutil.which("node")
    assert node, "Node 20 or newer is needed to run the Netlify example, and there is no `node` on the PATH"
    environ = {
        **os.environ,
        "LUMIQTRACE_API_KEY": key,
        "LUMIQTRACE_BASE_URL": url,
        "OPENAI_BASE_URL": models,
        "OPENAI_API_KEY": "no-key-needed",
        **more,
    }
    command = [node, str(HOST), str(EXAMPLE / "netlify" / "functions" / "chat.mjs")]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def ask(url):
    return httpx.post(f"{url}/api/chat", json=QUESTION, timeout=40)


@pytest.fixture
def models():
    """The stand-in for OpenAI; its first chat in a process is refused for its rate."""
    with provider() as url:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "warm up"}]}
        while httpx.post(f"{url}/chat/completions", json=body).status_code == 429:
            pass
        yield url


def test_a_call_is_a_trace_on_the_server(models, tmp_path):
    project = create_project(tmp_path / "data", "netlify")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "lumiqtrace",
        "serve",
        "--data",
        str(tmp_path / "data"),
        "--port",
        str(port),
    ]
    with (
        serving(command, port, os.environ) as server,
        deployed(project.api_key, server.url, models, CONTEXT="deploy-preview") as url,
    ):
        answer = ask(url)
        assert (answer.status_code, answer.json()) == (200, {"answer": "yes"})
        read = httpx.get(
            f"{server.url}/v1/traces/{answer.headers['x-lumiqtrace-id']}",
            params={"projectId": project.project_id},
            headers={"authorization": f"Bearer {project.read_token}"},
        )
    (event,) = read.json()
    assert event.keys() >= REQUIRED
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", event["event_id"]
    )
    assert event["trace_id"] == answer.headers["x-lumiqtrace-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", event["span_id"])
    assert (event["provider"], event["operation"]) == ("openai", "chat")
    assert (event["model"], event["finish_reason"]) == ("gpt-4o-mini-2024-07-18", "stop")
    assert (event["status"], event["environment"]) == ("success", "deploy-preview")
    assert (event["user_id"], event["tags"]) == ("ada", {"feature": "chat"})
    used, made = event["input_tokens"], event["output_tokens"]
    assert used > 0 < made
    assert event["cost_usd"] == pytest.approx((used * 0.15 + made * 0.6) / 1e6)
    assert event["latency_ms"] > 0
    messages = [{"role": "user", "content": QUESTION["message"]}]
    prompt = json.dumps(messages, separators=(",", ":"))
    assert event["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()


def test_a_refused_call_is_an_event_with_the_providers_code(models, backend):
    with deployed(KEY, backend.url, models, MODEL="gpt-9") as url:
        answer = ask(url)
    assert (answer.status_code, answer.json()) == (502, {"error": "The model did not answer."})
    (event,) = backend.events
    assert (event["status"], event["error_code"], event["model"]) == ("error", "model_not_found", "gpt-9")
    assert event["error_message"] == "The model `gpt-9` does not exist."
    assert event.keys() >= REQUIRED
    (request,) = backend.requests
    assert request.headers["x-api-key"] == KEY
    assert request.headers["content-type"] == "application/x-ndjson"


def test_a_provider_that_is_away_is_an_event_too(backend):
    with deployed(KEY, backend.url, f"http://127.0.0.1:{free_port()}/v1") as url:
        assert ask(url).status_code == 502
    (event,) = backend.events
    assert (event["status"], event["error_code"]) == ("error", "ECONNREFUSED")


def test_a_provider_that_hangs_is_a_timeout(backend):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        deployed(
            KEY, backend.url, f"http://127.0.0.1:{silent.getsockname()[1]}/v1", MODEL_TIMEOUT_MS="50"
        ) as url,
    ):
        assert ask(url).status_code == 502
    (event,) = backend.events
    assert (event["status"], event["error_code"]) == ("timeout", "TimeoutError")


@pytest.mark.parametrize(
    "key", ["sk-proj-abc123", "gsk_abcdefghijklmnop", "AIzaSyA1234567890abc", "Bearer abcdefghijklmnop"]
)
def test_a_key_in_the_providers_message_does_not_leave(key, backend, models):
    with deployed(KEY, backend.url, models, MODEL=key) as url:
        assert ask(url).status_code == 502
    (event,) = backend.events
    assert event["error_message"] == "The model `[REDACTED]` does not exist."


@contextmanager
def answering(status, kind, body):
    """A provider that answers every call with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "told"), [(429, "rate_limited"), (502, "error")])
def test_a_proxys_page_keeps_its_status(status, told, backend):
    with (
        answering(status, "text/html", "<html>no</html>") as provider,
        deployed(KEY, backend.url, provider) as url,
    ):
        assert ask(url).status_code == 502
    (event,) = backend.events
    assert (event["status"], event["error_code"]) == (told, f"http_{status}")


@pytest.mark.parametrize("more", [{"usage": 7}, {"model": 7}, {"model": None}])
def test_an_answer_that_cannot_be_noted_is_an_answer(more, backend):
    message = {"content": "yes", "tool_calls": {}}
    with (
        answering(
            200, "application/json", json.dumps({"choices": [{"message": message}], **more})
        ) as provider,
        deployed(KEY, backend.url, provider) as url,
    ):
        assert (ask(url).status_code, ask(url).json()) == (200, {"answer": "yes"})
    first, _ = backend.events
    assert (first["status"], first["tags"]["cost"]) == ("success", "unknown")
    assert first.keys() >= REQUIRED


def test_a_failed_delivery_is_tried_again_with_the_same_event(models, backend):
    backend.answer = lambda _request: Answer(503) if len(backend.requests) < 2 else Answer(202)
    with deployed(KEY, backend.url, models) as url:
        assert ask(url).status_code == 200
    first, second, third = backend.requests
    assert first.events == second.events == third.events
    assert len(backend.events) == 1


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_delivery_that_fails_is_a_line_in_the_log_and_no_error(status, models, backend, capfd):
    backend.answer = lambda _request: Answer(status, body=b'{"error": "no"}')
    with deployed(KEY, backend.url, models) as url:
        assert ask(url).status_code == 200
    assert len(backend.requests) == (3 if status in (429, 500) else 1)
    assert f"lumiqtrace: 1 events were not delivered: {status} no" in capfd.readouterr().err
    assert KEY not in capfd.readouterr().err


def test_a_model_without_a_price_is_not_free(models, backend):
    with deployed(KEY, backend.url, models, MODEL="text-embedding-3-small") as url:
        assert ask(url).status_code == 200
    (event,) = backend.events
    assert (event["cost_usd"], event["tags"]["cost"]) == (0, "unknown")


def test_the_configuration_names_the_folder_of_the_functions():
    config = tomllib.loads((EXAMPLE / "netlify.toml").read_text())
    assert (EXAMPLE / config["functions"]["directory"] / "chat.mjs").is_file()
    assert int(config["build"]["environment"]["NODE_VERSION"]) >= 20
    assert "dependencies" not in json.loads((EXAMPLE / "package.json").read_text())
