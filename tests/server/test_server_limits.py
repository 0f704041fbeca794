"""What a project may send: rate and quota, off unless asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from server_helpers import connected, event

from lumiqtrace.server import create_project, running
from lumiqtrace.server.limits import RateLimit

SECONDS_IN_A_MONTH = 31 * 86_400


def test_the_quota_counts_new_events_so_that_a_retry_is_free(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, monthly_events=5) as server, connected(server.url, server.credentials) as api:
        batch = [event() for _ in range(4)]
        assert api.send(*batch).status_code == 202
        over = api.send(event(), event())
        assert (over.status_code, over.json()) == (429, {"error": "Monthly quota exceeded"})
        assert 0 < int(over.headers["retry-after"]) <= SECONDS_IN_A_MONTH
        # What was refused is not stored, and what was stored is accepted again.
        assert len(api.spans()) == 4
        assert api.send(*batch).json() == {"accepted": 4}
        assert api.send(event()).status_code == 202
        assert api.send(event()).status_code == 429
        assert api.send(*batch).json() == {"accepted": 4}
        assert len(api.spans()) == 5

        with connected(server.url, create_project(data, "another")) as other:
            assert other.send(event()).status_code == 202


def test_the_quota_holds_across_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, monthly_events=1) as server, connected(server.url, server.credentials) as api:
        assert api.send(event()).status_code == 202
    with running(tmp_path, monthly_events=1) as again, connected(again.url, server.credentials) as api:
        assert api.send(event()).status_code == 429
        assert len(api.spans()) == 1


def test_a_key_over_its_rate_is_told_when_to_come_back_and_others_are_not_held_up(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, requests_per_second=0.01) as server, connected(server.url, server.credentials) as api:
        assert api.send(event()).status_code == 202
        answer = api.send(event())
        assert (answer.status_code, answer.json()) == (429, {"error": "Rate limit exceeded"})
        assert 90 <= int(answer.headers["retry-after"]) <= 100
        assert len(api.spans()) == 1
        with connected(server.url, create_project(data, "another")) as other:
            assert other.send(event()).status_code == 202


@pytest.mark.parametrize(
    ("per_second", "at", "allowed"),
    [
        (2.0, [0.0, 0.0, 0.0, 0.4, 0.5], [True, True, False, False, True]),
        (0.5, [0.0, 1.9, 2.0, 3.9], [True, False, True, False]),
        (1.0, [0.0, 100.0, 100.0], [True, True, False]),
        (None, [0.0] * 5, [True] * 5),
    ],
)
def test_the_bucket(per_second: float | None, at: list[float], allowed: list[bool]) -> None:
    times = itertools.chain(at)
    rate = RateLimit(per_second, lambda: next(times))
    assert [rate.wait(b"key") == 0.0 for _ in at] == allowed


def test_after_the_wait_that_was_told_the_request_is_allowed() -> None:
    now = 0.0
    rate = RateLimit(3.0, lambda: now)
    while (wait := rate.wait(b"key")) == 0.0:
        pass
    now += wait
    assert rate.wait(b"key") == 0.0
