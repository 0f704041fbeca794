"""What this process lost, told to the server on the next batch: one header, counts by reason.

The counts are those of the whole process, so that a report that arrives twice adds nothing. It is sent
until a batch that carried these very counts was accepted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from .._config import LumiqConfig

LOSSES_HEADER: Final = "x-lumiqtrace-losses"

MAX_HEADER_BYTES: Final = 1024

MAX_NAME: Final = 64
"""Characters of a service's or an environment's name that are told."""

_SERVICE_VARIABLES: Final = ("OTEL_SERVICE_NAME", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME")


class Losses:
    """The report of one process; `service` and `environment` say whose losses these are."""

    __slots__ = ("_before", "_environment", "_process", "_service", "_told")

    def __init__(self, service: str, environment: str) -> None:
        self._process = ""
        self._service = _as_utf8(service)
        self._environment = _as_utf8(environment)
        self._told: Mapping[str, int] = {}
        self._before: Mapping[str, int] = {}

    def renew(self) -> None:
        """Report under another name from now on, what was not told yet: a snapshot has many processes."""
        self._process = ""
        self._before = self._told

    def headers(self, lost: Mapping[str, int]) -> dict[str, str]:
        """The header for a batch, where there is something that was not told yet."""
        if not lost or lost == self._told:
            return {}
        line = self._line(lost, MAX_NAME)
        # A name of other letters takes six bytes for each; what is left fits by far.
        return {LOSSES_HEADER: line if len(line) <= MAX_HEADER_BYTES else self._line(lost, 16)}

    def told(self, lost: Mapping[str, int]) -> None:
        """A batch that carried these counts was accepted."""
        self._told = lost

    def _line(self, lost: Mapping[str, int], most: int) -> str:
        self._process = self._process or os.urandom(16).hex()
        counts = {reason: count - self._before.get(reason, 0) for reason, count in lost.items()}
        report = {
            "process": self._process,
            "service": self._service[:most],
            "environment": self._environment[:most],
            "dropped": {reason: count for reason, count in counts.items() if count},
        }
        return json.dumps(report, separators=(",", ":"))


def _as_utf8(name: str) -> str:
    """A file's name may hold bytes that are no UTF-8; for them the server would refuse the report."""
    return name.encode("utf-8", "replace").decode()


def service_name(config: LumiqConfig) -> str:
    """The option, else what the platform calls this program, else the name of its script."""
    if config.service:
        return config.service
    for variable in _SERVICE_VARIABLES:
        if name := os.environ.get(variable, "").strip():
            return name
    script = sys.argv[0] if sys.argv else ""
    folder, name = os.path.split(script)
    if name == "__main__.py":  # python -m package
        name = os.path.basename(folder)  # noqa: PTH119 - pathlib is loaded by nobody else here
    return name if name and name != "-c" else "python"
