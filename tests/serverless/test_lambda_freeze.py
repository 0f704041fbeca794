"""The sandbox stops when the answer has left: what was recorded is at the backend by then, or not lost."""

from __future__ import annotations

import time

from backend import Answer
from lambda_sandbox import invocations, sandbox
from tcp_proxy import proxied

HANDLER = """
@traced_handler(flush_timeout=20)
def handler(event, context):
    work()
    return event
"""

SLACK = 2.0
"""Seconds for a loaded machine beyond what is promised."""


def test_the_events_of_an_invocation_are_there_before_the_freeze(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url, freezes=True) as box:
        for number in (1, 2, 3):
            box.invoke(number)
            assert len(backend.events) == 2 * number
    assert len({event["event_id"] for event in backend.events}) == 6


def test_the_plain_pattern_is_there_before_the_freeze(tmp_path, backend):
    code = """
    def handler(event, context):
        work()
        lumiqtrace.flush()
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        for number in (1, 2, 3):
            box.invoke()
            assert len(backend.requests) == len(backend.events) == number


def test_a_connection_that_died_in_the_freeze_is_replaced_at_once(tmp_path, backend):
    with proxied(backend.url) as way, sandbox(tmp_path, HANDLER, way.url, freezes=True) as box:
        for number, reset in enumerate((False, True, False), start=1):
            assert box.invoke(number).kind == "response"
            assert len(backend.events) == 2 * number
            assert way.connections == number
            way.close_connections(reset=reset)
        assert "lumiqtrace" not in box.output()
    assert len({event["event_id"] for event in backend.events}) == len(backend.events) == 6


def test_a_backend_that_is_down_delays_by_no_more_than_the_flush_timeout(tmp_path, backend):
    code = HANDLER.replace("=20", "=0.5")
    backend.answer = lambda _: Answer(503)
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        for number in (1, 2):
            answer = box.invoke(number)
            assert answer.json == number
            assert answer.seconds < 0.5 + SLACK
        backend.answer = lambda _: Answer(202)
        box.invoke(3)
    # A request that the freeze cut may be sent again, with the same ids.
    assert len({event["event_id"] for event in backend.events}) == 6
    assert len({event["trace_id"] for event in invocations(backend)}) == 3


def test_a_backend_that_swallows_everything_delays_by_no_more_than_the_flush_timeout(tmp_path, backend):
    code = HANDLER.replace("=20", "=0.5")
    with proxied(backend.url) as way, sandbox(tmp_path, code, way.url, freezes=True) as box:
        way.swallows = True
        answer = box.invoke(1, seconds=30.0)
        assert answer.json == 1
        assert answer.seconds < 0.5 + SLACK


def test_with_200_ms_left_nothing_is_flushed_and_the_next_invocation_delivers(tmp_path, backend):
    code = """
    @traced_handler(flush_timeout=20)
    def handler(event, context):
        work()
        while event == "long" and context.get_remaining_time_in_millis() > 200:
            time.sleep(0.005)
        return event
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        assert box.invoke("long", seconds=1.5).json == "long"
        assert box.invoke("long", seconds=1.5).json == "long"
        assert backend.requests == []
        assert box.invoke("short", seconds=20.0).json == "short"
        assert len(invocations(backend)) == 3
        assert box.output().count("give the function a longer timeout".capitalize()) == 1


def test_a_flush_ends_before_the_deadline_however_long_it_may_take(tmp_path, backend):
    with proxied(backend.url) as way, sandbox(tmp_path, HANDLER, way.url) as box:
        way.swallows = True
        began = time.monotonic()
        assert box.invoke(1, seconds=1.0).json == 1
        assert time.monotonic() - began < 1.0 + SLACK
