"""The WSGI middleware, called as a server calls it: one span per request, and nothing else changes."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import threading
import wsgiref.validate
from wsgiref.util import FileWrapper

import pytest
from backend import KEY
from wsgi_helpers import call, environ, exc_info, hello, roots, tag

import lumiqtrace
from lumiqtrace.integrations._wsgi import WsgiMiddleware


@pytest.fixture
def event(client, backend):
    """The one request's event."""

    def delivered():
        assert lumiqtrace.flush()
        (found,) = roots(backend)
        return found

    return delivered


def test_a_request_is_an_event(event):
    answer = call(WsgiMiddleware(hello), "/users/7", "POST")
    assert (answer.status, answer.body) == ("200 OK", b"hello")
    found = event()
    assert (found["name"], found["model"], found["operation"]) == ("POST", "POST", "custom")
    assert found["tags"] == {"http.method": "POST", "http.path": "/users/7", "http.status_code": "200"}
    assert (found["status"], found["provider"], found["span_kind"]) == ("success", "custom", "general")
    assert "parent_span_id" not in found
    assert answer.header("x-lumiqtrace-id") == found["trace_id"]


def test_what_happens_inside_is_in_its_trace(event, backend):
    seen = []

    def app(environ, start_response):
        with lumiqtrace.span("in the call"):
            seen.append(lumiqtrace.get_current_trace_id())
        start_response("200 OK", [])

        def pieces():
            with lumiqtrace.span("in a piece"):
                yield b"a"
            yield b"b"

        return Closing(pieces())

    class Closing:
        def __init__(self, pieces):
            self.pieces = pieces

        def __iter__(self):
            return self.pieces

        def close(self):
            with lumiqtrace.span("in close"):
                seen.append(lumiqtrace.get_current_trace_id())

    call(WsgiMiddleware(app))
    root = event()
    assert seen == [root["trace_id"]] * 2
    children = {found["name"]: found for found in backend.events if found is not root}
    assert set(children) == {"in the call", "in a piece", "in close"}
    assert {child["parent_span_id"] for child in children.values()} == {root["span_id"]}


def test_the_thread_is_left_as_it_was_found(client):
    def app(environ, start_response):
        start_response("200 OK", [])
        with lumiqtrace.span("open across pieces"):
            yield b"a"
            inside.append(lumiqtrace.get_current_span_id())
            yield b"b"

    inside = []
    with lumiqtrace.span("the server's own") as around:
        result = WsgiMiddleware(app)(environ(), lambda *_: None)
        here = [lumiqtrace.get_current_span_id()]
        here += [lumiqtrace.get_current_span_id() for _ in result]
        result.close()
        here.append(lumiqtrace.get_current_span_id())
        assert here == [around.span_id] * 4
        assert inside != [around.span_id]
    assert lumiqtrace.get_current_trace_id() is None


def test_requests_that_take_turns_in_one_thread_stay_apart(client, backend):
    def app(environ, start_response):
        start_response("200 OK", [])
        for number in range(3):
            with lumiqtrace.span(f"{environ['PATH_INFO']} {number}"):
                yield lumiqtrace.get_current_trace_id().encode()

    traced = WsgiMiddleware(app)
    results = [traced(environ(f"/{number}"), lambda *_: None) for number in range(5)]
    ids = list(zip(*results, strict=True))
    for result in results:
        result.close()
    assert len(set(ids[0])) == 5
    assert len(set(ids)) == 1
    assert lumiqtrace.flush()
    for found in backend.events:
        path = tag(found, "http.path") or found["name"].split()[0]
        assert found["trace_id"] == ids[0][int(path[1:])].decode()


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "599 Odd"])
def test_a_status_from_500_is_an_error(event, status):
    def app(environ, start_response):
        start_response(status, [])
        return [b""]

    call(WsgiMiddleware(app))
    found = event()
    assert (found["status"], found["error_code"]) == ("error", f"http_{status[:3]}")


def test_a_status_below_500_is_none(event):
    def app(environ, start_response):
        start_response("404 Not Found", [])
        return [b""]

    call(WsgiMiddleware(app))
    found = event()
    assert (found["status"], found["name"], found["tags"]["http.status_code"]) == ("success", "GET", "404")


class OddError(Exception):
    pass


def raises_at_once(environ, start_response):
    raise environ["error"]


