"""SnapStart: many sandboxes begin where one snapshot was taken, and share nothing that is one sandbox's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

from backend import KEY, Answer
from lambda_sandbox import sandbox

import lumiqtrace
from lumiqtrace.integrations import _snapstart

HANDLER = """
work("at initialisation")
@traced_handler(flush_timeout=20)
def handler(event, context):
    work()
    return sorted(thread.name for thread in threading.enumerate())
"""


def test_what_was_recorded_before_the_snapshot_is_delivered_before_it(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start") as box:
        box.api.wait_for(lambda: "restore next" in box.api.timeline)
        assert [event["name"] for event in backend.events] == ["at initialisation"]
        assert box.invoke().kind == "response"
        assert [event["name"] for event in backend.events[1:]] == ["work", "checkout"]
        assert box.api.timeline[0] == "restore next"
        assert backend.events[2]["tags"]["faas.coldstart"] == "true"


def test_the_exporters_thread_and_connection_are_not_in_the_snapshot(tmp_path, backend):
    code = """
    import snapshot_restore_py
    found = []
    snapshot_restore_py.register_after_restore(
        lambda: found.append([thread.name for thread in threading.enumerate() if "lumiq" in thread.name])
    )
    """ + textwrap.indent(HANDLER, "    ").replace(
        "return sorted(thread.name for thread in threading.enumerate())", "return found"
    )
    with sandbox(tmp_path, code, backend.url, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start") as box:
        assert box.invoke().json == [[]]


def test_two_sandboxes_of_one_snapshot_make_different_ids(backend):
    code = f"""
    import os
    os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] = "snap-start"
    from awslambdaric import lambda_runtime_hooks_runner as hooks
    import lumiqtrace
    from lumiqtrace.integrations.aws_lambda import traced_handler
    lumiqtrace.init({KEY!r}, base_url={backend.url!r})
    @traced_handler(flush_timeout=20)
    def handler(event, context):
        with lumiqtrace.span("work"):
            pass
    handler("before", None)
    hooks.run_before_snapshot()
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            hooks.run_after_restore()
            handler("after", None)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=50, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(backend.events) == 6
    for name in ("event_id", "span_id"):
        assert len({event[name] for event in backend.events}) == 6
    assert len({event["trace_id"] for event in backend.events}) == 3


def test_what_is_recorded_meanwhile_is_delivered(backend):
    client = lumiqtrace.init(KEY, base_url=backend.url, flush_interval=600)
    enough = threading.Event()

    def record():
        while not enough.is_set():
            with lumiqtrace.span("meanwhile"):
                pass
            enough.wait(0.0002)

    thread = threading.Thread(target=record)
    thread.start()
    for number in range(10):
        backend.wait_for(lambda number=number: client.stats().recorded > 100 * number)
        _snapstart._let_go()
    enough.set()
    thread.join()
    assert lumiqtrace.flush(20)
    stats = client.stats()
    assert (stats.sent, stats.dropped) == (stats.recorded, {})
    assert len({event["span_id"] for event in backend.events}) == stats.recorded


def test_what_cannot_be_delivered_is_kept_with_its_ids_and_without_threads(backend, monkeypatch):
    monkeypatch.setattr(_snapstart, "FLUSH_SECONDS", 0.2)
    backend.answer = lambda _: Answer(503)
    client = lumiqtrace.init(KEY, base_url=backend.url, flush_interval=600)
    with lumiqtrace.span("at initialisation"):
        pass
    _snapstart._let_go()
    assert "lumiqtrace-exporter" not in {thread.name for thread in threading.enumerate()}
    assert client.stats().queued == 1
    backend.answer = lambda _: Answer()
    assert lumiqtrace.flush(20)
    tried, *_, delivered = backend.requests
    assert tried.events == delivered.events
    assert len(backend.events) == 1


def test_a_trace_that_is_held_stays_held(backend):
    lumiqtrace.init(KEY, base_url=backend.url, sample_rate=1e-9, sample_errors=True)
    outer = lumiqtrace.span("warm up").begin()
    with lumiqtrace.span("inside"):
        pass
    _snapstart._let_go()
    outer.end(ValueError("no"))
    assert lumiqtrace.flush(20)
    assert [event["name"] for event in backend.events] == ["inside", "warm up"]
