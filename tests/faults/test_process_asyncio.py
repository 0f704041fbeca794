"""asyncio: events are recorded and delivered without ever touching a loop, and a flush that holds one up says so."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from backend import Answer
from process_helpers import names

import lumiqtrace
from lumiqtrace import _client


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch):
    monkeypatch.setattr(_client, "_said_loop", False)


@pytest.fixture
def slow(client, backend):
    """A backend that answers when a tenth of a second is over."""

    def answer(_request):
        threading.Event().wait(0.1)
        return Answer()

    backend.answer = answer
    return backend


async def emit(name):
    async with lumiqtrace.span(name):
        await asyncio.sleep(0)


def said(caplog):
    return [record for record in caplog.records if "aflush" in record.getMessage()]


def test_one_loop_after_the_other(client, backend):
    for name in ("first", "second"):
        asyncio.run(emit(name), debug=True)
    assert lumiqtrace.flush(20)
    for name in ("third", "fourth"):
        asyncio.run(emit(name), debug=True)
        assert asyncio.run(lumiqtrace.aflush(20))
    assert names(backend) == ["first", "fourth", "second", "third"]


def test_recording_and_flushing_after_the_loop_was_closed(client, backend):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(emit("inside"))
    span = lumiqtrace.span("outlives its loop").begin()
    loop.close()
    span.end()
    assert lumiqtrace.flush(20)
    assert names(backend) == ["inside", "outlives its loop"]


def test_a_loop_that_closes_during_an_aflush(client, slow, caplog):
    async def main():
        await emit("work")
        waiting = asyncio.ensure_future(lumiqtrace.aflush(20))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(main(), debug=True)
    slow.wait_for(lambda: names(slow) == ["work"])
    assert lumiqtrace.flush(20)
    assert "Traceback" not in caplog.text


def test_a_task_that_is_cancelled_may_record_and_flush(client, backend):
    async def work():
        async with lumiqtrace.span("cancelled"):
            try:
                await asyncio.Event().wait()
            finally:
                with lumiqtrace.span("cleaning up"):
                    assert await lumiqtrace.aflush(20)

    async def main():
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    asyncio.run(main(), debug=True)
    assert lumiqtrace.flush(20)
    assert {event["name"]: event["status"] for event in backend.events} == {
        "cancelled": "cancelled",
        "cleaning up": "success",
    }


def test_cancelling_an_aflush_is_the_callers_own_and_delivery_goes_on(client, slow):
    async def main():
        await emit("work")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lumiqtrace.aflush(20), 0.01)

    asyncio.run(main())
    assert lumiqtrace.flush(20)
    assert names(slow) == ["work"]


def test_the_loop_goes_on_during_an_aflush(client, backend):
    release = threading.Event()

    def answer(_request):
        release.wait(30)
        return Answer()

    backend.answer = answer

    async def main():
        await emit("work")
        waiting = asyncio.ensure_future(lumiqtrace.aflush(30))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        release.set()
        assert await waiting

    asyncio.run(main())


def test_a_flush_that_holds_up_a_loop_is_said_once(client, slow, caplog):
    async def main():
        for _ in range(2):
            await emit("work")
            assert lumiqtrace.flush(20)

    with caplog.at_level(logging.DEBUG, "lumiqtrace"):
        asyncio.run(main())
    [record] = said(caplog)
    assert record.levelname == "WARNING"
    assert "lumiqtrace.aflush()" in record.getMessage()


def test_a_flush_that_holds_up_no_loop_is_not_said(client, slow, caplog):
    async def main():
        await emit("work")
        assert await lumiqtrace.aflush(20)
        assert lumiqtrace.flush(20)  # has nothing to wait for
        await emit("work")
        assert await asyncio.to_thread(lumiqtrace.flush, 20)

    asyncio.run(main())
    with lumiqtrace.span("work"):
        pass
    assert lumiqtrace.flush(20)
    assert said(caplog) == []