def raises_after_start(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    raise environ["error"]


def raises_in_first_piece(environ, start_response):
    start_response("200 OK", [])
    raise environ["error"]
    yield b""


def raises_in_second_piece(environ, start_response):
    start_response("200 OK", [])
    yield b"first"
    raise environ["error"]


def raises_in_iter(environ, start_response):
    start_response("200 OK", [])

    class Pieces:
        def __iter__(self):
            raise environ["error"]

    return Pieces()


@pytest.mark.parametrize(
    ("app", "code"),
    [
        (raises_at_once, "500"),
        (raises_after_start, "500"),
        (raises_in_first_piece, "500"),
        (raises_in_second_piece, "200"),
        (raises_in_iter, "500"),
    ],
)
def test_an_exception_passes_as_the_same_object(event, app, code):
    error = OddError("no")
    with pytest.raises(OddError) as caught:
        call(WsgiMiddleware(app), error=error)
    assert caught.value is error
    assert lumiqtrace.get_current_trace_id() is None
    found = event()
    assert (found["status"], found["error_code"], found["error_message"]) == ("error", "OddError", "no")
    assert found["tags"]["http.status_code"] == code


@pytest.mark.parametrize(
    ("error", "status"), [(TimeoutError("late"), "timeout"), (SystemExit(1), "cancelled")]
)
def test_the_exception_decides_the_status(event, error, status):
    with pytest.raises(type(error)) as caught:
        call(WsgiMiddleware(raises_at_once), error=error)
    assert caught.value is error
    assert event()["status"] == status


def test_an_error_in_close_after_the_last_byte_passes_and_changes_no_status(event):
    class Pieces(list):
        def close(self):
            raise OddError("in close")

    def app(environ, start_response):
        start_response("200 OK", [])
        return Pieces([b"a"])

    with pytest.raises(OddError):
        call(WsgiMiddleware(app))
    assert event()["status"] == "success"


def test_start_response_with_exc_info_replaces_the_head(event):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise OddError("late")
        except OddError:
            start_response("502 Bad Gateway", [("X-Second", "yes")], exc_info())
        return [b"sorry"]

    answer = call(WsgiMiddleware(app))
    found = event()
    assert answer.status == "502 Bad Gateway"
    assert answer.headers == [("X-Second", "yes"), ("x-lumiqtrace-id", found["trace_id"])]
    assert (found["status"], found["tags"]["http.status_code"]) == ("error", "502")


def test_start_response_raises_what_the_server_raises(event):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"sent"
        try:
            raise OddError("too late")
        except OddError:
            start_response("500 Oops", [], exc_info())

    with pytest.raises(OddError, match="too late"):
        call(WsgiMiddleware(app))
    found = event()
    assert (found["status"], found["error_code"]) == ("error", "OddError")


def test_write_is_the_servers_write(event):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    answer = call(WsgiMiddleware(app))
    assert (answer.written, answer.body) == ([b"one ", b"two "], b"one two three")
    assert event()["status"] == "success"


def test_an_iterable_closed_early_is_cancelled_and_closed_once(event):
    closed = []

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(lumiqtrace.get_current_trace_id())

    answer = call(WsgiMiddleware(app), pieces=1)
    answer.result.close()
    found = event()
    assert closed == [found["trace_id"]]
    assert (found["status"], found["error_code"]) == ("cancelled", "client_disconnected")


def test_close_is_called_once_by_a_server_that_closes_twice(client):
    class Pieces(list):
        closed = 0

        def close(self):
            self.closed += 1

    pieces = Pieces([b"a"])

    def app(environ, start_response):
        start_response("200 OK", [])
        return pieces

    call(WsgiMiddleware(app)).result.close()
    assert pieces.closed == 1


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("GET", "200 OK", "5"), ("HEAD", "200 OK", None), ("GET", "304 Same", None)],
)
def test_a_server_that_needs_no_more_pieces_cancels_nothing(event, close, method, status, length):
    def app(environ, start_response):
        start_response(status, [("Content-Length", length)] if length else [])
        return [b"hello"]

    answer = call(WsgiMiddleware(app), "/", method, pieces=1 if length else 0, close=close)
    answer.result = None
    gc.collect()
    assert event()["status"] == "success"


