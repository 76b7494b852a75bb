"""The encoder pool: finds the jobs, runs as many side by side as there are cores to spare, and says how each ended."""

from __future__ import annotations

import heapq
import os
import shutil
import sys
import time
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from kernel.fail_points import fail_point
from kernel.files import NO_SPACE, has_room, wants_space
from kernel.log import last_seq
from kernel.plugin import Plugin, on, refuse_link
from kernel.terminal import shown
from plugins import catalogue
from plugins.encoder_pool import handover, jobs, kept
from plugins.encoder_pool.claims import Claims
from plugins.encoder_pool.jobs import Failure, Job, Recording
from plugins.encoder_pool.making import Hopeless, Order, WrongJoin, make_segment, make_video
from plugins.encoder_pool.names import Names
from plugins.encoder_pool.options import EncoderPoolOptions
from plugins.encoder_pool.told import END, SAID, End, Said, Told, begin, recall, remember
from plugins.events import (
    ChunkSealed,
    EncoderProbe,
    FailedFramesDropped,
    PruneIntended,
    RecordingDiscarded,
    RecordingSealed,
    VideoAvailable,
    VideoFailed,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)
from plugins.recorder.spool import stepping
from plugins.video import ffmpeg
from plugins.video.cores import spare_cores
from plugins.video.feed import Child, Failed
from plugins.video.priority import Priority, lower_this_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import TaskGroup

    from kernel.event import Record
    from plugins.catalogue import Entry
    from plugins.encoder_pool.handover import Made
    from plugins.recorder.spool import RecordingPlan

A = TypeVar("A")
T = TypeVar("T")

RETRY_SECONDS = (0.5, 2.0, 8.0)
"""Before another attempt at what failed."""
DISK_FULL_SECONDS = (1.0, 2.0, 4.0)
"""Between two looks for room while the disk is full, longer where there was too little for what was tried.

What fails of it does not count as an attempt.
"""
LEAST_ROOM_BYTES = 256 * 2**10
PROBE_SECONDS = 1.0


