"""Measures one tracer in the environment it is installed in; run by `overhead.py`.

Blocks of calls alternate in one process, with and without the tracer's patches, and the difference of
CPU time is taken for each pair: neighbours on the machine disturb both sides alike. To switch a tracer
off and on again, what it replaced in openai's classes is found by comparison and put back by hand.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

PAIRS = 15
CALLS = 200
CHUNKS = 100
STREAMS = 5
STREAM_PAIRS = 60
"""Smaller blocks, more of them: what a tracer adds to a stream is less than two streams differ."""
PAUSE = 0.005
"""Seconds after each block, in which a tracer's threads come to rest: the next block is not to pay for it."""
MESSAGES = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "Say hello. " * 10},
]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}

around: Callable[[], Any] = nullcontext
"""What a tracer wants around the calls of a request."""


def set_up(tracer: str, sink: str) -> Callable[[], object]:
    """Install the tracer as its documentation says; gives its flush."""
    known = {"lumiqtrace": lumiqtrace, "openinference": openinference, "langfuse": langfuse, "sentry": sentry}
    return known[tracer](sink)


def lumiqtrace(sink: str) -> Callable[[], object]:
    import lumiqtrace

    lumiqtrace.init("lqt_benchmark", base_url=sink)
    lumiqtrace.patch_openai()
    return lumiqtrace.flush


def openinference(sink: str) -> Callable[[], object]:
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces")))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    return provider.force_flush


def langfuse(sink: str) -> Callable[[], object]:
    from langfuse import Langfuse

    client = Langfuse(public_key="pk-lf-benchmark", secret_key="sk-lf-benchmark", base_url=sink)
    importlib.import_module("langfuse.openai")
    return client.flush


def sentry(sink: str) -> Callable[[], object]:
    global around
    import sentry_sdk
    from sentry_sdk.integrations.openai import OpenAIIntegration

    sentry_sdk.init(
        dsn=sink.replace("http://", "http://benchmark@") + "/1",
        traces_sample_rate=1.0,
        integrations=[OpenAIIntegration()],
    )
    # Sentry records spans only inside a transaction.
    around = lambda: sentry_sdk.start_transaction(name="request")  # noqa: E731
    return sentry_sdk.flush


class Switch:
    """Turns the tracer off and on: what it replaced in openai's classes, found by comparison."""

    def __init__(self) -> None:
        # Loads what is imported lazily, so that it can be compared.
        openai = importlib.import_module("openai")
        importlib.import_module("openai.resources.chat.completions")
        openai.OpenAI(api_key="none").chat.completions.create  # noqa: B018 - the access is what loads
        self._before = self._snapshot()

    def compare(self) -> None:
        known = {owner for owner, _ in self._before}
        self._changes = [
            (owner, name, self._before.get((owner, name)), value)
            for (owner, name), value in self._snapshot().items()
            if owner in known and self._before.get((owner, name)) is not value
        ]
        assert self._changes, "the tracer replaced nothing"

    def on(self) -> None:
        for owner, name, _, patched in self._changes:
            setattr(owner, name, patched)

    def off(self) -> None:
        for owner, name, original, _ in self._changes:
            if original is not None:
                setattr(owner, name, original)
            elif name in vars(owner):
                delattr(owner, name)

    @staticmethod
    def _snapshot() -> dict[tuple[type, str], Any]:
        modules = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("openai.resources.chat") or name in ("openai._client", "openai._base_client")
        ]
        classes = {
            value
            for module in modules
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__.startswith("openai")
        }
        return {
            (owner, name): value
            for owner in classes
            for name, value in vars(owner).items()
            if callable(value) and not name.startswith("__")
        }


