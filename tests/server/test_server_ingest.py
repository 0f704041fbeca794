"""`POST /v1/ingest` as its specification says, and what it refuses."""

from __future__ import annotations

import gzip
import json
import socket
import statistics
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server_helpers import NDJSON, Api, connected, event, ndjson, server_process

from lumiqtrace.server import running

# The example of the ingest page, byte for byte.
EXAMPLE = (
    b'{"event_id":"550e8400-e29b-41d4-a716-446655440001","trace_id":"trace-abc","span_id":"span-001",'
    b'"timestamp":"2026-04-20T10:00:00.000Z","provider":"openai","model":"gpt-4o","operation":"chat",'
    b'"latency_ms":843,"input_tokens":512,"output_tokens":128,"cost_usd":0.0034,"status":"success",'
    b'"stream":false,"environment":"production","sdk_version":"1.4.2"}\n'
    b'{"event_id":"550e8400-e29b-41d4-a716-446655440002","trace_id":"trace-abc","span_id":"span-002",'
    b'"parent_span_id":"span-001","timestamp":"2026-04-20T10:00:01.200Z","provider":"openai",'
    b'"model":"text-embedding-3-small","operation":"embed","latency_ms":120,"input_tokens":64,'
    b'"output_tokens":0,"cost_usd":0.000013,"status":"success","stream":false,'
    b'"environment":"production","sdk_version":"1.4.2"}'
)
GZIP = {"content-encoding": "gzip"}
MIB = 1024 * 1024


def test_the_documented_example_comes_back_as_the_documented_tree(api: Api) -> None:
    answer = api.post(gzip.compress(EXAMPLE), GZIP)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2})

    root, child = (json.loads(line) for line in EXAMPLE.splitlines())
    tree = api.get("trace-abc")
    assert tree.status_code == 200
    assert tree.headers["content-type"] == "application/json"
    assert tree.json() == [root | {"parent_span_id": None, "children": [child | {"children": []}]}]


def test_the_same_batch_twice_is_accepted_twice_and_stored_once(api: Api) -> None:
    for _ in range(2):
        assert api.post(gzip.compress(EXAMPLE), GZIP).json() == {"accepted": 2}
    assert len(api.spans()) == 2


def test_one_uuid_in_two_spellings_is_one_event(api: Api) -> None:
    event_id = uuid.uuid4()
    answer = api.send(event(event_id=str(event_id)), event(event_id=event_id.hex.upper()))
    assert answer.json() == {"accepted": 2}
    assert len(api.spans()) == 1


def test_another_projects_event_id_does_not_shadow_ours(api: Api, other: Api) -> None:
    theirs, ours = event(model="theirs"), event(model="ours")
    ours["event_id"] = theirs["event_id"]
    other.send(theirs)
    api.send(ours)
    assert [span["model"] for span in other.spans()] == ["theirs"]
    assert [span["model"] for span in api.spans()] == ["ours"]


def test_a_hundred_events_are_taken_and_one_more_is_refused_before_any_is_decoded(api: Api) -> None:
    assert api.send(*[event() for _ in range(100)]).json() == {"accepted": 100}
    answer = api.post(b"{not json\n\n" * 101)
    assert (answer.status_code, answer.json()) == (400, {"error": "Max 100 events per batch"})


def test_blank_lines_are_no_events_but_count_as_lines(api: Api) -> None:
    body = b"\n \r\n" + ndjson([event()]) + b"\r\n\t\nnonsense\n\n"
    answer = api.post(body)
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert [error["line"] for error in answer.json()["errors"]] == [5]


@pytest.mark.parametrize("key", [None, "", "lqt_", "lqt_" + "0" * 64, "k=y", "x" * 10_000])
def test_a_key_that_opens_nothing_is_401_whatever_it_looks_like(api: Api, key: str | None) -> None:
    headers = [*NDJSON.items()] if key is None else [*NDJSON.items(), ("x-api-key", key)]
    answer = api.http.post("/v1/ingest", content=EXAMPLE, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid API key"})


def test_a_read_token_is_no_key(api: Api) -> None:
    answer = api.post(EXAMPLE, {"x-api-key": api.credentials.read_token})
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid API key"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"content-type": "application/x-ndjson; charset=utf-8"}, 202),
        ({"content-type": "Application/X-NDJSON"}, 202),
        ({"content-encoding": "identity"}, 202),
        ({"content-type": "application/json"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "br"}, 415),
        ({"content-encoding": "gzip, gzip"}, 415),
        ({"content-encoding": "gzip, identity"}, 415),
    ],
)
def test_only_ndjson_plain_or_gzip_is_read(api: Api, headers: dict[str, str], status: int) -> None:
    answer = api.post(ndjson([event()]), headers)
    assert answer.status_code == status, answer.text
    assert ("error" in answer.json()) == (status == 415)


