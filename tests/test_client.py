"""The client's life: off before `init`, one at a time, another in each fork, delivery at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import openai
import pytest
from backend import KEY
from test_openai import CHAT, STREAM, Served, hx, reply, streamed

import lumiqtrace
from lumiqtrace import LumiqConfig, _default
from lumiqtrace._client import LAST_TRY
from lumiqtrace._delivery.transport import Reply


def run(code, backend, **options):
    """`code` in a fresh interpreter, with `init` done; its standard error must stay empty."""
    head = f"import lumiqtrace\nclient = lumiqtrace.init({KEY!r}, base_url={backend.url!r}, **{options!r})\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def names(backend):
    return sorted(event["name"] for event in backend.events)


@pytest.mark.parametrize("options", [None, {}, {"enabled": False, "api_key": KEY}])
def test_without_a_key_or_init_everything_is_a_silent_no_op(options, capsys):
    if options is not None:
        lumiqtrace.init(**options)
    before = set(threading.enumerate())
    lumiqtrace.patch_openai()
    with lumiqtrace.span("nothing") as span:
        span.set_attribute("a", 1)
        span.set_usage(input_tokens=5)
        assert span.trace_id is None
        assert lumiqtrace.get_current_trace_id() is None
        assert lumiqtrace.get_current_span_id() is None
    assert lumiqtrace.flush()
    assert asyncio.run(lumiqtrace.aflush())
    assert lumiqtrace.get_client().stats() == lumiqtrace.Stats()
    assert lumiqtrace.shutdown()
    assert set(threading.enumerate()) <= before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("options", [None, {}, {"enabled": False, "api_key": KEY}])
def test_without_a_key_or_init_a_patched_client_is_as_it_was(options):
    bare = Served(reply(CHAT))
    expected = bare.create()
    if options is not None:
        lumiqtrace.init(**options)
    lumiqtrace.patch_openai()
    patched = Served(reply(CHAT))
    assert patched.create() == expected
    assert patched.sent[0].content == bare.sent[0].content
    stream = Served(streamed(STREAM)).create(stream=True)
    assert type(stream.response) is hx.Response
    assert len(list(stream)) == len(STREAM)
    with pytest.raises(openai.RateLimitError):
        Served(reply({}, 429)).create()
    assert lumiqtrace.get_client().stats().recorded == 0


@pytest.mark.parametrize("code", ["make().create()", "with lumiqtrace.span('work'): pass"])
@pytest.mark.parametrize(("key", "lines"), [(KEY, 1), ("", 0), ("no key", 0)])
def test_a_key_without_init_is_told_once(code, key, lines):
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import lumiqtrace
from test_openai import CHAT, Served, reply
make = lambda: Served(reply(CHAT))
lumiqtrace.patch_openai()
for _ in range(3):
    CODE
assert lumiqtrace.get_client().stats().recorded == 0
""".replace("CODE", code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(Path(__file__).parent)],
        env={**os.environ, "LUMIQTRACE_API_KEY": key}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("before lumiqtrace.init() was called") == lines
    assert len(done.stderr.splitlines()) == lines


def test_off_is_said_once_at_info(caplog):
    _default._said_off = False
    with caplog.at_level(logging.INFO, "lumiqtrace"):
        lumiqtrace.init()
        lumiqtrace.init(environment="staging")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "LUMIQTRACE_API_KEY" in caplog.text


def test_init_with_the_same_options_gives_the_same_client(backend):
    first = lumiqtrace.init(KEY, base_url=backend.url)
    assert lumiqtrace.init(KEY, base_url=backend.url + "/") is first
    assert lumiqtrace.get_client() is first


def test_init_with_other_options_delivers_and_replaces(backend):
    first = lumiqtrace.init(KEY, base_url=backend.url, environment="one")
    with lumiqtrace.span("early"):
        pass
    second = lumiqtrace.init(KEY, base_url=backend.url, environment="two")
    assert second is not first
    assert names(backend) == ["early"], "nothing is left behind with the client that was replaced"
    with lumiqtrace.span("late"):
        pass
    assert lumiqtrace.flush()
    assert [event["environment"] for event in backend.events] == ["one", "two"]


def test_a_wrong_option_leaves_the_client_as_it_was(client):
    with pytest.raises(lumiqtrace.ConfigError, match="batch_size"):
        lumiqtrace.init(KEY, batch_size=1000)
    assert lumiqtrace.get_client() is client


def test_init_starts_no_thread_and_opens_no_socket(backend):
    before = set(threading.enumerate())
    lumiqtrace.init(KEY, base_url=backend.url)
    assert set(threading.enumerate()) <= before
    assert backend.requests == []


def test_shutdown_then_init_records_again(backend):
    lumiqtrace.init(KEY, base_url=backend.url)
    assert lumiqtrace.shutdown()
    with lumiqtrace.span("between"):
        pass
    assert lumiqtrace.flush()
    lumiqtrace.init(KEY, base_url=backend.url)
    with lumiqtrace.span("after"):
        pass
    assert lumiqtrace.flush()
    assert names(backend) == ["after"]


def test_what_is_recorded_is_delivered_when_the_interpreter_ends(backend):
    done = run("with lumiqtrace.span('last'): pass", backend, flush_interval=3600)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend) == ["last"]


def test_an_exception_at_the_end_keeps_its_exit_status(backend):
    done = run("with lumiqtrace.span('last'): raise SystemExit(7)", backend)
    assert (done.returncode, done.stderr) == (7, "")
    assert names(backend) == ["last"]


