"""The command line as people meet it: a process, its output and its exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from pathlib import Path

import pytest
from faults.server import answering, misbehaving, saying

import lumiqtrace
from lumiqtrace.server import running

UUID = "550e8400-e29b-41d4-a716-44665544"


def command(*arguments, stdout=subprocess.PIPE, **environment):
    env = {name: value for name, value in os.environ.items() if not name.startswith("LUMIQTRACE_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "lumiqtrace", *arguments],
        stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=50, check=False, env={**env, **environment},
    )  # fmt: skip


def spans_of(roots):
    waiting = [(root, None) for root in roots]
    while waiting:
        span, parent = waiting.pop()
        yield span, parent
        waiting += [(child, span) for child in span["children"]]


@pytest.fixture(scope="module")
def demo():
    return command("demo", "--exit")


def test_the_demo_shows_a_trace_and_ends(demo):
    assert demo.returncode == 0, demo.stderr
    assert demo.stderr == ""
    assert "Yes. Order 1042, the kettle" in demo.stdout
    tree = [line for line in demo.stdout.splitlines() if "━" in line]
    assert len(tree) == 9
    assert tree[0].startswith("answer customer")
    assert all(line.startswith(("├─", "│", "└─")) for line in tree[1:])
    for part in ("→ look_up_order", "search documents  retriever", "text-embedding-3-small  embed"):
        assert part in demo.stdout
    assert "error model_not_found" in tree[-1]
    costs = re.findall(r"\$(\d\.\d+)", "".join(tree))
    assert len(costs) == 4
    assert all(float(cost) > 0 for cost in costs)
    assert re.search(
        r"^9 spans .* tokens in, \d+ out  \$0\.0000\d+  1 not successful$", demo.stdout, re.MULTILINE
    )
    assert re.search(r"^Server: http://127\.0\.0\.1:\d+$", demo.stdout, re.MULTILINE)


def test_the_demo_stays_up_until_it_is_interrupted():
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lumiqtrace", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        address = next(line for line in lines if line.startswith("Server: ")).split()[1]
        assert "Ctrl-C" in next(lines)
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_live_without_a_key_is_one_sentence():
    done = command("demo", "--live", "--exit", OPENAI_API_KEY="")
    assert done.returncode == 1
    assert done.stderr == "lumiqtrace: --live calls the real OpenAI API: set OPENAI_API_KEY first\n"


@pytest.fixture
def stored(tmp_path):
    """A server with one trace on it; gives the server and the trace's id."""
    with running(tmp_path) as server:
        lumiqtrace.init(server.credentials.api_key, base_url=server.url)
        with lumiqtrace.span("outer", "agent") as outer, lumiqtrace.span("inner", "tool") as inner:
            inner.set_usage(input_tokens=10, output_tokens=5, cost_usd=0.25)
        assert lumiqtrace.flush(20)
        yield server, outer.trace_id


def access(server):
    return {
        "LUMIQTRACE_BASE_URL": server.url,
        "LUMIQTRACE_PROJECT_ID": server.credentials.project_id,
        "LUMIQTRACE_READ_TOKEN": server.credentials.read_token,
    }


def test_traces_show_prints_the_tree(stored):
    server, trace_id = stored
    done = command("traces", "show", trace_id, **access(server))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1].startswith("outer  agent")
    assert lines[2].startswith("└─ inner  tool")
    assert "10/5" in lines[2]
    assert "$0.250000" in lines[2]


