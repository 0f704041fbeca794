"""What the design promises, held against the code: imports point one way, and `__all__` is what there is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lumiqtrace

PACKAGE = Path(lumiqtrace.__file__).parent

# In these folders every module has a row of its own; each other folder has one for all.
SPLIT = {"_delivery", "_redaction", "_commands"}

# Who may import whom. A module that is not named here fails the test: give it its place.
ARROWS: dict[str, set[str]] = {
    "_version": set(),
    "_errors": set(),
    "_guard": {"_own"},
    "_sampler": {"_event"},
    "_pipeline": {"_config", "_event", "_guard", "_own", "_redaction.redact"},
    "_lifecycle": set(),
    "_context": {"_encode", "_event", "_guard", "_sampler"},
    "_event": {"_version"},
    "_hosts": set(),
    "_config": {"_errors", "_event", "_hosts"},
    "_encode": {"_event"},
    "_price_index": set(),
    "_price_package": {"_lifecycle"},
    "_pricing": {"_config", "_event", "_guard", "_lifecycle", "_price_index", "_price_package"},
    "_own": set(),
    "_sigterm": {"_guard", "_lifecycle", "_sigterm_seen", "_uvicorn"},
    "_sigterm_seen": set(),
    "_uvicorn": {"_guard", "_lifecycle"},
    "_client": {
        "_config", "_delivery.exporter", "_delivery.losses", "_delivery.queue", "_delivery.spool",
        "_delivery.transport", "_event", "_guard", "_lifecycle", "_own", "_pipeline", "_redaction.redact",
        "_sampler", "_sigterm",
    },
    "_default": {"_client", "_config", "_guard"},
    "_propagation": {"_context", "_event", "_guard"},
    "_marks": {"_context", "_encode", "_event", "_guard", "_redaction.redact"},
    "_span": {"_client", "_context", "_default", "_encode", "_event", "_guard", "_marks", "_propagation"},
    "_logs": {"_context"},
    "_llm_span": {
        "_client", "_event", "_guard", "_lifecycle", "_pricing", "_redaction.redact", "_span", "providers",
    },
    "_observe": {"_context", "_default", "_encode", "_guard", "_llm_span", "_span"},
    "integrations": {
        "_api", "_client", "_config", "_context", "_default", "_guard", "_observe", "_propagation",
        "_redaction.redact", "_sampler", "_span", "integrations",
    },
    "_api": {"_client", "_config", "_default"},
    "testing": {
        "_client", "_config", "_default", "_delivery.transport", "_encode", "_event", "_sampler", "testing",
    },
    "cli": {
        "_commands.doctor", "_commands.finding", "_commands.loss_view", "_commands.price_index",
        "_commands.reader", "_commands.terminal", "_commands.words", "_config", "_errors", "_price_index",
        "_version", "demo", "server",
    },
    "__main__": {"cli"},
    "__init__": {
        "_api", "_client", "_config", "_context", "_delivery.queue", "_errors", "_event", "_lifecycle", "_logs",
        "_observe", "_propagation", "_span", "_version", "providers",
    },
    "demo": {
        "_api", "_commands.reader", "_commands.terminal", "_errors", "_event", "_redaction.redact", "_span",
        "demo", "providers", "server",
    },
    "providers": {
        "_client", "_context", "_default", "_encode", "_errors", "_event", "_guard",
        "_lifecycle", "_span", "providers",
    },
    "server": {"_event", "server"},

    "_delivery.__init__": set(),
    "_delivery.queue": {"_event"},
    "_delivery.pace": set(),
    "_delivery.worker": {"_own"},
    "_delivery.exporter": {
        "_config", "_delivery.batcher", "_delivery.loop", "_delivery.losses", "_delivery.outbox",
        "_delivery.pace", "_delivery.queue", "_delivery.sending", "_delivery.spool", "_delivery.transport",
        "_event", "_pipeline",
    },
    "_delivery.loop": {
        "_delivery.batcher", "_delivery.outbox", "_delivery.pace", "_delivery.queue", "_delivery.retry",
        "_delivery.sending", "_delivery.spool", "_delivery.worker", "_event", "_guard", "_own",
    },
    "_delivery.batcher": {
        "_config", "_delivery.batch", "_delivery.outbox", "_delivery.spool", "_encode", "_event", "_guard",
        "_lifecycle", "_own", "_pipeline", "_pricing",
    },
    "_delivery.batch": {"_delivery.spool_folder", "_encode"},
    "_delivery.spool": {"_config", "_delivery.spool_folder", "_lifecycle"},
    "_delivery.spool_folder": set(),
    "_delivery.outbox": {
        "_delivery.batch", "_delivery.circuit", "_delivery.complaints", "_delivery.queue", "_delivery.retry",
        "_delivery.spool_folder", "_delivery.transport", "_event",
    },
    "_delivery.complaints": {"_guard", "_own"},
    "_delivery.circuit": {"_delivery.retry"},
    "_delivery.sending": {
        "_delivery.batch", "_delivery.batcher", "_delivery.losses", "_delivery.outbox", "_delivery.retry",
        "_delivery.spool", "_delivery.transport",
    },
    "_delivery.losses": {"_config"},
    "_delivery.retry": set(),
    "_delivery.transport": {
        "_config", "_delivery.http", "_lifecycle", "_redaction.redact", "_redaction.secrets", "_version",
    },
    "_delivery.http": {"_delivery.proxy", "_delivery.roots"},
    "_delivery.proxy": {"_config", "_hosts"},
    "_delivery.roots": {"_lifecycle"},

    "_redaction.__init__": set(),
    "_redaction.redact": {"_encode", "_redaction.pairs", "_redaction.secrets"},
    "_redaction.pairs": {"_redaction.notations", "_redaction.patterns", "_redaction.secrets"},
    "_redaction.notations": {"_redaction.patterns", "_redaction.secrets"},
    "_redaction.secrets": {"_redaction.patterns"},
    "_redaction.patterns": set(),

    "_commands.__init__": set(),
    "_commands.doctor": {
        "_client", "_commands.finding", "_commands.reach", "_config", "_errors", "_span", "_version",
    },
    "_commands.reach": {
        "_commands.finding", "_commands.words", "_config", "_delivery.http", "_delivery.proxy",
        "_delivery.transport", "_encode", "_redaction.redact",
    },
    "_commands.words": set(),
    "_commands.finding": {"_commands.words"},
    "_commands.reader": {"_commands.words", "_delivery.http", "_errors", "_redaction.redact"},
    "_commands.price_index": {"_price_index", "_price_package"},
    "_commands.loss_view": {"_commands.reader", "_commands.words", "_errors"},
    "_commands.terminal": {"_commands.words"},
}  # fmt: skip


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def row(names):
    """The row of ARROWS for a name below the package: its folder's, or in one of SPLIT its own."""
    return ".".join(names[: 2 if names[0] in SPLIT else 1])