def test_an_iterable_that_is_dropped_still_gives_its_event(event):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    call(WsgiMiddleware(app), pieces=1, close=False).result = None
    gc.collect()
    assert event()["status"] == "cancelled"
    assert lumiqtrace.get_current_trace_id() is None


def test_the_length_of_what_the_application_returned_is_kept(client):
    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["pieces"]

    def length(pieces):
        result = WsgiMiddleware(app)(environ(pieces=pieces), lambda *_: None)
        assert list(result) == list(pieces) == list(result)
        result.close()
        return len(result) if hasattr(result, "__len__") else None

    assert [length(pieces) for pieces in ([], [b"a"], (b"a", b"b"))] == [0, 1, 2]
    assert length({b"a": 1}.keys()) == 1
    result = WsgiMiddleware(app)(environ(pieces=iter([b"a"])), lambda *_: None)
    assert not hasattr(result, "__len__")
    assert list(result) == [b"a"]


def test_a_file_wrapper_is_handed_to_the_server_as_it_is(event):
    wrapped = []

    def app(environ, start_response):
        start_response("200 OK", [])
        wrapped.append(environ["wsgi.file_wrapper"](file))
        return wrapped[0]

    file = io.BytesIO(b"content")
    answer = call(WsgiMiddleware(app), **{"wsgi.file_wrapper": FileWrapper})
    assert answer.result is wrapped[0]
    assert answer.body == b"content"
    assert file.closed
    assert event()["status"] == "success"


def test_a_file_wrapper_that_takes_no_attribute_still_gives_its_event(event):
    class Rigid:
        __slots__ = ("file",)

        def __init__(self, file):
            self.file = file

        def __iter__(self):
            return iter(self.file)

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    answer = call(WsgiMiddleware(app), **{"wsgi.file_wrapper": Rigid})
    assert type(answer.result) is Rigid
    assert event()["status"] == "success"


def test_headers_of_the_application_are_never_changed(client):
    headers = [("Content-Type", "text/plain")]

    def app(environ, start_response):
        start_response("200 OK", headers)
        return []

    middleware = WsgiMiddleware(app)
    assert len(call(middleware).headers) == len(call(middleware).headers) == 2
    assert headers == [("Content-Type", "text/plain")]
    assert call(WsgiMiddleware(app, response_header=False)).headers is headers


def test_an_id_that_the_application_sends_itself_is_kept(client):
    def app(environ, start_response):
        start_response("200 OK", [("X-Lumiqtrace-Id", "mine")])
        return []

    assert call(WsgiMiddleware(app)).headers == [("X-Lumiqtrace-Id", "mine")]


def test_heads_that_cannot_be_read_pass_as_they_are(event):
    def app(environ, start_response):
        start_response("odd", (("not", "a list"),))
        return [b"a"]

    answer = call(WsgiMiddleware(app))
    assert (answer.status, answer.headers) == ("odd", (("not", "a list"),))
    assert "http.status_code" not in event()["tags"]


def test_headers_that_can_be_read_once_are_left_to_the_server(event):
    def app(environ, start_response):
        start_response("200 OK", iter([("X-One", "1")]))
        return [b"a"]

    assert list(call(WsgiMiddleware(app)).headers) == [("X-One", "1")]
    assert event()["tags"]["http.status_code"] == "200"


def test_excluded_paths_make_no_trace(client, backend):
    traced = WsgiMiddleware(hello, exclude=["/health", "/static/*"])
    for path in ("/health", "/static/a/b.css", "/healthy"):
        answer = call(traced, path)
        assert (answer.header("x-lumiqtrace-id") is None) == (path != "/healthy")
    assert lumiqtrace.flush()
    assert [found["tags"]["http.path"] for found in roots(backend)] == ["/healthy"]


def test_a_middleware_inside_another_makes_no_second_trace(event):
    call(WsgiMiddleware(WsgiMiddleware(hello)))
    assert event()["name"] == "GET"


