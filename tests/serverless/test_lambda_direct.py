"""A traced handler that is called as tests call it: without a runtime, with whatever context they have."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from lambda_sandbox import invocations

import lumiqtrace
from lumiqtrace.integrations.aws_lambda import traced_handler


class Odd:
    """Answers every attribute, with things that are of no use."""

    def __getattr__(self, name):
        return self

    def __call__(self):
        return self


class Broken:
    def __getattr__(self, name):
        raise OSError(name)


class Late:
    def get_remaining_time_in_millis(self):
        raise OSError


CONTEXTS = [None, Odd(), Broken(), Late(), SimpleNamespace(aws_request_id=7, function_name="", w3c=dict), 3]


@traced_handler(trust_incoming_trace=True)
def handler(event, context):
    """What it does."""
    return event


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: type(context).__name__)
def test_any_context_will_do(context, backend, client):
    event = {"headers": {"traceparent": "x"}}
    assert handler(event, context) is event
    (found,) = invocations(backend)
    assert found["status"] == "success"


def test_it_works_before_init_and_without_it():
    assert handler(1, None) == 1


def test_name_and_signature_stay(backend, client):
    assert (handler.__name__, handler.__doc__) == ("handler", "What it does.")
    assert list(inspect.signature(handler).parameters) == ["event", "context"]
    handler(event={}, context=SimpleNamespace(function_version="3"))
    (found,) = invocations(backend)
    assert (found["name"], found["tags"]["faas.version"]) == ("handler", "3")


def test_methods_and_objects_may_be_handlers(backend, client):
    class Site:
        @traced_handler
        def method(self, event, context):
            return self, event

        def __call__(self, event, context):
            return event

    site = Site()
    queued = {"Records": [{"eventSource": "aws:sqs"}] * 2}
    assert site.method(queued, None) == (site, queued)
    assert traced_handler(site)(queued, None) is queued
    assert [(e["tags"]["faas.trigger"], e["tags"]["faas.records"]) for e in invocations(backend)] == [
        ("sqs", "2")
    ] * 2


def test_the_same_exception_goes_on(backend, client):
    class Stop(BaseException):
        pass

    for error in (ValueError("no"), Stop(), SystemExit(3)):

        @traced_handler
        def failing(event, context):
            raise event

        with pytest.raises(type(error)) as caught:
            failing(error, None)
        assert caught.value is error
    assert [event["status"] for event in invocations(backend)] == ["error", "error", "cancelled"]


def test_an_async_handler_is_run_or_awaited_as_the_caller_does(backend, client):
    @traced_handler
    async def ahandler(event, context):
        await asyncio.sleep(0)
        with lumiqtrace.span("work"):
            return event

    async def main():
        return await asyncio.gather(*(ahandler(number, None) for number in range(3)))

    assert ahandler(7, None) == 7
    assert asyncio.run(main()) == [0, 1, 2]
    done = []
    thread = threading.Thread(target=lambda: done.append(ahandler(8, None)))
    thread.start()
    thread.join()
    assert done == [8]
    roots = invocations(backend)
    assert len({event["trace_id"] for event in roots}) == len(roots) == 5
    children = [event for event in backend.events if event["name"] == "work"]
    assert {event["parent_span_id"] for event in children} == {event["span_id"] for event in roots}


def test_a_trace_that_is_not_sampled_costs_no_request(backend):
    lumiqtrace.init("lqt_" + "a" * 64, base_url=backend.url, sample_rate=0.000001)
    for number in range(5):
        assert handler(number, None) == number
    assert backend.requests == []


@pytest.mark.parametrize("timeout", ["2", True, None, -1, math.inf])
def test_a_timeout_of_no_use_is_refused(timeout):
    with pytest.raises((TypeError, ValueError), match=r"flush_timeout: .* it is a number of seconds"):
        traced_handler(flush_timeout=timeout)


@pytest.mark.parametrize("thing", ["app.handler", dict])
def test_what_is_no_handler_is_refused(thing):
    with pytest.raises(TypeError, match="a handler is needed"):
        traced_handler()(thing)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_handler_left_open_is_no_part_of_the_next_invocation(fails, backend, client):
    kept = []

    def rows():
        with lumiqtrace.span("rows"), lumiqtrace.context(user_id="ada"):
            yield 1
            yield 2

    @traced_handler
    def leaving(event, context):
        with lumiqtrace.span("work"):
            pass
        if event:
            kept.append(rows())
            next(kept[-1])
        if fails:
            raise ValueError

    for event in (True, False):
        with suppress(ValueError):
            leaving(event, None)
        assert lumiqtrace.get_current_trace_id() is None
    with lumiqtrace.span("around") as around:
        with suppress(ValueError):
            leaving(False, None)
        assert lumiqtrace.get_current_span_id() == around.span_id
    roots = invocations(backend)
    assert [root.get("user_id") for root in roots] == [None] * 3
    assert len({root["trace_id"] for root in roots} - {around.trace_id}) == 3
    parents = [event["parent_span_id"] for event in backend.events if event["name"] == "work"]
    assert parents == [root["span_id"] for root in roots]
    assert "ada" not in {event.get("user_id") for event in backend.events}
    kept[0].close()


def test_the_event_loop_that_the_host_has_set_stays(client):
    @traced_handler
    async def ahandler(event, context):
        return asyncio.get_running_loop()

    def run():
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        try:
            assert ahandler(None, None) is not mine
            kept.append(asyncio.get_event_loop() is mine)
        finally:
            asyncio.set_event_loop(None)
            mine.close()

    kept = []
    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert kept == [True, True]
