"""Token counts for chat streams whose caller did not ask for them.

OpenAI counts the tokens of a chat stream only where the request says `stream_options.include_usage`. It is
said in a copy of the request, to OpenAI's and Azure's own hosts alone, and what it changes in the stream is
taken out again: one chunk without choices, and the empty `usage` of the others. A host that refuses the
option gets the request as the caller made it, and is not asked again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from .._default import default_client
from .._encode import text_of
from .._guard import Guard
from ._origin import origin

_PATHS: Final = ("/chat/completions", "/completions")
_CHUNKS: Final = ("ChatCompletionChunk", "Completion")
_OPTION: Final = "stream_options"
_RAW: Final = "x-stainless-raw-response"
"""The header by which the client knows that the caller reads the bytes; those are not touched."""

MAX_HOSTS: Final = 256

_refused: Final[set[str]] = set()

_asking: Final = Guard("asking for a stream's usage")


def asking(original: Callable[..., Any]) -> Callable[..., Any]:
    """The client's `request`, asking for usage where the caller did not.

    The client is called once, and a second time only where it was our question that was refused.
    """

    def request(client: Any, *args: Any, **kwargs: Any) -> Any:
        question = _asking(_ask, client, args, kwargs)
        if question is None:
            return original(client, *args, **kwargs)
        try:
            result = original(client, *args, **kwargs)
        except Exception as error:
            if not _asking(question.was_refused, error):
                raise
        else:
            _asking(_hide, result)
            return result
        finally:
            question.withdraw()
        return original(client, *args, **kwargs)

    return request


def asking_async(original: Callable[..., Any]) -> Callable[..., Any]:
    """`asking` for the async client."""

    async def request(client: Any, *args: Any, **kwargs: Any) -> Any:
        question = _asking(_ask, client, args, kwargs)
        if question is None:
            return await original(client, *args, **kwargs)
        try:
            result = await original(client, *args, **kwargs)
        except Exception as error:
            if not _asking(question.was_refused, error):
                raise
        else:
            _asking(_hide, result)
            return result
        finally:
            question.withdraw()
        return await original(client, *args, **kwargs)

    return request


class _Question:
    """The option, put into one request; `withdraw` puts the caller's own body back."""

    __slots__ = ("_body", "_host", "_options")

    def __init__(self, options: Any, host: str) -> None:
        self._options = options
        self._body = options.json_data
        self._host = host
        options.json_data = {**self._body, _OPTION: {"include_usage": True}}

    def withdraw(self) -> None:
        self._options.json_data = self._body

    def was_refused(self, error: Exception) -> bool:
        if getattr(error, "status_code", None) != 400 or _OPTION not in text_of(error):
            return False
        if len(_refused) >= MAX_HOSTS:
            _refused.clear()
        _refused.add(self._host)
        return True


def _ask(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Question | None:
    options = args[1] if len(args) > 1 else kwargs["options"]
    body = options.json_data
    if type(body) is not dict or body.get("stream") is not True or options.url not in _PATHS:
        return None
    if _OPTION in body or _OPTION in (getattr(options, "extra_json", None) or ()):
        return None
    if not default_client().config.stream_usage or _is_raw(options.headers):
        return None
    if not _is_the_clients_own(kwargs.get("stream_cls")):
        return None
    host = client.base_url.host
    if host in _refused or origin(f"https://{host}")[0] != "openai":
        return None
    return _Question(options, host)


def _is_raw(headers: Any) -> bool:
    return isinstance(headers, dict) and any(name.lower() == _RAW for name in headers)


def _is_the_clients_own(stream_cls: Any) -> bool:
    """Whether a stream will be `Stream[ChatCompletionChunk]` or its like, whose inside we know."""
    kind = getattr(stream_cls, "__origin__", None)
    names = [getattr(item, "__name__", "") for item in getattr(stream_cls, "__args__", ())]
    return getattr(kind, "__module__", "").startswith("openai") and len(names) == 1 and names[0] in _CHUNKS


def _hide(stream: Any) -> None:
    chunks = stream._iterator
    stream._iterator = _awithout_usage(chunks) if hasattr(chunks, "__anext__") else _without_usage(chunks)


def _without_usage(chunks: Iterator[Any]) -> Iterator[Any]:
    hidden = False
    for chunk in chunks:
        if _is_usage(chunk) and not hidden:
            hidden = True
        else:
            yield chunk


async def _awithout_usage(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    hidden = False
    async for chunk in chunks:
        if _is_usage(chunk) and not hidden:
            hidden = True
        else:
            yield chunk


def _is_usage(chunk: Any) -> bool:
    """Whether the chunk is the one we asked for. The others never say `usage` unasked (in the recordings)."""
    try:
        fields = chunk.__dict__
        if fields["usage"] is not None:
            return bool(fields["choices"] == [])
        chunk.__pydantic_fields_set__.discard("usage")
    except (AttributeError, KeyError):  # an odd answer, which the client hands on as it is
        pass
    return False
