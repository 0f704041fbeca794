"""Every Python snippet of the documentation's FastAPI and Flask pages runs as it stands, and gives its trace.

A page is read from top to bottom: its snippets run one after the other in one module, and what they leave to
the reader (a vector store, a function that answers) is there. The provider is a server on loopback, where the
page's `openai.OpenAI()` finds it by its environment variables. The events go to `lumiqtrace serve`, in a
process of its own, and the traces are read back from it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import re
import sqlite3
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

import lumiqtrace

sys.path.insert(0, str(Path(__file__).parent / "server"))

from server_helpers import Api, connected, server_process

from lumiqtrace.server import Credentials, create_project

SEEDS = Path(__file__).parents[2] / "shared" / "seeds"
PAGES = {"fastapi": "000_2145ead1836e36dc.txt", "flask": "001_a0a10bc5bee3d919.txt"}
KEY_ON_THE_PAGES = "lqt_your_api_key_here"

pytestmark = pytest.mark.skipif(
    not SEEDS.is_dir(), reason="the documentation's pages are not beside this project"
)

# A line at the margin that is Python and no prose.
CODE = re.compile(r"(from|import|def|async def|class|if) .|@[\w.]+(\(|$)|[\w.]+ = |[\w.]+\(|[)\]}]")


def page(name: str) -> str:
    return (SEEDS / PAGES[name]).read_text(encoding="utf-8")


def snippets(text: str) -> list[str]:
    """The page's Python: runs of code, with what is indented or blank between."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        code = CODE.match(line) is not None
        if inside and (code or not line.strip() or line[0] == " "):
            found[-1] += line + "\n"
        elif code and line.startswith(("from ", "import ")):
            found.append(line + "\n")
            inside = True
        else:
            inside = False
    return [snippet.rstrip() + "\n" for snippet in found]


# ---- The provider, the server, and the page's module ---------------------------------------------------

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "Hello"},
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 200},
    },
}
COST = (800 * 2.5 + 200 * 1.25 + 100 * 10) / 1e6
"""US dollars for that, at OpenAI's prices for gpt-4o."""


class _Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert request["model"] == "gpt-4o"
        body = json.dumps(COMPLETION).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The test reports."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "no-key-needed")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Credentials]]:
    """A server that knows the key on the pages."""
    data = tmp_path_factory.mktemp("pages") / "data"
    made = create_project(data, "pages")
    with closing(sqlite3.connect(data / "lumiqtrace.db")) as database, database:
        digest = hashlib.sha256(KEY_ON_THE_PAGES.encode()).digest()
        database.execute("UPDATE credentials SET digest = ? WHERE kind = 'key'", (digest,))
    with server_process(data) as server:
        yield server.url, made


