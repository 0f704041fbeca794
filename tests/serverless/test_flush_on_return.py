"""`flush_on_return`: around functions of every kind, everything is delivered when they are over."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import threading

import pytest
from backend import KEY, Answer
from hypothesis import given
from hypothesis import strategies as st

import lumiqtrace
from lumiqtrace.integrations._flushing import budget_of, flush_is_due
from lumiqtrace.integrations.serverless import flush_on_return


class Failed(BaseException):
    pass


def work():
    with lumiqtrace.span("work"):
        pass


def plain(value):
    work()
    return value


async def coroutine(value):
    work()
    await asyncio.sleep(0)
    return value


def generator(value):
    work()
    yield value


async def async_generator(value):
    work()
    yield value


async def _only(items):
    found = [item async for item in items]
    return found[0]


RUNS = {
    plain: lambda made: made,
    coroutine: asyncio.run,
    generator: lambda made: next(iter(list(made))),
    async_generator: lambda made: asyncio.run(_only(made)),
}


@pytest.mark.parametrize("function", RUNS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("decorate", [flush_on_return, flush_on_return(timeout=4), flush_on_return()])
def test_events_are_delivered_when_it_is_over(function, decorate, backend, client):
    decorated = decorate(function)
    result = object()
    assert RUNS[function](decorated(result)) is result
    assert len(backend.events) == 1
    assert decorated.__name__ == function.__name__
    assert inspect.signature(decorated) == inspect.signature(function)
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert kind(decorated) == kind(function)


@pytest.mark.parametrize("function", RUNS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("error", [ValueError("no"), Failed("out")])
def test_an_exception_goes_on_as_it_is_after_the_flush(function, error, backend, client):
    def fail(value):
        work()
        raise value

    async def afail(value):
        fail(value)

    def gfail(value):
        fail(value)
        yield

    async def agfail(value):
        fail(value)
        yield

    failing = {plain: fail, coroutine: afail, generator: gfail, async_generator: agfail}[function]
    with pytest.raises(type(error)) as caught:
        RUNS[function](flush_on_return(failing)(error))
    assert caught.value is error
    assert len(backend.events) == 1


def test_methods_of_all_kinds(backend, client):
    class Site:
        @flush_on_return
        def method(self):
            work()
            return self

        @flush_on_return
        @classmethod
        def of_class(cls):
            work()
            return cls

        @flush_on_return
        @staticmethod
        def static():
            work()

        @flush_on_return
        async def __call__(self):
            work()

    site = Site()
    assert site.method() is site
    assert Site.of_class() is Site
    Site.static()
    asyncio.run(flush_on_return(site)())
    flush_on_return(functools.partial(plain, 1))()
    assert len(backend.requests) == len(backend.events) == 5


def test_where_nothing_was_recorded_it_costs_nothing(backend, client, monkeypatch):
    started = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    for _ in range(3):
        flush_on_return(lambda: None)()
        asyncio.run(flush_on_return(asyncio.sleep)(0))
    assert started == backend.requests == []


def test_before_init_and_without_it_nothing_happens():
    assert flush_on_return(plain)(1) == 1
    assert asyncio.run(flush_on_return(coroutine)(2)) == 2


def test_nested_calls_flush_once(backend, client):
    inner = flush_on_return(plain)

    @flush_on_return
    def outer():
        assert flush_is_due()
        inner(1)
        inner(2)

    outer()
    assert [len(request.events) for request in backend.requests] == [2]
    assert not flush_is_due()

    @flush_on_return
    async def aouter():
        await asyncio.gather(*(flush_on_return(coroutine)(number) for number in range(3)))

    asyncio.run(aouter())
    assert [len(request.events) for request in backend.requests] == [2, 3]


def test_a_task_that_was_left_behind_flushes_for_itself(backend, client):
    async def main():
        go = asyncio.Event()

        @flush_on_return
        async def late():
            await go.wait()
            work()

        @flush_on_return
        async def outer():
            return asyncio.ensure_future(late())

        task = await outer()
        go.set()
        await task
        assert len(backend.events) == 1

    asyncio.run(main())


def test_what_is_sent_and_thrown_into_generators_reaches_them(client):
    @flush_on_return
    def echo():
        got = yield "first"
        try:
            yield got
        except LookupError as error:
            return (yield error)

    made, error = echo(), LookupError()
    assert (next(made), made.send(7), made.throw(error)) == ("first", 7, error)
    with pytest.raises(StopIteration) as stopped:
        made.send("end")
    assert stopped.value.value == "end"

    closed = []

    @flush_on_return
    async def aecho():
        try:
            got = yield "first"
            try:
                yield got
            except LookupError as caught:
                yield caught
        finally:
            closed.append(True)

    async def main():
        made = aecho()
        assert (await anext(made), await made.asend(7), await made.athrow(error)) == ("first", 7, error)
        await made.aclose()

    asyncio.run(main())
    assert closed == [True]


def test_a_generator_that_is_left_flushes_when_it_is_closed(backend, client):
    made = flush_on_return(generator)(1)
    next(made)
    assert backend.events == []
    made.close()
    backend.wait_for(lambda: len(backend.events) == 1)


def test_a_generator_that_is_given_up_waits_for_nothing(backend):
    released = threading.Event()

    def hang(_request):
        assert released.wait(30)
        return Answer()

    backend.answer = hang
    lumiqtrace.init(KEY, base_url=backend.url, flush_interval=600, flush_timeout=30)
    made = flush_on_return(generator)(1)
    next(made)
    closing = threading.Thread(target=made.close)
    closing.start()
    closing.join(15)
    closed = not closing.is_alive()
    released.set()
    assert closed
    backend.wait_for(lambda: len(backend.events) == 1)


def test_a_coroutine_that_a_plain_wrapper_gives_is_flushed_when_it_is_over(backend, client):
    @flush_on_return
    @functools.wraps(coroutine)
    def wrapped(value):
        return coroutine(value)

    assert asyncio.run(wrapped(7)) == 7
    assert len(backend.events) == 1


def test_a_call_that_outlives_the_outermost_flushes_for_itself(backend, client):
    async def main():
        inside, go = asyncio.Event(), asyncio.Event()

        @flush_on_return
        async def inner():
            inside.set()
            await go.wait()
            work()

        @flush_on_return
        async def outer():
            task = asyncio.ensure_future(inner())
            await inside.wait()
            return task

        task = await outer()
        go.set()
        await task
        assert len(backend.events) == 1

    asyncio.run(main())


def test_a_coroutine_that_is_closed_waits_for_nothing(backend, client):
    async def main():
        made = flush_on_return(coroutine)(1)
        made.send(None)
        made.close()

    asyncio.run(main())
    backend.wait_for(lambda: len(backend.events) == 1)


def test_a_cancelled_call_is_cancelled_and_flushed(backend, client):
    @flush_on_return
    async def hang():
        work()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(hang())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(backend.events) == 1


def test_the_timeout_may_be_asked_for_when_the_call_is_over(backend, client):
    order = []

    def remaining(event, context):
        order.append((event, context))
        return context

    @flush_on_return(timeout=remaining)
    def handler(event, context):
        order.append("work")
        work()

    for context in (0, -1):
        handler(1, context=context)
    assert order == ["work", (1, 0), "work", (1, -1)]
    assert backend.requests == []
    for number, context in enumerate((None, "nonsense", 5.0), start=3):
        handler(1, context=context)
        assert len(backend.events) == number


def test_a_timeout_that_fails_counts_as_none(backend, client):
    flush_on_return(timeout=lambda *_: 1 / 0)(plain)(1)
    assert len(backend.events) == 1


def test_a_backend_that_is_down_delays_by_no_more_than_the_timeout(backend, client):
    backend.answer = lambda _: Answer(503)
    assert flush_on_return(timeout=0.2)(plain)(1) == 1
    assert asyncio.run(flush_on_return(timeout=0.2)(coroutine)(2)) == 2
    assert client.stats().queued == 2


@pytest.mark.parametrize("timeout", ["2", True, -1, math.inf, math.nan])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises((TypeError, ValueError), match=r"timeout: .* it is a number of seconds"):
        flush_on_return(timeout=timeout)


@pytest.mark.parametrize("thing", [7, int])
def test_what_is_no_function_is_refused(thing):
    with pytest.raises(TypeError, match="a function is needed"):
        flush_on_return()(thing)


@given(st.floats(0, 1e6), st.none() | st.floats(-1e6, 1e6), st.floats(0, 10))
def test_a_budget_keeps_to_the_limit_and_to_what_remains(limit, remaining, margin):
    budget = budget_of(limit, remaining, margin)
    assert 0 <= budget <= limit
    if remaining is not None:
        assert budget == 0 or budget <= remaining - margin
