"""OpenAI and everything that speaks its dialect, through the `openai` client library.

HTTP calls of every kind, whoever made the client, and the library's WebSockets. One call is one event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .._client import before_flush
from .._lifecycle import loading
from ._call import Call
from ._openai_routes import route_of
from ._origin import origin
from ._stainless import StainlessInstrumentation
from ._stream_usage import asking, asking_async
from ._websocket import WEBSOCKETS

T = TypeVar("T")


class _OpenAI(StainlessInstrumentation):
    def sending(self, original: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        return asking_async(original) if is_async else asking(original)

    def begin(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        if "/runs" in request.url:
            with loading():  # what few programs need
                from ._openai_runs import begin as begin_run
                from ._openai_runs import settle_runs

            before_flush(settle_runs)
            return begin_run(request, client.base_url, self._origin)
        return super().begin(client, request, args, kwargs)


_instrumentation: Final = _OpenAI("openai", route_of, origin)


def patch_openai() -> None:
    """Record every model call made with the `openai` library, by clients made before or after.

    A run of an assistant is one event, when an answer to this process tells its end. Sessions of hosted
    agents make none: what they use is told in sums that still change, to any number of observers.

    Idempotent; before or after `init`; before `import openai` it acts when that is imported. Raises
    MissingExtraError (an ImportError) where the library is not installed.
    """
    _instrumentation.install()
    for connections in WEBSOCKETS:
        connections.install()


def unpatch_openai() -> None:
    """Put the library's own methods back. Calls under way are still recorded, but for WebSockets."""
    _instrumentation.remove()
    for connections in WEBSOCKETS:
        connections.remove()


def wrap_openai(client: T) -> T:
    """Record the HTTP calls of this one client and of its copies; returns the same object.

    `client` is an `openai.OpenAI` or `AsyncOpenAI`, or one of their subclasses. With `patch_openai` on too,
    a call is still one event. WebSockets are recorded by `patch_openai` alone. Raises TypeError for what is
    no such client.
    """
    _instrumentation.wrap_own(client)
    return client
