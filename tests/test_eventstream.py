"""What reads the event streams of Amazon Bedrock: whatever the bytes, it never raises."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from eventstream import CHUNK, frame, frames
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace.providers._eventstream import MAX_FRAME, FrameStream

EVENTS = [{"type": "message_start"}, {"type": "ping", "text": "\N{SNOWMAN}"}, {"type": "message_stop"}]


def read(*chunks):
    stream = FrameStream()
    found = [payload for chunk in chunks for payload in stream.feed(chunk)]
    return [json.loads(payload) for payload in found + stream.close()]


@given(st.lists(st.integers(min_value=0, max_value=len(frames(*EVENTS))), max_size=8))
def test_events_however_the_network_cut_them(cuts):
    whole = frames(*EVENTS)
    edges = [0, *sorted(cuts), len(whole)]
    assert read(*(whole[start:end] for start, end in pairwise(edges))) == EVENTS


def test_every_kind_of_header_is_passed_over():
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    others = {f"x{kind}": (kind, bytes(size)) for kind, size in sizes.items()}
    others["x6"] = (6, b"\0\x03abc")
    body = json.dumps({"message": "no"}).encode()
    headers = {**others, ":message-type": "exception", ":exception-type": "throttlingException"}
    assert read(frame(body, headers)) == [
        {"type": "error", "error": {"type": "throttlingException", "message": "no"}}
    ]


def test_an_error_says_all_in_its_headers():
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}
    assert read(frame(b"", headers)) == [
        {"type": "error", "error": {"type": "InternalError", "message": "oops"}}
    ]


@pytest.mark.parametrize(
    "odd",
    [
        frame(b"", CHUNK),
        frame(b"no JSON", CHUNK),
        frame(b"[]", CHUNK),
        frame(b'{"bytes": 7}', CHUNK),
        frame(b'{"bytes": "*"}', CHUNK),
        frame(b"{}", {"x": (6, b"\xff\xff")}),
        frame(b"{}", {"x": (77, b"")}),
        frame(b"[]", {":message-type": "exception"}),
    ],
)
def test_a_frame_that_cannot_be_read_says_nothing_and_the_next_is_read(odd):
    assert read(odd + frames(EVENTS[0])) == [EVENTS[0]]


def test_bytes_that_are_no_frames_are_not_kept():
    stream = FrameStream()
    assert stream.feed(b"event: message_start\n\n" * 100) == []
    assert stream.feed(frames(*EVENTS)) == [], "there is no way back into the stream"
    assert stream._rest == b""


def test_a_frame_larger_than_there_can_be_is_not_waited_for():
    prelude = frame(b"x" * (MAX_FRAME + 1), {})[:12]
    stream = FrameStream()
    assert stream.feed(prelude) == []
    assert stream._rest == b""


def test_a_copy_reads_on_by_itself():
    whole = frames(*EVENTS)
    stream = FrameStream()
    first = stream.feed(whole[:-5])
    twin = stream.copy()
    assert len(first) == 2
    assert twin.feed(whole[-5:]) == stream.feed(whole[-5:]) != []
