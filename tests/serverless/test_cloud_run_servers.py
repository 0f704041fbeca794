"""Flask and FastAPI as Cloud Run runs them: delivered before the last byte, nothing lost on SIGTERM."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from served import free_port, serving, to_backend

FOLDER = Path(__file__).parent
REQUESTS = 100
GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "error"]
UVICORN = [sys.executable, "-m", "uvicorn", "--port", "{port}", "--log-level", "error"]
SERVERS = {
    "gunicorn gthread": [*GUNICORN, "--threads", "8", "cloud_run_site:wsgi"],
    "gunicorn preload": [*GUNICORN, "--threads", "8", "--preload", "cloud_run_site:wsgi"],
    "uvicorn": [*UVICORN, "cloud_run_site:asgi"],
    "gunicorn uvicorn": [
        *GUNICORN,
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        "cloud_run_site:asgi",
    ],
}


@pytest.mark.parametrize("server", SERVERS)
def test_every_request_is_delivered_before_its_last_byte_and_sigterm_loses_nothing(server, backend):
    def get(number):
        kind = "stream" if number % 5 == 0 else "items"
        answer = http.get(f"/{kind}/{number}")
        assert answer.status_code == 200
        trace = answer.headers["x-lumiqtrace-id"]
        return trace, sum(event["trace_id"] == trace for event in backend.events)

    port = free_port()
    command = [part.format(port=port) for part in SERVERS[server]]
    with serving(command, port, to_backend(backend, K_SERVICE="site"), FOLDER) as served:
        with httpx.Client(base_url=served.url, timeout=40) as http, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(get, range(REQUESTS)))
        served.terminate()

    assert [delivered for _, delivered in answers] == [2] * REQUESTS
    assert len({event["event_id"] for event in backend.events}) == len(backend.events) == 2 * REQUESTS
    names = {event["name"] for event in backend.events}
    assert {name.partition(" ")[2].split("/")[1] for name in names if "/" in name} == {"items", "stream"}
