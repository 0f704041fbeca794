"""Flask applications: requests named by their routes, errors by their exceptions, extensions as Flask has them."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest
from backend import KEY
from flask import Blueprint, Flask, Response, abort, g, request, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from wsgi_helpers import call, roots, tag

import lumiq_flask
import lumiqtrace
import lumiqtrace.integrations.flask
from lumiqtrace.integrations.flask import LumiqConfig, LumiqFlaskMiddleware


@pytest.fixture
def app():
    app = Flask(__name__)
    app.logger.setLevel(logging.CRITICAL)

    @app.get("/users/<int:user_id>")
    def user(user_id):
        with lumiqtrace.span("look up"):
            return {"id": user_id, "trace": lumiqtrace.get_current_trace_id()}

    @app.post("/users/")
    def new_user():
        return {"got": request.get_json()}, 201

    @app.get("/raises")
    def raises():
        raise LookupError("no such thing")

    return app


@pytest.fixture
def traced(app, client):
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app)
    return app.test_client()


@pytest.fixture
def event(client, backend):
    """The one request's event."""

    def delivered():
        assert lumiqtrace.flush()
        (found,) = roots(backend)
        return found

    return delivered


def test_a_request_is_named_by_its_route(traced, event, backend):
    answer = traced.get("/users/7?verbose=1")
    found = event()
    assert (found["name"], found["status"]) == ("GET /users/<int:user_id>", "success")
    assert found["tags"] == {
        "http.method": "GET", "http.route": "/users/<int:user_id>", "http.path": "/users/7", "http.status_code": "200",
    }  # fmt: skip
    assert answer.json["trace"] == answer.headers["x-lumiqtrace-id"] == found["trace_id"]
    (child,) = [each for each in backend.events if each is not found]
    assert (child["name"], child["parent_span_id"]) == ("look up", found["span_id"])


@pytest.mark.parametrize(
    ("method", "path", "name", "code"),
    [
        ("GET", "/missing", "GET", "404"),
        ("POST", "/raises", "POST", "405"),
        ("POST", "/users", "POST", "308"),
        ("HEAD", "/users/7", "HEAD /users/<int:user_id>", "200"),
        ("OPTIONS", "/users/7", "OPTIONS /users/<int:user_id>", "200"),
        ("GET", "/static/none.css", "GET /static/<path:filename>", "404"),
    ],
)
def test_names_never_hold_the_path(traced, event, method, path, name, code):
    traced.open(path, method=method)
    found = event()
    assert (found["name"], found["tags"]["http.status_code"], found["status"]) == (name, code, "success")


def test_an_exception_that_flask_answers_is_the_events(traced, event):
    answer = traced.get("/raises")
    assert (answer.status_code, answer.headers.get("x-lumiqtrace-id") is not None) == (500, True)
    found = event()
    assert (found["name"], found["status"]) == ("GET /raises", "error")
    assert (found["error_code"], found["error_message"]) == ("LookupError", "no such thing")
    assert found["tags"]["http.status_code"] == "500"


def test_an_exception_that_flask_lets_through_is_the_same_object(app, traced, event):
    app.testing = True
    error = RuntimeError("through")

    @app.get("/through")
    def through():
        raise error

    with pytest.raises(RuntimeError) as caught:
        traced.get("/through")
    assert caught.value is error
    found = event()
    assert (found["name"], found["status"], found["error_code"]) == ("GET /through", "error", "RuntimeError")
    assert lumiqtrace.get_current_trace_id() is None


def test_an_exception_with_a_handler_is_no_failure(app, traced, event):
    @app.errorhandler(LookupError)
    def sorry(error):
        return "sorry", 404

    assert traced.get("/raises").data == b"sorry"
    found = event()
    assert (found["status"], found["tags"]["http.status_code"]) == ("success", "404")


def test_an_abort_is_its_status(app, traced, event):
    @app.get("/busy")
    def busy():
        abort(503)

    traced.get("/busy")
    found = event()
    assert (found["status"], found["error_code"]) == ("error", "http_503")


