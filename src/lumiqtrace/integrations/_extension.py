"""AWS Lambda's internal extension: a thread that has the sandbox wait for a flush, after the answer has left.

The sandbox may freeze once the runtime and every extension have asked for the next event. So whatever
happens to a flush, this thread asks again within a bounded time; a sandbox that waits for it in vain would
fail every invocation. Where the platform takes no extension, `hold` says so, and the caller flushes itself.
The protocol is that of the AWS Lambda developer guide's page "Lambda Extensions API", version 2020-01-01.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .._guard import Guard
from ._flushing import MARGIN, budget_of

NAME: Final = "lumiqtrace"
REGISTER: Final = "/2020-01-01/extension/register"
NEXT: Final = "/2020-01-01/extension/event/next"

REGISTER_SECONDS: Final = 2.0
PATIENCE: Final = 1.0
"""Seconds from an invocation's event to the handler's first line; a handler that is not ours never comes."""

ANSWER_SECONDS: Final = 1.0
"""Seconds that are waited for the runtime to post the answer, once the handler has returned."""

GRACE: Final = 0.5
"""Seconds beyond its budget in which a flush that keeps to it returns."""

RETRY_SECONDS: Final = 0.2

_reaching: Final = Guard("the Lambda extension", limit=None)
_flushing: Final = Guard("flushing after the answer", limit=None)


class Extension:
    """One registration. `flush(seconds)` is called after each invocation that `hold` was called for."""

    def __init__(self, api: str, flush: Callable[[float], object]) -> None:
        """`api` is the `host:port` of the platform's interface."""
        self._api = api
        self._flush = flush
        self._limit = 0.0
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._settled = False
        self._polls = False
        self._began: str | None = None
        self._ended: str | None = None
        self._let_go: str | None = None
        self._runtime: tuple[int, FrameType] | None = None
        self._connection: Any = None
        self._flusher: threading.Thread | None = None

    # ---- what the handler's thread calls ---------------------------------------------------------------

    def start(self) -> bool:
        """Register and begin to ask for events; False where that was refused. Takes at most 2 s.

        While the sandbox initialises: later the platform takes no registration.
        """
        import http.client  # noqa: F401 - the thread must not wait for an import that this one may hold

        # The thread comes first: to register and then not to ask would fail every invocation.
        threading.Thread(target=self._run, name="lumiqtrace-extension", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._settled, REGISTER_SECONDS)
            return self._polls

    def begin(self, request_id: str | None) -> None:
        """An invocation's handler begins; `hold` must follow."""
        if self._process != os.getpid():  # a forked child: the lock may be held by a thread it does not have
            return
        with self._changed:
            self._began = request_id
            self._changed.notify_all()

    def release(self, request_id: str | None) -> None:
        """An invocation's handler begins that flushes for itself."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._let_go = request_id
            self._changed.notify_all()

    def hold(self, request_id: str | None, limit: float) -> bool:
        """The handler has ended; True where the sandbox waits for this to flush, for at most `limit` s."""
        if self._process != os.getpid():
            return False
        with self._changed:
            if not self._polls or request_id is None or self._let_go == request_id:
                self._let_go = request_id
                self._changed.notify_all()
                return False
            self._ended = request_id
            self._limit = limit
            self._runtime = _runtime_frame()
            self._changed.notify_all()
            return True

    # ---- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        identifier = _reaching(self._register)
        with self._changed:
            self._settled = True
            self._polls = identifier is not None
            self._changed.notify_all()
        while identifier is not None:
            invoked = _reaching(self._next, identifier)
            with self._changed:
                self._polls = invoked is not None
            if invoked is None:
                self._connection = None
                time.sleep(RETRY_SECONDS)
            else:
                _reaching(self._serve, invoked)

    def _register(self) -> str:
        import http.client

        # However late the answer: once registered, the platform waits for this thread to ask for events.
        connection = http.client.HTTPConnection(self._api, timeout=None)
        try:
            headers = {"Lambda-Extension-Name": NAME, "Content-Type": "application/json"}
            connection.request("POST", REGISTER, json.dumps({"events": ["INVOKE"]}), headers)
            answer = connection.getresponse()
            answer.read()
            identifier = answer.headers["Lambda-Extension-Identifier"]
            if answer.status != 200 or not identifier:
                raise ConnectionError(f"the registration was answered with {answer.status}")
            return str(identifier)
        finally:
            connection.close()

    def _next(self, identifier: str) -> dict[str, Any]:
        """Wait for the next event, however long: the sandbox may freeze meanwhile."""
        import http.client

        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._api, timeout=None)
        connection = self._connection
        connection.request("GET", NEXT, headers={"Lambda-Extension-Identifier": identifier})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            connection.close()
            raise ConnectionError(f"the next event was answered with {answer.status}")
        event = json.loads(body)
        return event if isinstance(event, dict) else {}

    def _serve(self, event: dict[str, Any]) -> None:
        request_id, deadline = str(event.get("requestId")), float(event.get("deadlineMs") or 0) / 1000
        if not self._await_end(request_id, deadline):
            return
        self._await_answer()
        seconds = budget_of(self._limit, deadline - time.time(), MARGIN)
        if seconds > 0:
            self._flush_within(seconds)

    def _await_end(self, request_id: str, deadline: float) -> bool:
        """Wait until the invocation's handler has ended; False where it is none of ours, or too late."""
        with self._changed:
            patience = min(PATIENCE, deadline - time.time())
            if self._changed.wait_for(lambda: self._knows(request_id), patience):
                self._changed.wait_for(lambda: self._is_over(request_id), deadline - time.time())
            if self._ended == request_id:
                return True
            # From here on its handler flushes for itself.
            self._let_go = request_id
            return False

    def _knows(self, request_id: str) -> bool:
        return self._began == request_id or self._is_over(request_id)

    def _is_over(self, request_id: str) -> bool:
        """Whether its handler has ended, or flushes for itself."""
        return request_id in (self._ended, self._let_go)

    def _await_answer(self) -> None:
        """Wait until the runtime has posted the answer: the function that calls the handler has returned."""
        runtime, self._runtime = self._runtime, None
        if runtime is None:
            return
        until = time.monotonic() + ANSWER_SECONDS
        while _is_running(*runtime) and time.monotonic() < until:
            time.sleep(0.001)

    def _flush_within(self, seconds: float) -> None:
        """Flush on a thread of its own: one that hangs is left behind, and none is begun beside it."""
        if self._flusher is not None and self._flusher.is_alive():
            return
        thread = threading.Thread(
            target=_flushing, args=(self._flush, seconds), name="lumiqtrace-flush", daemon=True
        )
        thread.start()
        self._flusher = thread
        thread.join(seconds + GRACE)


def _runtime_frame() -> tuple[int, FrameType] | None:
    """The thread and the frame in which AWS's runtime calls the handler and posts its answer."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "handle_event_request":
        frame = frame.f_back
    return None if frame is None else (threading.get_ident(), frame)


def _is_running(thread: int, frame: FrameType) -> bool:
    found = sys._current_frames().get(thread)
    while found is not None and found is not frame:
        found = found.f_back
    return found is not None
