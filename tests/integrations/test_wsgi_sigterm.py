"""SIGTERM where no server handles it: events are delivered, and the process ends as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from backend import KEY
from wsgi_helpers import roots

START = f"""
import os, signal, sys, threading
from wsgi_helpers import call, hello
import lumiqtrace
from lumiqtrace.integrations._wsgi import WsgiMiddleware
config = lumiqtrace.LumiqConfig(api_key={KEY!r}, flush_interval=3600.0)
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
"""

CASES = {
    "nobody handles it": (-15, "", """
call(WsgiMiddleware(hello, config))
terminate()
threading.Event().wait(30)
"""),
    "it comes while the main thread waits": (-15, "", """
call(WsgiMiddleware(hello, config))
threading.Timer(0.1, terminate).start()
threading.Event().wait(30)
"""),
    "the application handled it before": (7, "", """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
call(WsgiMiddleware(hello, config))
terminate()
"""),
    "the application handles it from then on": (7, "", """
call(WsgiMiddleware(hello, config))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
terminate()
"""),
    "the application passes it on, and ends as it likes": (8, "mine\n", """
call(WsgiMiddleware(hello, config))
before = signal.getsignal(signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *them: (before(*them), print("mine"), sys.exit(8)))
terminate()
"""),
    "the application ignores it": (0, "alive\n", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
call(WsgiMiddleware(hello, config))
terminate()
print("alive")
"""),
    "a thread made the middleware, which can handle no signals": (0, "", """
made = threading.Thread(target=lambda: call(WsgiMiddleware(hello, config)))
made.start()
made.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""),
}  # fmt: skip


def run(backend, code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", START + code],
        cwd=Path(__file__).parent,
        env={**os.environ, "LUMIQTRACE_BASE_URL": backend.url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("case", CASES)
def test_the_event_is_delivered_and_the_end_is_as_without_us(backend, case):
    status, printed, code = CASES[case]
    done = run(backend, code)
    assert (done.returncode, done.stdout, done.stderr) == (status, printed, "")
    assert len(roots(backend)) == 1


def test_a_signal_inside_a_lock_of_ours_does_not_hang(backend):
    code = """
call(WsgiMiddleware(hello, config))
with lumiqtrace.get_client()._exporter()._loop._stepping:
    terminate()
"""
    assert run(backend, code).returncode == -signal.SIGTERM


def test_what_is_switched_off_leaves_signals_alone(backend):
    code = """
call(WsgiMiddleware(hello, lumiqtrace.LumiqConfig(enabled=False)))
call(WsgiMiddleware(hello, lumiqtrace.LumiqConfig()))
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    done = run(backend, code)
    assert (done.returncode, done.stderr, backend.events) == (0, "", [])
