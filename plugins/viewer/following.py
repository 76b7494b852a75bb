"""Following: what the log says as it grows, while a page is open, and how the workers of running sessions stand.

Nobody reads the log while no page is open. What comes first is its last part, and what the tables know of before that.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

import plugins.events  # noqa: F401 - the types that the log's lines are decoded to
from kernel.event import UnknownEvent, catalogue
from kernel.log import HomeRefused, LogReader, first_seq, segments
from plugins.events import (
    CaptureApplied,
    CaptureAsked,
    CaptureHeld,
    EpisodeEnded,
    EpisodeStarted,
    Probe,
    SessionAsked,
    SessionEnded,
    SessionStarted,
    StepRecorded,
    WorkerEnded,
    WorkerFailed,
    WorkerStarted,
)
from plugins.viewer.answers import Wrong
from plugins.viewer.ids import EpisodeId, WorkerId
from plugins.viewer.sessions import is_running

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from kernel.event import Event, Record
    from plugins.recorder.live import Moment
    from plugins.viewer.tables import Tables

KEPT_EVENTS = 5000
TAIL_BYTES = 8 * 1024 * 1024
"""At least so much of the log's end is read first, where there is so much; a segment more at most."""
FAR_BEHIND_BYTES = 64 * 1024 * 1024
BLOCKS_AT_ONCE = 4
"""MiB of the log, read before others have their turn."""
POLL_SECONDS = 0.2
FRESH_SECONDS = 0.3
"""What was read so short a time ago is new enough for a single question."""
SESSIONS_SECONDS = 2.0
"""Between two looks whether sessions still run."""
ENDED_SECONDS = 60.0
"""The workers of a session that has ended are shown for so long."""
PROBES = 3600
EVENT_BYTES = 16 * 1024
"""A longer event reaches the page without its largest fields: it is in the log."""


class Worker(msgspec.Struct):
    """How a worker stands, as the page gets it."""

    id: str
    session: str
    label: str
    env: str
    worker: int
    state: str = "running"
    episode: int | None = None
    episode_id: str | None = None
    step: int | None = None
    return_: float | None = msgspec.field(default=None, name="return")
    steps_per_second: float | None = None
    recording: bool = False
    evaluation: bool = False
    capture: str = ""
    applied: dict[str, Any] | None = None
    pictures: bool | None = None
    updated: float = 0.0


