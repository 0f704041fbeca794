"""The example runs as its README says: under uvicorn, without a provider key."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from backend import KEY

FOLDER = Path(__file__).parents[2] / "examples" / "fastapi"
QUESTION = {"text": "My kettle leaks. Can I return it?", "user_id": "u-7", "token": "tok-hidden"}


@contextmanager
def running_example(**environment):
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        command = [sys.executable, "-m", "uvicorn", "app:app", "--fd", str(listening.fileno())]
        process = subprocess.Popen(
            command, cwd=FOLDER, env=kept | environment, pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=15) as http:
                yield http
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
            assert "Traceback" not in output, output
        finally:
            process.kill()
            process.communicate()


def test_the_traces_are_those_of_the_readme(backend):
    with running_example(LUMIQTRACE_API_KEY=KEY, LUMIQTRACE_BASE_URL=backend.url) as http:
        asked = http.post("/ask", json=QUESTION)
        streamed = http.post("/ask/stream", json={"text": "Can a gift card be paid out?"})
        assert http.get("/health").text == '"ok"'
    by_trace = {}
    for event in backend.events:
        by_trace.setdefault(event["trace_id"], {})[event.get("name") or event["operation"]] = event
    assert set(by_trace) == {asked.headers["x-lumiqtrace-id"], streamed.headers["x-lumiqtrace-id"]}

    trace = by_trace[asked.json()["trace_id"]]
    request = trace["POST /ask"]
    assert request["user_id"] == "u-7"
    assert request["tags"]["http.status_code"] == "200"
    assert request["metadata"]["http.request.body"]["content"] == QUESTION | {"token": "[REDACTED]"}
    assert "tok-hidden" not in str(backend.events)
    search, embed, chat = trace["search documents"], trace["embed"], trace["chat"]
    assert search["span_kind"] == "retriever"
    assert embed["parent_span_id"] == search["span_id"]
    assert {search["parent_span_id"], chat["parent_span_id"]} == {request["span_id"]}
    assert trace["file the question"]["parent_span_id"] == request["span_id"]
    assert chat["input_tokens"] > 0
    assert chat["cost_usd"] > 0

    trace = by_trace[streamed.headers["x-lumiqtrace-id"]]
    assert "Order 1042" in streamed.text
    assert trace["chat"]["stream"] is True
    assert trace["POST /ask/stream"]["latency_ms"] >= trace["chat"]["latency_ms"]


@pytest.mark.parametrize("key", [{}, {"LUMIQTRACE_API_KEY": ""}])
def test_it_runs_without_any_key(backend, key):
    with running_example(LUMIQTRACE_BASE_URL=backend.url, **key) as http:
        answer = http.post("/ask", json=QUESTION)
        assert (answer.status_code, answer.json()["answer"]) == (200, "yes")
        assert "x-lumiqtrace-id" not in answer.headers
    assert backend.requests == []
