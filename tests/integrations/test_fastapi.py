"""FastAPI and Starlette applications under the middleware: names by route template, and all that frameworks add."""

import asyncio
from contextlib import suppress
from typing import Annotated

import pytest
from asgi_driver import acall, awebsocket, call, http_scope
from backend import KEY
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import lumiq_fastapi
import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.integrations import fastapi as integration
from lumiqtrace.integrations.fastapi import LumiqFastAPIMiddleware


def text(request):
    return PlainTextResponse("ok")


def fastapi_app(folder):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)

    @app.get("/users/{user_id}")
    async def user(user_id: int):
        return {"id": user_id}

    @app.get("/files/{path:path}")
    def file(path: str):
        return path

    inner = APIRouter(prefix="/items")

    @inner.get("/{item}")
    async def item(item: str):
        return item

    outer = APIRouter(prefix="/v1")
    outer.include_router(inner, prefix="/stock")
    app.include_router(outer, prefix="/api")

    below = FastAPI()

    @below.get("/orders/{order_id}")
    async def order(order_id: int):
        return order_id

    lowest = FastAPI()

    @lowest.get("/deep/{x}")
    async def deep(x: str):
        return x

    below.mount("/more", lowest)
    app.mount("/tenants/{tenant}", below)
    app.mount("/static", StaticFiles(directory=folder))
    return app


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/users/7", "GET /users/{user_id}", "200"),
        ("HEAD", "/users/7", "HEAD /users/{user_id}", "405"),
        ("GET", "/users/seven", "GET /users/{user_id}", "422"),
        ("DELETE", "/users/7", "DELETE /users/{user_id}", "405"),
        ("GET", "/files/a/b", "GET /files/{path}", "200"),
        ("GET", "/api/v1/stock/items/9", "GET /api/v1/stock/items/{item}", "200"),
        ("GET", "/tenants/acme/orders/3", "GET /tenants/{tenant}/orders/{order_id}", "200"),
        ("GET", "/tenants/acme/more/deep/1", "GET /tenants/{tenant}/more/deep/{x}", "200"),
        ("GET", "/tenants/acme/nothing", "GET /tenants/{tenant}/{path}", "404"),
        ("GET", "/static/a.txt", "GET /static/{path}", "200"),
        ("GET", "/nothing", "GET", "404"),
    ],
)
def test_fastapi_requests_are_named_by_their_template(client, backend, tmp_path, method, path, name, status):
    (tmp_path / "a.txt").write_text("a")
    call(fastapi_app(tmp_path), path, method)
    client.flush()
    [event] = backend.events
    assert (event["name"], event["tags"]["http.status_code"]) == (name, status)
    assert event["tags"].get("http.route", "") == name.partition(" ")[2]
    assert event["tags"]["http.path"] == path


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/1", "GET /a/{x}"), ("/m/b/2", "GET /m/b/{y}"), ("/t/9/b/2", "GET /t/{z}/b/{y}"), ("/no", "GET")],
)
def test_starlette_requests_are_named_by_their_template(client, backend, path, name):
    below = [Route("/b/{y:int}", text)]
    app = Starlette(routes=[Route("/a/{x}", text), Mount("/m", routes=below), Mount("/t/{z}", routes=below)])
    call(LumiqFastAPIMiddleware(app), path)
    client.flush()
    assert [event["name"] for event in backend.events] == [name]


def test_a_value_that_is_a_word_of_the_mount_does_not_rename_it(client, backend):
    below = FastAPI()
    below.get("/users/{user_id}")(lambda user_id: user_id)
    app = FastAPI()
    app.mount("/v1", below)
    app.add_middleware(LumiqFastAPIMiddleware)
    call(app, "/v1/users/v1")
    client.flush()
    assert [event["name"] for event in backend.events] == ["GET /v1/users/{user_id}"]


def test_the_middleware_in_a_mounted_application_names_the_whole_route(client, backend):
    below = FastAPI()
    below.add_middleware(LumiqFastAPIMiddleware)
    below.get("/orders/{order_id}")(lambda order_id: order_id)
    app = FastAPI()
    app.mount("/shop", below)
    call(app, "/shop/orders/3")
    client.flush()
    assert [event["name"] for event in backend.events] == ["GET /shop/orders/{order_id}"]


def test_behind_a_proxy_that_strips_its_prefix_the_route_is_the_applications(client, backend):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)
    app.get("/orders/{order_id}")(lambda order_id: order_id)
    call(app, "/orders/3", root_path="/behind")
    client.flush()
    assert [event["name"] for event in backend.events] == ["GET /orders/{order_id}"]


