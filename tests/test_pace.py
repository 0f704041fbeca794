"""When the thread wakes and when what waits is due, by a clock that the tests set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._delivery.pace import BURST_INTERVAL, Pace


@pytest.fixture
def pace():
    return Pace(batch_size=50, interval=10.0)


def test_nothing_is_due_where_nothing_waits(pace):
    assert pace.until_due(0, now=0.0) is None
    assert not pace.is_due(0, now=1e9)


def test_the_first_event_is_due_an_interval_later(pace):
    assert pace.until_due(1, now=5.0) == 10.0
    assert not pace.is_due(1, now=14.9)
    assert pace.is_due(1, now=15.0)
    assert pace.until_due(1, now=15.0) == 0.0


def test_a_full_batch_is_due_at_once(pace):
    assert pace.until_due(50, now=0.0) == 0.0


def test_the_thread_wakes_itself_while_events_come(pace):
    pace.took(now=0.0)
    assert pace.until_due(0, now=1.0) == 9.0
    assert pace.until_due(3, now=4.0) == 6.0
    assert pace.is_due(3, now=10.0)


def test_a_turn_without_events_is_the_last(pace):
    pace.took(now=0.0)
    assert pace.until_due(0, now=10.0) is None
    assert pace.until_due(1, now=50.0) == 10.0


def test_a_backlog_makes_wakes_rarer_until_there_is_less(pace):
    pace.woke(200)
    assert pace.wake_at == 200
    pace.took(now=0.0)
    assert pace.until_due(30, now=0.0) == BURST_INTERVAL
    pace.woke(30)
    assert pace.wake_at == 50
    pace.took(now=1.0)
    assert pace.until_due(30, now=1.0) == 10.0


def test_a_small_backlog_is_no_burst(pace):
    pace.woke(60)
    pace.took(now=0.0)
    assert pace.until_due(1, now=0.0) == 10.0


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0.0, 3.0)), max_size=50), st.integers(1, 100))
def test_no_event_waits_longer_than_the_interval(steps, batch_size):
    """A thread that sleeps as long as it is told, and takes what is due, leaves none waiting too long."""
    interval, now, oldest, waiting = 2.0, 0.0, None, 0
    pace = Pace(batch_size, interval)
    for come, apart in steps:
        asleep = pace.until_due(waiting, now)
        if asleep is not None and asleep <= apart:
            now += asleep
            pace.woke(waiting)
            if pace.is_due(waiting, now):
                assert oldest is None or now - oldest <= interval + 1e-6
                waiting, oldest = 0, None
                pace.took(now)
        else:
            now += apart
            if come and oldest is None:
                oldest = now
            waiting += come
            if asleep is None or waiting >= pace.wake_at:
                pace.woke(waiting)
                pace.until_due(waiting, now)
                if pace.is_due(waiting, now):
                    waiting, oldest = 0, None
                    pace.took(now)
