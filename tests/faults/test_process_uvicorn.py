"""uvicorn, which ends its process by the signal that it was stopped with: what is left is delivered before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from backend import Answer
from emitting import SLACK
from process_helpers import group, names, once, run, started
from test_workers_wsgi import ask, free_port

HERE = Path(__file__).parent
UVICORN = [sys.executable, "-W", "error", "-m", "uvicorn", "asgi_app:app", "--port", "{port}"]
SCRIPT = [sys.executable, "-W", "error", "-c"]
GUNICORN = [
    sys.executable, "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "asgi_app:app",
]  # fmt: skip

IMPORTED_LATE = """
import uvicorn
try:
    uvicorn.Server(uvicorn.Config("asgi_app:app", port={port})).run()
except KeyboardInterrupt:
    pass
"""
"""After the server took the signals over, as also older versions of the command line do."""

SERVERS = {
    "alone": UVICORN,
    "with the application imported late": [*SCRIPT, IMPORTED_LATE],
    "called by the application": [*SCRIPT, "import asgi_app as a, uvicorn; uvicorn.run(a.app, port={port})"],
    "two workers": [*UVICORN, "--workers", "2"],
    "reloading": [*UVICORN, "--reload"],
    "under gunicorn": GUNICORN,
    "under gunicorn, preloaded": [*GUNICORN, "--preload", "-w", "2"],
}  # fmt: skip
CASES = [
    # gunicorn's answer to SIGINT lets these workers hang for half a minute, also without us.
    pytest.param(server, number, id=f"{server}, {number.name}")
    for server in SERVERS
    for number in (signal.SIGTERM, signal.SIGINT)
    if "gunicorn" not in server or number is signal.SIGTERM
]
REQUESTS = 10


@contextmanager
def serving(command, backend, **environment):
    """A server that has answered its requests; gives its process."""
    port = free_port()
    with group([part.format(port=port) for part in command], backend, cwd=HERE, **environment) as server:
        for number in range(REQUESTS):
            ask(port, f"/{number}", server)
        yield server


def status_of(command, number, backend, **environment):
    """Have it serve and stop; gives the exit status."""
    with serving(command, backend, **environment) as server:
        server.send_signal(number)
        output, _ = server.communicate(timeout=40)
    assert "Traceback" not in output, output
    return server.returncode


def requests(backend):
    """The paths of the requests that were delivered, each with its call of a model."""
    assert len({event["event_id"] for event in backend.events}) == len(backend.events)
    spans = {event["span_id"]: event["name"] for event in backend.events if event["span_kind"] != "llm"}
    calls = [event for event in backend.events if event["span_kind"] == "llm"]
    assert sorted(spans.values()) == sorted(spans[call["parent_span_id"]] for call in calls)
    return sorted(spans.values())


ALL = [f"request {number}" for number in range(REQUESTS)]


@pytest.mark.parametrize(("server", "number"), CASES)
def test_what_is_left_is_delivered_and_the_exit_status_is_kept(backend, server, number):
    status = status_of(SERVERS[server], number, backend)
    assert requests(backend) == ALL
    assert status == status_of(SERVERS[server], number, backend, OFF="1")


@pytest.fixture
def hanging(backend):
    """A backend that answers no request before the test is over; `asked` once it has one."""
    backend.asked, release = threading.Event(), threading.Event()

    def hang(_request):
        backend.asked.set()
        release.wait(40)
        return Answer()

    backend.answer = hang
    yield backend
    release.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_backend_that_hangs_is_waited_for_once_and_the_loss_is_told(hanging, number):
    """The middleware at the lifespan's end, the server's end, and the interpreter's after SIGINT."""
    timeout = 4.0
    with serving([*SCRIPT, IMPORTED_LATE], hanging, MIDDLEWARE="1", TIMEOUT=str(timeout)) as server:
        server.send_signal(number)
        sent = time.monotonic()
        output, _ = server.communicate(timeout=40)
    assert time.monotonic() - sent < timeout + SLACK
    assert hanging.asked.is_set()
    assert f"{3 * REQUESTS} events are not delivered as the server stops" in output


SERVED = """
import asyncio, os, signal, uvicorn
STARTING = lambda: None
async def app(scope, receive, send):
    while True:
        what = (await receive())["type"]
        if what == "lifespan.startup":
            emit("served")
            STARTING()
        await send({"type": f"{what}.complete"})
        if what == "lifespan.shutdown":
            return
class Foreign:
    async def shutdown(self): pass
class Server(uvicorn.Server, Foreign):
    FAILURE = None
    async def shutdown(self, sockets=None):
        await super().shutdown(sockets)
        if self.FAILURE is not None:
            raise self.FAILURE
def stop():
    server.handle_exit(signal.SIGINT, None)
def served(server):
    try:
        server.run()
    except KeyboardInterrupt:
        return
    raise AssertionError("the signal did not come")
server = Server(uvicorn.Config(app, port=0, log_level="critical"))
"""


def test_after_a_server_the_process_goes_on_and_records(backend):
    code = f"""{SERVED}
STARTING = stop
served(server)
assert client.stats().sent == 1, client.stats()
emit("afterwards")
server = Server(uvicorn.Config(app, port=0, log_level="critical"))
served(server)
assert client.recording
emit("at the end")
"""
    run(code, backend)
    assert once(backend) == ["afterwards", "at the end", "served", "served"]


