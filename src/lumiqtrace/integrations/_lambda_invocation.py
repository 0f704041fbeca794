"""One invocation of a Lambda handler: its span, and the flush when it ends.

What the handler returned or raised is only looked at. The platform's context may be a test's, or None: what
it does not tell is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from .._client import Client
from .._context import Labels, SpanContext, ambient, current, enter, surround
from .._default import default_client
from .._guard import Guard, logger
from .._propagation import extract
from .._span import Span, request_span
from ._flushing import FlushAtEnd, budget_of
from ._http import failure_code, is_failure, sample
from ._lambda_event import header_of, http_tags, records_of, status_code_of, trigger_of

if TYPE_CHECKING:
    from ._extension import Extension

SHORT: Final = 1.0
"""Seconds before the deadline from which on it is said that there is little time to flush."""

_following: Final = Guard("following an invocation", limit=None)


class Options:
    """Those of `traced_handler`; `limit` is the seconds that a flush may take.

    `extension()` is that of this process, which another handler may have registered.
    """

    __slots__ = ("background", "extension", "limit", "name", "trusting")

    def __init__(
        self,
        name: str,
        limit: float,
        extension: Callable[[], Extension | None],
        *,
        background: bool,
        trusting: bool,
    ) -> None:
        self.name = name
        self.limit = limit
        self.extension = extension
        self.background = background
        self.trusting = trusting


class Invocation:
    """A context manager around one run of the handler, which was called with `args` and `kwargs`.

    It begins with nothing current: what a handler left open is no part of the next invocation.
    """

    __slots__ = (
        "_before",
        "_context",
        "_event",
        "_extension",
        "_flush",
        "_held",
        "_options",
        "_request_id",
        "_span",
        "open",
    )

    def __init__(self, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.open = False
        """Whether the handler is running."""
        self._options = options
        self._event, self._context = _event_and_context(args, kwargs)
        self._request_id = _attribute(self._context, "aws_request_id")
        self._span: Span | None = None
        self._extension: Extension | None = None
        self._before: tuple[SpanContext | None, Labels | None] = None, None
        self._held = False
        self._flush = FlushAtEnd(self._seconds)

    def __enter__(self) -> Self:
        self.open = True
        _current.set(self)
        self._flush.__enter__()
        extension = self._options.extension()
        if extension is not None:
            if self._options.background:
                self._extension = extension
                _following(extension.begin, self._request_id)
            else:
                _following(extension.release, self._request_id)
        self._before = current(), ambient()
        enter(None)
        surround(None)
        _following(self._begin)
        return self

    def returns(self, result: object) -> None:
        """What the handler returned."""
        _following(self._judge, result)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open = False
        _current.set(None)
        if self._span is not None:
            self._span.end(error)
        enter(self._before[0])
        surround(self._before[1])
        extension, limit = self._extension, self._options.limit
        # Also where a call further out flushes: the extension waits to be told.
        self._held = extension is not None and bool(_following(extension.hold, self._request_id, limit))
        self._flush.__exit__(kind, error, traceback)

    def _begin(self) -> None:
        cold = _is_cold()
        client = default_client()
        if not client.recording:
            return
        self._span = span = self._new_span(client, cold=cold)
        span.begin()
        if span.trace is not None:
            sample(span.trace, client.config)

    def _new_span(self, client: Client, *, cold: bool) -> Span:
        trigger = trigger_of(self._event)
        name = _attribute(self._context, "function_name") or os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        tags: dict[str, Any] = {
            "faas.trigger": trigger,
            "faas.coldstart": "true" if cold else "false",
            "faas.invocation_id": self._request_id,
            "faas.name": name,
            "faas.version": _attribute(self._context, "function_version"),
            "faas.memory_mb": _attribute(self._context, "memory_limit_in_mb"),
            "faas.records": records_of(self._event),
            "cloud.region": os.environ.get("AWS_REGION"),
            **http_tags(self._event, trigger),
        }
        remote = extract(self._traceparent()) if self._options.trusting else None
        return request_span(client, name or self._options.name, remote=remote, **tags)

    def _traceparent(self) -> str | None:
        found = header_of(self._event, "traceparent")
        told = _following(getattr, self._context, "w3c", None)
        if found is None and callable(told):
            fields = _following(told)
            found = fields.get("traceparent") if isinstance(fields, dict) else None
        return found

    def _judge(self, result: object) -> None:
        status = status_code_of(result)
        if self._span is None or status is None:
            return
        self._span.set_attribute("http.status_code", status)
        if is_failure(status):
            self._span.set_status("error", failure_code(status))

    def _seconds(self) -> float:
        """Seconds that the flush may take here; 0.0 where the extension does it, or no time is left."""
        if self._held:
            return 0.0
        remaining = _remaining(self._context)
        if remaining is not None and remaining < SHORT and default_client().recording:
            _say_short(remaining)
        return budget_of(self._options.limit, remaining)


_current: Final[ContextVar[Invocation | None]] = ContextVar("lumiqtrace_invocation", default=None)


def is_inside() -> bool:
    """Whether a traced handler further out is running."""
    invocation = _current.get()
    return invocation is not None and invocation.open


def _event_and_context(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The handler's arguments; they are its last two, for a method has one more."""
    event, context = (*args[-2:], None, None)[:2] if args else (None, None)
    return kwargs.get("event", event), kwargs.get("context", context)


def _attribute(context: object, name: str) -> str | None:
    """What the context says of itself, as text; None for one that does not, as those of tests may not."""
    value = _following(getattr, context, name, None)
    return str(value) if isinstance(value, str | int) and value != "" else None


def _remaining(context: object) -> float | None:
    """Seconds until the deadline; None where the context knows of none."""
    ask = _following(getattr, context, "get_remaining_time_in_millis", None)
    left = _following(ask) if callable(ask) else None
    return left / 1000 if isinstance(left, int | float) else None


# ---- once a process ------------------------------------------------------------------------------------


class _Seen:
    """In which process the first invocation was seen, and a short time was said."""

    warm: int = 0
    short: int = 0


def _is_cold() -> bool:
    """Whether this is the first invocation; a sandbox that was kept ready has made nobody wait."""
    before, _Seen.warm = _Seen.warm, os.getpid()
    kept_ready = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "provisioned-concurrency"
    return before != os.getpid() and not kept_ready


def _say_short(remaining: float) -> None:
    if _Seen.short != os.getpid():
        _Seen.short = os.getpid()
        logger.warning(
            "lumiqtrace: %.0f ms before the function's timeout there is little time to deliver events; they "
            "may wait for the next invocation. Give the function a longer timeout.",
            remaining * 1000,
        )
