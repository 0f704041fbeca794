"""SIGTERM and Ctrl-C with `init` alone: the events are delivered, and the end is as it is without us."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from backend import Answer
from process_helpers import names, program, run, started

HEAD = """
import os, signal, sys, threading
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
"""

CASES = {
    "a plain script": (-15, "", """
emit("work")
terminate()
threading.Event().wait(30)
"""),
    "while the main thread sleeps": (-15, "", """
import time
emit("work")
threading.Timer(0.1, terminate).start()
time.sleep(30)
"""),
    "while only other threads run": (-15, "", """
emit("work")
threading.Thread(target=threading.Event().wait, args=(30,)).start()
threading.Timer(0.1, terminate).start()
"""),
    "recorded by a thread": (-15, "", """
made = threading.Thread(target=emit, args=("work",))
made.start()
made.join()
terminate()
"""),
    "a thread called init, the main thread recorded": (-15, "", """
lumiqtrace.shutdown()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
options = dict(api_key=client.config.api_key.reveal(), base_url=client.config.base_url, flush_interval=3600)
made = threading.Thread(target=lambda: lumiqtrace.init(**options))
made.start()
made.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
emit("work")
terminate()
"""),
    "handled by the application": (7, "", """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
emit("work")
terminate()
"""),
    "handled before init": (7, "", """
lumiqtrace.shutdown()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
lumiqtrace.init(client.config.api_key.reveal(), base_url=client.config.base_url, flush_interval=3600)
emit("work")
terminate()
"""),
    "handled for a while, as uvicorn does": (-15, "once\n", """
before = signal.signal(signal.SIGTERM, lambda *_: print("once", flush=True))
emit("work")
terminate()
signal.signal(signal.SIGTERM, before)
terminate()
"""),
    "handled by an event loop": (0, "asked to stop\n", """
import asyncio
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    emit("work")
    terminate()
    await stop.wait()
    print("asked to stop")
asyncio.run(main())
"""),
    "ignored": (0, "alive\n", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
emit("work")
terminate()
print("alive")
"""),
    "while the main thread holds a lock of ours": (-15, "went on\n", """
emit("work")
with client._exporter()._outbox.lock:
    terminate()
    print("went on", flush=True)
threading.Event().wait(30)
"""),
    "after children that recorded nothing": (-15, "True\nTrue\n", """
emit("work")
def fork():
    child = os.fork()
    if child == 0:
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
fork()
fork()
terminate()
"""),
    "in a forked child": (0, "-15\n", """
child = os.fork()
if child == 0:
    emit("work")
    terminate()
    threading.Event().wait(30)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""),
    "in a child that records nothing": (-15, "-15\n", """
emit("work")
child = os.fork()
if child == 0:
    terminate()
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
terminate()
"""),
    "in a worker of multiprocessing": (0, "-15\n", """
import multiprocessing
context = multiprocessing.get_context("fork")
ready = context.Event()
def work():
    emit("work")
    ready.set()
    threading.Event().wait(40)
worker = context.Process(target=work)
worker.start()
ready.wait(20)
worker.terminate()
worker.join()
print(worker.exitcode)
"""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sigterm_delivers_and_the_exit_status_is_kept(backend, case):
    status, printed, code = CASES[case]
    assert run(HEAD + code, backend, status=status) == printed
    assert names(backend) == ["work"]


def test_init_without_a_key_leaves_the_signal_alone(backend):
    code = """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lumiqtrace.init(enabled=False)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """
    run(code, backend)


STUCK = (
    HEAD
    + """
import atexit
emit("work")
print("ready", flush=True)
"""
)


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


def test_a_second_sigterm_ends_the_process_at_once(hanging):
    with started(STUCK + "threading.Event().wait(60)", hanging, shutdown_timeout=50) as process:
        process.send_signal(signal.SIGTERM)
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("ending", ["lumiqtrace.shutdown()", ""], ids=["a shutdown", "the end"])
def test_the_first_sigterm_lets_a_delivery_that_is_under_way_finish(hanging, ending):
    with started(STUCK + ending, hanging, shutdown_timeout=50) as process:
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        hanging.release.set()
        assert process.wait(30) == -signal.SIGTERM
    assert names(hanging) == ["work"]


def test_sigterm_waits_no_longer_than_the_timeout(hanging):
    with started(STUCK + "threading.Event().wait(60)", hanging, shutdown_timeout=0.3) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_ctrl_c_in_a_flush_is_the_applications(hanging):
    code = (
        STUCK
        + """
try:
    lumiqtrace.flush(50)
except KeyboardInterrupt:
    print("mine", flush=True)
os._exit(3)
"""
    )
    with started(code, hanging) as process:
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "mine\n"
        assert process.wait(30) == 3


def test_ctrl_c_while_the_end_is_delivering_ends_at_once_and_says_what_is_lost(hanging):
    with started(STUCK, hanging, shutdown_timeout=50) as process:
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        said = process.stderr.read()
    assert "1 event was not delivered before the end" in said
    assert "Traceback" not in said


def test_the_second_ctrl_c_ends_at_once_with_the_status_of_the_first(hanging):
    with started(STUCK + "threading.Event().wait(60)", hanging, shutdown_timeout=50) as process:
        process.send_signal(signal.SIGINT)
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGINT)
        # Some versions of Python end by the signal here, others with 1.
        assert process.wait(30) in (-signal.SIGINT, 1)
        said = process.stderr.read()
    assert said.count("Traceback") == 1, "that of the first, which is the application's"


def test_ctrl_c_in_a_shutdown_is_the_applications_and_the_rest_is_counted(hanging):
    code = (
        STUCK
        + """
try:
    lumiqtrace.shutdown(50)
except KeyboardInterrupt:
    print("mine", client.stats().dropped, lumiqtrace.shutdown(), flush=True)
"""
    )
    with started(code, hanging, shutdown_timeout=50) as process:
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "mine {'shutdown': 1} False\n"
        assert process.wait(30) == 0
        assert "1 event was not delivered before the end" in process.stderr.read()


@pytest.mark.parametrize("records", [True, False])
def test_ctrl_c_ends_with_the_status_that_it_has_without_us(records, backend):
    """The first delivery is at the exit, and imports what it needs then."""
    span = "with lumiqtrace.span('one'): pass" if records else ""
    code = f"import threading\n{span}\nprint('ready', flush=True)\nthreading.Event().wait(60)\n"
    with started(code, backend, flush_interval=600) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    assert len(backend.events) == records


@pytest.mark.parametrize(
    "code",
    [
        "import code; code.InteractiveConsole().push('raise KeyboardInterrupt')",
        "try: threading.Event().wait(0); raise KeyboardInterrupt\nexcept KeyboardInterrupt: pass",
        "sys.excepthook(*(KeyboardInterrupt, KeyboardInterrupt(), None))",
    ],
)
def test_a_program_that_outlived_ctrl_c_ends_as_it_does_without_us(code, backend):
    text = f"import sys, threading\nemit('work')\n{code}\nprint('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", program(text, backend)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
    assert names(backend) == ["work"]


def test_a_prompt_that_ctrl_c_interrupted_ends_as_it_does_without_us(backend):
    typed = program("emit('work')\nraise KeyboardInterrupt\n", backend).replace("): pass\n", "): pass\n\n")
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=typed, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert names(backend) == ["work"]
