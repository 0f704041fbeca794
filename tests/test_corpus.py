"""Recorded provider traffic through the real clients: each exchange gives the one event it must give.

The recordings lie beside the checkout; they are no part of the project.
"""

from __future__ import annotations

import collections
import json
import sys
import zlib
from pathlib import Path

import pytest

import lumiqtrace
from lumiqtrace import LumiqConfig, _default
from lumiqtrace._delivery.transport import Reply

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

pytestmark = [
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"NOT RUN: there are no recordings in {CORPUS}"),
    pytest.mark.timeout(300),
]

STYLES = ("plain", "raw", "streaming_raw")
CASES = [
    (provider, mode, style)
    for provider in ("openai", "anthropic", "google")
    for mode in ("sync", "async")
    for style in (STYLES if provider != "google" else ("plain",))
]


class Kept:
    """A transport that keeps the events."""

    def __init__(self):
        self.events = []

    def send(self, body, headers, timeout):
        self.events += [json.loads(line) for line in zlib.decompress(body, wbits=31).split(b"\n")]
        return Reply(202, {})

    def close(self):
        pass


@pytest.fixture
def kept():
    transport = Kept()
    _default._current = lumiqtrace.Client(LumiqConfig(api_key="lqt_corpus"), lambda _config: transport)
    lumiqtrace.patch_openai()
    lumiqtrace.patch_anthropic()
    lumiqtrace.patch_google()
    return transport


@pytest.fixture(scope="module")
def replay():
    sys.path.insert(0, str(CORPUS))
    yield pytest.importorskip("replay")
    sys.path.remove(str(CORPUS))


def facts(event):
    """An event in the terms of the recording's `expected`."""
    found = {name: event.get(name) for name in (
        "provider", "operation", "model", "input_tokens", "output_tokens", "cached_tokens", "finish_reason",
        "stream", "status", "error_code",
    )}  # fmt: skip
    found["tools_used"] = sorted(event.get("tools_used", []))
    found["usage_missing"] = event.get("tags", {}).get("usage") == "missing"
    return found


@pytest.mark.parametrize(("provider", "mode", "style"), CASES)
@pytest.mark.filterwarnings("ignore")  # of the clients, about what was recorded long ago
def test_every_recording_gives_its_event(kept, replay, provider, mode, style, capsys):
    recordings = {}
    for recording in replay.load(provider):
        # The span is how the events of a call are told from those of the next.
        with lumiqtrace.span(recording["id"]) as span:
            recordings[span.trace_id] = recording
            try:
                replay.build(recording, mode=mode, style=style)()
            except Exception as error:  # noqa: BLE001 - some answers no client can parse; the event counts
                span.set_attribute("raised", type(error).__name__)
    assert lumiqtrace.flush(60)
    by_trace = collections.defaultdict(list)
    for event in kept.events:
        if event["span_kind"] == "llm":
            by_trace[event["trace_id"]].append(event)
    for trace_id, recording in recordings.items():
        events = by_trace[trace_id]
        where = f"{provider} {recording['endpoint']} {recording['vendor']} {recording['id']}"
        assert len(events) == 1, f"{where}: {len(events)} events"
        expected = {**recording["expected"], "tools_used": sorted(set(recording["expected"]["tools_used"]))}
        if expected["model"] is None:
            expected["model"] = events[0]["model"]
        assert facts(events[0]) == expected, where
    assert recordings
    with capsys.disabled():
        counted = f"{len(recordings)} recordings, one event each, all fields equal"
        print(f"\n{provider}, {mode}, {style}: {counted}")  # noqa: T201 - so that it is seen to have run
