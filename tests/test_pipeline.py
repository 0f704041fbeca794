"""From the event to the bytes that leave: nothing secret in them, and the user has the last word."""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from urllib.parse import quote, urlencode

import pytest
from backend import KEY, Backend, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_encode import make

import lumiqtrace
from lumiqtrace._delivery.exporter import Exporter
from lumiqtrace._delivery.transport import Reply
from lumiqtrace._event import Event
from lumiqtrace._pipeline import Pipeline
from lumiqtrace._redaction.redact import REDACTED, Redactor


class Note:
    """A recording whose event is already there."""

    size = 100

    def __init__(self, **fields):
        self.fields = fields

    def event(self):
        return make(**self.fields)


def sent(backend, *notes, **options):
    client = lumiqtrace.init(KEY, base_url=backend.url, **options)
    for note in notes:
        client.record(note)
    assert client.flush(10)
    return client, backend.events


# ---- secrets -----------------------------------------------------------------------------------------


def test_what_comes_from_the_application_is_redacted_and_the_rest_stays(backend):
    _, (event,) = sent(
        backend,
        Note(
            name="password=not-one sk-0123456789abc", model="sk-0123456789abc", error_message="login: password=hunter2", user_id="token=hunter2",
            session_id="lqt_0123456789", tags={"apiKey": "hunter2", "ok": "fine", "url": "https://a:hunter2@h/"},
            metadata={"body": {"Password": ["hunter2"]}, "text": '{"token": "hunter2"}', "n": 4111111111111111},
            prompt='[{"content":"api_key=hunter2"}]', completion="use sk-0123456789abc", eval_scores={"token": 0.5},
        ),
    )  # fmt: skip
    assert (event["name"], event["model"]) == ("password=not-one [REDACTED]", REDACTED)
    assert event["error_message"] == "login: password=[REDACTED]"
    assert (event["user_id"], event["session_id"]) == ("token=[REDACTED]", REDACTED)
    assert event["tags"] == {"apiKey": REDACTED, "ok": "fine", "url": "https://[REDACTED]@h/"}
    assert event["metadata"] == {
        "body": {"Password": REDACTED},
        "text": '{"token": "[REDACTED]"}',
        "n": REDACTED,
    }
    assert json.loads(event["prompt"]) == [{"content": "api_key=[REDACTED]"}]
    assert event["completion"] == "use [REDACTED]"
    assert event["eval_scores"] == {"token": 0.5}


def test_the_options_decide_what_is_redacted(backend):
    metadata = {"iban": "1", "password": "2", "text": "sk-0123456789abc"}
    _, events = sent(backend, Note(metadata=metadata), redact_fields=["IBAN"], replace_default_redact_fields=True, redact_secrets=False)  # fmt: skip
    assert events[0]["metadata"] == {"iban": REDACTED, "password": "2", "text": "sk-0123456789abc"}


def test_a_redaction_that_fails_sends_nothing(backend, monkeypatch):
    def fail(_self, _value):
        raise RuntimeError("a fault of ours")

    client, events = sent(backend, Note(name="well"))
    monkeypatch.setattr(Redactor, "value", fail)
    client.record(Note(metadata={"a": {"password": "hunter2"}}))
    assert not client.flush(10)
    assert [event["name"] for event in events] == ["well"]
    assert client.stats().dropped == {"unreadable": 1}


CORE = "Zq7Xw9Kt3Vb5"
NAMES = ["password", "apiKey", "access-token", "CLIENT_SECRET", "iban", "ssn", "db_password"]
ANY = st.text(max_size=8)
PLAIN = st.text("abcXYZ019-_.~!*/+%", max_size=8)


def nested(draw, leaf):
    """`leaf` somewhere in dicts, lists and JSON text."""
    for way in draw(st.lists(st.sampled_from(["dict", "list", "json", "twin"]), max_size=5)):
        if way == "dict":
            leaf = {draw(ANY) + "x": leaf}
        elif way == "list":
            leaf = [draw(ANY), leaf, 1]
        elif way == "twin":
            leaf = {"a": leaf, "b": [leaf]}
        else:
            leaf = json.dumps(leaf, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    return leaf


@st.composite
def planted(draw):
    """An event's fields with a secret in one of the places where applications leave them."""
    name = draw(st.sampled_from(NAMES))
    secret = CORE + draw(ANY) + CORE
    word = CORE + draw(PLAIN) + CORE
    quoted = CORE + draw(PLAIN.map(lambda text: text.replace("%", ""))) + CORE
    redactor = Redactor(["iban"])
    place = draw(
        st.sampled_from(
            ["value", "header", "query", "form", "repr", "pair", "url", "tag", "prompt", "cut", "bytes"]
        )
    )
    text = {
        "header": lambda: json.dumps(redactor.headers([(name, secret), ("Authorization", secret), (b"cookie", word.encode())])),
        "query": lambda: redactor.query("?" + urlencode({"q": "x", name: secret}) + "&b=c"),
        "form": lambda: redactor.form(urlencode([(f"user[{name}]", secret), ("b", "c")], quote_via=draw(st.sampled_from([quote])))),
        "repr": lambda: f"ValueError: cannot use {({'a': 1, name: secret, 'b': [2]})!r}, sorry",
        "pair": lambda: f"login failed for a: {name}{draw(st.sampled_from(['=', ': ', ' = ', '=>']))}{word} and more",
        "url": lambda: f"404 for https://h.example/p?a=b&{name}={quoted}&c=d",
        "cut": lambda: json.dumps({"a": 1, name: secret, "b": "x" * 50})[: -draw(st.integers(1, 60))],
        "bytes": lambda: repr({name.encode(): secret.encode("utf-8", "replace")}),
    }  # fmt: skip
    if place == "value":
        return {
            "metadata": {
                "body": nested(draw, {name: draw(st.sampled_from([secret, [secret], {"x": secret}]))})
            }
        }
    if place == "tag":
        return {"tags": {name: secret}}
    if place == "prompt":
        return {"prompt": json.dumps([{"role": "user", "content": nested(draw, {name: secret})}])}
    return (
        {draw(st.sampled_from(["error_message", "user_id", "completion"])): text[place]()}
        if draw(st.booleans())
        else {"metadata": {"text": nested(draw, text[place]())}}
    )


def test_a_planted_secret_occurs_in_no_byte_that_leaves():
    with running(Backend()) as backend:
        client = lumiqtrace.init(KEY, base_url=backend.url, redact_fields=["iban"])

        @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(planted(), min_size=1, max_size=8))
        def plant(found):
            backend.requests.clear()
            for fields in found:
                client.record(Note(**fields))
            assert client.flush(10)
            events = [event for request in backend.requests for event in request.events]
            assert len(events) == len(found)
            for event, fields in zip(events, found, strict=True):
                assert CORE not in json.dumps(event), fields
                assert REDACTED in json.dumps(event)

        plant()
        assert client.stats().dropped == {}


