"""The decorators: the function stays what it was, and each run of it is a span."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lumiqtrace
from lumiqtrace import observe_llm, observe_span


def events(backend):
    assert lumiqtrace.flush()
    return {event["name"]: event for event in backend.events}


@observe_span
def plain(a, b=2, *, c: int = 3) -> int:
    """Adds."""
    return a + b + c


@observe_span
async def coroutine(value):
    """Waits."""
    await asyncio.sleep(0)
    return value


@observe_span
def generator(count):
    yield from range(count)
    return "end"


@observe_span
async def async_generator(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def test_each_kind_of_function_keeps_its_results_and_is_a_span(client, backend):
    async def main():
        return await coroutine(5), [item async for item in async_generator(3)]

    assert plain(1) == 6
    assert list(generator(3)) == [0, 1, 2]
    assert asyncio.run(main()) == (5, [0, 1, 2])
    found = events(backend)
    assert set(found) == {"plain", "coroutine", "generator", "async_generator"}
    assert {event["status"] for event in found.values()} == {"success"}
    assert {event["span_kind"] for event in found.values()} == {"general"}


def test_without_a_client_the_functions_are_themselves():
    async def main():
        return await coroutine(5), [item async for item in async_generator(3)]

    assert plain(1) == 6
    assert list(generator(3)) == [0, 1, 2]
    assert asyncio.run(main()) == (5, [0, 1, 2])


def test_what_can_be_asked_of_a_function_stays_true():
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert not inspect.iscoroutinefunction(plain)
    assert str(inspect.signature(plain)) == "(a, b=2, *, c: 'int' = 3) -> 'int'"
    assert (plain.__name__, plain.__doc__, plain.__module__) == ("plain", "Adds.", __name__)
    assert generator(1).__name__ == "generator"
    assert plain.__annotations__ == {"c": "int", "return": "int"}


class Service:
    @observe_span
    def method(self, value):
        return self, value

    @observe_span("of the class")
    @classmethod
    def outside(cls):
        return cls

    @classmethod
    @observe_span()
    def inside(cls):
        return cls

    @observe_span
    @staticmethod
    def static_outside(value):
        return value

    @staticmethod
    @observe_span
    def static_inside(value):
        return value

    @observe_span
    async def waits(self):
        return self


class Child(Service):
    pass


def test_methods_of_all_kinds(client, backend):
    service = Child()
    assert service.method(1) == (service, 1)
    assert Child.outside() is Child
    assert Child.inside() is Child
    assert service.static_outside(1) == Child.static_outside(1) == 1
    assert Service.static_inside(2) == 2
    assert asyncio.run(service.waits()) is service
    assert inspect.iscoroutinefunction(service.waits)
    assert set(events(backend)) == {
        "Service.method", "of the class", "Service.inside", "Service.static_outside", "Service.static_inside",
        "Service.waits",
    }  # fmt: skip


class Callable:
    def __init__(self):
        self.calls = 0

    def __call__(self, value):
        self.calls += 1
        return value


class AsyncCallable:
    async def __call__(self, value):
        return value


def test_partials_and_objects_that_can_be_called(client, backend):
    counted = Callable()
    assert observe_span(counted)(1) == 1
    assert counted.calls == 1
    asynchronous = observe_span("async object")(AsyncCallable())
    assert asyncio.run(asynchronous(2)) == 2
    partial = observe_span(functools.partial(coroutine.__wrapped__, 3))
    assert inspect.iscoroutinefunction(partial)
    assert asyncio.run(partial()) == 3
    assert set(events(backend)) == {"Callable", "async object", "coroutine"}


@pytest.mark.parametrize("decorator", [observe_span, observe_llm])
def test_what_is_no_function_is_refused_when_it_is_decorated(decorator):
    with pytest.raises(TypeError, match="decorate the methods"):
        decorator(Service)
    with pytest.raises(TypeError, match="a function is needed, not 5"):
        decorator("name")(5)


def test_names_and_kinds(client, backend):
    @observe_span("rag", span_type="retriever")
    def first():
        pass

    @observe_span(name="weather", span_type="tool")
    def second():
        pass

    @observe_span(span_type="no such type")
    def third():
        pass

    @observe_span("by position", "agent")
    def fourth():
        pass

    for function in (first, second, third, fourth):
        function()
    found = events(backend)
    kinds = {name: event["span_kind"] for name, event in found.items()}
    assert kinds == {"rag": "retriever", "weather": "tool", "third": "general", "by position": "agent"}


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [ValueError("no"), Odd("odd"), asyncio.CancelledError(), KeyboardInterrupt()]
)
def test_an_exception_passes_as_the_same_object(client, backend, error):
    @observe_span
    def fails():
        raise error

    @observe_span
    async def fails_later():
        raise error

    @observe_span
    def yields_and_fails():
        yield 1
        raise error

    @observe_span
    async def yields_and_fails_later():
        yield 1
        raise error

    def drive(coroutine):
        try:
            coroutine.send(None)
        except StopIteration:
            return

    def consume():
        list(yields_and_fails())

    async def consume_async():
        async for _ in yields_and_fails_later():
            pass

    for run in (fails, lambda: drive(fails_later()), consume, lambda: drive(consume_async())):
        with pytest.raises(type(error)) as caught:
            run()
        assert caught.value is error
        assert error.__context__ is None
        assert lumiqtrace.get_current_span_id() is None
    found = events(backend)
    assert len(found) == 4
    assert {event["error_code"] for event in found.values()} == {type(error).__name__}
    assert "success" not in {event["status"] for event in found.values()}


# ---- generators --------------------------------------------------------------------------------------


def test_a_generators_span_is_current_in_its_body_alone(client, backend):
    seen = []

    @observe_span
    def work():
        for _ in range(2):
            seen.append(lumiqtrace.get_current_span_id())
            with lumiqtrace.span("inner"), lumiqtrace.context(user_id="u1"):
                seen.append(lumiqtrace.get_current_span_id())
                yield

    with lumiqtrace.span("consumer") as consumer:
        for _ in work():
            assert lumiqtrace.get_current_span_id() == consumer.span_id
            with lumiqtrace.span("between"):
                pass
        assert lumiqtrace.get_current_span_id() == consumer.span_id
    assert lumiqtrace.get_current_trace_id() is None
    assert lumiqtrace.flush()
    by_id = {event["span_id"]: event for event in backend.events}
    assert [by_id[span_id]["name"] for span_id in seen] == ["work", "inner", "work", "inner"]
    parents = {
        event["name"]: by_id[event["parent_span_id"]]["name"]
        for event in backend.events
        if "parent_span_id" in event
    }
    assert parents == {"work": "consumer", "inner": "work", "between": "consumer"}
    assert {event["name"] for event in backend.events if event.get("user_id")} == set()


def test_send_throw_close_and_the_return_value_are_the_bodys(client, backend):
    @observe_span
    def echo():
        received = []
        while True:
            try:
                received.append((yield len(received)))
            except KeyError as error:
                received.append(error)
                if len(received) == 3:
                    return received

    running = echo()
    assert next(running) == 0
    assert running.send("a") == 1
    thrown = KeyError("b")
    assert running.throw(thrown) == 2
    with pytest.raises(StopIteration) as stop:
        running.throw(last := KeyError("c"))
    assert stop.value.value == ["a", thrown, last]
    assert thrown.__context__ is None

    closed = echo()
    next(closed)
    closed.close()
    with pytest.raises(StopIteration):
        next(closed)
    echo().close()  # never began
    assert lumiqtrace.flush()
    assert [event["status"] for event in backend.events] == ["success", "cancelled"]


def test_a_generator_that_will_not_close_is_told_so(client):
    @observe_span
    def stubborn():
        try:
            yield 1
        except GeneratorExit:
            yield 2

    running = stubborn()
    next(running)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        running.close()
    running.close()


def test_delegation_hands_on_the_return_value(client, backend):
    def outer():
        return (yield from generator(2))

    running = outer()
    assert [next(running), next(running)] == [0, 1]
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == "end"


def test_a_generator_left_to_the_garbage_collector_ends(client, backend):
    running = generator(5)
    next(running)
    with lumiqtrace.span("elsewhere") as elsewhere:
        del running
        gc.collect()
        assert lumiqtrace.get_current_span_id() == elsewhere.span_id
    assert events(backend)["generator"]["status"] == "cancelled"


def test_a_generator_continued_in_other_contexts_and_threads(client, backend):
    running = generator(3)
    contextvars.copy_context().run(next, running)
    thread = threading.Thread(target=next, args=(running,))
    thread.start()
    thread.join()
    assert list(running) == [2]
    assert lumiqtrace.get_current_trace_id() is None
    assert events(backend)["generator"]["status"] == "success"


def test_an_async_generator_takes_what_is_sent_and_thrown(client, backend):
    @observe_span
    async def echo():
        received = []
        try:
            while True:
                try:
                    received.append((yield list(received)))
                except KeyError:
                    received.append("thrown")
        finally:
            await asyncio.sleep(0)
            received.append("closed")
            kept.append(received)

    kept = []

    async def main():
        running = echo()
        assert await anext(running) == []
        assert await running.asend(1) == [1]
        assert await running.athrow(KeyError("a")) == [1, "thrown"]
        assert lumiqtrace.get_current_trace_id() is None
        await running.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(running)

    asyncio.run(main())
    assert kept == [[1, "thrown", "closed"]]
    assert events(backend)["echo"]["status"] == "cancelled"


def test_an_async_generator_left_in_a_task_is_closed_by_the_loop_in_peace(client, backend):
    complaints = []
    closed = []

    @observe_span
    async def endless():
        try:
            while True:
                yield lumiqtrace.get_current_span_id()
        finally:
            await asyncio.sleep(0)
            closed.append(lumiqtrace.get_current_span_id())
            ended.set()

    async def leave():
        async for span_id in endless():
            seen.append(span_id)
            break

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        kept = endless()
        seen.append(await anext(kept))
        await asyncio.create_task(leave())
        gc.collect()
        await ended.wait()
        assert lumiqtrace.get_current_trace_id() is None
        return kept

    seen, ended = [], asyncio.Event()
    _kept = asyncio.run(main())
    assert complaints == []
    assert sorted(closed) == sorted(seen)
    assert lumiqtrace.flush()
    assert [event["status"] for event in backend.events] == ["cancelled", "cancelled"]


def test_a_cancelled_task_leaves_nothing_behind(client, backend):
    @observe_span
    async def waits():
        await asyncio.Event().wait()

    @observe_span
    async def yields():
        yield 1
        await asyncio.Event().wait()

    async def consume():
        async for _ in yields():
            pass

    async def main():
        for function in (waits, consume):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await function()
            assert lumiqtrace.get_current_trace_id() is None
            with lumiqtrace.span("after") as after:
                pass
            assert after.trace_id

    asyncio.run(main())
    found = events(backend)
    assert found["waits"]["status"] == found["yields"]["status"] == "cancelled"
    assert "parent_span_id" not in found["after"]


def script(steps):
    """A generator's body that does at each step as it is told, and notes what it gets."""
    got = []
    for step in steps:
        try:
            got.append((yield tuple(got)))
        except (KeyError, GeneratorExit) as error:
            got.append(type(error).__name__)
            if step == "raise":
                raise
            if step == "raise another":
                raise IndexError(len(got)) from None
        if step == "return":
            return tuple(got)
    return tuple(got)


