"""`capture`: for a block of code, the default client is one that delivers into memory.

The pipeline is the real one: what is captured was priced, redacted and encoded as it would be on its way
to a server. Only the key, the address, the spool and the sampling are not the application's.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from .. import _default
from .._client import Client
from .._config import LumiqConfig
from .._event import Recording
from .._sampler import Sampled
from ._backend import KEY
from ._events import Events
from ._memory import MemoryTransport

WAIT: Final = 30.0
"""Seconds a look at the events waits for them; they take milliseconds."""

_OURS: Final[Mapping[str, Any]] = {
    "api_key": KEY,
    "base_url": "https://capture.invalid",
    "enabled": True,
    "sample_rate": 1.0,
    "sample_errors": False,
    "spool_dir": None,
}


@contextmanager
def capture(**options: Any) -> Iterator[Events]:
    """A block whose events are caught: `with lumiqtrace.testing.capture() as events: ...`.

    Everything is recorded, whatever key, `enabled`, `sample_rate` and `spool_dir` the application set or
    sets, and nothing leaves the process. All else is as the application's `init` said, before or inside the
    block; `options`, those of `LumiqConfig`, go before both. Patches such as `patch_openai()` are left as
    they are. Afterwards the client that was there is back. Raises ConfigError for a wrong option.

    It is the process's default client that is replaced, so one block at a time may run in a process, or one
    inside the other; threads and tasks of the block are captured with it.
    """
    catcher = _Catcher(options)
    before, set_before = _default.default_client(), _default.set_default
    began = before.config if before is not _default._off else LumiqConfig.from_options({})
    _put(catcher.catch(began), catcher.set_default)
    try:
        yield Events(catcher.lines)
    finally:
        _put(before, set_before)
        catcher.end()


def _put(client: Client, set_default: Callable[[LumiqConfig], Client]) -> None:
    """Make `client` the default one, and `set_default` what `init` and the middlewares call."""
    with _default._replacing:
        _default._current = client
        _default.__dict__["set_default"] = set_default


class _Catcher:
    """The clients of one block, one after the other, and the memory they deliver into."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._memory = MemoryTransport()
        self._clients: list[Client] = []

    def catch(self, config: LumiqConfig) -> Client:
        """A client with the options of `config`, except for ours and the block's."""
        client = _CapturingClient(_captured(config, self._options), lambda _config: self._memory)
        self._clients.append(client)
        return client

    def set_default(self, config: LumiqConfig) -> Client:
        """What `init` does inside the block."""
        previous = self._clients[-1]
        if previous.recording and previous.config == _captured(config, self._options):
            return previous
        client = self.catch(config)
        with _default._replacing:
            _default._current = client
        previous.shutdown(WAIT)
        return client

    def lines(self) -> Sequence[Mapping[str, Any]]:
        """All that was recorded so far, as it is on the wire."""
        __tracebackhide__ = True
        delivered = self._clients[-1].flush(WAIT)
        lost: Counter[str] = Counter()
        for client in self._clients:
            lost.update(client.stats().dropped)
        for wanted in ("before_send", "shutdown"):  # the user's word, and what came after the end
            del lost[wanted]
        if not delivered and not lost:
            lost["late"] = self._clients[-1].stats().queued
        if told := ", ".join(f"{count} {reason}" for reason, count in lost.items() if count):
            raise AssertionError(f"events were lost before they were captured: {told}; see the log at DEBUG")
        return self._memory.events

    def end(self) -> None:
        for client in self._clients:
            client.shutdown(WAIT)


class _CapturingClient(Client):
    """Records also what a middleware's own `sample_rate` would leave out."""

    def record(self, recording: Recording, trace: Sampled | None = None) -> None:  # noqa: ARG002 - sampled or not
        super().record(recording)


def _captured(config: LumiqConfig, options: Mapping[str, Any]) -> LumiqConfig:
    told = {option.name: getattr(config, option.name) for option in dataclasses.fields(config)}
    made = LumiqConfig(**{**told, **_OURS, **options})
    if "spool_dir" not in options:
        # None is as good as not passed, and the environment may name a folder.
        object.__setattr__(made, "spool_dir", None)
    return made
