"""Jobs: what a recording's folder in the spool holds, and which work follows from it."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.fail_points import fail_point
from kernel.files import is_folder, is_name
from plugins.recorder.frames import CHUNK_FRAMES
from plugins.recorder.spool import RecordingPlan
from plugins.video.ffmpeg import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import anyio

    from plugins.catalogue import Entry
    from plugins.events import RecordingSealed, VideoAvailable, VideoFailed


@dataclass(eq=False)
class Recording:
    """What the pool knows of one recording: on the disk, from the log, and what is being done about it."""

    folder: Path
    plan: RecordingPlan
    frames: dict[int, int] = field(default_factory=dict)
    """Frames of each sealed chunk, by its index."""
    standing: set[int] = field(default_factory=set)
    """Chunks whose segment stands."""
    sealed: RecordingSealed | None = None
    entry: Entry | None = None
    """The catalogue's entry of a video that an earlier life placed, and had no time to announce."""
    failure: Failure | None = None
    """Why it is given up; said when nothing is written into its folder any more, which its seal tells."""
    encoding: Encoding | None = None
    attempts: Counter[int | None] = field(default_factory=Counter)
    """Failed attempts at each chunk, and at finishing."""
    refusals: Counter[int | None] = field(default_factory=Counter)
    """How often a full disk refused each chunk, and the finishing."""
    begun: set[int] = field(default_factory=set)
    """Chunks whose jobs were handed out and have not ended."""
    finishing: bool = False
    """Whether the last job was handed out."""
    end: VideoAvailable | VideoFailed | None = None
    """Said."""
    scopes: set[anyio.CancelScope] = field(default_factory=set)
    """Of its jobs that run."""

    def seal(self, sealed: RecordingSealed | None) -> None:
        """Take the recording's end in, where it has one."""
        self.sealed = sealed
        if sealed is not None and sealed.chunks > MOST_CHUNKS:
            self.failure = Failure(f"its seal speaks of {sealed.chunks} chunks, and {MOST_CHUNKS} are the most", 0)

    def due(self) -> Iterator[Job]:
        """The jobs that can be begun now; each is handed out once."""
        sealed = self.sealed
        if self.finishing or (sealed is None and (self.failure or self.plan.wait_for_seal)):
            return
        if sealed is not None and (self.failure or self.entry or sealed.chunks <= 1 or self._all_stand(sealed)):
            # A recording of one chunk needs no segment, unless that chunk is at work as one already.
            if not self.begun:
                self.finishing = True
                yield Job(self, None, 0 if self.failure or self.entry or self.standing else sealed.frames)
            return
        if sealed is not None:
            ready = list(range(sealed.chunks))
        else:
            # A short chunk is a recording's last: its seal is about to follow, and may say that it is the only one.
            ready = sorted(chunk for chunk, frames in self.frames.items() if frames >= CHUNK_FRAMES)
        for chunk in ready:
            if chunk not in self.begun | self.standing:
                self.begun.add(chunk)
                yield Job(self, chunk, self.frames.get(chunk, CHUNK_FRAMES))

    def call_off(self, running: set[int | None]) -> None:
        """Cancel what runs, which are the jobs of these chunks; the others will not begin."""
        self.begun &= running
        for scope in self.scopes:
            scope.cancel()

    def _all_stand(self, sealed: RecordingSealed) -> bool:
        return self.standing.issuperset(range(sealed.chunks))


@dataclass(frozen=True)
class Failure:
    """Why a recording is given up, and after how many attempts."""

    reason: str
    attempts: int


@dataclass(eq=False, frozen=True)
class Job:
    """One piece of work: a chunk to encode, or a recording to finish."""

    recording: Recording
    chunk: int | None
    """None: make the video of what there is, and put it into its place."""
    frames: int
    """Frames to encode."""

    def __lt__(self, other: Job) -> bool:
        return self._place() < other._place()

    def _place(self) -> tuple[float, str, float]:
        """The oldest recording first, its chunks in order."""
        plan = self.recording.plan
        return plan.started, plan.recording, -1 if self.chunk is None else self.chunk


# On the disk -----------------------------------------------------------------------------------------------------


