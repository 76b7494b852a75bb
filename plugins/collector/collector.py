"""The collector: polls the spool, relays what producers said, and becomes the producer of what dead ones left."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.event import Damaged, Record
from kernel.fail_points import fail_point
from kernel.files import NOT_OURS, acquire, clear_up, is_folder, is_name
from kernel.plugin import Options, Plugin, on_batch, refuse_link
from kernel.terminal import shown
from plugins.collector.folder import COLLECTED, ProducerFolder, SpoolDamaged
from plugins.collector.sessions import (
    TOLD_BY,
    Totals,
    forget,
    is_in_the_log,
    is_of_script,
    note_in_the_log,
    outcome_of,
    session_folders,
    session_of,
)
from plugins.events import (
    CaptureAsked,
    CaptureHeld,
    EventLost,
    FileDamaged,
    ProducerSetAside,
    SessionAsked,
    SessionEnded,
)
from plugins.recorder.live import Watching
from plugins.recorder.sessions import clear_marks, sessions_folder
from plugins.recorder.spool import Control, spool_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kernel.event import Event

MOST_LOST = 100_000
"""So many events that a damaged log has lost are stood in for."""
CAPTURE = "capture.json"
"""The file of the home with what users asked for, for producers that come later."""


LONGEST_WATCH_SECONDS = 60.0
"""Who watches has to say so again within this time."""


class CollectorOptions(Options):
    """How often to look. The defaults show an event within 0.1 s while they come, and cost nothing measurable."""

    poll_seconds: float = 0.05
    """Between two looks at the spool while events come."""
    idle_poll_seconds: float = 0.25
    """Between two looks when nothing has come for a while."""
    silent_seconds: float = 0.5
    """A producer that wrote nothing for so long may be dead, which its lock tells."""


class Collector(Plugin[CollectorOptions], publishes=[FileDamaged, ProducerSetAside, SessionEnded]):
    """Brings what producers leave in the spool to the log, exactly once."""

    required = True

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._spool = spool_folder(self.home)
        self._folders: dict[str, ProducerFolder] = {}
        self._totals = Totals()
        """Of what this collector relays."""
        self._turn = anyio.Lock()
        self._passed_by: set[str] = set()
        """Names in the spool that are no producers' folders."""
        refuse_link(self._spool)
        refuse_link(sessions_folder(self.home))
        self._spool.mkdir(exist_ok=True)
        await anyio.to_thread.run_sync(_clear_up, self._spool, sessions_folder(self.home))
        await anyio.to_thread.run_sync(clear_marks, self.home)
        await anyio.to_thread.run_sync(clear_up, self.home, CAPTURE)
        await self._release_hold()
        self._in_the_log = self._found_in_the_log()
        try:
            yield
        finally:
            for folder in list(self._folders.values()):
                if folder.adopted and folder.finished and not folder.recording_folders():
                    await self._put_away(folder)  # its last recording has left the spool since the last look
                else:
                    folder.release()
            await self._release_hold()

    async def run(self) -> None:
        pause = self.options.poll_seconds
        while True:
            came = await self._turn_once(silent_seconds=self.options.silent_seconds)
            pause = self.options.poll_seconds if came else min(pause * 1.5, self.options.idle_poll_seconds)
            await anyio.sleep(pause)

    async def drain(self) -> None:
        """Take in all that is there, and the ends of all whose producers are gone."""
        await self._turn_once(silent_seconds=0.0)
        while any(folder.adopted for folder in self._unfinished()):
            await self._turn_once(silent_seconds=0.0)

    def pending(self) -> str:
        dead = sum(folder.adopted for folder in self._unfinished())
        return f"the events of {dead} ended producers" if dead else ""

    @on_batch(CaptureAsked, CaptureHeld, SessionAsked, size=1, within=0.0)
    async def tell_producers(self, records: list[Record[CaptureAsked | CaptureHeld | SessionAsked]]) -> None:
        """Hand on what users ask for: to the producers that run, and to later ones by `capture.json`."""
        (record,) = records
        event = record.event
        if isinstance(event, SessionAsked) and event.action not in ("watch", "unwatch"):
            return  # the runner's to do
        session = None if isinstance(event, CaptureHeld) else event.session
        common = self.home / CAPTURE
        before = await self._control(common, None, record.seq)
        if session is None:
            _write_control(common, _applied(before, record))
        for path in self._spool.iterdir():
            of = session_of(path.name)
            if (session is None or path.name.startswith(f"{session}-")) and is_name(path.name) and is_folder(path):
                own = path / "control.json"
                control = await self._control(own, of, record.seq) if own.exists() else before
                _write_control(own, _applied(control, record))

    async def _turn_once(self, silent_seconds: float) -> bool:
        """Look at every producer once; whether anything came."""
        async with self._turn:
            self._find_folders()
            came = False
            for folder in list(self._folders.values()):
                came = await self._collect(folder, silent_seconds) or came
            return await self._end_sessions() or came

    def _find_folders(self) -> None:
        for path in self._spool.iterdir():
            name = path.name
            if name in self._folders or name in self._passed_by or name.startswith("."):
                continue
            if is_name(name) and is_folder(path):
                self._folders[name] = ProducerFolder(path)
            else:
                self._passed_by.add(name)
                _say(f"{self._spool}: {name!r} is no producer's folder, and is passed by; move it out of the spool")

    def _unfinished(self) -> list[ProducerFolder]:
        return [folder for folder in self._folders.values() if not (folder.finished or folder.set_aside)]

    async def _collect(self, folder: ProducerFolder, silent_seconds: float) -> bool:
        if folder.set_aside:
            return False
        if not folder.begun:
            await self._begin(folder)
        if not folder.adopted and time.monotonic() - folder.last_growth >= silent_seconds:
            folder.adopt()  # before the read: what a dead producer wrote is then all there
        if not folder.finished and folder.grew() and await self._relay(folder):
            await self._remove_event_files(folder)
            return True
        if not folder.adopted or folder.set_aside:
            return False
        if folder.needs_ends:
            await anyio.to_thread.run_sync(folder.write_ends)
            await self._say_damage(folder)
            return True
        if not folder.finished:
            await self._remove_event_files(folder)
        if folder.finished and not await anyio.to_thread.run_sync(folder.recording_folders):
            await self._put_away(folder)
        return False

    async def _begin(self, folder: ProducerFolder) -> None:
        """See to it that the log, and what `collected.json` says is in it, agree."""
        folder.begun = True
        known = self.last_nth(folder.producer)
        if folder.damage:  # the log says it all again
            first_here = await anyio.to_thread.run_sync(lambda: folder.first_here)
            next_nth = min(first_here or known + 1, known + 1)
            records: AsyncIterator[Record[Event]] = self.read()
            said = [each.event async for each in records if each.source == folder.producer and each.nth < next_nth]
            await anyio.to_thread.run_sync(folder.recover, said, next_nth)
        await self._say_damage(folder)
        lost = folder.next_nth - 1 - known
        if lost > MOST_LOST:
            await self._set_aside(
                folder, f"{folder.folder / COLLECTED} speaks of {lost} events that the log does not know"
            )
        elif lost > 0:
            stand_ins = [EventLost(producer=folder.producer)] * lost
            await self.relay(folder.producer, known + 1, stand_ins)

    async def _say_damage(self, folder: ProducerFolder) -> None:
        if folder.damage:
            await self._say_damaged(folder.folder, folder.damage)
            folder.damage = ""

    async def _say_damaged(self, file: Path, consequence: str) -> None:
        _say(consequence)
        await self.publish(FileDamaged(file=file.relative_to(self.home).as_posix(), consequence=consequence))

    async def _relay(self, folder: ProducerFolder) -> bool:
        try:
            batches = await anyio.to_thread.run_sync(folder.read)
            for batch in batches:
                await self.relay(folder.producer, batch.first_nth, batch.events)
                self._totals.add(batch.events)
        # Types, depths and numbers that msgpack has and JSON has not: no producer of ours says them.
        except (SpoolDamaged, Damaged, ValueError, TypeError, RecursionError, OverflowError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_OURS:
                raise
            await self._set_aside(
                folder, str(error) if isinstance(error, SpoolDamaged) else f"{folder.folder}: {error}"
            )
            return False
        return bool(batches)

    async def _set_aside(self, folder: ProducerFolder, why: str) -> None:
        folder.set_aside = True
        reason = f"{why}; it is left where it is. Move it out of the spool, or restore it."
        _say(reason)
        await self.publish(ProducerSetAside(producer=folder.producer, reason=reason))

    async def _remove_event_files(self, folder: ProducerFolder) -> None:
        if folder.has_removable:
            await self.sync()
            await anyio.to_thread.run_sync(folder.remove_files)

    async def _put_away(self, folder: ProducerFolder) -> None:
        """Remove the folder of a producer that has left nothing to do; its session remembers that there was one."""
        session = sessions_folder(self.home) / session_of(folder.producer)
        if is_name(session.name) and is_folder(session):
            await anyio.to_thread.run_sync(note_in_the_log, session)
        await anyio.to_thread.run_sync(folder.remove_folder)
        del self._folders[folder.producer]

    async def _end_sessions(self) -> bool:
        """Publish the end of each session whose owner has ended and whose producers are all collected."""
        ended = False
        for path in session_folders(self.home):
            session = path.name
            outcome = outcome_of(path)
            if outcome is None:
                continue
            self._find_folders()  # behind the look at the owner: all that the session will ever have are there by now
            if any(folder.producer.startswith(f"{session}-") for folder in self._unfinished()):
                continue
            totals = await self._totals_of(session)
            # Of a script that was killed before it had said anything there is nothing to be ended.
            if totals is not None and (totals.knows(session) or not is_of_script(path)):
                await self.publish(totals.end(session, outcome))
                fail_point("collector.session.said")
            await self.sync()
            fail_point("collector.session.synced")
            await anyio.to_thread.run_sync(forget, path)
            self._totals.forget(session)
            ended = True
        return ended

    def _found_in_the_log(self) -> set[str]:
        """The open sessions of which an earlier collector has, or may have, brought something to the log.

        What the others come to is known without a look through a log of gigabytes: that a script's one recorder
        process sees all of it is the rule.
        """
        silent = {session_of(path.name) for path in self._spool.iterdir() if not self.last_nth(path.name)}
        heard = {session_of(path.name) for path in self._spool.iterdir() if self.last_nth(path.name)}
        return {
            path.name
            for path in session_folders(self.home)
            if path.name in heard or path.name not in silent or is_in_the_log(path)
        }

    async def _totals_of(self, session: str) -> Totals | None:
        """What a session has come to; None where its end was said already."""
        if session not in self._in_the_log:
            return self._totals
        totals = Totals()
        async for record in self.read(*TOLD_BY):
            if isinstance(record.event, SessionEnded):
                if record.event.session == session:
                    return None
            else:
                totals.add([record.event])
        return totals

    async def _release_hold(self) -> None:
        """Nobody watches the disk while no kernel runs: capture must not stay held by a kernel that is gone."""
        common = self.home / CAPTURE
        control = await self._control(common, None, sys.maxsize)
        if control.held:
            _write_control(common, msgspec.structs.replace(control, held=False))

    async def _control(self, path: Path, session: str | None, before: int) -> Control:
        """What a file says that was asked for; where it is damaged, what the log says, up to before that seq."""
        try:
            return read_checked(path, Control) or Control()
        except NotAsWritten as damage:
            control = Control()
            said: AsyncIterator[Record[CaptureAsked | CaptureHeld]] = self.read(CaptureAsked, CaptureHeld)
            async for record in said:
                asked_of = record.event.session if isinstance(record.event, CaptureAsked) else None
                if record.seq < before and asked_of in (None, session):
                    control = _applied(control, record)
            _write_control(path, control)
            await self._say_damaged(path, f"{damage}; it was written anew, by what the log says was asked for")
            return control


def _clear_up(*folders: Path) -> None:
    """Remove what a kill left of a folder in the making, or in the going.

    A builder that lives holds its lock, or is about to take it; that one makes its folder again.
    """
    for building in (path for folder in folders if is_folder(folder) for path in folder.glob(".*.tmp")):
        lock = acquire(building / "lock") if is_folder(building) else None
        if lock is not None:
            shutil.rmtree(building)
            fail_point("collector.building.removed")
            lock.release()


def _applied(control: Control, record: Record[CaptureAsked | CaptureHeld | SessionAsked]) -> Control:
    """The control with one more event taken in; the same where it has been taken in before."""
    match record.event:
        case CaptureHeld(held=held):
            return msgspec.structs.replace(control, held=held)
        case CaptureAsked(once=True):
            return msgspec.structs.replace(control, once=max(control.once, record.seq))
        case CaptureAsked(settings=settings) if record.seq > control.asked:
            return msgspec.structs.replace(control, settings=settings, asked=record.seq)
        case SessionAsked() as asked:
            return msgspec.structs.replace(control, watching=_watching(control, asked, record.time.timestamp()))
    return control


def _watching(control: Control, asked: SessionAsked, now: float) -> dict[str, Watching]:
    """Who watches now, without those whose time is over."""
    watching = {by: each for by, each in control.watching.items() if each.until > now and by != asked.by}
    if asked.action == "watch":
        seconds = min(asked.seconds, LONGEST_WATCH_SECONDS)
        watching[asked.by] = Watching(until=now + seconds, fps=asked.fps, workers=asked.workers)
    return watching


def _write_control(path: Path, control: Control) -> None:
    fail_point("collector.control.before")
    write_checked(path, control, lasting=False)
    fail_point("collector.control.after")


def _say(line: str) -> None:
    sys.stderr.write(f"{shown(line)}\n")
