"""The same events delivered twice, to a real server: its rows are counted."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from pathlib import Path

import pytest
from faults.emitting import numbers, wait_for
from faults.server import Peer, misbehaving

import lumiqtrace
from lumiqtrace._commands.reader import fetch_trace
from lumiqtrace._delivery import loop
from lumiqtrace.server import running

sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from server_helpers import server_process


def rows(url, credentials, trace_id):
    """The numbers of the events that the server stored, each row once."""
    [root] = fetch_trace(url, credentials.project_id, credentials.read_token, trace_id)
    return numbers({"name": span["model"]} for span in root["children"])


def work(count):
    """A trace with so many numbered spans; its id."""
    with lumiqtrace.span("work"):
        for number in range(count):
            with lumiqtrace.span(f"event {number}"):
                pass
        return lumiqtrace.get_current_trace_id()


def test_a_server_that_lost_its_answer_stores_no_event_twice(tmp_path):
    with running(tmp_path / "data") as server:
        left = [True, True]

        def relay(peer: Peer) -> None:
            """Hand the request on; the first two times the answer is lost on its way back."""
            heard = peer.hear()
            if heard is None:
                return
            onward = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
            onward.request("POST", "/v1/ingest", heard.body, heard.headers)
            answer = onward.getresponse()
            body = answer.read()
            onward.close()
            if left:
                left.pop()
                peer.reset()
            else:
                peer.answer(answer.status, body=body)

        with misbehaving(relay) as between:
            client = lumiqtrace.init(server.credentials.api_key, base_url=between.url)
            trace_id = work(10)
            assert client.flush(20)
            assert len(between.heard) == 3
            assert client.stats().sent == 11
        assert rows(server.url, server.credentials, trace_id) == list(range(10))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_server_that_was_frozen_and_thawed_stores_no_event_twice(tmp_path, monkeypatch):
    """Its machine takes the bytes meanwhile; thawed, it answers requests that were given up long ago."""
    monkeypatch.setattr(loop, "SEND_TIMEOUT", 0.3)
    with server_process(tmp_path / "data") as server:
        credentials = server.credentials()
        client = lumiqtrace.init(credentials.api_key, base_url=server.url)
        with lumiqtrace.span("before"):
            pass
        assert client.flush(20)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            trace_id = work(10)
            assert client.flush(0.5) is False
            wait_for(lambda: client.stats().retried >= 2)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        monkeypatch.setattr(loop, "SEND_TIMEOUT", 10.0)
        assert client.flush(20)
        assert client.stats().dropped == {}
        assert rows(server.url, credentials, trace_id) == list(range(10))
