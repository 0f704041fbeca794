"""gevent and eventlet, patched in before or after us: nothing hangs, spins or holds up the other greenlets."""

from __future__ import annotations

import subprocess
import sys
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
