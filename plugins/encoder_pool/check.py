"""The encoder pool's part of `check-home`: each sealed recording has its end, and each video stands as announced."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.checks import Finding, leftovers, removal, trimmed, waiting
from kernel.log import read
from kernel.plugin import Refused
from plugins import catalogue
from plugins.encoder_pool import handover, jobs
from plugins.events import (
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    VideoAvailable,
    VideoFailed,
    VideoPruned,
)
from plugins.video import ffmpeg
from plugins.video.feed import Child, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kernel.event import Event
    from kernel.log import Log
    from plugins.catalogue import Entry

STALL_SECONDS = 60.0
_REPORT = "Nothing mends that; please report it."


class Told:
    """What the log says of recordings and videos."""

    def __init__(self, home: Path) -> None:
        self.started: dict[str, RecordingStarted] = {}
        self.sealed: dict[str, RecordingSealed] = {}
        self.ends: defaultdict[str, list[VideoAvailable | VideoFailed | RecordingDiscarded]] = defaultdict(list)
        self.pruned: set[str] = set()
        kinds = (RecordingStarted, RecordingSealed, VideoAvailable, VideoFailed, RecordingDiscarded, VideoPruned)
        for record in read(home, *kinds):
            if not jobs.is_id(getattr(record.event, "recording", "")):  # anybody's program may have said so
                continue
            match record.event:
                case RecordingStarted() as event:
                    self.started[event.recording] = event
                case RecordingSealed() as event:
                    self.sealed[event.recording] = event
                case VideoPruned() as event:
                    self.pruned.add(event.recording)
                case VideoAvailable() | VideoFailed() | RecordingDiscarded() as event:
                    self.ends[event.recording].append(event)

    def standing(self) -> dict[str, VideoAvailable]:
        """The videos that should be there."""
        said = ((name, end) for name, ends in self.ends.items() for end in ends)
        return {name: end for name, end in said if isinstance(end, VideoAvailable) and name not in self.pruned}


def check(home: Path, live: bool) -> Iterator[Finding]:  # noqa: FBT001 - as all checks have it
    """Look at recordings in the log and in the spool, at videos, their entries and thumbnails, and at `failed`."""
    told = Told(home)
    entries = {entry.recording: entry for entry in catalogue.read_all(home) if jobs.is_id(entry.recording)}
    yield from _check_ends(home, told)
    yield from _check_spool(home, told, live=live)
    for recording, video in told.standing().items():
        yield from _check_video(home, video, entries.get(recording))
    yield from _check_catalogue(home, told, entries, live=live)
    yield from _check_strays(home, told, entries, live=live)
    yield from _check_failed(home, told)


# Recordings ------------------------------------------------------------------------------------------------------


def _check_ends(home: Path, told: Told) -> Iterator[Finding]:
    for recording, ends in told.ends.items():
        if len(ends) > 1:
            wrong = f"has more than one end: {', '.join(type(end).__name__ for end in ends)}"
            yield Finding(f"recording {recording}", wrong, _REPORT)
    for recording, sealed in told.sealed.items():
        if recording in told.ends:
            continue
        folder = jobs.folder_of(home, recording)
        if folder.exists():
            yield waiting(str(folder), "is to become a video")
        else:
            wrong = "was sealed and has neither a video, nor a failure, nor frames in the spool"
            remedy = "Its frames are gone; --repair says so in the log."
            reason = f"{folder} is gone"
            failed = VideoFailed(recording=recording, session=sealed.session, attempts=0, reason=reason)
            yield Finding(f"recording {recording}", wrong, remedy, saying(failed))
    for recording, started in told.started.items():
        if recording not in told.sealed and recording not in told.ends:
            producer = jobs.folder_of(home, recording).parent
            if not producer.exists():
                lost = RecordingDiscarded(recording=recording, session=started.session, why="its frames are gone")
                wrong = "has begun and was never sealed, and its producer's folder is gone"
                remedy = "Its frames are gone; --repair says so in the log."
                yield Finding(f"recording {recording}", wrong, remedy, saying(lost))


def saying(event: Event) -> Callable[[Log], str]:
    """The repair that says an event in the log."""

    def say(log: Log) -> str:
        log.append("check-home", log.last_nth("check-home") + 1, [event])
        return f"the log says {type(event).__name__}"

    return say


def _check_spool(home: Path, told: Told, *, live: bool) -> Iterator[Finding]:
    if live:
        return
    for folder in sorted((home / "spool").glob(".*.leaving")):
        yield waiting(str(folder), "was being removed")
    for folder in jobs.find(home):
        if folder.name in told.ends:
            yield waiting(str(folder), "is of a recording whose end is in the log")
        elif folder.name in told.sealed and jobs.read_plan(folder) is None:
            yield waiting(str(folder / "recording.json"), "is damaged, so that its frames cannot become a video")
        for file in sorted(folder.glob("attempt-*")):
            yield waiting(str(file), "was left by an encoder that was killed")


# Videos ----------------------------------------------------------------------------------------------------------


def _check_video(home: Path, video: VideoAvailable, entry: Entry | None) -> Iterator[Finding]:
    file = home / video.path
    if entry is None:
        wrong = f"the video {video.path} was announced and has no readable entry in the catalogue"
        yield Finding(str(catalogue.folder(home) / f"{video.recording}.json"), wrong, "Restore it from a backup.")
    elif catalogue.announcement(entry) != video:
        wrong = "says something else than what was announced"
        yield Finding(str(catalogue.folder(home) / f"{video.recording}.json"), wrong, "Restore it from a backup.")
    if video.thumbnail is not None and not (home / video.thumbnail).is_file():
        yield Finding(str(home / video.thumbnail), "is gone, a thumbnail", "Restore it, if you need it.")
    if not file.is_file():
        yield _gone(home, file, video, entry)
        return
    size_bytes = file.stat().st_size
    if size_bytes != video.size_bytes or handover.sha256_of(file) != video.sha256:
        wrong = f"is not what was announced: {size_bytes} bytes where there were {video.size_bytes}"
        if size_bytes == video.size_bytes:
            wrong = "is not what was announced: its SHA-256 is another"
        yield Finding(
            str(file), wrong, f"Restore it from a backup, or remove it: {_DELETE.format(home, video.recording)}"
        )
        return
    if entry is not None and catalogue.identify(file) != entry.identity:
        remedy = "The pruner will not remove it, as it is taken for a file of yours. --repair notes that it is the one."
        yield Finding(str(file), "has been copied or moved since it was made", remedy, _identified(home, file, entry))
    yield from _check_frames(file, video)


_DELETE = "`python -m kernel emit {} VideoDeleteAsked recording={}`."


def _gone(home: Path, file: Path, video: VideoAvailable, entry: Entry | None) -> Finding:
    if Path(video.path).is_absolute():
        return Finding(str(file), "is gone, a video", "Mount its disk, or restore it from a backup.")
    if entry is not None and entry.pinned:
        return Finding(str(file), "is gone, a pinned video", "Restore it from a backup, or unpin it and repair again.")

    def say(log: Log) -> str:
        pruned = VideoPruned(
            recording=video.recording,
            session=video.session,
            path=video.path,
            size_bytes=0,
            policy="gone",
            reason="check-home found it gone",
        )
        saying(pruned)(log)
        log.sync()
        if entry is not None:
            handover.withdraw(home, entry)
        return "the log says that it is gone"

    return Finding(
        str(file), "is gone, a video", "Restore it from a backup; or --repair says in the log that it is.", say
    )


def _identified(home: Path, file: Path, entry: Entry) -> Callable[[Log], str]:
    def write(_log: Log) -> str:
        catalogue.write(home, msgspec.structs.replace(entry, identity=catalogue.identify(file)))
        return "its entry has its identity"

    return write


def _check_frames(file: Path, video: VideoAvailable) -> Iterator[Finding]:
    try:
        executable = ffmpeg.find()
    except Refused as refused:
        yield Finding(str(file), "could not be decoded", str(refused))
        return
    try:
        child, name = Child(), f"./{file.name}"
        frames = ffmpeg.count_decoded(child, executable, file.parent, name, stall_seconds=STALL_SECONDS)
    except Failed as failure:
        yield Finding(str(file), f"cannot be decoded: {failure}", "Please report it: it is as it was made.")
        return
    if frames != video.frames:
        wrong = f"shows {frames} frames where {video.frames} were announced"
        yield Finding(str(file), wrong, "Please report it: it is as it was made.")


# Files -----------------------------------------------------------------------------------------------------------


def _check_catalogue(home: Path, told: Told, entries: dict[str, Entry], *, live: bool) -> Iterator[Finding]:
    folder = catalogue.folder(home)
    for file in sorted(folder.glob("*.json")):
        recording = file.stem
        if recording not in entries and recording not in told.standing():
            yield Finding(str(file), "is no readable entry, and of no video", "Remove it.", removal(file))
    for recording, entry in entries.items():
        if recording in told.standing() or jobs.folder_of(home, recording).exists():
            continue
        if recording in told.pruned:
            yield Finding(
                str(folder / f"{recording}.json"),
                "is of a video that was removed",
                "Remove it.",
                _withdrawn(home, entry),
            )
        elif not trimmed(home):
            wrong = "is of a video that was never announced"
            yield Finding(str(folder / f"{recording}.json"), wrong, _REPORT)
    for file in sorted(folder.glob("*.jpg")):
        if (
            jobs.is_id(file.stem)
            and file.stem not in entries
            and not jobs.folder_of(home, file.stem).exists()
            and file.stem not in told.standing()
        ):
            yield Finding(str(file), "is a thumbnail of no video", "Remove it.", removal(file))
    if not live:
        yield from leftovers(folder)


def _withdrawn(home: Path, entry: Entry) -> Callable[[Log], str]:
    def withdraw(_log: Log) -> str:
        handover.withdraw(home, entry)
        return "it was removed"

    return withdraw


def _check_strays(home: Path, told: Told, entries: dict[str, Entry], *, live: bool) -> Iterator[Finding]:
    """Videos that nobody knows, in the home's own folder; half files also where users have their videos."""
    paths = [video.path for video in told.standing().values()] + [entry.path for entry in entries.values()]
    known = {home / path for path in paths}
    for folder in jobs.find(home):
        plan = jobs.read_plan(folder)
        if plan is not None:
            known.add(handover.target_of(home, folder, plan, told.sealed.get(folder.name)))
    folders = {file.parent for file in known} | {folder for folder in (home / "videos").glob("**/") if folder.is_dir()}
    for folder in sorted(folders):
        for file in sorted(folder.glob(".*.tmp")) if not live else ():
            recording = file.name[1:].split(".")[0]
            if recording in told.sealed or recording in told.started:
                yield Finding(str(file), "is half a video that a kill left", "Remove it.", removal(file))
    for file in sorted((home / "videos").glob("**/*")):
        if file.is_file() and file not in known and not file.name.endswith(".tmp"):
            yield Finding(str(file), "is in the folder of videos and none of them", "Move it elsewhere.")


def _check_failed(home: Path, told: Told) -> Iterator[Finding]:
    for folder in sorted((home / "failed").glob("*/")):
        yield from leftovers(folder)
        if not jobs.is_id(folder.name) or jobs.folder_of(home, folder.name).exists() or trimmed(home):
            continue
        if not any(isinstance(end, VideoFailed) for end in told.ends.get(folder.name, ())):
            wrong = "is kept for a recording that has not failed"
            yield Finding(str(folder), wrong, "Look into it, and remove it.")
