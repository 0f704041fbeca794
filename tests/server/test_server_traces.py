"""Traces: who may read them, and that the tree holds every event once, whatever the parents say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_helpers import Api, event

from lumiqtrace.server.storage.base import StoredSpan
from lumiqtrace.server.traces import tree, tree_json


def span(number: int, span_id: str, parent: str | None) -> StoredSpan:
    return StoredSpan(span_id, parent, json.dumps({"n": number, "id": span_id}).encode())


def numbered(*pairs: tuple[str, str | None]) -> list[StoredSpan]:
    return [span(number, *pair) for number, pair in enumerate(pairs)]


def shape(spans: list[StoredSpan]) -> Any:
    """The tree as nested `[n, children]` lists."""

    def reduced(nodes: list[dict[str, Any]]) -> list[Any]:
        return [[node["n"], reduced(node["children"])] for node in nodes]

    return reduced(json.loads(b"".join(tree_json(spans))))


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        (numbered(), []),
        (numbered(("a", None), ("b", "a"), ("c", "a"), ("d", "b")), [[0, [[1, [[3, []]]], [2, []]]]]),
        (numbered(("b", "a"), ("a", None)), [[1, [[0, []]]]]),
        (numbered(("a", "never sent")), [[0, []]]),
        (numbered(("a", "a")), [[0, []]]),
        (numbered(("a", "b"), ("b", "a")), [[0, [[1, []]]]]),
        (numbered(("tail", "y"), ("x", "y"), ("y", "x")), [[1, [[2, [[0, []]]]]]]),
        (numbered(("a", None), ("a", None), ("b", "a")), [[0, [[2, []]]], [1, []]]),
        (numbered(("a", None), ("a", "a")), [[0, [[1, []]]]]),
    ],
    ids=[
        "none",
        "plain",
        "late parent",
        "orphan",
        "own parent",
        "two-cycle",
        "tail",
        "same id",
        "child of its id",
    ],
)
def test_trees(spans: list[StoredSpan], expected: Any) -> None:
    assert shape(spans) == expected


some_ids = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(some_ids, st.none() | some_ids), max_size=30))
def test_every_span_is_in_the_tree_once_and_below_its_parent(pairs: list[tuple[str, str | None]]) -> None:
    spans = numbered(*pairs)
    roots, children = tree(spans)
    assert sorted(roots + [child for below in children for child in below]) == list(range(len(spans)))
    for parent, below in enumerate(children):
        assert below == sorted(below)
        assert all(spans[child].parent_span_id == spans[parent].span_id for child in below)
    reached, pending = set(), list(roots)
    while pending:
        reached.add(pending[-1])
        pending += children[pending.pop()]
    assert reached == set(range(len(spans)))


@given(st.lists(st.tuples(some_ids, st.none() | some_ids), max_size=30))
def test_a_span_is_a_root_only_for_a_reason(pairs: list[tuple[str, str | None]]) -> None:
    spans = numbered(*pairs)
    roots, _ = tree(spans)
    first = {each.span_id: number for number, each in reversed(list(enumerate(spans)))}
    for root in roots:
        at: int | None = root
        climbed: set[int] = set()
        while at is not None and at not in climbed:
            climbed.add(at)
            parent = spans[at].parent_span_id
            at = None if parent is None else first.get(parent)
        # Its parent is missing, or climbing from it comes back to it.
        assert at == root or (at is None and len(climbed) == 1)


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_a_chain_of_any_depth_is_written_whole(depth: int) -> None:
    spans = numbered(*[(f"s{n}", f"s{n - 1}" if n else None) for n in range(depth)])
    text = b"".join(tree_json(spans))
    order = [int(number) for number in re.findall(rb'"n": (\d+)', text)]
    assert order == list(range(depth))
    assert text.endswith(b'"children":[' + b"]}" * depth + b"]")


def test_a_chain_of_five_thousand_is_answered(api: Api) -> None:
    chain = [event(span_id=f"s{n}", parent_span_id=f"s{n - 1}") for n in range(5_000)]
    for start in range(0, len(chain), 100):
        assert api.send(*chain[start : start + 100]).status_code == 202
    answer = api.get("trace-abc")
    assert answer.status_code == 200
    assert answer.text.endswith("]}" * 5_000 + "]")


def test_children_are_in_the_order_of_their_times_not_of_their_coming(api: Api) -> None:
    times = {
        "late": "2026-04-20T10:00:02Z",
        "first": "2026-04-20T12:00:00.5+02:00",
        "second": "2026-04-20T10:00:01Z",
    }
    api.send(event(span_id="root"))
    for name, time in times.items():
        api.send(event(span_id=name, parent_span_id="root", timestamp=time))
    [root] = api.get("trace-abc").json()
    assert [child["span_id"] for child in root["children"]] == ["first", "second", "late"]
    assert root["children"][0]["timestamp"] == times["first"]


def test_an_orphan_is_a_root_and_keeps_the_parent_it_named(api: Api) -> None:
    api.send(event(parent_span_id="elsewhere"))
    [root] = api.get("trace-abc").json()
    assert root["parent_span_id"] == "elsewhere"
    assert root["children"] == []


def test_a_token_reads_its_own_project_only(api: Api, other: Api) -> None:
    other.send(event())
    foreign = api.get("trace-abc", project_id=other.credentials.project_id)
    assert (foreign.status_code, foreign.json()) == (403, {"error": "Not a member of this organization"})
    invented = api.get("trace-abc", project_id="proj_000000000000")
    assert (invented.status_code, invented.json()) == (foreign.status_code, foreign.json())
    absent = api.get("trace-abc")
    assert (absent.status_code, absent.json()) == (404, {"error": "Trace not found"})
    assert other.get("trace-abc").status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer nonsense", "Basic {token}", "{token}", "Bearer {key}"]
)
def test_without_a_token_nothing_is_read(api: Api, header: str | None) -> None:
    secrets = {"token": api.credentials.read_token, "key": api.credentials.api_key}
    headers = {} if header is None else {"authorization": header.format(**secrets)}
    query = {"projectId": api.credentials.project_id}
    answer = api.http.get("/v1/traces/trace-abc", params=query, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Not authenticated"})
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_project_must_be_named(api: Api) -> None:
    headers = {"authorization": f"bearer {api.credentials.read_token}"}
    answer = api.http.get("/v1/traces/trace-abc", headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"error": "projectId: required in the query"})
