"""The application that the tests run under real servers. TRACED=0 leaves the middleware out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware

app = FastAPI()

if os.environ["TRACED"] == "1":
    # Nothing leaves before the end unless the end delivers it.
    config = LumiqConfig(
        api_key=os.environ["KEY"], base_url=os.environ["BACKEND"], batch_size=100, flush_interval=600.0
    )
    app.add_middleware(LumiqFastAPIMiddleware, config=config, exclude=["/quiet"])


@app.get("/items/{item}")
async def item(item: int) -> int:
    with lumiqtrace.span("look up"):
        return item


@app.get("/quiet")
def quiet() -> str:
    return "quiet"


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(ticks(), media_type="text/event-stream")