class State:
    """What the events come to."""

    def __init__(self) -> None:
        self.workers: dict[WorkerId, Worker] = {}
        self.labels: dict[str, str] = {}
        self.paused: set[str] = set()
        self.ended: dict[str, float] = {}
        """When, of sessions that ended while this looked."""
        self.asked: dict[str, Any] | None = None
        self.asked_seq = 0
        self.held = False
        self.applied: dict[WorkerId, dict[str, Any]] = {}
        self.probes: deque[tuple[float, str, Probe]] = deque(maxlen=PROBES)
        """When, by whom, and what."""
        self._producers: dict[WorkerId, str] = {}

    def take_in(self, record: Record[Event]) -> None:  # noqa: C901, PLR0912 - one case for each type of event
        """Take one event in."""
        at = record.time.timestamp()
        match record.event:
            case SessionStarted() as started:
                self.labels[started.session] = started.label
            case SessionEnded() as ended:
                self.ended[ended.session] = at
                self.paused.discard(ended.session)
                for worker in self._of_session(ended.session):
                    if worker.state in ("running", "paused"):
                        worker.state = "ended"
            case WorkerStarted() as started:
                self._producers[WorkerId(started.session, started.worker)] = record.source
                self._worker(started.session, started.worker, at).state = "running"
                self._worker(started.session, started.worker, at).env = started.env_id
            case WorkerFailed() as failed:
                self._worker(failed.session, failed.worker, at).state = "failed"
            case WorkerEnded() as ended:
                worker = self._worker(ended.session, ended.worker, at)
                worker.state = {"finished": "ended", "failed": "failed", "lost": "lost"}[ended.outcome]
                worker.recording = False
            case EpisodeStarted() as started:
                self._start(started, at)
            case EpisodeEnded() as ended:
                worker = self._worker(ended.session, ended.worker, at)
                worker.step, worker.return_, worker.recording = ended.steps, ended.total_reward, False
            case Probe() as probe:
                self.probes.append((at, record.source, probe))
                self._rate(probe, record.source, at)
            case SessionAsked(session=session, action="pause"):
                self._pause(session, "paused")
            case SessionAsked(session=session, action="resume"):
                self._pause(session, "running")
            case CaptureAsked(once=False, session=None) as asked:
                self.asked, self.asked_seq = msgspec.to_builtins(asked.settings), record.seq
            case CaptureHeld(held=held):
                self.held = held
            case CaptureApplied() as applied:
                settings = {**msgspec.to_builtins(applied.settings), "once": applied.once, "episode": applied.episode}
                self.applied[WorkerId(applied.session, applied.worker)] = settings
                self._worker(applied.session, applied.worker, at).applied = settings

    def show(self, moment: Moment) -> bool:
        """Take in what a live picture says; whether that was news."""
        worker = self.workers.get(WorkerId(moment.session, moment.worker))
        if worker is None:
            return False
        worker.episode = moment.episode
        worker.episode_id = str(EpisodeId(moment.session, moment.worker, moment.episode))
        worker.step, worker.return_ = moment.step, moment.total_reward
        worker.recording, worker.evaluation = moment.captured, moment.evaluation
        if moment.picture is not None or worker.pictures is None:
            worker.pictures = moment.picture is not None or None
        worker.updated = moment.time
        return True

    def forget_ended(self, home: Path) -> int:
        """Leave out the workers of sessions that ended a while ago; how many those are."""
        forgotten = []
        for session in {key.session for key in self.workers}:
            ended = self.ended.get(session)
            if ended is None and not is_running(home, session):  # it was killed, and nobody has said so yet
                ended = max(worker.updated for worker in self._of_session(session))
            if ended is not None and time.time() - ended > ENDED_SECONDS:
                forgotten += [key for key in self.workers if key.session == session]
        for key in forgotten:
            del self.workers[key]
        return len(forgotten)

    def seed(self, rows: list[Worker], labels: dict[str, str]) -> None:
        """Begin with what the tables know."""
        self.labels.update(labels)
        for worker in rows:
            self.workers[WorkerId(worker.session, worker.worker)] = worker

    def _start(self, started: EpisodeStarted, at: float) -> None:
        worker = self._worker(started.session, started.worker, at)
        worker.episode = started.episode
        worker.episode_id = str(EpisodeId(started.session, started.worker, started.episode))
        worker.step, worker.return_ = 0, 0.0
        worker.recording, worker.evaluation, worker.capture = started.captured, started.evaluation, started.capture
        worker.env = started.env_id

    def _rate(self, probe: Probe, source: str, at: float) -> None:
        rate = probe.steps / probe.seconds if probe.seconds > 0 else None
        mine = [key for key, producer in self._producers.items() if producer == source and key in self.workers]
        for key in mine:
            worker = self.workers[key]
            worker.steps_per_second = rate if rate is None else rate / len(mine)
            worker.updated = at

    def _pause(self, session: str, state: str) -> None:
        (self.paused.add if state == "paused" else self.paused.discard)(session)
        for worker in self._of_session(session):
            if worker.state in ("running", "paused"):
                worker.state = state

    def _of_session(self, session: str) -> list[Worker]:
        return [worker for key, worker in self.workers.items() if key.session == session]

    def _worker(self, session: str, index: int, at: float) -> Worker:
        key = WorkerId(session, index)
        worker = self.workers.get(key)
        if worker is None:
            label = self.labels.get(session, "")
            worker = self.workers[key] = Worker(id=str(key), session=session, label=label, env="", worker=index)
        worker.updated = at
        return worker


class Follower:
    """The log's reader for all pages together."""

    def __init__(self, home: Path, tables: Tables) -> None:
        self.home = home
        self.tables = tables
        self.state = State()
        self.position = 0
        """How far the log was read."""
        self.dropped_up_to = 0
        """Events up to here are not kept any more, or never were."""
        self.recent: deque[tuple[int, bytes]] = deque()
        """The last events, as JSON."""
        self.trouble = ""
        """Why the log cannot be read on."""
        self.changed = 0
        """Counts what changed in the state."""
        self.listeners: set[Callable[[Record[Event]], None]] = set()
        self._reader: LogReader | None = None
        self._turn = anyio.Lock()
        self._read_at = 0.0
        self._looked_at = 0.0

    async def catch_up(self) -> bool:
        """Read to the log's end, unless that was done just now; whether anything came."""
        async with self._turn:
            if time.monotonic() - self._read_at < FRESH_SECONDS:
                return False
            return await self._read_on()

    async def read_on(self) -> bool:
        """Read to the log's end; whether anything came."""
        async with self._turn:
            return await self._read_on()

    async def _read_on(self) -> bool:
        came = at_end = began = False
        while not self.trouble and not at_end:
            try:
                # What is left once it has gone to the last part is read, however much that is.
                found = await anyio.to_thread.run_sync(_next, self._reader, None if began else self.home)
            except (HomeRefused, OSError) as failure:
                self.trouble = str(failure)
                break
            if found is None:
                await self._begin()
                began = True
                continue
            records, at_end = found
            for record in records:
                self._take_in(record)
            came = came or bool(records)
        if self._reader is not None:
            self.position = self._reader.position
        if time.monotonic() - self._looked_at > SESSIONS_SECONDS:
            self._looked_at = time.monotonic()
            self.changed += await anyio.to_thread.run_sync(self.state.forget_ended, self.home)
        self._read_at = time.monotonic()
        self.changed += came
        return came

    async def _begin(self) -> None:
        """Go to the last part of the log."""
        after = await anyio.to_thread.run_sync(_tail, self.home)
        if self._reader is not None:
            self._reader.close()
        self._reader = LogReader(self.home / "log", after, _followed())
        self.recent.clear()
        self.dropped_up_to = max(self.dropped_up_to, after)
        self.state = State()
        try:
            self.state.seed(*await self.tables.ask(_known, self.home))
        except Wrong:
            return  # the log's end alone has to do

    def _take_in(self, record: Record[Event]) -> None:
        self.state.take_in(record)
        self.recent.append((record.seq, _as_json(record)))
        if len(self.recent) > KEPT_EVENTS:
            self.dropped_up_to = self.recent.popleft()[0]
        for listener in self.listeners:
            listener(record)


