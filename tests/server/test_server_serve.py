"""`serve` as a process: what it prints, how it starts and fails, and how it stops."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from server_helpers import connected, event, server_process

import lumiqtrace.server
from lumiqtrace.server import ServerError, SqliteStore, create_app, create_project, running, serve
from lumiqtrace.server.log import SafeFormatter

PACKAGE = Path(lumiqtrace.server.__file__).parent


def test_the_first_start_shows_the_secrets_once_and_they_work(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as first:
        credentials = first.credentials()
        for secret in (credentials.api_key, credentials.read_token):
            assert secret in first.output
        assert f'lumiqtrace.init(api_key="{credentials.api_key}", base_url="{first.url}")' in first.output
        assert "lumiqtrace.patch_openai()" in first.output
        with connected(first.url, credentials) as api:
            assert api.send(event()).status_code == 202
        printed = re.search(r'curl "(\S+)" -H "(\S+): (Bearer \S+)"', first.output)
        assert printed
        url, name, value = printed.groups()
        read = httpx.get(url.replace("TRACE_ID", "trace-abc"), headers={name: value})
        assert (read.status_code, len(read.json())) == (200, 1)
    with server_process(tmp_path / "data") as second:
        assert credentials.project_id in second.output
        assert "lumiqtrace projects create NAME" in second.output
        assert not re.search("lqt_|lqr_", second.output)
        with connected(second.url, credentials) as api:
            assert len(api.spans()) == 1


def test_the_data_folder_is_its_owners(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    with running(data):
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in data.iterdir()} == {0o600}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_stop(tmp_path: Path, stop: signal.Signals) -> None:
    with server_process(tmp_path / "data") as server, connected(server.url, server.credentials()) as api:
        assert api.send(event()).status_code == 202
        server.process.send_signal(stop)
        assert server.process.wait(timeout=15) == 0
        assert server.stderr.read_text() == ""
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["lumiqtrace.db"]


def test_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server:
        assert server.url.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_sentence_and_uses_up_no_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ServerError, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: Address already in use$"
        ):
            serve(tmp_path / "data", port=port)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_one_sentence(tmp_path: Path, port: int) -> None:
    with pytest.raises(ServerError, match="is not one of 0 to 65535"):
        serve(tmp_path / "data", port=port)


def test_a_data_path_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServerError, match="is a file, not a folder"):
        serve(file, port=0)
    with pytest.raises(ServerError, match="cannot make the data folder"):
        serve(file / "below", port=0)
    (tmp_path / "data" / "lumiqtrace.db").mkdir(parents=True)
    with pytest.raises(ServerError, match="cannot open"):
        serve(tmp_path / "data", port=0)


def test_a_project_made_by_another_process_works_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        code = (
            "import sys, pathlib, lumiqtrace.server as s\n"
            "made = s.create_project(pathlib.Path(sys.argv[1]), 'second')\n"
            "print(made.project_id, made.api_key, made.read_token)"
        )
        command = [sys.executable, "-c", code, str(data)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        made = lumiqtrace.server.Credentials(*output.split())
        with connected(server.url, made) as api, connected(server.url, server.credentials) as first:
            assert api.send(event()).status_code == 202
            assert len(api.spans()) == 1
            assert first.get("trace-abc").status_code == 404
            assert first.send(event()).status_code == 202


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_projects_name_is_something_to_print(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServerError, match="printable"):
        create_project(tmp_path, name)


def test_what_nobody_foresaw_is_a_bare_500_and_a_traceback_in_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(data) as server, connected(server.url, server.credentials()) as api:
        with closing(sqlite3.connect(data / "lumiqtrace.db")) as connection:
            connection.execute("DROP TABLE events")
        answer = api.get("a%0Atrace")
        assert (answer.status_code, answer.json()) == (500, {"error": "Internal error"})
        log = server.stderr.read_text()
        assert log.count(" ERROR ") == 1
        assert "no such table: events" in log
        # What was asked for is not in the message of the failed query.
        assert api.credentials.project_id not in log
        # One record: nothing but the first line starts at the margin.
        assert [line[:1] == " " for line in log.splitlines()].count(False) == 1
        assert api.http.get("/healthz").status_code == 200


def test_nothing_secret_reaches_the_log(tmp_path: Path) -> None:
    with server_process(tmp_path / "data", access_log=True) as server:
        credentials = server.credentials()
        with connected(server.url, credentials) as api:
            assert api.send(event(model="private words")).status_code == 202
            assert api.send(event(status="private words")).status_code == 400
            assert api.get("trace-abc").status_code == 200
            assert api.get("trace-abc", token=credentials.api_key).status_code == 401
        log = server.stderr.read_text()
        assert log.count('"POST /v1/ingest HTTP/1.1"') == 2
        for secret in (credentials.api_key, credentials.read_token, "private words"):
            assert secret not in log


def test_control_characters_are_escaped_in_the_log() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "a\r\nINFO \x1b[2J\u2028b\x85", None, None)
    assert SafeFormatter("%(message)s").format(record) == "a\\r\n    INFO \\x1b[2J\\u2028b\\x85"


def test_without_the_extra_the_import_says_what_to_install() -> None:
    for missing in ("starlette", "uvicorn", "sqlalchemy", "msgspec", "platformdirs"):
        code = f"import sys; sys.modules[{missing!r}] = None; import lumiqtrace.server"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        last = result.stderr.strip().splitlines()[-1]
        assert (
            last == "ImportError: lumiqtrace serve needs the server extra: pip install 'lumiqtrace[server]'"
        )


def test_of_the_sdk_the_server_imports_the_event_only() -> None:
    imported = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module or "")
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                imported.add("relative import above the package")
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    ours = {name for name in imported if name.startswith(("lumiqtrace", "relative"))}
    assert {name for name in ours if not name.startswith("lumiqtrace.server.")} == {"lumiqtrace._event"}


def test_the_public_names() -> None:
    assert lumiqtrace.server.__all__ == [
        "Credentials",
        "RunningServer",
        "ServerError",
        "SqliteStore",
        "create_app",
        "create_project",
        "running",
        "serve",
    ]
    assert all(hasattr(lumiqtrace.server, name) for name in lumiqtrace.server.__all__)


def test_an_application_that_is_shut_down_closes_its_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "events.db")
    app = create_app(store)

    async def start_and_stop() -> None:
        async with app.router.lifespan_context(app):
            assert store.refusal() is None

    asyncio.run(start_and_stop())
    assert str(store.refusal()) == "the server is stopping"
