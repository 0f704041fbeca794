"""TLS and proxies: certificates are verified whatever happens, and a proxy learns where, never what."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import sys
import textwrap
from datetime import UTC, datetime

import pytest
import trustme
from backend import KEY
from faults import server as faulty
from faults.emitting import SLACK, Stopwatch, emit, numbers, start, wait_for
from faults.server import accepting, misbehaving, refusing

from lumiqtrace._delivery import loop

NAME = "collector.test"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """The authority is one that the user named."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@pytest.fixture
def names(monkeypatch):
    """Names below .test are this machine, as a company's resolver would have it."""
    lookup = socket.getaddrinfo

    def local(host, *args, **kwargs):
        return lookup("127.0.0.1" if host.endswith(".test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)


def serving(authority, *names, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    return context


def refused(url, caplog, *words):
    """Nothing is delivered to `url`, nothing is lost, and one line says why."""
    client = start(url)
    emit(range(5))
    wait_for(lambda: client.stats().retried > 0)
    watch = Stopwatch()
    assert client.flush(0.1) is False
    assert watch.seconds < 0.1 + 2 * SLACK
    stats = client.stats()
    assert (stats.sent, stats.queued + stats.in_flight, stats.dropped) == (0, 5, {})
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    for word in words:
        assert word in said[0]
    assert KEY not in caplog.text


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_an_authority_that_the_user_named(authority):
    with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
        client = start(server.url)
        for number in range(3):
            emit([number])
            assert client.flush(20)
        assert numbers(server.stored) == [0, 1, 2]
        assert server.connections == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("trusted")
def test_a_child_does_not_end_its_parents_session(authority):
    """It forgets the connection it was born with, at once or by the garbage collection at its end."""
    script = textwrap.dedent("""
        import gc, os, sys
        import lumiqtrace
        def emit(number):
            with lumiqtrace.span(f"event {number}"):
                pass
            assert lumiqtrace.flush(20), lumiqtrace.get_client().stats()
        lumiqtrace.init(sys.argv[2], base_url=sys.argv[1])
        emit(0)
        for number in (1, 3):
            child = os.fork()
            if not child:
                gc.collect()
                emit(number)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            emit(number + 1)
        assert lumiqtrace.get_client().stats().retried == 0
    """)
    with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
        done = subprocess.run([sys.executable, "-X", "dev", "-c", script, server.url, KEY],
                              capture_output=True, text=True, timeout=50, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert numbers(server.stored) == [0, 1, 2, 3, 4]
        assert server.connections == 3  # one for each process


def test_a_certificate_that_nobody_vouches_for(authority, caplog):
    with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
        refused(server.url, caplog, "certificate", "127.0.0.1", "not trusted", "SSL_CERT_FILE")
        assert server.heard == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_host(authority, caplog):
    with misbehaving(accepting, serving(authority, "elsewhere.test")) as server:
        refused(server.url, caplog, "127.0.0.1", "not trusted", "mismatch")
        assert server.heard == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_has_expired(authority, caplog):
    expired = serving(authority, "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with misbehaving(accepting, expired) as server:
        refused(server.url, caplog, "not trusted", "expired")
        assert server.heard == []


def test_a_handshake_that_hangs(caplog, monkeypatch):
    monkeypatch.setattr(loop, "SEND_TIMEOUT", 0.3)
    with misbehaving(faulty.not_reading) as server:
        refused(server.url.replace("http:", "https:"), caplog, "timed out")


def test_a_server_that_does_not_speak_tls(caplog):
    def bad_request(peer):
        peer.connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.close()

    with misbehaving(bad_request) as server:
        refused(server.url.replace("http:", "https:"), caplog, "does not speak TLS", "http://")
        assert server.stored == []


@pytest.mark.usefixtures("trusted")
def test_a_server_that_speaks_nothing_else(authority, caplog):
    with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
        refused(server.url.replace("https:", "http:"), caplog, "cannot be delivered")


def test_a_system_without_authorities_has_those_of_certifi(authority, tmp_path, monkeypatch):
    """On some systems Python finds no list of its own. A certifi of this test's vouches for the server."""
    authority.cert_pem.write_to_path(str(tmp_path / "list.pem"))
    (tmp_path / "certifi.py").write_text(f"def where():\n    return {str(tmp_path / 'list.pem')!r}\n")
    monkeypatch.delitem(sys.modules, "certifi", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
            client = start(server.url)
            emit(range(3))
            assert client.flush(20)
            assert numbers(server.stored) == [0, 1, 2]
            assert client.stats().retried == 0
    finally:
        sys.modules.pop("certifi", None)


def test_what_the_user_trusts_is_not_widened_by_certifi(authority, tmp_path, monkeypatch, caplog):
    authority.cert_pem.write_to_path(str(tmp_path / "list.pem"))
    (tmp_path / "certifi.py").write_text(f"def where():\n    return {str(tmp_path / 'list.pem')!r}\n")
    monkeypatch.delitem(sys.modules, "certifi", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "mine.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mine.pem"))
    with misbehaving(accepting, serving(authority, "127.0.0.1")) as server:
        refused(server.url, caplog, "not trusted")
    assert "certifi" not in sys.modules


# ---- proxies -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
def test_https_goes_through_a_tunnel_in_which_the_key_is_not_seen(authority, monkeypatch):
    with (
        misbehaving(accepting, serving(authority, NAME)) as server,
        misbehaving(faulty.tunnelling(server.port)) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = start(f"https://{NAME}")
        for number in range(3):
            emit([number])
            assert client.flush(20)
        assert numbers(server.stored) == [0, 1, 2]
        assert server.heard[0].headers["x-api-key"] == KEY
        assert [heard.line for heard in proxy.heard] == [f"CONNECT {NAME}:443 HTTP/1.1"]
        assert "x-api-key" not in proxy.heard[0].headers
        assert "proxy-authorization" not in server.heard[0].headers
        assert len(proxy.relayed) > 500
        assert KEY.encode() not in proxy.relayed


@pytest.mark.usefixtures("trusted")
def test_a_tunnel_leads_to_somebody_else(authority, monkeypatch, caplog):
    """The certificate is the target's, not the proxy's."""
    with misbehaving(accepting, serving(authority, "elsewhere.test")) as server:
        with misbehaving(faulty.tunnelling(server.port)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            refused(f"https://{NAME}", caplog, NAME, "not trusted")
        assert server.heard == []


@pytest.mark.usefixtures("trusted")
def test_a_proxy_that_wants_a_password(authority, monkeypatch, caplog):
    password = base64.b64encode(b"me:p@ss").decode()
    with (
        misbehaving(accepting, serving(authority, NAME)) as server,
        misbehaving(faulty.tunnelling(server.port, password)) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        refused(f"https://{NAME}", caplog, f"127.0.0.1:{proxy.port}", "answered 407")
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        client = start(f"https://{NAME}")
        assert client.flush(20)
        assert numbers(server.stored) == list(range(5))
        assert "p@ss" not in caplog.text
        assert password not in caplog.text


@pytest.mark.parametrize("fault", ["refuses", "hangs", "closes", "forbids"])
@pytest.mark.usefixtures("names")
def test_a_proxy_that_does_not_connect_is_not_gone_around(fault, monkeypatch, caplog):
    monkeypatch.setattr(loop, "SEND_TIMEOUT", 0.3)
    modes = {"hangs": faulty.hanging, "closes": faulty.saying(b""), "forbids": faulty.answering(403)}
    with refusing(modes.get(fault)) as proxy, misbehaving(accepting) as server:
        if fault != "refuses":
            proxy.listen()
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        refused(f"https://{NAME}:{server.port}", caplog, "cannot be delivered")
        assert server.connections == 0


def test_plain_http_goes_to_the_proxy_as_it_is(monkeypatch):
    with misbehaving(accepting) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:secret@"))
        client = start(f"http://{NAME}:8080/base")
        for number in range(2):
            emit([number])
            assert client.flush(20)
        assert proxy.heard[0].line == f"POST http://{NAME}:8080/base/v1/ingest HTTP/1.1"
        assert proxy.heard[0].headers["host"] == f"{NAME}:8080"
        assert proxy.heard[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
        assert proxy.connections == 1


@pytest.mark.usefixtures("names")
def test_no_proxy_is_honoured(monkeypatch):
    with misbehaving(accepting) as server, misbehaving(accepting) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "elsewhere.test,.test")
        client = start(f"http://{NAME}:{server.port}")
        emit(range(3))
        assert client.flush(20)
        assert numbers(server.stored) == [0, 1, 2]
        assert proxy.connections == 0


def test_this_machine_is_never_reached_through_a_proxy(monkeypatch):
    with misbehaving(accepting) as server, misbehaving(accepting) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        client = start(server.url)
        emit(range(3))
        assert client.flush(20)
        assert (len(server.stored), proxy.connections) == (3, 0)


def test_a_proxy_of_a_kind_that_we_cannot_use_is_named(monkeypatch, caplog):
    monkeypatch.setenv("ALL_PROXY", "socks5://me:hush@127.0.0.1:1080")
    refused(f"https://{NAME}", caplog, "ALL_PROXY", "http://proxy.example:3128")
    assert "hush" not in caplog.text
