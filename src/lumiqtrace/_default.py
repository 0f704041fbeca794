"""The process's default client: what `init` makes, and what everything that is given no client records on."""

from __future__ import annotations

import logging
import threading
from typing import Final

from ._client import Client
from ._config import LumiqConfig
from ._guard import Guard, say

_looking: Final = Guard("looking at the environment", limit=None)


class _Unmade(Client):
    """What there is before `init`. It records nothing, and says so where the environment has a key."""

    asked = False

    def __repr__(self) -> str:
        return "<lumiqtrace.Client off, before init>"

    @property
    def recording(self) -> bool:
        if not self.asked:
            self.asked = True
            would = _looking(LumiqConfig)
            if would is not None and would.active:
                say(
                    logging.WARNING,
                    "lumiqtrace: a call or a span began before lumiqtrace.init() was called, and is not "
                    "recorded; a key in the environment alone switches nothing on",
                )
        return False


_off: Final[Client] = _Unmade(LumiqConfig(enabled=False))
_current: Client = _off
_replacing: Final = threading.Lock()
_said_off = False


def default_client() -> Client:
    """The client that `init` built; before that, one that records nothing."""
    return _current


def set_default(config: LumiqConfig) -> Client:
    """Make the default client one with `config`; the one there is stays when its options are the same."""
    global _current  # noqa: PLW0603 - the one piece of process-wide state, kept here
    with _replacing:
        previous = _current
        if previous.config == config and (not config.active or previous.recording):
            return previous
        _current = Client(config)
    previous.shutdown()
    if not config.active:
        _say_off(config)
    return _current


def client_for(config: LumiqConfig) -> Client:
    """The client that a middleware with `config` records on.

    The default client, where `init` has made one, also one that it switched off or that samples nothing;
    else the default client becomes one with `config`. A `config` that is off by itself changes nothing.
    """
    there = _current
    made = there is not _off and not there.closed
    if not config.enabled or (made and (there.config.api_key is not None or not there.config.enabled)):
        return there
    return set_default(config)


def _say_off(config: LumiqConfig) -> None:
    global _said_off  # noqa: PLW0603 - said once a process
    if not _said_off:
        _said_off = True
        why = "there is no API key (LUMIQTRACE_API_KEY)"
        if not config.enabled:
            why = "enabled is False"
        elif config.api_key is not None:
            why = "sample_rate is 0"
        say(logging.INFO, "lumiqtrace: off, nothing is recorded: %s", why)
