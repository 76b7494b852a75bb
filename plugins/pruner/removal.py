"""Removal of one video: its file if it is still the one that was catalogued, its thumbnail, and last its entry."""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from kernel.fail_points import fail_point
from kernel.files import is_name, sync_folder
from plugins import catalogue
from plugins.catalogue import FileIdentity

if TYPE_CHECKING:
    from pathlib import Path

    from plugins.catalogue import Entry


def remove(home: Path, entry: Entry) -> int:
    """Remove a video for good, and return how many bytes that freed.

    That is 0 where the file is gone, or is not the one that was catalogued and so stays. May be called again after a
    kill anywhere in it. Blocks. Raises `OSError` where the file cannot be removed.
    """
    file = home / entry.path
    freed_bytes = 0
    # Outside of the home the content counts, too: somebody else may have written what the entry says of the file.
    if is_still(file, entry.identity) and (catalogue.is_inside(home, file) or catalogue.holds(file, entry.sha256)):
        fail_point("pruner.video.before")
        file.unlink()
        fail_point("pruner.video.removed")
        sync_folder(file.parent)
        freed_bytes = entry.identity.size_bytes
    catalogue.remove(home, entry.recording)
    return freed_bytes


def withdraw(home: Path, recording: str) -> None:
    """Remove the entry and the thumbnail of a video that another has replaced, where they are there."""
    catalogue.remove(home, recording)


def is_still(file: Path, identity: FileIdentity) -> bool:
    """Whether this is the very file: a regular one, of the same size, time and inode. Follows no symlink."""
    try:
        status = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    found = FileIdentity(size_bytes=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)
    return stat.S_ISREG(status.st_mode) and found == identity


def remove_empty_folder(home: Path, session: str) -> bool:
    """Remove a session's video folder where it is empty; False where that has to wait, as a video may yet come."""
    if not is_name(session):
        return True
    if any(producer.name.startswith(f"{session}-") for producer in (home / "spool").glob("*")):
        return False
    with suppress(OSError):  # it is gone, holds something, or is a link
        (home / "videos" / session).rmdir()
        fail_point("pruner.folder.removed")
    return True
