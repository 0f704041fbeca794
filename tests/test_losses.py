"""What was lost is told to the server, by reason, until it has heard it."""

from __future__ import annotations

import json
import os
import sys
import threading

import pytest
from backend import KEY
from hypothesis import given
from hypothesis import strategies as st
from test_exporter import Broken, Note, Wire, submit

import lumiqtrace
from lumiqtrace._config import LumiqConfig
from lumiqtrace._delivery.exporter import Exporter
from lumiqtrace._delivery.losses import LOSSES_HEADER, MAX_HEADER_BYTES, Losses, service_name
from lumiqtrace._delivery.transport import Reply
from lumiqtrace.server.losses import parse_report


class Heard(Wire):
    """Keeps the reports, None where a request had none."""

    def __init__(self, *replies):
        super().__init__(*replies)
        self.reports = []

    def send(self, body, headers, timeout):
        text = headers.get(LOSSES_HEADER)
        self.reports.append(text and json.loads(text))
        return super().send(body, headers, timeout)


@pytest.fixture
def exporters():
    made = []

    def make(transport, **options):
        options = {"losses": Losses("checkout", "staging"), "rand": lambda: 0.01, **options}
        exporter = Exporter(transport, **options)
        made.append(exporter)
        return exporter

    yield make
    for exporter in made:
        exporter.close(0)


def test_nothing_is_told_where_nothing_was_lost(exporters):
    wire = Heard()
    exporter = exporters(wire)
    submit(exporter, 3)
    assert exporter.flush(20)
    assert wire.reports == [None]


def test_a_loss_goes_with_the_next_batch_and_once(exporters):
    wire = Heard(Reply(404, {}), Reply(202, {}))
    exporter = exporters(wire)
    for number in range(3):
        submit(exporter, 1, start=number)
        exporter.flush(20)
    process = wire.reports[1]["process"]
    assert len(process) == 32
    report = {
        "process": process,
        "service": "checkout",
        "environment": "staging",
        "dropped": {"rejected": 1},
    }
    assert wire.reports == [None, report, None]


def test_a_report_is_repeated_until_a_batch_with_it_was_accepted(exporters):
    wire = Heard(Reply(404, {}), Reply(500, {}), Reply(503, {}), Reply(202, {}))
    exporter = exporters(wire)
    for number in range(3):
        submit(exporter, 1, start=number)
        exporter.flush(20)
    told = [report and report["dropped"] for report in wire.reports]
    assert told == [None, {"rejected": 1}, {"rejected": 1}, {"rejected": 1}, None]


def test_counts_are_those_of_the_whole_process(exporters):
    wire = Heard(Reply(404, {}), Reply(202, {}), Reply(404, {}), Reply(202, {}))
    exporter = exporters(wire)
    for number in range(4):
        submit(exporter, 1, start=number)
        exporter.flush(20)
    assert [report and report["dropped"] for report in wire.reports] == [
        None,
        {"rejected": 1},
        None,
        {"rejected": 2},
    ]


def test_reasons_are_those_of_the_statistics_without_what_nobody_wanted(exporters):
    release = threading.Event()
    wire = Heard(lambda _events: release.wait(20) and Reply(202, {}))
    exporter = exporters(wire, max_queue_events=100)
    exporter.submit(Broken(0))
    submit(exporter, 1)
    exporter.flush(0.2)
    submit(exporter, 300)
    release.set()
    exporter.flush(20)
    submit(exporter, 1)
    assert exporter.flush(20)
    told = next(report for report in reversed(wire.reports) if report)
    assert told["dropped"] == dict(exporter.stats().dropped)
    assert set(told["dropped"]) == {"queue_full", "unreadable"}


@given(st.text(max_size=300), st.text(max_size=300), st.dictionaries(st.sampled_from([
    "queue_full", "spool_full", "expired", "damaged", "rejected", "too_large", "redirected", "unreadable", "shutdown",
]), st.integers(1, 10**12), min_size=1))  # fmt: skip
def test_the_header_is_one_line_of_ascii_and_small(service, environment, dropped):
    line = Losses(service, environment).headers(dropped)[LOSSES_HEADER]
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= MAX_HEADER_BYTES
    assert json.loads(line)["dropped"] == dropped


def test_a_name_that_is_no_utf8_does_not_cost_the_report(monkeypatch):
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setattr(sys, "argv", [os.fsdecode(b"/srv/caf\xe9.py")])
    name = service_name(LumiqConfig(enabled=False))
    [line] = Losses(name, "\udcff").headers({"queue_full": 12}).values()
    read = parse_report(line)
    assert read is not None
    assert (read.service, read.environment, read.dropped) == ("caf?.py", "?", {"queue_full": 12})


def test_the_client_names_itself(backend):
    client = lumiqtrace.Client(
        LumiqConfig(api_key=KEY, base_url=backend.url, service="billing", environment="test")
    )
    client.record(Broken(0))
    client.flush(20)
    client.record(Note(1))
    client.flush(20)
    client.shutdown(0)
    report = json.loads(backend.requests[-1].headers[LOSSES_HEADER])
    assert (report["service"], report["environment"], report["dropped"]) == (
        "billing",
        "test",
        {"unreadable": 1},
    )


@pytest.mark.parametrize(
    ("variables", "script", "name"),
    [
        ({"OTEL_SERVICE_NAME": "shop", "K_SERVICE": "run"}, "app.py", "shop"),
        ({"K_SERVICE": "run", "AWS_LAMBDA_FUNCTION_NAME": "fn"}, "app.py", "run"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "fn"}, "app.py", "fn"),
        ({"OTEL_SERVICE_NAME": "  "}, "/srv/app.py", "app.py"),
        ({}, "/usr/lib/python3/uvicorn/__main__.py", "uvicorn"),
        ({}, "-c", "python"),
        ({}, "", "python"),
    ],
)
def test_the_name_of_a_service_that_was_given_none(monkeypatch, variables, script, name):
    for variable in ("OTEL_SERVICE_NAME", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", [script])
    assert service_name(LumiqConfig(enabled=False)) == name
    assert service_name(LumiqConfig(enabled=False, service="mine")) == "mine"


def test_the_copies_of_a_snapshot_tell_their_own_losses():
    original = Losses("checkout", "staging")
    told = json.loads(original.headers({"queue_full": 3})[LOSSES_HEADER])
    original.told({"queue_full": 3})
    original.renew()
    assert original.headers({"queue_full": 3}) == {}
    again = json.loads(original.headers({"queue_full": 5, "unreadable": 1})[LOSSES_HEADER])
    assert again["dropped"] == {"queue_full": 2, "unreadable": 1}
    assert again["process"] != told["process"]


def test_parking_renews_the_report(exporters):
    wire = Heard()
    exporter = exporters(wire)
    exporter.submit(Broken(0))
    submit(exporter, 1)
    exporter.flush(20)
    submit(exporter, 1)
    exporter.flush(20)
    exporter.park(20)
    exporter.submit(Broken(1))
    submit(exporter, 1)
    exporter.flush(20)
    submit(exporter, 1)
    exporter.flush(20)
    first, second = (report for report in wire.reports if report)
    assert first["dropped"] == second["dropped"] == {"unreadable": 1}
    assert first["process"] != second["process"]
