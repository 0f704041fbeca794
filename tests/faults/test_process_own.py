"""What lumiqtrace does itself makes no events, however thoroughly the application traces its libraries and its log."""

from __future__ import annotations

import functools
import http.client
import logging
import socket

import httpx
import pytest
from backend import KEY, Answer
from process_helpers import names

import lumiqtrace


class Recorder(logging.Handler):
    """A handler that records every line as a span, as log-to-trace bridges do."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.seen = 0

    def emit(self, record):
        self.seen += 1
        with lumiqtrace.span(f"log: {record.name}"):
            pass


@pytest.fixture
def recorder():
    """On the root logger, at DEBUG."""
    handler, root = Recorder(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


def traced(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        call.count += 1
        with lumiqtrace.span(f"traced {function.__qualname__}"):
            return function(*args, **kwargs)

    call.count = 0
    return call


TRACED = [
    (httpx.Client, "send"),
    (http.client.HTTPConnection, "request"),
    (http.client.HTTPResponse, "begin"),
    (socket, "getaddrinfo"),
]


def deliver():
    """One event, and enough deliveries for others to show."""
    with lumiqtrace.span("work"):
        pass
    for _ in range(3):
        assert lumiqtrace.flush(20)


def test_a_traced_http_library_makes_exactly_one_event(client, backend, monkeypatch):
    for owner, name in TRACED:
        monkeypatch.setattr(owner, name, traced(getattr(owner, name)))
    deliver()
    assert any(getattr(owner, name).count for owner, name in TRACED), "none of them is ours"
    assert names(backend) == ["work"]
    assert len(backend.requests) == 1
    httpx.get(backend.url, timeout=20)
    deliver()
    assert "traced Client.send" in names(backend), "the application's own are recorded"


def test_a_log_handler_that_records_sees_our_requests_and_makes_no_events(client, backend, recorder):
    deliver()
    assert names(backend) == ["work"]
    assert len(backend.requests) == 1


def test_a_before_send_that_records_makes_no_events(backend):
    def ask(event):
        with lumiqtrace.span("asked"):
            return event

    lumiqtrace.init(KEY, base_url=backend.url, before_send=ask)
    deliver()
    assert names(backend) == ["work"]


def test_warnings_about_a_backend_that_is_down_do_not_multiply(backend, recorder):
    backend.answer = lambda request: Answer(503)
    client = lumiqtrace.init(KEY, base_url=backend.url)
    with lumiqtrace.span("work"):
        pass
    for _ in range(3):
        lumiqtrace.flush(0.3)
    assert recorder.seen
    assert client.stats().recorded == 1
