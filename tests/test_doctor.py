"""`lumiqtrace doctor` against healthy servers and against everything that goes wrong on the way to one."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from test_cli import access, command

from lumiqtrace._commands import doctor
from lumiqtrace._commands.finding import Finding
from lumiqtrace.server import running
from lumiqtrace.testing import KEY, Answer, LoopbackBackend

STEPS = [
    "installed", "integrations", "recording", "API key", "base URL", "proxy", "name", "connection", "certificate",
    "server", "clock", "test event",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("LUMIQTRACE_API_KEY", KEY)


def examine(url, patience=20.0):
    """The findings by step; none of them has a key in it."""
    findings = list(doctor.examine(url, patience))
    assert KEY[4:] not in repr(findings)
    return {finding.step: finding for finding in findings}


def last(url, patience=20.0):
    return list(examine(url, patience).values())[-1]


@contextmanager
def encrypted(*names, **validity):
    """A backend behind TLS, and the authority that its certificate comes from."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **validity).configure_cert(context)
    with LoopbackBackend() as backend:
        server = backend._server
        server.socket = context.wrap_socket(server.socket, server_side=True)
        backend.url = backend.url.replace("http:", "https:")
        yield backend, authority


@pytest.fixture
def trusting(monkeypatch, tmp_path):
    def trust(authority):
        file = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(file)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))

    return trust


# ---- all is well -----------------------------------------------------------------------------------------------


def test_a_healthy_server_passes_every_step_and_gets_one_event(tmp_path):
    with running(tmp_path) as server:
        done = command(
            "doctor", LUMIQTRACE_API_KEY=server.credentials.api_key, LUMIQTRACE_BASE_URL=server.url
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        rows = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
        assert [row[9:23].strip() for row in rows] == STEPS
        assert {row.split()[0] for row in rows} == {"ok", "note"}
        assert done.stdout.endswith("it must call lumiqtrace.init(), or give the middleware a config\n")
        trace_id = rows[-1].split()[-1]
        shown = command("traces", "show", trace_id, "--json", **access(server))
        (root,) = json.loads(shown.stdout)
    assert root["name"] == "lumiqtrace doctor"
    assert server.credentials.api_key[4:] not in done.stdout
    assert "lqt_…" in done.stdout


def test_the_findings_as_json():
    with LoopbackBackend() as backend:
        done = command("doctor", "--json", "--base-url", backend.url, LUMIQTRACE_API_KEY=KEY)
        assert (done.returncode, done.stderr) == (0, "")
        assert [event["name"] for event in backend.events] == ["lumiqtrace doctor"]
    findings = json.loads(done.stdout)
    assert [finding["step"] for finding in findings] == STEPS
    assert findings[0]["said"].startswith("Python 3.")


def test_it_works_without_the_server_extra():
    code = "import sys\nfor name in ('rich', 'starlette', 'sqlalchemy', 'uvicorn', 'msgspec', 'httpx'): sys.modules[name] = None\n"
    code += "from lumiqtrace.cli import main\nsys.exit(main(['doctor']))"
    with LoopbackBackend() as backend:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False,
            env={**os.environ, "LUMIQTRACE_BASE_URL": backend.url},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "ok       test event" in done.stdout


def test_tls_with_an_authority_of_one_s_own(trusting):
    with encrypted("127.0.0.1") as (backend, authority):
        trusting(authority)
        found = examine(backend.url)
        assert len(backend.events) == 1
    assert list(found) == STEPS
    assert found["certificate"].state == "ok"
    assert "for 127.0.0.1, trusted, until " in found["certificate"].said


def test_through_a_proxy(monkeypatch):
    with LoopbackBackend() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://user:hidden@"))
        found = examine("http://ingest.test")
        assert {request.path for request in proxy.requests} == {"http://ingest.test/v1/ingest"}
    assert found["proxy"].state == "note"
    assert found["proxy"].said.startswith(proxy.url.removeprefix("http://"))
    assert found["base URL"].state == "warning"
    assert "is not encrypted" in found["base URL"].said
    assert found["test event"].state == "ok"
    assert "hidden" not in repr(found)


# ---- the options -----------------------------------------------------------------------------------------------


def test_a_wrong_option_is_one_finding(monkeypatch):
    monkeypatch.setenv("LUMIQTRACE_SAMPLE_RATE", "often")
    finding = last("http://127.0.0.1:9")
    assert (finding.step, finding.state) == ("options", "failure")
    assert "LUMIQTRACE_SAMPLE_RATE: 'often' is not a number" in finding.said


def test_a_key_of_another_form_is_not_shown():
    done = command("doctor", LUMIQTRACE_API_KEY="sk-1234567890abcdef")
    assert done.returncode == 1
    assert done.stderr == "lumiqtrace: events cannot be delivered: options\n"
    assert "api_key: it does not start with lqt_" in done.stdout
    assert "1234567890" not in done.stdout


def test_without_a_key_the_way_is_still_looked_at(monkeypatch):
    monkeypatch.delenv("LUMIQTRACE_API_KEY")
    with LoopbackBackend() as backend:
        found = examine(backend.url)
        assert backend.requests == []
    assert found["API key"].state == "failure"
    assert "LUMIQTRACE_API_KEY" in found["API key"].advice
    assert list(found)[-1] == "certificate"


@pytest.mark.parametrize(
    ("name", "value", "state", "said"),
    [
        ("ENABLED", "0", "warning", "off: enabled is False"),
        ("SAMPLE_RATE", "0", "warning", "off: sample_rate is 0"),
        ("SAMPLE_RATE", "0.05", "note", "on, for 5.000% of the traces"),
        ("ENVIRONMENT", "staging", "ok", "on, environment 'staging'"),
    ],
)
def test_whether_anything_is_recorded_and_the_way_is_tested_all_the_same(
    monkeypatch, name, value, state, said
):
    monkeypatch.setenv(f"LUMIQTRACE_{name}", value)
    with LoopbackBackend() as backend:
        found = examine(backend.url)
        assert len(backend.events) == 1
    assert found["recording"].state == state
    assert said in found["recording"].said


def test_a_spool_of_the_application_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("LUMIQTRACE_SPOOL_DIR", str(tmp_path / "spool"))
    with LoopbackBackend() as backend:
        assert examine(backend.url)["test event"].state == "ok"
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "1e9"])
def test_a_timeout_that_is_none(seconds):
    done = command("doctor", f"--timeout={seconds}")
    assert done.returncode == 2
    assert f"'{seconds}' is no number of seconds" in done.stderr


