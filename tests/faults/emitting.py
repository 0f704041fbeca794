"""What the fault tests share: numbered events, recorded as an application records them, and who got them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from backend import KEY

import lumiqtrace

SLACK = 3.0
"""Seconds that a loaded machine may add to a deadline; the faults here last 10 s or forever."""


def start(url: str, **options: Any) -> lumiqtrace.Client:
    """The process's client, sending to `url`; a flush is not needed for it to deliver."""
    return lumiqtrace.init(KEY, base_url=url, **{"flush_interval": 0.05, "shutdown_timeout": 0.1, **options})


def emit(numbers: Iterable[int]) -> None:
    for number in numbers:
        with lumiqtrace.span(f"event {number}"):
            pass


def numbers(events: Iterable[dict[str, Any]]) -> list[int]:
    """The numbers of these events, in order; one that came twice is there twice."""
    return sorted(int(event["name"].removeprefix("event ")) for event in events)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.005)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started