def test_a_websocket_is_named_by_its_template(client, backend):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)

    @app.websocket("/rooms/{room}")
    async def talk(websocket: WebSocket, room: str):
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    answer = asyncio.run(awebsocket(app, "/rooms/7", ["hello"], close_code=1001))
    client.flush()
    [event] = backend.events
    assert answer.messages[1]["text"] == "hello"
    assert (event["name"], event["status"]) == ("WEBSOCKET /rooms/{room}", "success")
    assert event["tags"]["websocket.close_code"] == "1001"


def failing_app():
    app = FastAPI()

    @app.get("/raise/{how}")
    async def fail(how: str):
        if how == "http":
            raise HTTPException(503, "later")
        raise LookupError("a bug")

    return app


def test_an_error_raised_in_a_handler_is_the_requests(client, backend):
    app = failing_app()
    app.add_middleware(LumiqFastAPIMiddleware)
    answer = call(app, "/raise/bug")
    client.flush()
    [event] = backend.events
    assert (answer.status, type(answer.error)) == (500, LookupError)
    assert (event["status"], event["error_code"], event["error_message"]) == ("error", "LookupError", "a bug")
    assert (event["name"], event["tags"]["http.status_code"]) == ("GET /raise/{how}", "500")


def test_an_http_exception_is_the_status_it_stands_for(client, backend):
    app = failing_app()
    app.add_middleware(LumiqFastAPIMiddleware)
    assert call(app, "/raise/http").status == 503
    client.flush()
    assert [(event["status"], event["error_code"]) for event in backend.events] == [("error", "http_503")]


@pytest.mark.parametrize("inside", [True, False])
def test_an_error_raised_in_another_middleware(client, backend, inside):
    class Failing:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                raise KeyError("theirs")

    app = FastAPI()
    order = [Failing, LumiqFastAPIMiddleware] if inside else [LumiqFastAPIMiddleware, Failing]
    for middleware in order:  # the last one added is the outermost
        app.add_middleware(middleware)
    answer = call(app, "/")
    client.flush()
    assert isinstance(answer.error, KeyError)
    assert [event["error_code"] for event in backend.events] == (["KeyError"] if inside else [])


def test_the_other_middlewares_of_starlette_around_and_inside(client, backend):
    async def dispatch(request, call_next):
        with lumiqtrace.span("in a middleware"):
            return await call_next(request)

    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(LumiqFastAPIMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))

    @app.get("/x/{y}")
    async def handler(y: str):
        with lumiqtrace.span("in the handler"):
            return y

    assert call(app, "/x/1").status == 200
    client.flush()
    names = {event["name"]: event for event in backend.events}
    assert set(names) == {"GET /x/{y}", "in a middleware", "in the handler"}
    assert names["in the handler"]["parent_span_id"] == names["in a middleware"]["span_id"]
    assert names["in a middleware"]["parent_span_id"] == names["GET /x/{y}"]["span_id"]


def streaming_app(times):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)

    @app.get("/stream")
    async def stream():
        async def words():
            with lumiqtrace.span("while streaming"):
                for number in range(5):
                    times.append(lumiqtrace.get_client().stats().recorded)
                    yield f"data: {number}\n\n"
                    await asyncio.sleep(0)

        return StreamingResponse(words(), media_type="text/event-stream")

    return app


def test_a_stream_is_over_at_its_last_byte(client, backend):
    times = []
    answer = call(streaming_app(times), "/stream")
    client.flush()
    spans = {event["name"]: event for event in backend.events}
    assert times == [0] * 5
    assert answer.body.count(b"data:") == 5
    assert spans["while streaming"]["parent_span_id"] == spans["GET /stream"]["span_id"]
    assert spans["GET /stream"]["latency_ms"] >= spans["while streaming"]["latency_ms"]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_stream_that_the_client_leaves_is_cancelled(client, backend, spec_version):
    asgi = {"version": "3.0", "spec_version": spec_version}
    asked = []

    async def drive():
        sent, three = [], asyncio.Event()

        async def receive():
            await three.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if len(sent) == 3:
                three.set()
            if len(sent) > 3 and spec_version == "2.4":
                raise OSError("gone")
            await asyncio.sleep(0)

        with suppress(ClientDisconnect):  # raised where the server's own error told Starlette
            await streaming_app(asked)(http_scope("/stream", asgi=asgi), receive, send)

    asyncio.run(drive())
    client.flush()
    request = next(event for event in backend.events if event["name"] == "GET /stream")
    assert request["status"] == "cancelled"


def test_background_tasks_are_in_the_trace(client, backend):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)
    recorded = []

    def work(name):
        recorded.append(lumiqtrace.get_client().stats().recorded)
        with lumiqtrace.span(name):
            pass

    @app.post("/jobs")
    async def start(tasks: BackgroundTasks):
        tasks.add_task(work, "one")
        tasks.add_task(work, "two")
        return {}

    call(app, "/jobs", "POST")
    client.flush()
    request, one, two = backend.events
    assert recorded == [1, 2]
    assert request["name"] == "POST /jobs"
    assert {one["parent_span_id"], two["parent_span_id"]} == {request["span_id"]}


