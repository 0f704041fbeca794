"""A pytest that is started where lumiqtrace is imported already, as from an application: no warning, no error.

pytest marks whatever a wheel with a plugin brings along, and warns of what it comes too late for.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
MODULES = [Path(path).stem for path in BUILD["targets"]["wheel"]["only-include"]]

STARTED_LATE = """
import sys
import {module}
import pytest

class Marked:
    def pytest_configure(self):
        pytest.register_assert_rewrite("{module}")

sys.exit(pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider", "test_it.py"], plugins=[Marked()]))
"""


@pytest.mark.parametrize("module", MODULES)
def test_a_pytest_started_late_does_not_warn(module, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", STARTED_LATE.format(module=module)], cwd=tmp_path, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
