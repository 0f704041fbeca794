"""Model calls over the `openai` library's WebSockets: one event for each response that was finished.

The connections are left as they are; what they parse is looked at on its way to the application, in
`parse_event`, which every way of receiving an event passes. A response left unfinished makes no event.
"""

from __future__ import annotations

import functools
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from .._client import default_client
from .._guard import Guard
from ._answer import Route, pick, text
from ._call import Call
from ._openai_routes import DECISION, RESPONSE
from ._origin import origin

_MODULES: Final = tuple(
    f"openai.resources.{name}"
    for name in (
        "realtime.realtime",
        "realtime.translations.translations",
        "responses.responses",
        "live.live",
        "live.sideband",
        "live.forks",
        "beta.realtime.realtime",
        "beta.responses.responses",
    )
)
_METHOD: Final = "parse_event"
_ENDS: Final = ("response.done", "response.completed", "response.incomplete", "response.failed")
_DEFAULT_URL: Final = "https://api.openai.com/v1"

MAX_OPEN: Final = 64
"""Responses of one connection that are followed at a time."""

_watching: Final = Guard("watching a WebSocket")
_sessions: Final[weakref.WeakKeyDictionary[Any, _Session]] = weakref.WeakKeyDictionary()


class WebSockets:
    """The wrappers around `parse_event` of the connection classes, in modules imported now or later."""

    def __init__(self) -> None:
        self._wanted = False
        self._awaited: set[str] = set()
        self._replaced: list[tuple[type[Any], Any, Any]] = []

    def install(self) -> None:
        """Idempotent."""
        self._wanted = True
        for name in _MODULES:
            if name in sys.modules:
                self._attach(sys.modules[name])
            elif name not in self._awaited:
                from wrapt import register_post_import_hook

                self._awaited.add(name)
                register_post_import_hook(self._imported, name)

    def remove(self) -> None:
        self._wanted = False
        while self._replaced:
            owner, original, wrapper = self._replaced.pop()
            if owner.__dict__.get(_METHOD) is wrapper:
                setattr(owner, _METHOD, original)

    def _imported(self, module: Any) -> None:
        if self._wanted:
            _watching(self._attach, module)

    def _attach(self, module: Any) -> None:
        ours = {id(wrapper) for *_, wrapper in self._replaced}
        for owner in list(vars(module).values()):
            original = vars(owner).get(_METHOD) if isinstance(owner, type) else None
            if original is not None and id(original) not in ours:
                wrapper = self._wrapper(original)
                setattr(owner, _METHOD, wrapper)
                self._replaced.append((owner, original, wrapper))

    def _wrapper(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def parse_event(connection: Any, *args: Any, **kwargs: Any) -> Any:
            event = original(connection, *args, **kwargs)
            if self._wanted:
                _watching(_note, connection, event)
            return event

        return parse_event


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
