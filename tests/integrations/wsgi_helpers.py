"""A WSGI server's part, in the same thread; and what the tests read out of events."""

from __future__ import annotations

import io
import itertools
import sys
from wsgiref.util import setup_testing_defaults


class Answer:
    def __init__(self):
        self.status = None
        self.headers = []
        self.body = b""
        self.written = []
        self.result = None

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)


def environ(path="/", method="GET", body=b"", **more):
    made = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "SCRIPT_NAME": ""}
    setup_testing_defaults(made)
    if body:
        made["CONTENT_LENGTH"] = str(len(body))
    return made | {"wsgi.input": io.BytesIO(body)} | more


def call(app, path="/", method="GET", body=b"", *, pieces=None, close=True, **more):
    """Run one request as a server does, taking at most `pieces` pieces of the answer."""
    answer = Answer()

    def start_response(status, headers, exc_info=None):
        if exc_info and answer.body:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or answer.status is None
        answer.status, answer.headers = status, headers
        return write

    def write(data):
        answer.written.append(data)
        answer.body += data

    answer.result = app(environ(path, method, body, **more), start_response)
    try:
        for piece in itertools.islice(answer.result, pieces):
            answer.body += piece
    finally:
        if close and hasattr(answer.result, "close"):
            answer.result.close()
    return answer


def hello(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def exc_info():
    return sys.exc_info()


def roots(backend):
    """The requests' own events, in the order of their delivery."""
    return [event for event in backend.events if "http.method" in event.get("tags", {})]


def tag(event, name):
    return event.get("tags", {}).get(name)
