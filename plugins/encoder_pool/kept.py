"""Kept frames: the chunks of recordings that could not be encoded, in `home/failed`, within a bound."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from kernel.files import sync_folder
from plugins.encoder_pool import jobs

if TYPE_CHECKING:
    from pathlib import Path


def place_for(home: Path, folder: Path, bound_bytes: int) -> str | None:
    """Where `keep` will put a recording's chunks, relative to the home; None where they do not fit into the bound."""
    size = _size_of(folder)
    if size == 0 or size > bound_bytes:
        return None
    return _kept(home, folder).relative_to(home).as_posix()


def keep(home: Path, folder: Path, bound_bytes: int) -> None:
    """Move a recording's folder to `home/failed`. The folders that were moved there first make room."""
    jobs.remove_attempts(folder)
    jobs.remove_segments(folder)
    place = _kept(home, folder)
    place.parent.mkdir(exist_ok=True)
    others = sorted(place.parent.iterdir(), key=lambda each: each.stat().st_mtime_ns)
    sizes = {each: _size_of(each) for each in others}
    room = bound_bytes - _size_of(folder)
    while others and sum(sizes[each] for each in others) > room:
        shutil.rmtree(others.pop(0))
    os.utime(folder)  # so that the oldest folder is the one that was moved first
    folder.replace(place)
    sync_folder(place.parent)


def _kept(home: Path, folder: Path) -> Path:
    return home / "failed" / folder.name


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.chunk"))