def folder_of(home: Path, recording: str) -> Path:
    """Where a recording's frames are: its id is the producer's, and four digits. Raises `ValueError` for no such id."""
    if not is_id(recording):
        raise ValueError(f"{recording!r} is no recording's name")
    return home / "spool" / recording.rpartition("-")[0] / recording


def is_id(recording: str) -> bool:
    """Whether a recording can be called so: a producer may be anybody's program, and what it says may be a path."""
    return is_name(recording) and is_name(recording.rpartition("-")[0])


def find(home: Path) -> list[Path]:
    """The folders of all recordings in the spool, also of those whose plan is not there (yet, or any more)."""
    return [folder for folder in sorted((home / "spool").glob("[!.]*/*/")) if is_own(folder)]


def is_own(folder: Path) -> bool:
    """Whether it is a recording's folder in its producer's, and no link leads out of the spool there."""
    return is_name(folder.name) and is_name(folder.parent.name) and is_folder(folder.parent) and is_folder(folder)


def read_plan(folder: Path) -> RecordingPlan | None:
    """What a recording is to be; None where its folder does not say so any more."""
    if not is_own(folder):
        return None
    try:
        plan = read_checked(folder / "recording.json", RecordingPlan)
    except NotAsWritten:
        return None
    return plan if plan is not None and plan.recording == folder.name else None


MOST_CHUNKS = 100_000
"""Their files' names have five digits."""


def chunk_in(folder: Path, chunk: int) -> Path:
    """The frames of a chunk."""
    return folder / f"{chunk:05}.chunk"


def segment_in(folder: Path, chunk: int) -> Path:
    """The encoded chunk; it stands whole or not at all."""
    return folder / f"{chunk:05}.mp4"


def standing_in(folder: Path) -> set[int]:
    """The chunks whose segments stand."""
    return {int(file.stem) for file in folder.glob("[0-9][0-9][0-9][0-9][0-9].mp4")}


def remove_segments(folder: Path) -> None:
    """Have every chunk encoded anew."""
    for chunk in standing_in(folder):
        segment_in(folder, chunk).unlink(missing_ok=True)
        fail_point("encoder.segment.removed")


def attempt_in(folder: Path, name: str) -> Path:
    """A temporary name that no other attempt has, in this life of the kernel or in another."""
    return folder / f"attempt-{secrets.token_hex(6)}-{name}"


def remove_attempts(folder: Path) -> None:
    """Remove what attempts left. An ffmpeg that outlived its kernel may still be writing: to nobody, then."""
    for pattern in ("attempt-*", ".*.tmp"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
            fail_point("encoder.attempt.removed")


def read_encoding(folder: Path) -> Encoding | None:
    """How the first chunk was encoded, and so all others must be; None where none was, or nobody knows any more."""
    try:
        return read_checked(folder / "encoding.json", Encoding)
    except NotAsWritten:
        return None


def write_encoding(folder: Path, encoding: Encoding) -> None:
    """Settle how all chunks of the recording are encoded."""
    fail_point("encoder.encoding.before")
    write_checked(folder / "encoding.json", encoding, lasting=False)
    fail_point("encoder.encoding.after")


def remove(home: Path, folder: Path) -> None:
    """Remove a recording's folder at one stroke; what a kill leaves of it, `remove_leftovers` finds.

    It is renamed first: an ffmpeg that outlived its kernel can then create nothing in it. From then on the producer's
    folder, too, may be removed by the collector.
    """
    leaving = _leaving(home, folder.name)
    fail_point("encoder.leave.before")
    try:
        folder.rename(leaving)
    except (FileNotFoundError, NotADirectoryError):
        return
    fail_point("encoder.leave.renamed")
    _remove_tree(leaving)
    fail_point("encoder.leave.after")


def remove_leftovers(home: Path) -> None:
    """Finish the removals that a kill interrupted."""
    for folder in (home / "spool").glob(_leaving(home, "*").name):
        _remove_tree(folder)
        fail_point("encoder.leftover.removed")


def _remove_tree(folder: Path) -> None:
    if is_folder(folder):
        shutil.rmtree(folder)
    else:  # a link: what it leads to is nobody's business
        folder.unlink()


def _leaving(home: Path, name: str) -> Path:
    return home / "spool" / f".{name}.leaving"