async def async_script(steps):
    body = script(steps)
    sent, error = None, None
    while True:
        try:
            item = body.send(sent) if error is None else body.throw(error)
        except StopIteration:
            return
        sent = error = None
        try:
            sent = yield item
        except (KeyError, GeneratorExit) as thrown:
            error = thrown
        await asyncio.sleep(0)


def outcome(step, argument):
    try:
        return "gave", step(argument)
    except (LookupError, ValueError, RuntimeError, StopIteration, StopAsyncIteration, GeneratorExit) as error:
        return type(error).__name__, error.args, getattr(error, "value", None), repr(error.__context__)


def drive(running, moves):
    methods = {"send": running.send, "throw": running.throw, "close": lambda _: running.close()}
    return [outcome(methods[name], argument) for name, argument in moves]


def drive_async(running, moves):
    loop = asyncio.new_event_loop()
    methods = {"send": running.asend, "throw": running.athrow, "close": lambda _: running.aclose()}
    try:
        return [
            outcome(lambda value, name=name: loop.run_until_complete(methods[name](value)), argument)
            for name, argument in moves
        ]
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


STEPS = st.lists(st.sampled_from(["go on", "raise", "raise another", "return"]), max_size=5)
MOVES = st.lists(
    st.sampled_from(
        [("send", None), ("send", 1), ("throw", KeyError("k")), ("throw", ValueError("v")), ("close", None)]
    ),
    max_size=6,
)


