"""Running the server: in this process until a signal stops it, or in a thread beside other work.

A stop is graceful: requests under way are answered, what was accepted is committed. The secrets of a new
data folder's project are printed once, and never again.

Bounded are: what one request may send and for how long, what all bodies hold while they are read, and what
waits for the disk. Not bounded are: the number of connections, how long one may take over its request's
head, and how slowly a trace may be taken, which is held in memory until then. uvicorn has no time limit for
a head, and its `limit_concurrency` counts unfinished heads without closing them, so it would only refuse
others sooner. Where strangers can connect, a reverse proxy with such limits belongs in front.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs
import uvicorn
from starlette.applications import Starlette

from .app import create_app
from .credentials import Credentials
from .errors import ServerError
from .log import configure_logging
from .storage.base import Project
from .storage.sqlite import SqliteStore

DEFAULT_PORT: Final = 8417
_DATABASE: Final = "lumiqtrace.db"
_MAX_NAME_LENGTH: Final = 100

_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound
"""Who listens on all addresses is called by this one from the same machine."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers at `url`, and a project on it."""

    url: str
    credentials: Credentials


def serve(
    data: Path | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    monthly_events: int | None = None,
    requests_per_second: float | None = None,
    access_log: bool = False,
) -> None:
    """Run the server until SIGINT or SIGTERM.

    `data` is the folder of its database, by default the user's data folder; port 0 takes a free one. On
    the first start it makes the project `default` and prints its key and token. The limits are those of
    `create_app`. Raises ServerError.
    """
    data = data or _default_data()
    # The port first: a start that fails must not use up the one showing of the key.
    with closing(_listen(host, port)) as sock, closing(_open_store(data)) as store:
        known = store.projects()
        intro = _later_start(known) if known else _first_start(sock, store.create_project("default"))
        sys.stdout.write(f"lumiqtrace listens on {_url(sock)}\nData: {data}\n{intro}")
        sys.stdout.flush()
        configure_logging()
        app = create_app(store, monthly_events=monthly_events, requests_per_second=requests_per_second)
        _Server(_config(app, access_log=access_log)).run(sockets=[sock])


@contextmanager
def running(
    data: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    monthly_events: int | None = None,
    requests_per_second: float | None = None,
) -> Iterator[RunningServer]:
    """Run a server in a thread while the context lasts, with a new project; port 0 takes a free one.

    Raises ServerError.
    """
    with closing(_listen(host, port)) as sock, closing(_open_store(data)) as store:
        credentials = store.create_project("default")
        app = create_app(store, monthly_events=monthly_events, requests_per_second=requests_per_second)
        server = _Server(_config(app, access_log=False))
        thread = threading.Thread(target=server.run, args=([sock],), name="lumiqtrace-server", daemon=True)
        thread.start()
        try:
            # The socket listens already: a request sent before the server is up waits in its backlog.
            yield RunningServer(_url(sock), credentials)
        finally:
            server.should_exit = True
            thread.join()


def create_project(data: Path | None, name: str) -> Credentials:
    """Make a project in a data folder, also while a server uses it. Raises ServerError."""
    if not (name.isprintable() and name.strip() and len(name) <= _MAX_NAME_LENGTH):
        raise ServerError(f"a project's name is 1 to {_MAX_NAME_LENGTH} printable characters")
    with closing(_open_store(data or _default_data())) as store:
        return store.create_project(name.strip())


class _Server(uvicorn.Server):
    """uvicorn, except that being told to stop is no failure.

    Its own handlers raise the signal again after the stop, and the process would end as if killed.
    """

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sign: signal.signal(sign, self.handle_exit) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


def _config(app: Starlette, *, access_log: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=access_log,
        log_config=None,
        log_level="info" if access_log else "warning",
        lifespan="on",
        ws="none",
        server_header=False,
        # Longer than clients keep an idle connection, so that none is closed under a request.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off, and saves 40 ms an answer, only where the protocol is spelled out.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option lets two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()
    except OverflowError:
        sock.close()
        raise ServerError(f"port {port} is not one of 0 to 65535") from None
    except OSError as exc:
        sock.close()
        raise ServerError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return sock


def _url(sock: socket.socket, host: str | None = None) -> str:
    """Where it listens; `host` goes before the socket's."""
    here, port = sock.getsockname()[:2]
    host = host or here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _default_data() -> Path:
    return Path(platformdirs.user_data_dir("lumiqtrace", appauthor=False))


def _open_store(data: Path) -> SqliteStore:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ServerError(f"the data path {data} is a file, not a folder") from None
    except OSError as exc:
        raise ServerError(f"cannot make the data folder {data}: {exc.strerror}") from exc
    return SqliteStore(data / _DATABASE)


def _first_start(sock: socket.socket, made: Credentials) -> str:
    host = _LOOPBACK_OF.get(sock.getsockname()[0])
    url = _url(sock, host)
    others = f"\nFrom another machine: this machine's name or address instead of {host}.\n" if host else ""
    return f"""
Project {made.project_id}, made just now. Its secrets are shown this once; keep them.
  API key:    {made.api_key}
  Read token: {made.read_token}

In an application:
  import lumiqtrace
  lumiqtrace.init(api_key="{made.api_key}", base_url="{url}")
  lumiqtrace.patch_openai()

To read a trace:
  curl "{url}/v1/traces/TRACE_ID?projectId={made.project_id}" -H "Authorization: Bearer {made.read_token}"
{others}
"""


def _later_start(known: list[Project]) -> str:
    lines = [f"Project {project.id} ({project.name})" for project in known]
    return "\n".join([*lines, "A new project and key: lumiqtrace projects create NAME", "", ""])
