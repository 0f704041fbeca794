"""The prompt of a request is kept as it was sent, whatever the caller does with it afterwards."""

from __future__ import annotations

import copy
import json

import pydantic
import pytest

from lumiqtrace.providers._prompt import canonical, overheard, readable, snapshot

BODY = {
    "system": [{"type": "text", "text": "Be kind"}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, "there"]}],
}


class Omit:
    """What a client writes for an argument that was left out."""


def test_what_the_caller_changes_later_is_not_seen():
    body = copy.deepcopy(BODY)
    kept, _ = snapshot(body, ("system", "messages"))
    body["messages"][0]["content"][0]["text"] = "changed"
    body["messages"].append("more")
    body["system"].clear()
    assert kept == BODY


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": ["a"]}, ["a"]),
        ({"messages": ("a", ("b",))}, ["a", ["b"]]),
        ({"messages": ["a"], "system": None}, ["a"]),
        ({"messages": ["a"], "system": Omit()}, ["a"]),
        ({"messages": ["a"], "system": ""}, {"system": "", "messages": ["a"]}),
        ({"prompt": "a"}, None),
    ],
)
def test_which_fields_are_the_prompt(body, expected):
    assert snapshot(body, ("system", "messages"))[0] == expected


def test_an_iterator_is_heard_and_not_consumed():
    body = {"messages": (item for item in "abc"), "n": 1}
    passed = overheard(body, ("messages",))
    kept, _ = snapshot(passed, ("messages",))
    assert canonical(kept) == "[]"
    assert list(passed["messages"]) == ["a", "b", "c"]
    assert canonical(kept) == '["a","b","c"]'
    assert list(body["messages"]) == []
    assert passed["n"] == 1


@pytest.mark.parametrize("body", [BODY, {"messages": "text"}, {}, None, [], "text"])
def test_what_can_be_read_again_is_passed_on_itself(body):
    assert overheard(body, ("system", "messages")) is body


class Block(pydantic.BaseModel):
    kind: str = pydantic.Field(alias="type")
    text: str
    cited: list[str] | None = None


def test_models_are_written_as_the_clients_send_them():
    assert json.loads(canonical([Block(type="text", text="Hi")])) == [{"type": "text", "text": "Hi"}]


def test_a_model_with_a_value_of_another_type_is_no_warning():
    odd = Block.model_construct(kind="text", text=7)
    assert json.loads(canonical(odd)) == {"type": "text", "text": 7}


def test_what_json_has_no_word_for_is_text():
    assert canonical({"b": {1: 2}, "a": b"x"}) == '{"a":"b\'x\'","b":{"1":2}}'


def test_a_prompt_that_is_no_json_is_text_all_the_same():
    assert canonical({1: "a", "b": "c"}) == "{1: 'a', 'b': 'c'}"


def test_a_prompt_weighs_what_it_keeps_alive():
    def weight(body):
        return snapshot(body, ("system", "messages"))[1]

    image = {"type": "image", "source": {"data": "x" * 100_000}}
    assert 100_000 <= weight({"messages": [{"role": "user", "content": [image]}]}) <= 101_000
    assert weight({"system": "x" * 1000, "messages": ["x" * 1000]}) >= 2000
    assert weight({}) == 0


LONG = "word " * 8000


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (f'"data":"{"A" * 2000}="', f'"data":"{"A" * 2000}="'),
        (f'{LONG}"data":"{"A" * 2000}=="', f'{LONG}"data":"… (2,002 characters)"'),
        (f'{LONG}"data":"{"A" * 1000}"', f'{LONG}"data":"{"A" * 1000}"'),
        (f"{LONG}eyJhbGciOi.{'A' * 2000}.{'B' * 43}", f"{LONG}eyJhbGciOi.{'A' * 2000}.{'B' * 43}"),
        (LONG + "wörter" * 2000, LONG + "wörter" * 2000),
    ],
    ids=["short", "base64", "a word", "a token", "a language without spaces"],
)
def test_of_a_long_prompt_what_nobody_reads_is_left_out(document, expected):
    assert readable(document) == expected