class EncoderPool(
    Plugin[EncoderPoolOptions],
    publishes=[VideoAvailable, VideoFailed, PruneIntended, VideoPruned, FailedFramesDropped, EncoderProbe],
):
    """Turns each recording in the spool into a video, or says why not.

    What is to be done is found on the disk and in the log by `run`, and from events afterwards. Handlers wait until
    the first is done, so that an event that was already found in the log does nothing twice.
    """

    async def check(self) -> None:
        """Encode a few frames with the encoder of the options."""
        options = self.options
        encoding = ffmpeg.Encoding(codec=options.codec, crf=options.crf, preset=options.preset)

        def probe() -> None:
            ffmpeg.probe(ffmpeg.find(), encoding, thumbnail=options.thumbnails)

        await anyio.to_thread.run_sync(probe)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        for folder in ("spool", "recordings", "failed"):
            refuse_link(self.home / folder)
        self._is_first = await anyio.to_thread.run_sync(begin, self.home)
        self.executable = ffmpeg.find()
        self.jobs = self.options.jobs or spare_cores()
        self._recordings: dict[str, Recording] = {}
        self._waiting: list[Job] = []
        """A heap."""
        self._running: set[Job] = set()
        self._unfinished: set[Job] = set()
        """Jobs that wait, run, or will be tried again."""
        self._frames_encoded = 0
        self._disk_full = False
        self._frames_dropped: set[str] = set()
        """Failed recordings whose frames make room, as was said before a kill kept them from it."""
        self._changed = anyio.Event()
        self._found = anyio.Event()
        self._placing = anyio.Lock()
        self._names = Names(self.home)
        self._claims = Claims()
        self._limiter = anyio.CapacityLimiter(2)
        self._priority = Priority(partial(stepping, self.home))
        # Of its own, as who gives way gives way for good.
        self._feeders = ThreadPoolExecutor(self.jobs, "encoder", initializer=lower_this_thread)
        try:
            yield
        finally:
            self._feeders.shutdown(wait=False)

    async def run(self) -> None:
        await self._find()
        self._found.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._say_progress)
            while True:
                while self._waiting and len(self._running) < self.jobs:
                    job = heapq.heappop(self._waiting)
                    self._running.add(job)
                    tasks.start_soon(self._run_job, job, tasks)
                await self._changed.wait()

    async def drain(self) -> None:
        await self._found.wait()
        while self._unfinished:
            await self._changed.wait()

    def pending(self) -> str:
        """What is still to be encoded, in words."""
        chunks = sum(job.chunk is not None for job in self._unfinished)
        videos = len(self._unfinished) - chunks
        number, what = (chunks, "chunk") if chunks else (videos, "video")
        if not number:
            return ""
        words = f"{number} {what}{'s' if number > 1 else ''} to encode"
        return f"{words} (the disk is full)" if self._disk_full else words

    # What happens ------------------------------------------------------------------------------------------------

    @on(ChunkSealed)
    async def take_chunk(self, event: ChunkSealed) -> None:
        """A job, unless it has to wait for the seal."""
        await self._found.wait()
        recording = self._known(event.recording)
        if recording is not None and 0 <= event.chunk < jobs.MOST_CHUNKS:
            recording.frames[event.chunk] = event.frames
            self._queue(recording)

    @on(RecordingSealed)
    async def take_seal(self, event: RecordingSealed) -> None:
        """All that is left of the recording can be done now."""
        await self._found.wait()
        recording = self._known(event.recording)
        if recording is not None:
            recording.seal(event)
            self._queue(recording)
        elif not await self._has_ended(event.recording):
            await self._fail_without_plan(event)

    @on(RecordingDiscarded)
    async def discard(self, event: RecordingDiscarded) -> None:
        """Call its jobs off and remove its frames."""
        await self._found.wait()
        recording = self._recordings.get(event.recording)
        if recording is not None:
            self._forget(recording)
        await self.sync()
        folder = self._folder(event.recording)
        if folder is not None:
            await self._in_thread(jobs.remove, self.home, folder)

    @on(VideoPruned)
    async def release_name(self, event: VideoPruned) -> None:
        """Forget what place the video had."""
        self._names.release(event.path, event.recording)
        self._claims.follow(event)

    @on(PruneIntended, VideoPinned, VideoUnpinned)
    async def follow_claims(self, event: PruneIntended | VideoPinned | VideoUnpinned) -> None:
        """Who may remove a video, and what nobody may."""
        self._claims.follow(event)

    # What is found at the start ----------------------------------------------------------------------------------

    async def _find(self) -> None:
        await self._in_thread(jobs.remove_leftovers, self.home)
        folders = {folder.name: folder for folder in await self._in_thread(jobs.find, self.home)}
        told = await self._told(folders)
        await self.sync()
        self._frames_dropped = told.frames_dropped
        await self._in_thread(self._withdraw_replaced, told.replaced)
        for name, folder in folders.items():
            seal = told.seals.get(name)
            plan = await self._in_thread(self._tidy, folder, seal)
            if name in told.ends:
                await self._clean_up(folder, told.ends[name])
            elif plan is not None:
                recording = self._recordings[name] = Recording(
                    folder,
                    plan,
                    frames=told.chunks[name],
                    standing=jobs.standing_in(folder),
                    encoding=jobs.read_encoding(folder),
                    entry=catalogue.read(self.home, name),
                )
                recording.seal(seal)
                self._queue(recording)
            elif seal is not None:
                await self._fail_without_plan(seal)
        for sealed in told.lost:
            await self._end_lost(sealed)

    async def _told(self, folders: dict[str, Path]) -> Told:
        """What the log says: all of it, where recordings are here that it may know; else from the last start on.

        Of a producer that it does not know, it does not know the recordings either: that of a script which has just
        started this kernel, as a rule, and the log may have gigabytes.
        """
        told, end = Told(folders), await self._in_thread(last_seq, self.home)
        known = any(self.last_nth(folder.parent.name) for folder in folders.values())
        if self._is_first and not known:
            return told
        after = 0 if known else await self._in_thread(recall, self.home, end)
        said: AsyncIterator[Record[Said]] = self.read(*SAID, after=after)
        async for record in said:
            if jobs.is_id(record.event.recording):
                told.take_in(record)
        await self.sync()  # else a power loss may put other events into the places of those that were read
        await self._in_thread(remember, self.home, told.settled(end))
        return told

    async def _end_lost(self, sealed: RecordingSealed) -> None:
        """A recording has no end, and its folder is gone, as a power loss may have it: the spool is not synced."""
        folder = jobs.folder_of(self.home, sealed.recording)
        if jobs.read_plan(folder) is not None:  # it has come since, and so has its handler's event
            return
        entry = catalogue.read(self.home, sealed.recording)
        if entry is not None and await self._in_thread(handover.stands, self.home, entry):
            await self._in_thread(handover.make_last, self.home, entry)
            await self.publish(catalogue.announcement(entry))
        else:
            await self._fail_without_plan(sealed)

    def _withdraw_replaced(self, replaced: set[str]) -> None:
        """Remove the entries of videos that were said to be replaced, as a kill kept an earlier life from doing."""
        for recording in replaced:
            entry = catalogue.read(self.home, recording)
            if entry is not None:
                handover.withdraw(self.home, entry)

    def _tidy(self, folder: Path, sealed: RecordingSealed | None) -> RecordingPlan | None:
        """Remove what attempts of an earlier life left, and read what the recording is to be."""
        jobs.remove_attempts(folder)
        if jobs.read_encoding(folder) is None:  # nobody knows any more what its segments, if any, have in common
            jobs.remove_segments(folder)
        plan = jobs.read_plan(folder)
        if plan is not None:
            handover.remove_hidden(self.home, folder, plan, sealed)
        return plan

    async def _clean_up(self, folder: Path, end: End) -> None:
        """Do what was left to do when the end was said, and is on disk: from then on the folder may be missed."""
        if not isinstance(end, VideoFailed):
            await self._in_thread(jobs.remove, self.home, folder)
            return
        put_away = kept.keep_nothing if end.frames_kept_in is None else kept.keep
        async with self._placing:  # each makes room for itself among those that are there
            keeps = end.frames_kept_in is not None
            room_bytes = await self._in_thread(kept.room_for, folder, self.options.failed_bytes, keeps)
            dropped = [
                FailedFramesDropped(recording=place.name, size_bytes=size_bytes)
                for place, size_bytes in await self._in_thread(kept.displaced, self.home, room_bytes)
                if size_bytes and place.name not in self._frames_dropped
            ]
            if dropped:
                self._frames_dropped.update(event.recording for event in dropped)
                await self.publish(*dropped)
                await self.sync()
            await self._in_thread(put_away, self.home, folder, self.options.failed_bytes, end.reason)

    def _known(self, name: str) -> Recording | None:
        """The recording, read from its folder where it is new; None where there is no folder."""
        recording = self._recordings.get(name)
        folder = self._folder(name) if recording is None else None
        if folder is not None:
            plan = jobs.read_plan(folder)
            if plan is not None:
                recording = self._recordings[name] = Recording(folder, plan)
        return recording

    def _folder(self, name: str) -> Path | None:
        """Where a recording's frames are; None, and a word, where that is the name of none."""
        try:
            return jobs.folder_of(self.home, name)
        except ValueError as error:
            _say(f"{error}; what was said of it is passed by")
            return None

    async def _has_ended(self, name: str) -> bool:
        said: AsyncIterator[Record[End]] = self.read(*END)
        async for record in said:
            if record.event.recording == name:
                return True
        return False

    # Jobs --------------------------------------------------------------------------------------------------------

    def _queue(self, recording: Recording) -> None:
        for job in recording.due():
            self._unfinished.add(job)
            heapq.heappush(self._waiting, job)
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _stands(self, recording: Recording) -> bool:
        """Whether the recording is still the pool's business: neither ended nor discarded."""
        return self._recordings.get(recording.plan.recording) is recording

    def _forget(self, recording: Recording) -> None:
        """Have nothing more to do with a recording, and call off what runs for it."""
        del self._recordings[recording.plan.recording]
        self._call_off(recording)

    def _call_off(self, recording: Recording) -> None:
        self._waiting = [job for job in self._waiting if job.recording is not recording]
        heapq.heapify(self._waiting)
        self._unfinished = {job for job in self._unfinished if job.recording is not recording or job in self._running}
        recording.call_off({job.chunk for job in self._running if job.recording is recording})
        self._note_change()

    async def _run_job(self, job: Job, tasks: TaskGroup) -> None:
        recording = job.recording
        error: Exception | None = None
        with anyio.CancelScope() as scope:
            recording.scopes.add(scope)
            try:
                await (self._finish(recording) if job.chunk is None else self._encode(recording, job.chunk))
            except (Failed, Hopeless, OSError) as raised:
                if recording.end is not None:
                    raise  # said is said: what could not be cleaned up is found at the next start
                error = raised
        recording.scopes.discard(scope)
        self._running.discard(job)
        again_in = None
        if error is None and not scope.cancelled_caught:
            self._note_disk_full(None)
            self._frames_encoded += job.frames
        elif error is not None and self._stands(recording):
            again_in = self._after_failure(job, error)
        if again_in is None:
            self._end_job(job)
        else:
            tasks.start_soon(self._try_again, job, again_in)
            self._note_change()

    def _end_job(self, job: Job) -> None:
        self._unfinished.discard(job)
        if job.chunk is not None:
            job.recording.begun.discard(job.chunk)
        if self._stands(job.recording):
            self._queue(job.recording)
        self._note_change()

    async def _try_again(self, job: Job, seconds: float) -> None:
        await anyio.sleep(seconds)
        while job.recording.refusals[job.chunk] and self._stands(job.recording):
            if await self._in_thread(self._has_room, job.recording):
                break
            await anyio.sleep(DISK_FULL_SECONDS[0])
        if self._stands(job.recording) and job.recording.failure is None:
            heapq.heappush(self._waiting, job)
            self._note_change()
        else:
            self._end_job(job)

    def _after_failure(self, job: Job, error: Exception) -> float | None:
        """Seconds to the next attempt; None where the job as such is over."""
        recording = job.recording
        if _is_disk_full(error):
            self._note_disk_full(error)
            recording.refusals[job.chunk] += 1
            return DISK_FULL_SECONDS[min(recording.refusals[job.chunk], len(DISK_FULL_SECONDS)) - 1]
        recording.attempts[job.chunk] += 1
        attempts = recording.attempts[job.chunk]
        if not recording.folder.exists():
            error = Hopeless(f"{recording.folder} is gone; it was removed by something else than Stepreel")
        if attempts >= self.options.attempts or isinstance(error, Hopeless):
            recording.failure = Failure(_words(error), attempts)
            recording.finishing = False
            self._call_off(recording)
            return None
        if isinstance(error, WrongJoin):
            jobs.remove_segments(recording.folder)
            recording.standing.clear()
            recording.finishing = False
            return None
        return RETRY_SECONDS[min(attempts, len(RETRY_SECONDS)) - 1]

    def _has_room(self, recording: Recording) -> bool:
        """Whether there is some room where the work is done, and where the video will be: a try costs an encode."""
        target = handover.target_of(self.home, recording.folder, recording.plan, recording.sealed)
        try:
            # What a quota leaves, only a trial tells; but nothing is ever tried out in the videos' folder.
            free_bytes = shutil.disk_usage(handover.nearest(target.parent)).free
            return free_bytes >= LEAST_ROOM_BYTES and has_room(recording.folder, LEAST_ROOM_BYTES)
        except OSError:
            return True  # the next attempt tells why

    def _note_disk_full(self, error: Exception | None) -> None:
        if (error is not None) != self._disk_full:
            self._disk_full = error is not None
            words = f"THE DISK IS FULL: {_words(error)}; videos wait for room" if error else "there is room again"
            sys.stderr.write(f"encoder: {words}\n")

    async def _encode(self, recording: Recording, chunk: int) -> None:
        await self._work(make_segment, self._order(recording), chunk)
        recording.standing.add(chunk)

    async def _finish(self, recording: Recording) -> None:
        """Say the recording's end, which is on disk before its frames are removed."""
        sealed = recording.sealed
        assert sealed is not None
        if sealed.frames == 0:
            recording.failure = Failure("no frame was captured", 0)
        if recording.failure is not None:
            recording.end = await self._give_up(recording.folder, sealed, recording.failure)
        elif recording.entry is None:
            recording.end = await self._make(recording, sealed)
        elif await self._in_thread(handover.stands, self.home, recording.entry):
            await self._in_thread(handover.make_last, self.home, recording.entry)
            recording.end = catalogue.announcement(recording.entry)
            await self.publish(recording.end)
        else:
            await self._in_thread(handover.withdraw, self.home, recording.entry)
            recording.entry, recording.finishing = None, False
            return
        fail_point("encoder.end.said")
        await self.sync()
        fail_point("encoder.end.synced")
        await self._clean_up(recording.folder, recording.end)
        del self._recordings[recording.plan.recording]

    async def _make(self, recording: Recording, sealed: RecordingSealed) -> VideoAvailable:
        made = await self._work(make_video, self._order(recording), sealed)
        await self.sync()  # where a video stands, its seal is in the log
        granted: set[str] = set()
        try:
            while True:
                async with self._placing:
                    target, others = await self._in_thread(self._settle, recording, sealed)
                    if granted.issuperset(each.recording for each in others):
                        made = await self._in_thread(handover.bring_near, made, target, recording.plan.recording)
                        return await self._place(recording, sealed, target, made, others)
                # Not under the lock, which a handler may want: the answer comes through the handlers.
                for each in others:
                    if await self._claims.claim(each, recording.plan.recording, self.publish):
                        granted.add(each.recording)
        finally:
            handover.discard(made)

    def _settle(self, recording: Recording, sealed: RecordingSealed) -> tuple[Path, list[Entry]]:
        """Where the video will be, and the entries of those that have this place and would give way."""
        plan, names = recording.plan, self._names
        pinned = self._claims.pinned
        target = handover.settle_target(names, self.home, recording.folder, plan, sealed, pinned)
        return target, handover.displaced(names, target, plan.recording)

    async def _place(
        self, recording: Recording, sealed: RecordingSealed, target: Path, made: Made, others: list[Entry]
    ) -> VideoAvailable:
        await self._displace(others, recording.plan.recording)
        place = partial(handover.place, available=self._names.next_time(time.time()))
        entry = await self._in_thread(place, self.home, target, made, recording.plan, sealed)
        self._names.take(entry.path, entry.recording)
        available = catalogue.announcement(entry)
        await self.publish(available)
        return available

    async def _displace(self, others: list[Entry], recording: str) -> None:
        """Announce that these videos go, before they do."""
        if not others:
            return
        for entry in others:
            await self.publish(
                VideoPruned(
                    recording=entry.recording,
                    session=entry.session,
                    path=entry.path,
                    size_bytes=handover.size_of(self.home, entry),
                    policy="replaced",
                    reason=f"the video of {recording} takes its name",
                )
            )
        fail_point("encoder.displaced.said")
        await self.sync()
        for entry in others:
            await self._in_thread(handover.withdraw, self.home, entry)

    async def _give_up(self, folder: Path, sealed: RecordingSealed, failure: Failure) -> VideoFailed:
        failed = VideoFailed(
            recording=sealed.recording,
            session=sealed.session,
            attempts=failure.attempts,
            reason=failure.reason,
            frames_kept_in=kept.place_for(self.home, folder, self.options.failed_bytes),
        )
        await self.publish(failed)
        return failed

    async def _fail_without_plan(self, sealed: RecordingSealed) -> None:
        """End a recording whose folder does not say any more what it was to be, or is gone."""
        folder = self._folder(sealed.recording)
        if folder is None:
            return
        lost = f"{folder / 'recording.json'} is damaged" if folder.exists() else f"{folder} is gone"
        failed = await self._give_up(folder, sealed, Failure(f"{lost}, so nobody knows what the video is to be", 0))
        await self.sync()
        await self._clean_up(folder, failed)

    def _order(self, recording: Recording) -> Order:
        options = self.options
        if recording.encoding is None:
            encoding = ffmpeg.Encoding(codec=options.codec, crf=options.crf, preset=options.preset)
            if sum(job.frames for job in self._waiting) > options.backlog_frames:
                encoding = encoding.under_backlog()
            jobs.write_encoding(recording.folder, encoding)
            recording.encoding = encoding
        return Order(
            home=self.home,
            folder=recording.folder,
            plan=recording.plan,
            encoding=recording.encoding,
            executable=self.executable,
            stall_seconds=options.stall_seconds,
            thumbnail=options.thumbnails,
            # A job that runs alone takes the cores that nobody else has: 500 frames of CartPole in 0.56 s, not in 0.76.
            threads=1 + max(0, self.jobs - len(self._running)),
        )

    async def _work(self, make: Callable[[Order, Child, A], T], order: Order, what: A) -> T:
        """Run this in a thread. Being cancelled kills its ffmpeg, which ends the thread, and waits for that."""
        child = Child(self._priority)
        made: list[T] = []
        error: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_kill_when_cancelled, child)
            try:
                with anyio.CancelScope(shield=True):
                    made.append(await get_running_loop().run_in_executor(self._feeders, make, order, child, what))
            except (Failed, Hopeless, OSError) as raised:
                error = raised  # raised below, outside the group, which would wrap it
            tasks.cancel_scope.cancel()
        if error is not None:
            raise error
        return made[0]

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)

    async def _say_progress(self) -> None:
        said = EncoderProbe(waiting_chunks=0, running_jobs=0, frames_encoded=0)
        while True:
            await anyio.sleep(PROBE_SECONDS)
            probe = EncoderProbe(
                waiting_chunks=sum(job.frames > 0 for job in self._unfinished - self._running),
                running_jobs=len(self._running),
                frames_encoded=self._frames_encoded,
            )
            if probe != said:
                await self.publish(probe)
                said = probe


async def _kill_when_cancelled(child: Child) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        child.kill()


def _is_disk_full(error: Exception) -> bool:
    words = str(error)
    return wants_space(error) or any(os.strerror(number) in words for number in NO_SPACE) or "SIGXFSZ" in words


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _say(line: str) -> None:
    sys.stderr.write(f"encoder: {shown(line)}\n")
