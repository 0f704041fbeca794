"""The pytest plugin of lumiqtrace: the fixture `lumiqtrace_events`.

It stands outside the package, so that a pytest run in which no test asks for the fixture imports nothing of
lumiqtrace. It asserts nothing, so it may be imported before pytest starts: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lumiqtrace.testing import Events


@pytest.fixture
def lumiqtrace_events() -> Iterator[Events]:
    """The events that the test's code records, in memory; see `lumiqtrace.testing.Events`."""
    from lumiqtrace.testing import capture

    with capture() as events:
        yield events
