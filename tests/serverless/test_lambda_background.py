"""`background=True`: the answer leaves first, and the sandbox waits for the flush, whatever becomes of that."""

from __future__ import annotations

import signal
import threading

import pytest
from backend import Answer
from lambda_sandbox import invocations, sandbox, serving
from tcp_proxy import proxied

from lumiqtrace.integrations import aws_lambda

HANDLER = """
@traced_handler(flush_timeout=20, background=True)
def handler(event, context):
    work()
    if event == "raise":
        raise ValueError("no")
    return event
"""


def test_the_answer_is_posted_before_the_flush_and_the_freeze_waits_for_it(tmp_path, backend):
    arrived, answered = threading.Event(), threading.Event()

    def slowly(_request):
        arrived.set()
        # Not answered before the response is posted: with a flush before it, this would wait in vain.
        assert answered.wait(10)
        box.api.note("delivered")
        return Answer()

    backend.answer = slowly
    with sandbox(tmp_path, HANDLER, backend.url, freezes=True) as box:

        def listen():
            box.api.wait_for(lambda: "response" in box.api.timeline)
            answered.set()

        listener = threading.Thread(target=listen)
        listener.start()
        assert box.invoke(1).json == 1
        listener.join()
        assert len(backend.events) == 2
        after = box.api.timeline[box.api.timeline.index("response") :]
        assert after.index("delivered") < after.index("extension next")


def test_every_invocation_is_delivered_before_its_freeze(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url, freezes=True) as box:
        for number, event in enumerate([1, "raise", {"a": "ü"}, 4], start=1):
            answer = box.invoke(event)
            assert answer.kind == ("error" if event == "raise" else "response")
            assert len(backend.events) == 2 * number
        assert box.api.timeline[0] == "register 200"
        assert box.api.timeline.count("extension next") == 5
    assert [event["status"] for event in invocations(backend)] == ["success", "error", "success", "success"]


def test_an_answer_that_takes_long_to_be_written_is_posted_before_the_flush_too(tmp_path, backend):
    code = """
    from awslambdaric import lambda_runtime_client as runtime
    class Marshaller(runtime.LambdaMarshaller):
        def marshal_response(self, response):
            time.sleep(0.2)
            return super().marshal_response(response)
    runtime.LambdaRuntimeClient.marshaller = Marshaller()
    @traced_handler(flush_timeout=20, background=True)
    def handler(event, context):
        work()
        return event
    """
    answered = []
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        backend.answer = lambda _: (answered.append(box.api.timeline.count("response")), Answer())[1]
        for number in (1, 2, 3):
            assert box.invoke(number).json == number
    assert answered == [1, 2, 3]


def test_next_is_asked_again_after_an_event_that_cannot_be_read(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url, freezes=True) as box:
        box.api.wait_for(box.api.is_idle)
        box.api.told = {"deadlineMs": "soon"}
        assert box.invoke(1).json == 1
        box.api.told = {}
        assert box.invoke(2).json == 2
        assert len(invocations(backend)) == 2


def test_next_is_asked_again_whatever_the_flush_does(tmp_path, backend):
    code = """
    state = {"left": 2}
    @traced_handler(flush_timeout=0.3, background=True)
    def handler(event, context):
        work()
        client = lumiqtrace.get_client()
        usual = type(client).flush
        def hang(timeout=None):
            threading.Event().wait(3600)
        def fail(timeout=None):
            raise OSError("no flush")
        client.flush = {"hang": hang, "fail": fail}.get(event, lambda timeout=None: usual(client, timeout))
        return event
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        for event in ("fail", "fine", "hang", "after"):
            assert box.invoke(event).json == event
        assert box.api.timeline.count("extension next") == 5
        assert [event["status"] for event in invocations(backend)] == ["success", "success"]


def test_next_is_asked_again_after_an_error(tmp_path, backend):
    with sandbox(tmp_path, HANDLER, backend.url, freezes=True) as box:
        box.api.wait_for(box.api.is_idle)
        box.api.failures = 2
        for number in (1, 2):
            assert box.invoke(number).json == number
            assert len(backend.events) == 2 * number
        assert box.api.failures == 0


def test_a_backend_that_swallows_everything_holds_the_sandbox_for_a_bounded_time(tmp_path, backend):
    code = HANDLER.replace("=20", "=0.5")
    with proxied(backend.url) as way, sandbox(tmp_path, code, way.url, freezes=True) as box:
        way.swallows = True
        for number in (1, 2):
            assert box.invoke(number).json == number


def test_a_handler_that_is_not_ours_is_not_waited_for(tmp_path, backend):
    code = """
    @traced_handler(flush_timeout=20, background=True)
    def other(event, context):
        pass
    def handler(event, context):
        if event == "late":
            time.sleep(1.5)
            return other(event, context)
        return event
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        assert box.invoke(1).json == 1
        assert box.invoke("late").json is None
        # The extension had let this one go; the handler flushed for itself.
        assert len(invocations(backend)) == 1


