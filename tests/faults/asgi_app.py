"""An ASGI application with `init` and `patch_openai`, one call of a model a request; MIDDLEWARE puts ours around it."""

from __future__ import annotations

import asyncio
import os

import httpx2
import openai

import lumiqtrace
from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware

TIMEOUT = float(os.environ.get("TIMEOUT", "20"))
lumiqtrace.init(
    os.environ["KEY"],
    base_url=os.environ["BACKEND"],
    enabled=not os.environ.get("OFF"),
    flush_interval=3600,
    flush_timeout=TIMEOUT,
    shutdown_timeout=TIMEOUT,
)
lumiqtrace.patch_openai()


def respond(_request):
    message = {"role": "assistant", "content": "Hi"}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }  # fmt: skip
    return httpx2.Response(200, json=body)


model = openai.OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(respond)))


def ask(path):
    with lumiqtrace.span(f"request {path[1:]}"):
        model.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])


async def plain(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            await send({"type": f"{what}.complete"})
            if what == "lifespan.shutdown":
                return
    # On a thread, as a framework runs what is not async.
    await asyncio.to_thread(ask, scope["path"])
    body = str(os.getpid()).encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


app = LumiqFastAPIMiddleware(plain) if os.environ.get("MIDDLEWARE") else plain
