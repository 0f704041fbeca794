"""The client: one configuration, one exporter, and the process's default client.

It survives a fork: the child gets a queue, a thread and a connection of its own, and the parent's events
stay the parent's. The process id is compared on every recording, because some servers fork behind
Python's back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from . import _lifecycle
from ._config import LumiqConfig
from ._event import Recording
from ._exporter import Exporter
from ._guard import Guard
from ._pipeline import Pipeline
from ._queue import Stats
from ._redact import Redactor
from ._sampler import Held, Sampled
from ._transport import HttpTransport, Transport

logger = logging.getLogger("lumiqtrace")

_recording = Guard("recording", limit=None)

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
        self.redactor = Redactor(
            config.redact_fields, replace=config.replace_default_redact_fields, secrets=config.redact_secrets
        )
        self._transport = transport or HttpTransport
        self._exporters: dict[int, Exporter] = {}
        self._held: dict[int, Held] = {}
        self._active = config.active
        self._closed = False
        if self._active:
            _lifecycle.watch(self)

    def __repr__(self) -> str:
        return f"<lumiqtrace.Client {'on' if self.recording else 'off'} {self.config.base_url}>"

    @property
    def recording(self) -> bool:
        """Whether calls are recorded: there is a key, it is enabled, samples, and was not shut down."""
        return self._active and not self._closed

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
        flush. One HTTP request for up to 100 events.
        """
        if not self._active:
            return True
        self._settle(final=False)
        return self._exporter().flush(_seconds(timeout, self.config.flush_timeout))

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio: waits without blocking the event loop, on a thread of its own."""
        if not self._active:
            return True
        # Here, in the task that may have left a stream; the thread below is another reader to it.
        self._settle(final=False)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def flush() -> None:
            result = self.flush(timeout)
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_resolve, done, result)

        # The default executor may be busy for longer than the timeout.
        threading.Thread(target=flush, name="lumiqtrace-flush", daemon=True).start()
        return await done

    def shutdown(self, timeout: float | None = None) -> bool:
        """Flush, then stop for good. `timeout` is seconds and defaults to `shutdown_timeout` (2.0)."""
        if not self._active or self._closed:
            return True
        self._settle(final=True)
        self._closed = True
        _lifecycle.unwatch(self)
        return self._exporter().close(_seconds(timeout, self.config.shutdown_timeout))

    def stats(self) -> Stats:
        """Where every event of this process is; see `Stats`."""
        return self._exporter().stats() if self._active else Stats()

    def at_exit(self) -> None:
        self.shutdown()

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
        return found or self._exporters.setdefault(process, self._new_exporter())

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
            pipeline=Pipeline(self.redactor, config.before_send),
            on_error=_print_line if config.debug else None,
        )


def _resolve(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


def _seconds(timeout: float | None, default: float) -> float:
    """What was passed, where it is a number of seconds; a flush is no place to raise."""
    return max(0.0, timeout) if isinstance(timeout, int | float) else default


def _print_line(message: str) -> None:
    """The seeds promise flush errors on stdout with `debug=True`."""
    if sys.stdout is not None:
        sys.stdout.write(message + "\n")


_off = Client(LumiqConfig(enabled=False))
_default = _off
_replacing = threading.Lock()
_said_off = False


def default_client() -> Client:
    """The client that `init` built; before that, one that records nothing."""
    return _default


def set_default(config: LumiqConfig) -> Client:
    """Make the default client one with `config`; the one there is stays when its options are the same."""
    global _default  # noqa: PLW0603 - the one piece of process-wide state, kept here
    with _replacing:
        previous = _default
        if previous.config == config and (previous.recording or not config.active):
            return previous
        _default = Client(config)
    previous.shutdown()
    if not config.active:
        _say_off(config)
    return _default


def client_for(config: LumiqConfig) -> Client:
    """The client that a middleware with `config` records on.

    The default client, where `init` has made one, also one that it switched off or that samples nothing;
    else the default client becomes one with `config`. A `config` that is off by itself changes nothing.
    """
    there = _default
    made = there is not _off and not there.closed
    if not config.enabled or (made and (there.config.api_key is not None or not there.config.enabled)):
        return there
    return set_default(config)


def shutdown_default(timeout: float | None = None) -> bool:
    return _default.shutdown(timeout)


def _say_off(config: LumiqConfig) -> None:
    global _said_off  # noqa: PLW0603 - said once a process
    if not _said_off:
        _said_off = True
        why = "there is no API key (LUMIQTRACE_API_KEY)"
        if not config.enabled:
            why = "enabled is False"
        elif config.api_key is not None:
            why = "sample_rate is 0"
        logger.info("lumiqtrace: off, nothing is recorded: %s", why)
