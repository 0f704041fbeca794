"""What the pieces of a stream mean: read after they passed, off the application's thread.

The first output is looked for piece by piece, for its time; the rest is read as one, and what only brings
the next word is passed over unparsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import Any

from ._answer import Answer, Route
from ._call import Call
from ._eventstream import FrameStream
from ._sse import EventStream

Pieces = list[tuple[bytes, float]]
"""What passed, and when."""


def reader(
    call: Call,
    events: EventStream | FrameStream | None,
    pieces: Pieces,
    *,
    complete: bool,
    is_json: bool,
) -> Callable[[Answer], None]:
    def read(answer: Answer) -> None:
        answer.complete = answer.complete or complete
        if events is not None:
            fold(call, events, pieces)
            for payload in events.close():
                fold_one(call.route, payload, answer)
        elif is_json and pieces:
            with suppress(ValueError):  # half of a document that was left early
                call.route.read(json.loads(joined(pieces)), answer)
                answer.complete = True

    return read


def fold(call: Call, events: EventStream | FrameStream, pieces: Pieces) -> None:
    """Read the events in `pieces`; one by one until the first output, whose time is noted."""
    done = 0
    while call.awaits_output and done < len(pieces):
        piece, at = pieces[done]
        for payload in events.feed(piece):
            event = fold_one(call.route, payload, call.answer)
            if event is not None and call.awaits_output and call.route.begins(event):
                call.first_output(at)
        done += 1
    answer, route = call.answer, call.route
    for payload in events.feed(joined(pieces[done:])):
        # To parse what only brings the next word is nearly all of the work; without texts it is for nothing.
        if answer.spoken is not None or answer.model is None or not route.is_plain(payload):
            fold_one(route, payload, answer)


def joined(pieces: Pieces) -> bytes:
    return b"".join(piece for piece, _ in pieces)


def size_of(pieces: Pieces) -> int:
    return sum(map(len, map(itemgetter(0), pieces)))


def fold_one(route: Route, payload: bytes, answer: Answer) -> Any:
    """One event of the stream into the answer; what is no JSON says nothing."""
    if payload.startswith(b"[DONE]"):
        answer.complete = True
        return None
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    route.fold(event, answer)
    return event
