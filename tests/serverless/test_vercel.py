"""`vercel.traced` by itself: the three shapes keep theirs, and nothing changes without the runtime."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from backend import KEY, Answer
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace.integrations._handler_class import _route_of_file
from lumiqtrace.integrations.vercel import traced


class handler(BaseHTTPRequestHandler):  # noqa: N801 - the name that the runtime looks for
    """Answers."""

    protocol_version = "HTTP/1.1"
    seen: tuple[BaseException, ...] = ()

    def do_GET(self):
        if self.path.startswith("/silent"):
            self.close_connection = True
            return None
        if self.path.startswith("/missing"):
            return self.send_error(404)
        if self.path.startswith("/fails"):
            raise ValueError("no answer")
        body = (lumiqtrace.get_current_trace_id() or "none").encode()
        self.send_response(503 if self.path.startswith("/busy") else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def helper(self):
        return "the same"

    def log_message(self, *_args):
        pass


def hello(environ, start_response):
    start_response("200 OK", [("content-length", "5")])
    return [b"hello"]


async def ahello(scope, receive, send):
    await PlainTextResponse("hello")(scope, receive, send)


@pytest.fixture
def on_vercel(monkeypatch):
    monkeypatch.setenv("VERCEL", "1")


@contextmanager
def serving(handler_class):
    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass

    with Server(("127.0.0.1", 0), handler_class) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def root(backend):
    return next(event for event in backend.events if "parent_span_id" not in event)


def test_a_handler_class_stays_what_it_was(client):
    made = traced(handler)
    assert issubclass(made, handler)
    assert (made.__name__, made.__qualname__, made.__module__) == ("handler", "handler", __name__)
    assert made.__doc__ == handler.__doc__
    assert {name for name in dir(made) if name.startswith("do_")} == {"do_GET"}
    assert made.helper is handler.helper
    assert traced(made) is made


def test_applications_keep_the_signatures_by_which_the_runtime_knows_them(client):
    wsgi, asgi = traced(hello), traced(ahello)
    assert list(inspect.signature(wsgi).parameters) == ["environ", "start_response"]
    assert list(inspect.signature(asgi).parameters) == ["scope", "receive", "send"]
    assert inspect.iscoroutinefunction(asgi.__call__)
    assert not inspect.iscoroutinefunction(wsgi.__call__)
    assert traced(wsgi) is wsgi
    assert traced(asgi) is asgi


def test_an_object_with_an_asgi_application_gives_that(client):
    class App:
        async def asgi(self, scope, receive, send):
            await ahello(scope, receive, send)

    assert TestClient(traced(App())).get("/").text == "hello"


@pytest.mark.parametrize("wrong", [42, None, "app", lambda: None, lambda a: a, lambda a, b, c, d: None, int])
def test_what_is_none_of_the_shapes_is_refused_by_its_value(wrong, client):
    with pytest.raises(TypeError, match=r"traced: got .*; it is a BaseHTTPRequestHandler subclass"):
        traced(wrong)


def test_without_a_key_nothing_is_recorded_and_all_is_answered(on_vercel):
    with serving(traced(handler)) as url:
        answer = httpx.get(url)
    assert (answer.text, answer.headers.get("x-lumiqtrace-id")) == ("none", None)


def test_a_config_initialises_and_its_options_hold(backend, on_vercel):
    config = LumiqConfig(api_key=KEY, base_url=backend.url, environment="preview")
    options = {"exclude": ["/health"], "response_header": False, "trust_incoming_trace": True}
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving(traced(handler, config, **options)) as url:
        assert httpx.get(f"{url}/health").text == "none"
        answer = httpx.get(url, headers={"traceparent": f"00-{trace}-{parent}-01"})
        assert answer.text == trace
        assert "x-lumiqtrace-id" not in answer.headers
        backend.wait_for(lambda: len(backend.events) == 1)
    (event,) = backend.events
    assert (event["trace_id"], event["parent_span_id"], event["environment"]) == (trace, parent, "preview")


@pytest.mark.parametrize(
    ("path", "status", "span", "code"),
    [
        ("/", 200, "success", None),
        ("/missing", 404, "success", None),
        ("/busy", 503, "error", "http_503"),
        ("/fails", None, "error", "ValueError"),
        ("/silent", None, "error", "incomplete_response"),
    ],
)
def test_a_handlers_answer_is_its_spans_status(path, status, span, code, client, backend, on_vercel):
    with serving(traced(handler)) as url:
        try:
            answer = httpx.get(url + path, headers={"x-vercel-id": "fra1::a"}, timeout=20)
            assert answer.status_code == status
        except httpx.RemoteProtocolError:
            assert status is None
        backend.wait_for(lambda: len(backend.events) == 1)
    event = root(backend)
    assert (event["status"], event.get("error_code")) == (span, code)
    assert event["tags"].get("http.status_code") == (str(status) if status else None)
    assert (event["tags"]["vercel.id"], event["tags"]["http.path"]) == ("fra1::a", path)


def test_requests_on_one_connection_have_a_trace_each(client, backend, on_vercel):
    with serving(traced(handler)) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        traces = []
        for _ in range(3):
            connection.request("GET", "/")
            traces.append(connection.getresponse().read().decode())
        connection.close()
        backend.wait_for(lambda: len(backend.events) == 3)
    assert [event["trace_id"] for event in backend.events] == traces
    assert len(set(traces)) == 3


@pytest.mark.parametrize("buffered", [False, True])
def test_a_client_that_left_is_no_error_of_the_handler(buffered, client, backend, on_vercel):
    class slow(handler):  # noqa: N801 - as above
        wbufsize = -1 if buffered else 0

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"x" * (100 if buffered else 65536))
                self.wfile.flush()

    with serving(traced(slow)) as url:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            assert connection.recv(100)
        backend.wait_for(lambda: len(backend.events) == 1)
    assert root(backend)["status"] == "cancelled"


def test_an_error_of_the_handlers_own_connections_is_its_own(client, backend, on_vercel):
    class upstream(handler):  # noqa: N801 - as above
        def do_GET(self):
            if self.path == "/refused":
                raise ConnectionRefusedError
            raise ConnectionResetError

    with serving(traced(upstream)) as url:
        for number, path in enumerate(("/refused", "/reset"), start=1):
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(url + path, timeout=20)
            backend.wait_for(lambda number=number: len(backend.events) == number)
    assert [(event["status"], event["error_code"]) for event in backend.events] == [
        ("error", "ConnectionRefusedError"),
        ("error", "ConnectionResetError"),
    ]


@pytest.mark.parametrize("buffered", [False, True])
def test_an_answer_that_is_written_by_hand_is_one(buffered, client, backend, on_vercel):
    class raw(handler):  # noqa: N801 - as above
        wbufsize = -1 if buffered else 0

        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with serving(traced(raw)) as url:
        assert httpx.get(url, timeout=20).text == "ok"
        backend.wait_for(lambda: len(backend.events) == 1)
    assert root(backend)["status"] == "success"


def test_what_a_request_left_open_is_no_part_of_the_next_on_its_thread(client, backend, on_vercel):
    kept = []

    def rows():
        with lumiqtrace.context(user_id="ada"), lumiqtrace.span("rows"):
            yield

    class leaving(handler):  # noqa: N801 - as above
        def do_GET(self):
            kept.append(rows())
            next(kept[-1])
            super().do_GET()

    with serving(traced(leaving)) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        for number in (1, 2):
            connection.request("GET", "/")
            connection.getresponse().read()
            backend.wait_for(lambda number=number: len(backend.events) == number)
        connection.close()
    first, second = backend.events
    assert first["trace_id"] != second["trace_id"]
    assert [event.get("user_id") for event in backend.events] == [None, None]


def test_a_subclass_of_a_traced_class_is_traced_once(client, backend, on_vercel):
    class more(traced(handler)):  # noqa: N801 - as above
        def do_POST(self):  # noqa: N802 - called by that name
            self.send_response(204)
            self.end_headers()

    with serving(traced(more)) as url:
        answer = httpx.get(url)
        assert answer.headers.get_list("x-lumiqtrace-id") == [answer.text]
        backend.wait_for(lambda: len(backend.events) == 1)
        assert len(httpx.post(url).headers.get_list("x-lumiqtrace-id")) == 1
        backend.wait_for(lambda: len(backend.events) == 2)


def test_a_class_of_another_making_is_made_the_same_way(client, caplog):
    class Kind(type):
        made: list[str] = []  # noqa: RUF012 - a test's

        def __new__(cls, name, bases, namespace, **options):
            cls.made.append(name)
            return super().__new__(cls, name, bases, namespace, **options)

    class routed(handler, metaclass=Kind):  # noqa: N801 - as above
        pass

    class strict(handler):  # noqa: N801 - as above
        def __init_subclass__(cls, *, route, **options):
            super().__init_subclass__(**options)

    class page(strict, route="/x"):  # noqa: N801 - as above
        pass

    assert issubclass(traced(routed), routed)
    assert Kind.made == ["routed", "routed"]
    assert not caplog.records
    assert traced(page) is page
    assert "page" in caplog.text
    assert "is not traced" in caplog.text


def flask_app():
    app = Flask("site")
    app.add_url_rule("/users/<name>", view_func=lambda name: name)
    app.add_url_rule("/fails", view_func=failing)
    app.wsgi_app = traced(app.wsgi_app)
    return app


def failing():
    raise ValueError("no answer")


def test_flask_is_named_by_its_routes_and_delivered_before_the_last_byte(client, backend, on_vercel):
    app = flask_app()
    answer = app.test_client().get("/users/ada", headers={"x-vercel-id": "fra1::a"}, buffered=True)
    assert answer.text == "ada"
    assert (root(backend)["name"], root(backend)["tags"]["vercel.id"]) == ("GET /users/<name>", "fra1::a")
    assert root(backend)["trace_id"] == answer.headers["x-lumiqtrace-id"]


def test_an_exception_that_flask_answers_is_told(client, backend, on_vercel):
    assert flask_app().test_client().get("/fails", buffered=True).status_code == 500
    assert (root(backend)["status"], root(backend)["error_code"]) == ("error", "ValueError")


def test_starlette_is_named_by_its_routes_and_delivered_before_the_last_byte(client, backend, on_vercel):
    app = traced(Starlette(routes=[Route("/users/{name}", lambda request: PlainTextResponse("ada"))]))
    with TestClient(app) as http:
        answer = http.get("/users/ada", headers={"x-vercel-id": "fra1::a"})
        assert (root(backend)["name"], root(backend)["tags"]["vercel.id"]) == ("GET /users/{name}", "fra1::a")
        assert root(backend)["trace_id"] == answer.headers["x-lumiqtrace-id"]


def test_a_websocket_is_delivered_when_it_is_over(client, backend, on_vercel):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def main():
        messages = iter([{"type": "websocket.connect"}])

        async def receive():
            return next(messages)

        async def send(message):
            pass

        scope = {"type": "websocket", "path": "/", "headers": [(b"x-vercel-id", b"fra1::a")]}
        await traced(app)(scope, receive, send)
        assert root(backend)["name"] == "WEBSOCKET"

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "background"])
def test_elsewhere_and_in_the_background_nothing_waits(mode, backend, monkeypatch):
    for name in ("VERCEL", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(name, raising=False)
    if mode == "background":
        monkeypatch.setenv("VERCEL", "1")
    released = threading.Event()

    def hang(_request):
        assert released.wait(30)
        return Answer()

    backend.answer = hang
    lumiqtrace.init(KEY, base_url=backend.url, flush=mode, flush_timeout=30)
    with serving(traced(handler)) as url:
        trace = httpx.get(url, timeout=20).text
        assert flask_app().test_client().get("/users/ada", buffered=True).text == "ada"
        released.set()
        assert lumiqtrace.flush(20)
    assert trace in {event["trace_id"] for event in backend.events}


@pytest.mark.parametrize(
    ("file", "route"),
    [
        ("api/chat.py", "/api/chat"),
        ("api/index.py", "/api"),
        ("api/users/[id].py", "/api/users/[id]"),
        ("api/users/index.py", "/api/users"),
        ("src/index.py", None),
        ("index.py", None),
        ("", None),
    ],
)
def test_a_file_is_served_at_its_path(file, route):
    assert _route_of_file(file) == route
