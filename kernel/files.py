"""Files that appear whole, and locks that die with their process."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_held: dict[Path, FileLock] = {}


def write_whole(path: Path, content: bytes, *, lasting: bool) -> None:
    """Write beside and rename into place, so that nobody reads a half file.

    A `lasting` file is on disk when this returns, name included. Without it, a kill leaves the old file or the new
    one, whole; a power loss may leave neither.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it, however short each write comes back."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class FileLock:
    """A lock that this process holds until `release` or its end: a POSIX record lock on a file that is opened once.

    A forked child does not inherit it, where it would inherit a `flock` and keep a dead parent alive. Such a lock
    belongs to the process, and closing any descriptor of its file drops it: so a file that this process has locked
    is never opened again (`acquire` says no without a look).
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def release(self) -> None:
        """Give the lock up. A second call is harmless."""
        if _held.get(self.path) is self:
            del _held[self.path]
            os.close(self.descriptor)

    def moved(self, path: Path) -> None:
        """Say that a folder around the file was renamed, so that the lock is known under its new path."""
        del _held[self.path]
        self.path = path.resolve()
        _held[self.path] = self


def acquire(path: Path) -> FileLock | None:
    """Lock the file, which is created where it is missing; None where somebody holds it, this process included.

    Raises `OSError` where the file cannot be opened.
    """
    path = path.resolve()
    if path in _held:
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    _held[path] = FileLock(path, descriptor)
    return _held[path]


def _forget_in_child() -> None:
    """Close what a fork copied: the locks themselves stayed with the parent."""
    for lock in _held.values():
        os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
