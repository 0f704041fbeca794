"""Forks at any moment: no child hangs, and every event is delivered once, by the process that recorded it."""

from __future__ import annotations

from collections import Counter

import pytest
from process_helpers import once, run

ROUNDS = 200

UNSEEN = 40
"""Rounds of forks that the interpreter does not see either; fewer than a full batch, which wakes our thread."""

EVENTS = 2_000
"""The promise is for 100,000, and 100 forks."""

HAMMER = """
import os, signal, sys, threading
stop = threading.Event()
counts = [0, 0, 0]
def hammer(me):
    while not stop.wait(0.0005):
        emit(f"parent {me}")
        counts[me] += 1
threads = [threading.Thread(target=hammer, args=(me,), daemon=True) for me in range(3)]
for thread in threads: thread.start()

def finish():
    stop.set()
    for thread in threads: thread.join()
    print(*counts)
"""


def test_forks_from_a_parent_whose_threads_record(backend):
    code = f"""{HAMMER}
for number in range({ROUNDS}):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        emit(f"child {{number}}")
        os._exit(0 if lumiqtrace.flush(15) else 1)
    assert os.waitpid(child, 0)[1] == 0, number
finish()
"""
    counts = run(code, backend, flush_interval=0.05).split()
    found = Counter(once(backend))
    expected = {f"parent {me}": int(count) for me, count in enumerate(counts)}
    assert found == {**expected, **{f"child {number}": 1 for number in range(ROUNDS)}}


def test_forks_that_python_does_not_see(backend):
    # Not while a thread runs, or wants to: the interpreter's own lock does not survive that. Ours sleeps for
    # an hour when it has had its first event, and those that follow do not wake it.
    code = f"""
import ctypes, os, signal, threading
fork = ctypes.PyDLL(None).fork
emit("parent")
thread = client._exporter()._worker.thread.native_id
def switches():
    with open(f"/proc/self/task/{{thread}}/status") as status:
        return [line for line in status if "ctxt_switches" in line]
before = None
while before != (before := switches()):
    threading.Event().wait(0.05)
for number in range({UNSEEN}):
    emit("parent")
    child = fork()
    if child == 0:
        signal.alarm(20)
        emit(f"child {{number}}")
        os._exit(0 if lumiqtrace.flush(15) else 1)
    assert os.waitpid(child, 0)[1] == 0, number
"""
    run(code, backend)
    parents = {"parent": 1 + UNSEEN}
    assert Counter(once(backend)) == {**parents, **{f"child {number}": 1 for number in range(UNSEEN)}}


def test_children_that_fork_from_threads(backend):
    code = """
import os, signal, threading
def fork(number):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        emit(f"child {number}")
        os._exit(0 if lumiqtrace.flush(15) else 1)
    statuses.append(os.waitpid(child, 0)[1])
statuses = []
emit("parent")
threads = [threading.Thread(target=fork, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert statuses == [0] * 8, statuses
"""
    run(code, backend)
    assert once(backend) == sorted(["parent", *(f"child {number}" for number in range(8))])


DESCENT = {
    "before the first event": "",
    "with events that wait": "emit('parent')",
    "after a delivery": "emit('parent')\nassert lumiqtrace.flush(20)",
    "after a shutdown": "emit('parent')\nassert lumiqtrace.shutdown(20)",
}


@pytest.mark.parametrize("before", DESCENT)
def test_three_generations(backend, before):
    code = f"""
import os, sys
{DESCENT[before]}
def generation(number):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, number
        return
    emit(f"generation {{number}}")
    if number < 3:
        generation(number + 1)
    sys.exit(0)
generation(1)
"""
    run(code, backend)
    told = [f"generation {number}" for number in (1, 2, 3)] if before != "after a shutdown" else []
    assert once(backend) == sorted([*told, *(["parent"] if DESCENT[before] else [])])


def test_a_child_may_initialise_anew(backend):
    code = """
import os, sys
emit("parent")
child = os.fork()
if child == 0:
    emit("inherited")
    lumiqtrace.init(client.config.api_key.reveal(), base_url=client.config.base_url, environment="child")
    emit("its own")
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    run(code, backend)
    assert once(backend) == ["inherited", "its own", "parent"]


def test_a_childs_account_begins_at_nothing(backend):
    code = """
import os
emit("one")
emit("two")
child = os.fork()
if child == 0:
    before = client.stats().recorded
    emit("three")
    os._exit(0 if (before, client.stats().recorded) == (0, 1) and lumiqtrace.flush(15) else 1)
assert os.waitpid(child, 0)[1] == 0
assert client.stats().recorded == 2
"""
    run(code, backend)
    assert once(backend) == ["one", "three", "two"]


def test_files_threads_and_memory_stay_flat(backend):
    code = """
import gc, os, threading, tracemalloc

def held():
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    return files, threading.active_count(), tracemalloc.get_traced_memory()[0]

def work(events, forks):
    for number in range(events):
        emit(number)
        if number % 1000 == 999: assert lumiqtrace.flush(20)
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            emit("child")
            os._exit(0 if lumiqtrace.flush(15) else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert lumiqtrace.flush(20)

work(1000, 2)
tracemalloc.start()
work(1000, 2)
files, threads, size = held()
work(EVENTS, FORKS)
files_now, threads_now, size_now = held()
assert files_now <= files + 1, (files, files_now)
assert threads_now <= threads, (threads, threads_now)
assert size_now < size + 1_000_000, (size, size_now)
"""
    run(code.replace("EVENTS", str(EVENTS)).replace("FORKS", str(EVENTS // 400)), backend)
    assert len(once(backend)) == 2004 + EVENTS + EVENTS // 400


SLOW_IMPORT = """
import os, signal, sys, threading, time
begun = threading.Event()
class Slowly:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            begun.set()
            time.sleep(0.5)
sys.meta_path.insert(0, Slowly())

def work():
    emit("work")
    @lumiqtrace.observe_llm
    def fail(): raise ValueError
    @lumiqtrace.observe_llm
    def call(): return {{"usage": None}}
    call()
    try: fail()
    except ValueError: pass

first = threading.Thread(target=work)
first.start()
assert begun.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(20)
    work()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
first.join()
"""


@pytest.mark.parametrize("module", ["providers._returned", "providers._failure"])
def test_a_fork_while_an_application_thread_imports_a_part_of_ours(backend, module):
    run(SLOW_IMPORT.format(module=f"lumiqtrace.{module}"), backend)


def test_the_spool_is_imported_by_init(backend, tmp_path):
    """Not by the first event, in the middle of which a fork may happen."""
    code = "import sys; assert 'lumiqtrace._delivery.spool' in sys.modules"
    run(code, backend, spool_dir=str(tmp_path / "spool"))


@pytest.mark.parametrize(
    "module", ["lumiqtrace._span", "lumiqtrace._pricing", "lumiqtrace._redaction.redact"]
)
def test_a_fork_while_a_module_of_ours_is_loaded_waits_for_it(backend, module):
    code = f"""
import importlib.abc, os, signal, sys, threading
loading = threading.Event()
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            loading.set()
            threading.Event().wait(0.5)
sys.meta_path.insert(0, Slow())
def work():
    emit("parent")
    lumiqtrace.flush(20)
thread = threading.Thread(target=work)
thread.start()
assert loading.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(20)
    emit("child")
    os._exit(0 if lumiqtrace.flush(15) else 1)
assert os.waitpid(child, 0)[1] == 0
thread.join()
"""
    run(code, backend)
    assert once(backend) == ["child", "parent"]
