"""A support desk with two model calls per question, traced request by request.

    uvicorn app:app

It needs no provider key: without OPENAI_API_KEY the model is a stand-in on this machine.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import openai
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import lumiqtrace
from lumiqtrace.demo.provider import serving
from lumiqtrace.integrations.fastapi import (
    LumiqConfig,
    LumiqFastAPIMiddleware,
    get_current_trace_id,
    observe_span,
    set_attribute,
)

MODEL = "gpt-4o-mini"
DOCUMENTS = (
    "Returns: an order can be returned within 30 days of delivery. Faulty goods: within two years.",
    "Kettles: descale once a month. A kettle that leaks is faulty and must not be used any more.",
    "Gift cards are valid for three years and cannot be paid out.",
)

lumiqtrace.patch_openai()


class Question(BaseModel):
    """What a customer asks."""

    text: str
    user_id: str = "anonymous"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the client of the model provider: the real one, or the stand-in."""
    async with AsyncExitStack() as stack:
        options = {}
        if "OPENAI_API_KEY" not in os.environ:
            options = {"api_key": "none-needed", "base_url": stack.enter_context(serving())}
        app.state.openai = await stack.enter_async_context(openai.AsyncOpenAI(**options))
        yield


app = FastAPI(title="Support desk", lifespan=lifespan)
app.add_middleware(
    LumiqFastAPIMiddleware,
    config=LumiqConfig(
        api_key=os.environ.get("LUMIQTRACE_API_KEY") or None,
        base_url=os.environ.get("LUMIQTRACE_BASE_URL", "https://api.lumiqtrace.com"),
        environment="example",
        capture_request_body=True,
    ),
    exclude=["/health"],
)


@observe_span("search documents", span_type="retriever")
async def search(client: openai.AsyncOpenAI, question: str) -> list[str]:
    """The two documents nearest to the question."""
    found = await client.embeddings.create(model="text-embedding-3-small", input=[question, *DOCUMENTS])
    asked, *known = [item.embedding for item in found.data]
    near = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in known]
    return [DOCUMENTS[i] for i in sorted(range(len(near)), key=near.__getitem__, reverse=True)[:2]]


def messages(question: str, documents: list[str]) -> list[dict[str, str]]:
    """What the model is asked."""
    context = "\n".join(documents)
    return [
        {"role": "system", "content": f"Answer briefly, from this only:\n{context}"},
        {"role": "user", "content": question},
    ]


@observe_span("file the question")
def file_away(question: str) -> int:
    """Work after the response; it is still in the request's trace."""
    return len(question)


@app.post("/ask")
async def ask(question: Question, request: Request, tasks: BackgroundTasks) -> dict[str, str | None]:
    """Answer in one piece."""
    set_attribute("user.id", question.user_id)
    client = request.app.state.openai
    documents = await search(client, question.text)
    answer = await client.chat.completions.create(model=MODEL, messages=messages(question.text, documents))
    tasks.add_task(file_away, question.text)
    return {"answer": answer.choices[0].message.content, "trace_id": get_current_trace_id()}


@app.post("/ask/stream")
async def ask_in_pieces(question: Question, request: Request) -> StreamingResponse:
    """Answer word by word; the request's span ends with the last one."""
    set_attribute("user.id", question.user_id)
    client = request.app.state.openai
    documents = await search(client, question.text)

    async def words() -> AsyncIterator[str]:
        async with await client.chat.completions.create(
            model=MODEL, messages=messages(question.text, documents), stream=True
        ) as chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    return StreamingResponse(words(), media_type="text/plain")


@app.get("/health")
def health() -> str:
    """Asked every few seconds, and therefore in no trace."""
    return "ok"
