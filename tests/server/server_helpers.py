"""What the server's tests share: events, a client for one project, and a server in its own process."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lumiqtrace.server import Credentials

NDJSON = {"content-type": "application/x-ndjson"}


def event(**fields: Any) -> dict[str, Any]:
    """A valid event with ids of its own; fields given replace or add."""
    return {
        "event_id": str(uuid.uuid4()),
        "trace_id": "trace-abc",
        "span_id": uuid.uuid4().hex[:16],
        "timestamp": "2026-04-20T10:00:00.000Z",
        "provider": "openai",
        "model": "gpt-4o",
        "operation": "chat",
        "latency_ms": 843,
        "input_tokens": 512,
        "output_tokens": 128,
        "cost_usd": 0.0034,
        "status": "success",
        "stream": False,
        "environment": "production",
        "sdk_version": "1.4.2",
    } | fields


def ndjson(events: Iterable[Any]) -> bytes:
    return "\n".join(json.dumps(each) for each in events).encode()


@dataclass(frozen=True)
class Api:
    """One project's side of a server."""

    http: httpx.Client
    credentials: Credentials

    def post(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """Post bytes as they are; `headers` replace or add."""
        sent = {"x-api-key": self.credentials.api_key} | NDJSON | (headers or {})
        return self.http.post("/v1/ingest", content=body, headers=sent)

    def send(self, *events: Any) -> httpx.Response:
        """Post events as gzip NDJSON."""
        return self.post(gzip.compress(ndjson(events)), {"content-encoding": "gzip"})

    def get(self, trace_id: str, project_id: str | None = None, token: str | None = None) -> httpx.Response:
        return self.http.get(
            f"/v1/traces/{trace_id}",
            params={"projectId": project_id or self.credentials.project_id},
            headers={"authorization": f"Bearer {token or self.credentials.read_token}"},
        )

    def spans(self, trace_id: str = "trace-abc") -> list[dict[str, Any]]:
        """Every span of a trace that is there, flat, without `children`."""
        answer = self.get(trace_id)
        assert answer.status_code == 200, answer.text
        pending, flat = answer.json(), []
        while pending:
            span = pending.pop()
            pending += span.pop("children")
            flat.append(span)
        return flat


@contextmanager
def connected(url: str, credentials: Credentials) -> Iterator[Api]:
    with httpx.Client(base_url=url, timeout=30) as http:
        yield Api(http, credentials)


@dataclass(frozen=True)
class ServerProcess:
    """A server in its own process, listening at `url`."""

    process: subprocess.Popen[str]
    url: str
    output: str
    stderr: Path

    def credentials(self) -> Credentials:
        """Those it printed; only a first start does."""
        found = [re.search(rf"({kind}[0-9a-f]+)", self.output) for kind in ("proj_", "lqt_", "lqr_")]
        assert all(found), self.output
        return Credentials(*[match[1] for match in found if match])

    def peak_memory(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def server_process(data: Path, **options: Any) -> Iterator[ServerProcess]:
    """`serve(data, port=0, **options)` in a process; killed at the end if it still runs."""
    code = (
        "from pathlib import Path; from lumiqtrace.server import serve; "
        f"serve(Path({str(data)!r}), port=0, **{options!r})"
    )
    log = data.with_name(data.name + ".stderr")
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            # The last line that a first and a later start print.
            if line.startswith(("  curl", "A new project")):
                break
        url = re.search(r"http://\S+", output)
        assert url, log.read_text()
        yield ServerProcess(process, url[0], output, log)
    finally:
        process.kill()
        process.communicate()
