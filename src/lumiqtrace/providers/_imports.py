"""Acts when a module is imported, and imports nothing itself.

A finder in front of the others lets them find the module, and puts its own loader around theirs for the one
import. Ours, because the library for this takes 3.5 ms to load, of the 10 that all of lumiqtrace may take.
"""

from __future__ import annotations

import importlib._bootstrap
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

Action = Callable[[ModuleType], object]
Wait = Callable[[str], object]

_waiting: Final[dict[str, list[Action]]] = {}

# What the interpreter calls itself to wait for another thread's import; it knows of circles.
_wait: Final[Wait] = getattr(importlib._bootstrap, "_lock_unlock_module", lambda _name: None)


def when_imported(name: str, action: Action) -> None:
    """Call `action(module)` once the module `name` has been imported: now, or right after its import.

    `action` must not raise; the import is the application's.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        action(module)
        return
    _waiting.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    # Another thread may have asked the finders before ours was one of them.
    _wait(name)
    module = sys.modules.get(name)
    if module is not None:
        _act(module, name)


def _act(module: ModuleType, name: str) -> None:
    for action in _waiting.pop(name, ()):  # taken at once: of two threads, one acts
        action(module)


class _Finder:
    """Steps aside for what nobody waits for, and for its own question to the other finders."""

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _waiting or getattr(self._asking, "name", None) == name:
            return None
        self._asking.name = name
        try:
            spec = self._of_the_others(name, path, target)
        finally:
            self._asking.name = None
        if spec is not None and hasattr(spec.loader, "exec_module"):
            loader: Any = _Loader(spec.loader)
            spec.loader = loader
        return spec

    def _of_the_others(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None:
                spec: ModuleSpec | None = find(name, path, target)
                if spec is not None:
                    return spec
        return None


class _Loader:
    """The module's own loader, and then what was waiting for the module. It leaves no trace on it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _act(module, module.__name__)


_finder: Final = _Finder()