@given(STEPS, MOVES)
def test_whoever_drives_a_generator_cannot_tell_that_it_is_observed(steps, moves):
    moves = [("send", None), *moves, *[("send", None)] * 6]
    assert drive(observe_span(script)(steps), moves) == drive(script(steps), moves)
    assert drive_async(observe_span(async_script)(steps), moves) == drive_async(async_script(steps), moves)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, MOVES)
def test_nor_when_it_is_recorded(client, steps, moves):
    assert client.recording
    test_whoever_drives_a_generator_cannot_tell_that_it_is_observed.hypothesis.inner_test(steps, moves)
    assert lumiqtrace.get_current_trace_id() is None


def test_an_async_generator_that_no_loop_closes_leaves_nothing_behind(client):
    @observe_span
    async def waits():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    def step(awaitable):
        try:
            awaitable.send(None)
        except StopIteration as stop:
            return stop.value

    running = waits()
    assert step(running.asend(None)) == 1
    closing = running.aclose()
    step(closing)  # it waits in its body
    assert lumiqtrace.get_current_trace_id() is None
    step(closing)


# ---- many at once ------------------------------------------------------------------------------------


def check_traces(backend, count):
    assert lumiqtrace.flush(timeout=30)
    by_id = {event["span_id"]: event for event in backend.events}
    assert len(by_id) == 3 * count
    for event in backend.events:
        if "parent_span_id" in event:
            parent = by_id[event["parent_span_id"]]
            assert parent["trace_id"] == event["trace_id"]
            assert parent["tags"]["number"] == event["tags"]["number"]
    assert len({event["trace_id"] for event in backend.events}) == count