def test_a_body_without_a_type_and_one_encoded_twice_by_two_headers_are_415(api: Api) -> None:
    key = ("x-api-key", api.credentials.api_key)
    untyped = api.http.post("/v1/ingest", content=EXAMPLE, headers=[key])
    assert untyped.status_code == 415
    twice = [key, *NDJSON.items(), ("content-encoding", "gzip"), ("content-encoding", "gzip")]
    assert api.http.post("/v1/ingest", content=EXAMPLE, headers=twice).status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"", b"not gzip", gzip.compress(EXAMPLE)[:-9], gzip.compress(EXAMPLE) * 2, zlib.compress(EXAMPLE)],
    ids=["empty", "plain", "truncated", "two members", "zlib"],
)
def test_what_is_not_one_whole_gzip_stream_is_400(api: Api, body: bytes) -> None:
    answer = api.post(body, GZIP)
    assert answer.status_code == 400
    assert "gzip" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"\n \n\r\n"])
def test_a_body_without_events_is_400(api: Api, body: bytes) -> None:
    answer = api.post(body)
    assert (answer.status_code, answer.json()) == (400, {"error": "The body holds no events", "errors": []})


def test_bad_lines_do_not_sink_the_good_ones(api: Api) -> None:
    lines = [ndjson([event()]) for _ in range(100)]
    broken = event()
    del broken["latency_ms"]
    lines[6] = ndjson([broken])
    answer = api.post(b"\n".join(lines))
    expected = {"accepted": 99, "errors": [{"line": 7, "error": "latency_ms: required"}]}
    assert (answer.status_code, answer.json()) == (202, expected)
    assert len(api.spans()) == 99


def test_no_good_line_at_all_is_400_with_every_reason(api: Api) -> None:
    answer = api.post(b"[]\n{}")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "No line is a valid event",
        "errors": [
            {"line": 1, "error": "not a JSON object"},
            {"line": 2, "error": "event_id: required"},
        ],
    }


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(b" " * MIB) for _ in range(size // MIB)]) + packer.flush()


def test_a_gzip_bomb_is_413_and_costs_little_memory(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, connected(server.url, server.credentials()) as api:
        assert api.send(event()).status_code == 202
        before = server.peak_memory()
        for _ in range(3):
            answer = api.post(bomb(200 * MIB), GZIP)
            assert answer.status_code == 413
            assert answer.json() == {"error": "The uncompressed body is larger than 20 MiB"}
        assert server.peak_memory() - before < 64 * MIB
        assert api.send(event()).status_code == 202


@pytest.mark.parametrize(("size", "headers"), [(20 * MIB, {}), (5 * MIB, GZIP)], ids=["plain", "gzip"])
def test_a_body_with_no_length_given_is_stopped_at_the_limit(
    api: Api, size: int, headers: dict[str, str]
) -> None:
    pieces = [b"\0" * MIB] * (size // MIB) + [b"\0"]
    answer = api.post(iter(pieces), headers)
    assert "transfer-encoding" in answer.request.headers
    assert answer.status_code == 413
    assert f"larger than {size // MIB} MiB" in answer.json()["error"]


def test_a_length_over_the_limit_is_refused_before_the_body_comes(api: Api) -> None:
    where = urlsplit(str(api.http.base_url))
    head = (
        f"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nx-api-key: {api.credentials.api_key}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {20 * MIB + 1}\r\n\r\n"
    )
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_stops_coming_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumiqtrace.server.body._READ_SECONDS", 0.1)
    with running(tmp_path / "data") as server:
        where = urlsplit(server.url)
        head = (
            f"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nx-api-key: {server.credentials.api_key}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n{"
        )
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_eight_threads_at_once_lose_nothing(api: Api) -> None:
    batches = [[event(trace_id=f"thread-{number % 8}") for _ in range(20)] for number in range(80)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda batch: api.send(*batch), batches))
    assert [answer.json() for answer in answers] == [{"accepted": 20}] * 80
    stored = {span["event_id"] for number in range(8) for span in api.spans(f"thread-{number}")}
    assert stored == {each["event_id"] for batch in batches for each in batch}


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/v1/ingest", 405, "Method Not Allowed"),
        ("POST", "/v1/ingest/", 404, "Not Found"),
        ("DELETE", "/v1/traces/x", 405, "Method Not Allowed"),
    ],
)
def test_routes_that_are_not_there_answer_in_json(
    api: Api, method: str, path: str, status: int, error: str
) -> None:
    answer = api.http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_an_answer_does_not_wait_for_an_acknowledgement(api: Api) -> None:
    # With Nagle's algorithm on, each answer but the first few takes 40 ms more.
    seconds = [api.send(event()).elapsed.total_seconds() for _ in range(31)]
    assert statistics.median(seconds) < 0.03


def test_health(api: Api) -> None:
    answer = api.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "server" not in answer.headers