def test_handlers_on_threads_and_dependencies_are_in_the_trace(client, backend):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)

    def dependency():
        with lumiqtrace.span("dependency"):
            yield lumiqtrace.get_current_trace_id()

    @app.get("/")
    def handler(trace: Annotated[str, Depends(dependency)]):
        with lumiqtrace.span("handler"):
            return [trace, lumiqtrace.get_current_trace_id()]

    answer = call(app, "/")
    client.flush()
    assert {event["trace_id"] for event in backend.events} == {answer.headers["x-lumiqtrace-id"]}
    assert len(backend.events) == 3
    assert answer.body.decode().count(answer.headers["x-lumiqtrace-id"]) == 2


def test_bodies_are_captured_and_the_application_reads_its_own(backend):
    app = FastAPI()
    config = LumiqConfig(
        api_key=KEY, base_url=backend.url, capture_request_body=True, capture_response_body=True,
        redact_fields=["pet"],
    )  # fmt: skip
    app.add_middleware(LumiqFastAPIMiddleware, config=config)

    @app.post("/echo")
    async def echo(request: Request):
        return await request.json()

    sent = b'{"name": "Ann", "password": "hunter2", "pet": "Rex"}'
    answer = call(
        app, "/echo", "POST", headers={"content-type": "application/json"}, body=[sent[:9], sent[9:]]
    )
    lumiqtrace.flush()
    [event] = backend.events
    hidden = {"name": "Ann", "password": "[REDACTED]", "pet": "[REDACTED]"}
    assert answer.body == sent.replace(b": ", b":").replace(b", ", b",")
    assert event["metadata"]["http.request.body"] == {
        "type": "application/json",
        "bytes": len(sent),
        "content": hidden,
    }
    assert event["metadata"]["http.response.body"]["content"] == hidden


def test_around_the_whole_application_an_error_has_its_class_and_message(client, backend):
    app = FastAPI()

    @app.get("/fails")
    async def fails():
        raise ValueError("a bug")

    answer = call(LumiqFastAPIMiddleware(app), "/fails")
    assert (answer.status, str(answer.error)) == (500, "a bug")
    assert client.flush()
    event = backend.events[0]
    assert (event["name"], event["error_code"], event["error_message"]) == (
        "GET /fails",
        "ValueError",
        "a bug",
    )


def test_after_init_bodies_are_hidden_by_the_middlewares_own_names_too(backend):
    lumiqtrace.init(KEY, base_url=backend.url, redact_fields=["plan"])
    app = FastAPI()
    config = LumiqConfig(capture_request_body=True, redact_fields=["pet"])
    app.add_middleware(LumiqFastAPIMiddleware, config=config)
    sent = b'{"pet": "Rex", "plan": "B", "password": "p", "a": 1}'

    async def read_all(request: Request):
        await request.body()

    app.post("/read")(read_all)
    call(app, "/read", "POST", headers={"content-type": "application/json"}, body=sent)
    lumiqtrace.flush()
    hidden = {"pet": "[REDACTED]", "plan": "[REDACTED]", "password": "[REDACTED]", "a": 1}
    assert [event["metadata"]["http.request.body"]["content"] for event in backend.events] == [hidden]


def test_bodies_are_not_captured_unless_asked_for(client, backend):
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware)
    app.post("/echo")(lambda body: body)
    call(app, "/echo", "POST", headers={"content-type": "application/json"}, body=b'{"a": 1}')
    client.flush()
    assert "metadata" not in backend.events[0]


def test_streams_and_files_are_named_and_not_kept(backend, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG" * 100)
    config = LumiqConfig(api_key=KEY, base_url=backend.url, capture_response_body=True)
    app = FastAPI()
    app.add_middleware(LumiqFastAPIMiddleware, config=config)
    app.mount("/static", StaticFiles(directory=tmp_path))

    @app.get("/stream")
    async def stream():
        return StreamingResponse(iter(["a", "b"]), media_type="text/plain")

    async def drive():
        return await acall(app, "/static/a.png"), await acall(app, "/stream"), await acall(app, "/none")

    asyncio.run(drive())
    lumiqtrace.flush()
    bodies = [event["metadata"]["http.response.body"] for event in backend.events]
    assert bodies == [
        {"type": "image/png", "bytes": 400, "omitted": "binary"},
        {"type": "text/plain", "bytes": 2, "omitted": "streamed"},
        {"type": "application/json", "bytes": 22, "content": {"detail": "Not Found"}},
    ]


def test_the_seeds_module_is_the_integration():
    assert {name for name in vars(lumiq_fastapi) if not name.startswith("_")} == set(integration.__all__)
    for name in integration.__all__:
        assert getattr(lumiq_fastapi, name) is getattr(integration, name)
