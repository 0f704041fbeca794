"""What a step of `lumiqtrace doctor` found, and how it is printed."""

from __future__ import annotations

from typing import Final, NamedTuple

from .words import printable

OK: Final = "ok"
NOTE: Final = "note"
WARNING: Final = "warning"
FAILURE: Final = "failure"

_WIDTH: Final = 14
"""Columns of a step's name."""


class Finding(NamedTuple):
    """`state` is one of the four above; `advice` is what to do, where there is something to do."""

    step: str
    state: str
    said: str
    advice: str = ""

    def lines(self) -> list[str]:
        """As text for a terminal, without characters that would drive it."""
        found = [f"{self.state:8} {self.step:{_WIDTH}} {printable(self.said)}"]
        if self.advice:
            found.append(f"{'':8} {'':{_WIDTH}} -> {printable(self.advice)}")
        return found
