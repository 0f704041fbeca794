"""`examples/serverless/cloud_run` runs by the command of its Dockerfile, and gives the trace of its README."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import httpx
from served import free_port, serving, to_backend

from lumiqtrace.demo.provider import serving as provider

EXAMPLE = Path(__file__).parents[2] / "examples" / "serverless" / "cloud_run"
QUESTION = {"message": "My kettle leaks. Can I return it?", "user": "ada"}


def command(port):
    """What the container runs, on loopback alone."""
    (line,) = re.findall(r"^CMD (exec gunicorn .*)$", (EXAMPLE / "Dockerfile").read_text(), re.MULTILINE)
    assert '":${PORT:-8080}"' in line
    return ["sh", "-c", line.replace('":${PORT:-8080}"', f"127.0.0.1:{port}")]


def test_it_gives_the_trace_that_its_readme_shows(backend):
    port = free_port()
    with provider() as models:
        environ = to_backend(
            backend,
            K_SERVICE="chat",
            OPENAI_BASE_URL=models,
            OPENAI_API_KEY="no-key-needed",
            PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        )
        with serving(command(port), port, environ, EXAMPLE) as served:
            assert httpx.get(f"{served.url}/health", timeout=40).json() == {"status": "ok"}
            assert not backend.events
            answer = httpx.post(f"{served.url}/chat", json=QUESTION, timeout=40)
            assert answer.json() == {"answer": "yes"}
            # Delivered before the answer was complete.
            chat, root = sorted(backend.events, key=lambda event: "parent_span_id" not in event)
            assert served.terminate() == 0
    assert len(backend.events) == 2
    assert (root["name"], root["user_id"]) == ("POST /chat", "ada")
    assert root["tags"]["http.status_code"] == "200"
    assert root["trace_id"] == chat["trace_id"] == answer.headers["x-lumiqtrace-id"]
    assert (chat["parent_span_id"], chat["operation"]) == (root["span_id"], "chat")
    assert chat["model"].startswith("gpt-4o-mini")
    assert chat["output_tokens"] > 0
    assert chat["cost_usd"] > 0


def test_what_it_requires_is_what_it_imports():
    required = (EXAMPLE / "requirements.txt").read_text().split()
    assert {re.match(r"[a-z]+", line)[0] for line in required} == {"flask", "gunicorn", "lumiqtrace"}
    assert "lumiqtrace[openai]" in required
