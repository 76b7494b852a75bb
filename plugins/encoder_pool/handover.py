"""Handing over: a finished file becomes the video in its place, with its entry in the catalogue."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.files import sync_folder, write_whole
from plugins import catalogue
from plugins.encoder_pool.ffmpeg import Video
from plugins.events import RecordingSealed, VideoAvailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.recorder.spool import RecordingPlan


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A checked video that waits, on disk, beside the place where it belongs."""

    video: Video
    file: Path
    sha256: str
    thumbnail: Path | None


def target_of(home: Path, folder: Path, plan: RecordingPlan) -> Path:
    """Where the recording's video is to be."""
    try:
        return home / (folder / "target").read_text()
    except FileNotFoundError:
        return home / plan.path


def settle_target(home: Path, folder: Path, plan: RecordingPlan) -> Path:
    """Like `target_of`, but where a pinned video is in the way, choose a free name, and remember it after a kill."""
    target = wanted = target_of(home, folder, plan)
    number = 2
    while any(entry.pinned for entry in displaced(home, target, plan.recording)) or (
        target != wanted and target.exists()
    ):
        target = wanted.with_stem(f"{wanted.stem}-{number}")
        number += 1
    if target != wanted:
        write_whole(folder / "target", str(target).encode(), lasting=False)
    return target


def displaced(home: Path, target: Path, recording: str) -> list[catalogue.Entry]:
    """The entries of other recordings whose video has this place."""
    if not target.exists():
        return []
    return [each for each in catalogue.read_all(home) if home / each.path == target and each.recording != recording]


def bring_beside(file: Path, target: Path, recording: str) -> Path:
    """Move a file, over file systems if need be, to a hidden name in the target's folder; on disk when this returns."""
    _make_folder(target.parent)
    beside = target.with_name(f".{recording}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            file.replace(beside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(file, beside)
        descriptor = os.open(beside, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def place(home: Path, target: Path, made: Made, plan: RecordingPlan, sealed: RecordingSealed) -> catalogue.Entry:
    """Rename the video to its target and write its catalogue entry; both are on disk when this returns."""
    thumbnail = None
    if made.thumbnail is not None:
        thumbnail = thumbnail_of(home, plan.recording)
        made.thumbnail.replace(thumbnail)
    made.file.replace(target)
    sync_folder(target.parent)
    entry = catalogue.Entry(
        recording=plan.recording,
        session=sealed.session,
        worker=sealed.worker,
        first_episode=sealed.first_episode,
        last_episode=sealed.last_episode,
        env_id=plan.env_id,
        path=_spoken(home, target),
        identity=catalogue.identify(target),
        sha256=made.sha256,
        frames=made.video.frames,
        fps=plan.fps,
        width=made.video.width,
        height=made.video.height,
        codec=made.video.codec,
        seconds=made.video.frames / plan.fps,
        thumbnail=None if thumbnail is None else _spoken(home, thumbnail),
        complete=sealed.complete,
        incomplete_because=sealed.incomplete_because,
        total_reward=sealed.total_reward,
        kept_for=sealed.kept_for,
        keep=plan.keep,
        started=plan.started,
        available=time.time(),
    )
    catalogue.write(home, entry)
    return entry


def thumbnail_of(home: Path, recording: str) -> Path:
    """Where a recording's thumbnail is."""
    return catalogue.folder(home) / f"{recording}.jpg"


def stands(home: Path, entry: catalogue.Entry) -> bool:
    """Whether the video is there, as it was catalogued."""
    try:
        return sha256_of(home / entry.path) == entry.sha256
    except OSError:
        return False


def withdraw(home: Path, entry: catalogue.Entry) -> None:
    """Remove an entry and its thumbnail; the video is replaced, or gone."""
    if entry.thumbnail is not None:
        (home / entry.thumbnail).unlink(missing_ok=True)
    catalogue.remove(home, entry.recording)


def announcement(entry: catalogue.Entry) -> VideoAvailable:
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
    )


def size_of(home: Path, entry: catalogue.Entry) -> int:
    """Bytes of the video that was catalogued; 0 where it is gone, or is another file by now."""
    try:
        return entry.identity.size_bytes if catalogue.identify(home / entry.path) == entry.identity else 0
    except FileNotFoundError:
        return 0


def discard(made: Made) -> None:
    """Remove what was made and not placed."""
    for file in (made.file, made.thumbnail):
        if file is not None:
            file.unlink(missing_ok=True)


def remove_hidden(home: Path, folder: Path, plan: RecordingPlan) -> None:
    """Remove what a kill left of earlier attempts beside the places of a recording's video, thumbnail and entry."""
    for parent in (target_of(home, folder, plan).parent, catalogue.folder(home)):
        for file in parent.glob(f".{plan.recording}.*"):
            file.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, to last."""
    for missing in reversed(list(_missing(folder))):
        missing.mkdir(exist_ok=True)
        sync_folder(missing.parent)


def _missing(folder: Path) -> Iterator[Path]:
    while not folder.exists():
        yield folder
        folder = folder.parent


def _spoken(home: Path, file: Path) -> str:
    """A path as events and the catalogue say it: relative to the home where it is inside."""
    return (file.relative_to(home) if file.is_relative_to(home) else file).as_posix()
