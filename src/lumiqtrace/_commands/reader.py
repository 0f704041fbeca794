"""Reads from a server what a project has there: a trace, by `GET /v1/traces/{traceId}?projectId=`."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any, Final, cast
from urllib.parse import quote

from .._errors import CommandError
from .._redaction.redact import REDACTED, redact_text
from .words import error_of, printable

TIMEOUT: Final = 30.0
"""Seconds for all of it; a large trace takes its time."""

MAX_TRACE_BYTES: Final = 256 * 1024 * 1024

TOKEN_PREFIX: Final = "lqr_"  # noqa: S105 - the prefix, not a token
"""What a read token begins with."""

MIN_TOKEN: Final = 8
"""Characters of a token that is one; less may stand in any word."""

MAX_SAID: Final = 300
"""Characters of the other side's own words that are shown."""


def fetch_trace(base_url: str, project_id: str, token: str, trace_id: str) -> list[dict[str, Any]]:
    """The trace's root spans, each with its `children`. Raises CommandError with what the server said."""
    body = ask(base_url, f"/v1/traces/{quote(trace_id, safe='')}", project_id, token)
    try:
        roots = json.loads(body)
    except RecursionError:
        raise CommandError(
            "the trace is nested too deeply to be shown here; its JSON can be had with curl"
        ) from None
    except ValueError:
        raise CommandError(f"{base_url} did not answer with a trace; is it a lumiqtrace server?") from None
    if not _are_spans(roots):
        raise CommandError(f"{base_url} did not answer with a trace; is it a lumiqtrace server?")
    return cast("list[dict[str, Any]]", roots)


def ask(base_url: str, path: str, project_id: str, token: str) -> bytes:
    """The answer's body to `GET path?projectId=`. Raises CommandError with what the server said."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError("the read token holds white space or characters that no token has; copy it again")
    status, body = _get(base_url, path, f"projectId={quote(project_id, safe='')}", token)
    if status != 200:
        reason = _shown(error_of(body), token) or "no reason given"
        hint = _hint(status, project_id, token)
        raise CommandError(f"{base_url} answered {status}: {reason}{hint and f'; {hint}'}")
    return body


def _hint(status: int, project_id: str, token: str) -> str:
    """What is likely behind a refusal; empty where nothing can be told."""
    if status == 401 and not token.startswith(TOKEN_PREFIX):
        return f"a read token starts with {TOKEN_PREFIX}"
    if status == 403:
        return f"is {project_id} (--project or LUMIQTRACE_PROJECT_ID) the token's project?"
    return ""


def _are_spans(roots: object) -> bool:
    """Whether it is a list of objects, and so are the `children` of each, at any depth."""
    waiting = [roots]
    while waiting:
        spans = waiting.pop()
        if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
            return False
        waiting += [children for span in spans if (children := span.get("children"))]
    return True


def _get(base_url: str, path: str, query: str, token: str) -> tuple[int, bytes]:
    from .._delivery import http

    deadline = http.Deadline(TIMEOUT)
    try:
        target = http.Target.of(base_url + path)
        with closing(http.connect(target, http.Roots(), deadline)) as connection:
            answer = connection.exchange(
                memoryview(
                    connection.head("GET", f"{target.path}?{query}")
                    + b"accept: application/json\r\naccept-encoding: identity\r\nconnection: close\r\n"
                    + f"authorization: Bearer {token}\r\n\r\n".encode("ascii")
                ),
                deadline,
                MAX_TRACE_BYTES,
            )
    except http.ERRORS as error:
        said = _shown(f"{type(error).__name__}: {error}", token)
        raise CommandError(f"cannot reach {base_url}: {said}") from None
    if not answer.whole:
        raise CommandError("the trace is larger than 256 MiB; its JSON can be had with curl")
    return answer.status, answer.body


def _shown(text: str, token: str) -> str:
    """What the other side said, bounded and without our token or what looks like one."""
    if len(token) >= MIN_TOKEN:
        text = text.replace(token, REDACTED)
    return printable(redact_text(text))[:MAX_SAID]
