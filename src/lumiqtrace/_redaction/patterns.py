"""Regular expressions that are compiled when they are first used.

An import compiles none of them, nor does a text that none has to look at: all of them together take 6 ms,
most of what a short-lived process would spend on its first event.
"""

from __future__ import annotations

import re
from typing import Any, cast


def lazy(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """What `re.compile` gives, as far as its methods go, at the price of a string."""
    return cast("re.Pattern[str]", _Lazy(pattern, flags))


class _Lazy:
    def __init__(self, pattern: str, flags: int) -> None:
        self._source = (pattern, flags)

    def __getattr__(self, name: str) -> Any:
        """A method of the compiled pattern. It is kept, so that this is asked once for each."""
        # Without a lock, which a fork could find taken: two threads at once keep the same.
        method = getattr(re.compile(*self._source), name)
        setattr(self, name, method)
        return method
