"""Bodies as they pass: what is kept of them, what is cut, what is hidden."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._redaction.redact import Redactor
from lumiqtrace.integrations._bodies import BodyTap, completed

SECRET = "hunter2-zebra"


def value(content_type, body, limit=65_536, **options):
    tap = BodyTap(content_type, limit, **options)
    for start in range(0, len(body), 7):
        tap.feed(body[start : start + 7])
    return tap.value(Redactor())


def test_json_is_parsed_and_hidden_by_its_keys():
    body = b'{"user": "Ann", "auth": {"password": "hunter2-zebra"}, "items": [{"apiKey": "k"}]}'
    assert value("application/json; charset=utf-8", body) == {
        "type": "application/json",
        "bytes": len(body),
        "content": {"user": "Ann", "auth": "[REDACTED]", "items": [{"apiKey": "[REDACTED]"}]},
    }


@pytest.mark.parametrize("content_type", ["application/problem+json", "text/json", "APPLICATION/JSON"])
def test_the_other_names_of_json(content_type):
    assert value(content_type, b'{"token": "x", "a": 1}')["content"] == {"token": "[REDACTED]", "a": 1}


def test_json_lines():
    found = value("application/x-ndjson", b'{"a": 1}\n\n{"password": "x"}\n')
    assert found["content"] == [{"a": 1}, {"password": "[REDACTED]"}]


def test_json_lines_that_were_cut():
    found = value("application/x-ndjson", b'{"a": 1}\n{"password": "hunter2"}', limit=28)
    assert (found["content"], found["cut"]) == ([{"a": 1}, {"password": "[REDACTED]"}], True)


def test_a_form_is_text_without_its_secrets():
    found = value("application/x-www-form-urlencoded", b"name=Ann&password=hunter2-zebra&x=1")
    assert found["content"] == "name=Ann&password=[REDACTED]&x=1"


def test_text_is_hidden_by_its_looks():
    found = value("text/plain", b"my key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789")
    assert "abcdefghij" not in found["content"]
    assert found["content"].startswith("my key is ")


@pytest.mark.parametrize("content_type", ["text/plain", None, ""])
def test_json_under_another_name_is_hidden_by_its_keys(content_type):
    assert value(content_type, b'{"password": "x"}')["content"] == {"password": "[REDACTED]"}


@pytest.mark.parametrize(
    ("content_type", "options", "omitted"),
    [
        ("image/png", {}, "binary"),
        ("application/octet-stream", {}, "binary"),
        ("multipart/form-data; boundary=x", {}, "multipart"),
        ("application/json", {"encoding": "gzip"}, "encoded"),
        ("text/event-stream", {}, "streamed"),
        ("application/json", {"streamed": True}, "streamed"),
        ("text/plain; charset=hex", {}, "unreadable"),
        ("text/plain; charset=no-such", {}, "unreadable"),
    ],
)
def test_what_is_not_kept_is_named_with_its_length(content_type, options, omitted):
    found = value(content_type, b"0123456789", **options)
    assert found == {"type": content_type.partition(";")[0], "bytes": 10, "omitted": omitted}


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"a\0b"])
def test_bytes_without_a_type_that_are_no_text_are_not_kept(body):
    assert value(None, body) == {"type": "", "bytes": len(body), "omitted": "unreadable"}


def test_what_is_omitted_holds_no_memory():
    tap = BodyTap("image/png", 65_536)
    tap.feed(b"x" * 10_000)
    assert (tap.kept, tap.size) == (0, 10_000)


def test_an_empty_body_is_none():
    assert value("application/json", b"") is None


def test_json_that_is_none_is_not_kept():
    body = b"{'password': 'hunter2-zebra'}"
    assert value("application/json", body) == {
        "type": "application/json", "bytes": len(body), "omitted": "unreadable",
    }  # fmt: skip


def test_json_deeper_than_python_goes_is_not_kept():
    assert value("application/json", b"[" * 60_000)["omitted"] == "unreadable"


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-8859-1", '"utf-8"'])
def test_the_charset_of_the_header_is_used(charset):
    body = "café".encode(charset.strip('"'))
    assert value(f"text/plain; charset={charset}", body)["content"] == "café"


def test_text_that_was_cut_says_so_and_ends_with_a_whole_character():
    found = value("text/plain", "ééé".encode(), limit=3)
    assert found == {"type": "text/plain", "bytes": 6, "content": "é", "cut": True}


def test_a_body_as_long_as_the_limit_is_not_cut():
    assert "cut" not in value("text/plain", b"abc", limit=3)


@pytest.mark.parametrize("data", [bytearray(b"abcdef"), memoryview(b"abcdef")])
def test_servers_may_hand_over_any_bytes(data):
    tap = BodyTap("text/plain", 4)
    tap.feed(data)
    assert tap.value(Redactor()) == {"type": "text/plain", "bytes": 6, "content": "abcd", "cut": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""), ("{", "{}"), ("[", "[]"), ('{"a', "{}"), ('{"a"', "{}"), ('{"a":', "{}"),
        ('{"a":"x', '{"a":"x"}'), ('{"a":"x\\', '{"a":"x"}'), ('{"a":"x\\\\', '{"a":"x\\\\"}'),
        ('{"a":"\\u00', '{"a":""}'), ('{"a":"\\u00e9', '{"a":"\\u00e9"}'), ('{"a": 12', "{}"),
        ('{"a": 12,', '{"a": 12}'), ('{"a": 12, "b', '{"a": 12}'), ('[1, {"b": tr', "[1, {}]"),
        ('[1, [2, "x"', '[1, [2, "x"]]'), ('{"a":"}"', '{"a":"}"}'), ('{"a":{"b":[1', '{"a":{"b":[]}}'),
        ('"abc', '"abc"'),
    ],
)  # fmt: skip
def test_a_cut_json_text_is_completed(text, expected):
    assert completed(text) == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(
    document=st.dictionaries(st.text(max_size=6), JSON, max_size=4) | st.lists(JSON),
    data=st.data(),
    wide=st.booleans(),
)
def test_every_beginning_of_json_completes_to_json(document, data, wide):
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans()), indent=2 if wide else None)
    json.loads(completed(text[: data.draw(st.integers(1, len(text)))]))


@given(before=JSON, inside=JSON, name=st.sampled_from(["password", "apiKey", "access-token"]), data=st.data())
def test_a_secret_does_not_survive_a_cut_wherever_it_falls(before, inside, name, data):
    document = {"a": before, "nested": [{name: [SECRET, inside]}, {name: SECRET}], "end": "x" * 20}
    body = json.dumps(document).encode()
    found = value("application/json", body, limit=data.draw(st.integers(1, len(body))))
    assert "zebra" not in json.dumps(found)
    assert "hunter2" not in json.dumps(found)


@given(body=st.binary(max_size=60), limit=st.integers(1, 70), name=st.sampled_from(
    ["application/json", "text/plain", "text/html; charset=utf-16", "application/x-www-form-urlencoded",
     "application/x-ndjson", "", "text/xml; charset=ascii", 'application/x; charset=""']))  # fmt: skip
def test_no_bytes_are_too_odd(body, limit, name):
    found = value(name, body, limit)
    assert (found is None) == (not body)
    if found:
        assert found["bytes"] == len(body)
        assert ("content" in found) != ("omitted" in found)
        json.dumps(found)
