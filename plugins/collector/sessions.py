"""Sessions: when one is over, and what it came to."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kernel.files import acquire
from plugins.events import EpisodeEnded, RecordingSealed, SessionEnded, SessionStarted, WorkerEnded
from plugins.recorder.sessions import read_owner, sessions_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Literal

    from kernel.event import Record

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
    lock = acquire(folder / "lock")
    if lock is None:
        return None
    lock.release()
    return "lost"


async def end_of(session: str, outcome: Outcome, told: AsyncIterator[Record[object]]) -> SessionEnded | None:
    """What to say of a session that is over, from what the log tells of it; None where it was said already."""
    episodes: set[tuple[int, int]] = set()
    steps = recordings = frames_dropped = steps_dropped = 0
    async for record in told:
        match record.event:
            case SessionEnded(session=ended) if ended == session:
                return None
            case EpisodeEnded(session=of) as episode if of == session:
                episodes.add((episode.worker, episode.episode))
            case RecordingSealed(session=of) if of == session:
                recordings += 1
            case WorkerEnded(session=of) as worker if of == session:
                steps += worker.steps
                frames_dropped += worker.frames_dropped
                steps_dropped += worker.steps_dropped
    return SessionEnded(
        session=session,
        outcome=outcome,
        episodes=len(episodes),
        steps=steps,
        recordings=recordings,
        frames_dropped=frames_dropped,
        steps_dropped=steps_dropped,
    )


def forget(folder: Path) -> None:
    """Remove the folder of a session whose end is on disk in the log."""
    shutil.rmtree(folder)
