"""The end of a process and what can go wrong before it: threads that cannot start or die, a freeze, twice init."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time

import pytest
from backend import KEY, Answer
from emitting import SLACK, wait_for
from process_helpers import names, once, run, started

import lumiqtrace

ENDS = {
    "a handler that ran before ours": (0, """
import atexit
atexit.register(emit, "work")
"""),
    "a destructor": (0, """
class Late:
    def __del__(self): emit("too late")
keep = Late()
emit("work")
"""),
    "after shutdown": (0, """
emit("work")
assert lumiqtrace.shutdown()
emit("too late")
assert lumiqtrace.flush()
assert lumiqtrace.shutdown()
assert client.stats().recorded == 1, client.stats()
"""),
    "a daemon thread that goes on after us": (0, """
import threading
emit("work")
def hammer():
    while not client.closed: pass
    while True: emit("too late")
threading.Thread(target=hammer, daemon=True).start()
"""),
    "a daemon thread in the middle of a flush": (0, """
import threading
emit("work")
threading.Thread(target=lumiqtrace.flush, daemon=True).start()
"""),
    "a thread that the interpreter waits for": (0, """
import threading
threading.Timer(0.1, emit, ("work",)).start()
"""),
    "an open span": (0, """
emit("work")
left_open = lumiqtrace.span("never ends").begin()
"""),
    "an exit status": (9, """
import sys
emit("work")
sys.exit(9)
"""),
    "a generator that is left": (0, """
@lumiqtrace.observe_span
def work():
    yield 1
    yield 2
kept = work()
next(kept)
emit("work")
"""),
    "a reference cycle with the client": (0, """
client.me = client
emit("work")
del client
"""),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_the_end_is_quiet_keeps_its_status_and_delivers(backend, case):
    status, code = ENDS[case]
    assert run(code, backend, status=status) == ""
    found = set(once(backend))
    assert "work" in found
    assert found <= {"work", "never ends"}


def test_os_exit_is_obeyed_at_once(backend):
    run("import os\nemit('lost')\nos._exit(4)", backend, status=4)
    assert backend.events == []


# ---- threads -----------------------------------------------------------------------------------------

NO_THREADS = """
import threading
threading.stack_size(2**46)  # more than there is: the system itself refuses every new thread
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    raise SystemExit("a thread could be started")
for number in range(250): emit(number)
"""


@pytest.mark.parametrize("how", ["assert lumiqtrace.flush(20)", "assert lumiqtrace.shutdown(20)", ""])
def test_a_process_that_can_start_no_thread_delivers_in_flush_and_at_its_end(backend, how):
    started = time.monotonic()
    run(NO_THREADS + how, backend)
    assert once(backend) == sorted(map(str, range(250)))
    assert time.monotonic() - started < 15, "it waited although nothing was left to wait for"


def test_without_threads_a_shutdown_keeps_its_timeout_though_much_waits_and_before_send_is_slow(backend):
    code = f"""
import logging, socket, time
logging.disable()
nobody = socket.socket()
nobody.bind(("127.0.0.1", 0))  # and does not listen
def slow(event):
    time.sleep(0.02)
    return event
address = "http://127.0.0.1:%d" % nobody.getsockname()[1]
client = lumiqtrace.init({KEY!r}, base_url=address, before_send=slow, flush_interval=3600)
{NO_THREADS}
for number in range(2500): emit(number)
started = time.monotonic()
assert not lumiqtrace.shutdown(3)
took = time.monotonic() - started
assert took < 3 + {SLACK}, took
assert client.stats().dropped == {{"shutdown": 2750}}, client.stats()
nobody.close()
"""
    run(code, backend)


def test_a_thread_that_can_start_only_later_is_started_then(backend):
    code = """
