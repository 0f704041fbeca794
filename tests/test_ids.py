"""Identifiers: of the right shape, never twice, and drawn once for a whole batch."""

from __future__ import annotations

import contextvars
import os
import re

import pytest

import lumiqtrace
from lumiqtrace._event import RANDOM_BYTES, ids_for, new_event_id, new_span_id, new_trace_id
from lumiqtrace.testing import capture


@pytest.fixture
def drawn(monkeypatch):
    """How many bytes each call of `os.urandom` gave."""
    sizes: list[int] = []

    def urandom(size: int, ask=os.urandom) -> bytes:
        sizes.append(size)
        return ask(size)

    monkeypatch.setattr(os, "urandom", urandom)
    return sizes


def ids_of_one_event():
    return new_event_id(), new_trace_id(), new_span_id()


@pytest.mark.parametrize("events", [0, 1, 100])
def test_ids_have_their_shapes_and_none_is_there_twice(events):
    with ids_for(events):
        found = [ids_of_one_event() for _ in range(events + 2)]
    event_ids, trace_ids, span_ids = zip(*found, *[ids_of_one_event()], strict=True)
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(uuid4, found) for found in event_ids)
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in trace_ids)
    assert all(re.fullmatch("[0-9a-f]{16}", found) for found in span_ids)
    assert all(len(set(ids)) == events + 3 for ids in (event_ids, trace_ids, span_ids))


def test_the_ids_of_some_events_are_drawn_at_once(drawn):
    with ids_for(100):
        for _ in range(100):
            ids_of_one_event()
    assert drawn == [100 * RANDOM_BYTES]


def test_what_was_drawn_is_gone_afterwards(drawn):
    with ids_for(2):
        new_event_id()
    new_event_id()
    assert drawn == [2 * RANDOM_BYTES, 16]


def test_what_was_drawn_is_of_this_thread_alone(drawn):
    elsewhere = contextvars.copy_context()
    with ids_for(1):
        elsewhere.run(new_trace_id)
    assert drawn == [RANDOM_BYTES, 16]


def test_a_batch_draws_once(drawn):
    with capture() as captured:
        for _ in range(20):
            with lumiqtrace.span("work"):
                pass
        drawn.clear()
        assert lumiqtrace.flush(30)
        assert len({event.event_id for event in captured}) == 20
    assert drawn == [20 * RANDOM_BYTES]