# ---- before_send -------------------------------------------------------------------------------------


def test_before_send_may_change_and_drop_events(backend):
    seen = []

    def before_send(event):
        seen.append((type(event), event.tags, threading.current_thread().name))
        event.tags["team"] = "search"
        return None if event.name == "noise" else event

    notes = [Note(name=name, tags={"token": "x1"}) for name in ("one", "noise", "two")]
    client, events = sent(backend, *notes, before_send=before_send)
    assert [(event["name"], event["tags"]) for event in events] == [
        ("one", {"token": REDACTED, "team": "search"}), ("two", {"token": REDACTED, "team": "search"}),
    ]  # fmt: skip
    assert {kind for kind, _, _ in seen} == {Event}
    assert {thread for _, _, thread in seen} == {"lumiqtrace-exporter"}
    stats = client.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (3, 2, {"before_send": 1})


def test_a_batch_of_unwanted_events_is_settled_without_a_request(backend):
    client, events = sent(backend, *[Note() for _ in range(250)], before_send=lambda event: None)
    assert events == backend.requests == []
    stats = client.stats()
    assert (stats.recorded, stats.dropped, stats.queued) == (250, {"before_send": 250}, 0)
    assert client.shutdown()


@pytest.mark.parametrize("answer", [ValueError, TimeoutError, True, {"name": "x"}, "x"])
def test_where_before_send_fails_the_event_leaves_without_what_the_application_said(backend, answer, caplog):
    def before_send(event):
        event.tags["half"] = "done"
        event.metadata["deep"]["half"] = "done"
        if isinstance(answer, type):
            raise answer("password=hunter2")
        return answer

    said = {"name": "secret", "metadata": {"deep": {"a": "secret"}}, "tags": {"a": "secret"}}
    said |= {"user_id": "secret", "session_id": "secret", "prompt": "secret", "completion": "secret"}
    client, events = sent(
        backend,
        *(Note(**said, error_message="secret", cost_usd=0.5) for _ in range(3)),
        before_send=before_send,
    )
    assert len(events) == 3
    for event in events:
        assert "secret" not in json.dumps(event)
        assert (event["tags"], event["cost_usd"]) == ({"before_send": "failed"}, 0.5)
    stats = client.stats()
    assert (stats.recorded, stats.sent, stats.internal_errors) == (3, 3, 3)
    kind = answer.__name__ if isinstance(answer, type) else "TypeError"
    assert caplog.text.count(f"before_send failed ({kind})") == 1
    assert "hunter2" not in caplog.text


def test_whatever_before_send_makes_of_an_event_is_sent_as_json(backend):
    def before_send(event):
        event.metadata = {"a": float("nan"), "b": object, 3: {1, 2}}
        event.tags = None
        event.latency_ms = float("inf")
        return event

    _, events = sent(backend, Note(tags={"a": "b"}), before_send=before_send)
    assert events[0]["metadata"]["a"] is None
    assert sorted(events[0]["metadata"]["3"]) == [1, 2]
    assert "tags" not in events[0]


def test_the_account_balances_while_events_are_dropped():
    class Wire:
        def send(self, body, headers, timeout):
            assert all(json.loads(line) for line in zlib.decompress(body, wbits=31).split(b"\n"))
            return Reply(202, {})

        def close(self):
            pass

    numbers = iter(range(10_000))
    exporter = Exporter(Wire(), pipeline=Pipeline(None, lambda event: event if next(numbers) % 3 else None))
    with contextlib.closing(_Closing(exporter)):
        for _ in range(1000):
            exporter.submit(Note())
            stats = exporter.stats()
            assert stats.recorded == stats.sent + stats.queued + stats.in_flight + sum(stats.dropped.values())
        assert exporter.flush(10)
        assert exporter.stats().dropped == {"before_send": 334}
        assert exporter.stats().sent == 666


class _Closing:
    def __init__(self, exporter):
        self._exporter = exporter

    def close(self):
        self._exporter.close(0)
