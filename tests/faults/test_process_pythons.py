"""The other versions of Python that are on this machine: the import and the basic path, with nothing installed.

And what is in the wheel that all of them would install.
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")

PROGRAM = """
import sys
import lumiqtrace
from lumiqtrace._delivery.transport import Reply

class Kept:
    bodies = []
    def send(self, body, headers, timeout):
        self.bodies.append(body)
        return Reply(202, {})
    def close(self): pass

off = lumiqtrace.init()
assert not off.recording
client = lumiqtrace.Client(lumiqtrace.LumiqConfig(api_key="lqt_" + "ab12" * 16), lambda config: Kept())

@lumiqtrace.observe_span
def work(): return 1

assert work() == 1
with lumiqtrace.Span(client, "outer", "general", {}):
    pass
assert client.flush(20)
from lumiqtrace._encode import decompress
lines = [line for body in Kept.bodies for line in decompress(body)]
assert len(lines) == 1 and b'"outer"' in lines[0], lines
assert client.shutdown(20)
print("fine", sys.version_info[:2])
"""


def works(python):
    """Whether it is a CPython of ours; a name on the path may be a stub that only tells what to install."""
    asked = subprocess.run([python, "-c", "print('here')"], capture_output=True, text=True, check=False)
    return asked.stdout == "here\n"


def other_pythons():
    homes = [Path.home() / ".pyenv" / "versions", *map(Path, filter(None, [os.environ.get("PYENV_ROOT")]))]
    for version in VERSIONS:
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            continue
        found = [path for home in homes for path in home.glob(f"{version}*/bin/python")]
        on_path = shutil.which(f"python{version}")
        if python := next((str(path) for path in [*found, on_path] if path and works(path)), None):
            yield pytest.param(python, id=version)


@pytest.mark.parametrize("python", list(other_pythons()))
def test_the_basic_path_on_another_version(python):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-W", "error", "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=50, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, timeout=50, check=True)
    [built] = folder.iterdir()
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(wheel.namelist())
    info = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert {name.partition("/")[2] for name in info} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip
    there = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    # Made while the wheel is, and beside the sources where they are installed to be worked on.
    assert names - info == there | {"lumiqtrace/_price_index.jsonl"}
    assert "lumiqtrace/py.typed" in names
    tops = {name.partition("/")[0] for name in names - info}
    assert tops == {"lumiqtrace", "lumiq_fastapi.py", "lumiq_flask.py", "lumiqtrace_pytest.py"}
    assert {Path(name).suffix for name in names - info} <= {
        ".py", ".typed", ".json", ".jsonl", ".html", ".js", ".css", ".svg", ".sql", ".gz", ".md",
    }  # fmt: skip


def test_the_wheel_asks_for_little_and_runs_nothing_when_it_is_installed(wheel):
    [metadata] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    told = email.message_from_bytes(wheel.read(metadata))
    needed = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert {line.replace("<", ">").partition(">")[0].strip() for line in needed} == {"genai-prices"}
    assert not [name for name in wheel.namelist() if name.endswith((".pth", ".so", ".pyd", ".data"))]


def test_no_file_of_the_wheel_holds_a_key_or_runs_text_as_code(wheel):
    for name in wheel.namelist():
        text = wheel.read(name)
        assert b"lqt_" + b"ab12" not in text, name
        if name.endswith(".py"):
            assert b"pickle.load" not in text, name
            assert b"\neval(" not in text, name
