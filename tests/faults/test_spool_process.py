"""Processes that are killed, disks that are full: what was on disk arrives, once, from the next process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap

import pytest
from backend import KEY, Answer
from emitting import wait_for
from process_helpers import names, once, run
from test_soak import Emitter, Stored, check, drain, serving

KILLS = int(os.environ.get("KILLS", "12"))
"""Fifty by hand: `KILLS=50`."""

AT_ONCE = 3


@pytest.mark.timeout(30 + 3 * KILLS)
def test_whoever_is_killed_at_any_moment_loses_only_what_was_not_on_disk(tmp_path):
    stored = Stored()
    stored.mood = "500"
    ran = []
    with serving(stored) as url:
        for first in range(0, KILLS, AT_ONCE):
            mode = random.choice(("batch", "always"))
            batch = [Emitter(f"k{first + n}", url, tmp_path, mode) for n in range(AT_ONCE)]
            for emitter in batch:
                enough = random.randrange(1, 150)
                wait_for(lambda emitter=emitter, enough=enough: emitter.journal()[0] >= enough)
                emitter.kill()
            ran += batch
        assert not stored.names
        ran.append(drain(url, stored, tmp_path))
    check(ran, stored)
    assert len(stored.names) > KILLS


def test_what_one_process_could_not_deliver_the_next_one_does(backend, tmp_path):
    spool = {"spool_dir": str(tmp_path / "spool"), "shutdown_timeout": 1}
    backend.answer = lambda _request: Answer(503)
    out = run(
        """
        import logging
        logging.disable()
        for number in range(120): emit(number)
        client.shutdown()
        print(client.stats().spooled, client.stats().dropped)
        """,
        backend,
        **spool,
    )
    assert out == "120 {}\n"
    assert backend.events == []
    backend.answer = lambda _request: Answer()
    spool["shutdown_timeout"] = 20
    assert run("emit('next')\nclient.shutdown()\nprint(client.stats().replayed)", backend, **spool) == "120\n"
    assert once(backend) == sorted([*map(str, range(120)), "next"])
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_forked_child_has_files_of_its_own(backend, tmp_path):
    spool = {"spool_dir": str(tmp_path / "spool"), "shutdown_timeout": 0.5}
    backend.answer = lambda _request: Answer(503)
    run(
        """
        import logging, os
        logging.disable()
        emit("parent")
        client.flush(0.3)
        child = os.fork()
        emit("child" if child == 0 else "parent again")
        client.shutdown()
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """,
        backend,
        **spool,
    )
    backend.answer = lambda _request: Answer()
    run("emit('next')", backend, **{**spool, "shutdown_timeout": 20})
    assert once(backend) == ["child", "next", "parent", "parent again"]


def test_a_disk_without_room_costs_the_spool_alone(backend, tmp_path):
    """The limit on the size of files stands for a full disk; the error comes in the middle of a write."""
    code = """
        import logging, resource, signal
        logging.basicConfig(format="%(message)s")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for number in range(30):
            emit(number)
            client.flush(20)
        print(client.stats().dropped, client.stats().sent)
    """
    folder = tmp_path / "spool"
    head = f"import lumiqtrace\\nclient = lumiqtrace.init({KEY!r}, base_url={backend.url!r}, spool_dir={str(folder)!r})"
    head += "\\ndef emit(name):\\n    with lumiqtrace.span(str(name)): pass\\n"
    done = subprocess.run(
        [sys.executable, "-c", head.replace("\\n", "\n") + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert done.stdout == "{} 30\n"
    assert done.stderr.count("\n") == 1
    assert "is off (File too large)" in done.stderr
    assert names(backend) == sorted(map(str, range(30)))
    assert [path.suffix for path in folder.iterdir()] in ([], [".lock"])
