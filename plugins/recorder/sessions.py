"""Sessions: the folder that stands while a session is open, and tells how it ended.

    home/sessions/<session>/
        lock            held by the process that began the session, for as long as it is open
        owner.json      `OwnerFile`; with an outcome once the session has ended

A folder whose lock is free and whose file has no outcome is that of an owner who was killed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import msgspec

from kernel.files import FileLock, acquire, write_whole

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
        write_whole(self.folder / "owner.json", msgspec.json.encode(self._owner), lasting=True)
        self._lock.release()


def open_session(home: Path, session: str, kind: Literal["runner", "script"]) -> Session:
    """Make the session's folder, locked. Raises `FileExistsError` where a session of this name was begun before."""
    folder = sessions_folder(home) / session
    building = folder.with_name(f".{session}.tmp")
    if folder.exists():
        raise FileExistsError(f"{folder}: the session {session} was begun before; its id must be a new one")
    building.mkdir(parents=True)
    lock = acquire(building / "lock")
    if lock is None:
        raise FileExistsError(f"{building}/lock is held by another process, which begins the session {session}, too")
    owner = OwnerFile(session=session, pid=os.getpid(), kind=kind)
    write_whole(building / "owner.json", msgspec.json.encode(owner), lasting=True)
    building.rename(folder)  # from here on it is seen, and seen as locked
    lock.moved(folder / "lock")
    return Session(folder, lock, owner)


_decode = msgspec.json.Decoder(OwnerFile).decode
