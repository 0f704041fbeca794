"""Every Python block of the serverless guide runs as it stands, and delivers before it returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lumiqtrace.demo.provider import serving
from lumiqtrace.integrations._flushing import MARGIN
from lumiqtrace.integrations.aws_lambda import traced_handler

GUIDE = (Path(__file__).parents[2] / "docs" / "serverless.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
HANDLERS = [block for block in BLOCKS if "def handler(event, context)" in block]

# The handler is called twice, and the process then ends as a killed sandbox does: nothing is delivered at exit.
CALL = """
import json, os, sys
results = [handler({"prompt": "Hi"}, None) for _ in range(2)]
print(json.dumps(results), flush=True)
os._exit(0)
"""


def test_there_are_handlers():
    assert len(HANDLERS) >= 4


@pytest.mark.parametrize("code", HANDLERS, ids=range(len(HANDLERS)))
def test_a_handler_runs_and_its_events_are_there_when_it_has_returned(code, backend):
    environ = {"OPENAI_API_KEY": "none", "LUMIQTRACE_BASE_URL": backend.url}
    # What would have the result depend on chance, or on how fast this machine is.
    code = code.replace("sample_rate=0.5", "sample_rate=1.0").replace("flush_timeout=0.5", "flush_timeout=20")
    with serving() as provider:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code + CALL],
            capture_output=True, text=True, timeout=50, check=False,
            env={**os.environ, **environ, "OPENAI_BASE_URL": provider},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 2
    assert len(backend.requests) == 2
    assert ("patch_openai" in code) == any(event["operation"] == "chat" for event in backend.events)


def test_what_it_says_about_time_is_so():
    assert f"`traced_handler(flush_timeout=...)` is {traced_handler.__kwdefaults__['flush_timeout']}" in GUIDE
    assert f"the last {MARGIN * 1000:.0f} ms before the deadline" in GUIDE
