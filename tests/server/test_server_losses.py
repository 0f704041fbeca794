"""What senders say they lost: taken with their events, kept as a maximum, given back, and in the log."""

from __future__ import annotations

import gzip
import json
import logging
import sqlite3
import threading
import uuid
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_helpers import Api, connected, event, ndjson

import lumiqtrace
from lumiqtrace._delivery.transport import HttpTransport, TransportError
from lumiqtrace._event import Event
from lumiqtrace.server import SqliteStore, running
from lumiqtrace.server.loss_log import LossLog, sentence
from lumiqtrace.server.losses import MAX_COUNT, MAX_REASONS, MAX_REPORT_BYTES, parse_report
from lumiqtrace.server.storage.base import LossReport, NewEvent, Rise
from lumiqtrace.server.storage.losses import MAX_ROWS
from lumiqtrace.testing import FakeClock

WAIT = 20
PROCESS = "0123456789abcdef" * 2


def report(dropped: dict[str, Any], process: str = PROCESS, **names: Any) -> str:
    told = {"process": process, "service": "checkout", "environment": "production"} | names
    return json.dumps(told | {"dropped": dropped}, separators=(",", ":"))


def send(api: Api, header: str | bytes, *events: dict[str, Any]) -> Any:
    body = gzip.compress(ndjson(events or [event()]))
    headers: dict[str, Any] = {"content-encoding": "gzip", "x-lumiqtrace-losses": header}
    return api.post(body, headers)


def ask(api: Api, token: str | None = None, project: str | None = None) -> Any:
    return api.http.get(
        "/v1/losses",
        params={"projectId": project or api.credentials.project_id},
        headers={"authorization": f"Bearer {token or api.credentials.read_token}"},
    )


def losses(api: Api) -> list[dict[str, Any]]:
    answer = ask(api)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["losses"]
    found: list[dict[str, Any]] = answer.json()["losses"]
    return found


def counts(api: Api) -> dict[tuple[Any, ...], tuple[int, int]]:
    return {
        (loss["service"], loss["environment"], loss["reason"]): (loss["events"], loss["processes"])
        for loss in losses(api)
    }


def test_nothing_reported_is_an_empty_list(api: Api) -> None:
    assert api.send(event()).status_code == 202
    assert losses(api) == []


def test_a_report_is_stored_with_its_events_and_given_back(api: Api) -> None:
    answer = send(api, report({"queue_full": 12, "unreadable": 1}))
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    first, second = sorted(losses(api), key=lambda loss: loss["events"], reverse=True)
    seen = first.pop("firstSeen"), first.pop("lastSeen")
    assert first == {
        "service": "checkout",
        "environment": "production",
        "reason": "queue_full",
        "events": 12,
        "processes": 1,
    }
    assert (second["reason"], second["events"]) == ("unreadable", 1)
    assert all(moment.endswith("Z") and datetime.fromisoformat(moment) for moment in seen)


def test_counts_are_cumulative_so_a_repeated_or_late_report_changes_nothing(api: Api) -> None:
    for count in (5, 12, 12, 7):
        send(api, report({"queue_full": count}))
    assert counts(api) == {("checkout", "production", "queue_full"): (12, 1)}
    loss = losses(api)[0]
    assert loss["firstSeen"] < loss["lastSeen"]


def test_processes_of_a_service_are_added_up(api: Api) -> None:
    for number in range(3):
        send(api, report({"queue_full": 10 + number}, process=f"{number:032x}"))
    send(api, report({"queue_full": 1}, process="f" * 32, environment="staging"))
    send(api, report({"queue_full": 2}, process="e" * 32, service=None, environment=None))
    assert counts(api) == {
        ("checkout", "production", "queue_full"): (33, 3),
        ("checkout", "staging", "queue_full"): (1, 1),
        (None, None, "queue_full"): (2, 1),
    }


