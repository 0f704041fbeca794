"""lumiqtrace: every language-model call recorded once, right, and delivered.

Read the package in this order and you follow one event from the provider's call to the wire:

    providers/     1  a provider call becomes a recording: patch, call, tap, answer
    _context       2  the trace and span it belongs to
    _sampler          which traces are kept
    _span          3  spans of the application's own
    _marks            what a span is told
    _llm_span         the span that carries the calls made inside it
    _observe          functions as spans
    _propagation      traces across processes and threads
    _logs             the trace's id on log records
    _event         4  the event, field for field as it is sent
    _delivery/     5  from a recording to a batch
      queue           the bounded inbox
      exporter        takes recordings, flushes, closes, gives account
      loop            the one thread: cut, price, encode, send
      pace, worker    when it wakes, and how it is kept alive
      batcher         recordings to a batch, by way of 6
    _pricing       6  what a call costs
    _pipeline         what may leave, and the user's own word on it
    _redaction/       secrets out of texts: redact, pairs, notations, secrets, patterns
    _encode           event to line, lines to gzip
    _delivery/     7  from the batch to the server
      batch           compressed lines, in memory, in a file of the spool, or both
      outbox          what waits to be sent, and the account of every event
      circuit         when to try again
      sending         one batch, its answer, and what that changes in the account
      retry           what an answer means, how long to wait
      losses          what the server is told of the events that it will not get
      transport    8  the one seam to the network
      http            one exchange with one deadline, by proxy and roots
    _lifecycle        the process's end and its forks
    _sigterm          its end by a signal
      _sigterm_seen   which a worker of multiprocessing must not miss
    _uvicorn          and by uvicorn

`_api` holds the functions below, `_default` the client they act on, `_client` what that is, `_config` the
options, `_hosts` where an address leads, `_errors` what can be raised, `_guard` the one place that swallows
errors, `_own` what is not recorded. `integrations` and `testing` stand beside the road, as do `server`,
`demo`, and `cli` with its `_commands`.

There are no tests in here, so a pytest that starts where this is imported already need not warn of that:
PYTEST_DONT_REWRITE.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ._api import aflush, flush, get_client, init, shutdown
from ._client import Client
from ._config import LumiqConfig
from ._context import (
    context,
    get_current_span_id,
    get_current_trace_id,
    set_attribute,
    set_eval_score,
    set_usage,
)
from ._delivery.queue import Stats
from ._errors import ConfigError, LumiqError, MissingExtraError
from ._event import Event
from ._lifecycle import loading
from ._version import __version__

if TYPE_CHECKING:
    from ._logs import LumiqtraceFilter
    from ._observe import observe_llm, observe_span
    from ._propagation import carry, inject, patch_threads, unpatch_threads
    from ._span import Span, span
    from .providers.anthropic import patch_anthropic, unpatch_anthropic, wrap_anthropic
    from .providers.autopatch import autopatch
    from .providers.google import patch_google, unpatch_google, wrap_google
    from .providers.openai import patch_openai, unpatch_openai, wrap_openai

__all__ = [
    "Client",
    "ConfigError",
    "Event",
    "LumiqConfig",
    "LumiqError",
    "LumiqtraceFilter",
    "MissingExtraError",
    "Span",
    "Stats",
    "__version__",
    "aflush",
    "autopatch",
    "carry",
    "context",
    "flush",
    "get_client",
    "get_current_span_id",
    "get_current_trace_id",
    "init",
    "inject",
    "observe_llm",
    "observe_span",
    "patch_anthropic",
    "patch_google",
    "patch_openai",
    "patch_threads",
    "set_attribute",
    "set_eval_score",
    "set_usage",
    "shutdown",
    "span",
    "unpatch_anthropic",
    "unpatch_google",
    "unpatch_openai",
    "unpatch_threads",
    "wrap_anthropic",
    "wrap_google",
    "wrap_openai",
]

# Loaded when the name is first used (PEP 562): a provider's tables take two milliseconds, of ten for all.
_LATER: Final = {
    "LumiqtraceFilter": "._logs",
    "Span": "._span",
    "autopatch": ".providers.autopatch",
    "carry": "._propagation",
    "inject": "._propagation",
    "observe_llm": "._observe",
    "observe_span": "._observe",
    "patch_anthropic": ".providers.anthropic",
    "patch_google": ".providers.google",
    "patch_openai": ".providers.openai",
    "patch_threads": "._propagation",
    "span": "._span",
    "unpatch_anthropic": ".providers.anthropic",
    "unpatch_google": ".providers.google",
    "unpatch_openai": ".providers.openai",
    "unpatch_threads": "._propagation",
    "wrap_anthropic": ".providers.anthropic",
    "wrap_google": ".providers.google",
    "wrap_openai": ".providers.openai",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'lumiqtrace' has no attribute {name!r}")
    with loading():
        found = getattr(import_module(module, __name__), name)
    return globals().setdefault(name, _shown_here(found))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _shown_here(found: Any) -> Any:
    """Tracebacks, reprs and documentation show the name that users import."""
    if getattr(found, "__module__", "").startswith("lumiqtrace."):
        found.__module__ = "lumiqtrace"
    return found


def _show_all_here() -> None:
    for name in __all__:
        if name not in _LATER:
            _shown_here(globals()[name])


_show_all_here()
