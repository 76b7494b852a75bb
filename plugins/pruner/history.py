"""What the log says about retention, event by event: pins, wishes, and removals that were begun and not finished."""

from __future__ import annotations

from plugins.events import (
    CaptureHeld,
    PruneIntended,
    VideoAvailable,
    VideoDeleteAsked,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)

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


class History:
    """The state that the events, noted in the log's order, lead to. To note an event again changes nothing.

    The order in the log decides between a pin and a removal: an intent that comes behind a pin is void, and so is
    one before it whose video still stands.
    """

    def __init__(self) -> None:
        self.available: set[str] = set()
        self.pinned: dict[str, str] = {}
        """By whom, for each pinned recording."""
        self.unpinned: set[str] = set()
        self.asked: dict[str, VideoDeleteAsked] = {}
        """Wishes that were granted, and not yet acted on."""
        self.intended: dict[str, PruneIntended] = {}
        """Removals that are due."""
        self.held = False
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
