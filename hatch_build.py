"""Puts an index of the newest price package into the wheel, also into that of `pip install -e`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).parent / "src"


class PriceIndexHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Make the index with the code that is being built; it imports the standard library alone."""
        sys.path.insert(0, str(SOURCE))
        try:
            from lumiqtrace._commands.price_index import make_index
            from lumiqtrace._price_index import FILE
        finally:
            sys.path.remove(str(SOURCE))
        made = make_index(FILE)
        self.app.display_info(f"prices of {made.held} models, of genai-prices {made.release}")
