"""Across processes by `traceparent`, strictly; across threads by `carry` and the opt-in patch."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumiqtrace
from lumiqtrace._context import SpanContext, Trace, current, enter
from lumiqtrace._propagation import extract
from lumiqtrace._span import request_span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"

own = contextvars.ContextVar("own", default=None)
"""A context variable of the application's."""


@pytest.fixture(autouse=True)
def _unpatched():
    token = own.set(None)
    yield
    own.reset(token)
    lumiqtrace.unpatch_threads()


# ---- traceparent -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (VALID, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-02", False),  # the flag of level 2 that says the id is random
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f" {VALID}\t", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"01-{TRACE}-{SPAN}-01-what-the-future-may-be-like", True),
        (f"fe-{TRACE}-{SPAN}-00-", False),
    ],
)
def test_what_is_valid(header, sampled):
    found = extract(header)
    assert (found.trace_id, found.span_id, found.sampled) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        b"00-" + TRACE.encode(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0G",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00_{TRACE}-{SPAN}-01",
        f"{VALID},{VALID}",
        f"{VALID}\n",
        "00-" + "\u0660" * 32 + f"-{SPAN}-01",
    ],
)
def test_what_is_not(header):
    assert extract(header) is None


HEX = st.sampled_from("0123456789abcdef")


def digits(length):
    return st.text(HEX, min_size=length, max_size=length)


@given(digits(2), digits(32), digits(16), digits(2))
def test_every_header_of_the_right_shape_is_read_by_the_rules(version, trace_id, span_id, flags):
    found = extract(f"{version}-{trace_id}-{span_id}-{flags}")
    if version == "ff" or trace_id == "0" * 32 or span_id == "0" * 16:
        assert found is None
    else:
        assert (found.trace_id, found.span_id, found.sampled) == (trace_id, span_id, int(flags, 16) % 2 == 1)


@given(st.text() | st.text("0123456789abcdefABCDEF- f\n", min_size=50, max_size=60))
def test_no_text_raises_and_what_is_read_is_valid(header):
    found = extract(header)
    if found is not None:
        assert extract(f"00-{found.trace_id}-{found.span_id}-01").trace_id == found.trace_id


@given(st.text(), st.text(), st.booleans())
def test_what_is_written_is_valid_whatever_the_ids(trace_id, span_id, sampled):
    def write():
        enter(SpanContext(Trace(trace_id, sampled=sampled), span_id, None, None, None))
        return lumiqtrace.inject({})

    found = extract(contextvars.Context().run(write)["traceparent"])
    assert found.sampled is sampled


@given(digits(32), digits(16), st.booleans())
def test_what_is_written_is_what_is_read(trace_id, span_id, sampled):
    def write():
        enter(SpanContext(Trace(trace_id, sampled=sampled), span_id, None, None, None))
        return lumiqtrace.inject({})["traceparent"]

    header = contextvars.Context().run(write)
    if int(trace_id, 16) and int(span_id, 16):
        assert header == f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def test_inject_adds_the_current_span_and_gives_the_same_headers(client):
    headers = {"accept": "*/*"}
    with lumiqtrace.span("root") as root:
        assert lumiqtrace.inject(headers) is headers
    assert headers == {"accept": "*/*", "traceparent": f"00-{root.trace_id}-{root.span_id}-01"}
    assert lumiqtrace.inject({}) == {}  # outside


def test_inject_takes_a_librarys_headers_and_overwrites_nothing(client):
    with lumiqtrace.span("root") as root:
        assert root.trace_id in lumiqtrace.inject(httpx.Headers())["Traceparent"]
        for name in ("traceparent", "Traceparent", "TRACEPARENT"):
            assert lumiqtrace.inject({name: VALID}) == {name: VALID}
        odd = [object(), Mapping]
        assert lumiqtrace.inject(odd) is odd  # no mapping: left as it is


def test_an_unsampled_trace_says_so(backend):
    lumiqtrace.init("lqt_key", base_url=backend.url, sample_rate=0.0, sample_errors=True)
    with lumiqtrace.span("root") as root:
        assert lumiqtrace.inject({})["traceparent"] == f"00-{root.trace_id}-{root.span_id}-00"