@pytest.fixture
def api(served: tuple[str, Credentials], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    url, credentials = served
    monkeypatch.setenv("LUMIQTRACE_BASE_URL", url)
    with connected(url, credentials) as api:
        yield api


class VectorStore:
    """What the pages call `vector_store`."""

    documents = (types.SimpleNamespace(content="Document 1"), types.SimpleNamespace(content="Document 2"))

    def search(self, query: str, top_k: int):
        return self.documents[:top_k]


class AsyncVectorStore(VectorStore):
    async def search(self, query: str, top_k: int):
        return self.documents[:top_k]


@contextmanager
def read_page(name: str) -> Iterator[list[dict[str, object]]]:
    """Run the page's snippets; gives the module's contents as each snippet left them."""
    module = types.ModuleType("page_of_the_documentation")
    sys.modules[module.__name__] = module
    names = vars(module)
    names["vector_store"] = VectorStore() if name == "flask" else AsyncVectorStore()

    async def generate_response(message: str) -> str:
        return await names["run_rag"](message)

    names["generate_response"] = generate_response
    states = []
    try:
        for number, snippet in enumerate(snippets(page(name))):
            exec(compile(snippet, f"<snippet {number} of the {name} page>", "exec"), names)
            states.append(dict(names))
        yield states
    finally:
        del sys.modules[module.__name__]


# ---- What the traces are to be -------------------------------------------------------------------------


def tree(spans):
    """`{name: children}` of each span, as the server gives them back. A provider's call has no name."""
    return {span.get("name", CALL): tree(span["children"]) for span in spans}


def walk(spans):
    for span in spans:
        yield span
        yield from walk(span["children"])


CALL = "the call"
"""Stands for the provider call's own span, which there is with `patch_openai()`."""

RAG = {"rag-pipeline": {"document-retrieval": {}, "generate_summary": {CALL: {}}}}

# Per request: the page's state after which snippet, method, path, body, and the tree below.
REQUESTS = [
    (0, "GET", "/missing", None, "GET", {}),
    (1, "POST", "/summarize", {"text": "A long text"}, "POST /summarize", {"generate_summary": {CALL: {}}}),
    (3, "POST", "/chat", {"user_id": "user-7", "message": "Why?"}, "POST /chat", RAG),
    (4, "POST", "/generate", {"text": "A long text"}, "POST /generate", {"generate_summary": {CALL: {}}}),
    (
        5, "POST", "/ask", {"user_id": "user-8", "question": "Why?"}, "POST /ask",
        {"vector-search": {}, "answer_question": {CALL: {}}},
    ),
]  # fmt: skip
ANSWERS = [None, {"summary": "Hello"}, {"response": "Hello"}, {"result": "Hello"}, {"answer": "Hello"}]


def get_flask(states):
    """Ask the page's applications; gives each answer's status, headers and JSON."""
    found = []
    for number, method, path, body, *_ in REQUESTS:
        with states[number]["app"].test_client() as client:
            answer = client.open(path, method=method, json=body)
            found.append((answer.status_code, answer.headers, answer.json))
    return found


def get_fastapi(states):
    async def ask():
        found = []
        for number, method, path, body, *_ in REQUESTS:
            transport = httpx.ASGITransport(states[number]["app"])
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.request(method, path, json=body)
                found.append((answer.status_code, answer.headers, answer.json()))
        for name in ("client", "openai_client"):
            await states[-1][name].close()
        return found

    return asyncio.run(ask())


def without_calls(children):
    """The tree as it is without `patch_openai()`."""
    return {name: without_calls(below) for name, below in children.items() if name != CALL}


@pytest.mark.parametrize("patched", [False, True], ids=["as on the page", "with patch_openai"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_gives_the_traces_that_its_reader_expects(name, patched, provider, api, caplog):
    caplog.set_level(logging.INFO, "page_of_the_documentation")
    if patched:
        lumiqtrace.patch_openai()
    with read_page(name) as states:
        answers = get_flask(states) if name == "flask" else get_fastapi(states)
        assert lumiqtrace.flush()
        if name == "flask":
            for client in ("client", "openai_client"):
                states[-1][client].close()
    for request, wanted, (status, headers, answer) in zip(REQUESTS, ANSWERS, answers, strict=True):
        assert status == (404 if wanted is None else 200)
        check(api.get(headers["x-lumiqtrace-id"]).json(), request, patched=patched)
        if wanted is not None:
            assert wanted.items() <= answer.items()
    _, headers, answer = answers[3]
    assert answer["trace_id"] == headers["x-lumiqtrace-id"]
    assert [
        (each.message, each.lumiqtrace_id) for each in caplog.records if hasattr(each, "lumiqtrace_id")
    ] == [("Handling request", answer["trace_id"])]


def check(trace, request, *, patched):
    """One request's trace: its tree, tokens, cost and attributes."""
    _, method, path, body, name, children = request
    spans = list(walk(trace))
    assert tree(trace) == {name: children if patched else without_calls(children)}
    (root,) = trace
    assert root["tags"]["http.method"] == method
    assert root["tags"]["http.path"] == path
    assert root["tags"]["http.status_code"] == ("404" if name == "GET" else "200")
    assert all(span["status"] == "success" and span["environment"] == "production" for span in spans)

    models = [span for span in spans if span["input_tokens"]]
    assert len(models) == (name != "GET")
    for span in models:
        assert (span["input_tokens"], span["output_tokens"], span["cached_tokens"]) == (1000, 100, 200)
        assert span["cost_usd"] == pytest.approx(COST)
        # The call itself went to this machine; who decorates says what is behind it.
        assert span["provider"] == ("custom" if patched else "openai")
        assert (span["span_kind"], span["finish_reason"]) == ("llm", "stop")
        assert span["model"].startswith("gpt-4o")
    assert sum(span["cost_usd"] for span in spans) == pytest.approx(COST * len(models))

    kinds = {span.get("name", CALL): span["span_kind"] for span in spans}
    for function in ("generate_summary", "answer_question"):
        assert kinds.get(function, "llm") == "llm"
    for search in ("document-retrieval", "vector-search"):
        assert kinds.get(search, "retriever") == "retriever"
    assert kinds.get("rag-pipeline", "general") == "general"

    user = (body or {}).get("user_id")
    assert root.get("user_id") == user
    assert root["tags"].get("user.id") == user
    assert root["tags"].get("feature") == ("chat" if path == "/chat" else None)


# ---- The pages themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_all_the_pages_python_is_found(name):
    text = page(name)
    found = snippets(text)
    assert len(found) == 6
    assert all(snippet in text + "\n" for snippet in found)
    left = text
    for snippet in found:
        compile(snippet, "snippet", "exec")
        left = left.replace(snippet.rstrip(), "")
    assert not re.search(r"^((from|import|def|async def) |@[\w.]+\()", left, re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_the_options_on_the_page_have_their_defaults(name):
    options = re.findall(r'^(\w+)\n(\w[\w\[\]]*)\n(required|default:"(.*)")$', page(name), re.MULTILINE)
    fields = {field.name: field.default for field in dataclasses.fields(lumiqtrace.LumiqConfig)}
    documented = {option: default for option, _, _, default in options if option in fields}
    assert len(documented) == 8
    for option, default in documented.items():
        if option == "redact_fields":  # these are built in; what is passed is added to them
            redactor = lumiqtrace.Client(lumiqtrace.LumiqConfig(enabled=False)).redactor
            shown = dict.fromkeys(json.loads(default.replace('\\"', '"')), "value")
            assert redactor.value(shown) == dict.fromkeys(shown, "[REDACTED]")
        elif option != "api_key":
            assert str(fields[option]) == default, option
