"""Waiting for a module's import, with real modules on disk."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import threading
from importlib.machinery import PathFinder

import pytest

from lumiqtrace.providers import _imports
from lumiqtrace.providers._imports import when_imported


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for name in [name for name in _imports._waiting if name.startswith("lq_")]:
        del _imports._waiting[name]


def test_the_action_sees_the_whole_module_once(folder):
    (folder / "lq_whole.py").write_text("first = 1\nlast = 2\n")
    seen = []
    when_imported("lq_whole", lambda module: seen.append(module.last))
    assert "lq_whole" not in sys.modules
    importlib.import_module("lq_whole")
    importlib.import_module("lq_whole")
    assert seen == [2]


def test_a_module_that_is_there_is_acted_on_at_once():
    seen = []
    when_imported("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_the_module_is_as_without_us(folder):
    (folder / "lq_plain.py").write_text("def f():\n    return 1\n")
    when_imported("lq_plain", lambda module: None)
    module = importlib.import_module("lq_plain")
    assert type(module.__loader__) is type(module.__spec__.loader) is type(sys.modules["json"].__loader__)
    assert inspect.getsource(module.f) == "def f():\n    return 1\n"
    assert importlib.reload(module) is module


def test_modules_inside_packages(folder):
    package = folder / "lq_pack" / "inner"
    package.mkdir(parents=True)
    (folder / "lq_pack" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .deep import value\n")
    (package / "deep.py").write_text("value = 7\n")
    seen = []
    when_imported("lq_pack.inner.deep", lambda module: seen.append(module.value))
    when_imported("lq_pack.inner", lambda module: seen.append(module.__name__))
    importlib.import_module("lq_pack")
    assert seen == []
    importlib.import_module("lq_pack.inner")
    assert seen == [7, "lq_pack.inner"]


def test_an_import_that_fails_is_the_applications_and_the_next_one_counts(folder):
    path = folder / "lq_late.py"
    path.write_text("raise LookupError('not yet')\n")
    seen = []
    when_imported("lq_late", seen.append)
    with pytest.raises(LookupError, match="not yet"):
        importlib.import_module("lq_late")
    assert seen == []
    path.write_text("now = True  # longer, so that what was compiled is not taken for it\n")
    importlib.invalidate_caches()
    assert importlib.import_module("lq_late").now
    assert len(seen) == 1


def test_a_module_that_does_not_exist_is_missing_as_ever(folder):
    when_imported("lq_nowhere", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match="lq_nowhere"):
        importlib.import_module("lq_nowhere")
    assert importlib.util.find_spec("lq_nowhere") is None


def test_another_hook_that_asks_all_finders(folder, monkeypatch):
    """Import hooks of this kind ask every finder in turn, ours included; none may go round in circles."""
    (folder / "lq_shared.py").write_text("")
    asked = []

    class Other:
        def find_spec(self, name, path=None, target=None):
            if name != "lq_shared" or asked:
                return None
            asked.append(name)
            return importlib.util.find_spec(name)

    seen = []
    when_imported("lq_shared", seen.append)
    monkeypatch.setattr(sys, "meta_path", [Other(), *sys.meta_path])
    importlib.import_module("lq_shared")
    assert asked == ["lq_shared"]
    assert len(seen) == 1


def test_threads_that_import_at_once_get_one_module_and_one_action(folder):
    (folder / "lq_threads.py").write_text("")
    seen, found = [], []
    start = threading.Barrier(8)

    def import_it():
        start.wait()
        found.append(importlib.import_module("lq_threads"))

    when_imported("lq_threads", seen.append)
    threads = [threading.Thread(target=import_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert len(seen) == 1


def test_an_import_that_another_thread_is_in_the_middle_of_is_waited_for(folder):
    (folder / "lq_slow.py").write_text(
        "import lq_gate\nlq_gate.began.set()\nlq_gate.go.wait(10)\nlast = 3\n", encoding="utf-8"
    )
    (folder / "lq_gate.py").write_text("import threading\nbegan, go = threading.Event(), threading.Event()\n")
    gate = importlib.import_module("lq_gate")
    seen = []
    importing = threading.Thread(target=importlib.import_module, args=("lq_slow",))
    importing.start()
    assert gate.began.wait(10)
    waiting = threading.Thread(
        target=when_imported, args=("lq_slow", lambda module: seen.append(module.last))
    )
    waiting.start()
    gate.go.set()
    importing.join()
    waiting.join()
    assert seen == [3]


class SlowLoader:
    """Takes its time before there is a module; its finder is asked before ours."""

    def __init__(self, name):
        self.name = name
        self.began, self.go = threading.Event(), threading.Event()

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        self.began.set()
        assert self.go.wait(20)

    def exec_module(self, module):
        self.loader.exec_module(module)


def test_an_import_that_has_passed_us_by_is_waited_for(folder, monkeypatch):
    """The other thread has its loader, but no module yet: it is in no list, and will ask nobody again."""
    (folder / "lq_passed.py").write_text("last = 3\n")
    slow = SlowLoader("lq_passed")
    monkeypatch.setattr(sys, "meta_path", [slow, *sys.meta_path])
    seen = []
    importing = threading.Thread(target=importlib.import_module, args=("lq_passed",))
    importing.start()
    assert slow.began.wait(20)
    waiting = threading.Thread(
        target=when_imported, args=("lq_passed", lambda module: seen.append(module.last))
    )
    waiting.start()
    while "lq_passed" not in _imports._waiting:
        waiting.join(0.005)
    slow.go.set()
    importing.join()
    waiting.join()
    assert seen == [3]


def test_an_import_of_another_thread_that_fails_leaves_the_next_one(folder):
    (folder / "lq_fails.py").write_text(
        "import lq_gate2\nlq_gate2.began.set()\nlq_gate2.go.wait(20)\nlq_gate2.tried.append(1)\n"
        "if len(lq_gate2.tried) == 1: raise LookupError\n"
    )
    (folder / "lq_gate2.py").write_text(
        "import threading\nbegan, go, tried = threading.Event(), threading.Event(), []\n"
    )
    gate = importlib.import_module("lq_gate2")
    seen, failed = [], []

    def import_it():
        try:
            importlib.import_module("lq_fails")
        except LookupError:
            failed.append(True)

    importing = threading.Thread(target=import_it)
    importing.start()
    assert gate.began.wait(20)
    waiting = threading.Thread(target=when_imported, args=("lq_fails", seen.append))
    waiting.start()
    gate.go.set()
    importing.join()
    waiting.join()
    assert (seen, failed, gate.tried) == ([], [True], [1]), "nobody but the application imports"
    module = importlib.import_module("lq_fails")
    assert seen == [module]
