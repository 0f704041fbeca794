"""What called a function on Cloud Run, read from its arguments and told as tags.

The tags have the names that OpenTelemetry gives such things: `faas.*`, `cloudevents.*`. No framework is
imported; what has another shape gives fewer tags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

_DEPLOYMENT: Final = (
    ("faas.name", "K_SERVICE"),  # these two by the container contract of Cloud Run and Knative
    ("faas.version", "K_REVISION"),
    ("faas.target", "FUNCTION_TARGET"),  # by the Functions Framework
)

_EVENT: Final = (
    ("cloudevents.event_type", "type"),
    ("cloudevents.event_source", "source"),
    ("cloudevents.event_id", "id"),
    ("cloudevents.event_subject", "subject"),
)


class Trigger:
    """The tags of a call; its HTTP method and its `traceparent`, where it is a request."""

    __slots__ = ("method", "tags", "traceparent")

    def __init__(
        self, tags: dict[str, Any], method: str | None = None, traceparent: str | None = None
    ) -> None:
        self.tags = tags
        self.method = method
        self.traceparent = traceparent


def trigger_of(args: tuple[Any, ...], environ: Mapping[str, str] = os.environ) -> Trigger:
    """Read the arguments: a Flask or Starlette request, a CloudEvent, or `(data, context)`."""
    tags: dict[str, Any] = {tag: environ[name] for tag, name in _DEPLOYMENT if environ.get(name)}
    first: Any = args[0] if args else None
    method = getattr(first, "method", None)
    if isinstance(method, str) and hasattr(first, "headers"):
        return _request(first, method, tags)
    if type(first).__module__.partition(".")[0] == "cloudevents":
        tags["faas.trigger"] = "event"
        tags |= {tag: str(value) for tag, key in _EVENT if (value := first.get(key))}
    elif len(args) == 2 and isinstance(kind := getattr(args[1], "event_type", None), str):
        # A background function: the context stands beside the data.
        tags["faas.trigger"] = "event"
        tags["cloudevents.event_type"] = kind
        if (found := getattr(args[1], "event_id", None)) is not None:
            tags["cloudevents.event_id"] = str(found)
    return Trigger(tags)


def _request(request: Any, method: str, tags: dict[str, Any]) -> Trigger:
    """Flask's request has a `path`; Starlette's has it in its URL."""
    path = getattr(request, "path", None) or getattr(getattr(request, "url", None), "path", None)
    tags |= {"faas.trigger": "http", "http.method": method}
    if isinstance(path, str):
        tags["http.path"] = path
    return Trigger(tags, method, request.headers.get("traceparent"))