def test_another_project_sees_none_of_it(api: Api, other: Api) -> None:
    send(api, report({"queue_full": 12}))
    send(other, report({"queue_full": 3}))
    assert counts(api) == {("checkout", "production", "queue_full"): (12, 1)}
    assert counts(other) == {("checkout", "production", "queue_full"): (3, 1)}
    answer = ask(api, token=other.credentials.read_token)
    assert (answer.status_code, answer.json()) == (403, {"error": "Not a member of this organization"})
    assert ask(api, token=api.credentials.api_key).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        report({}),
        report({"queue_full": 0}),
        report({"queue_full": -1}),
        report({"queue_full": 2**48 + 1}),
        report({"queue_full": "12"}),
        report({"queue_full": True}),
        report({"queue_full": 1.5}),
        report({"": 1}),
        report({"x" * 65: 1}),
        report({"a\u001bb": 1}),
        report({str(number): 1 for number in range(17)}),
        report({"queue_full": 1}, process="x" * 32),
        report({"queue_full": 1}, process=PROCESS + "\\n"),
        report({"queue_full": 1}, process=PROCESS.upper()),
        report({"queue_full": 1}, service=5),
        report({"queue_full": 1}, service="s" * MAX_REPORT_BYTES),
        "[" * 1000,
        b'{"process": "\xff\xfe"}',
    ],
)
def test_a_report_that_cannot_be_read_harms_no_event(api: Api, header: str | bytes) -> None:
    answer = send(api, header)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert losses(api) == []


def test_what_a_client_of_ours_loses_is_what_the_server_says(api: Api) -> None:
    """Every event of these is either stored or counted, by the server alone."""
    down = threading.Event()

    def answered(config: lumiqtrace.LumiqConfig) -> Any:
        return Sometimes(HttpTransport(config), down)

    config = lumiqtrace.LumiqConfig(
        api_key=api.credentials.api_key, base_url=str(api.http.base_url).rstrip("/"), service="checkout",
        environment="staging", max_queue_events=10,
    )  # fmt: skip
    client = lumiqtrace.Client(config, answered)
    down.set()
    for number in range(50):
        client.record(Note(number))
    assert not client.flush(0.2)
    down.clear()
    client.flush(WAIT)
    client.record(Note(50))
    client.flush(WAIT)  # now the loss is known, whatever was on its way before
    lost = client.stats().dropped["queue_full"]
    client.shutdown(0)
    assert lost > 0
    assert counts(api) == {("checkout", "staging", "queue_full"): (lost, 1)}
    assert len(api.spans("notes")) + lost == 51


class Sometimes:
    """A transport that fails while `down` is set."""

    def __init__(self, real: HttpTransport, down: threading.Event) -> None:
        self.real = real
        self.down = down
        self.close = real.close

    def send(self, body: bytes, headers: Any, timeout: float) -> Any:
        if self.down.is_set():
            raise TransportError("down")
        return self.real.send(body, headers, timeout)


class Note:
    """A recording whose event is already there."""

    size = 100

    def __init__(self, number: int) -> None:
        self.number = number

    def event(self) -> Event:
        fields = event(trace_id="notes", name=str(self.number))
        return Event(**fields)


def test_a_name_is_made_fit_rather_than_the_report_lost(api: Api) -> None:
    send(api, report({"queue_full": 1}, service="s" * 300))
    send(api, report({"queue_full": 1}, process="f" * 32, service="a\n\u202eb", environment="\u001b"))
    assert counts(api) == {
        ("s" * 64, "production", "queue_full"): (1, 1),
        ("ab", None, "queue_full"): (1, 1),
    }


def test_a_name_may_hold_any_letters(api: Api) -> None:
    told = {"process": PROCESS, "service": "kaffé-日本", "dropped": {"queue_full": 1}}
    send(api, json.dumps(told, ensure_ascii=False).encode())
    assert [loss["service"] for loss in losses(api)] == ["kaffé-日本"]


@given(st.text())
def test_any_header_at_all_gives_a_report_or_none(header: str) -> None:
    assert parse_report(header) is None


@given(
    st.dictionaries(
        st.sampled_from(["queue_full", "rejected", "shutdown"]), st.integers(1, 2**48), min_size=1
    )
)
def test_what_a_sender_reports_is_what_is_read(dropped: dict[str, int]) -> None:
    assert parse_report(report(dropped)) == LossReport(PROCESS, "checkout", "production", dropped)


def test_a_duplicate_batch_still_reports(api: Api) -> None:
    same = event()
    for count in (1, 2):
        assert send(api, report({"queue_full": count}), same).status_code == 202
    assert counts(api) == {("checkout", "production", "queue_full"): (2, 1)}


def test_a_project_without_quota_left_can_still_say_what_it_lost(tmp_path: Path) -> None:
    with running(tmp_path, monthly_events=1) as server, connected(server.url, server.credentials) as api:
        assert send(api, report({"queue_full": 1}), event(), event()).status_code == 429
        assert counts(api) == {("checkout", "production", "queue_full"): (1, 1)}


