"""One call is one event under the frameworks that people build with; each runs where it is installed.

The provider is a server on loopback, so that a framework's own way to the client library, raw responses
and callbacks included, is the one that runs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lumiqtrace

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_openai import CHAT, STREAM
from test_openai_routes import RESPONSE, RESPONSE_STREAM

# What frameworks say about themselves and their own dependencies is not ours to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]

EMBEDDING = {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8},
             "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]}  # fmt: skip

# Without calls of tools, which an agent would go on to make.
PLAIN_RESPONSE = {**RESPONSE, "output": RESPONSE["output"][-1:]}
PLAIN_STREAM = [item for item in RESPONSE_STREAM[:-1] if item["type"] != "response.output_item.done"] + [
    {**RESPONSE_STREAM[-1], "response": PLAIN_RESPONSE}
]


class _Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(request)
        if self.path.endswith("/embeddings"):
            return self.answer("application/json", json.dumps(EMBEDDING))
        chat = self.path.endswith("/chat/completions")
        if not request.get("stream"):
            whole = (structured(request) if chat else None) or (CHAT if chat else PLAIN_RESPONSE)
            return self.answer("application/json", json.dumps(whole))
        asked = (request.get("stream_options") or {}).get("include_usage")
        items = (STREAM if asked else STREAM[:4]) if chat else PLAIN_STREAM
        named = "" if chat else "event: {type}\n"
        text = "".join(f"{named.format(**item)}data: {json.dumps(item)}\n\n" for item in items)
        return self.answer("text/event-stream", text + "data: [DONE]\n\n" * chat)

    def answer(self, kind, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")  # else a loop's end finds the framework's pool still open
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The test reports."""


def structured(request):
    """An answer in the shape that was asked for: as a call of the tool, or as JSON in the text."""
    if request.get("tools"):
        name = request["tools"][0]["function"]["name"]
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": '{"city": "Oslo"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    elif request.get("response_format"):
        message = {"role": "assistant", "content": '{"city": "Oslo"}'}
    else:
        return None
    return {**CHAT, "choices": [{**CHAT["choices"][0], "message": message}]}


@pytest.fixture
def provider():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    server.daemon_threads = True
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def events(client, backend, provider):
    """The model calls that were recorded: as many as the provider was asked."""
    lumiqtrace.patch_openai()

    def recorded():
        assert lumiqtrace.flush()
        found = [event for event in backend.events if event["span_kind"] == "llm"]
        assert len(found) == len(provider.asked) > 0
        return found

    return recorded


def tokens(event):
    return event["status"], event["input_tokens"], event["output_tokens"]


WHOLE = ("success", 1000, 100)


# ---- LangChain -----------------------------------------------------------------------------------------


@pytest.fixture
def langchain(provider):
    module = pytest.importorskip("langchain_openai")
    return lambda **options: module.ChatOpenAI(
        model="gpt-4o", api_key="test", base_url=provider.url, max_retries=0, **options
    )


def test_langchain_invoke(langchain, events):
    assert langchain().invoke("Say hello").content == "Hello"
    asyncio.run(langchain().ainvoke("Say hello"))
    assert [tokens(event) for event in events()] == [WHOLE, WHOLE]


def test_langchain_streams(langchain, events):
    model = langchain(stream_usage=True)
    assert "".join(piece.content for piece in model.stream("Say hello")) == "Hello"

    async def read():
        return [piece async for piece in model.astream("Say hello")]

    asyncio.run(read())
    found = events()
    assert [tokens(event) for event in found] == [WHOLE, WHOLE]
    assert all(event["stream"] and "ttft_ms" in event for event in found)


def test_langchain_structured_output(langchain, events):
    import pydantic

    class Weather(pydantic.BaseModel):
        city: str

    for way in ("json_schema", "function_calling"):
        assert langchain().with_structured_output(Weather, method=way).invoke("Oslo?") == Weather(city="Oslo")
    assert [tokens(event) for event in events()] == [WHOLE, WHOLE]


