"""The functions that the tests run under the real Functions Framework."""

from __future__ import annotations

import asyncio
import os

import flask
import functions_framework
import functions_framework.aio
from starlette.responses import StreamingResponse

import lumiqtrace
from lumiqtrace.integrations.cloud_run import traced_function

IMPORTED_IN = os.getpid()

lumiqtrace.init()


@functions_framework.http
@traced_function
def greet(request):
    if request.path.startswith("/fails"):
        raise ValueError("no greeting")
    if request.path.startswith("/missing"):
        flask.abort(404)
    if request.path.startswith("/stream"):
        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")
    with lumiqtrace.span("look up", "retriever"):
        return {"trace": lumiqtrace.get_current_trace_id(), "forked": os.getpid() != IMPORTED_IN}


def pieces():
    yield lumiqtrace.get_current_trace_id() or "none"
    with lumiqtrace.span("in the stream"):
        yield " and more"


@traced_function
@functions_framework.aio.http
async def agreet(request):
    if request.url.path.startswith("/fails"):
        raise ValueError("no greeting")
    if request.url.path.startswith("/stream"):
        return StreamingResponse(apieces())
    with lumiqtrace.span("look up", "retriever"):
        await asyncio.sleep(0)
        return {"trace": lumiqtrace.get_current_trace_id()}


async def apieces():
    yield lumiqtrace.get_current_trace_id() or "none"
    with lumiqtrace.span("in the stream"):
        yield " and more"


@functions_framework.cloud_event
@traced_function
def on_upload(event):
    with lumiqtrace.span("index"):
        assert event.data["name"]


@functions_framework.aio.cloud_event
@traced_function
async def aon_upload(event):
    with lumiqtrace.span("index"):
        await asyncio.sleep(0)