# ---- the way ---------------------------------------------------------------------------------------------------


def test_a_proxy_that_is_none(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    finding = last("https://ingest.example")
    assert (finding.step, finding.state) == ("proxy", "failure")


def test_a_name_that_is_none():
    host = "no-such-host.invalid"
    finding = last(f"http://{host}", 5.0)
    assert (finding.step, finding.state) == ("name", "failure")
    assert host in finding.said
    assert finding.advice


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_refused_connection():
    done = command("doctor", "--base-url", f"http://127.0.0.1:{closed_port()}", LUMIQTRACE_API_KEY=KEY)
    assert done.returncode == 1
    assert done.stderr == "lumiqtrace: events cannot be delivered: connection\n"
    assert "Connection refused" in done.stdout
    assert "-> is the server running" in done.stdout


@pytest.fixture
def silent():
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize(("scheme", "step"), [("http", "server"), ("https", "certificate")])
def test_a_server_that_hangs_is_given_up(silent, scheme, step):
    finding = last(f"{scheme}://{silent}", 1.5)
    assert (finding.step, finding.state) == (step, "failure")
    assert "timed out" in finding.said


def test_a_server_that_takes_no_event_is_given_up():
    release = threading.Event()

    def hang(request):
        if request.events:
            release.wait(30)
        return Answer()

    started = time.monotonic()
    with LoopbackBackend(hang) as backend:
        try:
            finding = last(backend.url, 1.5)
        finally:
            release.set()
    assert time.monotonic() - started < 15
    assert (finding.step, finding.state) == ("test event", "failure")
    assert "still waiting after 1.5 s" in finding.said


def test_an_authority_that_is_not_trusted():
    with encrypted("127.0.0.1") as (backend, _):
        finding = last(backend.url)
    assert (finding.step, finding.state) == ("certificate", "failure")
    assert "is not trusted" in finding.said
    assert "SSL_CERT_FILE" in finding.advice


def test_a_certificate_for_another_name(trusting):
    with encrypted("other.example") as (backend, authority):
        trusting(authority)
        finding = last(backend.url)
    assert (finding.step, finding.state) == ("certificate", "failure")
    assert "use the name that the certificate is for" in finding.advice


@pytest.mark.parametrize(
    ("days", "state", "advice"),
    [(-1, "failure", "renew the server's certificate"), (3, "warning", "ends soon")],
)
def test_a_certificate_at_its_end(trusting, days, state, advice):
    began, ends = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC) + timedelta(days=days)
    with encrypted("127.0.0.1", not_before=began, not_after=ends) as (backend, authority):
        trusting(authority)
        finding = examine(backend.url)["certificate"]
    assert finding.state == state
    assert advice in finding.advice


