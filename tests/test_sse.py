from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace.providers._sse import EventStream


def read(*chunks):
    stream = EventStream()
    found = [payload for chunk in chunks for payload in stream.feed(chunk)]
    return found + stream.close()


@pytest.mark.parametrize(
    ("text", "payloads"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data:one\r\n\r\ndata:two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"event: x\nid: 7\ndata: one\nretry: 3\n\n", [b"one"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": a comment\n\n: another\ndata: one\n\n", [b"one"]),
        (b"data: no blank line follows", [b"no blank line follows"]),
        (b"\n\n\n\n", []),
        (b"", []),
        (b"<html>no stream</html>", []),
    ],
)
def test_payloads(text, payloads):
    assert read(text) == payloads


@given(
    st.lists(st.dictionaries(st.text(), st.text()), max_size=5),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400), max_size=20),
)
def test_it_does_not_matter_where_the_network_cuts(events, newline, cuts):
    payloads = [json.dumps(event).encode() for event in events]
    text = b"".join(b"event: x" + newline + b"data: " + payload + newline * 2 for payload in payloads)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert read(*(text[a:b] for a, b in pairwise(edges))) == payloads


@given(st.lists(st.binary(max_size=30)))
def test_no_bytes_are_too_odd(chunks):
    read(*chunks)


def test_a_copy_goes_its_own_way():
    stream = EventStream()
    stream.feed(b"data: he")
    twin = stream.copy()
    assert twin.feed(b"llo\n\n") == [b"hello"]
    assert stream.feed(b"y\n\n") == [b"hey"]