def room(path):
    """The part of the package a file belongs to: its folder, or itself."""
    return row(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    """What of our own a file imports, by the rows."""
    folder = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            if node.level:
                module = [*folder[: len(folder) + 1 - node.level], *module]
            elif module.pop(0) != "lumiqtrace":
                continue
            yield from (row([*module, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (row(a.name.split(".")[1:]) for a in node.names if a.name.startswith("lumiqtrace."))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert room(path) in ARROWS, f"{path.name} has no place in ARROWS"
    wrong = {name for name in imports(path) if name not in ARROWS[room(path)]}
    assert not wrong, f"{path.relative_to(PACKAGE)} must not import {sorted(wrong)}"


def test_the_arrows_have_no_cycle():
    order: list[str] = []
    left = {name: targets - {name} for name, targets in ARROWS.items()}
    while left:
        free = [name for name, targets in left.items() if targets <= set(order)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        for name in free:
            del left[name]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_promises(path):
    if path.name == "_version.py":
        return
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "no docstring"


def test_all_is_what_there_is():
    for name in lumiqtrace.__all__:
        getattr(lumiqtrace, name)  # some are loaded when they are first used
    public = {
        name
        for name, value in vars(lumiqtrace).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == "lumiqtrace"
    }
    assert set(lumiqtrace.__all__) == public | {"__version__"}
    assert lumiqtrace.__all__ == sorted(lumiqtrace.__all__)


def test_names_show_the_path_that_users_import():
    for name in lumiqtrace.__all__:
        if name != "__version__":
            assert getattr(lumiqtrace, name).__module__ == "lumiqtrace", name


def test_every_public_function_is_documented():
    for name in lumiqtrace.__all__:
        value = getattr(lumiqtrace, name)
        if callable(value):
            assert value.__doc__, name


def test_import_loads_the_standard_library_alone():
    code = """
import sys
before = set(sys.modules)
import lumiqtrace
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"lumiqtrace"}))
import threading
print(threading.active_count())
"""
    # -S leaves out what site-packages load by themselves.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{code}"],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["[]", "1"]


def test_nothing_of_ours_is_larger_than_it_should_be():
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