def test_https_where_the_server_speaks_http():
    with LoopbackBackend() as backend:
        finding = last(backend.url.replace("http:", "https:"))
    assert (finding.step, finding.state) == ("certificate", "failure")
    assert "does the server speak https on this port?" in finding.advice


# ---- the answer ------------------------------------------------------------------------------------------------


def test_a_key_that_the_server_does_not_know(tmp_path):
    with running(tmp_path) as server:
        found = examine(server.url)
    assert found["server"].state == "failure"
    assert "answered 401: Invalid API key" in found["server"].said
    assert "the key is refused" in found["server"].advice
    assert found["clock"].state == "ok"
    assert "test event" not in found


HTML = {"content-type": "text/html"}


@pytest.mark.parametrize(
    ("answer", "said", "advice"),
    [
        (Answer(403), "answered 403", "the key is refused"),
        (Answer(404), "answered 404", "base_url is wrong"),
        (Answer(404, {}, b'{"error": {"message": "no /v1/ingest"}}'), "answered 404: no /v1/ingest", "base_url is wrong"),
        (Answer(404, {}, b'{"error": {"code": 5}}'), "answered 404", "base_url is wrong"),
        (Answer(404, HTML, b"<h1>Not found</h1>"), "answered 404", "base_url is wrong"),
        (Answer(405), "answered 405", "base_url is wrong"),
        (Answer(200, HTML, b"<h1>Welcome</h1>"), "not JSON", "base_url is a lumiqtrace server's"),
        (Answer(307, {"location": "https://new.example"}), "answered 307", "where it points (https://new.example)"),
        (Answer(400, HTML, b"<h1>Bad</h1>"), "answered 400", "base_url is a lumiqtrace server's"),
        (Answer(429, {"retry-after": "7"}), "answered 429", "try again in 7 s"),
        (Answer(429, {"retry-after": "\x1b[31m"}), "answered 429", "try again later"),
        (Answer(503, {}, b'{"error": "disk full"}'), "answered 503: disk full", "the server is in trouble"),
        (Answer(500, {}, b'{"error": "\\u001b[2J' + b"x" * 9000 + b'"}'), "answered 500: [2Jxxx", "in trouble"),
        (Answer(500, {}, b'{"error": "' + KEY.encode() + b'"}'), "answered 500: ", "in trouble"),
        (Answer(500, {}, b'{"error": "' + b"x" * 150 + b" lqr_" + b"ab12" * 16 + b'"}'), "xxx [REDACTED]", "in trouble"),
        (Answer(302, {"location": f"https://new.example/{KEY}"}), "answered 302", "where it points (https://new.example/"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_of_the_ingest_endpoint(answer, said, advice):
    with LoopbackBackend(lambda _request: answer) as backend:
        finding = examine(backend.url)["server"]
    assert finding.state == "failure"
    assert said in finding.said
    assert advice in finding.advice
    assert len(finding.said) < 400


def test_a_server_that_answers_an_empty_batch_with_400_takes_the_key(tmp_path):
    with running(tmp_path) as server:
        os.environ["LUMIQTRACE_API_KEY"] = server.credentials.api_key
        found = examine(server.url)
    assert found["server"].state == "ok"
    assert found["test event"].state == "ok"


def test_an_event_that_is_refused():
    with LoopbackBackend(lambda request: Answer(404 if request.events else 202)) as backend:
        finding = last(backend.url)
    assert (finding.step, finding.state) == ("test event", "failure")
    assert "not accepted (rejected)" in finding.said


@pytest.mark.parametrize(
    ("hours", "date", "state", "said"),
    [
        (0, None, "ok", "agrees"),
        (2, None, "warning", "s behind the server's"),
        (-2, None, "warning", "s ahead of the server's"),
        (0, "yesterday", "note", "did not say"),
        (0, "Thu, 01 Jan 1970 00:00:00 -0000", "warning", "ahead of"),
    ],
)
def test_the_clock(hours, date, state, said):
    shown = date or format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    with LoopbackBackend(lambda _request: Answer(headers={"date": shown})) as backend:
        found = examine(backend.url)
    assert found["clock"].state == state
    assert said in found["clock"].said
    assert found["test event"].state == "ok"


def test_a_finding_is_printed_without_what_would_drive_a_terminal():
    assert Finding("name", "failure", "a\x1b[2Jb\n", "c\r").lines() == [
        "failure  name           a[2Jb",
        "                        -> c",
    ]


def test_the_page_names_every_step():
    page = (Path(__file__).parent.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ([\w ]+) \| ", page, re.MULTILINE)[1:] == STEPS
    shown = re.findall(r"^(?:ok|failure) +(\w+(?: \w+)?)  ", page, re.MULTILINE)
    assert shown == STEPS[:-1]