# Whoever waits for a handler that never tells waits in vain: as long as a test does, and longer.
IMPATIENT = """
extension = __import__("lumiqtrace.integrations._extension", fromlist=["x"])
extension.PATIENCE = 3600
"""


@pytest.mark.parametrize(
    "handlers",
    [
        "@traced_handler(background=True)\ndef other(event, context): ...\n@traced_handler(flush_timeout=20)\n",
        "@traced_handler(flush_timeout=20)\n@traced_handler(background=True)\n",
    ],
    ids=["beside", "above"],
)
def test_a_handler_without_it_is_not_waited_for(handlers, tmp_path, backend):
    code = IMPATIENT + handlers + "def handler(event, context):\n    work()\n"
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        for number in (1, 2):
            assert box.invoke(number, seconds=300.0).kind == "response"
            assert len(backend.events) == 2 * number


def test_each_handler_has_its_own_limit(tmp_path, backend):
    code = """
    @traced_handler(flush_timeout=0.0, background=True)
    def other(event, context):
        pass
    @traced_handler(flush_timeout=20, background=True)
    def handler(event, context):
        work()
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        box.invoke()
        assert len(backend.events) == 2


def test_a_call_further_out_that_flushes_leaves_the_extension_nothing_to_wait_for(tmp_path, backend):
    code = """
    from lumiqtrace.integrations.serverless import flush_on_return
    @flush_on_return
    @traced_handler(flush_timeout=20, background=True)
    def handler(event, context):
        work()
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        for number in (1, 2):
            # With a deadline this far, waiting for it would be waiting for too long.
            assert box.invoke(number, seconds=300.0).kind == "response"
            assert len(backend.requests) == number


def test_a_handlers_forked_child_does_not_touch_the_extension(tmp_path, backend):
    code = """
    extended = __import__("lumiqtrace.integrations.aws_lambda", fromlist=["x"])
    @traced_handler(flush_timeout=20, background=True)
    def handler(event, context):
        with extended._registration[1]._changed:  # as the extension's thread may hold it at the fork
            child = os.fork()
            if not child:
                os._exit(0 if extended._registration[1].hold("r", 1.0) is False else 1)
        return os.waitpid(child, 0)[1]
    """
    with sandbox(tmp_path, code, backend.url, freezes=True) as box:
        assert box.invoke().json == 0
        assert len(invocations(backend)) == 1


def test_a_refused_registration_falls_back_to_flushing_before_the_answer(tmp_path, backend):
    with serving() as api:
        api.registration = 403
        with sandbox(tmp_path, HANDLER, backend.url, api=api, freezes=True) as box:
            for number in (1, 2):
                assert box.invoke(number).json == number
                assert len(backend.events) == 2 * number
            assert api.timeline[0] == "register 403"
            printed = box.output()
    assert printed.count("lumiqtrace") == 1
    assert "[INFO]" in printed
    assert "did not take the registration" in printed


def test_a_registration_that_is_answered_late_holds_from_then_on(tmp_path, backend):
    with serving() as api:
        api.answers_registrations.clear()
        with sandbox(tmp_path, HANDLER, backend.url, api=api, freezes=True) as box:
            api.wait_for(lambda: "runtime next" in api.timeline)
            api.answers_registrations.set()
            for number in (1, 2):
                assert box.invoke(number).json == number
                assert len(backend.events) == 2 * number
            assert api.timeline.count("extension next") == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("AWS_LAMBDA_MAX_CONCURRENCY", "2")],
)
def test_snapstart_and_managed_instances_flush_before_the_answer(
    name, value, monkeypatch, caplog, backend, client
):
    monkeypatch.setattr(aws_lambda, "_registration", None)
    monkeypatch.setenv(name, value)
    caplog.set_level("INFO", "lumiqtrace")
    with serving() as api:
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", api.address)
        for number in (1, 2):
            handler = aws_lambda.traced_handler(background=True)(lambda event, context: event)
            assert handler(number, None) == number
            assert len(backend.events) == number
        assert api.timeline == []
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_sigterm_delivers_what_waits(tmp_path, backend):
    """With an extension the service sends one; from Python 3.12 on the runtime can hear it."""
    code = """
    @traced_handler(flush_timeout=0.0, background=True)
    def handler(event, context):
        work()
    """
    with sandbox(tmp_path, code, backend.url, AWS_EXECUTION_ENV="AWS_Lambda_python3.12") as box:
        box.invoke()
        box.api.wait_for(box.api.is_idle)
        assert backend.events == []
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(20) == -signal.SIGTERM
    assert len(backend.events) == 2
