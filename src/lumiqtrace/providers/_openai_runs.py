"""Runs of the Assistants API: one event a run, at the answer that tells its end, with all that it used.

A run is begun by one request and told of by others: a stream, the polling of it, tool outputs. Those that
this process began are remembered until one of their answers tells how they ended; what other processes began
is theirs. One whose end nobody saw is recorded at shutdown, as `cancelled` and without tokens.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from .._client import Client
from .._default import default_client
from .._event import Usage
from .._guard import Guard
from ._answer import Answer, Route, count, each, pick, text
from ._call import Call
from ._failure import Failure, is_rate_limit

_reading: Final = Guard("reading a run", limit=None)

MAX_RUNS: Final = 1000
"""Runs that are remembered; the oldest beyond that are recorded as they were last seen."""

_OVER: Final = {
    "completed": None,
    "incomplete": None,
    "failed": "error",
    "cancelled": "cancelled",
    "expired": "timeout",
}
"""The statuses that are a run's last, and what they are in an event."""

_BEGUN: Final = r"/threads/(?:[^/]+/)?runs\Z"
_OF_A_RUN: Final = r"/threads/[^/]+/runs/([^/]+)(?:/submit_tool_outputs|/cancel)?\Z"
_DELTAS: Final = ("thread.message.delta", "thread.run.step.delta")


class RunAnswer(Answer):
    """`run_id` and `is_over` are those of the run as it was last seen."""

    run_id: str | None = None
    is_over = False


def _read(body: Any, answer: Any) -> None:
    """The run, whole: as an answer, or as an event of a stream."""
    if pick(body, "object") != "thread.run":
        return
    state = text(pick(body, "status")) or ""
    answer.run_id = text(pick(body, "id")) or answer.run_id
    answer.is_over = answer.complete = state in _OVER
    answer.model = text(pick(body, "model")) or answer.model
    answer.reports(pick(body, "usage"))
    for call in each(pick(body, "required_action", "submit_tool_outputs", "tool_calls")):
        answer.used(pick(call, "function", "name"))
    if not answer.is_over:
        return
    answer.finish_reason = text(pick(body, "incomplete_details", "reason")) or state
    answer.status = _OVER[state]
    if (error := pick(body, "last_error")) is not None:
        answer.error_code = text(pick(error, "code")) or "error"
        answer.error_message = text(pick(error, "message"))
        answer.status = "rate_limited" if is_rate_limit(answer.error_code) else answer.status


def _fold(event: Any, answer: Answer) -> None:
    _read(event, answer)
    if pick(event, "object") == "thread.message.delta":
        for part in each(pick(event, "delta", "content")):
            answer.said(pick(part, "text", "value"))


def _begins(event: Any) -> bool:
    return pick(event, "object") in _DELTAS


def _count(answer: Answer, _priced: Usage) -> None:
    answer.input_tokens = count(answer.reported.get("prompt_tokens"))
    answer.output_tokens = count(answer.reported.get("completion_tokens"))
    cached = pick(answer.reported.get("prompt_token_details"), "cached_tokens")
    answer.cached_tokens = min(count(cached), answer.input_tokens)


RUN: Final = Route(
    "chat",
    ("instructions", "additional_instructions", "additional_messages", "thread"),
    _read,
    _fold,
    _begins,
    _count,
)


class Run(Call):
    """The recording of a run, through all the requests that have to do with it."""

    answer: RunAnswer
    _known = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answer = RunAnswer(spoken=self.answer.spoken)

    def raised(self, error: BaseException) -> None:
        """Only where it did not begin: asking for it may fail, and the run goes on."""
        if not self._known:
            super().raised(error)

    def answered(self, result: Any) -> None:
        at = time.perf_counter()
        _reading(_read, result, self.answer)
        self._told(at, None)

    def answered_with(self, body: bytes) -> None:
        at = time.perf_counter()
        _reading(lambda: _read(json.loads(body), self.answer))
        self._told(at, None)

    def answered_later(
        self, read: Callable[[Answer], None], size: int, at: float, failure: Failure | None = None
    ) -> None:
        """A stream has ended, perhaps in the middle of the run: it is read now, to know."""
        self.size += size
        _reading(read, self.answer)
        self._told(at, failure)

    def give_up(self) -> None:
        """Nobody will see its end."""
        self._close(time.perf_counter(), None)

    def _told(self, at: float, failure: Failure | None) -> None:
        answer = self.answer
        if answer.run_id is None or answer.is_over:
            self._close(at, None if answer.is_over else failure)
        else:
            self._known = True
            self.request = None
            _remember(answer.run_id, self)

    def _close(self, at: float, failure: Failure | None) -> None:
        answer = self.answer
        answer.complete = answer.is_over
        _under_way.pop(answer.run_id or "", None)
        super().answered_later(_nothing, 0, at, failure)


_under_way: Final[dict[str, Run]] = {}


def _remember(run_id: str, run: Run) -> None:
    _under_way[run_id] = run
    while len(_under_way) > MAX_RUNS:
        next(iter(_under_way.values())).give_up()


def begin(request: Any, base_url: Any, origin: Callable[[str], tuple[str, str | None]]) -> Call | None:
    """The run that a request begins, or that it asks for; None for any other request."""
    path = request.url.partition("?")[0].rstrip("/")
    known = re.search(_OF_A_RUN, path)
    if known is not None:
        run = _under_way.get(known[1])
        if run is not None:
            run.streamed = run.streamed or pick(request.json_data, "stream") is True
        return run
    recorder = default_client()
    if request.method.lower() != "post" or not re.search(_BEGUN, path) or not recorder.recording:
        return None
    return Run(recorder, RUN, request.json_data, base_url, origin)


def settle_runs(client: Client, final: bool) -> None:
    """At the end, record the runs whose end was not seen."""
    for run in list(_under_way.values()) if final else ():
        if run.client is client:
            run.give_up()


def _nothing(_answer: Answer) -> None:
    pass
