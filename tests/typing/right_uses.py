"""What users write, and the types they get; `tests/test_typing.py` has mypy read it, nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, assert_type

import lumiqtrace
from lumiqtrace import LumiqConfig, Span, observe_llm, observe_span
from lumiqtrace.integrations import vercel
from lumiqtrace.integrations.aws_lambda import traced_handler
from lumiqtrace.integrations.cloud_run import traced_function
from lumiqtrace.integrations.serverless import flush_on_return
from lumiqtrace.testing import CapturedEvent, Events, capture

# ---- a decorated function keeps its type ---------------------------------------------------------------


@observe_span
def bare(question: str, *, limit: int = 3) -> list[str]:
    return [question] * limit


@observe_span("retrieve", span_type="retriever")
def named(question: str, *, limit: int = 3) -> list[str]:
    return [question] * limit


@observe_span(span_type="tool")
async def coroutine(order: int) -> bool:
    return order > 0


@observe_span
def generator(count: int) -> Generator[int, str, bool]:
    sent = yield count
    return bool(sent)


@observe_span()
async def async_generator(count: int) -> AsyncIterator[int]:
    yield count


@observe_llm
def bare_llm(prompt: str) -> bytes:
    return prompt.encode()


@observe_llm(model="gpt-4o", provider="openai")
async def llm(prompt: str) -> bytes:
    return prompt.encode()


class Shop:
    @observe_span
    def method(self, order: int) -> str:
        return str(order)

    @observe_span("status", span_type="tool")
    @classmethod
    def above_classmethod(cls, order: int) -> str:
        return str(order)

    @classmethod
    @observe_llm("gpt-4o")
    def below_classmethod(cls, order: int) -> str:
        return str(order)

    @observe_llm
    @staticmethod
    def above_staticmethod(order: int) -> str:
        return str(order)

    @property
    @observe_span
    def total(self) -> float:
        return 1.0


@traced_handler
def bare_handler(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": len(event)}


@traced_handler(flush_timeout=1.5, background=True, trust_incoming_trace=True)
def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": len(event)}


@traced_function
def bare_cloud_function(request: bytes) -> tuple[str, int]:
    return request.decode(), 200


@traced_function(flush_timeout=None, trust_incoming_trace=True)
async def cloud_function(request: bytes) -> tuple[str, int]:
    return request.decode(), 200


@flush_on_return
def bare_flushing(request: bytes) -> str:
    return request.decode()


def seconds_left(request: bytes) -> float | None:
    return len(request) / 2


@flush_on_return(timeout=seconds_left)
async def flushing(request: bytes) -> str:
    return request.decode()


async def decorated() -> None:
    assert_type(bare("q", limit=2), list[str])
    assert_type(named("q", limit=2), list[str])
    assert_type(await coroutine(1), bool)
    assert_type(generator(1), Generator[int, str, bool])
    assert_type(async_generator(1), AsyncIterator[int])
    assert_type(bare_llm("p"), bytes)
    assert_type(await llm("p"), bytes)

    shop = Shop()
    assert_type(shop.method(1), str)
    assert_type(Shop.above_classmethod(1), str)
    assert_type(Shop.below_classmethod(1), str)
    assert_type(shop.above_staticmethod(1), str)
    assert_type(shop.total, float)

    assert_type(bare_handler({}, None), dict[str, int])
    assert_type(handler({}, None), dict[str, int])
    assert_type(bare_cloud_function(b""), tuple[str, int])
    assert_type(await cloud_function(b""), tuple[str, int])
    assert_type(bare_flushing(b""), str)
    assert_type(await flushing(b""), str)


# ---- an application and a client too -------------------------------------------------------------------

Environ = dict[str, Any]


class OpenAI:
    """In the place of the library's own, whose types alone take mypy 20 seconds to read."""

    api_key = ""


def wsgi(environ: Environ, start_response: Callable[..., object]) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield environ["PATH_INFO"].encode()


assert_type(vercel.traced(wsgi)({}, print), Iterator[bytes])
assert_type(vercel.traced(Shop, exclude=["/health"], response_header=False), type[Shop])

assert_type(lumiqtrace.wrap_openai(OpenAI()), OpenAI)
assert_type(lumiqtrace.wrap_anthropic(OpenAI()), OpenAI)
assert_type(lumiqtrace.wrap_google(OpenAI()), OpenAI)

# ---- spans ---------------------------------------------------------------------------------------------


async def spans() -> None:
    with lumiqtrace.span("plan", "planning", attempt=1, user="u") as span:
        assert_type(span, Span)
        assert_type(span.trace_id, str | None)
        span.set_usage(input_tokens=3, model="gpt-4o", cost_usd=0.1)
    async with lumiqtrace.span("act") as span:
        assert_type(span, Span)
    with lumiqtrace.context(user_id=7, session_id="s", tags={"plan": 1}) as labels:
        assert_type(labels, lumiqtrace.context)
    async with lumiqtrace.context(user_id="u") as labels:
        assert_type(labels, lumiqtrace.context)
    assert_type(lumiqtrace.get_current_trace_id(), str | None)


def after_a_block() -> int:
    """A span lets exceptions through, so that nothing need follow the block."""
    with lumiqtrace.span("count"):
        return 1


# ---- the options ---------------------------------------------------------------------------------------

client = lumiqtrace.init(
    "lqt_1",
    base_url=None,
    sample_rate=1,
    flush="request",
    spool="always",
    prices={"my-model": {"input": 1.0, "output": 2.0}},
    redact_fields=["iban"],
    before_send=lambda event: None if event.status == "error" else event,
)
assert_type(client, lumiqtrace.Client)
assert_type(client.stats(), lumiqtrace.Stats)
assert_type(client.config.batch_size, int)
assert_type(lumiqtrace.init(prices=lambda event: event.input_tokens * 2e-6), lumiqtrace.Client)
assert_type(lumiqtrace.flush(1), bool)
vercel.traced(wsgi, LumiqConfig(api_key="lqt_1", capture_request_body=True))

# ---- what tests use ------------------------------------------------------------------------------------

with capture(sample_rate=0.5) as events:
    assert_type(events, Events)
    assert_type(events[0], CapturedEvent)
    assert_type(events[0].children, list[CapturedEvent])
