"""The spool: what waits is in files, is replayed by the next process, and never stands in the way."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_exporter import Note, Wire, submit

from lumiqtrace._config import LumiqConfig
from lumiqtrace._delivery.batch import Batch
from lumiqtrace._delivery.circuit import OPEN_AFTER
from lumiqtrace._delivery.exporter import Exporter
from lumiqtrace._delivery.outbox import Outbox
from lumiqtrace._delivery.queue import EventQueue
from lumiqtrace._delivery.spool import MAX_ADOPTED, Spool, destination
from lumiqtrace._delivery.spool_folder import BLOCK, MAX_CORRUPT
from lumiqtrace._delivery.transport import Reply, TransportError
from lumiqtrace._encode import compress, decompress

MIB = 1024 * 1024
DOWN = TransportError("down")


class Wall:
    """A clock that the test sets."""

    def __init__(self, now=1_800_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def spools(folder):
    """Makes spools, each as good as a process of its own: the lock belongs to the open file."""
    made = []

    def make(project="ab", path=folder, **options):
        complaints = []
        options = {"max_bytes": 64 * MIB, "max_age": 3600.0, **options}
        spool = Spool(str(path), lambda: project, complain=lambda *said: complaints.append(said), **options)
        spool.complaints = complaints
        made.append(spool)
        return spool

    yield make
    for spool in made:
        spool.close()


@pytest.fixture
def exporters():
    made = []

    def make(transport, spool, **options):
        exporter = Exporter(transport, spool=spool, **{"rand": lambda: 0.01, **options})
        made.append(exporter)
        return exporter

    yield make
    for exporter in made:
        exporter.close(0)


def body(*numbers):
    return compress([json.dumps(number).encode() for number in numbers])


def names(folder, end=".batch"):
    found = folder.iterdir() if folder.exists() else []
    return sorted(path.name for path in found if path.name.endswith(end))


def balance(stats):
    return stats.sent + stats.queued + stats.in_flight + stats.spooled + sum(stats.dropped.values())


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---- files -------------------------------------------------------------------------------------------


def test_a_spool_touches_nothing_before_the_first_batch(spools, folder):
    spools()
    assert not folder.exists()


def test_a_batch_is_a_private_file_that_reads_back(spools, folder):
    spool = spools()
    file, evicted = spool.write(body(1, 2, 3), 3, None)
    assert evicted == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert names(folder) == [file.name]
    assert names(folder, ".tmp") == []
    assert spool.read(file) == body(1, 2, 3)
    spool.remove(file)
    assert names(folder) == []


def test_an_open_umask_makes_nothing_public(spools, folder):
    before = os.umask(0)
    try:
        spools().write(body(1), 1, None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_what_is_left_behind_is_taken_over_by_one(spools, folder):
    first = spools()
    file, _ = first.write(body(1), 1, None)
    first.close()
    second, third = spools(), spools()
    taken, _ = second.sweep(None)
    assert [found.events for found in taken] == [1]
    assert third.sweep(None) == ([], [])
    assert second.read(taken[0]) == body(1)
    assert names(folder) == [taken[0].name] != [file.name]


def test_what_belongs_to_the_living_is_left_alone(spools):
    first, second = spools(), spools()
    file, _ = first.write(body(1), 1, None)
    assert second.sweep(None) == ([], [])
    assert first.read(file) == body(1)


def test_no_file_goes_to_another_destination(spools, folder):
    first = spools("aa")
    first.write(body(1), 1, None)
    first.close()
    assert spools("bb").sweep(None) == ([], [])
    assert len(spools("aa").sweep(None)[0]) == 1


def test_nothing_is_left_when_all_is_delivered(spools, folder):
    first = spools()
    first.write(body(1), 1, None)
    first.close()
    second = spools()
    for file in second.sweep(None)[0]:
        second.remove(file)
    second.close()
    assert list(folder.iterdir()) == []


def test_a_half_written_file_of_a_dead_process_is_cleared_away(spools, folder):
    first = spools()
    file, _ = first.write(body(1), 1, None)
    first.close()
    (folder / f"{file.name}.tmp").write_bytes(b"half")
    assert len(spools().sweep(None)[0]) == 1
    assert names(folder, ".tmp") == []


def test_only_so_many_are_taken_over_at_once(spools, folder):
    first = spools()
    file, _ = first.write(body(1), 1, None)
    first.close()
    data = (folder / file.name).read_bytes()
    start = file.name.rsplit("-", 2)[0]
    for number in range(2, MAX_ADOPTED + 11):
        (folder / f"{start}-{number}-1.batch").write_bytes(data)
    second = spools()
    assert len(second.sweep(None)[0]) == MAX_ADOPTED
    assert second.more
    assert len(second.sweep(None)[0]) == 10
    assert not second.more


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data.replace(b"spool 1", b"spool 2", 1),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\x00" * len(data),
    ],
    ids=["truncated", "longer", "empty", "another version", "a bit", "zeros"],
)
def test_a_damaged_file_is_set_aside(spools, folder, damage):
    spool = spools()
    file, _ = spool.write(body(1, 2), 2, None)
    path = folder / file.name
    path.write_bytes(damage(path.read_bytes()))
    assert spool.read(file) is None
    assert names(folder) == []
    assert names(folder, ".corrupt") == [f"{file.name}.corrupt"]
    assert [cause for cause, _ in spool.complaints] == ["corrupt"]


def test_of_damaged_files_only_the_last_are_kept(spools, folder):
    spool = spools()
    for number in range(MAX_CORRUPT + 5):
        file, _ = spool.write(body(number), 1, None)
        (folder / file.name).write_bytes(b"no")
        spool.read(file)
    assert len(names(folder, ".corrupt")) == MAX_CORRUPT


@given(st.binary(max_size=200), st.integers(1, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_content_of_a_file_is_too_odd(spools, folder, data, events):
    spool = spools()
    file, _ = spool.write(body(1), events, None)
    (folder / file.name).write_bytes(data)
    assert spool.read(file) is None
    spool.close()


def test_a_file_that_somebody_took_away_is_no_error(spools, folder):
    spool = spools()
    file, _ = spool.write(body(1), 1, None)
    (folder / file.name).unlink()
    assert spool.read(file) is None
    spool.remove(file)


# ---- a folder that others may touch ----------------------------------------------------------------------


def test_a_folder_that_others_may_read_is_refused_once(spools, folder):
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    spool = spools()
    for _ in range(3):
        assert spool.write(body(1), 1, None) == (None, [])
    assert len(spool.complaints) == 1
    assert "0700" in spool.complaints[0][1]
    assert list(folder.iterdir()) == []


def test_a_link_of_another_user_is_refused(spools, folder, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    folder.symlink_to(target)
    assert spools().write(body(1), 1, None)[0] is not None, "one's own link is fine"
    if os.geteuid() == 0:  # only root can make the link of another user
        os.chown(folder, 65534, 65534, follow_symlinks=False)
        spool = spools()
        assert spool.write(body(1), 1, None)[0] is None
        assert "another user" in spool.complaints[0][1]


def test_a_planted_link_is_not_followed(spools, folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    spool = spools()
    file, _ = spool.write(body(1), 1, None)
    (folder / file.name).unlink()
    (folder / file.name).symlink_to(victim)
    with pytest.raises(OSError, match=r"."):
        spool.read(file)
    # The next name is known: number and time apart, nothing in it is secret to who can look into the folder.
    spool.remove(file)
    assert victim.read_text() == "precious"


def test_the_key_is_in_no_name_and_no_file(exporters, folder):
    config = LumiqConfig(api_key="lqt_" + "5ec7e7" * 10, spool_dir=folder)
    spool = Spool(str(folder), lambda: destination(config), max_bytes=MIB, max_age=60)
    exporter = exporters(Wire(DOWN), spool)
    submit(exporter, 3)
    assert not exporter.close(0.3)
    assert names(folder)
    for path in folder.iterdir():
        assert "5ec7e7" not in path.name
        assert b"5ec7e7" not in path.read_bytes()
        assert (
            path.suffix != ".batch" or b"5ec7e7" not in decompress(path.read_bytes().partition(b"\n")[2])[0]
        )


def test_destinations_differ_by_server_and_by_key():
    options = [("lqt_a", "http://one"), ("lqt_b", "http://one"), ("lqt_a", "http://two")]
    found = {destination(LumiqConfig(api_key=key, base_url=url)) for key, url in options}
    assert len(found) == 3


# ---- bounds ----------------------------------------------------------------------------------------------


def test_the_oldest_of_ours_make_room(spools, folder):
    wall = Wall()
    spool = spools(max_bytes=3 * BLOCK, wall=wall)
    files = []
    for number in range(3):
        wall.now += 1
        files.append(spool.write(body(number), 1, None)[0])
    assert spool.write(body(3), 1, files[0])[1] == [files[1]], "what is being sent stays"
    assert spool.write(body(4), 1, None)[1] == [files[0]]
    assert len(names(folder)) == 3


def test_a_batch_larger_than_the_spool_stays_in_memory(spools):
    spool = spools(max_bytes=BLOCK)
    assert spool.write(os.urandom(2 * BLOCK), 1, None) == (None, [])


def test_where_others_fill_the_folder_ours_are_not_removed_for_nothing(spools, folder):
    other = spools("bb")
    for number in range(3):
        other.write(body(number), 1, None)
    spool = spools(max_bytes=4 * BLOCK)
    file, _ = spool.write(body(1), 1, None)
    spool.sweep(None)
    assert spool.write(body(2), 1, file) == (None, []), "what is being sent and what others have fill it"
    small = spools(max_bytes=3 * BLOCK)
    small.sweep(None)
    assert small.write(body(1), 1, None) == (None, [])
    assert "full" in small.complaints[0][1]


def test_what_is_too_old_is_dropped(spools, folder):
    wall = Wall()
    first = spools(wall=wall, max_age=100)
    first.write(body(1), 1, None)
    first.close()
    wall.now += 101
    adopted, expired = spools(wall=wall, max_age=100).sweep(None)
    assert adopted == expired
    assert len(expired) == 1
    assert names(folder) == []


def test_old_files_of_other_destinations_do_not_stay_for_ever(spools, folder):
    wall = Wall()
    first = spools("aa", wall=wall, max_age=100)
    first.write(body(1), 1, None)
    first.close()
    wall.now += 101
    other = spools("bb", wall=wall, max_age=100)
    assert other.sweep(None) == ([], [])
    assert names(folder) == []
    assert "too old" in other.complaints[0][1]


# ---- an exporter with a spool -----------------------------------------------------------------------------


def test_a_batch_is_on_disk_before_it_is_sent_and_gone_when_it_was_accepted(exporters, spools, folder):
    seen = []
    exporter = exporters(Wire(lambda _events: seen.append(len(names(folder))) or Reply(202, {})), spools())
    submit(exporter, 3)
    assert exporter.flush(20)
    assert seen == [1]
    wait_until(lambda: not names(folder))


@pytest.mark.parametrize("status", [404, 307])
def test_a_batch_that_is_refused_for_good_leaves_no_file(exporters, spools, folder, status):
    exporter = exporters(Wire(Reply(status, {})), spools())
    submit(exporter, 3)
    assert not exporter.flush(20)
    wait_until(lambda: not names(folder))


def test_what_comes_while_the_server_hangs_is_on_disk_all_the_same(exporters, spools, folder):
    release = threading.Event()
    try:
        exporter = exporters(
            Wire(lambda _events: release.wait(30) and Reply(202, {})), spools(), flush_interval=0.01
        )
        submit(exporter, 1)
        wait_until(lambda: len(names(folder)) == 1)
        submit(exporter, 1, start=1)
        wait_until(lambda: len(names(folder)) == 2)
    finally:
        release.set()
    assert exporter.flush(20)


@pytest.mark.parametrize(("count", "told"), [(1, "1 event stays"), (120, "120 events stay")])
def test_a_pause_says_what_is_in_the_spool_and_that_nothing_else_waits(
    exporters, spools, folder, caplog, count, told
):
    exporter = exporters(Wire(DOWN), spools())
    submit(exporter, count)
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        exporter.pause(0.5)
    assert f"{told} in the spool as the server stops (down)" in caplog.text
    assert "not delivered" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        exporter.close(0.5)
    assert f"{told} in the spool for the next process (down)" in caplog.text


def test_what_the_end_left_on_disk_is_delivered_by_the_next(exporters, spools, folder, caplog):
    first = exporters(Wire(DOWN), spools())
    submit(first, 250)
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        assert not first.close(0.3)
    stats = first.stats()
    assert (stats.recorded, stats.spooled, stats.dropped) == (250, 250, {})
    assert "250 events stay in the spool" in caplog.text
    wire = Wire()
    second = exporters(wire, spools())
    submit(second, 1, start=250)
    assert second.close(20)
    assert sorted(number for batch in wire.sent for number in batch) == list(range(251))
    stats = second.stats()
    assert (stats.recorded, stats.sent, stats.replayed, stats.spooled) == (1, 1, 250, 0)
    assert names(folder) == []


def test_an_end_without_time_still_leaves_all_on_disk(exporters, spools):
    first = exporters(Wire(DOWN), spools(), flush_interval=60)
    submit(first, 40)
    first.close(0)
    stats = first.stats()
    assert stats.spooled + stats.dropped.get("shutdown", 0) == 40
    assert stats.spooled


def test_an_outage_longer_than_memory_loses_nothing(exporters, spools):
    up = threading.Event()

    def answer(_events):
        if up.is_set():
            return Reply(202, {})
        raise DOWN

    wire = Wire(answer)
    exporter = exporters(wire, spools(), max_queue_events=1000, rand=lambda: 0.001, flush_interval=0.01)
    for start in range(0, 5000, 500):
        submit(exporter, 500, start=start)
        wait_until(lambda: not len(exporter._queue))
    stats = exporter.stats()
    assert stats.spooled > 3000
    assert stats.queued + stats.in_flight <= 1000
    assert (stats.dropped, balance(stats)) == ({}, 5000)
    up.set()
    assert exporter.flush(30)
    assert exporter.stats().sent == 5000
    accepted = {number for batch in wire.sent for number in batch}
    assert accepted == set(range(5000))


def test_a_spool_that_is_full_drops_the_oldest_and_counts_them(exporters, spools):
    wire = Wire(DOWN)
    exporter = exporters(wire, spools(max_bytes=20 * BLOCK), max_queue_events=300, flush_interval=0.01)
    for start in range(0, 5000, 100):
        submit(exporter, 100, start=start)
        wait_until(lambda: not len(exporter._queue))
    stats = exporter.stats()
    assert stats.dropped["spool_full"] > 1000
    assert balance(stats) == stats.recorded == 5000


def test_a_process_that_lives_on_replays_too_after_an_outage(exporters, spools):
    up = threading.Event()

    def answer(_events):
        if up.is_set():
            return Reply(202, {})
        raise DOWN

    exporter = exporters(Wire(answer), spools(), rand=lambda: 0.0, flush_interval=0.01)
    submit(exporter, 1)
    wait_until(lambda: exporter.stats().retried >= OPEN_AFTER)
    gone = spools()
    gone.write(compress([json.dumps({"metadata": {"number": 7}}).encode()]), 1, None)
    gone.close()
    up.set()
    wait_until(lambda: exporter.stats().replayed == 1)


def test_a_poisoned_event_from_an_earlier_process_is_given_up_alone(exporters, spools, folder):
    first = exporters(Wire(DOWN), spools())
    submit(first, 20)
    first.close(0.2)
    wire = Wire(lambda events: Reply(400 if any(e["metadata"]["number"] == 7 for e in events) else 202, {}))
    second = exporters(wire, spools())
    submit(second, 1, start=100)
    second.flush(20)
    wait_until(lambda: second.stats().replayed == 19)
    stats = second.stats()
    assert (stats.recorded, stats.sent, stats.dropped) == (1, 1, {})
    assert stats.replay_dropped == {"rejected": 1}
    wait_until(lambda: not names(folder))


def test_a_file_that_cannot_be_read_does_not_hold_up_the_others(exporters, spools, folder, tmp_path):
    first = exporters(Wire(DOWN), spools(), batch_size=100)
    submit(first, 200)
    first.close(0.3)
    second = exporters(Wire(), spools())
    spool = second._spool
    plain = spool.sweep

    def sweep(spare):
        """Between the look into the folder and the reading somebody exchanges a file for a link."""
        adopted, expired = plain(spare)
        for file in adopted[:1]:
            (folder / file.name).rename(tmp_path / "elsewhere")
            (folder / file.name).symlink_to(tmp_path / "elsewhere")
        return adopted, expired

    spool.sweep = sweep
    submit(second, 1, start=200)
    assert second.flush(20)
    wait_until(lambda: second.stats().replayed == 100)
    submit(second, 1, start=201)
    assert second.flush(20)
    assert second.stats().replay_dropped == {}
    second.close(20)
    assert len([path for path in folder.iterdir() if path.suffix == ".batch"]) == 1


def test_a_damaged_file_of_an_earlier_process_is_counted_and_the_others_arrive(exporters, spools, folder):
    first = exporters(Wire(DOWN), spools(), batch_size=100)
    submit(first, 200)
    first.close(0.3)
    damaged = folder / names(folder)[0]
    damaged.write_bytes(damaged.read_bytes()[:-10])
    wire = Wire()
    second = exporters(wire, spools())
    submit(second, 1, start=200)
    second.flush(20)
    wait_until(lambda: second.stats().replayed == 100)
    assert second.stats().replay_dropped == {"damaged": 100}


def test_a_folder_that_cannot_be_used_costs_the_spool_and_nothing_else(exporters, spools, folder, caplog):
    folder.write_text("a file in its place")
    wire = Wire()
    exporter = exporters(wire, spools())
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        for number in range(5):
            submit(exporter, 1, start=number)
            assert exporter.flush(20)
    assert len([record for record in caplog.records if "spool" in record.message]) == 1
    assert exporter.stats().sent == 5


def test_a_folder_that_vanishes_is_made_again(exporters, spools, folder):
    clock = Wall(0.0)
    spool = spools(clock=clock)
    assert spool.write(body(1), 1, None)[0] is not None
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert spool.write(body(2), 1, None)[0] is not None
    assert len(names(folder)) == 1
    assert spools().sweep(None) == ([], []), "and its lock is there again"


def test_a_disk_that_failed_is_tried_again_later(spools, folder):
    clock = Wall(0.0)
    folder.write_text("")
    spool = spools(clock=clock)
    assert spool.write(body(1), 1, None)[0] is None
    folder.unlink()
    assert spool.write(body(1), 1, None)[0] is None, "not at once"
    clock.now += 61
    assert spool.write(body(1), 1, None)[0] is not None


def test_who_looks_for_what_is_left_does_not_get_in_the_way_of_who_starts(spools, folder):
    code = f"""
