"""The watch over a script's videos: a thread that keeps somebody at work on them, and hears what became of each.

It never reads the log. A recording's folder leaves the spool when its end is on disk in the log; then the catalogue
has the video, or there is none.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from plugins import catalogue
from plugins.recorder import weights_and_biases
from plugins.recorder.line import warn
from plugins.recorder.process import RecorderProcess
from plugins.recorder.spool import spool_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugins.events import VideoAvailable
    from plugins.recorder.spool import Film

TICK_SECONDS = 0.2
"""Between two looks while videos are awaited."""

HURRIED_SECONDS = 0.05
"""The same while somebody waits for them."""

LOOKS = 4
"""Of the awaited videos, so many are looked at in one tick, unless somebody waits. Where a thread steps meanwhile, each
look costs it a wait for the interpreter's lock."""

IDLE_SECONDS = 0.5
"""Between two looks at who serves the home."""


class Awaited:
    """A recording that is sealed, or about to be, and whose video is awaited."""

    __slots__ = ("done", "env_steps", "film", "on_video", "waits", "withdrawn")

    def __init__(
        self, film: Film, on_video: Callable[[VideoAvailable], None] | None, env_steps: int, *, waits: bool
    ) -> None:
        self.film = film
        self.on_video = on_video
        self.env_steps = env_steps
        """The environment's steps before its first frame."""
        self.waits = waits
        """The script's end waits for it."""
        self.done = False
        self.withdrawn = False
        """Its recording goes on after all."""


class Watch:
    """One process's watch over its videos in one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._spool = spool_folder(home)
        self.served = RecorderProcess(home)
        self._awaited: list[Awaited] = []
        """To be looked at next."""
        self._open: set[Awaited] = set()
        """All of them."""
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self._hurried = False
        self._ended = False

    def start(self) -> None:
        """See to it that somebody makes this home's videos, now and as long as this process lives."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepreel watch", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Watch no longer: nobody here produces anything for the home any more."""
        self._ended = True
        self._wake.set()

    def expect(self, awaited: Sequence[Awaited]) -> None:
        """Watch for these videos. Never waits: appending is all that the stepping thread does here."""
        self._open.update(awaited)
        idle = not self._awaited
        self._awaited.extend(awaited)
        if idle:
            self._wake.set()

    def hurry(self) -> None:
        """Look at all of them and more often from now on, as somebody waits and does not step."""
        self._hurried = True
        self._wake.set()

    def relax(self) -> None:
        """One who waited does so no longer; another one who still does is told a little later."""
        self._hurried = False

    def open(self) -> list[Awaited]:
        """The videos that the script's end waits for."""
        return [awaited for awaited in list(self._open) if awaited.waits]

    def _run(self) -> None:
        next_look = 0.0
        while not self._ended:
            self._wake.clear()
            try:
                if time.monotonic() >= next_look:
                    self._look_after_process()
                    next_look = time.monotonic() + IDLE_SECONDS
                self._look_for_videos()
                weights_and_biases.go_on()
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on, and the next look may succeed
                self._tell(f"{self.home}: cannot be watched ({type(error).__name__}: {error})")
            if not self._awaited:
                self._wake.wait(IDLE_SECONDS)
            else:
                self._wake.wait(HURRIED_SECONDS if self._hurried else TICK_SECONDS)

    def _look_after_process(self) -> None:
        trouble = self.served.look()
        if trouble:
            self._tell(trouble)

    def _look_for_videos(self) -> None:
        some = self._awaited[:] if self._hurried else self._awaited[:LOOKS]
        left = [awaited for awaited in some if not self._is_done(awaited)]
        self._open.difference_update(set(some).difference(left))
        # The oldest are done first, as a rule; but where none of them was, one that takes long hides no others.
        stuck = len(left) == len(some)
        self._awaited[: len(some)] = [] if stuck else left
        if stuck:
            self._awaited.extend(left)

    def _is_done(self, awaited: Awaited) -> bool:
        if awaited.withdrawn or awaited.done:
            return True
        film = awaited.film
        recording = film.plan.recording
        if not film.folder_made or (self._spool / recording.rpartition("-")[0] / recording).exists():
            return False
        entry = catalogue.read(self.home, recording)
        try:
            if entry is None:
                self._tell_failure(awaited)
            else:
                self._hand_over(awaited, catalogue.announcement(entry))
        finally:
            awaited.done = True
        return True

    def _hand_over(self, awaited: Awaited, video: VideoAvailable) -> None:
        try:
            weights_and_biases.upload(video, self.home, awaited.env_steps)
            if awaited.on_video is not None:
                awaited.on_video(video)
        except Exception as error:  # noqa: BLE001 - the user's own callback
            warn(f"{_name(awaited)}: on_video failed ({type(error).__name__}: {error}); the video itself stands")

    def _tell_failure(self, awaited: Awaited) -> None:
        recording = awaited.film.plan.recording
        reason = catalogue.failure_of(self.home, recording)
        if reason is None:
            return  # pruned or discarded in the meantime
        kept = catalogue.failed_folder(self.home, recording)
        frames = f". Its frames are kept in {kept}." if any(kept.glob("*.chunk")) else "."
        warn(f"{_name(awaited)} could not be made: {reason.strip() or 'the disk took no reason'}{frames}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warn(text)


def _name(awaited: Awaited) -> str:
    """What to call it in a warning."""
    return Path(awaited.film.plan.path).name
