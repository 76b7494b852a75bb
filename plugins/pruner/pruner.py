"""The plugin: keeps the videos within their limits, and begins no recording where the disk has no room."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import anyio
import anyio.to_thread
import msgspec

from kernel.checked import NotAsWritten
from kernel.event import Event
from kernel.fail_points import fail_point
from kernel.log import last_seq
from kernel.plugin import Options, Plugin, on, refuse_link
from kernel.terminal import shown
from plugins import catalogue
from plugins.events import (
    CaptureHeld,
    FileDamaged,
    PruneIntended,
    RecordingStarted,
    RetentionAsked,
    SessionEnded,
    VideoAvailable,
    VideoDeleteAsked,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)
from plugins.pruner.history import RETAINED, History, recall, remember
from plugins.pruner.removal import remove, remove_empty_folder, withdraw
from plugins.retention import (
    DAY_SECONDS,
    AskedLimits,
    Limits,
    LimitsInForce,
    Policy,
    asked_limits,
    displaced,
    write_limits,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from plugins.catalogue import Entry

REVIEW_SECONDS = 3600.0
"""How often to look for videos that grew too old."""
SPACE_SECONDS = 5.0
"""How often to look for free space."""
ROOM_AGAIN = 1.1
"""Recordings begin again at this multiple of `min_free_bytes`, so that they are not held and let go in turns."""


class PrunerOptions(Options):
    max_videos_per_session: int = 50
    """How many videos without a pin a session may have; 0: as many as come."""
    max_bytes: int = 0
    """How many bytes all videos of the home together may have, pinned ones included; 0: no limit."""
    max_age_days: float = 0.0
    """Remove videos that are older; 0: never."""
    evict: Literal["oldest", "thin"] = "oldest"
    """Which go first: the oldest, or (thin) as many all over the session, the first and the last kept."""
    min_free_bytes: int = 500_000_000
    """Begin no new recording while the disk has less free space; 0: never mind. Removes nothing."""

    def __post_init__(self) -> None:
        for name in ("max_videos_per_session", "max_bytes", "max_age_days", "min_free_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must be 0 (no limit) or more; it is {getattr(self, name)}")

    @property
    def policy(self) -> Policy:
        """The limits, as the planner takes them."""
        return Policy(
            max_videos_per_session=self.max_videos_per_session,
            max_bytes=self.max_bytes,
            max_age_seconds=self.max_age_days * DAY_SECONDS,
            evict=self.evict,
        )


class ReviewDue(Event):
    """The pruner's own word to itself, now and then: look for what grew too old."""

    durable: ClassVar[bool] = False


class Clock:
    """The time by which videos grow old: the machine's, but never further on than time has passed since the start.

    So a clock that is set forward by mistake makes no video too old. It is believed at the next start.
    """

    def __init__(self) -> None:
        self._started = time.time() - _passed()

    def now(self) -> float:
        """Unix time in seconds."""
        return min(time.time(), self._started + _passed())


