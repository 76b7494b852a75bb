"""Files that appear whole, full disks, locks that die with their process, and whether a folder is on a network."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import struct
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Literal

from kernel.fail_points import fail_point

_held: dict[Path, FileLock] = {}
_turn = threading.Lock()
"""Held while a lock is looked for, taken or given up: a process cannot refuse itself, so its threads would pass."""


def write_whole(path: Path, content: bytes, *, lasting: bool) -> None:
    """Write beside and rename into place, so that nobody reads a half file.

    A `lasting` file is on disk when this returns, name included. Without it, a kill leaves the old file or the new
    one, whole; a power loss may leave neither.
    """
    beside = path.with_name(f".{path.name}.{_mine}.tmp")
    try:
        # By descriptor: a file object asks three times more of the system, and another thread of the process, such as
        # one that steps an environment, may have to wait at each.
        descriptor = _open_regular(os.fspath(beside), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            fail_point("files.whole.begun")
            write_all(descriptor, content)
            if lasting:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fail_point("files.whole.written")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    fail_point("files.whole.renamed")
    if lasting:
        sync_folder(path.parent)
        fail_point("files.whole.lasting")


def clear_up(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of files that they were writing whole: of this name in the folder, or of any.

    For whoever alone writes such files there; what its own threads are writing stays.
    """
    for half in folder.glob(".*.tmp"):
        if half.name.startswith(f".{name}") and not half.name.endswith(f".{_mine}.tmp"):
            half.unlink(missing_ok=True)
            fail_point("files.half.removed")


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


NOT_OURS = frozenset({errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM})
"""What the system says of a link, a pipe, a folder or a file of somebody else in the place of a file of ours."""


def is_name(text: str) -> bool:
    """Whether this can be the name of a file or folder of ours: of one place, visible, printable, not too long.

    Ids come from producers, and a home from whoever sent it: what is no name never becomes part of a path.
    """
    return 0 < len(text.encode(errors="replace")) <= 200 and text[0] != "." and "/" not in text and text.isprintable()


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def open_regular(path: Path, mode: Literal["rb", "rb+"] = "rb") -> BinaryIO:
    """Open a file that is one: a home may come from somebody else, and hold links and pipes under our names.

    Raises `OSError`: also for a symbolic link, and for whatever would block or is a device.
    """
    return open(path, mode, opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "Is no regular file", path)
    return descriptor


def read_regular(path: Path) -> bytes:
    """The content of a file that is one; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it, however short each write comes back."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a disk, or a user's share of it, is full."""


def wants_space(error: BaseException) -> bool:
    """Whether this failure is a full disk's, or a file-size limit's: whoever waits for space may then try again."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, OSError) and (each.errno in NO_SPACE or each.errno == errno.EFBIG):
            return True
        waiting += (each.__cause__, each.__context__)
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return False


def reserve(path: Path, size_bytes: int) -> bool:
    """Have a file hold so much of the disk; False where there is no room, and then it holds none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size_bytes)
        elif os.fstat(descriptor).st_size < size_bytes:
            write_all(descriptor, bytes(size_bytes))
    except OSError as error:
        os.ftruncate(descriptor, 0)
        if not wants_space(error):
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def has_room(folder: Path, size_bytes: int) -> bool:
    """Whether a file of so many bytes can be written in this folder now. Raises `OSError` for any other reason."""
    trial = folder / f".{os.getpid()}.{threading.get_ident()}.room.tmp"
    try:
        trial.write_bytes(bytes(size_bytes))
    except OSError as error:
        if not wants_space(error):
            raise
        return False
    finally:
        trial.unlink(missing_ok=True)
    return True


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
        with _turn:
            if _held.get(self.path) is self:
                del _held[self.path]
                os.close(self.descriptor)

    def moved(self, path: Path) -> None:
        """Say that a folder around the file was renamed, so that the lock is known under its new path."""
        path = _known_as(path)
        with _turn:
            del _held[self.path]
            self.path = path
            _held[path] = self

    def note(self, words: bytes) -> None:
        """Let the file say so much about its holder, and nothing else, for `note_of`. Raises `OSError`."""
        os.ftruncate(self.descriptor, 0)
        if words:
            os.pwrite(self.descriptor, words, 0)


def acquire(path: Path) -> FileLock | None:
    """Lock the file, which is created where it is missing; None where somebody holds it, this process included.

    Raises `OSError` where the file cannot be opened, or is a link.
    """
    path = _known_as(path)
    with _turn:
        if path in _held:
            return None
        descriptor = _open_regular(os.fspath(path), os.O_RDWR | os.O_CREAT)
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


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock on this file; None where nobody does, or there is no file.

    0 where the holder's pid means nothing here: it lives in another container or on another machine. Takes nothing,
    so nobody who wants the lock is refused by this look. Raises `OSError` where the file cannot be looked at.
    """
    path = _known_as(path)
    with _turn:
        if path in _held:
            return os.getpid()
        try:
            descriptor = _open_regular(os.fspath(path), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _flock(fcntl.F_WRLCK))
        finally:
            os.close(descriptor)
    kind, pid = _kind_and_pid(answer)
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def note_of(path: Path) -> bytes:
    """What the holder of this lock file has noted in it; nothing where that is this process, or there is no file."""
    path = _known_as(path)
    with _turn:
        try:
            return b"" if path in _held else read_regular(path)
        except FileNotFoundError:
            return b""


def _known_as(path: Path) -> Path:
    """One text for a lock file, however its folder is reached. The file itself is never a link."""
    return path.parent.resolve() / path.name


if sys.platform == "darwin":

    def _flock(kind: int) -> bytes:
        return struct.pack("qqihh", 0, 0, 0, kind, os.SEEK_SET)

    def _kind_and_pid(answer: bytes) -> tuple[int, int]:
        _, _, pid, kind, _ = struct.unpack("qqihh", answer)
        return kind, pid

else:

    def _flock(kind: int) -> bytes:
        return struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)

    def _kind_and_pid(answer: bytes) -> tuple[int, int]:
        kind, _, _, _, pid = struct.unpack("hhqqi0q", answer)
        return kind, pid


_NETWORK = re.compile(
    r"(fuse\.)?(9p|afs|beegfs|ceph|cifs|glusterfs|gpfs|juicefs|lustre|nfs4?|orangefs|panfs|rclone|s3fs|smb3|sshfs|wekafs)"
)
"""File systems whose files another machine may change at the same time."""


def on_network(path: Path) -> str | None:
    """The type of the network file system that the path is on, or will be; None where it is on none.

    Known on Linux only.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = file_system(path.resolve(), mounts)
    return kind if _NETWORK.fullmatch(kind) else None


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system of an absolute path, by a text such as `/proc/self/mountinfo`; empty where unknown.

    The deepest mount point around the path counts, and of several mounts in one place the last.
    """
    found, depth = "", -1
    for line in mountinfo.splitlines():
        place, dash, source = line.partition(" - ")
        fields = place.split()
        if not dash or len(fields) < 5:
            continue
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(mounted) and len(mounted.parts) >= depth:
            found, depth = source.split()[0], len(mounted.parts)
    return found


def _name_of_this_process() -> str:
    """Not the pid alone, which comes again: in a container a kernel has the same at each start."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


_mine = _name_of_this_process()


def _forget_in_child() -> None:
    """Close what a fork copied: the locks themselves stayed with the parent."""
    global _turn, _mine  # noqa: PLW0603 - a thread that did not come along may have the one, and the other is the parent's
    _turn = threading.Lock()
    _mine = _name_of_this_process()
    for lock in _held.values():
        os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
