"""One scenario of `delivery.py` with one tracer, in a process of its own.

    python delivery_probe.py TRACER SINK SCENARIO

prints one line of JSON when the scenario is over; what the process does after that line is its exit. `bare`
is no tracer at all.
"""

from __future__ import annotations

import gc
import json
import logging
import resource
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import overhead_probe

SLOW = 0.020
"""Seconds beyond which a call counts as slowed; one takes a third of a millisecond."""

BURST = 20_000
HEALTHY = 10_000
MANY = 50_000
COMPUTED = 4_000
"""Numbers that a call adds up, where it is not made by a client library."""
OUTAGE_CALLS = 500
OUTAGE = 8.0


class Program:
    """A program that calls a model, as fast as it can or in its own time."""

    def __init__(self, tracer: str, sink: str) -> None:
        import openai

        self.switch = overhead_probe.Switch() if tracer != "bare" else None
        network, _ = overhead_probe.network()
        self._client = openai.OpenAI(api_key="none", max_retries=0, http_client=network)
        self._flush: Callable[[], object] = lambda: None
        self.tracer = tracer
        if tracer != "bare":
            self._flush = overhead_probe.set_up(tracer, sink)

    def call(self) -> None:
        self._client.chat.completions.create(model="gpt-4o", messages=overhead_probe.MESSAGES)

    def calls(self, count: int, together: int = 10) -> array[float]:
        """The seconds that each took; `together` of them are one request's."""
        took = array("d")
        clock = time.perf_counter
        for _ in range(count // together):
            with overhead_probe.around():
                for _ in range(together):
                    started = clock()
                    self.call()
                    took.append(clock() - started)
        return took

    def flush(self) -> float:
        """Seconds that it took, with the tracer's own timeout."""
        started = time.perf_counter()
        self._flush()
        return time.perf_counter() - started


def memory() -> float:
    """MiB of this process that are in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def cpu(program: Program) -> dict[str, Any]:
    """Paired blocks with and without the tracer, in this process: what the machine does hits both alike."""
    switch = program.switch
    assert switch is not None
    switch.compare()
    blocks = overhead_probe.Blocks(program.flush)
    return {"cpu_us": overhead_probe.paired(blocks.blocking, switch)[1]}


def flush_after_one(program: Program) -> dict[str, Any]:
    program.calls(50)
    program.flush()
    took = []
    for _ in range(50):
        program.calls(1, together=1)
        took.append(program.flush())
    return {"flush_ms": statistics.median(took) * 1e3, "flushes": len(took) + 1}


def fails(program: Program) -> dict[str, Any]:
    """The backend works for a while, with which the rest is compared, then is down or hangs."""
    program.calls(1_000)
    healthy = program.calls(HEALTHY)
    program.flush()
    print(json.dumps({"fails": True}), flush=True)
    sys.stdin.readline()
    before = memory()
    first = program.calls(MANY // 2)
    half = memory()
    second = program.calls(MANY // 2)
    after = memory()
    took = first + second
    return {
        "p50": statistics.median(took) / statistics.median(healthy),
        "slow": sum(each > SLOW for each in took) - MANY / HEALTHY * sum(each > SLOW for each in healthy),
        "memory_mib": after - before,
        "second_half_mib": after - half,
        "flush_s": program.flush(),
    }


def burst(program: Program) -> dict[str, Any]:
    program.calls(200)
    program.flush()
    started = time.perf_counter()
    program.calls(BURST)
    loop = time.perf_counter() - started
    program.flush()
    return {"loop_s": loop, "all_s": time.perf_counter() - started, "emitted": BURST + 200}


def by_hand(program: Program) -> dict[str, Any]:
    """The burst of a program that is quicker than the client library: it computes, and tells what it used."""
    call = {"lumiqtrace": lumiqtrace_call, "langfuse": langfuse_call, "sentry": sentry_call}[program.tracer]()
    program.flush()
    started = time.perf_counter()
    for _ in range(BURST // 10):
        with overhead_probe.around():
            for _ in range(10):
                call(compute)
    loop = time.perf_counter() - started
    program.flush()
    return {"loop_s": loop, "all_s": time.perf_counter() - started, "emitted": BURST}


def compute() -> None:
    """About 0.1 ms."""
    sum(range(COMPUTED))


def lumiqtrace_call() -> Callable[[Callable[[], None]], None]:
    import lumiqtrace

    @lumiqtrace.observe_llm(model="gpt-4o", provider="openai")
    def call(work: Callable[[], None]) -> None:
        work()
        lumiqtrace.set_usage(input_tokens=1000, output_tokens=100)

    return call


def langfuse_call() -> Callable[[Callable[[], None]], None]:
    from langfuse import get_client

    client = get_client()

    def call(work: Callable[[], None]) -> None:
        with client.start_as_current_observation(name="call", as_type="generation", model="gpt-4o") as seen:
            work()
            seen.update(usage_details={"input": 1000, "output": 100})

    return call


def sentry_call() -> Callable[[Callable[[], None]], None]:
    import sentry_sdk

    def call(work: Callable[[], None]) -> None:
        with sentry_sdk.start_span(op="gen_ai.chat", name="chat gpt-4o") as span:
            span.set_data("gen_ai.request.model", "gpt-4o")
            work()
            span.set_data("gen_ai.usage.input_tokens", 1000)
            span.set_data("gen_ai.usage.output_tokens", 100)

    return call


def outage(program: Program) -> dict[str, Any]:
    """Calls go on at an even pace for a while longer than the backend is away; then time to recover."""
    program.calls(10)
    program.flush()
    print(json.dumps({"away": OUTAGE}), flush=True)
    for _ in range(OUTAGE_CALLS // 10):
        program.calls(10)
        time.sleep((OUTAGE + 2) / (OUTAGE_CALLS / 10))
    for _ in range(20):  # as a server that lives on
        time.sleep(1)
        program.calls(1, together=1)
    program.flush()
    return {"emitted": 10 + OUTAGE_CALLS + 20}


SCENARIOS = {
    "flush_after_one": flush_after_one,
    "cpu": cpu,
    "down": fails,
    "hang": fails,
    "burst": burst,
    "by_hand": by_hand,
    "outage": outage,
}


def main() -> None:
    tracer, sink, scenario = sys.argv[1:4]
    logging.disable(logging.CRITICAL)
    found = SCENARIOS[scenario](Program(tracer, sink))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
