"""`examples/flask` runs as its README says, without a provider's key."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from backend import KEY
from wsgi_helpers import roots, tag

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask"


@contextmanager
def running(backend):
    """The application in a process of its own; gives it and its URL."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environ |= {"LUMIQTRACE_API_KEY": KEY, "LUMIQTRACE_BASE_URL": backend.url, "PORT": "0"}
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=EXAMPLE, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.:]+", line)))
            yield process, url
        finally:
            process.kill()


@pytest.mark.parametrize("question", ["My kettle leaks. Can I return it?"])
def test_the_example_gives_the_trace_that_its_readme_shows(backend, question):
    with running(backend) as (process, url):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        body = {"question": question, "order_number": "1042"}
        answer = httpx.post(f"{url}/customers/ada/questions", json=body)
        assert answer.text.startswith("Yes.")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == -signal.SIGTERM

    (root,) = roots(backend)
    assert (root["name"], root["user_id"]) == ("POST /customers/<customer>/questions", "ada")
    assert root["trace_id"] == answer.headers["x-lumiqtrace-id"]
    assert tag(root, "feature") == "questions"
    assert root["metadata"]["http.request.body"]["content"] == {
        "question": question,
        "order_number": "[REDACTED]",
    }
    below = {event.get("name") or event["model"]: event for event in backend.events if event is not root}
    search, embedding, chat = (
        below["search documents"],
        below["text-embedding-3-small"],
        below["gpt-4o-mini-2024-07-18"],
    )
    assert len(below) == 3
    assert search["parent_span_id"] == chat["parent_span_id"] == root["span_id"]
    assert embedding["parent_span_id"] == search["span_id"]
    assert search["span_kind"] == "retriever"
    assert chat["stream"] is True
    assert chat["output_tokens"] > 0
    assert all(event["cost_usd"] > 0 for event in (embedding, chat))
    assert root["latency_ms"] >= chat["latency_ms"]


def test_the_readme_shows_what_there_is():
    readme, app = ((EXAMPLE / name).read_text(encoding="utf-8") for name in ("README.md", "app.py"))
    assert "create_app()" in app
    for name in re.findall(r"/customers/<customer>/questions|/health|OPENAI_API_KEY|order_number", readme):
        assert name in app