def _followed() -> tuple[type[Event], ...]:
    """All types but steps, of which there are too many for a page."""
    return tuple(kind for kind in catalogue.values() if kind.durable and kind not in (StepRecorded, UnknownEvent))


def _as_json(record: Record[Event]) -> bytes:
    said = {"seq": record.seq, "time": record.time.timestamp(), "source": record.source, "event": record.event}
    line = _encode(said)
    if len(line) > EVENT_BYTES:
        event = msgspec.to_builtins(record.event)
        short = {name: value for name, value in event.items() if len(_encode(value)) < EVENT_BYTES // 16}
        line = _encode({**said, "event": short})
    return line


def _tail(home: Path) -> int:
    """The seq behind which the log's last part begins."""
    paths = segments(home / "log")
    if not paths:
        return 0
    size = 0
    for path in reversed(paths):
        size += path.stat().st_size
        if size >= TAIL_BYTES:
            break
    return first_seq(path) - 1


def _next(reader: LogReader | None, home: Path | None) -> tuple[list[Record[Event]], bool] | None:
    """In a thread: what comes next, and whether that is all there is. None where `home`'s log has too much to be read.

    One call does much: to hand work to a thread costs as much as to read 100 events.
    """
    if reader is None or (home is not None and _far_behind(reader, home)):
        return None
    records: list[Record[Event]] = []
    for _ in range(BLOCKS_AT_ONCE):
        before = reader.position
        try:
            records += reader.read()
        except (HomeRefused, OSError):
            if records:
                return records, False  # it says so again, and then nothing of what came before is lost
            raise
        if reader.position == before:
            return records, True
    return records, False


def _far_behind(reader: LogReader, home: Path) -> bool:
    """Whether more came since than is worth reading."""
    paths = [path for path in segments(home / "log") if first_seq(path) > reader.position]
    return len(paths) > 1 and sum(path.stat().st_size for path in paths) > FAR_BEHIND_BYTES


def _known(connection: sqlite3.Connection, home: Path) -> tuple[list[Worker], dict[str, str]]:
    """The workers of running sessions, as the tables have them, and the labels of all sessions."""
    labels = {session: label or "" for session, label in connection.execute("SELECT session, label FROM sessions")}
    workers: list[Worker] = []
    for (session,) in connection.execute("SELECT session FROM sessions WHERE outcome IS NULL").fetchall():
        if not is_running(home, session):
            continue
        rows = connection.execute(
            "SELECT worker, max(seq), env_id, started FROM workers WHERE session = ? AND ended IS NULL GROUP BY worker",
            (session,),
        )
        for index, _, env, started in rows.fetchall():
            worker = Worker(
                id=str(WorkerId(session, index)), session=session, label=labels[session], env=env or "", worker=index
            )
            worker.updated = started or 0.0
            last = connection.execute(
                """
                SELECT episode, steps, total_reward, outcome, captured, evaluation, capture FROM episodes
                WHERE session = ? AND worker = ? ORDER BY started DESC LIMIT 1
                """,
                (session, index),
            ).fetchone()
            if last is not None:
                worker.episode, worker.step, worker.return_ = last[:3]
                worker.episode_id = str(EpisodeId(session, index, last[0]))
                worker.recording = last[3] is None and bool(last[4])
                worker.evaluation, worker.capture = bool(last[5]), last[6] or ""
            workers.append(worker)
    return workers, labels


_encode = msgspec.json.Encoder().encode
