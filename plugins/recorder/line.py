"""The line from one environment's recorder to its producer: what it says, how full it is, and how it goes off."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.events import RecorderFailed
from plugins.recorder.spool import ITEM_BYTES, Meter, Outbox, Producer, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from kernel.event import Event


class Line:
    """One environment's line to its process's producer. One thread at a time uses it.

    In a forked child it is not connected, until `connect` connects it to the child's own producer.
    """

    def __init__(self, producer: Producer, env_id: str) -> None:
        self.producer = producer
        self.env_id = env_id
        self.off = False
        """Nothing is recorded any more: closed, or failed."""
        self.fullness = 0
        """0: there is room. 1: no frames are taken. 2: no steps are."""
        self.look_at = 0
        """Look again when the meter says so many bytes."""
        self.outbox: Outbox | None = None
        self._warned: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether what is said here goes to this process's producer."""
        return self.outbox is self.producer.outbox

    def connect(self) -> None:
        """Begin to say, with counts that begin at zero."""
        self.producer.start()
        self.outbox = outbox = self.producer.outbox
        self.session = outbox.session
        self.meter = Meter()
        self.producer.join(self.meter)
        # What other threads append to these lists meanwhile lies before or behind, never in between.
        self.say_packed = outbox.events.append
        self.append_frame = outbox.frames.append
        self.fullness = 0
        self.look_at = 0

    def leave(self) -> None:
        """Say nothing more."""
        self.producer.leave(self.meter)

    def say(self, event: Event) -> None:
        """Hand an event over."""
        packed = encode(event)
        self.meter.handed_bytes += len(packed) + ITEM_BYTES
        self.say_packed(packed)

    # Room ------------------------------------------------------------------------------------------------------------

    def full(self) -> bool:
        """Whether no more frames are taken."""
        if self.meter.handed_bytes > self.look_at:
            self.look()
        return self.fullness > 0

    def look(self) -> None:
        """See whether there is room, and when to look again: all recorders together pass a bound by 2 % at most."""
        outbox = self.producer.outbox
        self.fullness = outbox.fullness()
        stride = min(64 * 1024, outbox.memory_bytes // 64) // len(outbox.meters)
        self.look_at = 0 if self.fullness else self.meter.handed_bytes + stride

    def look_for_trouble(self) -> None:
        """Warn, once for all environments of the process, where the disk does not take what it should."""
        outbox = self.producer.outbox
        if outbox.trouble and not outbox.trouble_told:
            outbox.trouble_told = True
            self.warn(
                f"{outbox.folder}: cannot be written ({outbox.trouble}). What is recorded waits in memory, up to "
                f"{outbox.memory_bytes} bytes; then frames are dropped. Make room, or mend the path."
            )

    # What goes wrong -------------------------------------------------------------------------------------------------

    def fail(
        self,
        error: Exception,
        *,
        worker: int,
        episode: int | None,
        abort: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Turn off: `abort` what is open as well as it goes, say so once, `end`, and leave the training loop alone."""
        self.off = True
        self.warn(
            f"{self.env_id}: recording is off for this environment, which goes on without it "
            f"({type(error).__name__}: {error}). Please report this, with the traceback in the event RecorderFailed."
        )
        if not self.connected:
            return
        failed = RecorderFailed(
            session=self.session,
            worker=worker,
            episode=episode,
            error=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )
        for part in (abort, lambda: self.say(failed), end, self.leave):
            with suppress(Exception):  # what failed above may fail here again
                part()

    def warn_once(self, about: str, text: str) -> None:
        """Warn about something that comes again and again."""
        if about not in self._warned:
            self._warned.add(about)
            self.warn(text)

    def warn(self, text: str) -> None:
        """One warning to the user."""
        warn(text)


def warn(text: str, kind: type[Warning] = RuntimeWarning) -> None:
    """One warning to the user, at the line of his that we were called from; never an exception in his training loop."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to the caller's line
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    place = ("stepreel", 1) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
    try:
        warnings.warn_explicit(text, kind, *place)
    except Warning:  # warnings are errors here, and an error of ours must not end a training
        sys.stderr.write(f"stepreel: {text}\n")


_NOT_THE_USERS = (str(Path(__file__).parent), contextlib.__file__, threading.__file__)
