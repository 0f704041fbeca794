"""Celery's prefork pool: what its workers record arrives when they are replaced and when they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from backend import KEY
from process_helpers import group, once

HERE = Path(__file__).parent
TASKS = 10

SEND = f"""
import celery_app
for number in range({TASKS}): celery_app.work.delay(number)
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("queue", "done", "control"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_every_tasks_event_arrives_once_from_workers_that_are_replaced_and_stopped(backend, folder):
    environment = {"FOLDER": str(folder), "KEY": KEY, "BACKEND": backend.url}
    subprocess.run(
        [sys.executable, "-c", SEND], cwd=HERE, env={**os.environ, **environment}, timeout=50, check=True
    )
    command = [
        sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--concurrency", "2",
        "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
        "--max-tasks-per-child", "3",  # the last ones still hold events when the whole is stopped
    ]  # fmt: skip
    with group(command, backend, cwd=HERE, **environment) as worker:
        deadline = time.monotonic() + 40
        while len(list(folder.glob("ran *"))) < TASKS:
            assert worker.poll() is None, worker.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=40)
    assert "Traceback" not in output, output
    assert once(backend) == sorted(f"work {number}" for number in range(TASKS))
