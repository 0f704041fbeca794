"""Reads a trace back from a server: `GET /v1/traces/{traceId}?projectId=`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ._errors import CommandError

TIMEOUT = 30.0
"""Seconds; a large trace takes its time."""


def fetch_trace(base_url: str, project_id: str, token: str, trace_id: str) -> list[dict[str, Any]]:
    """The trace's root spans, each with its `children`. Raises CommandError with what the server said."""
    import httpx

    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError("the read token holds white space or characters that no token has; copy it again")
    url = f"{base_url}/v1/traces/{quote(trace_id, safe='')}"
    try:
        response = httpx.get(
            url,
            params={"projectId": project_id},
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT,
            follow_redirects=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise CommandError(f"cannot reach {base_url}: {type(error).__name__}: {error}") from None
    if response.status_code != 200:
        raise CommandError(f"{base_url} answered {response.status_code}: {_reason(response)}")
    try:
        roots = response.json()
    except RecursionError:
        raise CommandError(
            "the trace is nested too deeply to be shown here; its JSON can be had with curl"
        ) from None
    except ValueError:
        raise CommandError(f"{base_url} did not answer with a trace; is it a lumiqtrace server?") from None
    if not isinstance(roots, list):
        raise CommandError(f"{base_url} did not answer with a trace; is it a lumiqtrace server?")
    return roots


def _reason(response: Any) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