threading.stack_size(0)
emit("later")
assert lumiqtrace.flush(20)
assert "lumiqtrace-exporter" in [thread.name for thread in threading.enumerate()]
"""
    run(NO_THREADS + code, backend)
    assert len(once(backend)) == 251


def test_an_exporter_thread_that_died_is_started_again(backend):
    code = """
    import ctypes, threading
    emit("one")
    assert client.flush(20)
    ours = next(thread for thread in threading.enumerate() if thread.name == "lumiqtrace-exporter")
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ours.ident), ctypes.py_object(SystemExit))
    emit("two")
    client.flush(0.5)
    ours.join(20)
    assert not ours.is_alive()
    emit("three")
    assert client.flush(20)
    stats = client.stats()
    assert (stats.recorded, stats.sent, stats.queued) == (3, 3, 0), stats
    """
    run(code, backend)
    assert once(backend) == ["one", "three", "two"]


def test_a_transport_that_would_end_the_program_costs_a_retry(backend):
    code = """
    import logging
    from lumiqtrace._delivery.transport import HttpTransport
    logging.disable()
    lumiqtrace.shutdown()
    fatal = []
    class Dying(HttpTransport):
        def send(self, *args):
            if not fatal:
                fatal.append(True)
                raise SystemExit("as a bug would")
            return super().send(*args)
    client = lumiqtrace.Client(client.config, Dying)
    lumiqtrace.Span(client, "work", "general", {}).begin().end()
    assert client.flush(20)
    assert (client.stats().sent, client.stats().internal_errors) == (1, 1), client.stats()
    """
    run(code, backend)
    assert once(backend) == ["work"]


# ---- freeze and thaw ---------------------------------------------------------------------------------


def test_a_process_that_was_frozen_goes_on_and_loses_nothing(backend):
    code = """
    import threading
    emit("warm")
    lumiqtrace.flush()
    emit("before")
    print("ready")
    threading.Event().wait(60)
    """
    with started(code, backend, flush_interval=0.5) as process:
        os.kill(process.pid, signal.SIGSTOP)
        asked = len(backend.requests)
        time.sleep(1)
        assert len(backend.requests) - asked <= 1
        os.kill(process.pid, signal.SIGCONT)
        backend.wait_for(lambda: "before" in names(backend))
        assert len(backend.requests) <= asked + 2, "no burst of timers"
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    assert once(backend) == ["before", "warm"]


# ---- init, again and again ---------------------------------------------------------------------------


def test_init_from_many_threads_makes_one_client_and_one_thread(backend):
    gate = threading.Barrier(8)
    made = []

    def initialise():
        gate.wait()
        made.append(lumiqtrace.init(KEY, base_url=backend.url))
        with lumiqtrace.span("work"):
            pass

    threads = [threading.Thread(target=initialise) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client) for client in made}) == 1
    assert lumiqtrace.flush(20)
    assert once(backend) == ["work"] * 8
    ours = [thread for thread in threading.enumerate() if thread.name == "lumiqtrace-exporter"]
    assert len(ours) <= 1


def test_shutdown_and_init_in_turn_leave_no_threads(backend):
    for number in range(10):
        lumiqtrace.init(KEY, base_url=backend.url, environment=f"e{number}")
        with lumiqtrace.span("work"):
            pass
        assert lumiqtrace.shutdown(20)
    assert once(backend) == ["work"] * 10
    for thread in threading.enumerate():
        if thread.name == "lumiqtrace-exporter":
            thread.join(10)
            assert not thread.is_alive()


# ---- shutdown, once more, and from where it cannot wait ------------------------------------------------------


@pytest.fixture
def hanging(backend):
    """A backend that answers no request before `release` is set; `asked` once it has one."""
    backend.asked, backend.release = threading.Event(), threading.Event()

    def hang(_request):
        backend.asked.set()
        backend.release.wait(40)
        return Answer()

    backend.answer = hang
    yield backend
    backend.release.set()


@pytest.mark.parametrize("delivered", [True, False])
def test_a_second_shutdown_waits_for_the_first_and_answers_the_same(hanging, delivered):
    client = lumiqtrace.init(KEY, base_url=hanging.url)
    with lumiqtrace.span("work"):
        pass
    answers = []
    first = threading.Thread(target=lambda: answers.append(client.shutdown(30 if delivered else 1)))
    first.start()
    assert hanging.asked.wait(20)
    wait_for(lambda: client.closed)
    if delivered:
        threading.Timer(0.2, hanging.release.set).start()
    answers.append(client.shutdown(30))
    stats = client.stats()
    first.join()
    assert answers == [delivered, delivered]
    assert client.shutdown(0) is delivered
    assert (stats.sent, stats.dropped) == ((1, {}) if delivered else (0, {"shutdown": 1}))


@pytest.mark.parametrize("whose", ["before_send", "prices", "a log handler"])
@pytest.mark.parametrize("call", ["flush", "shutdown"])
def test_what_our_thread_calls_does_not_wait_for_itself(backend, whose, call):
    handler = "logging.getLogger('lumiqtrace').addHandler(Asking())" if whose == "a log handler" else ""
    option = f", {whose}=ask" if not handler else ""
    code = f"""
    import logging, time
    from test_exporter import Priced
    longest = 0.0
    def ask(event):
        global longest
        began = time.monotonic()
        lumiqtrace.{call}(20)
        longest = max(longest, time.monotonic() - began)
        return event if {whose!r} == "before_send" else 0.5
    class Asking(logging.Handler):
        def emit(self, record): ask(None)
    logging.getLogger("lumiqtrace").addHandler(logging.NullHandler())
    {handler}
    key, url = client.config.api_key.reveal(), client.config.base_url
    client = lumiqtrace.init(key, base_url=url, shutdown_timeout=20, flush_interval=3600{option})
    for number in range(250): client.record(Priced(number))
    began = time.monotonic()
    client.flush(20)
    client.shutdown(20)
    assert time.monotonic() - began < 15
    assert longest < 10, longest
    print(client.stats().sent, client.stats().dropped)
    """
    failed = threading.Event()

    def answer(_request):
        if failed.is_set():
            return Answer()
        failed.set()
        return Answer(503)

    backend.answer = answer
    assert run(f"import sys; sys.path[:0] = {sys.path!r}\n" + textwrap.dedent(code), backend) == "250 {}\n"


def test_aflush_where_no_thread_can_be_started(backend):
    run(NO_THREADS + "import asyncio\nassert asyncio.run(lumiqtrace.aflush(20))", backend)
    assert len(once(backend)) == 250