def test_traces_show_json_is_what_the_server_gives(stored):
    server, trace_id = stored
    options = ["--base-url", server.url, "--project", server.credentials.project_id]
    done = command("traces", "show", trace_id, "--json", *options, "--token", server.credentials.read_token)
    assert (done.returncode, done.stderr) == (0, "")
    (root,) = json.loads(done.stdout)
    assert (root["name"], root["parent_span_id"]) == ("outer", None)
    assert [child["name"] for child in root["children"]] == ["inner"]
    assert root["children"][0]["parent_span_id"] == root["span_id"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"LUMIQTRACE_READ_TOKEN": "lqr_" + "0" * 64}, "401: Not authenticated\n"),
        ({"LUMIQTRACE_READ_TOKEN": "lqt_" + "0" * 64}, "401: Not authenticated; a read token starts with lqr_\n"),
        ({"LUMIQTRACE_PROJECT_ID": "proj_other"}, "403: Not a member of this organization; is proj_other (--project or LUMIQTRACE_PROJECT_ID) the token's project?\n"),
        ({"LUMIQTRACE_BASE_URL": "http://127.0.0.1:9"}, "cannot reach http://127.0.0.1:9"),
        ({"LUMIQTRACE_BASE_URL": "nonsense"}, "base_url: 'nonsense' is no http(s) address"),
        ({"LUMIQTRACE_READ_TOKEN": ""}, "pass --token or set LUMIQTRACE_READ_TOKEN"),
        ({"LUMIQTRACE_PROJECT_ID": ""}, "pass --project or set LUMIQTRACE_PROJECT_ID"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_one(stored, change, says):
    server, trace_id = stored
    done = command("traces", "show", trace_id, **{**access(server), **change})
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_trace_that_is_not_there(stored):
    server, _ = stored
    done = command("traces", "show", "no/such trace?", **access(server))
    assert done.returncode == 1
    assert "404: Trace not found" in done.stderr


def test_serve_and_projects_create(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lumiqtrace", "serve", "--data", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        address = next(lines).split()[-1]
        key = next(line for line in lines if "API key:" in line).split()[-1]
        made = command("projects", "create", "second", "--data", str(tmp_path))
        assert made.returncode == 0, made.stderr
        second = re.search(r"lqt_[0-9a-f]{64}", made.stdout).group()
        for api_key in (key, second):
            client = lumiqtrace.init(api_key, base_url=address)
            with lumiqtrace.span("hello"):
                pass
            assert lumiqtrace.flush(20)
            assert client.stats().sent == 1
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_serve_on_all_addresses_shows_one_that_can_be_called(tmp_path):
    command = ["serve", "--data", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lumiqtrace", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        port = next(lines).rpartition(":")[2].strip()
        base_url = next(line for line in lines if "base_url" in line)
        assert f'base_url="http://127.0.0.1:{port}"' in base_url
        assert f'"http://127.0.0.1:{port}/v1/traces/' in next(line for line in lines if "curl" in line)
        assert any("From another machine: this machine's name" in line for line in lines)
    finally:
        process.kill()
        process.communicate()


def test_serve_on_a_folder_that_cannot_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    done = command("serve", "--data", str(file), "--port", "0")
    assert done.returncode == 1
    assert done.stderr == f"lumiqtrace: the data path {file} is a file, not a folder\n"


@pytest.mark.parametrize("arguments", [(), ("traces",), ("nonsense",), ("serve", "--port", "many")])
def test_a_wrong_option_is_status_two(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: lumiqtrace")


def test_the_installed_command_is_the_module():
    script = Path(sys.executable).with_name("lumiqtrace")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == command("--version").stdout == f"lumiqtrace {lumiqtrace.__version__}\n"


def test_without_the_server_extra_it_names_the_command_to_install():
    code = (
        "import sys; sys.modules['rich'] = None; from lumiqtrace.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    expected = "lumiqtrace: lumiqtrace serve needs the server extra: pip install 'lumiqtrace[server]'\n"
    assert done.stderr == expected


def report_losses(server, process, dropped, **names):
    """One batch of a process that lost something, as its exporter would send it."""
    told = {"process": process, **names, "dropped": dropped}
    event = {
        "event_id": str(uuid.uuid4()), "trace_id": "t", "span_id": "s", "timestamp": "2026-04-20T10:00:00.000Z",
        "provider": "custom", "model": "m", "operation": "custom", "latency_ms": 1, "input_tokens": 0,
        "output_tokens": 0, "cost_usd": 0, "status": "success", "stream": False, "environment": "e",
        "sdk_version": "1",
    }  # fmt: skip
    headers = {
        "x-api-key": server.credentials.api_key,
        "content-type": "application/x-ndjson",
        "x-lumiqtrace-losses": json.dumps(told),
    }
    request = urllib.request.Request(server.url + "/v1/ingest", json.dumps(event).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 202


def test_losses_says_who_lost_what_and_when(tmp_path):
    with running(tmp_path) as server:
        done = command("losses", **access(server))
        assert (done.returncode, done.stdout, done.stderr) == (0, "no losses reported\n", "")
        report_losses(server, "0" * 32, {"queue_full": 11}, service="checkout", environment="production")
        report_losses(server, "1" * 32, {"queue_full": 1}, service="checkout", environment="production")
        report_losses(server, "2" * 32, {"shutdown": 1})
        done = command("losses", **access(server))
        assert (done.returncode, done.stderr) == (0, "")
        newest, older = done.stdout.splitlines()
        assert newest.startswith("1 event lost by an unnamed service: shutdown, last at 20")
        assert older.startswith(
            "12 events lost by checkout (production): queue full, in 2 processes, last at 20"
        )
        done = command("losses", "--json", **access(server))
        assert [loss["events"] for loss in json.loads(done.stdout)] == [1, 12]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"LUMIQTRACE_READ_TOKEN": "lqr_" + "0" * 64}, "401: Not authenticated"),
        (
            {"LUMIQTRACE_READ_TOKEN": "lqt_" + "0" * 64},
            "401: Not authenticated; a read token starts with lqr_\n",
        ),
        ({"LUMIQTRACE_READ_TOKEN": "lqr_ 0"}, "the read token holds white space"),
        ({"LUMIQTRACE_PROJECT_ID": "proj_other"}, "403: Not a member of this organization"),
        ({"LUMIQTRACE_BASE_URL": "http://127.0.0.1:9"}, "cannot reach http://127.0.0.1:9"),
        ({"LUMIQTRACE_PROJECT_ID": ""}, "pass --project or set LUMIQTRACE_PROJECT_ID"),
    ],
)
def test_losses_that_cannot_be_read_are_one_sentence(stored, change, says):
    server, _ = stored
    done = command("losses", **{**access(server), **change})
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((b"traces", b"show", b"\xff"), r"trace_id: '\udcff' is not UTF-8"),
        ((b"losses", b"--project", b"a\xff"), r"project: 'a\udcff' is not UTF-8"),
        ((b"losses", b"--base-url", b"http://a\xff"), r"base_url: 'http://a\udcff' is not UTF-8"),
        (
            (b"losses", b"--token", b"lqr_ab\xff"),
            "--token: what it or LUMIQTRACE_READ_TOKEN holds is not UTF-8",
        ),
        ((b"projects", b"create", b"\xff"), r"name: '\udcff' is not UTF-8"),
    ],
)
def test_an_argument_that_is_no_utf8_is_one_sentence(stored, arguments, says):
    done = command(*arguments, **access(stored[0]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"lumiqtrace: {says}")
    assert done.stderr.count("\n") == 1
    assert "lqr_ab" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("arguments", [("losses",), ("losses", "--json")])
def test_an_output_that_cannot_be_written_is_one_sentence(stored, arguments):
    with Path("/dev/full").open("w") as full:
        done = command(*arguments, **access(stored[0]), PYTHONUNBUFFERED="", stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "lumiqtrace: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("body", [b"[5]", b"[null]", b'[{"children":5}]'])
def test_a_trace_that_is_none_is_one_sentence(body):
    with misbehaving(saying(b"HTTP/1.1 200 x\r\n\r\n" + body)) as server:
        done = command("traces", "show", "t", LUMIQTRACE_BASE_URL=server.url, LUMIQTRACE_PROJECT_ID="p", LUMIQTRACE_READ_TOKEN="t")  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"lumiqtrace: {server.url} did not answer with a trace; is it a lumiqtrace server?\n"
    )


@pytest.mark.parametrize("arguments", [("losses",), ("traces", "show", "t")])
def test_a_servers_words_do_not_drive_the_terminal_or_tell_the_token(arguments):
    token = "lqr_" + "ef56" * 16
    said = f"\x1b]0;owned\x07\x1b[2J{token}"
    said = json.dumps({"error": said if arguments == ("losses",) else {"message": said}}).encode()
    with misbehaving(answering(403, {}, said)) as server:
        done = command(*arguments, LUMIQTRACE_BASE_URL=server.url, LUMIQTRACE_PROJECT_ID="p", LUMIQTRACE_READ_TOKEN=token)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"lumiqtrace: {server.url} answered 403: ]0;owned[2J[REDACTED]; is p (")
    assert done.stderr.count("\n") == 1


def test_what_was_typed_does_not_drive_the_terminal():
    done = command("projects", "create", "shop", "--data", "/dev/null/\x1b[31mx")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/dev/null/[31mx" in done.stderr
    assert "\x1b" not in done.stderr


def test_losses_of_what_is_no_lumiqtrace_server(tmp_path):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"losses": [5]}')

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = command("losses", "--base-url", url, "--project", "p", "--token", "lqr_x")
        thread.join()
    assert done.returncode == 1
    assert done.stderr == f"lumiqtrace: {url} did not answer with losses; is it a lumiqtrace server?\n"
