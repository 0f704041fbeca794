"""`lumiqtrace doctor`: one step after the other from the options to an accepted event, each with a finding.

A step says what it saw and, where that is wrong, what to do. The steps on the way to the server end with the
first failure, for the later ones would only repeat it. Every step has an end, and none shows the API key.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from .._client import Client
from .._config import KEY_PREFIX, LumiqConfig
from .._errors import ConfigError
from .._span import Span
from .._version import __version__
from .finding import FAILURE, NOTE, OK, WARNING, Finding
from .reach import Way

PATIENCE: Final = 10.0
"""Seconds for each step that waits for something."""

SPAN_NAME: Final = "lumiqtrace doctor"

STILL_NOTHING: Final = (
    "still nothing from your program? it must call lumiqtrace.init(), or give the middleware a config"
)

_PROVIDERS: Final = {"openai": "openai", "anthropic": "anthropic", "google": "google-genai"}
_FRAMEWORKS: Final = ("fastapi", "starlette", "flask")


def examine(base_url: str | None = None, patience: float = PATIENCE) -> Iterator[Finding]:
    """The findings, each as soon as it is made; `base_url` goes before the environment's.

    `patience` is seconds for each step that waits; there are five of them. One test event is sent, a span
    named `lumiqtrace doctor`.
    """
    yield installed()
    yield instruments()
    try:
        config = LumiqConfig.from_options({"base_url": base_url})
    except ConfigError as error:
        yield Finding("options", FAILURE, str(error), "correct it where it is set")
        return
    yield switched_on(config)
    yield key(config)
    way = Way(config, patience)
    for step in (way.address, way.proxy, way.name, way.connection, way.certificate):
        finding = step()
        yield finding
        if finding.state == FAILURE:
            return
    if config.api_key is None:
        return
    answered = way.answer()
    yield answered
    if way.reply is not None:
        yield way.clock()
    if answered.state != FAILURE:
        yield sent_event(config, patience)


def installed() -> Finding:
    """The versions in use."""
    found = [f"Python {platform.python_version()}", f"lumiqtrace {__version__}"]
    found += [
        f"{library} {version}"
        for library in _PROVIDERS.values()
        if (version := _version(library)) is not None
    ]
    return Finding("installed", OK, ", ".join(found))


def instruments() -> Finding:
    """Which of our integrations would act."""
    patches = [f"patch_{name}()" for name, library in _PROVIDERS.items() if _version(library) is not None]
    frameworks = [name for name in _FRAMEWORKS if _version(name) is not None]
    if not patches:
        said = "no provider's library is installed: only spans and decorators are recorded"
        names = " or ".join(_PROVIDERS.values())
        return Finding("integrations", WARNING, said, f"install {names} in this environment, if it is used")
    web = f"; a middleware can trace {', '.join(frameworks)}" if frameworks else ""
    return Finding("integrations", OK, f"autopatch() would act as {', '.join(patches)}{web}")


def switched_on(config: LumiqConfig) -> Finding:
    """Whether the environment lets anything be recorded."""
    if not config.enabled:
        said = "off: enabled is False, nothing is recorded"
        return Finding("recording", WARNING, said, "unset LUMIQTRACE_ENABLED, or set it to 1")
    if config.sample_rate == 0 and not config.sample_errors:
        said = "off: sample_rate is 0, nothing is recorded"
        return Finding("recording", WARNING, said, "set LUMIQTRACE_SAMPLE_RATE to a share above 0, up to 1.0")
    if config.sample_rate < 1:
        return Finding("recording", NOTE, f"on, for {config.sample_rate:.3%} of the traces")
    return Finding("recording", OK, f"on, environment {config.environment!r}")


def key(config: LumiqConfig) -> Finding:
    """Whether there is one; its form was checked with the options."""
    if config.api_key is None:
        said = "there is none, so that the SDK stays off"
        return Finding("API key", FAILURE, said, "set LUMIQTRACE_API_KEY to the key of your project")
    return Finding("API key", OK, f"{KEY_PREFIX}…, its form is right")


def sent_event(config: LumiqConfig, patience: float) -> Finding:
    """Sends one span through a client as an application's, and waits until it is accepted."""
    client = Client(_sending(config))
    with Span(client, SPAN_NAME, "general", {}) as span:
        pass
    delivered = client.flush(patience)
    stats = client.stats()
    client.shutdown(0)
    if delivered and stats.sent == 1:
        return Finding("test event", OK, f"accepted; its trace is {span.trace_id}", STILL_NOTHING)
    lost = ", ".join(stats.dropped) or f"still waiting after {patience:g} s"
    advice = "run your program with logging at DEBUG for the logger 'lumiqtrace' to see more"
    return Finding("test event", FAILURE, f"it was not accepted ({lost})", advice)


def _sending(config: LumiqConfig) -> LumiqConfig:
    """The same way to the server, for an event that nothing holds back."""
    told = {option.name: getattr(config, option.name) for option in dataclasses.fields(config)}
    made = LumiqConfig(**told | {"enabled": True, "sample_rate": 1.0})
    # What a spool holds is delivered by the application; None as an option would be the environment's.
    object.__setattr__(made, "spool_dir", None)
    return made


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
