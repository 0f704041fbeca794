"""Google's models through the `google-genai` library: the Gemini API and Vertex AI, blocking and async.

Every model call of its `models` and `chats` passes the four request methods of one class, once each, with
the retries inside. Automatic function calling makes several such calls; each is an event. Interactions and
the Live API go ways of their own, in the two modules beside this one.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, TypeVar

from .._client import before_flush
from .._default import default_client
from ._answer import Answer, Route, each, pick
from ._call import Call
from ._google_interactions import SPEAKEASY, STAINLESS
from ._google_live import LIVE, settle_turns
from ._google_routes import EMBED, origin, route
from ._patch import Instrumentation, Target
from ._segments import watched
from ._tap import MAX_JSON

Client = TypeVar("Client")

_MODULE: Final = "google.genai._api_client"

_METHODS: Final = {
    "request": False,
    "request_streamed": False,
    "async_request": True,
    "async_request_streamed": True,
}
"""The methods, and whether they are coroutines."""


class _ApiClient(Instrumentation):
    """The class below all of a client's resources; it was called ApiClient in the first versions."""

    def __init__(self) -> None:
        super().__init__(
            "google.genai",
            "google",
            tuple(
                Target(_MODULE, "BaseApiClient", method, is_async=is_async, alias="ApiClient")
                for method, is_async in _METHODS.items()
            ),
        )

    def identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The body's dict: `request(http_method, path, request_dict, http_options)` in every version."""
        return _argument(args, kwargs, 2, "request_dict")

    def begin(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        recorder = default_client()
        if not recorder.recording:
            return None
        path = _argument(args, kwargs, 1, "path")
        found = route(path)
        if found is None:
            return None
        row, model = found
        if _embeds(request):
            row = EMBED
        options = _argument(args, kwargs, 3, "http_options")
        url = pick(options, "base_url") or pick(client, "_http_options", "base_url")
        body = {name: request[name] for name in row.prompt if name in request}
        body |= {"model": model, "stream": ":stream" in path}
        return Call(recorder, row, body, url, origin)

    def receive(self, call: Call, result: Any) -> Any:
        """A stream is watched; an answer's text is kept and read later, or at once where it is very large."""
        if call.streamed:
            return watched(call, result)
        body = getattr(result, "body", result)
        if not isinstance(body, str) or len(body) > MAX_JSON:
            call.answered(json.loads(body) if isinstance(body, str) else body)
        else:
            call.answered_later(_reader(call.route, body), len(body), time.perf_counter())
        return None

    def wrap_client(self, client: Any) -> None:
        for method, is_async in _METHODS.items():
            self.wrap(client, method, is_async=is_async)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _embeds(request: Any) -> bool:
    """Vertex serves its older embedding models at the images' path; what they embed is called `content`."""
    instances = each(pick(request, "instances"))
    return bool(instances) and pick(instances[0], "content") is not None


def _reader(row: Route, body: str) -> Any:
    def read(answer: Answer) -> None:
        answer.complete = True
        try:
            found = json.loads(body) if body else None
        except ValueError as error:
            # So the program was told too, when the library read the same text.
            answer.status, answer.error_code = "error", type(error).__name__
            answer.error_message = str(error)
        else:
            row.read(found, answer)

    return read


# ---- the patch ---------------------------------------------------------------------------------------

_instrumentation: Final = _ApiClient()
_parts: Final = (_instrumentation, STAINLESS, SPEAKEASY, LIVE)


def patch_google() -> None:
    """Record every model call made with the `google-genai` library, by clients made before or after.

    That is content, embeddings, images, videos, interactions, decisions, and each response in a Live API
    session; counting tokens, files, caches and operations are free and make no event. A streamed call that
    is never iterated was never sent and makes none either, but for async ones whose request had gone.

    Idempotent; before or after `init`; before `from google import genai` it acts when that is imported.
    Raises MissingExtraError (an ImportError) where the library is not installed.
    """
    before_flush(settle_turns)
    for part in _parts:
        part.install()


def unpatch_google() -> None:
    """Put the library's own methods back. Calls under way are still recorded, but for Live sessions."""
    for part in _parts:
        part.remove()


def wrap_google(client: Client) -> Client:
    """Record the calls of this one client, blocking and through `.aio`; returns the same object.

    `client` is a `genai.Client`. Together with `patch_google` a call is still one event. Live sessions are
    recorded by `patch_google` alone. Raises TypeError for what is no such client.
    """
    api_client = getattr(client, "_api_client", None)
    if not all(hasattr(api_client, method) for method in _METHODS):
        raise TypeError(f"a client of the google-genai library is needed, not {type(client).__name__!r}")
    _instrumentation.wrap_client(api_client)
    STAINLESS.choose(api_client)
    SPEAKEASY.choose(api_client)
    return client
