"""What tests of an application need: its events, caught in memory and ready to be asserted on.

    with lumiqtrace.testing.capture() as events:
        answer("What is a span?")
    events.assert_called(model="gpt-4o", times=1)

No key and no network: what `init` did before is put back when the block ends. `LoopbackBackend` is an ingest
endpoint for tests that want the real HTTP, `FakeClock` and `MemoryTransport` are for tests of delivery. With
pytest the fixture `lumiqtrace_events` is there by itself.
"""

from ._backend import KEY, Answer, LoopbackBackend, Request, accept
from ._capture import capture
from ._clock import FakeClock
from ._event import CapturedEvent
from ._events import Events
from ._memory import MemoryTransport, SentBatch

__all__ = [
    "KEY",
    "Answer",
    "CapturedEvent",
    "Events",
    "FakeClock",
    "LoopbackBackend",
    "MemoryTransport",
    "Request",
    "SentBatch",
    "accept",
    "capture",
]
