"""One producer's folder: read its events in order, and remove what is no longer needed.

An event file that was read to its end is removed, though an episode or a recording that it speaks of may go on for
days: what was open at its end stands in `collected.json`, from which the next collector goes on.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kernel.event import decode_batch
from kernel.fail_points import fail_point
from kernel.files import FileLock, acquire, sync_folder, write_whole
from plugins.collector.work import OpenWork, SealedFrames
from plugins.events import RecordingStarted
from plugins.recorder.frames import count_frames, seal_part
from plugins.recorder.spool import append_batch, event_file, event_files, read_batches

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Event


class Batch(NamedTuple):
    """Events of one producer, and the count of the first."""

    first_nth: int
    events: list[Event]


class Collected(msgspec.Struct, frozen=True):
    """What `collected.json` says: these event files are in the log, and no longer needed."""

    up_to: int = 0
    """The number of the last one."""
    next_nth: int = 1
    """The count of the first event behind it."""
    open: OpenWork = msgspec.field(default_factory=OpenWork)
    """What was open at its end."""
    begun: list[str] = []
    """The recordings that have begun by then, and whose frames were still here."""


class ProducerFolder:
    """What the collector knows of one producer. Everything here blocks, and belongs in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.producer = folder.name
        self.last_growth = time.monotonic()
        self.finished = False
        """The producer is dead or done, nothing it had open is open, and all of it was read."""
        self.set_aside = False
        """Its events cannot be read; nothing more is done with it."""
        collected = _read_collected(folder)
        self.next_nth = collected.next_nth
        self._work = collected.open
        self._begun = set(collected.begun)
        self._removed_up_to = collected.up_to
        self._behind: bytes | None = None
        """What `collected.json` is to say when what was read is in the log; None where that is nothing new."""
        self._behind_up_to = collected.up_to
        self._lock: FileLock | None = None
        self._ends_written = False
        self._reading: Path | None = None
        self._offset = 0

    @property
    def adopted(self) -> bool:
        """Whether the collector has the producer's lock, and so is the producer."""
        return self._lock is not None

    def grew(self) -> bool:
        """Whether there is something to read. Costs a call or two of the file system."""
        if self._reading is None:
            return bool(self._files())
        try:
            grew = self._reading.stat().st_size > self._offset
        except FileNotFoundError:
            grew = True
        return grew or event_file(self.folder, _number(self._reading) + 1).exists()

    def read(self) -> list[Batch]:
        """The next batches; empty at the end. Raises `SpoolDamaged` where they cannot be what the producer wrote."""
        if self._reading is None:
            files = self._files()
            if not files:
                return []
            self._reading, self._offset = files[0], 0
        following = event_file(self.folder, _number(self._reading) + 1)
        complete = self.adopted or following.exists()  # looked at before the read: nothing is then being written to it
        found = read_batches(self._reading, self._offset)
        rotten = complete and (found.rest == "damaged" or (found.rest and following.exists()))
        if rotten and not found.whole:  # what stands before the damage is taken in first
            raise SpoolDamaged(f"{self._reading}: damaged behind byte {self._offset}")
        batches = [Batch(batch.first_nth, decode_batch(batch.events)) for batch in found.whole]
        if found.whole:
            self._offset = found.whole[-1].end_offset
            self.last_growth = time.monotonic()
        for batch in batches:
            for event in batch.events:
                self._work.follow(event)
                if isinstance(event, RecordingStarted):
                    self._begun.add(event.recording)
            self.next_nth = batch.first_nth + len(batch.events)
        if found.rest or not following.exists() or not complete:
            return batches
        self._put_behind(_number(self._reading))
        self._reading, self._offset = following, 0
        return batches or self.read()

    def adopt(self) -> bool:
        """Take the lock, if the producer is gone. What it left is then read to its end before `write_ends`."""
        if self._lock is None:
            self._lock = acquire(self.folder / "lock")
        return self._lock is not None

    def write_ends(self) -> bool:
        """Append what the producer would have said had it ended everything; False where nothing was open.

        Its torn tail is cut first, and the folders of recordings go that it had no time to speak of.
        """
        self._ends_written = True
        if self._reading is not None and self._reading.stat().st_size > self._offset:
            fail_point("collector.tail.before")
            os.truncate(self._reading, self._offset)
            fail_point("collector.tail.cut")
        for recording in self.recording_folders():
            if recording.name not in self._begun:
                _remove_folder(recording)
        ends = self._work.ends({name: _seal(self.folder / name) for name in self._work.recordings})
        if ends:
            fail_point("collector.ends.before")
            append_batch(self._reading or event_file(self.folder, self._removed_up_to + 1), self.next_nth, ends)
            fail_point("collector.ends.after")
        return bool(ends)

    @property
    def needs_ends(self) -> bool:
        """Whether `write_ends` is still to be called."""
        return self.adopted and not self._ends_written

    def recording_folders(self) -> list[Path]:
        """The recordings whose frames are still here."""
        return [path for path in self.folder.iterdir() if path.is_dir()]

    @property
    def has_removable(self) -> bool:
        """Whether there are event files that were read to their ends; the newest counts only of a dead producer."""
        if self.adopted and self._ends_written and not self._work and not self.finished:
            return True
        return self._behind is not None

    def remove_files(self) -> None:
        """Remove the event files that were read to their ends, and whose events are on disk in the log."""
        if self.adopted and self._ends_written and not self._work:
            if self._reading is not None:
                self._put_behind(_number(self._reading))
                self._reading = None
            self.finished = True
        if self._behind is not None:
            fail_point("collector.collected.before")
            write_whole(self.folder / COLLECTED, self._behind, lasting=True)
            fail_point("collector.collected.after")
            self._behind = None
        for path in event_files(self.folder):
            if _number(path) <= self._behind_up_to:
                path.unlink()
                fail_point("collector.events.removed")
        self._removed_up_to = self._behind_up_to
        sync_folder(self.folder)

    def remove_folder(self) -> None:
        """Remove the whole folder, once no recording waits in it any more."""
        assert self._lock is not None
        fail_point("collector.folder.before")
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
                fail_point("collector.folder.file_removed")
        (self.folder / "lock").unlink()
        fail_point("collector.folder.unlocked")
        self.folder.rmdir()
        fail_point("collector.folder.removed")
        self._lock.release()

    def release(self) -> None:
        """Give the lock up; the next collector adopts the folder anew."""
        if self._lock is not None:
            self._lock.release()

    def _files(self) -> list[Path]:
        return [path for path in event_files(self.folder) if _number(path) > self._removed_up_to]

    def _put_behind(self, number: int) -> None:
        """An event file was read to its end, and here is what is open there."""
        self._begun = {name for name in self._begun if (self.folder / name).exists()}
        self._behind_up_to = number
        self._behind = msgspec.json.encode(Collected(number, self.next_nth, self._work, sorted(self._begun)))


COLLECTED = "collected.json"


def _read_collected(folder: Path) -> Collected:
    try:
        return msgspec.json.decode((folder / COLLECTED).read_bytes(), type=Collected)
    except (FileNotFoundError, msgspec.DecodeError):  # a damaged one costs no event, but the ends of what was open
        return Collected()


class SpoolDamaged(Exception):
    """An event file is not what a producer writes. Its text names the file and the place."""


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _seal(recording: Path) -> SealedFrames:
    """Seal what is open of a recording, and count all of its chunks."""
    if recording.is_dir():
        for part in sorted(recording.glob("*.part")):
            seal_part(part)
    chunks = sorted(recording.glob("*.chunk"))
    files = [f"{recording.parent.name}/{recording.name}/{chunk.name}" for chunk in chunks]
    return SealedFrames(files, [count_frames(chunk) for chunk in chunks])


def _remove_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
        fail_point("collector.unspoken.file_removed")
    folder.rmdir()
    fail_point("collector.unspoken.removed")
