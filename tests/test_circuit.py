"""When delivery is tried again, by a clock that the tests set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._delivery.circuit import HURRY_EVERY, OPEN_AFTER, Circuit
from lumiqtrace._delivery.retry import Outcome, Verdict

DOWN = Outcome(Verdict.RETRY, "http_500")
TOLD = Outcome(Verdict.RETRY, "http_503", 40.0)
REFUSED = Outcome(Verdict.UNAUTHORIZED, "unauthorized", 60.0)


@pytest.fixture
def circuit():
    return Circuit()


def fail(circuit, times, now=0.0, outcome=DOWN):
    return [circuit.failed(outcome, now, 1.0) for _ in range(times)]


def test_it_opens_once_after_so_many_failures_in_a_row(circuit):
    assert fail(circuit, OPEN_AFTER + 3) == [False] * (OPEN_AFTER - 1) + [True] + [False] * 3
    assert circuit.is_open


def test_a_success_starts_the_count_anew(circuit):
    fail(circuit, OPEN_AFTER - 1)
    assert not circuit.worked()
    fail(circuit, OPEN_AFTER - 1)
    assert not circuit.is_open


def test_what_works_again_is_tried_at_once(circuit):
    fail(circuit, OPEN_AFTER, outcome=TOLD)
    assert circuit.worked()
    assert (circuit.is_open, circuit.retry_at, circuit.told_to_wait) == (False, 0.0, False)


def test_a_refused_key_is_no_failure_of_the_server(circuit):
    fail(circuit, 20, outcome=REFUSED)
    assert not circuit.is_open
    assert circuit.retry_at == 60.0


def test_while_closed_every_flush_may_hurry(circuit):
    fail(circuit, 1)
    assert circuit.may_hurry(0.0, final=False)
    assert circuit.may_hurry(0.0, final=False)


def test_while_open_a_flush_hurries_it_rarely_and_the_last_one_always(circuit):
    fail(circuit, OPEN_AFTER)
    assert circuit.may_hurry(100.0, final=False)
    assert not circuit.may_hurry(100.0 + HURRY_EVERY - 0.1, final=False)
    assert circuit.may_hurry(100.0 + HURRY_EVERY - 0.1, final=True)
    assert not circuit.may_hurry(100.0 + 2 * HURRY_EVERY - 0.2, final=False)
    assert circuit.may_hurry(100.0 + 2 * HURRY_EVERY, final=False)


def test_nobody_hurries_past_a_moment_that_the_server_chose(circuit):
    fail(circuit, 1, outcome=TOLD)
    assert not circuit.may_hurry(39.0, final=True)
    assert circuit.may_hurry(40.0, final=False)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_next_try_is_at_most_half_a_minute_away(failures, rand):
    circuit = Circuit()
    for _ in range(min(failures, 50)):
        circuit.failed(DOWN, 7.0, rand)
    assert 7.0 <= circuit.retry_at <= 37.0
