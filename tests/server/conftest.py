from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_helpers import Api, connected

from lumiqtrace.server import create_project, running


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL and the data folder of one server for all tests that do not need their own."""
    data = tmp_path_factory.mktemp("shared")
    with running(data) as server:
        yield server.url, data


@pytest.fixture
def api(shared_server: tuple[str, Path]) -> Iterator[Api]:
    """A new project on the shared server."""
    url, data = shared_server
    with connected(url, create_project(data, "test")) as api:
        yield api


@pytest.fixture
def other(shared_server: tuple[str, Path]) -> Iterator[Api]:
    """Another new project on the shared server."""
    url, data = shared_server
    with connected(url, create_project(data, "other")) as api:
        yield api
