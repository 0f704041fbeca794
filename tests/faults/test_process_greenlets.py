"""gevent and eventlet, patched in before or after us: nothing hangs, spins or holds up the other greenlets."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from backend import KEY, Answer
from process_helpers import once

PATCH = {
    "gevent": "from gevent import monkey, spawn; monkey.patch_all()",
    "eventlet": (
        "import warnings; warnings.simplefilter('ignore'); import eventlet; from eventlet import spawn; eventlet.monkey_patch()"
    ),
}
ORDERS = {
    "before import": "{patch}\nimport lumiqtrace\n{init}",
    "after import": "import lumiqtrace\n{patch}\n{init}",
    "after init": "import lumiqtrace\n{init}\n{patch}",
    "after a delivery": "import lumiqtrace\n{init}\nwith lumiqtrace.span('early'): pass\nlumiqtrace.flush(20)\n{patch}",
}

BODY = """
import time
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.005)
spawn(tick)
def emit(name):
    with lumiqtrace.span(name): pass

emit("in the background")
deadline = time.monotonic() + 20
while lumiqtrace.get_client().stats().sent < 1 + EARLY:
    assert time.monotonic() < deadline, "nothing was delivered in the background"
    time.sleep(0.01)

emit("flushed")
before = ticks
assert lumiqtrace.flush(20)
others = ticks - before

spent = time.process_time()
before = ticks
while ticks - before < 20: time.sleep(0.005)
spent = time.process_time() - spent
assert lumiqtrace.flush(20)
emit("at exit")
print(others, spent)
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("library", PATCH)
def test_events_are_delivered_and_other_greenlets_go_on(backend, library, order):
    def slowly(_request):
        time.sleep(0.2)
        return Answer()

    backend.answer = slowly
    init = f"lumiqtrace.init({KEY!r}, base_url={backend.url!r}, flush_interval=0.05, shutdown_timeout=20)"
    early = order == "after a delivery"
    code = ORDERS[order].format(patch=PATCH[library], init=init) + BODY.replace("EARLY", str(int(early)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    others, spent = map(float, done.stdout.split())
    # Where our thread was there first it stays a real one, which greenlets can only wait for as for any lock.
    assert others > 3 or early, "the flush held up the other greenlets"
    assert spent < 2, "something spins"
    assert once(backend) == sorted(["in the background", "flushed", "at exit", *(["early"] if early else [])])


def test_sigterm_with_gevent(backend):
    init = f"lumiqtrace.init({KEY!r}, base_url={backend.url!r}, flush_interval=3600, shutdown_timeout=20)"
    code = (
        ORDERS["before import"].format(patch=PATCH["gevent"], init=init)
        + """
import os, signal, gevent
with lumiqtrace.span("work"): pass
gevent.spawn_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(30)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (-15, "")
    assert once(backend) == ["work"]


@pytest.mark.parametrize("pause", [1, 0.005], ids=["idle", "busy"])
@pytest.mark.parametrize("library", PATCH)
def test_sigterm_while_the_loop_waits(backend, library, pause):
    """The handler then runs inside the loop, which lets nobody wait.

    The loop wakes now and then: a signal that comes just before a wait is heard when that wait is over.
    """
    init = f"lumiqtrace.init({KEY!r}, base_url={backend.url!r}, flush_interval=3600, shutdown_timeout=20)"
    code = (
        ORDERS["before import"].format(patch=PATCH[library], init=init)
        + f"""
import socket, time
def tick():
    while True: time.sleep({pause})
def serve():
    listener = socket.create_server(("127.0.0.1", 0))
    listener.accept()
spawn(serve)
spawn(tick)
with lumiqtrace.span("work"): pass
time.sleep(0.1)
print("ready", flush=True)
time.sleep(60)
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline()
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    assert once(backend) == ["work"]


@pytest.mark.parametrize("library", PATCH)
def test_a_second_sigterm_ends_at_once_where_the_loop_waits(backend, library):
    asked, release = threading.Event(), threading.Event()

    def hang(_request):
        asked.set()
        release.wait(40)
        return Answer()

    backend.answer = hang
    init = f"lumiqtrace.init({KEY!r}, base_url={backend.url!r}, flush_interval=3600, shutdown_timeout=40)"
    code = (
        ORDERS["before import"].format(patch=PATCH[library], init=init)
        + """
import time
def tick():
    while True: time.sleep(0.005)
spawn(tick)
with lumiqtrace.span("work"): pass
print("ready", flush=True)
time.sleep(60)
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline()
        process.terminate()
        assert asked.wait(30)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    finally:
        release.set()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("library", PATCH)
def test_a_sigterm_that_interrupts_our_own_greenlet(backend, library):
    """Waited for there, the delivery would wait for itself."""
    init = f"""
import os, signal
def ask(event):
    os.kill(os.getpid(), signal.SIGTERM)
    return event
lumiqtrace.init({KEY!r}, base_url={backend.url!r}, before_send=ask, shutdown_timeout=50)
"""
    code = ORDERS["before import"].format(patch=PATCH[library], init=init) + (
        "import time\nwith lumiqtrace.span('work'): pass\ntime.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGTERM
    assert once(backend) == ["work"]
