"""What the log says of recordings that may have no end yet; and from where on it has to be asked.

home/encoder.json       the seq up to which every sealed recording has its end: the next start reads on from there
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.fail_points import fail_point
from kernel.files import clear_up
from kernel.log import last_seq
from plugins.events import (
    ChunkSealed,
    FailedFramesDropped,
    RecordingDiscarded,
    RecordingSealed,
    VideoAvailable,
    VideoFailed,
    VideoPruned,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from kernel.event import Record

End = VideoAvailable | VideoFailed | RecordingDiscarded
END = (VideoAvailable, VideoFailed, RecordingDiscarded)
"""What is said of a recording last."""
Said = End | RecordingSealed | ChunkSealed | FailedFramesDropped | VideoPruned
SAID = (*END, RecordingSealed, ChunkSealed, FailedFramesDropped, VideoPruned)


class Told:
    """What was said of recordings: of those whose folders are here, and of those that were sealed and have no end."""

    def __init__(self, here: Collection[str]) -> None:
        self.ends: dict[str, End] = {}
        """Of recordings whose folders are here."""
        self.seals: dict[str, RecordingSealed] = {}
        self.chunks: dict[str, dict[int, int]] = {name: {} for name in here}
        """The frames of each chunk that was announced."""
        self.replaced: set[str] = set()
        self.frames_dropped: set[str] = set()
        self._sealed_at: dict[str, int] = {}

    def take_in(self, record: Record[Said]) -> None:
        """The next record, in the log's order."""
        event = record.event
        name = event.recording
        if isinstance(event, FailedFramesDropped):
            self.frames_dropped.add(name)
        elif isinstance(event, VideoPruned):
            if event.policy == "replaced":
                self.replaced.add(name)
        elif isinstance(event, ChunkSealed):
            if name in self.chunks:
                self.chunks[name][event.chunk] = event.frames
        elif isinstance(event, RecordingSealed):
            self.seals[name] = event
            self._sealed_at[name] = record.seq
        else:
            self._sealed_at.pop(name, None)
            if name in self.chunks:
                self.ends[name] = event
            else:
                self.seals.pop(name, None)

    @property
    def lost(self) -> list[RecordingSealed]:
        """The recordings that were sealed, have no end, and whose folders are not here."""
        return [sealed for name, sealed in self.seals.items() if name not in self.chunks]

    def settled(self, up_to: int) -> int:
        """The seq before the first seal without an end, where the log was read up to this seq."""
        return min(self._sealed_at.values(), default=up_to + 1) - 1


class _Remembered(msgspec.Struct):
    settled: int


def begin(home: Path) -> bool:
    """Whether this is the first start on this home. Then what is in its log by now is settled.

    It is on disk before any recording can be sealed: to be called while no plugin is at work yet.
    """
    clear_up(home, NAME)
    is_first = not (home / NAME).exists()
    if is_first:
        remember(home, last_seq(home))
    return is_first


def recall(home: Path, end: int) -> int:
    """The seq that was remembered; 0 where none was, or that is of another log than the one that ends here."""
    try:
        remembered = read_checked(home / NAME, _Remembered)
    except NotAsWritten:  # the log says it all again
        remembered = None
    return remembered.settled if remembered is not None and remembered.settled <= end else 0


def remember(home: Path, settled: int) -> None:
    """Have the next start read on from here: a log of gigabytes takes its time."""
    fail_point("encoder.remember.before")
    write_checked(home / NAME, _Remembered(settled), lasting=True)
    fail_point("encoder.remember.after")


NAME = "encoder.json"
