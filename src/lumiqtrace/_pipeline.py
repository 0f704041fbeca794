"""From a finished event to the one that leaves: secrets out, then the user's own word.

Each stage is a function from an event to an event, or to None where it is dropped. They run on the
exporter thread; what bounds an event's size is the encoder's. A redaction that fails drops the event; where
`before_send` fails, the event leaves without all that the application put into it.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ._config import BeforeSend
from ._event import MAX_MESSAGE, Event
from ._guard import Guard, say
from ._own import contained, own_work

if TYPE_CHECKING:
    from ._redaction.redact import Redactor

_NOTHING: Final[dict[str, Any]] = dict.fromkeys(
    ("name", "error_message", "user_id", "session_id", "prompt", "prompt_hash", "completion")
)

_READ: Final = ("error_message", "user_id", "session_id", "tags", "metadata", "prompt", "completion")


class Pipeline:
    """Redacts an event, then asks `before_send`. One thread at a time uses it.

    `make_redactor` is called by `load`, or at the first event.
    """

    def __init__(
        self, make_redactor: Callable[[], Redactor] | None = None, before_send: BeforeSend | None = None
    ) -> None:
        self._make_redactor = make_redactor
        self._redactor: Redactor | None = None
        self._before_send = before_send
        self._asking = Guard("before_send", limit=None)
        self._said = False

    @property
    def failures(self) -> int:
        """How often `before_send` raised, or gave something else than an event or None."""
        return self._asking.failures

    def load(self) -> None:
        """Make the redactor, if it is not there. Raises what its import does; no event is in hand yet."""
        if self._redactor is None and self._make_redactor is not None:
            self._redactor = self._make_redactor()

    def __call__(self, event: Event) -> Event | None:
        """The event that leaves, or None."""
        self.load()
        if self._redactor is not None:
            event = redacted(event, self._redactor)
        if event.error_message:
            # Only now, for half a key is no longer recognised as one.
            event.error_message = event.error_message[:MAX_MESSAGE]
        if self._before_send is None:
            return event
        answer = self._asking(_answer, self._before_send, event)
        return self._unasked(event) if answer is None else answer[0]

    def _unasked(self, event: Event) -> Event:
        """What can be sent of an event that `before_send` might have changed: times, counts and the cost."""
        if not self._said:
            self._said = True
            say(
                logging.WARNING,
                "lumiqtrace: before_send failed (%s); such an event leaves without its name, its texts, its "
                "tags and its user. Enable debug logging to see where.",
                self._asking.last,
            )
        # A span's model is its name.
        model = "unknown" if event.model == event.name else event.model
        tags = {"before_send": "failed"}
        return dataclasses.replace(
            event, **_NOTHING, model=model, tags=tags, metadata={}, eval_scores={}, tools_used=[]
        )


def redacted(event: Event, redactor: Redactor) -> Event:
    """The event, without secrets in what comes from the application; in place."""
    for name in _READ:
        value = getattr(event, name)
        if value:
            setattr(event, name, redactor.value(value))
    # By their looks alone: a route such as `/token:refresh` has names in it, and no values.
    event.model = redactor.looked_at(event.model)
    if event.name:
        event.name = redactor.looked_at(event.name)
    return event


def _answer(before_send: BeforeSend, event: Event) -> tuple[Event | None]:
    """What the user says about a copy, so that the event itself is whole if that fails halfway."""
    with own_work():
        answer = contained(before_send, _copied(event))
    if answer is not None and not isinstance(answer, Event):
        raise TypeError(f"before_send gave {type(answer).__name__}; it gives the event, or None to drop it")
    return (answer,)


def _copied(event: Event) -> Event:
    return dataclasses.replace(
        event,
        tags=dict(event.tags),
        tools_used=list(event.tools_used),
        eval_scores=dict(event.eval_scores),
        metadata=copy.deepcopy(event.metadata),
    )
