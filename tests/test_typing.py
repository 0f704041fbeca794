"""The types that a user's type checker sees: `typing/` holds what users write, right and wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "typing"
RIGHT, WRONG = FOLDER / "right_uses.py", FOLDER / "wrong_uses.py"
IGNORE = re.compile(r"  # type: ignore\[([a-z-]+)")


def mypy(*paths: Path, cache: Path) -> list[str]:
    """What a user's `mypy --strict` says, without the options of this repository."""
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--config-file=", "--hide-error-context",
            "--no-error-summary", "--cache-dir", str(cache), *map(str, paths),
        ],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_right_uses_have_their_types_and_every_ignore_of_the_wrong_ones_hides_an_error(tmp_path):
    assert mypy(RIGHT, WRONG, cache=tmp_path) == []


def test_every_wrong_use_is_an_error_where_nothing_is_ignored(tmp_path):
    text = WRONG.read_text(encoding="utf-8")
    wrong = {
        (number, found[1])
        for number, line in enumerate(text.splitlines(), 1)
        if (found := IGNORE.search(line)) is not None
    }
    bare = tmp_path / "bare.py"
    bare.write_text(text.replace("# type: ignore", "#"), encoding="utf-8")
    told = [re.search(r":(\d+): error: .*\[([a-z-]+)\]$", line) for line in mypy(bare, cache=tmp_path)]
    assert len(wrong) > 20
    assert wrong <= {(int(error[1]), error[2]) for error in told if error is not None}
