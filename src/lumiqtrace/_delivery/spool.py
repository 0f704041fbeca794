"""What waits, as files: a batch is a file in a private folder until the server has it.

A process owns the files that carry its name and holds a lock as long as it lives. What a process left behind
is taken over, by renaming, by one that delivers to the same server with the same key. A folder or a disk
that fails switches the spool off for a while, never the delivery. Files hold what is sent, never the key.
"""

from __future__ import annotations

import math
import os
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .._config import LumiqConfig, Secret
from .._lifecycle import loading
from .spool_folder import Folder, SpoolFile, blocks, is_expired, owner_of

RETRY_EVERY: Final = 60.0
"""Seconds a spool that failed stays off."""

ALWAYS: Final = 0.1
"""Seconds between two writes with `spool="always"`."""

LIST_EVERY: Final = 1.0
"""Seconds that the look at what others have in the folder is good for."""

LIST_AFTER: Final = 16
"""It is good for this part of the limit, in bytes that we write ourselves."""

MAX_ADOPTED: Final = 1000
"""Files taken over at once; the rest waits for the next turn, or for another process."""

_MAGIC: Final = b"lumiqtrace-spool 1"


class Spool:
    """The batches of one process in `folder`, for one destination. Touches no file before the first batch.

    `destination` names server and project, in hexadecimal digits; it is asked when first needed.
    """

    def __init__(
        self,
        folder: str,
        destination: Callable[[], str],
        *,
        max_bytes: int,
        max_age: float,
        always: bool = False,
        complain: Callable[[str, str], None] = lambda _cause, _message: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.interval = ALWAYS if always else math.inf
        """Seconds that a recording waits at most until it is written."""
        self.complain = complain
        """Where its warnings go: `complain(cause, message)`."""
        self.more = False
        """Whether the last sweep left something to take over."""
        self._folder = Folder(folder)
        self._destination = destination
        self._name = ""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._wall = wall
        self._lock = threading.RLock()
        self._files: dict[str, SpoolFile] = {}
        self._bytes = 0
        self._foreign_bytes = 0
        self._listed_at = -math.inf
        self._written = 0
        self._made = 0
        self._off_until = 0.0
        self._failed = False
        self._closed = False

    def write(
        self, body: bytes, events: int, spare: SpoolFile | None
    ) -> tuple[SpoolFile | None, list[SpoolFile]]:
        """Keep a batch; None where that is impossible now. Also gives the files that had to make room.

        When it returns, the batch survives the end of this process and of this machine. `spare` is the file
        of the batch that is being sent: it does not make room.
        """
        with self._lock:
            if not self._ready():
                return None, []
            data = b"%s %d %d %08x\n%s" % (_MAGIC, events, len(body), zlib.crc32(body), body)
            file = self._new_file(events, self._wall(), len(data))
            self._look_at_others(file.size)
            kept = self._foreign_bytes + (spare.size if spare else 0)
            if kept + file.size > self._max_bytes:  # what we may remove would not be enough
                self.complain("spool", f"the spool {self._folder.path} is full; events are kept in memory")
                return None, []
            evicted = self._make_room(file.size, spare)
            try:
                self._folder.store(file.name, data)
            except OSError as error:
                self._switch_off(error)
                return None, evicted
            self._register(file)
            self._written += file.size
            self._failed = False
            return file, evicted

    def read(self, file: SpoolFile) -> bytes | None:
        """The batch's body; None where the file is gone or damaged, which is then set aside.

        Raises OSError where it cannot be read now.
        """
        with self._lock:
            data = self._folder.load(file.name)
            body = None if data is None else _checked(data, file.events)
            if body is None:
                self._forget(file)
                if data is not None:
                    self._folder.set_aside(file.name)
                    self.complain(
                        "corrupt", f"a damaged file of the spool was set aside: {file.name}.corrupt"
                    )
            return body

    def remove(self, file: SpoolFile) -> None:
        """The batch is settled."""
        with self._lock:
            self._forget(file)
            self._folder.remove(file.name)

    def sweep(self, spare: SpoolFile | None) -> tuple[list[SpoolFile], list[SpoolFile]]:
        """Take over what processes left that are gone; gives these files, and all that are too old by now."""
        adopted: list[SpoolFile] = []
        with self._lock:
            if not self._ready():
                return [], []
            try:
                self._take_over(adopted)
            except OSError as error:
                self._switch_off(error)
            now = self._wall()
            expired = [file for file in self._files.values() if is_expired(file, now, self._max_age)]
            expired = [file for file in expired if file is not spare]
            for file in expired:
                self.remove(file)
            return adopted, expired

    def close(self, timeout: float = 0.5) -> None:
        """Leave the files to whoever comes. `timeout` is seconds; a disk may hang, an exit must not."""
        if not self._lock.acquire(timeout=timeout):
            return
        try:
            self._closed = True
            with loading():
                self._folder.release(keep=bool(self._files))
        finally:
            self._lock.release()

    def _ready(self) -> bool:
        if self._closed or self._clock() < self._off_until:
            return False
        try:
            # Not in the middle of a fork: the child would hold the lock as well, and not know.
            with loading():
                self._folder.open()
                self._name = self._name or self._destination()
        except OSError as error:
            self._switch_off(error)
            return False
        return True

    def _switch_off(self, error: OSError) -> None:
        """What the disk does not do is said once, and not tried again for a while."""
        self._off_until = self._clock() + RETRY_EVERY
        if not self._failed:
            self._failed = True
            why = error.strerror or type(error).__name__
            self.complain(
                "spool", f"the spool {self._folder.path} is off ({why}); events are kept in memory alone"
            )

    def _new_file(self, events: int, created: float, length: int) -> SpoolFile:
        self._made += 1
        return SpoolFile.new(
            self._folder.owner, self._name, self._made, created=created, events=events, length=length
        )

    def _register(self, file: SpoolFile) -> None:
        self._files[file.name] = file
        self._bytes += file.size

    def _forget(self, file: SpoolFile) -> None:
        if self._files.pop(file.name, None) is not None:
            self._bytes -= file.size

    def _make_room(self, size: int, spare: SpoolFile | None) -> list[SpoolFile]:
        """The oldest of ours go first; what belongs to others is theirs to remove."""
        over = self._bytes + self._foreign_bytes + size - self._max_bytes
        evicted: list[SpoolFile] = []
        if over > 0:
            for file in sorted(self._files.values(), key=lambda file: file.created):
                if over <= 0:
                    break
                if file is not spare:
                    evicted.append(file)
                    over -= file.size
        for file in evicted:
            self.remove(file)
        return evicted

    def _look_at_others(self, size: int) -> None:
        """The limit is the folder's: others may have written since the last look."""
        much = self._written + size >= self._max_bytes / LIST_AFTER
        if self._clock() - self._listed_at < LIST_EVERY and not much:
            return
        # Where that fails, so will the write, which says so.
        with suppress(OSError):
            self._list()

    def _list(self) -> dict[str, int]:
        sizes = self._folder.list()
        self._foreign_bytes = sum(blocks(size) for name, size in sizes.items() if name not in self._files)
        self._listed_at = self._clock()
        self._written = 0
        return sizes

    def _take_over(self, adopted: list[SpoolFile]) -> None:
        sizes = self._list()
        self.more = False
        by_owner: dict[str, list[str]] = {}
        for name in sorted(sizes):
            owner = owner_of(name)
            if owner is not None and owner != self._folder.owner:
                by_owner.setdefault(owner, []).append(name)
        for owner, names in by_owner.items():
            # No fork, as above; and nobody else looks at what is renamed here.
            with loading(), self._folder.claim(owner) as claimed:
                if claimed and not self._inherit({name: sizes[name] for name in names}, adopted):
                    self._folder.forget(owner)

    def _inherit(self, sizes: dict[str, int], adopted: list[SpoolFile]) -> bool:
        """Take the files of one process that is gone; whether some stay as they are."""
        left = False
        for name, length in sizes.items():
            file = SpoolFile.parse(name, length)
            if file is None:
                if name.endswith(".tmp"):  # it ended while it wrote that
                    self._folder.remove(name)
            elif file.destination == self._name:
                if len(adopted) >= MAX_ADOPTED:
                    left = self.more = True
                else:
                    ours = self._new_file(file.events, file.created, length)
                    if self._folder.rename(name, ours.name):
                        self._register(ours)
                        self._foreign_bytes -= ours.size
                        adopted.append(ours)
            elif is_expired(file, self._wall(), self._max_age):
                self._folder.remove(name)
                self.complain("expired", f"{file.events} events for another destination were too old")
            else:
                left = True
        return left


def spool_for(config: LumiqConfig) -> Spool:
    """The spool that the options ask for."""
    assert config.spool_dir is not None
    return Spool(
        os.fspath(config.spool_dir),
        lambda: destination(config),
        max_bytes=config.spool_max_bytes,
        max_age=config.spool_max_age,
        always=config.spool == "always",
    )


def destination(config: LumiqConfig) -> str:
    """Names server and project without telling the key: 64 bits of a hash."""
    import hashlib

    assert isinstance(config.api_key, Secret)
    return hashlib.sha256(f"{config.base_url}\n{config.api_key.reveal()}".encode()).hexdigest()[:16]


def _checked(data: bytes, events: int) -> bytes | None:
    """The body of a file whose first line describes it; None where it does not."""
    head, _, body = data.partition(b"\n")
    right = b"%s %d %d %08x" % (_MAGIC, events, len(body), zlib.crc32(body))
    return body if head == right else None
