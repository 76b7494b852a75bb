"""The catalogue: one JSON file a video in `home/recordings`, from before `VideoAvailable` until it is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kernel.files import sync_folder, write_whole
from plugins.events import Keep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FileIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What tells a video file from another that took its name."""

    size_bytes: int
    modified_ns: int
    inode: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one video that its pruning, listing or re-reading needs, without the log or the database."""

    recording: str
    session: str
    worker: int
    first_episode: int
    last_episode: int
    env_id: str
    path: str
    """Relative to the home, or absolute where the user chose a folder outside it."""
    identity: FileIdentity
    sha256: str
    frames: int
    fps: float
    width: int
    height: int
    codec: str
    seconds: float
    thumbnail: str | None
    """Relative to the home."""
    complete: bool
    incomplete_because: str
    total_reward: float | None
    kept_for: list[str]
    keep: Keep
    """The policy that `kept_for` came from."""
    started: float
    """When the recording began: Unix time in seconds."""
    available: float
    """When the video was complete: Unix time in seconds."""
    pinned: bool = False
    pinned_by: str = ""


def folder(home: Path) -> Path:
    """Where the entries of a home are."""
    return home / "recordings"


def write(home: Path, entry: Entry) -> None:
    """Write or replace an entry; it is on disk when this returns."""
    folder(home).mkdir(parents=True, exist_ok=True)
    write_whole(_file(home, entry.recording), msgspec.json.format(msgspec.json.encode(entry)), lasting=True)


def read(home: Path, recording: str) -> Entry | None:
    """The entry of a recording; None where there is none, or none that can be read."""
    try:
        return _decode(_file(home, recording).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def read_all(home: Path) -> Iterator[Entry]:
    """All entries, the oldest recording's first."""
    for file in sorted(folder(home).glob("*.json")):
        entry = read(home, file.stem)
        if entry is not None:
            yield entry


def remove(home: Path, recording: str) -> None:
    """Remove an entry; it is gone for good when this returns."""
    _file(home, recording).unlink(missing_ok=True)
    sync_folder(folder(home))


def identify(file: Path) -> FileIdentity:
    """The identity of a file as it is now. Raises `FileNotFoundError` where it is gone."""
    status = file.stat(follow_symlinks=False)
    return FileIdentity(size_bytes=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)


def _file(home: Path, recording: str) -> Path:
    return folder(home) / f"{recording}.json"


_decode = msgspec.json.Decoder(Entry).decode