def test_attributes_reach_the_requests_own_event(app, traced, event, backend):
    @app.post("/chat")
    def chat():
        lumiqtrace.set_attribute("user.id", request.json["user"])
        lumiqtrace.set_attribute("session.id", "s-1")
        with lumiqtrace.span("deeper"):
            lumiqtrace.set_attribute("feature", "chat")
        return "ok"

    traced.post("/chat", json={"user": "u-1"})
    found = event()
    assert (found["user_id"], found["session_id"], tag(found, "feature")) == ("u-1", "s-1", "chat")
    assert {each["user_id"] for each in backend.events} == {"u-1"}
    traced.get("/users/1")
    assert lumiqtrace.flush()
    assert "user_id" not in roots(backend)[-1]


def test_streams_end_at_their_last_byte(app, traced, event, backend):
    @app.get("/stream")
    def stream():
        def pieces():
            with lumiqtrace.span("making pieces"):
                for piece in range(3):
                    yield f"{piece} {request.path} {lumiqtrace.get_current_trace_id()};"

        return Response(stream_with_context(pieces()), mimetype="text/event-stream")

    text = traced.get("/stream").text
    found = event()
    assert text == "".join(f"{piece} /stream {found['trace_id']};" for piece in range(3))
    (inside,) = [each for each in backend.events if each is not found]
    assert inside["parent_span_id"] == found["span_id"]
    assert inside["latency_ms"] <= found["latency_ms"]


def test_work_at_teardown_and_at_close_is_in_the_trace(app, traced, event, backend):
    @app.teardown_request
    def teardown(_error):
        with lumiqtrace.span("teardown"):
            pass

    @app.after_request
    def after(response):
        response.call_on_close(closing)
        return response

    def closing():
        with lumiqtrace.span("closing"):
            pass

    traced.get("/users/1").close()
    found = event()
    children = {each["name"]: each["trace_id"] for each in backend.events if each is not found}
    assert children == dict.fromkeys(("look up", "teardown", "closing"), found["trace_id"])


def test_async_handlers_are_in_the_trace(app, traced, event, backend):
    @app.get("/async")
    async def handler():
        async with lumiqtrace.span("awaited"):
            await asyncio.sleep(0)
        return {"trace": lumiqtrace.get_current_trace_id()}

    trace_id = traced.get("/async").json["trace"]
    found = event()
    assert {each["trace_id"] for each in backend.events} == {trace_id}
    assert [each["parent_span_id"] for each in backend.events if each is not found] == [found["span_id"]]


def test_the_decorators_take_both_kinds_of_function(app, traced, event, backend):
    @lumiq_flask.observe_llm(model="gpt-4o", provider="openai")
    async def asked():
        return {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}

    @lumiq_flask.observe_span("plain", span_type="retriever")
    def plain():
        return "found"

    @app.get("/async")
    async def handler():
        plain()
        return await asked()

    traced.get("/async")
    found = event()
    children = {each["name"]: each for each in backend.events if each is not found}
    assert {each["parent_span_id"] for each in children.values()} == {found["span_id"]}
    assert (children["plain"]["span_kind"], children["asked"]["span_kind"]) == ("retriever", "llm")
    assert (children["asked"]["input_tokens"], children["asked"]["output_tokens"]) == (7, 3)


def test_async_handlers_that_raise(app, traced, event):
    @app.get("/async")
    async def handler():
        raise LookupError("awaited")

    assert traced.get("/async").status_code == 500
    found = event()
    assert (found["name"], found["error_code"]) == ("GET /async", "LookupError")


