"""The examples for Vercel, in its real runtime: the traces that their READMEs show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from served import to_backend
from vercel_drive import environment, function

from lumiqtrace.demo.provider import serving as provider

EXAMPLES = Path(__file__).parents[2] / "examples" / "serverless"
QUESTION = {"message": "My kettle leaks. Can I return it?", "user": "ada"}

# The first test makes the environment.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("name", "streamed"), [("vercel", False), ("vercel_streaming", True)])
def test_it_gives_the_trace_that_its_readme_shows(name, streamed, backend, pytestconfig):
    python = environment(pytestconfig.cache.mkdir("vercel-runtime"))
    entrypoint = EXAMPLES / name / "api" / "index.py"
    with provider() as models:
        environ = to_backend(backend, OPENAI_BASE_URL=models, OPENAI_API_KEY="no-key-needed")
        with function(python, entrypoint, "app", environ) as runtime:
            with httpx.stream("POST", f"{runtime.url}/api/chat", json=QUESTION, timeout=40) as answer:
                pieces = list(answer.iter_text())
            assert runtime.ended(1)
            events = list(backend.events)
    if streamed:
        assert len(pieces) > 1
        assert "".join(pieces).startswith("Yes. Order 1042")
    else:
        assert json.loads("".join(pieces)) == {"answer": "yes"}
    chat, root = sorted(events, key=lambda event: "parent_span_id" not in event)
    assert (root["name"], root["user_id"], root["status"]) == ("POST /api/chat", "ada", "success")
    assert root["tags"]["http.status_code"] == "200"
    assert root["trace_id"] == chat["trace_id"] == answer.headers["x-lumiqtrace-id"]
    assert (chat["parent_span_id"], chat["stream"]) == (root["span_id"], streamed)
    assert chat["output_tokens"] > 0
    assert chat["cost_usd"] > 0
    assert root["latency_ms"] >= chat["latency_ms"]
    assert ("ttft_ms" in chat) == streamed


@pytest.mark.parametrize("name", ["vercel", "vercel_streaming"])
def test_the_configuration_names_the_function_and_its_duration(name):
    folder = EXAMPLES / name
    config = json.loads((folder / "vercel.json").read_text())
    ((path, options),) = config["functions"].items()
    assert (folder / path).is_file()
    assert options["maxDuration"] >= 10
    assert config["rewrites"][0]["destination"] == "/" + path.removesuffix(".py")
    required = {
        re.match(r"[a-z]+", line)[0] for line in (folder / "requirements.txt").read_text().splitlines()
    }
    assert required >= {"lumiqtrace", "vercel"}
