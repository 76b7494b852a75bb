"""Handing over: a finished file becomes the video in its place, with its entry in the catalogue."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.fail_points import fail_point
from kernel.files import is_name, sync_folder
from plugins import catalogue
from plugins.recorder.spool import made_here
from plugins.video.mp4 import Video

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from plugins.encoder_pool.names import Names
    from plugins.events import RecordingSealed
    from plugins.recorder.spool import RecordingPlan


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A checked video and its thumbnail that wait, on disk, in the recording's folder in the spool."""

    video: Video
    file: Path
    sha256: str
    thumbnail: Path | None
    beside: Path | None = None
    """The video once more, under a hidden name beside its place, where that is on another file system."""


def target_of(home: Path, folder: Path, plan: RecordingPlan, sealed: RecordingSealed | None) -> Path:
    """Where the recording's video is to be, as far as that is known."""
    try:
        settled = read_checked(folder / "target", Target)
    except NotAsWritten:
        settled = None
    if settled is not None:
        return _allowed(home, folder, plan, settled.path)
    return _allowed(home, folder, plan, (sealed.path if sealed is not None else "") or plan.path)


class Target(msgspec.Struct, frozen=True):
    """What the file `target` in a recording's folder says: where its video is to be after all."""

    path: str


def _allowed(home: Path, folder: Path, plan: RecordingPlan, path: str) -> Path:
    """The place itself where this producer may choose it; else one in the home's `videos`.

    Outside of the home, only a producer that ran here decides: its user chose the folder. A home that came from
    somebody else names places that may be anything to this user.
    """
    target = home / path
    if target.suffix == ".mp4" and (catalogue.is_inside(home, target) or made_here(folder.parent)):
        return target
    name = target.name if target.suffix == ".mp4" and is_name(target.name) else f"{plan.recording}.mp4"
    return home / "videos" / (plan.session if is_name(plan.session) else plan.recording) / name


def settle_target(  # noqa: PLR0917 - a thread is given them by place
    names: Names, home: Path, folder: Path, plan: RecordingPlan, sealed: RecordingSealed, pinned: Collection[str]
) -> Path:
    """Like `target_of`, but where a pinned video is in the way, choose a free name, and remember it after a kill.

    Of the recordings in `pinned` the catalogue may not know it yet.
    """
    target = wanted = target_of(home, folder, plan, sealed)
    number = 2
    while target.exists() and (
        target != wanted
        or any(each.pinned or each.recording in pinned for each in displaced(names, target, plan.recording))
    ):
        target = wanted.with_stem(f"{wanted.stem}-{number}")
        number += 1
    if target != wanted:
        fail_point("encoder.target.before")
        write_checked(folder / "target", Target(str(target)), lasting=False)
        fail_point("encoder.target.after")
    return target


def displaced(names: Names, target: Path, recording: str) -> list[catalogue.Entry]:
    """The entries of other recordings whose video has this place, or had it until a user removed the file."""
    return [entry for entry in names.at(target) if entry.recording != recording]


def bring_near(made: Made, target: Path, recording: str) -> Made:
    """See to it that one rename puts the video into its place.

    Its folder is made (again): a user may have removed it. Onto another file system the video is copied here.
    """
    _make_folder(target.parent)
    if not os.access(target.parent, os.W_OK | os.X_OK):  # said before another video gives way
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(target.parent))
    if made.file.stat().st_dev == target.parent.stat().st_dev:
        return made
    return msgspec.structs.replace(made, beside=_copy_beside(made.file, target, recording))


def place(
    home: Path, target: Path, made: Made, plan: RecordingPlan, sealed: RecordingSealed, *, available: float
) -> catalogue.Entry:
    """Rename the video to its target and write its catalogue entry; both are on disk when this returns."""
    thumbnail = None
    if made.thumbnail is not None:
        thumbnail = catalogue.thumbnail_of(home, plan.recording)
        fail_point("encoder.place.before")
        _rename(made.thumbnail, thumbnail, plan.recording)
        fail_point("encoder.place.thumbnail")
    _rename(made.beside or made.file, target, plan.recording)
    fail_point("encoder.place.video")
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
        available=available,
        training_step=sealed.training_step,
        max_videos=plan.max_videos,
    )
    catalogue.write(home, entry)
    return entry


def stands(home: Path, entry: catalogue.Entry) -> bool:
    """Whether the video is there, as it was catalogued."""
    return catalogue.holds(home / entry.path, entry.sha256)


def make_last(home: Path, entry: catalogue.Entry) -> None:
    """Put a video and its entry on disk that an earlier life has placed, and may have been killed before it did so."""
    for file in (home / entry.path, catalogue.folder(home) / f"{entry.recording}.json"):
        sync_file(file)
        sync_folder(file.parent)


def withdraw(home: Path, entry: catalogue.Entry) -> None:
    """Remove an entry and its thumbnail; the video is replaced, or gone."""
    catalogue.remove(home, entry.recording)


def size_of(home: Path, entry: catalogue.Entry) -> int:
    """Bytes of the video that was catalogued; 0 where it is gone, or is another file by now."""
    try:
        return entry.identity.size_bytes if catalogue.identify(home / entry.path) == entry.identity else 0
    except FileNotFoundError:
        return 0


def discard(made: Made) -> None:
    """Remove what was made and not placed."""
    for file in (made.file, made.beside, made.thumbnail):
        if file is not None:
            file.unlink(missing_ok=True)


def remove_hidden(home: Path, folder: Path, plan: RecordingPlan, sealed: RecordingSealed | None) -> None:
    """Remove what a kill left of earlier attempts beside the places of a recording's video, thumbnail and entry."""
    for parent in (target_of(home, folder, plan, sealed).parent, catalogue.folder(home)):
        for file in parent.glob(f".{glob.escape(plan.recording)}.*"):
            file.unlink(missing_ok=True)
            fail_point("encoder.hidden.removed")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _rename(file: Path, target: Path, recording: str) -> None:
    """Rename a file that is on disk; its new name is on disk when this returns."""
    _make_folder(target.parent)
    try:
        file.replace(target)
        fail_point("encoder.rename.after")
    except OSError as error:
        if error.errno != errno.EXDEV:  # as mounted folders of one file system say it, too
            raise
        _copy_beside(file, target, recording).replace(target)
    sync_folder(target.parent)
    fail_point("encoder.rename.synced")


def _copy_beside(file: Path, target: Path, recording: str) -> Path:
    """Copy a file to a hidden name in the target's folder; the copy is on disk when this returns."""
    beside = target.with_name(f".{recording}.{secrets.token_hex(6)}.tmp")
    try:
        shutil.copyfile(file, beside)
        fail_point("encoder.copy.written")
        sync_file(beside)
        fail_point("encoder.copy.synced")
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def sync_file(file: Path) -> None:
    """Return when the file's content is on disk."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, to last."""
    for missing in reversed(list(_missing(folder))):
        missing.mkdir(exist_ok=True)
        fail_point("encoder.place.folder_made")
        sync_folder(missing.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(folder))


def _missing(folder: Path) -> Iterator[Path]:
    while not folder.exists():
        yield folder
        folder = folder.parent


def _spoken(home: Path, file: Path) -> str:
    """A path as events and the catalogue say it: relative to the home where it is inside."""
    return (file.relative_to(home) if file.is_relative_to(home) else file).as_posix()
