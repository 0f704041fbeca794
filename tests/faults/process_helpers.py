"""Programs in interpreters of their own, with `init` done, and what they delivered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress

from backend import KEY


def program(code, backend, **options):
    """`code` after an `init` that sends nothing by itself, so that only the end of the process does."""
    options = {"flush_interval": 3600, "shutdown_timeout": 20, **options}
    head = (
        f"import lumiqtrace\nclient = lumiqtrace.init({KEY!r}, base_url={backend.url!r}, **{options!r})\n"
        "def emit(name):\n    with lumiqtrace.span(str(name)): pass\n"
    )
    return head + textwrap.dedent(code)


def run(code, backend, *, status=0, stderr="", **options):
    """Run `program` to its end; gives what it printed. Anything unexpected on its stderr is a failure."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program(code, backend, **options)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, stderr), done.stderr
    return done.stdout


@contextmanager
def started(code, backend, **options):
    """`program`, running; it has printed its first line. It is killed at the end if it is still there."""
    command = [sys.executable, "-u", "-W", "error", "-c", program(code, backend, **options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline(), process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def group(command, backend, *, cwd, **environment):
    """A command in a process group of its own, all of which is killed at the end."""
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, "KEY": KEY, "BACKEND": backend.url, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def names(backend):
    return sorted(event["name"] for event in backend.events)


def once(backend):
    """The names, after a look whether any event came twice."""
    ids = [event["event_id"] for event in backend.events]
    assert len(ids) == len(set(ids)), "an event was delivered twice"
    return names(backend)
