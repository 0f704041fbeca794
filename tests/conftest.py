"""What every test gets: a clean environment, no default client, and no patches left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lumiqtrace
from lumiqtrace import _default
from lumiqtrace.providers import _observed

sys.path.insert(0, str(Path(__file__).parent))

from backend import KEY, Backend, running


def _is_ours(variable: str) -> bool:
    """Whether the variable says how lumiqtrace is to behave: its options, and the proxies."""
    return variable.startswith("LUMIQTRACE_") or variable.upper().endswith("_PROXY")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in list(os.environ) if _is_ours(name)}
    yield
    lumiqtrace.unpatch_openai()
    lumiqtrace.unpatch_anthropic()
    lumiqtrace.unpatch_google()
    lumiqtrace.unpatch_threads()
    _observed.deafen()
    lumiqtrace.shutdown(timeout=0)
    _default._current = _default._off
    for name in list(os.environ):
        if _is_ours(name):
            del os.environ[name]
    os.environ.update(kept)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with running(Backend()) as found:
        yield found


@pytest.fixture
def client(backend: Backend) -> lumiqtrace.Client:
    """The default client, delivering to `backend`."""
    return lumiqtrace.init(KEY, base_url=backend.url)
