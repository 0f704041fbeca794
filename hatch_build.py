"""Puts an index of the newest price package into the wheel, or beside the sources for `pip install -e`.

Where that cannot be made the wheel has none, which costs a process 30 ms at its first price and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).parent / "src"
NAME = "lumiqtrace/_price_index.jsonl"


class PriceIndexHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the index with the code that is being built."""
        if version == "editable":
            self._make(SOURCE / NAME)
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "index"
        if self._make(file):
            build_data["force_include"][str(file)] = NAME

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """The wheel is written."""
        if version != "editable":
            self._folder.cleanup()

    def _make(self, file: Path) -> bool:
        # In a process of its own: in this one another lumiqtrace may be loaded.
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(  # noqa: S603 - this interpreter, with our own module
            [sys.executable, "-m", "lumiqtrace._commands.price_index", str(file)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self.app.display_warning(f"no price index: {(done.stderr.splitlines() or ['?'])[-1]}")
        return done.returncode == 0
