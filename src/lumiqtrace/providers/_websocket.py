"""Model calls over the `openai` library's WebSockets: one event for each response that was finished.

The connections are left as they are; what they parse is looked at on its way to the application, in
`parse_event`, which every way of receiving an event passes. A response left unfinished makes no event.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from .._default import default_client
from .._guard import Guard
from ._answer import Route, pick, text
from ._call import Call
from ._openai_routes import DECISION, RESPONSE
from ._origin import origin
from ._patch import Patch, Target

_CONNECTIONS: Final = (
    ("realtime.realtime", "RealtimeConnection"),
    ("realtime.translations.translations", "TranslationsConnection"),
    ("responses.responses", "ResponsesConnection"),
    ("live.live", "LiveConnection"),
    ("live.sideband", "SidebandConnection"),
    ("live.forks", "ForksConnection"),
    ("beta.realtime.realtime", "RealtimeConnection"),
    ("beta.responses.responses", "ResponsesConnection"),
)
_ENDS: Final = ("response.done", "response.completed", "response.incomplete", "response.failed")
_DEFAULT_URL: Final = "https://api.openai.com/v1"

MAX_OPEN: Final = 64
"""Responses of one connection that are followed at a time."""

_watching: Final = Guard("watching a WebSocket")
_sessions: Final[weakref.WeakKeyDictionary[Any, _Session]] = weakref.WeakKeyDictionary()


class _Connections(Patch):
    """The connection classes of one module, which the library imports when it is first used."""

    def __init__(self, module: str, name: str) -> None:
        module = f"openai.resources.{module}"
        targets = (Target(module, kind, "parse_event", is_async=False) for kind in (name, f"Async{name}"))
        super().__init__(module, "openai", tuple(targets), required=False)

    def _wrapper(self, original: Callable[..., Any], *, is_async: bool) -> Any:  # noqa: ARG002 - none is
        @functools.wraps(original)
        def parse_event(connection: Any, *args: Any, **kwargs: Any) -> Any:
            event = original(connection, *args, **kwargs)
            if self._wanted:
                _watching(_note, connection, event)
            return event

        return parse_event


WEBSOCKETS: Final = tuple(_Connections(module, name) for module, name in _CONNECTIONS)


def _note(connection: Any, event: Any) -> None:
    if not default_client().recording:
        return
    session = _sessions.get(connection)
    if session is None:
        session = _sessions[connection] = _Session(connection)
    session.see(event)


class _Session:
    """One connection's responses under way."""

    __slots__ = ("_calls", "_last_ended", "_model", "_url")

    def __init__(self, connection: Any) -> None:
        self._url, self._model = _address(connection)
        self._calls: dict[str, Call] = {}
        self._last_ended: str | None = None

    def see(self, event: Any) -> None:
        kind = text(pick(event, "type")) or ""
        if kind == "response.created":
            self._begin(pick(event, "response", "id"))
        elif kind in _ENDS:
            self._end(pick(event, "response"))
        elif kind in ("session.created", "session.updated", "session.started"):
            self._model = text(pick(event, "session", "model")) or self._model
        elif kind == "response.event":  # a live session tells of a response that it gave to another model
            self.see(pick(event, "event"))
        elif kind == "decision.event":
            self._call(DECISION, stream=False).answered(pick(event, "event", "decision"))
        elif self._calls and RESPONSE.begins(event):
            call = self._calls.get(pick(event, "response_id")) or next(reversed(self._calls.values()))
            call.first_output(time.perf_counter())

    def _begin(self, response: Any) -> None:
        if len(self._calls) >= MAX_OPEN:
            del self._calls[next(iter(self._calls))]
        self._calls[response] = self._call(RESPONSE, stream=True)

    def _end(self, response: Any) -> None:
        identity = pick(response, "id")
        call = self._calls.pop(identity, None)
        if call is None:
            # Its beginning was not parsed; or its end is, by a second look at the same message.
            if identity == self._last_ended:
                return
            call = self._call(RESPONSE, stream=True)
        self._last_ended = identity
        call.answered(response)

    def _call(self, route: Route, *, stream: bool) -> Call:
        return Call(default_client(), route, {"model": self._model, "stream": stream}, self._url, origin)


def _address(connection: Any) -> tuple[str, str | None]:
    """The API's address and the model, by the handshake's request."""
    request = pick(connection, "_connection", "request")
    if request is None:
        return _DEFAULT_URL, None
    path = urlsplit(request.path)
    query = parse_qs(path.query)
    model = next((query[key][0] for key in ("model", "deployment") if key in query), None)
    return f"https://{request.headers['Host']}{path.path}", model
