"""The soak: processes record and are killed at random, the backend is never in the same mood for long.

Afterwards every event is where it may be: stored once, refused alone by the server, or recorded by a process
that was killed before it was on disk. `SOAK_SECONDS=30` makes it as long as the promise.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from backend import KEY
from emitting import wait_for
from soak_program import JOURNAL

SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))
PROCESSES = 3
MOODS = (
    "well",
    "well",
    "well",
    "500",
    "503",
    "small",
    "reset",
    "stores then resets",
    "hangs",
    "garbage",
    "half",
)
PROGRAM = Path(__file__).with_name("soak_program.py")


def poisoned(name):
    """Some events are refused whatever the mood."""
    return int(name.rpartition(" ")[2]) % 151 == 150


class Stored:
    """What a server that knows an event by its id has, and what it refused for good."""

    def __init__(self):
        self.mood = "well"
        self.names: dict[str, str] = {}
        self.refused: set[str] = set()
        self.ids_of_a_name: dict[str, set[str]] = {}
        self.repeated = 0
        self.over = threading.Event()
        self._lock = threading.Lock()

    def take(self, events):
        """Store them as a whole, or not at all."""
        with self._lock:
            for event in events:
                self.ids_of_a_name.setdefault(event["name"], set()).add(event["event_id"])
            if any(poisoned(event["name"]) for event in events):
                self.refused.update(event["name"] for event in events if len(events) == 1)
                return False
            self.repeated += sum(event["event_id"] in self.names for event in events)
            self.names.update((event["event_id"], event["name"]) for event in events)
            return True


@contextmanager
def serving(stored):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in two segments takes 40 ms

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            events = [json.loads(line) for line in zlib.decompress(body, wbits=31).split(b"\n")]
            mood = stored.mood
            if mood == "hangs":
                stored.over.wait(1.5)
            if mood in ("500", "503"):
                self.answer(int(mood))
            elif mood == "reset":
                self.reset()
            elif mood == "garbage":
                self.wfile.write(b"\x00\xffwhat?\r\n\r\n")
                self.close_connection = True
            elif mood == "small" and len(events) > 7:
                self.answer(413)
            elif not stored.take(events):
                self.answer(400)
            elif mood == "stores then resets":
                self.reset()
            elif mood == "half":
                self.wfile.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n{")
                self.close_connection = True
            else:
                self.answer(202)

        def answer(self, status):
            self.send_response(status)
            if status == 503:
                self.send_header("retry-after", "0")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def reset(self):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def finish(self):
            with suppress(OSError, ValueError):  # the peer was killed, or we reset it
                super().finish()

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stored.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Emitter:
    """One run of the program."""

    def __init__(self, name, url, tmp_path, mode, most=10**9):
        self.name = name
        self.killed = False
        self.stats = None
        self._journal = tmp_path / f"{name}.journal"
        command = [sys.executable, "-W", "error", str(PROGRAM), name, url, KEY, str(tmp_path / "spool")]
        self._process = subprocess.Popen(
            [*command, str(self._journal), mode, str(most)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kill(self):
        self.killed = True
        self._process.kill()
        self._process.communicate()

    def end(self):
        printed, said = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, said
        self.stats = json.loads(printed)

    def journal(self):
        data = self._journal.read_bytes() if self._journal.exists() else b""
        return JOURNAL.unpack(data) if data else (0, 0)


def soak(seconds, url, stored, tmp_path, dice):
    """Emitters come and go for so long; gives all that ever ran."""
    all_of_them, alive = [], []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        while len(alive) < PROCESSES:
            mode = dice.choice(("batch", "always"))
            alive.append(Emitter(f"p{len(all_of_them)}", url, tmp_path, mode))
            all_of_them.append(alive[-1])
        stored.mood = dice.choice(MOODS)
        time.sleep(dice.uniform(0.05, 0.4))  # the pace of the faults; nothing is waited for here
        if dice.random() < 0.35:
            victim = alive.pop(dice.randrange(len(alive)))
            victim.kill() if dice.random() < 0.7 else victim.end()
    for emitter in alive:
        emitter.kill() if dice.random() < 0.5 else emitter.end()
    return all_of_them


def drain(url, stored, tmp_path):
    """What is left on disk goes to a server that is well, by one process that comes last."""
    stored.mood = "well"
    last = Emitter("last", url, tmp_path, "always", 1)
    wait_for(lambda: "last 0" in stored.names.values())
    wait_for(lambda: not any((tmp_path / "spool").glob("*.batch")), 40)
    last.end()
    return last


@pytest.mark.timeout(SECONDS + 50)
def test_every_event_is_stored_once_or_accounted_for(tmp_path):
    seed = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
    print("SOAK_SEED", seed)  # noqa: T201 - shown when it fails
    stored = Stored()
    with serving(stored) as url:
        emitters = soak(SECONDS, url, stored, tmp_path, random.Random(seed))
        emitters.append(drain(url, stored, tmp_path))
    check(emitters, stored)


def check(emitters, stored):
    names = set(stored.names.values())
    assert len(names) == len(stored.names), "an event is stored under two ids"
    assert all(len(ids) == 1 for ids in stored.ids_of_a_name.values()), "an event was encoded twice"
    emitted, unwritten = set(), set()
    for emitter in emitters:
        recorded, on_disk = emitter.journal()
        mine = [f"{emitter.name} {number}" for number in range(recorded)]
        emitted.update(mine)
        if emitter.killed:
            unwritten.update(name for name in mine[on_disk:] if name not in names | stored.refused)
        else:
            stats = emitter.stats
            assert stats["recorded"] == recorded
            assert recorded == stats["sent"] + stats["spooled"] + sum(stats["dropped"].values())
            assert set(stats["dropped"]) | set(stats["replay_dropped"]) <= {"rejected"}
    assert names <= emitted, "an event was invented"
    assert stored.refused == {name for name in stored.refused if poisoned(name)}
    missing = emitted - names - stored.refused
    assert missing == unwritten, sorted(missing - unwritten)[:20]
    assert names, "something was delivered"
    print(len(emitters), "processes;", len(names), "stored,", stored.repeated, "repeated;",  # noqa: T201
          len(stored.refused), "refused,", len(unwritten), "of", len(emitted), "not on disk yet")  # fmt: skip
