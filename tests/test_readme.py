"""Every block of the README works as it stands, and what it says of the middlewares and the setters is so."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask, request
from werkzeug.test import Client

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.demo.provider import serving
from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware
from lumiqtrace.integrations.flask import LumiqFlaskMiddleware

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [body for language, body in BLOCKS if language == "python"]
SH = [body.strip() for language, body in BLOCKS if language == "sh"]


def test_two_sh_lines_come_before_anything_else_that_is_fenced():
    assert [language for language, _ in BLOCKS[:2]] == ["sh", "sh"]
    assert len(SH) == 2
    assert all("\n" not in line and "venv" in line for line in SH)


def test_the_first_line_runs_the_demo_that_the_tests_run():
    assert SH[0].endswith(".venv/bin/lumiqtrace demo --exit")


def test_the_second_line_runs_these_tests():
    assert SH[1].endswith(".venv/bin/python -m pytest -q -n 2")


def test_all_languages_are_known():
    assert {language for language, _ in BLOCKS} == {"sh", "python", "console"}


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_blocks_run(number, backend):
    """Each in a process of its own, unmodified; only the environment says where provider and server are."""
    code = PYTHON[number]
    after = "\nprint(handler({'prompt': 'Hi'}, None))" if "def handler" in code else ""
    with serving() as provider:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", ("import lumiqtrace\n" if "import" not in code else "") + code + after],
            capture_output=True, text=True, timeout=50, check=False,
            env={**os.environ, "OPENAI_BASE_URL": provider, "OPENAI_API_KEY": "none", "LUMIQTRACE_BASE_URL": backend.url},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    if "chat.completions" in code and "@app" not in code:
        call = next(event for event in backend.events if event["operation"] == "chat")
        assert call["model"] == "gpt-4o-2024-08-06"
        assert call["cost_usd"] > 0
        assert len(backend.requests) == 1
    if after:
        assert "'statusCode': 200" in done.stdout


def test_the_table_of_options_is_the_configuration():
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", README, re.MULTILINE))
    config = LumiqConfig.from_options({})
    fields = set(LumiqConfig.__dataclass_fields__)
    assert {name for name in rows if name in fields} == fields
    without = {"api_key", "service", "spool_dir", "prices", "redact_fields", "before_send"}
    assert {name: value for name, value in rows.items() if name in fields - without} == {
        name: str(getattr(config, name)) for name in fields - without
    }


def test_the_version_is_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lumiqtrace.__version__)
    assert f'"{lumiqtrace.__version__}"' in (ROOT / "src/lumiqtrace/_version.py").read_text()


@pytest.mark.parametrize("whole", [False, True])
def test_the_answer_to_an_exception_has_the_id_where_the_readme_says_so(whole, backend):
    lumiqtrace.init(backend.key, base_url=backend.url)
    app = FastAPI()

    @app.get("/fails/{number}")
    def fails(number: int):
        raise RuntimeError(number)

    if whole:
        app = LumiqFastAPIMiddleware(app)
    else:
        app.add_middleware(LumiqFastAPIMiddleware)

    async def get():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://site.test") as http:
            return await http.get("/fails/1")

    answer = asyncio.run(get())
    assert lumiqtrace.flush(20)
    (event,) = backend.events
    assert (answer.status_code, event["name"], event["status"]) == (500, "GET /fails/{number}", "error")
    assert answer.headers.get("x-lumiqtrace-id") == (event["trace_id"] if whole else None)


def test_a_middlewares_config_after_init_rules_what_the_readme_says(backend):
    lumiqtrace.init(backend.key, base_url=backend.url, environment="first")
    site = Flask("site")

    def echo():
        return request.get_json()

    site.add_url_rule("/", "echo", echo, methods=["POST"])
    for sample_rate in (1.0, 0.0):
        config = LumiqConfig(
            api_key=backend.key, environment="second", sample_rate=sample_rate, capture_request_body=True
        )
        wrapped = LumiqFlaskMiddleware(site.wsgi_app, config=config)
        assert Client(wrapped).post("/", json={"asked": 1}).status_code == 200
    assert lumiqtrace.flush(20)
    (event,) = backend.events
    assert (event["name"], event["environment"]) == ("POST /", "first")
    assert event["metadata"]["http.request.body"]["content"] == {"asked": 1}


def test_the_setters_mark_what_the_readme_says(backend):
    lumiqtrace.init(backend.key, base_url=backend.url)
    with lumiqtrace.span("root"), lumiqtrace.span("inner") as inner:
        lumiqtrace.set_attribute("feature", "support")
        lumiqtrace.set_attribute("user.id", "u-7")
        lumiqtrace.set_eval_score("good", 0.5)
        lumiqtrace.set_usage(input_tokens=5)
        inner.set_attribute("index", "docs")
    assert lumiqtrace.flush(20)
    inner, root = backend.events
    assert root["tags"] == {"feature": "support", "user.id": "u-7"}
    assert (root["user_id"], inner["user_id"], root["eval_scores"]) == ("u-7", "u-7", {"good": 0.5})
    assert (root["input_tokens"], inner["input_tokens"], inner["tags"]) == (0, 5, {"index": "docs"})
    assert "eval_scores" not in inner


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)(\S+?)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