def test_every_client_delivers_and_the_servers_are_prepared_once(backend):
    code = f"""{SERVED}
def STARTING():
    stop()
    prepared = Server.shutdown, uvicorn.Server.shutdown
    assert not set(prepared) & set(before)
    global other
    other = lumiqtrace.Client(client.config)
    lumiqtrace.Span(other, "another", "general", {{}}).begin().end()
    assert (Server.shutdown, uvicorn.Server.shutdown) == prepared
    assert Foreign.shutdown is foreign
before = Server.shutdown, uvicorn.Server.shutdown
foreign = Foreign.shutdown
served(server)
assert client.stats().sent == other.stats().sent == 1
"""
    run(code, backend)
    assert once(backend) == ["another", "served"]


@pytest.mark.parametrize("rate", [1, 0], ids=["kept", "undecided"])
def test_a_stream_and_a_trace_that_outlive_the_server_stay_open(backend, rate):
    """No signal stopped it, so the program goes on, and `atexit` comes at its end."""
    code = f"""{SERVED}
import contextlib, httpx2, json, openai
def piece(**values):
    return b"data: " + json.dumps({{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
                                   **values}}).encode() + b"\\n\\n"
def say(text, reason=None):
    return piece(choices=[{{"index": 0, "delta": {{"content": text}}, "finish_reason": reason}}])
usage = {{"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}}
answer = [say("Hel"), say("lo", "stop"), piece(choices=[], usage=usage), b"data: [DONE]\\n\\n"]
def respond(request):
    return httpx2.Response(200, headers={{"content-type": "text/event-stream"}}, content=iter(answer))
model = openai.OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(respond)))
lumiqtrace.patch_openai()
def STARTING():
    client.stats()  # it is known from here on that the signals are the server's
    server.should_exit = True
with contextlib.suppress(ValueError), lumiqtrace.span("program"):
    stream = iter(model.chat.completions.create(model="gpt-4o", messages=[], stream=True))
    next(stream)
    server.run()
    for _ in stream: pass
    raise ValueError("of interest: so the whole trace is")
"""
    run(code, backend, sample_rate=rate, sample_errors=True)
    found = [(event.get("name", "call"), event["status"], event["output_tokens"]) for event in backend.events]
    assert sorted(found) == [("call", "success", 4), ("program", "error", 0), ("served", "success", 0)]


def test_the_other_server_of_a_process_delivers_too(backend):
    """The handler of the signal is the second one's; the first has a request under way when that stops."""
    code = """
import asyncio, os, signal, uvicorn

class Server(uvicorn.Server):
    async def shutdown(self, sockets=None):
        await super().shutdown(sockets)
        emit(f"after {self.config.app.__name__}")

async def started(server):
    serving = asyncio.create_task(server.serve())
    while not server.started: await asyncio.sleep(0.01)
    return serving

async def first(scope, receive, send):
    asked.set()
    while not serving[1].done(): await asyncio.sleep(0.01)
    emit("the last request")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})

async def second(scope, receive, send): raise AssertionError

async def main():
    global asked, serving
    asked = asyncio.Event()
    options = {"port": 0, "lifespan": "off", "log_level": "critical"}
    servers = [Server(uvicorn.Config(app, **options)) for app in (first, second)]
    serving = [await started(server) for server in servers]
    global client
    client = lumiqtrace.init(client.config.api_key.reveal(), base_url=client.config.base_url, flush_interval=3600)
    emit("early")
    port = servers[0].servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
    await asked.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.gather(*serving)

signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as where the application is imported late
asyncio.run(main())
"""
    run(code, backend, status=-signal.SIGTERM)
    assert once(backend) == ["after first", "after second", "early", "the last request"]


def test_a_server_in_a_process_without_threads_delivers_too(backend):
    code = f"""{SERVED}
import threading
threading.stack_size(2**46)  # more than there is: the system itself refuses every new thread
STARTING = stop
served(server)
assert client.stats().sent == 1, client.stats()
"""
    run(code, backend)
    assert names(backend) == ["served"]


def test_an_error_of_the_servers_shutdown_is_the_applications(backend):
    code = f"""{SERVED}
STARTING = stop
server.FAILURE = OSError("as it came")
try:
    server.run()
except OSError as error:
    assert error is server.FAILURE
    assert client.stats().sent == 1, client.stats()
    print("mine")
"""
    assert run(code, backend) == "mine\n"


def test_who_cancels_the_server_does_not_wait_for_us(hanging):
    code = f"""{SERVED}
STARTING = stop
async def main():
    serving = asyncio.create_task(server.serve())
    while not (server.should_exit and client.stats().in_flight): await asyncio.sleep(0.01)
    serving.cancel()
    try:
        await serving
    except asyncio.CancelledError:
        print("cancelled", flush=True)
    os._exit(0)
asyncio.run(main())
"""
    assert run(code, hanging, shutdown_timeout=45) == "cancelled\n"


def test_the_second_ctrl_c_ends_the_wait(hanging):
    code = f"""{SERVED}
STARTING = lambda: print("ready", flush=True)
try:
    server.run()
except KeyboardInterrupt:
    print("over", flush=True)
    os._exit(3)
"""
    with started(code, hanging, shutdown_timeout=50) as process:
        process.send_signal(signal.SIGINT)
        assert hanging.asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "over\n"
        assert process.wait(30) == 3
