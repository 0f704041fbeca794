from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._delivery.retry import RETRY_AFTER_CAP, Verdict, backoff, classify, parse_retry_after

NOW = datetime(2026, 4, 20, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.ACCEPTED),
        (202, Verdict.ACCEPTED),
        (301, Verdict.REJECTED),
        (307, Verdict.REJECTED),
        (400, Verdict.SPLIT),
        (401, Verdict.UNAUTHORIZED),
        (403, Verdict.UNAUTHORIZED),
        (404, Verdict.REJECTED),
        (408, Verdict.RETRY),
        (413, Verdict.SPLIT),
        (415, Verdict.REJECTED),
        (425, Verdict.RETRY),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
    ],
)
def test_what_a_status_means(status, verdict):
    assert classify(status, None, NOW).verdict is verdict


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("17", 17.0),
        ("1.5", 1.5),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e12", RETRY_AFTER_CAP),
        ("soon", None),
        (format_datetime(NOW + timedelta(seconds=40), usegmt=True), 40.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        ("Mon, 20 Apr 2026 10:00:30", 30.0),
    ],
)
def test_retry_after(text, seconds):
    assert parse_retry_after(text, NOW) == seconds


def test_retry_after_reaches_the_outcome():
    assert classify(429, "12", NOW).wait == 12.0
    assert classify(503, None, NOW).wait is None


@given(st.text(), st.integers(100, 599))
def test_no_answer_is_too_odd(text, status):
    outcome = classify(status, text, NOW)
    assert outcome.wait is None or 0 <= outcome.wait <= RETRY_AFTER_CAP


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_grows_to_its_cap_and_no_further(attempt, rand):
    wait = backoff(attempt, rand)
    assert 0 <= wait <= 30
    assert wait <= backoff(attempt, 1.0) <= backoff(attempt + 1, 1.0)