def test_a_request_joins_the_trace_of_its_caller(client, backend):
    with lumiqtrace.span("unrelated") as unrelated:
        with request_span(client, "GET /", remote=extract(VALID)), lumiqtrace.span("inner"):
            lumiqtrace.set_attribute("user.id", "u1")
            assert lumiqtrace.get_current_trace_id() == TRACE
        assert lumiqtrace.get_current_span_id() == unrelated.span_id
    assert lumiqtrace.flush()
    found = {event["name"]: event for event in backend.events}
    assert (found["GET /"]["trace_id"], found["GET /"]["parent_span_id"]) == (TRACE, SPAN)
    assert found["inner"]["parent_span_id"] == found["GET /"]["span_id"]
    assert found["GET /"]["user_id"] == "u1"
    assert "user_id" not in found["unrelated"]


# ---- threads -----------------------------------------------------------------------------------------


def where():
    return lumiqtrace.get_current_span_id(), own.get()


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_carry_runs_a_function_as_if_here(client):
    own.set("mine")
    with lumiqtrace.span("root") as root:
        carried = lumiqtrace.carry(where)
        assert in_thread(where) == (None, None)
        assert in_thread(carried) == (root.span_id, "mine")
    assert in_thread(carried) == (root.span_id, "mine")
    assert lumiqtrace.get_current_span_id() is None
    assert carried.__name__ == "where"


def test_carry_lets_many_threads_in_and_nothing_out(client, backend):
    together = threading.Barrier(8)

    def work():
        with lumiqtrace.span("work"):
            together.wait()
            own.set("changed")

    with lumiqtrace.span("root") as root:
        carried = lumiqtrace.carry(work)
        threads = [threading.Thread(target=carried) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert where() == (root.span_id, None)
    assert lumiqtrace.flush()
    parents = [event.get("parent_span_id") for event in backend.events if event["name"] == "work"]
    assert parents == [root.span_id] * 8


def test_without_the_patch_an_executor_begins_traces_of_its_own(client):
    with lumiqtrace.span("root"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(where).result() == (None, None)


def test_with_it_the_work_belongs_to_whoever_submits_it(client):
    lumiqtrace.patch_threads()
    lumiqtrace.patch_threads()
    own.set("the application's own is not carried")
    with ThreadPoolExecutor(2) as pool:
        with lumiqtrace.span("root") as root, lumiqtrace.context(user_id="u1"):
            assert pool.submit(where).result() == (root.span_id, None)
            assert list(pool.map(lambda _: where(), range(4))) == [(root.span_id, None)] * 4
        assert pool.submit(where).result() == (None, None)

        async def main():
            with lumiqtrace.span("loop") as span:
                found = await asyncio.get_running_loop().run_in_executor(pool, where)
                assert found == (span.span_id, None)

        asyncio.run(main())


def test_results_exceptions_and_arguments_pass(client):
    lumiqtrace.patch_threads()
    error = ValueError("no")

    def fails():
        raise error

    with lumiqtrace.span("root"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        assert pool.submit(dict, a=1).result() == {"a": 1}
        assert pool.submit(fails).exception() is error
        assert isinstance(pool.submit(None).exception(), TypeError)
        with pytest.raises(TypeError, match="submit"):
            pool.submit()


def test_unpatching_puts_the_method_back(client):
    original = ThreadPoolExecutor.submit
    lumiqtrace.patch_threads()
    assert concurrent.futures.ThreadPoolExecutor.submit is not original
    ours = ThreadPoolExecutor.submit
    lumiqtrace.unpatch_threads()
    lumiqtrace.unpatch_threads()
    assert ThreadPoolExecutor.submit is original
    with lumiqtrace.span("root"), ThreadPoolExecutor(1) as pool:
        assert ours(pool, where).result() == (None, None)  # kept by someone: passes through


def test_a_thousand_pieces_of_work_stay_in_their_traces(client):
    lumiqtrace.patch_threads()

    def request(pool, number):
        with lumiqtrace.span(f"request {number}") as root:
            futures = [pool.submit(lumiqtrace.get_current_trace_id) for _ in range(4)]
            assert {future.result() for future in futures} == {root.trace_id}
        assert current() is None

    with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(8) as callers:
        for future in [callers.submit(request, pool, number) for number in range(250)]:
            future.result()