def test_the_end_is_not_held_up_by_a_server_that_is_gone(backend):
    done = run(
        """
        import time, atexit
        client = lumiqtrace.init(base_url="http://127.0.0.1:9", api_key=client.config.api_key.reveal(),
                                 shutdown_timeout=0.3)
        with lumiqtrace.span('lost'): pass
        started = time.monotonic()
        lumiqtrace.shutdown()
        print(time.monotonic() - started < 2, client.stats().dropped)
        """,
        backend,
    )
    assert done.stdout == "True {'shutdown': 1}\n"
    assert "1 event was not delivered" in done.stderr
    assert KEY not in done.stderr


@pytest.fixture
def stuck():
    """Makes clients whose deliveries hang until the test is over."""
    release = threading.Event()

    class Hanging:
        def send(self, body, headers, timeout):
            release.wait(30)
            return Reply(202, {})

        def close(self):
            pass

    yield lambda **options: lumiqtrace.Client(LumiqConfig(api_key=KEY, **options), lambda _config: Hanging())
    release.set()


def test_a_pause_that_is_long_over_takes_nothing_from_the_time_of_the_end(stuck):
    client = stuck(shutdown_timeout=1.5)
    client.at_pause(time.monotonic())
    lumiqtrace.Span(client, "work", "general", {}).begin().end()
    assert not client.flush(1.3)
    began = time.monotonic()
    client.at_exit()
    assert time.monotonic() - began > 1.0
    assert client.stats().dropped == {"shutdown": 1}


def test_an_end_after_a_pause_in_vain_has_time_for_one_request(stuck):
    client = stuck(shutdown_timeout=0.5)
    lumiqtrace.Span(client, "work", "general", {}).begin().end()
    client.at_pause(time.monotonic())
    began = time.monotonic()
    client.at_exit()
    assert time.monotonic() - began >= LAST_TRY


def test_recording_at_and_after_the_end_is_quiet(backend):
    done = run(
        """
        import atexit
        class Late:
            def __del__(self):
                with lumiqtrace.span('too late'): pass
        keep = Late()
        def last():
            with lumiqtrace.span('at exit'): pass
        atexit.register(last)
        with lumiqtrace.span('before'): pass
        """,
        backend,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend) == ["at exit", "before"]


FORK = """
    import os, sys
    with lumiqtrace.span('parent before'): pass
    # A fork that Python does not see must not happen while a thread is being started.
    while client._exporter()._worker.nudged: os.sched_yield()
    child = {fork}
    if child == 0:
        with lumiqtrace.span('child'): pass
        grandchild = os.fork()
        if grandchild == 0:
            with lumiqtrace.span('grandchild'): pass
            sys.exit(0)
        os.waitpid(grandchild, 0)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with lumiqtrace.span('parent after'): pass
"""


@pytest.mark.parametrize(
    "fork", ["os.fork()", "__import__('ctypes').PyDLL(None).fork()"], ids=["os.fork", "behind Python's back"]
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_child_and_grandchild_deliver_their_own_events_once(backend, fork):
    done = run(FORK.format(fork=fork), backend, flush_interval=3600)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend) == ["child", "grandchild", "parent after", "parent before"]


def test_a_child_forked_while_threads_record_does_not_hang(backend):
    done = run(
        """
        import os, threading
        stop = threading.Event()
        def hammer():
            while not stop.wait(0.0005):
                with lumiqtrace.span('hammer'): pass
        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads: thread.start()
        for number in range(20):
            child = os.fork()
            if child == 0:
                with lumiqtrace.span(f'child {number}'): pass
                os._exit(0 if lumiqtrace.flush(10) else 1)
            assert os.waitpid(child, 0)[1] == 0, number
        stop.set()
        for thread in threads: thread.join()
        """,
        backend,
        shutdown_timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len([name for name in names(backend) if name.startswith("child")]) == 20
    ids = [event["event_id"] for event in backend.events]
    assert len(ids) == len(set(ids))


def test_a_signal_handler_may_flush(backend):
    done = run(
        """
        import os, signal
        signal.signal(signal.SIGUSR1, lambda *_: print(lumiqtrace.flush(10)))
        with lumiqtrace.span('work'):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        """,
        backend,
        flush_interval=3600,
    )
    assert hasattr(signal, "SIGUSR1")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_import_and_init_load_the_standard_library_alone(backend):
    done = run(
        """
        import sys
        top = {name.partition('.')[0] for name in sys.modules}
        print(sorted(top & {'httpx', 'httpx2', 'wrapt', 'genai_prices', 'pydantic', 'openai', 'starlette'}))
        """,
        backend,
    )
    assert done.stdout == "[]\n"


def test_a_worker_of_multiprocessing_delivers_when_it_ends(backend):
    done = run(
        """
        import multiprocessing
        def work():
            with lumiqtrace.span('worker'): pass
        for method in ('fork', 'fork'):
            process = multiprocessing.get_context(method).Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
        backend,
        flush_interval=3600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend) == ["worker", "worker"]


def test_a_span_that_is_open_at_a_fork_is_the_parents_alone(backend):
    done = run(
        """
        import os, sys
        with lumiqtrace.span('around'):
            child = os.fork()
            if child == 0:
                with lumiqtrace.span('in the child'): pass
                sys.exit(0)
            os.waitpid(child, 0)
        """,
        backend,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend) == ["around", "in the child"]


def test_a_timeout_that_is_no_number_is_the_default(client, backend):
    with lumiqtrace.span("work"):
        pass
    assert lumiqtrace.flush("soon")
    assert names(backend) == ["work"]


def test_an_async_flush_does_not_wait_for_a_busy_executor(client, backend):
    async def main():
        release = threading.Event()
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(None, release.wait) for _ in range(64)]
        with lumiqtrace.span("work"):
            pass
        delivered = await lumiqtrace.aflush(10)
        release.set()
        await asyncio.gather(*busy)
        return delivered

    assert asyncio.run(main())
