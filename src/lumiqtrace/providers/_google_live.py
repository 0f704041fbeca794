"""The Live API of google-genai, a WebSocket: one event for each response of the model.

A response ends with the model's turn, or with a call of the client's tools, whose results begin the next.
It began when the application last sent a prompt; where it only streamed audio or video, with the first
message. The session is left as it is: its methods are looked at on their way.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from .._client import Client
from .._default import default_client
from .._guard import Guard
from ._answer import Answer, Route, each, pick
from ._call import Call
from ._google_routes import count_usage, origin, read_part, word
from ._patch import Patch, Target
from ._prompt import canonical

_MODULE: Final = "google.genai.live"
_KEY: Final = "_lumiqtrace_turn"

_SENDS: Final = ("send", "send_client_content", "send_realtime_input", "send_tool_response")

_PROMPTS: Final = ("turns", "text", "function_responses", "input")
"""The arguments of those methods that ask for a response; audio and video flow all the time."""

# ---- what a message says --------------------------------------------------------------------------


def _read_message(message: Any, answer: Answer) -> None:
    answer.reports(pick(message, "usage_metadata"))
    content = pick(message, "server_content")
    answer.said(pick(content, "output_transcription", "text"))
    for part in each(pick(content, "model_turn", "parts")):
        read_part(part, answer)
    for call in each(pick(message, "tool_call", "function_calls")):
        answer.used(pick(call, "name"))
    answer.finish_reason = word(pick(content, "turn_complete_reason")) or answer.finish_reason
    answer.complete = answer.complete or _message_ends(message)


def _message_ends(message: Any) -> bool:
    """A response ends with the model's turn, or where it waits for the results of tools."""
    content = pick(message, "server_content")
    return (
        pick(message, "tool_call") is not None
        or pick(content, "turn_complete") is True
        or pick(content, "interaction_status") == "IDLE"
    )


def _message_begins(message: Any) -> bool:
    return bool(
        pick(message, "tool_call", "function_calls")
        or pick(message, "server_content", "model_turn", "parts")
        or pick(message, "server_content", "output_transcription", "text")
    )


_RESPONSE: Final = Route("chat", ("prompt",), _read_message, _read_message, _message_begins, count_usage)

# ---- a session's responses ------------------------------------------------------------------------

_watching: Final = Guard("watching a live session")

_open: Final[weakref.WeakSet[_Turn]] = weakref.WeakSet()


def settle_turns(client: Client, final: bool) -> None:
    """Record the responses that have ended and wait for their usage; all that began where it is `final`."""
    for turn in list(_open):
        if turn.is_of(client):
            turn.settle(final=final)


class _Turn:
    """The response under way in one session, and the next, where that was asked for already."""

    __slots__ = ("__weakref__", "_asked", "_call", "_last", "_model", "_next", "_url")

    def __init__(self, url: Any) -> None:
        self._model: str | None = None
        self._url = url
        self._call: Call | None = None
        self._next: Call | None = None
        self._last = 0.0
        self._asked = False
        _open.add(self)

    def named(self, model: str) -> None:
        self._model = model.rpartition("/")[2]

    def is_of(self, client: Client) -> bool:
        return self._call is not None and self._call.client is client

    def sent(self, prompt: Any) -> None:
        """The application asked for something. What it adds meanwhile belongs to the response under way."""
        if self._call is None:
            self._call = self._begin(canonical(prompt))
            self._asked = True
            self._last = time.perf_counter()
        elif self._call.answer.complete and self._next is None:
            self._next = self._begin(canonical(prompt))

    def received(self, message: Any) -> None:
        at = time.perf_counter()
        begins = _RESPONSE.begins(message)
        # Usage may come in a message of its own, behind the last word.
        if begins or pick(message, "usage_metadata") is None:
            self.settle(final=False)
        if self._call is None and begins:
            self._call = self._begin(None)
            self._asked = False
        call = self._call
        if call is None:
            return
        self._last = at
        if begins and self._asked:
            call.first_output(at)
        _RESPONSE.fold(message, call.answer)
        if call.answer.complete and call.answer.has_usage:
            self._end()

    def failed(self, error: BaseException) -> None:
        self.settle(final=False)
        call, self._call = self._call, None
        if call is not None:
            call.raised(error)

    def settle(self, *, final: bool) -> None:
        """End what is complete; all where it is `final`."""
        while self._call is not None and (final or self._call.answer.complete):
            self._end()

    def _begin(self, prompt: str | None) -> Call | None:
        recorder = default_client()
        if not recorder.recording:
            return None
        body = {"model": self._model, "stream": True, "prompt": prompt}
        return Call(recorder, _RESPONSE, body, self._url, origin)

    def _end(self) -> None:
        call, self._call, self._next = self._call, self._next, None
        at, self._last = self._last, time.perf_counter()
        self._asked = True
        if call is not None:
            call.answered_later(_nothing_more, 0, at)

    def __del__(self) -> None:
        _watching(self._end)
        _watching(self._end)


def _nothing_more(_answer: Answer) -> None:
    """All of it was read as it came."""


def _turn(session: Any) -> _Turn:
    """The notes of a session; one that was opened before the patch has a model that is not known."""
    found: _Turn | None = session.__dict__.get(_KEY)
    if found is None:
        found = session.__dict__[_KEY] = _Turn(pick(session, "_api_client", "_http_options", "base_url"))
    return found


def _note_prompt(session: Any, arguments: dict[str, Any]) -> None:
    asked = {name: arguments[name] for name in _PROMPTS if arguments.get(name) is not None}
    # Turns that are not complete only add to the context.
    if asked and arguments.get("turn_complete") is not False:
        _turn(session).sent(asked)


class _Named:
    """The async generator behind `connect`, which gives one session; this tells it its model."""

    def __init__(self, source: Any, model: Any) -> None:
        self._source = source
        self._model = model

    async def __anext__(self) -> Any:
        session = await self._source.__anext__()
        _watching(lambda: _turn(session).named(self._model))
        return session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _name_session(manager: Any, model: Any) -> None:
    manager.gen = _Named(manager.gen, model)


# ---- the patch ------------------------------------------------------------------------------------


class _Live(Patch):
    """Looks at what passes through sessions, and learns at `connect` what model they speak with."""

    def __init__(self) -> None:
        methods = tuple(
            Target(_MODULE, "AsyncSession", name, is_async=True) for name in ("_receive", *_SENDS)
        )
        connect = Target(_MODULE, "AsyncLive", "connect", is_async=False)
        super().__init__(_MODULE, "google", (connect, *methods), required=False)

    def _wrapper(self, original: Any, *, is_async: bool) -> Any:
        if not is_async:
            return self._connecting(original)
        return (self._receiving if original.__name__ == "_receive" else self._sending)(original)

    def _connecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def connect(live: Any, *args: Any, **kwargs: Any) -> Any:
            manager = original(live, *args, **kwargs)
            if self._wanted:
                _watching(_name_session, manager, kwargs.get("model"))
            return manager

        return connect

    def _receiving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def receive(session: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                message = await original(session, *args, **kwargs)
            except BaseException as error:
                _watching(lambda failure: _turn(session).failed(failure), error)
                raise
            if self._wanted:
                _watching(lambda: _turn(session).received(message))
            return message

        return receive

    def _sending(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def send(session: Any, *args: Any, **kwargs: Any) -> Any:
            if self._wanted:
                _watching(_note_prompt, session, kwargs)
            return await original(session, *args, **kwargs)

        return send


LIVE: Final = _Live()
