"""Every hook into the life of the process, in one file: its end, and its forks.

Hooks are registered once, when the first client is built, and hold no client alive.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Final, Protocol


class Lifelong(Protocol):
    def at_exit(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


_clients: Final[weakref.WeakSet[Lifelong]] = weakref.WeakSet()
_installed = False


def watch(client: Lifelong) -> None:
    """Tell `client` when the interpreter ends and when it finds itself in a forked child."""
    global _installed  # noqa: PLW0603 - the hooks belong to the process, as this flag does
    _clients.add(client)
    if not _installed:
        _installed = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork_in_child)


def unwatch(client: Lifelong) -> None:
    _clients.discard(client)


def _at_exit() -> None:
    for client in list(_clients):
        client.at_exit()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.after_fork_in_child()
