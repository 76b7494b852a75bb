"""The catalogue: one JSON file a video in `home/recordings`, from before `VideoAvailable` until it is pruned.

It tells without the log how a recording ended. When its folder is gone from the spool, its end is on disk in the log:
there is a video (`read`), or it failed (`failure_of`), or else it was discarded, or pruned since.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel import files
from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.fail_points import fail_point
from kernel.files import is_folder, is_name, open_regular, read_regular, sync_folder
from plugins.events import Keep, VideoAvailable

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    training_step: int | None = None
    """The training's own count of steps when the recording began, where a script told it."""
    max_videos: int = 0
    """Of its environment's videos, the newest so many stay; 0: all."""


def folder(home: Path) -> Path:
    """Where the entries of a home are."""
    return home / "recordings"


def write(home: Path, entry: Entry) -> None:
    """Write or replace an entry; it is on disk when this returns."""
    folder(home).mkdir(parents=True, exist_ok=True)
    fail_point("catalogue.write.before")
    write_checked(_file(home, entry.recording), entry, lasting=True, pretty=True)
    fail_point("catalogue.write.after")


def read(home: Path, recording: str) -> Entry | None:
    """The entry of a recording; None where there is none, or none that can be read."""
    try:
        return read_or_refuse(home, recording)
    except NotAsWritten:
        return None


def read_or_refuse(home: Path, recording: str) -> Entry | None:
    """The entry of a recording; None where there is none. Raises `NotAsWritten` for one that is damaged."""
    if not is_name(recording) or not is_folder(folder(home)):
        return None
    file = _file(home, recording)
    entry = read_checked(file, Entry)
    if entry is not None and entry.recording != recording:
        raise NotAsWritten(f"{file}: is the entry of another recording")
    return entry


def read_all(home: Path) -> Iterator[Entry]:
    """All entries that can be read, the oldest recording's first."""
    for recording in recordings(home):
        entry = read(home, recording)
        if entry is not None:
            yield entry


def recordings(home: Path) -> list[str]:
    """The recordings that have an entry, whether it can be read or not."""
    return sorted(file.stem for file in folder(home).glob("*.json"))


def remove(home: Path, recording: str) -> None:
    """Remove an entry, and the thumbnail with it; it is gone for good when this returns."""
    if is_name(recording) and is_folder(folder(home)):
        fail_point("catalogue.remove.before")
        thumbnail_of(home, recording).unlink(missing_ok=True)
        fail_point("catalogue.remove.thumbnail")
        _file(home, recording).unlink(missing_ok=True)
        fail_point("catalogue.remove.after")
        sync_folder(folder(home))


def thumbnail_of(home: Path, recording: str) -> Path:
    """Where a recording's thumbnail is."""
    return folder(home) / f"{recording}.jpg"


def is_inside(home: Path, file: Path) -> bool:
    """Whether a file is in the home, by whatever links its path may lead."""
    return Path(os.path.realpath(file.parent)).is_relative_to(os.path.realpath(home))


def clear_up(home: Path) -> None:
    """Remove what killed kernels left of entries that they were writing. Only for the kernel that has the home."""
    files.clear_up(folder(home))


def identify(file: Path) -> FileIdentity:
    """The identity of a file as it is now. Raises `FileNotFoundError` where it is gone."""
    status = file.stat(follow_symlinks=False)
    return FileIdentity(size_bytes=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)


def holds(file: Path, sha256: str) -> bool:
    """Whether this is a file with this content."""
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == sha256  # type: ignore[arg-type]  # a file has readinto, which BinaryIO does not say
    except OSError:
        return False


def announcement(entry: Entry) -> VideoAvailable:
    """What is said of a video that stands and is catalogued."""
    return VideoAvailable(
        recording=entry.recording,
        session=entry.session,
        worker=entry.worker,
        first_episode=entry.first_episode,
        last_episode=entry.last_episode,
        path=entry.path,
        sha256=entry.sha256,
        size_bytes=entry.identity.size_bytes,
        frames=entry.frames,
        fps=entry.fps,
        width=entry.width,
        height=entry.height,
        codec=entry.codec,
        seconds=entry.seconds,
        thumbnail=entry.thumbnail,
        kept_for=entry.kept_for,
        complete=entry.complete,
        incomplete_because=entry.incomplete_because,
        total_reward=entry.total_reward,
        training_step=entry.training_step,
    )


def unfinished(home: Path) -> frozenset[str]:
    """Recordings whose frames are still in the spool: their videos may not have been announced yet."""
    return frozenset(folder.name for folder in (home / "spool").glob("[!.]*/*/"))


FAILURE = "failure.txt"
"""The file that says why a recording could not be encoded."""


def failed_folder(home: Path, recording: str) -> Path:
    """Where the reason, and as a rule the frames, of a recording are kept that could not be encoded."""
    return home / "failed" / recording


def failure_of(home: Path, recording: str) -> str | None:
    """Why a recording could not be encoded, where the disk took that; None where it is not known to have failed."""
    folder = failed_folder(home, recording)
    if not is_name(recording) or not is_folder(folder):
        return None
    try:
        return read_regular(folder / FAILURE).decode(errors="replace")
    except OSError:
        return ""


def _file(home: Path, recording: str) -> Path:
    return folder(home) / f"{recording}.json"