def test_an_environ_that_is_used_again_is_a_new_request(client, backend):
    again = environ()
    for _ in range(2):
        result = WsgiMiddleware(hello)(again, lambda *_: None)
        assert b"".join(result) == b"hello"
        result.close()
    assert lumiqtrace.flush()
    assert len({found["trace_id"] for found in roots(backend)}) == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_without_a_client_requests_pass_untouched(enabled, backend):
    config = lumiqtrace.LumiqConfig(api_key=KEY if enabled else None, enabled=enabled, base_url=backend.url)
    answer = call(WsgiMiddleware(hello, lumiqtrace.LumiqConfig(api_key=KEY, enabled=False)))
    assert (answer.body, answer.header("x-lumiqtrace-id")) == (b"hello", None)
    traced = call(WsgiMiddleware(hello, config))
    assert (traced.header("x-lumiqtrace-id") is not None) == enabled


def test_a_config_initialises_the_client_where_init_has_not(backend):
    call(WsgiMiddleware(hello, lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url, environment="test")))
    assert lumiqtrace.flush()
    assert [found["environment"] for found in roots(backend)] == ["test"]


def test_an_incoming_trace_is_joined_only_where_it_is_trusted(client, backend):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    header = {"HTTP_TRACEPARENT": f"00-{trace}-{span}-01"}
    call(WsgiMiddleware(hello), **header)
    call(WsgiMiddleware(hello, trust_incoming_trace=True), **header)
    call(WsgiMiddleware(hello, trust_incoming_trace=True), HTTP_TRACEPARENT="00-nonsense")
    assert lumiqtrace.flush()
    own, joined, odd = roots(backend)
    assert own["trace_id"] != trace
    assert (joined["trace_id"], joined["parent_span_id"]) == (trace, span)
    assert "parent_span_id" not in own
    assert "parent_span_id" not in odd


def test_rate_zero_records_nothing(client, backend):
    config = lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url, sample_rate=0.0)
    seen = []

    def app(environ, start_response):
        with lumiqtrace.span("inside"):
            seen.append(lumiqtrace.get_current_trace_id())
        return hello(environ, start_response)

    assert call(WsgiMiddleware(app, config)).body == b"hello"
    assert len(seen[0]) == 32
    assert lumiqtrace.flush()
    assert backend.events == []


def test_paths_are_text_and_include_the_mount(event):
    raw = "/café".encode().decode("latin-1")
    call(WsgiMiddleware(hello), raw, SCRIPT_NAME="/shop")
    assert event()["tags"]["http.path"] == "/shop/café"


@pytest.mark.parametrize("mount", ["", "/shop"])
def test_an_application_may_name_its_route(event, mount):
    def app(environ, start_response):
        environ["lumiqtrace.route"] = "/users/{id}"
        return hello(environ, start_response)

    call(WsgiMiddleware(app), "/users/7", SCRIPT_NAME=mount)
    found = event()
    assert found["name"] == f"GET {mount}/users/{{id}}"
    assert found["tags"]["http.route"] == f"{mount}/users/{{id}}"


def test_it_keeps_to_the_protocol(event):
    """The standard library's validator, on both sides."""
    traced = wsgiref.validate.validator(WsgiMiddleware(wsgiref.validate.validator(reads_its_body)))
    answer = call(traced, "/", "POST", b"some text", CONTENT_TYPE="text/plain")
    assert answer.body == b"some text"
    assert event()["status"] == "success"


def reads_its_body(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


# ---- Bodies --------------------------------------------------------------------------------------------


def capturing(client, **options):
    return lumiqtrace.LumiqConfig(
        api_key=KEY, base_url=client.config.base_url,
        capture_request_body=True, capture_response_body=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(4) + stream.read(1000),
        lambda stream: stream.readline() + stream.readline(3) + stream.read(),
        lambda stream: b"".join(stream.readlines()),
        b"".join,
        lambda stream: next(stream) + b"".join(stream),
        lambda stream: into(stream.readinto) + into(stream.readinto1),
        lambda stream: stream.getvalue() and stream.read(),
    ],
)
def test_the_application_reads_the_same_bytes_and_they_are_kept(client, event, read):
    body = json.dumps({"text": "ärger", "password": "hunter2", "list": [1, 2]}, indent=1).encode()
    got = []

    def app(environ, start_response):
        got.append(read(environ["wsgi.input"]))
        return hello(environ, start_response)

    call(WsgiMiddleware(app, capturing(client)), "/", "POST", body, CONTENT_TYPE="application/json")
    assert got == [body]
    kept = event()["metadata"]["http.request.body"]
    assert kept["content"] == {"text": "ärger", "password": "[REDACTED]", "list": [1, 2]}
    assert kept["bytes"] == len(body)


