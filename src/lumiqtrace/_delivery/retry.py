"""What the server's answer means, what to do, and how long to wait: pure functions, no clock, no state."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, NamedTuple

BACKOFF_BASE: Final = 0.5
BACKOFF_CAP: Final = 30.0
RETRY_AFTER_CAP: Final = 300.0
UNAUTHORIZED_PAUSE: Final = 60.0
"""Seconds between probes while the key is refused: a wrong key does not become right by hammering."""

_RETRYABLE: Final = frozenset({408, 425, 429})


class Verdict(Enum):
    ACCEPTED = "accepted"
    RETRY = "retry"
    SPLIT = "split"
    UNAUTHORIZED = "unauthorized"
    REJECTED = "rejected"


class Outcome(NamedTuple):
    """A verdict; `reason` names it in the statistics, `wait` is what the server asked for, in seconds."""

    verdict: Verdict
    reason: str = ""
    wait: float | None = None


def classify(status: int, retry_after: str | None, now: datetime) -> Outcome:
    """What the exporter does after an answer with this status.

    2xx is accepted; 408, 425, 429 and 5xx are tried again with the same event ids; 400 and 413 are split
    until the offending event is alone; 401 and 403 pause; a redirect and anything else is given up.
    """
    if 200 <= status < 300:
        return Outcome(Verdict.ACCEPTED)
    if status in _RETRYABLE or status >= 500:
        return Outcome(Verdict.RETRY, f"http_{status}", parse_retry_after(retry_after, now))
    if status == 413:
        return Outcome(Verdict.SPLIT, "too_large")
    if status in (400, 422):
        return Outcome(Verdict.SPLIT, "rejected")
    if status in (401, 403):
        return Outcome(Verdict.UNAUTHORIZED, "unauthorized", UNAUTHORIZED_PAUSE)
    if 300 <= status < 400:
        return Outcome(Verdict.REJECTED, "redirected")
    return Outcome(Verdict.REJECTED, "rejected")


def backoff(attempt: int, rand: float) -> float:
    """Seconds before try number `attempt + 1`: exponential with full jitter, at most 30 s.

    `attempt` counts the failures so far, from 1; `rand` is uniform in 0..1.
    """
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 16))
    return float(rand * ceiling)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds to wait, from either form of `Retry-After` (RFC 9110, 10.2.3); None where it is unusable.

    Clamped to 0..300 seconds, so that no server can silence a client for good.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_until(text, now)
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, RETRY_AFTER_CAP)


def _seconds_until(date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, IndexError, TypeError, OverflowError):
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def refusal(status: int | None) -> str:
    """Why a batch was given up; without a status it could not be read."""
    if status is None:
        return "its file in the spool is damaged"
    hint = "; is base_url the server's address? `lumiqtrace doctor` says more" if status == 404 else ""
    return f"the server answered {status}{hint}"


def refused_lines(body: bytes) -> list[object]:
    """The `errors` of a 202 that did not take every line; other servers answer without them."""
    try:
        errors = json.loads(body).get("errors")
    except (ValueError, AttributeError, RecursionError):
        return []
    return errors if isinstance(errors, list) else []
