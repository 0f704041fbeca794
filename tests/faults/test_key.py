"""The API key is in no log line, repr, error, traceback, statistic or file, whatever goes wrong."""

from __future__ import annotations

import base64
import dataclasses
import logging
import pickle
import pprint
import subprocess
import sys
import textwrap
import traceback

import pytest
from backend import KEY
from faults import server as faulty
from faults.emitting import emit, start, wait_for
from faults.server import answering, misbehaving, refusing

import lumiqtrace
from lumiqtrace import LumiqConfig
from lumiqtrace._delivery.transport import HttpTransport, TransportError
from lumiqtrace._encode import compress

# As it is, as bytes in a repr, in base64 and in hexadecimal.
FORMS = (KEY, KEY[4:], base64.b64encode(KEY.encode()).decode()[:40], KEY.encode().hex())

FAULTS = {
    "refused": None,
    "hanging": faulty.hanging,
    "garbage": faulty.saying(b"nonsense\r\n\r\n"),
    "half a body": faulty.saying(b"HTTP/1.1 202 x\r\ncontent-length: 9\r\n\r\n{"),
    "reset": faulty.resetting,
    "a page": answering(200, {"content-type": "text/html"}, b"<html>"),
    "server error": answering(500),
    "unauthorized": answering(401, body=f'{{"error":"unknown key {KEY}"}}'.encode()),
    "unauthorized, packed": answering(
        401, {"content-encoding": "gzip"}, compress([f'{{"error":"unknown key {KEY}"}}'.encode()])
    ),
    "unauthorized, escaped": answering(401, body=f'{{"error":"unknown key \\u006c{KEY[1:]}"}}'.encode()),
    "rejected": answering(404, body=KEY.encode()),
    "redirected": answering(302, {"location": f"http://127.0.0.1/?key={KEY}"}),
    "refused lines": answering(202, {}, f'{{"accepted":0,"errors":["no {KEY}"]}}'.encode()),
    "it echoes": faulty.saying(f"{KEY} is not welcome\r\n\r\n".encode()),
    "it echoes in its type": answering(200, {"content-type": KEY}, b"x"),
}


def check(text):
    for form in FORMS:
        assert form not in text, text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_delivery_that_fails_does_not_show_the_key(fault, caplog, capfd, tmp_path):
    """Logged at DEBUG with everything, printed with `debug=True`, kept in the spool."""
    with caplog.at_level(logging.DEBUG), refusing(FAULTS[fault]) as server:
        if fault != "refused":
            server.listen()
        folder = tmp_path / "spool"
        client = start(server.url, debug=True, spool_dir=str(folder))
        emit(range(5))
        client.flush(0.2)
        check(repr(client.stats()) + repr(client) + repr(vars(client)))
        client.shutdown(0.1)
        if fault != "hanging":  # there the request is still under way
            assert caplog.records
        printed = capfd.readouterr()
        check(caplog.text + printed.out + printed.err)
        for path in folder.rglob("*"):
            check(str(path))
            if path.is_file():
                check(path.read_bytes().decode("latin-1"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_traceback_with_every_local_does_not_show_the_key(fault):
    """What crash reporters and debuggers print: the values of all locals, up to the socket."""
    with refusing(FAULTS[fault]) as server:
        if fault != "refused":
            server.listen()
        transport = HttpTransport(LumiqConfig(api_key=KEY, base_url=server.url))
        transport_error = None
        try:
            reply = transport.send(compress([b"{}"]), {}, 0.3)
        except TransportError as error:
            transport_error = error
        finally:
            transport.close()
        if transport_error is None:
            check(repr(reply))
            return
        lines = traceback.TracebackException.from_exception(transport_error, capture_locals=True).format()
        check("".join(lines))


def test_an_interrupted_request_does_not_show_the_key(monkeypatch):
    """Whatever ends a request from outside carries the locals of all of our frames."""
    from lumiqtrace._delivery import http

    def interrupt(self):
        raise KeyboardInterrupt

    with misbehaving(faulty.hanging) as server:
        transport = HttpTransport(LumiqConfig(api_key=KEY, base_url=server.url))
        transport._load()
        receive = http.Connection._receive
        monkeypatch.setattr(
            http.Connection,
            "_receive",
            lambda self, deadline, limit: (
                monkeypatch.setattr(http.Deadline, "left", interrupt),
                receive(self, deadline, limit),
            ),
        )
        with pytest.raises(KeyboardInterrupt) as caught:
            transport.send(compress([b"{}"]), {}, 5)
        monkeypatch.undo()
        transport.close()
    lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    shown = "".join(lines)
    assert "readinto" in shown
    assert "_send" in shown or "exchange" in shown
    check(shown)


def test_the_configuration_does_not_show_the_key():
    config = LumiqConfig(api_key=KEY)
    client = lumiqtrace.init(KEY, base_url="http://127.0.0.1:9")
    for shown in (
        *(repr(config), str(config), f"{config.api_key}", f"{config.api_key!r}", pprint.pformat(config)),
        repr(dataclasses.replace(config)),
        *(repr(client), str(client), repr(client.config), repr(client.stats())),
    ):
        check(shown)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(config)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": KEY[4:]},
        {"api_key": KEY + " "},
        {"api_key": KEY + "\n"},
        {"api_key": KEY + "é"},
        {"api_key": [KEY]},
        {"api_key": KEY.encode()},
        {"api_key": KEY, "base_url": f"https://{KEY}@collector.test"},
    ],
)
def test_a_mistake_in_the_configuration_does_not_show_the_key(options):
    with pytest.raises(lumiqtrace.ConfigError) as caught:
        LumiqConfig(**options)
    check(str(caught.value) + repr(caught.value))


def test_the_environments_key_is_not_printed_by_a_program_that_fails():
    """A whole process: warnings, tracebacks, logs, the end; and its command line."""
    script = textwrap.dedent("""
        import logging, lumiqtrace, os, sys
        logging.basicConfig(level=logging.DEBUG)
        client = lumiqtrace.init(base_url=sys.argv[1], debug=True, shutdown_timeout=0.3)
        with lumiqtrace.span("work"):
            pass
        lumiqtrace.flush(0.3)
        print(client, client.config, client.stats(), vars(client))
        print(open("/proc/self/cmdline").read() if os.path.exists("/proc/self/cmdline") else "")
        raise RuntimeError("the program's own")
    """)
    with misbehaving(answering(500)) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", script, server.url],
            capture_output=True, text=True, timeout=50, check=False,
            env={"LUMIQTRACE_API_KEY": KEY, "PYTHONPATH": ":".join(filter(None, sys.path))},
        )  # fmt: skip
    assert done.returncode == 1
    assert "the program's own" in done.stderr
    assert "lumiqtrace" in done.stderr
    check(done.stdout + done.stderr)


def test_a_failing_transport_of_the_users_does_not_show_the_key(caplog):
    """An error from it may hold whatever it likes; only its type is told."""

    class Talkative:
        def send(self, body, headers, timeout):
            raise RuntimeError(f"could not send with {KEY}")

        def close(self):
            pass

    with caplog.at_level(logging.DEBUG):
        client = lumiqtrace.Client(LumiqConfig(api_key=KEY), transport=lambda _config: Talkative())
        with lumiqtrace.span("outside"):
            pass
        lumiqtrace._default._current = client
        emit(range(3))
        assert client.flush(0.2) is False
        wait_for(lambda: "RuntimeError" in caplog.text)
        client.shutdown(0)
        check(caplog.text)