def test_langchain_responses(langchain, events):
    langchain(use_responses_api=True).invoke("Say hello")
    list(langchain(use_responses_api=True).stream("Say hello"))
    assert [tokens(event) for event in events()] == [WHOLE, WHOLE]


def test_langchain_embeddings(provider, events):
    module = pytest.importorskip("langchain_openai")
    made = module.OpenAIEmbeddings(
        model="text-embedding-3-small",
        api_key="test",
        base_url=provider.url,
        check_embedding_ctx_length=False,
    )
    assert made.embed_query("x") == pytest.approx([0.1, 0.2])
    assert [(event["operation"], event["input_tokens"]) for event in events()] == [("embed", 8)]


# ---- others --------------------------------------------------------------------------------------------


def test_llama_index(provider, events):
    module = pytest.importorskip("llama_index.llms.openai")
    model = module.OpenAI(model="gpt-4o", api_key="test", api_base=provider.url, max_retries=0)
    assert str(model.complete("Say hello")) == "Hello"
    list(model.stream_complete("Say hello", stream_options={"include_usage": True}))
    asyncio.run(model.acomplete("Say hello"))
    assert [tokens(event) for event in events()] == [WHOLE] * 3


def test_litellm(provider, events, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its import asks the internet for prices
    module = pytest.importorskip("litellm")
    options = {
        "model": "openai/gpt-4o", "api_key": "test", "api_base": provider.url,
        "messages": [{"role": "user", "content": "Say hello"}],
    }  # fmt: skip
    assert module.completion(**options).choices[0].message.content == "Hello"
    list(module.completion(**options, stream=True, stream_options={"include_usage": True}))

    async def main():
        await module.acompletion(**options)
        stream = await module.acompletion(**options, stream=True, stream_options={"include_usage": True})
        return [item async for item in stream]

    asyncio.run(main())
    assert [tokens(event) for event in events()] == [WHOLE] * 4
    gc.collect()  # it leaves an event loop open, which is to be said here, where such warnings are passed over


def test_instructor(provider, events):
    module = pytest.importorskip("instructor")
    import openai
    import pydantic

    class Weather(pydantic.BaseModel):
        city: str

    made = module.from_openai(openai.OpenAI(api_key="test", base_url=provider.url, max_retries=0))
    messages = [{"role": "user", "content": "Oslo?"}]
    found = made.chat.completions.create(model="gpt-4o", messages=messages, response_model=Weather)
    assert found.city == "Oslo"
    assert [tokens(event) for event in events()] == [WHOLE]


def test_openai_agents(provider, events):
    module = pytest.importorskip("agents")
    import openai

    module.set_tracing_disabled(True)
    own = openai.AsyncOpenAI(api_key="test", base_url=provider.url, max_retries=0)

    async def main():
        for kind in (module.OpenAIResponsesModel, module.OpenAIChatCompletionsModel):
            agent = module.Agent(name="a", instructions="x", model=kind(model="gpt-4o", openai_client=own))
            assert (await module.Runner.run(agent, "Say hello")).final_output == "Hello"
            async for _ in module.Runner.run_streamed(agent, "Say hello").stream_events():
                pass

    asyncio.run(main())
    found = events()
    assert [event["stream"] for event in found] == [False, True, False, True]
    # On a host that is not OpenAI's, the last stream counts its tokens only if the framework asks for them.
    assert [tokens(event) for event in found[:3]] == [WHOLE] * 3


def test_pydantic_ai(provider, events):
    module = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    own = OpenAIProvider(api_key="test", base_url=provider.url)

    async def main():
        for kind in (OpenAIChatModel, OpenAIResponsesModel):
            agent = module.Agent(kind("gpt-4o", provider=own))
            assert (await agent.run("Say hello")).output == "Hello"
            async with agent.run_stream("Say hello") as result:
                await result.get_output()

    asyncio.run(main())
    found = events()
    assert [tokens(event) for event in found] == [WHOLE] * 4
    assert [event["stream"] for event in found] == [False, True, False, True]
