"""What is kept of recordings that could not be encoded, in `home/failed`: why, and their chunks within a bound."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from kernel.fail_points import fail_point
from kernel.files import clear_up, sync_folder, write_whole
from plugins import catalogue
from plugins.encoder_pool import jobs

if TYPE_CHECKING:
    from pathlib import Path

MOST_FOLDERS = 1000
"""So many failed recordings are remembered, those whose frames had no place, too; the oldest make room."""


def place_for(home: Path, folder: Path, bound_bytes: int) -> str | None:
    """Where `keep` will put a recording's chunks, relative to the home; None where they do not fit into the bound."""
    size = _size_of(folder)
    if size == 0 or size > bound_bytes:
        return None
    return catalogue.failed_folder(home, folder.name).relative_to(home).as_posix()


def room_for(folder: Path, bound_bytes: int, keeps: bool) -> int:  # noqa: FBT001 - a thread is given it by place
    """How many bytes all others may have when this recording's folder has been put away."""
    return bound_bytes - (_size_of(folder) if keeps else 0)


def displaced(home: Path, room_bytes: int) -> list[tuple[Path, int]]:
    """The folders that make room when `keep` or `keep_nothing` is called next, and the bytes of frames in each."""
    failed = home / "failed"
    if not failed.is_dir():
        return []
    others = sorted(failed.iterdir(), key=lambda each: each.stat().st_mtime_ns)
    sizes = {each: _size_of(each) for each in others}
    going = []
    while others and (sum(sizes[each] for each in others) > room_bytes or len(others) >= MOST_FOLDERS):
        going.append((others[0], sizes[others.pop(0)]))
    return going


def keep(home: Path, folder: Path, bound_bytes: int, reason: str) -> None:
    """Move a recording's folder to `home/failed`, with the reason. The folders that came there first make room."""
    jobs.remove_attempts(folder)
    jobs.remove_segments(folder)
    place = catalogue.failed_folder(home, folder.name)
    _make_room(home, room_for(folder, bound_bytes, True))
    _write_reason(folder, reason)
    os.utime(folder)  # so that the oldest folder is the one that was moved first
    fail_point("encoder.keep.before")
    folder.replace(place)
    fail_point("encoder.keep.after")
    sync_folder(place.parent)


def keep_nothing(home: Path, folder: Path, bound_bytes: int, reason: str) -> None:
    """Remove a recording's folder; only the reason is kept, and stands before the folder is gone."""
    place = catalogue.failed_folder(home, folder.name)
    _make_room(home, room_for(folder, bound_bytes, False))
    place.mkdir(exist_ok=True)
    fail_point("encoder.keep.folder_made")
    _write_reason(place, reason)
    jobs.remove(home, folder)


def _make_room(home: Path, room_bytes: int) -> None:
    (home / "failed").mkdir(exist_ok=True)
    for folder, _ in displaced(home, room_bytes):
        shutil.rmtree(folder)
        fail_point("encoder.keep.made_room")


def _write_reason(folder: Path, reason: str) -> None:
    with suppress(OSError):  # a full disk, say; it stands in the log, too
        clear_up(folder, catalogue.FAILURE)
        write_whole(folder / catalogue.FAILURE, reason.encode(), lasting=False)
        fail_point("encoder.keep.reason")


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.chunk"))
