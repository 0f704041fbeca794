"""What a project's senders lost, read from a server: `GET /v1/losses?projectId=`, as sentences."""

from __future__ import annotations

import json
from typing import Any

from .._errors import CommandError
from .reader import ask
from .words import printable


def fetch_losses(base_url: str, project_id: str, token: str) -> list[dict[str, Any]]:
    """One object for each service, environment and reason, the one reported last first.

    Raises CommandError with what the server said.
    """
    body = ask(base_url, "/v1/losses", project_id, token)
    try:
        return [dict(loss) for loss in json.loads(body)["losses"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CommandError(f"{base_url} did not answer with losses; is it a lumiqtrace server?") from None


def sentences(losses: list[dict[str, Any]]) -> list[str]:
    """A line for each: `12 events lost by checkout (production): queue full, last at ...`."""
    return [printable(_sentence(loss)) for loss in losses] or ["no losses reported"]


def _sentence(loss: dict[str, Any]) -> str:
    events = loss.get("events")
    count = f"{events:,} event{'' if events == 1 else 's'}" if isinstance(events, int) else "events"
    where = f" ({loss['environment']})" if loss.get("environment") else ""
    processes = loss.get("processes")
    several = f", in {processes} processes" if isinstance(processes, int) and processes > 1 else ""
    reason = str(loss.get("reason")).replace("_", " ")
    who = loss.get("service") or "an unnamed service"
    return f"{count} lost by {who}{where}: {reason}{several}, last at {loss.get('lastSeen')}"
