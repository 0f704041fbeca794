"""`context()` and the trace's own attributes: on every event inside, on none outside, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from test_openai import CHAT, Served, reply

import lumiqtrace
from lumiqtrace._context import ambient, current


def by_name(backend):
    assert lumiqtrace.flush()
    return {event.get("name", event["operation"]): event for event in backend.events}


def labels(event):
    return event.get("user_id"), event.get("session_id"), event.get("tags", {})


def test_its_values_go_on_every_event_inside_and_none_outside(client, backend):
    lumiqtrace.patch_openai()
    with lumiqtrace.context(user_id="u1", session_id="s1", tags={"plan": "free"}):
        with lumiqtrace.span("inside", own="tag"):
            pass
        Served(reply(CHAT), base_url="https://api.openai.com/v1").create()
    with lumiqtrace.span("outside"):
        pass
    found = by_name(backend)
    assert labels(found["inside"]) == ("u1", "s1", {"plan": "free", "own": "tag"})
    assert labels(found["chat"]) == ("u1", "s1", {"plan": "free"})
    assert labels(found["outside"]) == (None, None, {})


def test_the_inner_one_goes_first_and_tags_are_merged(client, backend):
    with (
        lumiqtrace.context(user_id="u1", session_id="s1", tags={"a": 1, "b": 1}),
        lumiqtrace.context(user_id="u2", tags={"b": 2, "c": 2}),
        lumiqtrace.span("inside", c="own"),
    ):
        pass
    with lumiqtrace.context(user_id="u1"):
        with lumiqtrace.context(user_id="u2"):
            pass
        with lumiqtrace.span("after"):
            pass
    found = by_name(backend)
    assert labels(found["inside"]) == ("u2", "s1", {"a": "1", "b": "2", "c": "own"})
    assert labels(found["after"]) == ("u1", None, {})


class Unprintable:
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"user_id": None, "session_id": None, "tags": None},
        {"user_id": "", "tags": {}},
        {"tags": 5},
        {"tags": ["a", "b"]},
        {"tags": {"gone": None}},
    ],
)
def test_odd_values_are_harmless(client, backend, values):
    with lumiqtrace.context(**values), lumiqtrace.span("inside"):
        pass
    assert labels(by_name(backend)["inside"]) == (None, None, {})


def test_values_are_kept_as_text(client, backend):
    with lumiqtrace.context(42, session_id=Unprintable(), tags={1: Unprintable()}), lumiqtrace.span("inside"):
        pass
    unprintable = "<unprintable Unprintable>"
    assert labels(by_name(backend)["inside"]) == ("42", unprintable, {"1": unprintable})


def test_it_is_async_too_and_leaves_nothing_in_a_cancelled_task(client, backend):
    async def inside():
        async with lumiqtrace.context(user_id="u1"), lumiqtrace.span("inside"):
            await asyncio.Event().wait()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await inside()
        assert (ambient(), current()) == (None, None)
        task = asyncio.create_task(inside())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (ambient(), current()) == (None, None)

    asyncio.run(main())
    assert lumiqtrace.flush()
    assert [labels(event)[0] for event in backend.events] == ["u1", "u1"]


def test_one_object_may_be_used_by_many_at_once(client, backend):
    shared = lumiqtrace.context(user_id="u1")
    together = threading.Barrier(8)

    def work():
        for _ in range(20):
            with shared, shared:
                together.wait()
                assert ambient().user_id == "u1"
            assert ambient() is None

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ambient() is None


def test_blocks_that_end_out_of_order_or_elsewhere_leave_nothing(client):
    def block(user):
        with lumiqtrace.context(user_id=user):
            yield

    first, second = block("u1"), block("u2")
    next(first)
    next(second)
    first.close()
    assert ambient().user_id == "u2"
    second.close()
    assert ambient() is None
    elsewhere = block("u3")
    contextvars.copy_context().run(next, elsewhere)
    elsewhere.close()
    assert ambient() is None


def test_an_async_generator_that_asyncio_closes_leaves_nothing_in_its_readers_task(client, backend):
    """Left by `break`, its body ends in a task of asyncio's own, with a copy of the reader's context."""

    closed = asyncio.Event()

    async def documents():
        try:
            async with lumiqtrace.context(user_id="the generator's"), lumiqtrace.span("reading"):
                yield 1
                yield 2
        finally:
            closed.set()

    async def main():
        async for _ in documents():
            break
        await closed.wait()
        assert (current(), ambient()) == (None, None)
        with lumiqtrace.span("after"):
            pass

    asyncio.run(main())
    found = by_name(backend)
    assert labels(found["reading"])[0] == "the generator's"
    assert labels(found["after"])[0] is None
    assert "parent_span_id" not in found["after"]
    assert found["after"]["trace_id"] != found["reading"]["trace_id"]


def test_a_span_that_another_task_ends_is_current_no_more(client):
    async def end(span, labels):
        span.end()
        labels.__exit__(None, None, None)

    async def main():
        with lumiqtrace.span("outer") as outer:
            inner = lumiqtrace.span("inner").begin()
            labels = lumiqtrace.context(user_id="u1").__enter__()
            await asyncio.create_task(end(inner, labels))
            assert current().span is outer
            assert ambient() is None
        assert current() is None

    asyncio.run(main())


def test_labels_closed_where_they_were_never_open_are_gone_where_they_were(client):
    labels = lumiqtrace.context(user_id="u1").__enter__()
    contextvars.Context().run(labels.__exit__, None, None, None)
    assert ambient() is None
    labels.__exit__(None, None, None)


def test_without_a_client_it_does_nothing():
    with lumiqtrace.context(user_id="u1", tags={"a": 1}):
        lumiqtrace.set_attribute("user.id", "u2")
        lumiqtrace.set_eval_score("good", 1)
        lumiqtrace.set_usage(input_tokens=1)
        assert lumiqtrace.get_current_trace_id() is None


# ---- the trace's own ---------------------------------------------------------------------------------


def test_set_attribute_marks_the_root_from_anywhere_below(client, backend):
    with lumiqtrace.span("root"):
        with lumiqtrace.span("before"):
            pass
        with lumiqtrace.span("deep"):
            lumiqtrace.set_attribute("user.id", 7)
            lumiqtrace.set_attribute("session.id", "s1")
            lumiqtrace.set_attribute("feature", "chat")
            lumiqtrace.set_eval_score("helpful", 0.5)
            lumiqtrace.set_usage(input_tokens=3, model="gpt-4o")
        with lumiqtrace.span("after"):
            pass
    lumiqtrace.set_attribute("feature", "nobody's")
    found = by_name(backend)
    tags = {"user.id": "7", "session.id": "s1", "feature": "chat"}
    assert labels(found["root"]) == ("7", "s1", tags)
    assert found["root"]["eval_scores"] == {"helpful": 0.5}
    assert labels(found["before"]) == (None, None, {})
    assert labels(found["deep"])[:2] == labels(found["after"])[:2] == ("7", "s1")
    assert (found["deep"]["input_tokens"], found["root"]["input_tokens"]) == (3, 0)


def test_model_calls_have_the_traces_user_and_a_context_goes_first(client, backend):
    lumiqtrace.patch_openai()
    served = Served(reply(CHAT))
    with lumiqtrace.span("root"):
        lumiqtrace.set_attribute("user.id", "u1")
        lumiqtrace.set_attribute("session.id", "s1")
        served.create()
        with lumiqtrace.context(user_id="u2"):
            served.create()
    assert lumiqtrace.flush()
    calls = [event for event in backend.events if event["operation"] == "chat"]
    assert [labels(event)[:2] for event in calls] == [("u1", "s1"), ("u2", "s1")]


def test_none_takes_an_attribute_away(client, backend):
    with lumiqtrace.span("root", feature="chat", nothing=None) as root:
        lumiqtrace.set_attribute("user.id", "u1")
        lumiqtrace.set_attribute("user.id", None)
        root.set_attribute("feature", None)
        root.set_attribute("never there", None)
    assert labels(by_name(backend)["root"]) == (None, None, {})


def test_a_user_given_with_the_span_is_the_traces(client, backend):
    with lumiqtrace.span("root", **{"user.id": "u1"}), lumiqtrace.span("child"):
        pass
    found = by_name(backend)
    assert labels(found["root"])[0] == labels(found["child"])[0] == "u1"


# ---- tasks and threads -------------------------------------------------------------------------------


def test_work_that_outlives_its_span_stays_in_the_trace(client, backend):
    async def background(go):
        await go.wait()
        for number in range(2):
            with lumiqtrace.span(f"late {number}"):
                pass

    async def main():
        go = asyncio.Event()
        with lumiqtrace.span("request") as request:
            task = asyncio.create_task(background(go))
        assert lumiqtrace.get_current_trace_id() is None
        go.set()
        await task
        return request

    request = asyncio.run(main())
    found = by_name(backend)
    assert found["late 0"]["parent_span_id"] == found["late 1"]["parent_span_id"] == request.span_id


def test_to_thread_carries_the_trace(client, backend):
    def work():
        with lumiqtrace.span("work"):
            return lumiqtrace.get_current_trace_id()

    async def main():
        with lumiqtrace.context(user_id="u1"), lumiqtrace.span("root") as root:
            assert await asyncio.to_thread(work) == root.trace_id

    asyncio.run(main())
    assert labels(by_name(backend)["work"])[0] == "u1"


def test_a_chain_of_tasks_does_not_hold_all_that_came_before(client):
    async def link(count):
        with lumiqtrace.context(tags={"count": count}), lumiqtrace.span("link"):
            return asyncio.create_task(link(count - 1)) if count else (current(), ambient())

    async def main():
        found = link(5)
        while asyncio.isfuture(found) or asyncio.iscoroutine(found):
            found = await found
        return found

    span, labels = asyncio.run(main())
    assert span.around is None
    assert labels.around is None
