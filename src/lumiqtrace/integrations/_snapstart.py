"""AWS Lambda SnapStart: nothing that belongs to one sandbox is in the snapshot that many are restored from.

Before the snapshot everything is delivered, and the exporter's thread and connection end; after it each
sandbox makes its own with its first event. Identifiers need nothing: they come from `os.urandom`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from .._default import default_client
from .._guard import Guard

FLUSH_SECONDS: Final = 5.0
"""What a flush may take before a snapshot, of the ten seconds that initialising may."""

THREAD_SECONDS: Final = 1.0
"""What its threads may take to end."""

_preparing: Final = Guard("preparing for a snapshot", limit=None)
_registered: Final[set[int]] = set()


def is_snapshotted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is made for a snapshot, or comes from one."""
    return environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"


def prepare_for_snapshot() -> None:
    """Register what is to be done around the snapshot, once a process; nothing where there is none."""
    if is_snapshotted() and os.getpid() not in _registered:
        _registered.add(os.getpid())
        _preparing(_register)


def _register() -> None:
    hooks: Any = __import__("snapshot_restore_py")  # only Lambda's own runtime has it
    hooks.register_before_snapshot(_before_snapshot)


def _before_snapshot() -> None:
    _preparing(_let_go)


def _let_go() -> None:
    client = default_client()
    client.flush(FLUSH_SECONDS)
    # What could not be delivered stays: the sandboxes send it with the same ids, and it counts once.
    client.park(THREAD_SECONDS)
