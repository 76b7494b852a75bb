"""What the log says about retention, event by event: pins, wishes, and removals that were begun and not finished.

home/pruner.json        what it came to at the last start, so that the next one reads on from there
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kernel.fail_points import fail_point
from kernel.files import clear_up, write_whole
from kernel.log import last_seq
from plugins.events import (
    CaptureHeld,
    PruneIntended,
    VideoAvailable,
    VideoDeleteAsked,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)

if TYPE_CHECKING:
    from pathlib import Path

Retained = VideoAvailable | VideoPinned | VideoUnpinned | VideoDeleteAsked | PruneIntended | VideoPruned | CaptureHeld
RETAINED: tuple[type[Retained], ...] = (
    VideoAvailable,
    VideoPinned,
    VideoUnpinned,
    VideoDeleteAsked,
    PruneIntended,
    VideoPruned,
    CaptureHeld,
)


class History(msgspec.Struct):
    """The state that the events, noted in the log's order, lead to. To note events again changes nothing.

    The order in the log decides between a pin and a removal: an intent that comes behind a pin is void, and so is
    one before it whose video still stands.
    """

    available: set[str] = set()
    pinned: dict[str, str] = {}
    """By whom, for each pinned recording."""
    unpinned: set[str] = set()
    asked: dict[str, VideoDeleteAsked] = {}
    """Wishes that were granted, and not yet acted on."""
    intended: dict[str, PruneIntended] = {}
    """Removals that are due."""
    held: bool = False
    """New recordings were held back when the log last said."""

    def note(self, event: Retained) -> None:
        if isinstance(event, CaptureHeld):
            self.held = event.held
            return
        recording = event.recording
        if isinstance(event, VideoAvailable):
            self.available.add(recording)
        elif isinstance(event, VideoPinned):
            self.pinned[recording] = event.by
            self.unpinned.discard(recording)
            self.asked.pop(recording, None)
            self.intended.pop(recording, None)
        elif isinstance(event, VideoUnpinned):
            self.pinned.pop(recording, None)
            self.unpinned.add(recording)
        elif isinstance(event, VideoDeleteAsked):
            if recording in self.available and recording not in self.pinned:
                self.asked[recording] = event
        elif isinstance(event, PruneIntended):
            self.asked.pop(recording, None)
            if recording not in self.pinned and event.policy != "replaced":
                self.intended[recording] = event
        else:
            self.available.discard(recording)
            self.pinned.pop(recording, None)
            self.unpinned.discard(recording)
            self.asked.pop(recording, None)
            self.intended.pop(recording, None)


class Remembered(msgspec.Struct):
    """What `pruner.json` says."""

    up_to: int = 0
    """The seq up to which everything is noted."""
    history: History = msgspec.field(default_factory=History)


def recall(home: Path) -> Remembered:
    """What was remembered; nothing where that is of another log than the home has now."""
    try:
        remembered = _decode((home / NAME).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return Remembered()
    return remembered if remembered.up_to <= last_seq(home) else Remembered()


def remember(home: Path, up_to: int, history: History) -> None:
    """Have the next start read on from here: a log of gigabytes takes its time."""
    clear_up(home, NAME)
    fail_point("pruner.remember.before")
    write_whole(home / NAME, msgspec.json.encode(Remembered(up_to, history)), lasting=False)
    fail_point("pruner.remember.after")


NAME = "pruner.json"

_decode = msgspec.json.Decoder(Remembered).decode