def new_event() -> NewEvent:
    return NewEvent(uuid.uuid4().bytes, "t", "s", None, 0, b'{"x":1}')


def test_reports_survive_a_restart_and_an_older_file_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with closing(SqliteStore(path)) as store:
        store.write("p", [new_event()]).result(WAIT)
    with closing(sqlite3.connect(path)) as connection:  # what the first version left behind
        connection.execute("DROP TABLE losses")
        connection.execute("PRAGMA user_version=1")
    with closing(SqliteStore(path)) as store:
        assert store.losses("p") == []
        lost = LossReport(PROCESS, "checkout", None, {"queue_full": 4})
        store.write("p", [new_event()], losses=lost).result(WAIT)
    with closing(SqliteStore(path)) as store:
        assert [(loss.service, loss.events) for loss in store.losses("p")] == [("checkout", 4)]
        assert len(store.trace("p", "t")) == 2


def test_a_project_keeps_the_counts_that_were_reported_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.losses.MAX_ROWS", 10)
    with closing(SqliteStore(tmp_path / "events.db")) as store:
        store.write("q", [new_event()], losses=LossReport("a", None, None, {"r": 1})).result(WAIT)
        for number in range(25):
            lost = LossReport(f"{number:032x}", f"s{number}", None, {"r": 1})
            store.write("p", [new_event()], losses=lost).result(WAIT)
        assert [loss.service for loss in store.losses("p")] == [f"s{number}" for number in range(24, 14, -1)]
        assert len(store.losses("q")) == 1


def test_a_process_with_ever_new_reasons_has_no_more_room_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumiqtrace.server.storage.losses.MAX_ROWS", 10)
    with closing(SqliteStore(tmp_path / "events.db")) as store:
        for number in range(25):
            lost = LossReport(PROCESS, "checkout", None, {f"r{number}": 1})
            store.write("p", [new_event()], losses=lost).result(WAIT)
        assert [loss.reason for loss in store.losses("p")] == [f"r{number}" for number in range(24, 14, -1)]


def test_the_largest_counts_of_all_rows_can_be_added_up(tmp_path: Path) -> None:
    largest = {str(number): MAX_COUNT for number in range(MAX_REASONS)}
    path = tmp_path / "events.db"
    with closing(SqliteStore(path)) as store:
        store.write("p", [new_event()], losses=LossReport(PROCESS, "s", None, largest)).result(WAIT)
    with closing(sqlite3.connect(path)) as connection:  # rows for one reason, as many as a project may have
        connection.execute("UPDATE losses SET process = reason || process, reason = 'r'")
        columns = "project, process, reason, service, environment, events, first_seen, last_seen"
        chosen = columns.replace("process", "process || '-' || n")
        connection.execute(
            f"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {MAX_ROWS // MAX_REASONS - 1}) "
            f"INSERT INTO losses ({columns}) SELECT {chosen} FROM losses, t"
        )
        connection.commit()
    with closing(SqliteStore(path)) as store:
        [loss] = store.losses("p")
        assert (loss.processes, loss.events) == (MAX_ROWS, MAX_ROWS * MAX_COUNT)


def test_a_rise_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as server, connected(server.url, server.credentials) as api:
        with caplog.at_level(logging.WARNING, "lumiqtrace.server"):
            for count in (12, 12, 15):
                send(api, report({"queue_full": count}))
        lines = [record.getMessage() for record in caplog.records if "lost by" in record.getMessage()]
        project = server.credentials.project_id
        assert lines == [f"12 events lost by checkout (production): queue full, in project {project}"]


def test_what_was_held_back_is_in_the_next_line() -> None:
    said: list[str] = []
    clock = FakeClock()
    log = LossLog(said.append, clock)
    for pause, events in ((0, 1), (10, 2), (49, 3), (2, 4)):
        clock.advance(pause)
        log([Rise("p", None, None, "queue_full", events)])
    assert said == [
        "1 event lost by an unnamed service: queue full, in project p",
        "9 events lost by an unnamed service: queue full, in project p",
    ]


def test_the_log_remembers_no_causes_without_end() -> None:
    log = LossLog(lambda _line: None)
    log(Rise("p", f"s{number}", None, "r", 1) for number in range(5000))
    assert len(log._told) <= 1000


def test_a_large_number_is_readable() -> None:
    assert sentence(1234567, "a", "b", "queue_full") == "1,234,567 events lost by a (b): queue full"
