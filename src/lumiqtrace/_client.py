"""The client: one configuration, and one exporter in each process.

It survives a fork: the child gets a queue, a thread and a connection of its own, and the parent's events
stay the parent's. The process id is compared on every recording, because some servers fork behind
Python's back.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from . import _lifecycle
from ._config import LumiqConfig
from ._delivery.exporter import JUST_NOW, Exporter
from ._delivery.losses import Losses, service_name
from ._delivery.queue import Stats
from ._delivery.transport import HttpTransport, Reply, Transport
from ._event import Recording
from ._guard import Guard, say
from ._own import on_own_thread, own, own_work
from ._pipeline import Pipeline
from ._sampler import Held, Sampled
from ._sigterm import deliver_on_sigterm

if TYPE_CHECKING:
    import asyncio

    from ._delivery.spool import Spool
    from ._redaction.redact import Redactor

_recording = Guard("recording", limit=None)

OUR_SHARE: Final = 0.95
"""Of the time that the end of a process may take; Python takes a tenth of a second to let go of modules."""

LAST_TRY: Final = 0.2
"""Seconds that an end takes for one more request, where all its time was waited in vain already."""

LONG_IN_A_LOOP: Final = 0.05
"""Seconds that a flush may hold up an event loop before it says that `aflush` would not."""

_said_loop = False

Settle = Callable[["Client", bool], None]

_settlers: list[Settle] = []


def before_flush(settle: Settle) -> None:
    """Have `settle(client, final)` called when a flush of `client` begins.

    It submits that client's recordings that are complete but still open; all of them when it shuts down
    (`final`).
    """
    if settle not in _settlers:
        _settlers.append(settle)


class Client:
    """Records events and delivers them. Nothing is started before the first event.

    `transport` makes the transport of each process; the default posts to `config.base_url`.
    """

    def __init__(
        self, config: LumiqConfig, transport: Callable[[LumiqConfig], Transport] | None = None
    ) -> None:
        self.config = config
        self._redactor: Redactor | None = None
        self._transport = _unrecorded(transport or HttpTransport)
        self._exporters: dict[int, Exporter] = {}
        self._held: dict[int, Held] = {}
        self._active = config.active
        self._closed = False
        self._paused = math.inf
        self._pause_over = -math.inf
        if self._active:
            _load(config)
            _lifecycle.watch(self)
            deliver_on_sigterm()

    def __repr__(self) -> str:
        return f"<lumiqtrace.Client {'on' if self.recording else 'off'} {self.config.base_url}>"

    @property
    def redactor(self) -> Redactor:
        """What takes secrets out of texts, by this configuration; made when it is first needed."""
        if self._redactor is None:
            self._redactor = _redactor_for(self.config)
        return self._redactor

    @property
    def recording(self) -> bool:
        """Whether what begins here is recorded.

        There is a key, it is enabled, samples, was not shut down, and this is not its own work.
        """
        return self._active and not self._closed and not own()

    @property
    def closed(self) -> bool:
        """Whether it was shut down."""
        return self._closed

    def record(self, recording: Recording, trace: Sampled | None = None) -> None:
        """Queue one recording; microseconds, and never an error.

        `trace` is the trace it belongs to: where that is not sampled, the recording goes no further, or
        is held until the trace is decided.
        """
        if not self._active:
            return
        if trace is None or trace.sampled:
            _recording(self._submit, recording)
        elif trace.holds:
            _recording(self._hold, recording, trace)

    def flush(self, timeout: float | None = None) -> bool:
        """Block until every event recorded before this call is delivered or given up.

        `timeout` is seconds and defaults to the option `flush_timeout` (5.0). True if all were delivered
        in time; False if some still wait (they are kept and tried again) or were given up since the last
        flush. One HTTP request for up to 100 events. In a coroutine, `await aflush()`; this one would hold
        up its event loop, and says so once. In your `before_send`, `prices` and log handlers it cannot wait
        for itself, and answers at once.
        """
        if not self._active:
            return True
        if _at_our_work():
            return self._exporter().is_settled()
        started = time.monotonic()
        self._settle(final=False)
        delivered = self._exporter().flush(_seconds(timeout, self.config.flush_timeout))
        _warn_of_a_loop(time.monotonic() - started)
        return delivered

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio: waits without blocking the event loop, on a thread of its own."""
        if not self._active:
            return True
        import asyncio

        # Here, in the task that may have left a stream; the thread below is another reader to it.
        self._settle(final=False)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def flush() -> None:
            result = False
            try:
                result = self.flush(timeout)
            finally:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(_resolve, done, result)

        # The default executor may be busy for longer than the timeout.
        try:
            threading.Thread(target=flush, name="lumiqtrace-flush", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, or the process may have no more threads
            return self._exporter().flush(_seconds(timeout, self.config.flush_timeout))
        return await done

    def shutdown(self, timeout: float | None = None) -> bool:
        """Flush, then stop for good. `timeout` is seconds and defaults to `shutdown_timeout` (2.0).

        True if all was delivered in time, or is in the spool. Called again it gives the same answer, after
        it waited for the first call. Interrupted, as by Ctrl-C, it gives up what is left and says so. From
        your `before_send`, `prices` or a log handler it begins the shutdown, and answers at once.
        """
        if not self._active:
            return True
        seconds = _seconds(timeout, self.config.shutdown_timeout)
        if _at_our_work():
            return self._shut_down_later(seconds)
        if self._closed:
            exporter = self._exporters.get(os.getpid())
            return exporter is None or exporter.closed(seconds)
        self._settle(final=True)
        self._closed = True
        return self._close(seconds)

    def _close(self, timeout: float) -> bool:
        try:
            return self._exporter().close(timeout)
        except BaseException:
            self._exporter().close(0.0)
            raise
        finally:
            _lifecycle.unwatch(self)

    def _shut_down_later(self, timeout: float) -> bool:
        """For who must not wait here: what runs is waited for, by another thread or at the exit."""
        exporter = self._exporter()
        if not self._closed:
            self._settle(final=True)
            self._closed = True
            closing = threading.Thread(
                target=self._close, args=(timeout,), name="lumiqtrace-shutdown", daemon=True
            )
            try:
                closing.start()
            except RuntimeError:  # no thread can be started: at the exit, then
                self._closed = False
        return exporter.is_settled()

    def park(self, timeout: float) -> None:
        """End this process's threads and connection in `timeout` seconds, before a snapshot of it is taken.

        What is not delivered is kept, and the next event or flush starts them again.
        """
        exporter = self._exporters.get(os.getpid())
        if exporter is not None:
            exporter.park(timeout)

    def stats(self) -> Stats:
        """Where every event of this process is; see `Stats`."""
        return self._exporter().stats() if self._active else Stats()

    @property
    def exit_timeout(self) -> float:
        return self.config.shutdown_timeout

    @property
    def holds_a_lock(self) -> bool:
        exporter = self._exporters.get(os.getpid())
        return exporter is not None and exporter.holds_its_lock()

    def at_exit(self) -> None:
        """Deliver and stop. Who interrupts that will not wait: the rest is given up, and said so."""
        self._paused = self._paused_before(time.monotonic())
        try:
            seconds = self._left_for_the_end()
            if self._closed:  # by another thread, or by the code that a signal interrupted; not done yet
                self._exporter().flush(seconds)
            else:
                self.shutdown(seconds)
        except KeyboardInterrupt:
            self._exporter().close(0.0)

    def at_pause(self, since: float) -> None:
        """Deliver, and go on recording."""
        self._paused = min(since, self._paused_before(since))
        self._pause_over = math.inf
        try:
            self._settle(final=True)
            self._exporter().pause(self._left_for_the_end())
        finally:
            self._pause_over = time.monotonic()

    def _paused_before(self, now: float) -> float:
        """Since when there has been a pause that is not over, or was just now; else none counts any more."""
        return self._paused if now - self._pause_over < JUST_NOW else math.inf

    def _left_for_the_end(self) -> float:
        """Seconds of `shutdown_timeout` that were not waited in vain since the pause before this end."""
        ours = self.config.shutdown_timeout * OUR_SHARE
        return max(LAST_TRY, ours - self._exporter().waited_in_vain(self._paused))

    def after_fork_in_child(self) -> None:
        self._exporters = {}
        self._held = {}

    def _settle(self, *, final: bool) -> None:
        for settle in _settlers:
            _recording(settle, self, final)
        if final:
            _recording(self._release)

    def _submit(self, recording: Recording) -> None:
        self._exporter().submit(recording)

    def _hold(self, recording: Recording, trace: Sampled) -> None:
        process = os.getpid()
        held = self._held.get(process)
        if held is None:
            held = self._held.setdefault(process, Held())
            deliver_on_sigterm()
        for decided in held.add(recording, trace):
            self._submit(decided)

    def _release(self) -> None:
        held = self._held.pop(os.getpid(), None)
        for decided in held.release() if held else ():
            self._submit(decided)

    def _exporter(self) -> Exporter:
        """This process's exporter. `setdefault` is atomic: two threads that meet here share one."""
        process = os.getpid()
        found = self._exporters.get(process)
        if found is None:
            found = self._exporters.setdefault(process, self._new_exporter())
            if not self._closed:
                deliver_on_sigterm()
        return found

    def _new_exporter(self) -> Exporter:
        _lifecycle.watch_worker(self)
        config = self.config
        return Exporter(
            self._transport(config),
            batch_size=config.batch_size,
            flush_interval=config.flush_interval,
            max_queue_events=config.max_queue_events,
            max_queue_bytes=config.max_queue_bytes,
            prices=config.prices,
            pipeline=Pipeline(partial(_redactor_for, config), config.before_send),
            losses=Losses(service_name(config), config.environment),
            spool=_new_spool(config),
            on_error=_print_line if config.debug else None,
        )


def _redactor_for(config: LumiqConfig) -> Redactor:
    """Its module is loaded here, on the exporter's thread as a rule: 2 ms, a fifth of what we import."""
    with _lifecycle.loading():
        from ._redaction.redact import Redactor

    return Redactor(
        config.redact_fields, replace=config.replace_default_redact_fields, secrets=config.redact_secrets
    )


def _new_spool(config: LumiqConfig) -> Spool | None:
    if config.spool_dir is None:
        return None
    from ._delivery.spool import spool_for

    return spool_for(config)


def _load(config: LumiqConfig) -> None:
    """Import now what the first event needs; a fork in the middle of that would leave the child stuck."""
    with _lifecycle.loading():
        import signal  # noqa: F401

        if config.spool_dir is not None:
            from ._delivery import spool  # noqa: F401


def _at_our_work() -> bool:
    """Whether this is the application's code, called by ours: what it waited for would wait for it."""
    return own() or on_own_thread()


class _Unrecorded:
    """A transport whose requests are not recorded, although the library that sends them may be traced."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        with own_work():
            return self._transport.send(body, headers, timeout)

    def close(self) -> None:
        self._transport.close()


def _unrecorded(make: Callable[[LumiqConfig], Transport]) -> Callable[[LumiqConfig], Transport]:
    return lambda config: _Unrecorded(make(config))


def _resolve(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


def _warn_of_a_loop(seconds: float) -> None:
    """Once a process: `seconds` were waited on a thread that runs an event loop, which stood still."""
    global _said_loop  # noqa: PLW0603 - said once a process
    asyncio = sys.modules.get("asyncio")
    if seconds > LONG_IN_A_LOOP and not _said_loop and asyncio and asyncio._get_running_loop():
        _said_loop = True
        say(
            logging.WARNING,
            "lumiqtrace: flush() held up the running event loop for %.0f ms; "
            "in a coroutine use `await lumiqtrace.aflush()`",
            seconds * 1000,
        )


def _seconds(timeout: float | None, default: float) -> float:
    """What was passed, where it is a number of seconds; a flush is no place to raise."""
    return max(0.0, timeout) if isinstance(timeout, int | float) else default


def _print_line(message: str) -> None:
    """The seeds promise flush errors on stdout with `debug=True`."""
    if sys.stdout is not None:
        sys.stdout.write(message + "\n")