from lumiqtrace._delivery.spool import Spool
spool = Spool({str(folder)!r}, lambda: "cd", max_bytes=1 << 30, max_age=60)
spool.write(b"", 1, None)
print("ready", flush=True)
while True:
    spool.sweep(None)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline()
        for _ in range(400):
            spool = spools()
            file, _ = spool.write(body(1), 1, None)
            assert file is not None, spool.complaints
            spool.remove(file)
            spool.close()
    finally:
        process.kill()
        process.communicate()


def test_a_forked_child_does_not_keep_its_parents_lock(spools, folder):
    code = f"""
import os, sys, time
from lumiqtrace._delivery.spool import Spool
spool = Spool({str(folder)!r}, lambda: "ab", max_bytes=1 << 30, max_age=60)
spool.write(b"left behind", 1, None)
if os.fork() == 0:
    os.close(1)
    os.close(2)
    time.sleep(60)
os.write(1, b"gone")
os._exit(0)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout.read() == b"gone"
        assert process.wait(20) == 0
        assert len(spools().sweep(None)[0]) == 1
    finally:
        os.killpg(process.pid, 9)
        process.stdout.close()


def test_a_file_that_was_written_just_after_the_end_counts_as_left_there(spools):
    queue = EventQueue(100, MIB)
    outbox = Outbox(queue, 100, MIB, spooled=True, on_error=None, clock=lambda: 0.0, rand=lambda: 0.0)
    queue.put(Note(0))
    outbox.take(100)
    assert outbox.close() == 1
    file, _ = spools().write(body(0), 1, None)
    outbox.add(Batch(body(0), 1, 0, file))
    stats = outbox.account()
    assert (stats.recorded, stats.spooled, stats.dropped) == (1, 1, {})


def test_the_wall_clock_may_jump(exporters, spools):
    wall = Wall()
    wire = Wire(DOWN, Reply(202, {}))
    exporter = exporters(wire, spools(wall=wall, max_age=7 * 86_400), flush_interval=0.01)
    for number, jump in enumerate((86_400, -86_400, -86_400, 86_400)):
        wall.now += jump
        submit(exporter, 1, start=number)
        wait_until(lambda number=number: exporter.stats().sent == number + 1)


@pytest.mark.parametrize("spooled", [True, False])
def test_the_account_balances_at_every_moment(exporters, spools, spooled):
    """Whoever asks, whenever: while threads record and flush and the server is never in the same mood."""
    moods = [
        Reply(202, {}),
        DOWN,
        Reply(500, {}),
        Reply(413, {}),
        Reply(202, {}),
        Reply(400, {}),
        Reply(202, {}),
    ]
    turn = iter(range(10**9))
    wire = Wire(lambda _events: moods[next(turn) % len(moods)])
    plain = wire.send

    def send(*args):
        reply = plain(*args)
        if isinstance(reply, Exception):
            raise reply
        return reply

    wire.send = send
    exporter = exporters(
        wire,
        spools(max_bytes=30 * BLOCK) if spooled else None,
        max_queue_events=60,
        flush_interval=0.01,
        batch_size=10,
        rand=lambda: 0.0001,
    )
    stop = threading.Event()
    wrong = []

    def watch():
        while not stop.is_set():
            stats = exporter.stats()
            parts = [stats.sent, stats.queued, stats.in_flight, stats.spooled, *stats.dropped.values()]
            if balance(stats) != stats.recorded or min(parts) < 0:
                wrong.append(stats)

    def record(start):
        for number in range(start, start + 1500):
            exporter.submit(Note(number))
            if number % 100 == 0:
                exporter.flush(0.01)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    recorders = [threading.Thread(target=record, args=(start,)) for start in (0, 10_000, 20_000)]
    for thread in watchers + recorders:
        thread.start()
    for thread in recorders:
        thread.join()
    exporter.close(0.5)
    stop.set()
    for thread in watchers:
        thread.join()
    assert not wrong, wrong[0]
    assert exporter.stats().recorded == 4500


# ---- what cannot be read, what is gone, what is not ours --------------------------------------------------


def in_an_outage(exporters, spool, answer, **options):
    """300 events in three batches, the later two of them on disk alone; and the batch that is last."""
    exporter = exporters(Wire(answer), spool, max_queue_events=400, flush_interval=0.01, **options)
    for start in range(0, 300, 100):
        submit(exporter, 100, start=start)
        wait_until(lambda: not len(exporter._queue))
    wait_until(lambda: exporter.stats().spooled >= 100)
    return exporter, exporter._outbox._batches[-1]


def sweep_now(exporter):
    exporter._delivery.sweep_at = 0.0
    exporter._loop.wake()


def switched(up):
    return lambda _events: Reply(202, {}) if up.is_set() else Reply(503, {})


def unreadable_until_put_back(folder, file, tmp_path):
    (folder / file.name).rename(tmp_path / "elsewhere")
    (folder / file.name).symlink_to(tmp_path / "elsewhere")


def test_a_file_that_could_not_be_read_for_a_moment_is_tried_again(exporters, spools, folder, tmp_path):
    up = threading.Event()
    exporter, last = in_an_outage(exporters, spools(), switched(up))
    unreadable_until_put_back(folder, last.file, tmp_path)
    up.set()
    assert not exporter.flush(20)
    wait_until(lambda: exporter.stats().sent == 300 - last.events)
    assert exporter.stats().spooled == last.events
    (folder / last.file.name).unlink()
    (tmp_path / "elsewhere").rename(folder / last.file.name)
    sweep_now(exporter)
    wait_until(lambda: exporter.stats().sent == 300)
    assert exporter.stats().dropped == {}
    assert exporter.flush(20)


def test_what_could_not_be_read_and_is_too_old_then_is_counted(exporters, spools, folder, tmp_path, caplog):
    wall, up = Wall(), threading.Event()
    exporter, last = in_an_outage(exporters, spools(wall=wall, max_age=100.0), switched(up))
    unreadable_until_put_back(folder, last.file, tmp_path)
    up.set()
    exporter.flush(20)
    wait_until(lambda: exporter.stats().sent == 300 - last.events)
    wall.now += 200
    sweep_now(exporter)
    wait_until(lambda: exporter.stats().dropped == {"expired": last.events})
    assert (exporter.stats().spooled, balance(exporter.stats())) == (0, 300)
    with caplog.at_level(logging.WARNING, "lumiqtrace"):
        exporter.close(1)
    assert "for the next process" not in caplog.text


def test_a_file_that_goes_while_it_is_sent_costs_nothing(exporters, spools):
    up = threading.Event()
    spool = spools()

    def answer(_events):
        outbox = exporter._outbox
        if not up.is_set():
            return Reply(503, {})
        batch = outbox.sending
        if batch.body is None and not gone:
            gone.append(batch)
            spool.remove(batch.file)
            with outbox.lock:
                outbox.lose(batch.file, "spool_full")
            return Reply(503, {})
        return Reply(202, {})

    gone = []
    exporter, _ = in_an_outage(exporters, spool, answer)
    up.set()
    assert exporter.flush(20)
    assert gone
    assert (exporter.stats().sent, exporter.stats().dropped) == (300, {})


def test_a_file_that_made_room_just_before_it_was_read_is_not_called_damaged(exporters, spools):
    up = threading.Event()
    spool = spools()
    read = spool.read
    gone = []

    def evicted_first(file):
        if not gone:
            gone.append(file)
            spool.remove(file)
            with exporter._outbox.lock:
                exporter._outbox.lose(file, "spool_full")
        return read(file)

    spool.read = evicted_first
    exporter, _ = in_an_outage(exporters, spool, switched(up))
    up.set()
    assert not exporter.flush(20)
    stats = exporter.stats()
    assert stats.dropped == {"spool_full": gone[0].events}
    assert (stats.sent, balance(stats)) == (300 - gone[0].events, 300)


def test_the_limit_is_that_of_the_folder(spools, folder):
    clock = Wall(0.0)
    spool = spools(max_bytes=64 * BLOCK, clock=clock)
    assert spool.write(body(1), 1, None)[0]
    other = spools("bb")
    for number in range(62):
        assert other.write(body(number), 1, None)[0]
    clock.now += 2
    for number in range(2, 6):
        spool.write(body(number), 1, None)
    assert len(names(folder)) == 64


def test_the_limit_is_that_of_the_folder_also_for_who_writes_much(spools, folder):
    spool = spools(max_bytes=32 * BLOCK, clock=Wall(0.0))
    other = spools("bb")
    spool.write(body(0), 1, None)
    for number in range(28):
        assert other.write(body(number), 1, None)[0]
    for number in range(1, 10):
        spool.write(body(number), 1, None)
    assert len(names(folder)) == 32


def test_a_spool_that_does_not_work_leaves_the_memory_as_it_is_without(exporters, spools, tmp_path):
    (tmp_path / "file").touch()
    spool = spools(path=tmp_path / "file" / "spool")
    exporter = exporters(Wire(DOWN), spool, max_queue_events=2000, flush_interval=0.01)
    for start in range(0, 1500, 100):
        submit(exporter, 100, start=start)
        wait_until(lambda: not len(exporter._queue))
    assert exporter.stats().dropped == {}
    assert balance(exporter.stats()) == 1500
    for start in range(1500, 4000, 100):
        submit(exporter, 100, start=start)
        wait_until(lambda: not len(exporter._queue))
    stats = exporter.stats()
    assert 1500 < stats.queued + stats.in_flight <= 2000
    assert balance(stats) == 4000
