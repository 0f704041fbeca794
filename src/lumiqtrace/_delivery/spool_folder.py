"""The spool's folder: private to one user, shared by processes that each hold one lock in it.

Nothing here knows what a file means. Whatever it cannot do raises OSError; what somebody else removed
meanwhile does not count as that.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Self

BLOCK: Final = 4096
"""A file takes whole blocks of the disk."""

MAX_CORRUPT: Final = 10
"""Files set aside that are kept for whoever wants to look."""

ATTEMPTS: Final = 20
"""Names that are tried for a lock of our own."""

_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{1,64})-([0-9]{1,15})-([0-9]{1,12})-([0-9]{1,4})\.batch")
_OWNED: Final = re.compile(r"([0-9a-f]{32})(?:-[0-9a-f-]+\.batch(?:\.tmp)?|\.lock)")

_NO_LINKS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_locks: dict[int, int] = {}
"""The open lock files, and the process that opened each."""

_hooked = False


class SpoolFile(NamedTuple):
    """What a name tells: `created` is Unix time in seconds, `length` bytes."""

    name: str
    destination: str
    created: float
    events: int
    length: int

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return blocks(self.length)

    @classmethod
    def new(
        cls, owner: str, destination: str, number: int, *, created: float, events: int, length: int
    ) -> Self:
        name = f"{owner}-{destination}-{int(created * 1000)}-{number}-{events}.batch"
        return cls(name, destination, created, events, length)

    @classmethod
    def parse(cls, name: str, length: int) -> Self | None:
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(name, found[2], int(found[3]) / 1000, int(found[5]), length)


def blocks(length: int) -> int:
    """Bytes that a file of this length takes on the disk."""
    return -(-length // BLOCK) * BLOCK


def owner_of(name: str) -> str | None:
    """The process that a file belongs to; None for a file that is none of ours, or was set aside."""
    found = _OWNED.fullmatch(name)
    return found[1] if found else None


def is_expired(file: SpoolFile, now: float, max_age: float) -> bool:
    return now - file.created > max_age


class Folder:
    """`owner` is the name of this process in it, once it is open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.owner = ""
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder where it is missing, check that it is private, and take a lock in it."""
        if self._lock is not None and self._is_mine(self._lock):
            return
        _drop_inherited()
        _check_private(self.path)
        # The name stays where somebody emptied the folder: what may be left in it carries that name. And a
        # process that looks for what is left may hold a new lock for a moment; then another name will do.
        for _ in range(ATTEMPTS):
            self.owner = self.owner or os.urandom(16).hex()
            self._lock = _locked(self._of(f"{self.owner}.lock"))
            if self._lock is not None:
                return
            self.owner = ""
        raise OSError(0, "no lock can be had in it")

    def _is_mine(self, lock: int) -> bool:
        """Whether the lock is held, and its file is still the one in the folder."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(lock), os.stat(self._of(f"{self.owner}.lock")))  # noqa: PTH116
        _close(lock)
        self._lock = None
        return False

    def release(self, *, keep: bool) -> None:
        """Let go of the lock; its file stays where there are files to go with it."""
        if self._lock is not None:
            if not keep:
                self.forget(self.owner)
            _close(self._lock)
            self._lock = None

    def store(self, name: str, data: bytes) -> None:
        """All of it, on the disk, under that name; or nothing."""
        made = self._of(f"{name}.tmp")
        try:
            handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(made, self._of(name))  # noqa: PTH104 - pathlib is loaded by nobody else here
        except BaseException:
            self.remove(f"{name}.tmp")
            raise
        self._sync()

    def load(self, name: str) -> bytes | None:
        """What the file holds; None where it is gone."""
        try:
            handle = os.open(self._of(name), os.O_RDONLY | _NO_LINKS)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def rename(self, name: str, new: str) -> bool:
        with suppress(FileNotFoundError):
            os.rename(self._of(name), self._of(new))  # noqa: PTH104
            return True
        return False

    def remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._of(name))  # noqa: PTH108

    def set_aside(self, name: str) -> None:
        """Keep a damaged file for whoever wants to look, and of those only the last."""
        with suppress(OSError):
            os.rename(self._of(name), self._of(f"{name}.corrupt"))  # noqa: PTH104
            aside = [other for other in os.listdir(self.path) if other.endswith(".batch.corrupt")]  # noqa: PTH208
            aside.sort(key=lambda other: other.split("-")[2:3])
            for other in aside[:-MAX_CORRUPT]:
                self.remove(other)

    def list(self) -> dict[str, int]:
        """Every plain file, and how long it is."""
        found: dict[str, int] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return found

    @contextmanager
    def claim(self, owner: str) -> Iterator[bool]:
        """Whether that process is gone, and nobody else is looking after what it left."""
        lock = _locked(self._of(f"{owner}.lock"))
        try:
            yield lock is not None
        finally:
            if lock is not None:
                _close(lock)

    def forget(self, owner: str) -> None:
        """Its lock file is needed no more."""
        self.remove(f"{owner}.lock")

    def _of(self, name: str) -> str:
        return os.path.join(self.path, name)  # noqa: PTH118

    def _sync(self) -> None:
        """Have the name survive as well; some file systems and Windows have no such thing."""
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _check_private(path: str) -> None:
    """Refuse a folder that others can look into, or that others could exchange."""
    os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103
    link, folder = os.lstat(path), os.stat(path)  # noqa: PTH116
    if os.name != "posix":
        return
    user = os.geteuid()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (user, 0):
        raise OSError(0, "it is a link that another user made")
    if folder.st_uid != user:
        raise OSError(0, "it belongs to another user")
    if folder.st_mode & 0o077:
        raise OSError(0, f"others may look into it; it needs the mode 0700, not {folder.st_mode & 0o777:04o}")


def _locked(path: str) -> int | None:
    """Open and lock a file, which is made where it is missing; None where another holds or removed it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600)
    _locks[handle] = os.getpid()
    _hook()
    try:
        if _try_lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path)):  # noqa: PTH116
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        _close(handle)
        raise
    _close(handle)
    return None


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return _try_lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_on_windows(handle: int) -> bool:
    msvcrt: Any = __import__("msvcrt")
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except PermissionError:
        return False
    return True


def _close(handle: int) -> None:
    # Closed, never unlocked: a child that unlocks what it inherited takes the lock from its parent.
    _locks.pop(handle, None)
    with suppress(OSError):
        os.close(handle)


def _drop_inherited() -> None:
    """In a forked child: its parent's locks are the parent's alone."""
    for handle, process in list(_locks.items()):
        if process != os.getpid():
            _close(handle)


def _hook() -> None:
    global _hooked  # noqa: PLW0603 - the hook belongs to the process, as this flag does
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(after_in_child=_drop_inherited)
