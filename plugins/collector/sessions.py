"""Sessions: when one is over, and what it came to."""

from __future__ import annotations

import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from kernel.fail_points import fail_point
from kernel.files import holder, write_whole
from plugins.events import EpisodeEnded, RecordingSealed, SessionEnded, SessionStarted, WorkerEnded
from plugins.recorder.sessions import mark_ended, read_owner, sessions_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Literal

    from kernel.event import Event

    Outcome = Literal["finished", "stopped", "failed", "lost"]

TOLD_BY = (SessionStarted, SessionEnded, EpisodeEnded, RecordingSealed, WorkerEnded)


def session_folders(home: Path) -> list[Path]:
    """The sessions of a home that are open, or were when their owner died."""
    folder = sessions_folder(home)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def outcome_of(folder: Path) -> Outcome | None:
    """How a session ended, as its owner said; `lost` where the owner is gone without a word; None while it lives."""
    owner = read_owner(folder)
    if owner is not None and owner.outcome is not None:
        return owner.outcome
    return "lost" if holder(folder / "lock") is None else None


class Total(msgspec.Struct):
    """What one session has come to so far."""

    episodes: int = 0
    steps: int = 0
    recordings: int = 0
    frames_dropped: int = 0
    steps_dropped: int = 0
    last_ended: dict[int, int] = {}
    """The last episode of each worker that has ended: each of its agents says so."""


class Totals:
    """What sessions have come to, as their events tell."""

    def __init__(self) -> None:
        self._of: defaultdict[str, Total] = defaultdict(Total)

    def add(self, events: Iterable[Event]) -> None:
        """Take events in, each worker's in their order."""
        for event in events:
            match event:
                case SessionStarted():
                    self._of[event.session] = self._of.get(event.session, Total())
                case EpisodeEnded():
                    total = self._of[event.session]
                    total.episodes += total.last_ended.get(event.worker) != event.episode
                    total.last_ended[event.worker] = event.episode
                case RecordingSealed():
                    self._of[event.session].recordings += 1
                case WorkerEnded():
                    total = self._of[event.session]
                    total.last_ended.pop(event.worker, None)
                    total.steps += event.steps
                    total.frames_dropped += event.frames_dropped
                    total.steps_dropped += event.steps_dropped

    def knows(self, session: str) -> bool:
        """Whether anything was said of a session."""
        return session in self._of

    def end(self, session: str, outcome: Outcome) -> SessionEnded:
        """What to say of a session that is over."""
        total = self._of.get(session, Total())
        return SessionEnded(
            session=session,
            outcome=outcome,
            episodes=total.episodes,
            steps=total.steps,
            recordings=total.recordings,
            frames_dropped=total.frames_dropped,
            steps_dropped=total.steps_dropped,
        )

    def forget(self, session: str) -> None:
        """Its end was said."""
        self._of.pop(session, None)


def is_of_script(folder: Path) -> bool:
    """Whether a session is a training script's, whose processes say all of it; a runner's is begun by the kernel."""
    owner = read_owner(folder)
    return owner is not None and owner.kind == "script"


def session_of(producer: str) -> str:
    """The session that a producer's name tells."""
    return producer.rpartition("-")[0]


def note_in_the_log(folder: Path) -> None:
    """Remember that something of a session is in the log, though the producer that said it has left no folder."""
    fail_point("collector.in_the_log.before")
    write_whole(folder / IN_THE_LOG, b"", lasting=True)
    fail_point("collector.in_the_log.after")


def is_in_the_log(folder: Path) -> bool:
    """Whether that was noted."""
    return (folder / IN_THE_LOG).exists()


IN_THE_LOG = "in-the-log"


def forget(folder: Path) -> None:
    """Remove the folder of a session whose end is on disk in the log.

    It is renamed first: a process of the script may try to put something into it until it is gone.
    """
    if is_of_script(folder):
        mark_ended(folder)
    leaving = folder.with_name(f".{folder.name}.leaving.tmp")
    fail_point("collector.forget.before")
    folder.rename(leaving)
    fail_point("collector.forget.renamed")
    shutil.rmtree(leaving)
    fail_point("collector.forget.after")
