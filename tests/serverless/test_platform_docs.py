"""Every Python block of the page on serverless platforms works as it stands, and delivers as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lumiqtrace.demo.provider import serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serverless_platforms.md").read_text(encoding="utf-8")
SECTIONS = {
    part.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    for part in PAGE.split("\n## ")[1:]
}

ASKED = {"message": "Does it leak?"}
CALLS = {
    "Flask": f"answer = app.test_client().post('/chat', json={ASKED!r}); assert answer.json == {{'answer': 'yes'}}",
    "functions_framework": f"""
import flask
from cloudevents.http import CloudEvent

with flask.Flask("test").test_request_context("/", method="POST", json={ASKED!r}) as context:
    assert chat(context.request) == {{"answer": "yes"}}
on_upload(CloudEvent({{"type": "upload", "source": "bucket"}}, {{"name": "photo.jpg"}}))
""",
    "FastAPI": f"""
from starlette.testclient import TestClient

assert TestClient(app).post('/api/chat', json={ASKED!r}).text.startswith("Yes. Order 1042")
""",
    "flush_on_return": "",
}


def test_the_sections_are_the_platforms():
    assert list(SECTIONS) == ["Google Cloud Run", "Vercel", "Netlify", "Azure Functions, Modal, Knative"]


@pytest.mark.parametrize("sort", CALLS)
def test_python_blocks_run_and_their_events_are_delivered_in_time(sort, backend):
    (block,) = (each for blocks in SECTIONS.values() for each in blocks if sort in each)
    # A process that ends like this delivers nothing any more.
    end = "\nimport os; os._exit(0)"
    platform = {"VERCEL": "1"} if sort == "FastAPI" else {"K_SERVICE": "site"}
    with serving() as provider:
        done = subprocess.run(
            [sys.executable, "-c", f"{block}\n{CALLS[sort]}{end}"],
            env={
                **os.environ,
                **platform,
                "OPENAI_BASE_URL": provider,
                "OPENAI_API_KEY": "no-key-needed",
                "LUMIQTRACE_BASE_URL": backend.url,
                "LUMIQTRACE_FLUSH_INTERVAL": "600",
            },
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    names = {event["name"] for event in backend.events if "name" in event}
    expected = {
        "Flask": {"POST /chat"},
        "functions_framework": {"chat", "on_upload"},
        "FastAPI": {"POST /api/chat"},
        "flush_on_return": {"summarize"},
    }
    assert names >= expected[sort], json.dumps(backend.events)


@pytest.mark.parametrize("path", re.findall(r"\]\((\S+?)\)", PAGE))
def test_links_lead_somewhere(path):
    assert (ROOT / "docs" / path).exists()
