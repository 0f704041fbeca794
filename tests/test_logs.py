"""The filter puts the trace's id on every record, and keeps what the application put there."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import queue

import pytest

import lumiqtrace


@pytest.fixture
def log():
    """A logger, and what its handler has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(lumiqtrace_id)s %(message)s"))
    handler.addFilter(lumiqtrace.LumiqtraceFilter())
    logger = logging.getLogger("tests.logs")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)


def test_every_record_leads_to_its_trace(client, log):
    logger, lines = log
    logger.info("before")
    with lumiqtrace.span("root") as root:
        logger.info("inside")
        logger.getChild("child").info("below")
    assert lines() == ["- before", f"{root.trace_id} inside", f"{root.trace_id} below"]


def test_what_extra_set_is_kept(client, log):
    logger, lines = log
    with lumiqtrace.span("root"):
        logger.info("said", extra={"lumiqtrace_id": "abc"})
    logger.info("said none", extra={"lumiqtrace_id": lumiqtrace.get_current_trace_id()})
    assert lines() == ["abc said", "None said none"]


def test_without_a_client_there_is_a_dash(log):
    logger, lines = log
    with lumiqtrace.span("root"):
        logger.info("off")
    assert lines() == ["- off"]


def test_it_is_configured_as_other_filters_are(client):
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"trace": {"()": "lumiqtrace.LumiqtraceFilter", "name": "tests", "outside": None}},
            "handlers": {"null": {"class": "logging.NullHandler", "filters": ["trace"]}},
            "loggers": {"tests.configured": {"handlers": ["null"]}},
        }
    )
    (handler,) = logging.getLogger("tests.configured").handlers
    record = logging.makeLogRecord({"name": "tests.configured"})
    assert handler.filter(record)
    assert record.lumiqtrace_id is None
    assert not handler.filter(logging.makeLogRecord({"name": "other"}))


def test_on_a_queue_handler_it_sees_the_trace_of_the_writer(client):
    records = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    handler.addFilter(lumiqtrace.LumiqtraceFilter())
    with lumiqtrace.span("root") as root:
        handler.handle(logging.makeLogRecord({"msg": "queued"}))
    assert records.get().lumiqtrace_id == root.trace_id