def into(readinto):
    buffer = bytearray(50)
    return bytes(buffer[: readinto(buffer)])


def test_response_bodies_are_kept_up_to_the_limit(client, event):
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
        write(b"abcd")
        return [b"efgh", b"ijkl"]

    assert call(WsgiMiddleware(app, capturing(client, max_body_bytes=6))).body == b"abcdefghijkl"
    kept = event()["metadata"]["http.response.body"]
    assert (kept["content"], kept["bytes"], kept["cut"]) == ("abcdef", 12, True)


def test_streams_and_binaries_are_named_and_not_kept(client, backend):
    def app(environ, start_response):
        start_response("200 OK", environ["headers"])
        return iter([b"\x00\x01", b"\x02"])

    middleware = WsgiMiddleware(app, capturing(client))
    call(middleware, headers=[("Content-Type", "text/plain")])
    call(middleware, headers=[("Content-Type", "image/png"), ("Content-Length", "3")])
    assert lumiqtrace.flush()
    bodies = [found["metadata"]["http.response.body"] for found in roots(backend)]
    assert [(body["omitted"], body["bytes"]) for body in bodies] == [("streamed", 3), ("binary", 3)]


def test_without_the_options_no_body_is_kept(client, event):
    call(WsgiMiddleware(reads_its_body), "/", "POST", b"some text", CONTENT_TYPE="text/plain")
    assert not event().get("metadata")


# ---- Flushing ------------------------------------------------------------------------------------------


def one_piece(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return [b"a"]


def stream(environ, start_response):
    start_response("200 OK", [])
    yield b"a"
    with lumiqtrace.span("late"):
        yield b"b"


def writes(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])(b"a")
    return []


def sends_a_file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"a"))


@pytest.mark.parametrize("app", [one_piece, stream, writes, sends_a_file, raises_in_second_piece])
@pytest.mark.parametrize("cloud_run", [True, False])
def test_flush_request_delivers_before_the_response_ends(client, backend, monkeypatch, app, cloud_run):
    """Nobody flushes here, and close() is never reached."""
    mode = "auto" if cloud_run else "request"
    if cloud_run:
        monkeypatch.setenv("K_SERVICE", "shop")
    config = lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url, flush=mode, flush_interval=3600)
    lumiqtrace.init(KEY, base_url=backend.url, flush_interval=3600)
    with contextlib.suppress(OddError):
        more = {"wsgi.file_wrapper": FileWrapper, "error": OddError("no")}
        call(WsgiMiddleware(app, config), close=False, **more)
    assert len(roots(backend)) == 1
    assert len(backend.events) == (2 if app is stream else 1)


def test_the_last_piece_of_a_known_length_comes_after_the_flush(client, backend):
    config = lumiqtrace.LumiqConfig(api_key=KEY, base_url=backend.url, flush="request")
    result = iter(WsgiMiddleware(one_piece, config)(environ(), lambda *_: None))
    assert next(result) == b"a"
    assert len(roots(backend)) == 1


def test_flush_delivers(client, backend):
    middleware = WsgiMiddleware(hello)
    call(middleware)
    assert middleware.flush() is True
    assert len(roots(backend)) == 1


# ---- Threads -------------------------------------------------------------------------------------------


def test_a_thousand_requests_at_once_keep_their_spans_apart(client, backend):
    """All of them are inside the application, and then inside their iterables, before the first goes on."""
    wanted = {}
    everybody = threading.Barrier(1000)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        with lumiqtrace.span(f"outer {path}"), lumiqtrace.span(f"inner {path}"):
            everybody.wait(30)
            wanted[path] = lumiqtrace.get_current_trace_id()
        start_response("200 OK", [])

        def pieces():
            with lumiqtrace.span(f"first {path}"):
                yield b"a"
            everybody.wait(30)
            with lumiqtrace.span(f"second {path}"):
                yield b"b"

        return pieces()

    traced = WsgiMiddleware(app)
    threads = [threading.Thread(target=call, args=(traced, f"/{number}")) for number in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lumiqtrace.flush(30)
    assert len(backend.events) == 5000
    assert len(set(wanted.values())) == 1000
    for found in backend.events:
        path = tag(found, "http.path") or found["name"].split()[1]
        assert found["trace_id"] == wanted[path]