def test_a_thousand_tasks_at_once_keep_their_traces_apart(client, backend):
    async def request(number):
        async with lumiqtrace.context(tags={"number": number}), lumiqtrace.span("request"):
            await step(number)
            async for _ in steps(number):
                await asyncio.sleep(0)

    @observe_span
    async def step(number):
        await asyncio.sleep(0)

    @observe_span
    async def steps(number):
        for _ in range(3):
            await asyncio.sleep(0)
            yield number

    async def main():
        await asyncio.gather(*(request(number) for number in range(1000)))
        assert lumiqtrace.get_current_trace_id() is None

    asyncio.run(main())
    check_traces(backend, 1000)


def test_a_thousand_threads_keep_their_traces_apart(client, backend):
    together = threading.Barrier(50)

    @observe_span
    def step():
        together.wait()

    @observe_span
    def steps():
        for _ in range(2):
            together.wait()
            yield

    def request(number):
        with lumiqtrace.context(tags={"number": number}), lumiqtrace.span("request"):
            step()
            list(steps())

    for first in range(0, 1000, 50):
        threads = [threading.Thread(target=request, args=(number,)) for number in range(first, first + 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check_traces(backend, 1000)


# ---- types -------------------------------------------------------------------------------------------

TYPED = """
from collections.abc import AsyncIterator, Iterator
from lumiqtrace import observe_llm, observe_span

@observe_span
def bare(a: int, *, b: str) -> float: return 0.0

@observe_span("named", span_type="tool")
async def named(a: int) -> str: return ""

@observe_llm(model="gpt-4o", provider="openai")
async def stream(a: int) -> AsyncIterator[bytes]:
    yield b""

@observe_llm
def words() -> Iterator[str]:
    yield ""

class Service:
    @observe_span
    def method(self, a: int) -> int: return a

    @classmethod
    @observe_span
    def of_class(cls) -> str: return ""

    @observe_span
    @staticmethod
    def static(a: int) -> int: return a

reveal_type(bare)
reveal_type(named)
reveal_type(stream)
reveal_type(words)
reveal_type(Service().method)
reveal_type(Service.of_class)
reveal_type(Service.static(1))
"""


def test_type_checkers_see_the_functions_own_type(tmp_path):
    script = tmp_path / "typed.py"
    script.write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(script)],
        capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    revealed = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed" in line]
    assert revealed == [
        "def (a: int, *, b: str) -> float",
        "def (a: int) -> typing.Coroutine[Any, Any, str]",
        "def (a: int) -> typing.AsyncIterator[bytes]",
        "def () -> typing.Iterator[str]",
        "def (a: int) -> int",
        "def () -> str",
        "int",
    ], done.stdout
    assert done.returncode == 0, done.stdout
