"""The trace's id on log records, so that a line in the log leads to the trace it was written in."""

from __future__ import annotations

import logging

from ._context import get_current_trace_id


class LumiqtraceFilter(logging.Filter):
    """Puts `lumiqtrace_id` on every record that passes: the id of the current trace, else `outside`.

    On the handlers it sees every record, also those of libraries:

        for handler in logging.getLogger().handlers:
            handler.addFilter(lumiqtrace.LumiqtraceFilter())

    and a formatter shows it as `%(lumiqtrace_id)s`. What `extra={"lumiqtrace_id": ...}` set is kept. With a
    queue between, put it on the QueueHandler: behind the queue no trace is current. `name` is that of
    `logging.Filter`, which lets only records of that logger pass; the default lets all pass.
    """

    def __init__(self, name: str = "", *, outside: str | None = "-") -> None:
        super().__init__(name)
        self._outside = outside

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "lumiqtrace_id"):
            record.lumiqtrace_id = get_current_trace_id() or self._outside
        return bool(super().filter(record))
