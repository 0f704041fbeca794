"""What the design promises, held against the code: imports point one way, and `__all__` is what there is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lumiqtrace

PACKAGE = Path(lumiqtrace.__file__).parent

# Who may import whom. A module that is not named here fails the test: give it its place.
ARROWS: dict[str, set[str]] = {
    "_version": set(),
    "_errors": set(),
    "_guard": set(),
    "_retry": set(),
    "_secrets": set(),
    "_notations": {"_secrets"},
    "_pairs": {"_notations", "_secrets"},
    "_redact": {"_encode", "_pairs", "_secrets"},
    "_sampler": {"_event"},
    "_pipeline": {"_config", "_event", "_guard", "_own", "_redact"},
    "_lifecycle": set(),
    "_context": {"_encode", "_event", "_guard", "_sampler"},
    "_event": {"_version"},
    "_hosts": set(),
    "_roots": {"_lifecycle"},
    "_proxy": {"_config", "_hosts"},
    "_http": {"_proxy", "_roots"},
    "_config": {"_errors", "_event", "_hosts"},
    "_encode": {"_event"},
    "_queue": {"_event"},
    "_pricing": {"_config", "_event", "_guard", "_lifecycle"},
    "_transport": {"_config", "_http", "_lifecycle", "_redact", "_version"},
    "_own": set(),
    "_sigterm": {"_guard", "_lifecycle"},
    "_circuit": {"_retry"},
    "_complaints": {"_guard", "_own"},
    "_losses": {"_config"},
    "_worker": {"_own"},
    "_spool_folder": set(),
    "_spool": {"_config", "_lifecycle", "_spool_folder"},
    "_batch": {"_encode", "_spool_folder"},
    "_batcher": {
        "_batch", "_config", "_encode", "_event", "_guard", "_outbox", "_own", "_pipeline", "_pricing", "_spool",
    },
    "_delivery": {"_batch", "_batcher", "_losses", "_outbox", "_retry", "_spool", "_transport"},
    "_outbox": {
        "_batch", "_circuit", "_complaints", "_event", "_queue", "_retry", "_spool_folder", "_transport",
    },
    "_pace": set(),
    "_exporter": {
        "_batcher", "_config", "_delivery", "_event", "_guard", "_losses", "_outbox", "_own", "_pace",
        "_pipeline", "_pricing", "_queue", "_retry", "_spool", "_transport", "_worker",
    },
    "_client": {
        "_config", "_event", "_exporter", "_guard", "_lifecycle", "_losses", "_own", "_pipeline", "_queue",
        "_redact", "_sampler", "_sigterm", "_spool", "_transport",
    },
    "_propagation": {"_context", "_event", "_guard"},
    "_marks": {"_context", "_encode", "_event", "_guard", "_redact"},
    "_span": {"_client", "_context", "_encode", "_event", "_guard", "_marks", "_propagation"},
    "_logs": {"_context"},
    "_llm_span": {"_client", "_event", "_guard", "_lifecycle", "_pricing", "_span", "providers"},
    "_observe": {"_client", "_context", "_encode", "_guard", "_llm_span", "_span"},
    "integrations": {
        "_api", "_client", "_config", "_context", "_guard", "_observe", "_propagation", "_redact", "_sampler",
        "_span", "integrations",
    },
    "_api": {"_client", "_config"},
    "_reader": {"_errors", "_finding", "_http", "_redact"},
    "_finding": set(),
    "_reach": {"_config", "_encode", "_finding", "_http", "_proxy", "_redact", "_transport"},
    "_doctor": {"_client", "_config", "_errors", "_finding", "_reach", "_span", "_version"},
    "_loss_view": {"_errors", "_finding", "_reader"},
    "testing": {"_client", "_config", "_encode", "_event", "_sampler", "_transport", "testing"},
    "_terminal": set(),
    "cli": {
        "_config", "_doctor", "_errors", "_finding", "_loss_view", "_reader", "_terminal", "_version", "demo",
        "server",
    },
    "__main__": {"cli"},
    "__init__": {
        "_api", "_client", "_config", "_context", "_errors", "_event", "_logs", "_observe", "_propagation",
        "_queue", "_span", "_version", "providers",
    },
    "demo": {
        "_api", "_errors", "_event", "_reader", "_redact", "_span", "_terminal", "demo", "providers", "server",
    },
    "providers": {
        "_client", "_context", "_encode", "_errors", "_event", "_guard", "_span", "providers",
    },
    "server": {"_event", "server"},
}  # fmt: skip


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room(path):
    """The part of the package a file belongs to: its folder, or itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """What of our own a file imports, by the first name below the package."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            inside = node.level < depth or (node.level == depth and depth > 1)
            if inside and node.level < depth:
                yield path.relative_to(PACKAGE).parts[0]
            else:
                yield from (name.partition(".")[0] for name in names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lumiqtrace"):
            yield (node.module + ".").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("lumiqtrace."))


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
