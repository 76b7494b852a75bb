"""The collector's part of `check-home`: what producers left is readable, in the log once, and every end was said."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kernel.checks import Finding, counts, leftovers, trimmed, waiting
from kernel.files import holder
from kernel.log import read
from plugins.collector.sessions import TOLD_BY, Totals, session_folders, session_of
from plugins.events import EpisodeEnded, EpisodeStarted, SessionEnded, SessionStarted, WorkerEnded, WorkerStarted
from plugins.recorder.sessions import sessions_folder
from plugins.recorder.spool import event_files, read_batches, spool_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kernel.log import Log


def check(home: Path, live: bool) -> Iterator[Finding]:  # noqa: FBT001 - as all checks have it
    """Look at the spool, at the folders of sessions, and at what the log says of both."""
    spool = spool_folder(home)
    logged = counts(home)
    for folder in _folders(spool):
        yield from _check_producer(folder, logged.get(folder.name, 0), live=live)
    if not live:
        for parent in (spool, sessions_folder(home)):
            for building in sorted(parent.glob(".*.tmp")):
                if building.is_dir() and holder(building / "lock") is None:
                    yield waiting(str(building), "was being built, or removed, by a process that is gone")
        for session in session_folders(home):
            if holder(session / "lock") is None:
                yield waiting(str(session), "is of a session whose end is not in the log yet")
        yield from leftovers(home / "sessions")
        yield from leftovers(spool)
    yield from _check_ends(home)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_producer(folder: Path, logged: int, *, live: bool) -> Iterator[Finding]:
    alive = holder(folder / "lock") is not None
    files = event_files(folder)
    due: int | None = None
    for path in files:
        try:
            batches, rest = read_batches(path)
        except FileNotFoundError:  # a running kernel has just taken it in
            return
        for batch in batches:
            if batch.first_nth != due if due is not None else batch.first_nth > logged + 1:
                wrong = f"begins a batch with event {batch.first_nth}, where {due or logged + 1} is due"
                yield Finding(str(path), wrong, "Nothing brings the missing events back; move the folder elsewhere.")
                return
            due = batch.first_nth + _size_of(batch.events)
        last = path == files[-1]
        if (rest and not last) or (rest == "damaged" and not alive):
            at = batches[-1].end_offset if batches else 0
            remedy = f"Restore it, or move {folder} out of the spool: what is before the damage is in the log."
            yield Finding(str(path), f"is damaged behind byte {at}, so nothing behind it is taken in", remedy)
            return
    if not alive and not live:
        yield waiting(str(folder), "holds what a producer left and is not all taken in yet")


def _size_of(events: bytes) -> int:
    """How many events a msgpack array32 holds."""
    return int.from_bytes(events[1:5], "big")


class Told:
    """What the log says of beginnings and ends."""

    def __init__(self, home: Path) -> None:
        self.sessions: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.workers: Counter[tuple[str, int]] = Counter()
        """Of each, how often it has started and not ended."""
        self.open: set[tuple[str, int, int]] = set()
        """Episodes that have not ended."""
        for record in read(
            home, SessionStarted, SessionEnded, WorkerStarted, WorkerEnded, EpisodeStarted, EpisodeEnded
        ):
            match record.event:
                case SessionStarted() as event:
                    self.sessions[event.session] += 1
                case SessionEnded() as event:
                    self.ended[event.session] += 1
                case WorkerStarted() as event:
                    self.workers[event.session, event.worker] += 1
                case WorkerEnded() as event:
                    self.workers[event.session, event.worker] -= 1
                case EpisodeStarted() as event:
                    self.open.add((event.session, event.worker, event.episode))
                case EpisodeEnded() as event:
                    self.open.discard((event.session, event.worker, event.episode))


def _check_ends(home: Path) -> Iterator[Finding]:
    """Every session, worker and episode that began has ended, unless its session is still open."""
    told = Told(home)
    for session, ends in sorted(told.ended.items()):
        if ends > 1:
            yield Finding(f"session {session}", "has ended more than once in the log", _REPORT)
    still_open = {folder.name for folder in session_folders(home)}
    left = {session_of(folder.name) for folder in _folders(spool_folder(home))}
    for session in sorted(set(told.sessions) - set(told.ended) - still_open - left):
        remedy = "--repair says in the log that it was lost."
        yield Finding(f"session {session}", "has no end in the log, and no folder", remedy, _lost(home, session))
    for (session, worker), missing in sorted(told.workers.items()):
        if session in told.ended and missing and not trimmed(home):
            wrong = "has started and not ended" if missing > 0 else "has ended more often than it has started"
            yield Finding(f"worker {worker} of session {session}", wrong, _REPORT)
    for session, worker, episode in sorted(told.open):
        if session in told.ended:
            place = f"episode {episode} of worker {worker} of session {session}"
            yield Finding(place, "has started and not ended, though its session has", _REPORT)


_REPORT = "Nothing mends that; please report it."


def _lost(home: Path, session: str) -> Callable[[Log], str]:
    def say(log: Log) -> str:
        totals = Totals()
        totals.add(record.event for record in read(home, *TOLD_BY))
        log.append("check-home", log.last_nth("check-home") + 1, [totals.end(session, "lost")])
        return f"the log says that session {session} was lost"

    return say
