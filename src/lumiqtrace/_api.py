"""The functions of `import lumiqtrace`: one line each, on the default client.

Before `init`, without a key, or when disabled, every one of them does nothing and does it quietly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import _default
from ._client import Client
from ._config import BeforeSend, Flush, LumiqConfig, Prices, Spool


def init(
    api_key: str | None = None,
    *,
    base_url: str | None = None,
    allow_http: bool | None = None,
    environment: str | None = None,
    service: str | None = None,
    enabled: bool | None = None,
    sample_rate: float | None = None,
    sample_errors: bool | None = None,
    batch_size: int | None = None,
    flush_interval: float | None = None,
    flush_timeout: float | None = None,
    shutdown_timeout: float | None = None,
    flush: Flush | None = None,
    max_queue_events: int | None = None,
    max_queue_bytes: int | None = None,
    spool_dir: str | os.PathLike[str] | None = None,
    spool: Spool | None = None,
    spool_max_bytes: int | None = None,
    spool_max_age: float | None = None,
    prices: Prices | None = None,
    store_prompts: bool | None = None,
    stream_usage: bool | None = None,
    capture_request_body: bool | None = None,
    capture_response_body: bool | None = None,
    max_body_bytes: int | None = None,
    redact_fields: Sequence[str] | None = None,
    replace_default_redact_fields: bool | None = None,
    redact_secrets: bool | None = None,
    before_send: BeforeSend | None = None,
    debug: bool | None = None,
) -> Client:
    """Build the process-wide client and return it.

    An option that is not passed is taken from `LUMIQTRACE_<OPTION>`, else from its default (see
    `LumiqConfig`). Called again with the same options it returns the client there is; with others, it
    shuts that one down and replaces it. Without an API key the SDK stays off and says so once at INFO.
    Does no I/O and starts no thread. Raises ConfigError, which names the option that is wrong.
    """
    options = {
        "api_key": api_key,
        "base_url": base_url,
        "allow_http": allow_http,
        "environment": environment,
        "service": service,
        "enabled": enabled,
        "sample_rate": sample_rate,
        "sample_errors": sample_errors,
        "batch_size": batch_size,
        "flush_interval": flush_interval,
        "flush_timeout": flush_timeout,
        "shutdown_timeout": shutdown_timeout,
        "flush": flush,
        "max_queue_events": max_queue_events,
        "max_queue_bytes": max_queue_bytes,
        "spool_dir": spool_dir,
        "spool": spool,
        "spool_max_bytes": spool_max_bytes,
        "spool_max_age": spool_max_age,
        "prices": prices,
        "store_prompts": store_prompts,
        "stream_usage": stream_usage,
        "capture_request_body": capture_request_body,
        "capture_response_body": capture_response_body,
        "max_body_bytes": max_body_bytes,
        "redact_fields": redact_fields,
        "replace_default_redact_fields": replace_default_redact_fields,
        "redact_secrets": redact_secrets,
        "before_send": before_send,
        "debug": debug,
    }
    return _default.set_default(LumiqConfig.from_options(options))


def get_client() -> Client:
    """The client: `.flush()`, `.stats()`, `.config`. Before `init`, one that records nothing."""
    return _default.default_client()


def flush(timeout: float | None = None) -> bool:
    """Block until every event recorded before this call is delivered or given up; see `Client.flush`."""
    return _default.default_client().flush(timeout)


async def aflush(timeout: float | None = None) -> bool:
    """`flush` for asyncio: waits without blocking the event loop."""
    return await _default.default_client().aflush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Flush, then stop; also done when the interpreter ends. True if nothing was lost."""
    return _default.default_client().shutdown(timeout)
