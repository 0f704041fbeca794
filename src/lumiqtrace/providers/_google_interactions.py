"""`client.interactions` and `client.decisions` of google-genai, which do not pass its usual request methods.

Up to 2.0 they are a small Stainless client inside the library, later one that Speakeasy generates. Either
is imported when first used, so it is waited for; it sends through the HTTP client of the `genai.Client`
that it belongs to, which is how the calls of a wrapped client are told from others.
"""

from __future__ import annotations

import json
import weakref
from typing import Any, Final

from .._default import default_client
from ._answer import Route, pick, text
from ._call import Call
from ._google_routes import DECISION, INTERACTION, http_status, origin
from ._patch import Instrumentation, Target
from ._stainless import StainlessInstrumentation
from ._tap import tap

_PACKAGE: Final = "google.genai._interactions"
_BASE: Final = "google.genai._gaos.basesdk"

_OPERATIONS: Final = {"CreateInteraction": INTERACTION, "CreateDecision": DECISION}
"""Speakeasy's names of the calls that are billed."""


def _route(url: str) -> Route | None:
    return INTERACTION if url.partition("?")[0].endswith("/interactions") else None


class _Chosen(Instrumentation):
    """Records everyone's calls, once installed; else those of the clients that were chosen."""

    _everyone = False
    _some: weakref.WeakSet[Any]

    def install(self) -> None:
        self._everyone = True
        super().install()

    def choose(self, api_client: Any) -> None:
        """Record the calls that go through the HTTP clients of `api_client`."""
        self._some.add(api_client)
        super().install()

    def remove(self) -> None:
        """Wrappers that a chosen client still needs stay, and let the others pass."""
        self._everyone = False
        if not self._some:
            super().remove()

    def _records(self, *http_clients: Any) -> bool:
        if self._everyone:
            return True
        of_some = [
            getattr(some, name, None)
            for some in self._some
            for name in ("_httpx_client", "_async_httpx_client")
        ]
        return any(mine is not None and mine is theirs for mine in http_clients for theirs in of_some)


class _Stainless(_Chosen, StainlessInstrumentation):
    def __init__(self) -> None:
        super().__init__(_PACKAGE, _route, origin, required=False)
        self._some = weakref.WeakSet()

    def begin(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        return super().begin(client, request, args, kwargs) if self._records(client._client) else None


class _Speakeasy(_Chosen):
    def __init__(self) -> None:
        super().__init__(
            _BASE,
            "google",
            (
                Target(_BASE, "BaseSDK", "do_request", is_async=False),
                Target(_BASE, "AsyncBaseSDK", "do_request_async", is_async=True),
            ),
            required=False,
        )
        self._some = weakref.WeakSet()

    def identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The HTTP request: `do_request(hook_ctx, request, ...)`."""
        return args[1] if len(args) > 1 else kwargs.get("request")

    def begin(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        recorder = default_client()
        context = args[0] if args else kwargs.get("hook_ctx")
        row = _OPERATIONS.get(getattr(context, "operation_id", ""))
        settings = client.sdk_configuration
        if row is None or not recorder.recording or not self._records(settings.client, settings.async_client):
            return None
        body = json.loads(request.content)
        model = text(pick(body, "model")) or text(pick(body, "agent")) or ""
        body["model"] = model.removeprefix("models/") or None
        return Call(recorder, row, body, request.url, origin)

    def receive(self, call: Call, result: Any) -> None:
        """The HTTP response, which may be a refusal: the error is raised later, from what it holds."""
        if result.status_code >= 400:
            call.answer.status = http_status(result.status_code)
            call.answer.error_code = str(result.status_code)
        if result.is_closed:
            call.answered_with(result.content)
        else:
            tap(result, call)


STAINLESS: Final = _Stainless()
SPEAKEASY: Final = _Speakeasy()