def network() -> tuple[Any, Any]:
    """A blocking and an async HTTP client that answer by themselves."""
    import openai._base_client as base

    http = getattr(base, "httpx2", None) or base.httpx
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    head = {"id": "1", "created": 1, "model": "gpt-4o-2024-08-06"}
    whole = json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
    chunk = {**head, "object": "chat.completion.chunk"}
    words = [{"content": f"word {number} "} for number in range(CHUNKS - 2)]
    chunks = [{**chunk, "choices": [{"index": 0, "delta": word, "finish_reason": None}]} for word in words]
    chunks += [{**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    chunks += [{**chunk, "choices": [], "usage": USAGE}]
    pieces = [f"data: {json.dumps(item)}\n\n".encode() for item in chunks] + [b"data: [DONE]\n\n"]

    class Pieces(http.SyncByteStream):
        def __iter__(self) -> Any:
            yield from pieces

    def answer(request: Any) -> Any:
        if b'"stream":true' in request.content.replace(b" ", b""):
            return http.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces())
        return http.Response(200, headers={"content-type": "application/json"}, content=whole)

    async def aanswer(request: Any) -> Any:
        return answer(request)

    return (
        http.Client(transport=http.MockTransport(answer)),
        http.AsyncClient(transport=http.MockTransport(aanswer)),
    )


class Blocks:
    """Blocks of calls; each gives CPU seconds of the calling thread, and of the process, for a call."""

    def __init__(self, flush: Callable[[], object]) -> None:
        import openai

        sync_network, async_network = network()
        self._flush = flush
        self._client = openai.OpenAI(api_key="none", max_retries=0, http_client=sync_network)
        self._aclient = openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=async_network)

    def blocking(self) -> tuple[float, float]:
        return self._timed(self._calls, CALLS)

    def streams(self) -> tuple[float, float]:
        return self._timed(self._read_streams, STREAMS * CHUNKS)

    def asynchronous(self) -> tuple[float, float]:
        return self._timed(lambda: asyncio.run(self._acalls()), CALLS)

    def _timed(self, block: Callable[[], None], count: int) -> tuple[float, float]:
        thread, process = time.thread_time(), time.process_time()
        block()
        thread = time.thread_time() - thread
        self._flush()
        time.sleep(PAUSE)
        return thread / count, (time.process_time() - process) / count

    def _calls(self) -> None:
        for _ in range(CALLS // 10):
            with around():
                for _ in range(10):
                    self._client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    def _read_streams(self) -> None:
        for _ in range(STREAMS):
            with around():
                options = {"include_usage": True}
                for _ in self._client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, stream=True, stream_options=options
                ):
                    pass

    async def _acalls(self) -> None:
        for _ in range(CALLS // 10):
            with around():
                for _ in range(10):
                    await self._aclient.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def paired(
    block: Callable[[], tuple[float, float]], switch: Switch, pairs: int = PAIRS
) -> tuple[float, float]:
    """The median differences that the tracer makes, in microseconds: calling thread, whole process."""
    global around
    wanted = around
    threads, processes = [], []
    block()
    for pair in range(pairs):
        found = {}
        for is_traced in (False, True) if pair % 2 else (True, False):
            (switch.on if is_traced else switch.off)()
            around = wanted if is_traced else nullcontext
            found[is_traced] = block()
        threads.append((found[True][0] - found[False][0]) * 1e6)
        processes.append((found[True][1] - found[False][1]) * 1e6)
    return statistics.median(threads), statistics.median(processes)


def measure_calls(tracer: str, sink: str) -> dict[str, float]:
    switch = Switch()
    flush = set_up(tracer, sink)
    switch.compare()
    blocks = Blocks(flush)
    blocking, everything = paired(blocks.blocking, switch)
    return {
        "blocking": blocking,
        "blocking_all": everything,
        "async": paired(blocks.asynchronous, switch)[0],
        "stream_chunk": paired(blocks.streams, switch, STREAM_PAIRS)[0],
    }


def measure_setup(tracer: str, sink: str) -> dict[str, float]:
    """CPU milliseconds from `import openai` done to the tracer being ready, in this fresh process."""
    started = time.process_time()
    set_up(tracer, sink)
    return {"setup": (time.process_time() - started) * 1e3}


if __name__ == "__main__":
    import logging

    import openai  # noqa: F401 - what the tracer does comes on top of it

    logging.disable(logging.CRITICAL)
    measure = measure_calls if sys.argv[3] == "calls" else measure_setup
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
