"""Sessions: the folder that stands while a session is open, and tells how it ended.

    home/sessions/<session>/
        lock            held by the process that began the session, for as long as it is open
        owner.json      `OwnerFile`; with an outcome once the session has ended
        worker-0000, …  of a script's session: the worker indices that its environments have claimed
    home/sessions/.<session>.ended
                        of a script's session whose end is in the log: a child that comes later begins another one

A folder whose lock is free and whose file has no outcome is that of an owner who was killed.
"""

from __future__ import annotations

import os
import shutil
import time
from itertools import count
from typing import TYPE_CHECKING, Literal

import msgspec

from kernel.fail_points import fail_point
from kernel.files import FileLock, acquire, holder, write_whole

if TYPE_CHECKING:
    from pathlib import Path


class OwnerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `owner.json` says."""

    session: str
    pid: int
    kind: Literal["runner", "script"]
    outcome: Literal["finished", "stopped", "failed"] | None = None
    """How it ended; None while it is open."""


def sessions_folder(home: Path) -> Path:
    """Where the folders of a home's open sessions are."""
    return home / "sessions"


def read_owner(folder: Path) -> OwnerFile | None:
    """What a session's folder says of its owner; None where it does not say so (yet)."""
    try:
        return _decode((folder / "owner.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


class Session:
    """A session that this process has begun, and has to end."""

    def __init__(self, folder: Path, lock: FileLock, owner: OwnerFile) -> None:
        self.id = owner.session
        self.folder = folder
        self._lock = lock
        self._owner = owner

    def end(self, outcome: Literal["finished", "stopped", "failed"]) -> None:
        """Say how it ended, and let the folder go. A second call is harmless: the first outcome stands."""
        if self._owner.outcome is not None:
            return
        self._owner = msgspec.structs.replace(self._owner, outcome=outcome)
        fail_point("session.end.before")
        write_whole(self.folder / "owner.json", msgspec.json.encode(self._owner), lasting=True)
        fail_point("session.end.after")
        self._lock.release()


def open_session(home: Path, session: str, kind: Literal["runner", "script"]) -> Session:
    """Make the session's folder, locked. Raises `FileExistsError` where a session of this name was begun before."""
    folder = sessions_folder(home) / session
    building = folder.with_name(f".{session}.tmp")
    if folder.exists():
        raise FileExistsError(f"{folder}: the session {session} was begun before; its id must be a new one")
    building.mkdir(parents=True, exist_ok=True)  # it may be there from one that was killed while it built
    fail_point("session.begin.made")
    lock = acquire(building / "lock")
    if lock is None:
        raise FileExistsError(f"{building}/lock is held by another process, which begins the session {session}, too")
    owner = OwnerFile(session=session, pid=os.getpid(), kind=kind)
    try:
        write_whole(building / "owner.json", msgspec.json.encode(owner), lasting=True)
        fail_point("session.begin.before")
        building.rename(folder)  # from here on it is seen, and seen as locked
        fail_point("session.begin.after")
    except OSError:  # a sibling was quicker, or the disk is full
        lock.release()
        shutil.rmtree(building, ignore_errors=True)
        raise
    lock.moved(folder / "lock")
    return Session(folder, lock, owner)


def join_session(home: Path, root: str) -> tuple[str, Session | None]:
    """Be part of a script's session, of which each process knows the `root`: its id, and the session where we begin it.

    Whichever of the script's processes comes first begins it. Where that one has ended by now, the session is over (or
    about to be), and those who come later make up a second one.
    """
    deadline = time.monotonic() + JOIN_SECONDS
    for number in count(1):
        session = root if number == 1 else f"{root}.{number}"
        folder = sessions_folder(home) / session
        while not _ended(folder):
            if _is_open(folder):
                return session, None
            try:
                return session, open_session(home, session, "script")
            except OSError:  # a sibling is building it
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    raise AssertionError("numbers do not end")


def claim_worker(home: Path, session: str) -> int:
    """An index in the session that no other environment of it has."""
    folder = sessions_folder(home) / session
    taken = [int(path.name.removeprefix("worker-")) for path in folder.glob("worker-*")]
    for index in count(max(taken, default=-1) + 1):
        try:
            (folder / f"worker-{index:04d}").touch(exist_ok=False)
            fail_point("session.worker.claimed")
        except FileExistsError:
            continue
        return index
    raise AssertionError("numbers do not end")


def mark_ended(folder: Path) -> None:
    """Remember that a session is over, for those who would join it; before its folder goes."""
    _mark(folder).touch()
    fail_point("session.mark.after")


def clear_marks(home: Path) -> None:
    """Forget about sessions that ended so long ago that no process of theirs can be alive."""
    for mark in sessions_folder(home).glob(".*.ended"):
        if time.time() - mark.stat().st_mtime > MARK_SECONDS:
            mark.unlink(missing_ok=True)
            fail_point("session.mark.removed")


def _mark(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.ended")


def _ended(folder: Path) -> bool:
    owner = read_owner(folder)
    if owner is None:
        return _mark(folder).exists()
    return owner.outcome is not None or holder(folder / "lock") is None


def _is_open(folder: Path) -> bool:
    owner = read_owner(folder)
    return owner is not None and owner.outcome is None


JOIN_SECONDS = 5.0
"""How long a sibling may take to begin the session."""

MARK_SECONDS = 60 * 86_400.0

_decode = msgspec.json.Decoder(OwnerFile).decode
