"""One event loop for the coroutines of one process, kept from one to the next.

With a loop for each, the connections that a client at module level keeps would belong to a loop that is
closed.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_kept: tuple[int, asyncio.Runner] | None = None


def is_looping() -> bool:
    """Whether an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")  # to load it takes long, in a process that starts for one call
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_to_end(running: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, in a copy of this context as a task would; gives its result.

    What it leaves running goes on with the next one. Other threads than the main one, which may end before
    the process does, have a loop for each call. The loop that the host has set stays set: a runner with a
    factory sets none.
    """
    import asyncio

    if threading.current_thread() is not threading.main_thread():
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(running)
    return _runner().run(running, context=copy_context())


def _runner() -> asyncio.Runner:
    import asyncio

    global _kept  # noqa: PLW0603 - the loop belongs to the process, as this does
    if _kept is None or _kept[0] != os.getpid():
        if _kept is None:
            atexit.register(_close)
        _kept = os.getpid(), asyncio.Runner(loop_factory=asyncio.new_event_loop)
    return _kept[1]


def _close() -> None:
    if _kept is not None and _kept[0] == os.getpid():
        _kept[1].close()
