"""One process of the soak: records numbered events with a spool until it is told to end, or is killed.

Beside them it keeps a journal that survives a kill: how many it recorded, and how many of them were on disk.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import threading

import lumiqtrace

JOURNAL = struct.Struct("QQ")
"""Events recorded, or about to be; events on disk, at least."""


def main(name: str, url: str, key: str, folder: str, journal: str, mode: str, most: str) -> None:
    end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
    client = lumiqtrace.init(
        key,
        base_url=url,
        spool_dir=folder,
        spool=mode,
        flush_interval=0.1,
        batch_size=20,
        shutdown_timeout=1.0,
    )
    exporter = client._exporter()
    dice = random.Random(name)
    log = os.open(journal, os.O_WRONLY | os.O_CREAT, 0o600)
    recorded = 0
    while recorded < int(most) and not end.wait(dice.choice((0.0, 0.001, 0.002, 0.01))):
        with exporter._outbox.lock:
            on_disk = exporter._queue.removed - exporter._outbox._encoding
        os.pwrite(log, JOURNAL.pack(recorded + 1, on_disk), 0)
        with lumiqtrace.span(f"{name} {recorded}"):
            pass
        recorded += 1
        if dice.random() < 0.005:
            client.flush(dice.choice((0.0, 0.05)))
    end.wait()
    client.shutdown()
    stats = client.stats()
    counts = {"dropped": dict(stats.dropped), "replay_dropped": dict(stats.replay_dropped)}
    sys.stdout.write(json.dumps({**stats._asdict(), **counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