def test_blueprints_and_mounts_are_in_the_route(app, client, backend):
    users = Blueprint("shop", __name__, url_prefix="/shop")
    users.get("/<item>")(lambda item: item)
    app.register_blueprint(users)
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app)
    outer = LumiqFlaskMiddleware(DispatcherMiddleware(Flask("none"), {"/mount": app}))
    call(outer, "/mount/shop/tea")
    call(app, "/shop/tea")
    assert lumiqtrace.flush()
    assert [(found["name"], tag(found, "http.path")) for found in roots(backend)] == [
        ("GET /mount/shop/<item>", "/mount/shop/tea"),
        ("GET /shop/<item>", "/shop/tea"),
    ]


def test_uploads_and_bodies_arrive_unchanged(app, client, event):
    @app.post("/upload")
    def upload():
        return {"file": request.files["file"].read().decode(), "name": request.form["name"]}

    config = LumiqConfig(api_key=KEY, base_url=client.config.base_url, capture_request_body=True)
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=config)
    body = {"file": (io.BytesIO(b"content" * 20_000), "a.txt"), "name": "n"}
    answer = app.test_client().post("/upload", data=body)
    assert answer.json == {"file": "content" * 20_000, "name": "n"}
    kept = event()["metadata"]["http.request.body"]
    assert (kept["type"], kept["omitted"]) == ("multipart/form-data", "multipart")
    assert kept["bytes"] > 140_000


def test_json_bodies_are_kept_without_their_secrets(app, client, event):
    config = LumiqConfig(
        api_key=KEY, base_url=client.config.base_url, capture_request_body=True, capture_response_body=True,
        redact_fields=["pin"],
    )  # fmt: skip
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=config)
    sent = {"name": "Ada", "Api-Key": "abc", "nested": [{"password": "p"}]}
    assert app.test_client().post("/users/", json=sent).json == {"got": sent}
    metadata = event()["metadata"]
    clean = {"name": "Ada", "Api-Key": "[REDACTED]", "nested": [{"password": "[REDACTED]"}]}
    assert metadata["http.request.body"]["content"] == clean
    assert metadata["http.response.body"]["content"] == {"got": clean}


def test_init_app_as_extensions_have_it(client, backend):
    extension = LumiqFlaskMiddleware(exclude=["/health"])
    apps = [Flask(f"app{number}") for number in range(2)]
    for app in apps:
        app.get("/<word>")(lambda word: word)
        extension.init_app(app)
        extension.init_app(app)
        assert app.test_client().get("/hi").data == b"hi"
        assert app.test_client().get("/health").data == b"health"
    assert extension.flush()
    assert apps[0].extensions["lumiqtrace"] is apps[0].wsgi_app is not apps[1].wsgi_app
    assert [found["name"] for found in roots(backend)] == ["GET /<word>"] * 2


def test_without_an_application_it_says_what_is_missing(client):
    with pytest.raises(RuntimeError, match=r"init_app\(app\)"):
        call(LumiqFlaskMiddleware())


@pytest.mark.parametrize("options", [{"config": {"api_key": KEY}}, {"exclude": "/health"}])
def test_options_of_no_use_are_refused(app, options):
    with pytest.raises(TypeError, match=f"^{next(iter(options))}: "):
        LumiqFlaskMiddleware(app.wsgi_app, **options)


def test_the_seeds_name_is_the_same_module():
    for name in lumiqtrace.integrations.flask.__all__:
        assert getattr(lumiq_flask, name) is getattr(lumiqtrace.integrations.flask, name)
        if name != "LumiqFlaskMiddleware":
            assert getattr(lumiq_flask, name) is getattr(lumiqtrace, name)


def test_flasks_own_context_is_as_without_us(app, traced):
    """The test client keeps a request's context when it is asked to."""
    app.before_request(lambda: setattr(g, "mark", "here"))
    with app.test_client() as kept:
        kept.get("/users/7")
        assert (g.mark, request.view_args) == ("here", {"user_id": 7})


def test_the_exception_signal_harms_nobody_outside_a_traced_request(app, client):
    LumiqFlaskMiddleware(app.wsgi_app)
    assert app.test_client().get("/raises").status_code == 500
