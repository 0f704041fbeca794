"""The applications that the tests run as containers of Cloud Run are run: nothing in them knows of it."""

from __future__ import annotations

import asyncio

import fastapi
import flask
from fastapi.responses import StreamingResponse

import lumiqtrace
from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware
from lumiqtrace.integrations.flask import LumiqFlaskMiddleware

lumiqtrace.init()

wsgi = flask.Flask("cloud_run_site")
wsgi.wsgi_app = LumiqFlaskMiddleware(wsgi.wsgi_app)

asgi = fastapi.FastAPI()
asgi.add_middleware(LumiqFastAPIMiddleware)


@wsgi.get("/items/<int:number>")
def item(number):
    with lumiqtrace.span("look up"):
        return {"number": number}


@wsgi.get("/stream/<int:number>")
def stream(number):
    def pieces():
        yield f"{number}"
        with lumiqtrace.span("look up"):
            yield " and more"

    return flask.Response(pieces(), mimetype="text/plain")


@asgi.get("/items/{number}")
async def aitem(number: int):
    with lumiqtrace.span("look up"):
        await asyncio.sleep(0)
        return {"number": number}


@asgi.get("/stream/{number}")
async def astream(number: int):
    async def pieces():
        yield f"{number}"
        with lumiqtrace.span("look up"):
            yield " and more"

    return StreamingResponse(pieces(), media_type="text/plain")