def _passed() -> float:
    """Seconds that pass with the machine, asleep or not, whatever its clock is set to."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Pruner(Plugin[PrunerOptions], publishes=[CaptureHeld, FileDamaged, PruneIntended, ReviewDue, VideoPruned]):
    """Keeps the home's videos within their limits, and pins and removes those that a user asks for.

    A removal is said, synced and only then done, and it is done when the intent comes back through the pruner's own
    mailbox: so a pin that stands before the intent in the log was always heard first. What a kill left undone is
    found in the log at the next start. Everything is done in handlers, and so one after the other.
    """

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        refuse_link(catalogue.folder(self.home))
        self._entries: dict[str, Entry] = {}
        """The finished videos, by recording, without those whose removal is intended."""
        self._unreadable: set[str] = set()
        """Recordings whose entries are damaged, which was said."""
        self._leaving: dict[str, Entry] = {}
        """Those whose removal is intended and not yet done."""
        self._emptied: set[str] = set()
        """Sessions that lost a video, and whose folder may be empty by now."""
        self._outside: set[Path] = set()
        """Folders of videos outside of the home."""
        self._clock = Clock()
        await anyio.to_thread.run_sync(catalogue.clear_up, self.home)
        self._asked = await anyio.to_thread.run_sync(asked_limits, self.home)
        self._limits = asked_options(self.options, self._asked)
        await self._say_limits()
        self._history = await self._heard()
        await self._review()
        for intent in list(self._history.intended.values()):
            self._leave(intent.recording)
            await self._carry_out(intent)
        for wish in list(self._history.asked.values()):
            if wish.recording in self._entries:
                await self._grant(wish)
        await self._prune()
        yield

    async def _heard(self) -> History:
        """What the log says up to now."""
        remembered = await anyio.to_thread.run_sync(recall, self.home)
        history, end = remembered.history, await anyio.to_thread.run_sync(last_seq, self.home)
        async for record in self.read(*RETAINED, after=remembered.up_to):
            history.note(record.event)
        await self.sync()  # else a power loss may put other events into the places of those that were read
        with suppress(OSError):  # a full disk must not keep the pruner from its work; the next start reads more
            await anyio.to_thread.run_sync(remember, self.home, end, history)
        return history

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_space)
            while True:
                await anyio.sleep(REVIEW_SECONDS)
                await self.publish(ReviewDue())

    def pending(self) -> str:
        return f"{len(self._leaving)} videos to remove" if self._leaving else ""

    async def _say_limits(self) -> None:
        """Let the home say which limits are in force."""
        limits = self._limits
        said = Limits(
            max_videos_per_session=limits.max_videos_per_session,
            max_bytes=limits.max_bytes,
            max_age_days=limits.max_age_days,
            evict=limits.evict,
        )
        await anyio.to_thread.run_sync(write_limits, self.home, LimitsInForce(limits=said, asked=self._asked))

    # What happens -------------------------------------------------------------------------------------------------

    @on(RecordingStarted)
    async def watch_its_disk(self, recording: RecordingStarted) -> None:
        self._know_folder(recording.path)

    @on(VideoAvailable)
    async def take_in(self, video: VideoAvailable) -> None:
        self._history.note(video)
        entry = catalogue.read(self.home, video.recording)
        if entry is not None and entry.recording not in self._leaving:
            await self._take_in(entry)
            await self._prune()

    @on(SessionEnded, ReviewDue)
    async def look_again(self, _event: SessionEnded | ReviewDue) -> None:
        await self._review()
        await self._prune()

    @on(RetentionAsked)
    async def take_limits(self, asked: RetentionAsked) -> None:
        """Keep to other limits from now on, in later runs, too."""
        wanted = AskedLimits(
            max_videos_per_session=asked.max_videos_per_session,
            max_bytes=asked.max_bytes,
            max_age_days=asked.max_age_days,
            evict=asked.evict,
            by=asked.by,
        )
        try:
            self._limits = asked_options(self.options, wanted)
        except ValueError as refusal:
            _say(f"{asked.by or 'a user'} asked for other limits: {refusal}")
            return
        self._asked = wanted
        await self._say_limits()
        await self._review()
        await self._prune()

    @on(VideoPinned)
    async def pin(self, wish: VideoPinned) -> None:
        """Also a video whose removal is intended, as long as it stands."""
        self._history.note(wish)
        entry = self._entries.get(wish.recording) or self._leaving.pop(wish.recording, None)
        entry = entry or catalogue.read(self.home, wish.recording)  # one that was to be replaced
        if entry is not None:
            await self._take_in(entry)

    @on(VideoUnpinned)
    async def unpin(self, wish: VideoUnpinned) -> None:
        self._history.note(wish)
        entry = self._entries.get(wish.recording)
        if entry is not None:
            await self._take_in(entry)
            await self._prune()

    @on(VideoDeleteAsked)
    async def delete(self, wish: VideoDeleteAsked) -> None:
        self._history.note(wish)
        if wish.recording not in self._leaving:
            await self._grant(wish)

    @on(PruneIntended)
    async def remove(self, intent: PruneIntended) -> None:
        self._history.note(intent)
        recording = intent.recording
        if intent.policy == "replaced":  # first in the log, so the encoder does it; an intent of ours comes too late
            self._entries.pop(recording, None)
            self._leaving.pop(recording, None)
        elif recording in self._leaving and catalogue.read(self.home, recording) is not None:
            await self._carry_out(intent)
        else:  # a pin made it void, a restart has carried it out already, or another has replaced the video
            self._history.intended.pop(recording, None)
            self._leaving.pop(recording, None)

    @on(VideoPruned)
    async def forget(self, pruned: VideoPruned) -> None:
        """Also one that somebody else replaced."""
        self._history.note(pruned)
        self._entries.pop(pruned.recording, None)
        self._leaving.pop(pruned.recording, None)
        if pruned.policy == "replaced":  # a pin that was heard meanwhile may have written its entry anew
            await anyio.to_thread.run_sync(withdraw, self.home, pruned.recording)

    # Removal ------------------------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        """Intend what the policy displaces."""
        intents = []
        for removal in displaced(self._entries.values(), self._limits.policy, self._clock.now()):
            if catalogue.read(self.home, removal.entry.recording) is None:  # another has removed it, and says so
                del self._entries[removal.entry.recording]
            else:
                intents.append(self._intent(removal.entry, removal.policy, removal.reason))
        if intents:
            fail_point("pruner.intent.before")
            await self.publish(*intents)
            fail_point("pruner.intent.after")

    async def _grant(self, wish: VideoDeleteAsked) -> None:
        entry = self._entries.get(wish.recording)
        if entry is None:
            _say(f"{wish.recording}: there is no such video to delete")
        elif entry.pinned:
            _say(f"{wish.recording}: is pinned and stays; unpin it first to delete it")
        else:
            await self.publish(self._intent(entry, "asked", f"asked for by {wish.by or 'a user'}", by=wish.by))

    def _intent(self, entry: Entry, policy: str, reason: str, by: str = "") -> PruneIntended:
        self._leave(entry.recording)
        return PruneIntended(
            recording=entry.recording,
            session=entry.session,
            path=entry.path,
            size_bytes=entry.identity.size_bytes,
            policy=policy,
            reason=reason,
            by=by,
        )

    async def _carry_out(self, intent: PruneIntended) -> None:
        """Remove a video whose intent is in the log. One that cannot be removed is tried again at the next start."""
        await self.sync()
        fail_point("pruner.intent.synced")
        entry = self._leaving.get(intent.recording)
        freed_bytes = 0
        if entry is not None:
            try:
                freed_bytes = await anyio.to_thread.run_sync(remove, self.home, entry)
            except OSError as error:
                _say(f"{self.home / intent.path}: cannot be removed: {error.strerror}; the next start tries again")
                return
        pruned = VideoPruned(
            recording=intent.recording,
            session=intent.session,
            path=intent.path,
            size_bytes=freed_bytes,
            policy=intent.policy,
            reason=intent.reason,
            by=intent.by,
        )
        self._history.note(pruned)
        self._leaving.pop(intent.recording, None)
        fail_point("pruner.pruned.before")
        await self.publish(pruned)
        fail_point("pruner.pruned.after")
        self._emptied.add(intent.session)
        await self._remove_empty_folders()

    async def _remove_empty_folders(self) -> None:
        for session in list(self._emptied):
            if await anyio.to_thread.run_sync(remove_empty_folder, self.home, session):
                self._emptied.discard(session)

    # What there is ------------------------------------------------------------------------------------------------

    async def _review(self) -> None:
        """Read the catalogue, for what came while nobody listened, and try the empty folders again."""
        for recording in await anyio.to_thread.run_sync(_damaged, self.home):
            if recording not in self._unreadable:
                self._unreadable.add(recording)
                await self._say_damaged(recording)
        for entry in await anyio.to_thread.run_sync(_finished, self.home):
            if entry.recording not in self._entries and entry.recording not in self._leaving:
                await self._take_in(entry)
        await self._remove_empty_folders()

    async def _say_damaged(self, recording: str) -> None:
        file = catalogue.folder(self.home) / f"{recording}.json"
        consequence = (
            f"{file}: is not what was written into it, so its video is not counted, and stays. Restore it, or run "
            f"`python -m kernel check-home {self.home}`."
        )
        _say(consequence)
        await self.publish(FileDamaged(file=file.relative_to(self.home).as_posix(), consequence=consequence))

    async def _take_in(self, entry: Entry) -> None:
        """Count a video among those that stand, and let its entry say what the log says about its pin."""
        recording, history = entry.recording, self._history
        pinned = recording in history.pinned or (entry.pinned and recording not in history.unpinned)
        if pinned != entry.pinned:
            by = history.pinned.get(recording, "")
            entry = msgspec.structs.replace(entry, pinned=pinned, pinned_by=by)
            await anyio.to_thread.run_sync(catalogue.write, self.home, entry)
        self._entries[recording] = entry
        self._know_folder(entry.path)

    def _leave(self, recording: str) -> None:
        entry = self._entries.pop(recording, None) or catalogue.read(self.home, recording)
        if entry is not None:
            self._leaving[recording] = entry

    def _know_folder(self, path: str) -> None:
        if Path(path).is_absolute():
            self._outside.add(Path(path).parent)

    # Free space ---------------------------------------------------------------------------------------------------

    async def _watch_space(self) -> None:
        while True:
            free_bytes = await anyio.to_thread.run_sync(_free_bytes, {self.home, self.home / "videos", *self._outside})
            await self._hold_or_let_go(free_bytes)
            await anyio.sleep(SPACE_SECONDS)

    async def _hold_or_let_go(self, free_bytes: int) -> None:
        wanted, history = self.options.min_free_bytes, self._history
        if free_bytes < wanted and not history.held:
            _say(
                f"LOW DISK: {free_bytes} bytes are free and min_free_bytes is {wanted}: NO NEW RECORDING BEGINS until "
                "there is room. Telemetry goes on; nothing is removed."
            )
        elif history.held and free_bytes >= wanted * ROOM_AGAIN:
            _say(f"there is room again ({free_bytes} bytes are free): new recordings begin")
        else:
            return
        history.held = not history.held
        await self.publish(CaptureHeld(held=history.held, free_bytes=free_bytes, min_free_bytes=wanted))


def asked_options(options: PrunerOptions, asked: AskedLimits) -> PrunerOptions:
    """The options with what a user asked for in their place. Raises `ValueError` for what is no limit."""
    wanted = {
        name: value for name, value in msgspec.structs.asdict(asked).items() if name != "by" and value is not None
    }
    return msgspec.structs.replace(options, **wanted)


def _finished(home: Path) -> list[Entry]:
    """The catalogue's entries, without those whose videos may not have been announced yet."""
    waiting = catalogue.unfinished(home)
    return [entry for entry in catalogue.read_all(home) if entry.recording not in waiting]


def _damaged(home: Path) -> list[str]:
    """The recordings whose entries are not what was written into them."""
    return [recording for recording in catalogue.recordings(home) if not _is_readable(home, recording)]


def _is_readable(home: Path, recording: str) -> bool:
    try:
        catalogue.read_or_refuse(home, recording)
    except NotAsWritten:
        return False
    return True


def _free_bytes(folders: Iterable[Path]) -> int:
    """The free space of the fullest of the disks that these folders are on."""
    return min(shutil.disk_usage(folder).free for folder in folders if folder.exists())


def _say(line: str) -> None:
    sys.stderr.write(f"pruner: {shown(line)}\n")
