"""A FastAPI application on Vercel that streams a model's answer; delivered when the stream is over."""

import os
from collections.abc import AsyncIterator

import openai
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import lumiqtrace
from lumiqtrace.integrations.vercel import traced

lumiqtrace.init()
lumiqtrace.patch_openai()

api = FastAPI()
client = openai.AsyncOpenAI()


class Question(BaseModel):
    """What a user asks."""

    message: str
    user: str = "anonymous"


@api.post("/api/chat")
async def chat(question: Question) -> StreamingResponse:
    """Stream the answer as plain text."""
    lumiqtrace.set_attribute("user.id", question.user)
    return StreamingResponse(pieces(question.message), media_type="text/plain")


async def pieces(message: str) -> AsyncIterator[str]:
    """The model's words, as they come."""
    stream = await client.chat.completions.create(
        model=os.environ.get("MODEL", "gpt-4o-mini"),
        messages=[{"role": "user", "content": message}],
        stream=True,
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


app = traced(api)
