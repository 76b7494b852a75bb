"""One producer's folder: read its events in order, and remove what is no longer needed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from kernel.event import decode_batch
from kernel.files import FileLock, acquire, sync_folder
from plugins.collector.work import OpenWork, SealedFrames
from plugins.recorder.frames import count_frames, seal_part
from plugins.recorder.spool import append_batch, event_file, event_files, read_batches

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Event


class Batch(NamedTuple):
    """Events of one producer, and the count of the first."""

    first_nth: int
    events: list[Event]


class ProducerFolder:
    """What the collector knows of one producer. Everything here blocks, and belongs in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.producer = folder.name
        self.last_growth = time.monotonic()
        self.next_nth = 1
        self.finished = False
        """The producer is dead or done, nothing it had open is open, and all of it was read."""
        self.set_aside = False
        """Its events cannot be read; nothing more is done with it."""
        self._work = OpenWork()
        self._lock: FileLock | None = None
        self._ends_written = False
        self._reading: Path | None = None
        self._offset = 0
        self._open_in: dict[Path, set[str | tuple[int, int]]] = {}
        """Files that were read, each with what was open while it was."""

    @property
    def adopted(self) -> bool:
        """Whether the collector has the producer's lock, and so is the producer."""
        return self._lock is not None

    def grew(self) -> bool:
        """Whether there is something to read. Costs a call or two of the file system."""
        if self._reading is None:
            return bool(event_files(self.folder))
        try:
            grew = self._reading.stat().st_size > self._offset
        except FileNotFoundError:
            grew = True
        return grew or event_file(self.folder, _number(self._reading) + 1).exists()

    def read(self) -> list[Batch]:
        """The next batches; empty at the end. Raises `SpoolDamaged` where they cannot be what the producer wrote."""
        if self._reading is None:
            files = event_files(self.folder)
            if not files:
                return []
            self._begin(files[0])
        assert self._reading is not None
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
            self._follow(batch)
        if found.rest or not following.exists() or not complete:
            return batches
        self._begin(following)
        return batches or self.read()

    def adopt(self) -> bool:
        """Take the lock, if the producer is gone. What it left is then read to its end before `write_ends`."""
        if self._lock is None:
            self._lock = acquire(self.folder / "lock")
        return self._lock is not None

    def write_ends(self, known_recordings: frozenset[str]) -> bool:
        """Append what the producer would have said had it ended everything; False where nothing was open.

        Its torn tail is cut first. `known_recordings` are those whose beginning is in the log: the folder of any
        other that is not open here was never spoken of, and goes.
        """
        self._ends_written = True
        if self._reading is not None and self._reading.stat().st_size > self._offset:
            os.truncate(self._reading, self._offset)
        for recording in self.recording_folders():
            if recording.name not in known_recordings and recording.name not in self._work.recordings:
                _remove_folder(recording)
        ends = self._work.ends({name: _seal(self.folder / name) for name in self._work.recordings})
        if ends:
            append_batch(self._reading or event_file(self.folder, 1), self.next_nth, ends)
        return bool(ends)

    @property
    def has_open_work(self) -> bool:
        """Whether something that was begun has not ended."""
        return bool(self._work)

    @property
    def needs_ends(self) -> bool:
        """Whether `write_ends` is still to be called."""
        return self.adopted and not self._ends_written

    def recording_folders(self) -> list[Path]:
        """The recordings whose frames are still here."""
        return [path for path in self.folder.iterdir() if path.is_dir()]

    def removable(self) -> list[Path]:
        """Event files that were read and in which nothing is open any more; the newest only of a dead producer."""
        open_now = self._work.open_now()
        done = [path for path, touched in self._open_in.items() if not touched & open_now]
        if self.adopted and self._ends_written and not open_now:
            return done
        return [path for path in done if path != self._reading]

    def remove(self, files: list[Path]) -> None:
        """Remove event files whose events are on disk in the log."""
        for path in files:
            path.unlink(missing_ok=True)
            del self._open_in[path]
            if path == self._reading:
                self._reading = None
                self.finished = True
        if self.adopted and self._ends_written and not self._open_in:
            self.finished = True
        sync_folder(self.folder)

    def remove_folder(self) -> bool:
        """Remove the whole folder, once nothing but the lock is left to need; False where recordings still wait."""
        if self.recording_folders():
            return False
        assert self._lock is not None
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        (self.folder / "lock").unlink()
        self.folder.rmdir()
        self._lock.release()
        return True

    def release(self) -> None:
        """Give the lock up; the next collector adopts the folder anew."""
        if self._lock is not None:
            self._lock.release()

    def _begin(self, path: Path) -> None:
        self._reading = path
        self._offset = 0
        self._open_in[path] = set(self._work.open_now())

    def _follow(self, batch: Batch) -> None:
        assert self._reading is not None
        touched = self._open_in[self._reading]
        for event in batch.events:
            self._work.follow(event)
        touched.update(self._work.open_now())
        self.next_nth = batch.first_nth + len(batch.events)


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
    folder.rmdir()
