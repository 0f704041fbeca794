"""The site that real servers run in the tests: traced where TRACED says so, with Flask and odd applications."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

from flask import Flask, Response, send_file

import lumiqtrace

app = Flask(__name__)


@app.get("/items/<int:number>")
def item(number):
    with lumiqtrace.span(f"child {number}"):
        return {"number": number, "trace": lumiqtrace.get_current_trace_id()}


@app.get("/stream/<int:number>")
def stream(number):
    def pieces():
        with lumiqtrace.span(f"child {number}"):
            for piece in range(3):
                yield f"{piece};"

    return Response(pieces(), mimetype="text/plain")


@app.get("/file")
def file():
    return send_file(os.__file__, mimetype="text/plain", max_age=0)


@app.get("/memory")
def memory():
    return send_file(io.BytesIO(b"from memory" * 1000), mimetype="text/plain")


@app.get("/fails")
def fails():
    raise LookupError("sk-verysecretkey123456")


@app.get("/endless")
def endless():
    def pieces():
        while True:
            yield b"x" * 65536
            time.sleep(0)

    return Response(pieces())


def writes(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"one ")
    write(b"two ")
    return [b"three"]


def length_of_one_piece(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one piece"]


def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []


def raises_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"before"
    raise LookupError("late")


def reads(environ, start_response):
    stream, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
    body = stream.readline(length) + stream.read(3) if length else b""
    body += stream.read(length - len(body))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def a_file(environ, start_response):
    wrapper = environ.get("wsgi.file_wrapper", lambda file: iter(lambda: file.read(100), b""))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return wrapper(Path(os.__file__).open("rb"))


ODD = {
    f"/odd/{made.__name__}": made
    for made in (writes, length_of_one_piece, nothing, raises_late, reads, a_file)
}


def site(environ, start_response):
    return ODD.get(environ["PATH_INFO"], app_alone)(environ, start_response)


app_alone = app.wsgi_app
app.wsgi_app = site

if os.environ.get("TRACED"):
    from lumiqtrace.integrations.flask import LumiqConfig, LumiqFlaskMiddleware

    # Nothing leaves before the end but full batches.
    config = LumiqConfig(api_key=os.environ["KEY"], batch_size=100, flush_interval=3600.0)
    header = os.environ["TRACED"] == "with header"
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=config, response_header=header)

if __name__ == "__main__":
    import sys

    if sys.argv[1] == "debug":
        # Where watchdog is installed, as here by another test's dependency, the reloader would take a fifth of
        # a second to stop, and after a quarter its parent kills it.
        app.run(debug=True, port=0, reloader_type="stat")
    else:
        from werkzeug.serving import make_server

        make_server("127.0.0.1", 0, app, threaded=True, fd=int(sys.argv[1])).serve_forever()
