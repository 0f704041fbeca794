"""Workers of `multiprocessing`, which end without `atexit`: their events are delivered without a line of the user's."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from backend import KEY
from process_helpers import once

HEAD = f"""
import multiprocessing, sys, time
import lumiqtrace
# In the workers too where they import this file: spawn and forkserver.
lumiqtrace.init({KEY!r}, base_url=sys.argv[1], flush_interval=3600, shutdown_timeout=20)

def work(number):
    with lumiqtrace.span(f"work {{number}}"): pass
    return number

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
"""

PROGRAMS = {
    "Process": """
        workers = [context.Process(target=work, args=(number,)) for number in range(4)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
    """,
    "Pool, closed": """
        pool = context.Pool(2)
        assert pool.map(work, range(4)) == [0, 1, 2, 3]
        pool.close()
        pool.join()
    """,
    "Pool, closed, whose workers are replaced": """
        pool = context.Pool(2, maxtasksperchild=1)
        assert pool.map(work, range(4), chunksize=1) == [0, 1, 2, 3]
        pool.close()
        pool.join()
    """,
    "Pool, terminated": """
        with context.Pool(2) as pool:
            assert pool.map(work, range(4)) == [0, 1, 2, 3]
    """,
    "ProcessPoolExecutor": """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(work, range(4))) == [0, 1, 2, 3]
    """,
    "an executor of the parent's, after its own events": """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            work(0)
            assert lumiqtrace.flush(20)
            work(1)
            assert list(executor.map(work, [2, 3])) == [2, 3]
    """,
}  # fmt: skip


MATRIX = [
    (program, method)
    for program in PROGRAMS
    for method in ("fork", "forkserver", "spawn")
    # The rest is as with the forkserver, and slower.
    if method != "spawn" or program in ("Process", "Pool, closed")
]


@pytest.mark.parametrize(("program", "method"), MATRIX)
def test_every_workers_events_arrive_once(backend, tmp_path, program, method):
    file = tmp_path / "program.py"
    file.write_text(HEAD + textwrap.indent(textwrap.dedent(PROGRAMS[program]), "    "))
    done = subprocess.run(
        [sys.executable, file, backend.url, method], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert once(backend) == [f"work {number}" for number in range(4)]


MISSED = """
import os, signal, threading

def wait():
    work(0)
    from lumiqtrace import _sigterm_seen
    child = os.fork()
    if child == 0:
        # What comes to this one is not told its parent.
        os._exit(signal.set_wakeup_fd(-1) + 1)
    assert os.waitpid(child, 0)[1] == 0
    # All that Python does at once when a signal comes; its handler has to wait for the main thread.
    os.write(_sigterm_seen._pipe[1], bytes([signal.SIGTERM]))
    threading.Event().wait()

if __name__ == "__main__":
    worker = context.Process(target=wait)
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGTERM
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_signal_that_came_just_before_the_main_thread_waits_ends_a_worker(backend, tmp_path, method):
    file = tmp_path / "program.py"
    file.write_text(HEAD + MISSED)
    done = subprocess.run(
        [sys.executable, file, backend.url, method], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert once(backend) == ["work 0"]


def test_a_process_of_billiard(backend, tmp_path):
    file = tmp_path / "program.py"
    program = textwrap.indent(textwrap.dedent(PROGRAMS["Process"]), "    ")
    file.write_text(HEAD.replace("import multiprocessing", "import billiard as multiprocessing") + program)
    done = subprocess.run(
        [sys.executable, file, backend.url, "fork"], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert once(backend) == [f"work {number}" for number in range(4)]
