"""`lumiqtrace demo`: a real application, traced, stored and shown, in one command and without a key.

A server on a free port with a temporary database, a provider on loopback, a small retrieval-augmented
application with the real `openai` client: its trace is read back through the API and printed.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._api import flush, init, shutdown
from .._commands.reader import fetch_trace
from .._errors import CommandError, MissingExtraError
from .._event import MAX_MESSAGE
from .._redaction.redact import redact_text


def run(*, live: bool, leave: bool) -> None:
    """Run the demonstration and print its trace; with `leave` end at once, else keep the server up.

    `live` calls the real OpenAI API with `OPENAI_API_KEY`. Raises CommandError and MissingExtraError.
    """
    try:
        import openai
    except ImportError:
        raise MissingExtraError("lumiqtrace demo", "openai") from None
    if live and not os.environ.get("OPENAI_API_KEY"):
        raise CommandError("--live calls the real OpenAI API: set OPENAI_API_KEY first")
    from ..server import running

    with (
        tempfile.TemporaryDirectory(prefix="lumiqtrace-demo-") as folder,
        running(Path(folder)) as server,
        _provider(live=live) as options,
    ):
        try:
            trace_id = _traced_answer(server, options)
        except openai.OpenAIError as error:
            raise CommandError(
                f"the model provider failed: {type(error).__name__}: {redact_text(str(error))[:MAX_MESSAGE]}"
            ) from error
        _show(server, trace_id)
        if not leave:
            _wait()
        shutdown()


@contextmanager
def _provider(*, live: bool) -> Iterator[dict[str, Any]]:
    """The options of an `openai.OpenAI` client: the real API's, or those of a provider on loopback."""
    if live:
        yield {}
        return
    from .provider import serving

    # Neither the provider nor the server is behind a proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    with serving() as url:
        yield {"base_url": url, "api_key": "no-key-needed"}


def _traced_answer(server: Any, options: dict[str, Any]) -> str:
    from ..providers.openai import patch_openai
    from .application import QUESTION, answer

    init(server.credentials.api_key, base_url=server.url, environment="demo", enabled=True)
    patch_openai()
    print(f"Question: {QUESTION}\nAnswer:   ", end="")
    trace_id = answer(options)
    if not flush(30):
        raise CommandError("the events of the demonstration were not delivered; this should not happen")
    return trace_id


def _show(server: Any, trace_id: str) -> None:
    from .._commands.terminal import TraceView, console

    made = server.credentials
    out = console()
    out.print(f"\nTrace {trace_id}, as GET {server.url}/v1/traces/{trace_id} gives it back:\n")
    out.print(TraceView(fetch_trace(server.url, made.project_id, made.read_token, trace_id)))
    out.print(f"\nServer: {server.url}")


def _wait() -> None:
    try:
        print("It stays up, with its temporary database, until you press Ctrl-C.")
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
