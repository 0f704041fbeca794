"""What a span is told about its work: tags, scores, usage, a status.

Nothing that is passed raises, and no text of an error leaves without its secrets taken out.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Final

from ._context import Trace, label
from ._encode import pairs_of, text_of
from ._event import MAX_MESSAGE, STATUSES
from ._guard import Guard

if TYPE_CHECKING:
    from ._redaction.redact import Redactor

USER_ID: Final = "user.id"
SESSION_ID: Final = "session.id"

_marking = Guard("marking a span", limit=None)


def status_of(error: BaseException) -> str:
    """The status that an exception gives the span it passes through."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
        return "cancelled"
    # Where nobody has loaded asyncio nothing of it was cancelled, and its import takes 15 ms.
    if isinstance(error, getattr(sys.modules.get("asyncio"), "CancelledError", ())):
        return "cancelled"
    return "error"


def shorten(message: str) -> str:
    """The beginning of an error message, four times what leaves; the pipeline redacts it, then cuts."""
    # Cut between words: half a key is no longer recognised as one.
    head = message[: 4 * MAX_MESSAGE]
    return head if len(head) == len(message) else head.rpartition(" ")[0]


class Marks:
    """The notes; what is not told keeps its default."""

    def __init__(self, name: str, kind: str, attributes: dict[str, str]) -> None:
        self._name = name
        self._kind = kind
        self._tags = attributes
        self._eval_scores: dict[str, float] = {}
        self._metadata: dict[str, Any] = {}
        self._tokens = (0, 0, 0)
        self._cost: float | None = None
        self._model: str | None = None
        self._status = "success"
        self._judged = False
        self._error: tuple[str | None, str | None] | None = None

    @property
    def trace(self) -> Trace | None:
        """The trace it belongs to, once it has begun; None where nothing is recorded."""
        raise NotImplementedError

    @property
    def failed(self) -> bool:
        """Whether its status is neither success nor cancelled."""
        return self._status not in ("success", "cancelled")

    def set_name(self, name: str) -> None:
        """Give the span another name; it may be known only when the work is done."""
        self._name = text_of(name)

    def set_attribute(self, key: str, value: object) -> None:
        """Put a tag on the span; the value is kept as text, and None takes the tag away.

        `user.id` and `session.id` also are the user and the session of what the trace records from now on.
        """
        _marking(self._mark_attribute, key, value)

    def set_metadata(self, key: str, value: object) -> None:
        """Put a value that JSON can show on the span; it must not be changed afterwards.

        What is still to be worked out has a method `value(redactor)`, called on the exporter thread (None
        leaves it out), and says with `kept` how many bytes it holds.
        """
        self._metadata[text_of(key)] = value

    def set_eval_score(self, name: str, value: float) -> None:
        """Put an evaluation's score on the span; what is no finite number is left out."""
        _marking(self._mark_score, name, value)

    def set_usage(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        model: str | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Say what a model call that lumiqtrace cannot see has used.

        `cached_tokens` are part of `input_tokens`. `cost_usd` is US dollars; without it the price of
        `model` is used, or of the model that `observe_llm` was told; a span of kind `llm` without any has the
        tag `cost` = `unknown`.
        """
        _marking(self._mark_usage, input_tokens, output_tokens, cached_tokens, model, cost_usd)

    def set_status(self, status: str, code: str | None = None, message: str | None = None) -> None:
        """Say how it ended: `success`, `error`, `timeout`, `rate_limited` or `cancelled`.

        Goes before what an exception would say. Any other status means `error`.
        """
        self._judged = True
        self._status = status if status in STATUSES else "error"
        told = (code is not None or message is not None) and self._status != "success"
        self._error = (label(code), None if message is None else shorten(text_of(message))) if told else None

    def set_error(self, error: BaseException | str) -> None:
        """Mark the span as failed although no exception leaves it."""
        if isinstance(error, BaseException):
            self.set_status(status_of(error), type(error).__name__, text_of(error))
        else:
            self.set_status("error", "error", text_of(error))

    def _mark_attribute(self, key: str, value: object) -> None:
        key = text_of(key)
        if value is None:
            self._tags.pop(key, None)
        else:
            self._tags[key] = text_of(value)
        trace = self.trace
        if trace is not None:
            mark_trace(trace, key, value)

    def _mark_score(self, name: str, value: float) -> None:
        score = float(value)
        if math.isfinite(score):
            self._eval_scores[text_of(name)] = score

    def _mark_usage(
        self,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        model: str | None,
        cost_usd: float | None,
    ) -> None:
        self._tokens = (_count(input_tokens), _count(output_tokens), _count(cached_tokens))
        self._model = None if model is None else text_of(model)
        dollars = None if cost_usd is None else float(cost_usd)
        self._cost = dollars if dollars is not None and 0 <= dollars < math.inf else None

    def _kept_bytes(self) -> int:
        """About how many bytes the tags and the metadata keep alive."""
        return sum(map(str.__len__, self._tags.values())) + sum(map(_held, self._metadata.values()))

    def _shown_metadata(self, redactor: Redactor) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs_of(self._metadata):
            shown = value.value(redactor) if _is_late(value) else value
            if shown is not None:
                found[key] = shown
        return found


def mark_trace(trace: Trace, key: str, value: object) -> None:
    if key == USER_ID:
        trace.user_id = label(value)
    elif key == SESSION_ID:
        trace.session_id = label(value)


def _count(tokens: int) -> int:
    """A count that the server takes."""
    return min(max(0, int(tokens)), 2**53)


def _is_late(value: object) -> bool:
    return hasattr(type(value), "kept") and callable(getattr(value, "value", None))


def _held(value: Any) -> int:
    """About how many bytes a value of the metadata keeps alive."""
    if isinstance(value, str):
        return str.__len__(value)  # a subclass may have written its own
    if isinstance(value, bytes):
        return bytes.__len__(value)
    return int(value.kept) if _is_late(value) else 64
