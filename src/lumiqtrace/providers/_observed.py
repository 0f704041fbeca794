"""Provider calls inside `observe_llm` while their library is not patched: the decorator's span hears of them.

The same wrappers as those of the patches, in instances of their own. They record nothing outside such a
span, and leave alone what a patch or a wrapped client records as an event of its own. WebSocket sessions
and runs of assistants are recorded by the patches alone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from .._context import current
from .._errors import MissingExtraError
from . import anthropic, google, openai
from ._call import Call
from ._google_interactions import SPEAKEASY, STAINLESS, _Speakeasy, _Stainless
from ._openai_routes import route_of
from ._origin import origin
from ._patch import Instrumentation, _inside
from ._stainless import StainlessInstrumentation


class _Listening(Instrumentation):
    """In front of a provider's instrumentation; `_patched` is the instance that its patch installs."""

    _patched: Instrumentation

    def _start(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any], always: bool) -> Call | None:
        here = current()
        ear = None if here is None else here.ear
        if ear is None or ear.closed:
            return None
        request = self.identify(args, kwargs)
        if any(call.request is request for call in ear.under_way()):
            return None
        if request is _inside.get() or self._is_recorded(client):
            ear.elsewhere = True
            return None
        call = super()._start(client, args, kwargs, always)
        if call is not None:
            call.client = ear
            ear.expects(call)
        return call

    def _is_recorded(self, client: Any) -> bool:  # noqa: ARG002
        """Whether the patch records the calls of this client."""
        return self._patched._wanted


class _OpenAI(_Listening, openai._OpenAI):
    _patched = openai._instrumentation
    begin = StainlessInstrumentation.begin  # no runs, which may end long after the span


class _Anthropic(_Listening, StainlessInstrumentation):
    _patched = anthropic._instrumentation


class _Google(_Listening, google._ApiClient):
    _patched = google._instrumentation


class _Interactions(_Listening, _Stainless):
    _patched = STAINLESS

    def _is_recorded(self, client: Any) -> bool:
        return STAINLESS._wanted and STAINLESS._records(client._client)


class _LaterInteractions(_Listening, _Speakeasy):
    _patched = SPEAKEASY

    def _is_recorded(self, client: Any) -> bool:
        settings = client.sdk_configuration
        return SPEAKEASY._wanted and SPEAKEASY._records(settings.client, settings.async_client)


_ALL: Final[tuple[_Listening, ...]] = (
    _OpenAI("openai", route_of, origin),
    _Anthropic("anthropic", anthropic._route, anthropic.origin),
    _Google(),
    _Interactions(),
    _LaterInteractions(),
)

_started = False


def listen() -> None:
    """Hear of the calls of every library that is installed; idempotent. Imports none of them.

    A library that came while nobody could hear of it, in the middle of its import, is heard from the next
    time on.
    """
    global _started  # noqa: PLW0603 - once a process
    if _started and not any(library.misses for library in _ALL):
        return
    for library in _ALL:
        with suppress(MissingExtraError):
            library.install()
    _started = True


def deafen() -> None:
    """Put the libraries' own methods back."""
    global _started  # noqa: PLW0603
    for library in _ALL:
        library.remove()
    _started = False
