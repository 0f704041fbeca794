"""The server's log: one record a line, and no record can pass for two.

Control characters are escaped; the lines of a traceback are indented.
"""

from __future__ import annotations

import logging
import re

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class SafeFormatter(logging.Formatter):
    """A formatter whose records hold nothing that a terminal or a log reader would act on."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; every line after the first starts with four spaces."""
        text = _CONTROL.sub(lambda match: ascii(match.group())[1:-1], super().format(record))
        return text.replace("\n", "\n    ")


def configure_logging() -> None:
    """Send the server's and uvicorn's records to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("lumiqtrace.server", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if name == "uvicorn" else logging.WARNING)
        logger.propagate = False
