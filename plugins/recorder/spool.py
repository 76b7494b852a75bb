"""The spool: the folder where a producer leaves events and frames for the kernel, and the thread that writes it.

    home/spool/<producer>/
        lock                    held for the producer's life; who gets it knows that the producer is dead
        producer.json           `ProducerFile`
        events-000001.bin, …    batches: u32le length and u32le CRC-32 of the body; u64le first nth; a msgpack array
        <recording>/            recording.json (`RecordingPlan`), and its chunks (see `frames`)
        control.json            `Control`, written by the kernel; until it is there, home/capture.json applies
    live-<worker>.frame     the latest picture of a worker, while somebody watches (see `live`)
        collected.json          written by the kernel: which event files it has taken in, and what was open behind them

Who steps appends bytes to lists, and nothing else. The writer thread takes the events first and then the frames, and
writes the frames first and then the events: so what an event speaks of is there when the event is.
"""

from __future__ import annotations

import atexit
import math
import os
import re
import secrets
import shutil
import string
import struct
import threading
import time
import weakref
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal, NamedTuple
from zlib import crc32

import msgspec

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.fail_points import fail_point
from kernel.files import FileLock, acquire, is_folder, open_regular, sync_folder, write_all
from plugins.events import CaptureSettings, Keep, Probe, StepTimes
from plugins.recorder.frames import ChunkHeader, ChunkWriter, GrowingFile, checksum
from plugins.recorder.live import Watched, Watching, clear_moments, together, write_moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kernel.event import Event

EVENT_FILE_BYTES = 4 * 1024 * 1024
"""An event file that has reached this size is followed by the next one."""

MEMORY_BYTES = 64 * 1024 * 1024
SPOOL_BYTES = 4 * 1024 * 1024 * 1024


class RecordingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `recording.json` says about a video to be, before its first frame."""

    recording: str
    session: str
    worker: int
    episode: int
    env_id: str
    path: str
    """Where the video will be: posix, relative to the home, or absolute where the user chose a folder outside it."""
    fps: float
    width: int
    height: int
    keep: Keep
    wait_for_seal: bool
    """Encode nothing before `RecordingSealed` is in the log: a keep policy decides then."""
    started: float
    """Unix time in seconds."""
    capture: str
    """Why it is captured, such as `every 5`."""
    max_videos: int = 0
    """Of this environment's videos, the newest so many stay; 0: all."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel tells a producer, in `control.json`."""

    settings: CaptureSettings | None = None
    """What users asked for; None: the producer's own configuration."""
    asked: int = 0
    """The seq of the `CaptureAsked` that `settings` came from."""
    once: int = 0
    """The seq of the last request to capture each worker's next episode, once."""
    held: bool = False
    """The disk is nearly full: begin no new recording."""
    watching: dict[str, Watching] = {}
    """Who watches the session live."""


class ProducerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `producer.json` says."""

    producer: str
    session: str
    pid: int
    started: float
    """Unix time in seconds."""
    lock: tuple[int, int] = (0, 0)
    """Inode and time of change (in nanoseconds) of the lock file, which no copy of the folder has: see `made_here`."""


def made_here(folder: Path) -> bool:
    """Whether the producer whose folder this is ran on this file system, and its folder was not brought here.

    Nobody can choose a file's time of change, so what came with an archive does not have the one that was noted.
    """
    try:
        about = read_checked(folder / "producer.json", ProducerFile)
        status = (folder / "lock").lstat()
    except (OSError, NotAsWritten):
        return False
    return is_folder(folder) and about is not None and about.lock == (status.st_ino, status.st_ctime_ns)


def stepping(home: Path) -> list[int]:
    """The process ids of a home's producers, as they say; one that is dead may be somebody else's by now."""
    found = []
    for file in spool_folder(home).glob("*/producer.json"):
        with suppress(OSError, NotAsWritten):
            about = read_checked(file, ProducerFile)
            found += [about.pid] if about is not None else []
    return found


def spool_folder(home: Path) -> Path:
    """Where the producers of a home leave their folders."""
    return home / "spool"


def new_session_id() -> str:
    """A session's id: when it began, in UTC, and four characters of chance."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + _chance(4)


def new_producer_id(session: str) -> str:
    """A producer's id: its session, and eight characters that are never used again."""
    return f"{session}-{_chance(8)}"


def _chance(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


_ALPHABET = string.ascii_lowercase + string.digits


# Event files -------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Events that were written together."""

    first_nth: int
    events: bytes
    """A msgpack array, for `kernel.event.decode_batch`."""
    end_offset: int
    """Where the next batch begins in the file."""


class Batches(NamedTuple):
    """What an event file holds from an offset on."""

    whole: list[Batch]
    rest: Literal["", "incomplete", "damaged"]
    """What follows the last whole batch: nothing; one that is cut off, or still being written; bytes that are no batch,
    with a whole batch somewhere behind them."""


def event_files(folder: Path) -> list[Path]:
    """The event files of a producer's folder, the oldest first."""
    return sorted(path for path in folder.glob("events-*.bin") if _EVENT_FILE.fullmatch(path.name))


def event_file(folder: Path, number: int) -> Path:
    """The path of a producer's event file; numbers count from 1."""
    return folder / f"events-{number:06d}.bin"


def read_batches(path: Path, offset: int = 0) -> Batches:
    """The whole batches from the offset on, and how the rest looks; what to do about a rest is the caller's choice.

    At most `BATCH_BYTES` at once; where that is not all, the last batch of it counts as incomplete.
    """
    with open_regular(path) as file:
        file.seek(offset)
        content = file.read(BATCH_BYTES)
        more = len(content) == BATCH_BYTES
    whole: list[Batch] = []
    at = 0
    while len(content) - at >= _BATCH.size:
        batch = _batch_at(content, at)
        if batch is None:
            break
        at = batch.end_offset
        whole.append(batch._replace(end_offset=offset + at))
    if at == len(content):
        return Batches(whole, "")
    if more:
        return Batches(whole, "incomplete" if whole else "damaged")
    return Batches(whole, "damaged" if _any_batch(content, at) else "incomplete")


def _batch_at(content: bytes, at: int) -> Batch | None:
    """The batch that begins there; None where none does that is whole."""
    length, checksum = _BATCH.unpack_from(content, at)
    end = at + _BATCH.size + length
    if end > len(content) or length < _NTH.size:
        return None
    body = content[at + _BATCH.size : end]
    return Batch(_NTH.unpack_from(body)[0], body[_NTH.size :], end) if crc32(body) == checksum else None


def _any_batch(content: bytes, after: int) -> bool:
    """Whether a whole batch begins somewhere behind this place: then what stands there was not torn off an end."""
    mark = after
    while (mark := content.find(_NTH_END, mark + 1)) >= 0:
        start = mark + len(_NTH_END) - 1 - _NTH.size - _BATCH.size
        if start > after and _batch_at(content, start) is not None:
            return True
    return False


def append_batch(path: Path, first_nth: int, events: Sequence[Event]) -> None:
    """Append a batch to a dead producer's event file, which must end with a whole one; it lasts when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fail_point("spool.append.created")
        write_all(descriptor, pack_batch(first_nth, [encode(event) for event in events]))
        fail_point("spool.append.written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def pack_batch(first_nth: int, packed: Sequence[bytes]) -> bytes:
    """A batch of events that are msgpack already, as it stands in an event file."""
    body = b"".join((_NTH.pack(first_nth), _ARRAY.pack(0xDD, len(packed)), *packed))
    return _BATCH.pack(len(body), checksum(body)) + body


encode = msgspec.msgpack.Encoder().encode
"""An event as the bytes that `say_packed` takes."""

BATCH_BYTES = 256 * 1024 * 1024
"""Longer than any batch: about a megabyte, or one event, of which none in memory is as large."""
_EVENT_FILE = re.compile(r"events-\d{6,9}\.bin")
_BATCH = struct.Struct("<II")
_NTH = struct.Struct("<Q")
_NTH_END = b"\0\0\0\xdd"
"""How the count of a batch's first event ends, as long as it has less than 13 digits, and its array begins."""
_ARRAY = struct.Struct(">BI")  # msgpack's array32


# The stepping side -------------------------------------------------------------------------------------------------


class Film:
    """A recording in the making, as the stepping thread and the writer thread know it."""

    def __init__(self, plan: RecordingPlan, header: ChunkHeader) -> None:
        self.plan = plan
        self.header = header
        # The stepping thread's: frames appended, those that were dropped, and the last payload in this chunk.
        self.frames = 0
        self.dropped = 0
        self.last = b""
        # The writer thread's.
        self.writer: ChunkWriter | None = None
        self.chunks_written = 0
        self.folder_made = False


class Ending:
    """What seals a recording, prepared: the writer thread does it when it is due, unless somebody claims it before.

    Its token is taken out of a list, which one thread alone can succeed in.
    """

    __slots__ = ("_token", "due", "events", "frames")

    def __init__(self, due: float, frames: Sequence[tuple[Film, None]], events: Sequence[bytes]) -> None:
        self.due = due
        """By the monotonic clock."""
        self.frames = frames
        self.events = events
        self._token = [True]

    @property
    def waits(self) -> bool:
        """Whether nobody has claimed it."""
        return bool(self._token)

    def claim(self) -> bool:
        """Take the recording's end into one's own hands; False where somebody else was first."""
        try:
            return self._token.pop()
        except IndexError:
            return False


class StepClock:
    """How long steps took. One thread counts; the writer thread reads, and takes `longest` back to zero."""

    __slots__ = ("counts", "longest", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one step."""
        self.counts[min(int(seconds * 1e6).bit_length(), BUCKETS - 1)] += 1
        self.total += seconds
        if seconds > self.longest:  # noqa: PLR1730 - max() costs a call at every step
            self.longest = seconds


BUCKETS = 32


class Meter:
    """What one recorder has handed over and dropped, ever. Only the thread that steps it counts here."""

    __slots__ = ("bare", "captured", "frames_dropped", "handed_bytes", "steps_dropped")

    def __init__(self) -> None:
        self.handed_bytes = 0
        self.frames_dropped = 0
        self.steps_dropped = 0
        self.captured = StepClock()
        self.bare = StepClock()


class Outbox:
    """What one process hands to its writer thread: two lists, and numbers that each one thread alone changes.

    `list.append` and reading an attribute are all that the stepping thread does with it, so it waits for nobody.
    """

    def __init__(self, home: Path, session: str, memory_bytes: int, spool_bytes: int) -> None:
        self.home = home
        self.session = session
        self.producer = new_producer_id(session)
        self.folder = spool_folder(home) / self.producer
        self.memory_bytes = memory_bytes
        self.spool_bytes = spool_bytes
        self.events: list[bytes] = []
        self.frames: list[tuple[Film, bytes | None]] = []
        """A film's next payload; None seals its chunk."""
        self.wake: SimpleQueue[threading.Event | None] = SimpleQueue()
        self.awake = False
        self.recordings = count()
        self.endings: list[Ending] = []
        self.meters: tuple[Meter, ...] = (Meter(),)
        """The first is that of `Producer.say` and of recorders that are closed."""
        self.moments: dict[int, tuple[bytes, bytes]] = {}
        """Of each worker the latest that is to be shown live: a `Moment` and its picture."""
        # The writer thread's.
        self.control = Control()
        self.watched: Watched | None = None
        """What those want who watch; None while nobody does."""
        self.trouble = ""
        """Why the disk does not take what it should, at the moment."""
        self.trouble_told = False
        self.written_bytes = 0
        self.spool_used_bytes = 0

    def unsent_bytes(self) -> int:
        """Bytes in memory that wait for the disk, with what Python needs to hold them."""
        return sum([meter.handed_bytes for meter in self.meters]) - self.written_bytes

    def fullness(self) -> int:
        """0: there is room. 1: past a bound, so no frames are taken. 2: past twice a bound, so no steps are."""
        unsent = self.unsent_bytes()
        if unsent > WAKE_BYTES and not self.awake:
            self.awake = True
            self.wake.put(None)  # a SimpleQueue's put never waits
        in_spool = self.spool_used_bytes + unsent
        return min(2, max(unsent // (self.memory_bytes + 1), in_spool // (self.spool_bytes + 1)))


ITEM_BYTES = 100
"""What an item on a list costs beside its bytes: about the object's header, its tuple and its place in the list."""

WAKE_BYTES = 1024 * 1024
"""The writer thread is woken when so much waits."""


class Producer:
    """One process that steps environments, seen from one home: its folder in the spool, and its writer thread.

    Nothing is on the disk before the first `say` or `start`. Nothing here waits for the disk but `flush` and `close`.
    Past `memory_bytes` that wait for the disk, or `spool_bytes` in the home's whole spool, frames are dropped; past
    twice as many, steps are; both are counted. Events other than steps are never dropped.

    A forked child gets an empty producer with an id of its own, in the same session.
    """

    def __init__(
        self, home: Path, session: str, *, memory_bytes: int = MEMORY_BYTES, spool_bytes: int = SPOOL_BYTES
    ) -> None:
        self.home = home.absolute()
        self.session = session
        self.outbox = Outbox(self.home, session, memory_bytes, spool_bytes)
        self._thread: threading.Thread | None = None
        self._writer: Writer | None = None
        self._lock = threading.Lock()
        self._closed = False
        _producers.add(self)

    @property
    def closed(self) -> bool:
        """Nothing is taken any more."""
        return self._closed

    @property
    def id(self) -> str:
        """`<session>-<8 characters>`; another one in a forked child."""
        return self.outbox.producer

    def start(self) -> None:
        """Read what users asked for, and start the writer thread. `say` does it too; a second call is harmless."""
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self.outbox.control = _read_control(self.home / "capture.json") or Control()
            self._writer = Writer(self.outbox)
            self._thread = threading.Thread(target=self._writer.run, name=f"spool {self.id}", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def say(self, event: Event) -> None:
        """Hand an event over, from any thread. It is bytes when this returns, and is never dropped.

        After `close` nothing is taken.
        """
        packed = encode(event)
        self.start()
        with self._lock:  # the stepping thread does not come here
            if not self._closed:
                self.outbox.meters[0].handed_bytes += len(packed) + ITEM_BYTES
                self.outbox.events.append(packed)

    def join(self, meter: Meter) -> None:
        """Take a recorder's meter in, before it hands anything over."""
        self.start()
        with self._lock:
            self.outbox.meters = (*self.outbox.meters, meter)

    def leave(self, meter: Meter) -> None:
        """Let a recorder go, which hands nothing over any more. Its counts stay in the sums."""
        with self._lock:
            first, *others = self.outbox.meters
            if meter in others:
                self.outbox.meters = (_added(first, meter), *[other for other in others if other is not meter])

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Return when all that was handed over before is in files: True, or False where that took too long."""
        if self._thread is None or self._closed:
            return not self.outbox.unsent_bytes()
        done = threading.Event()
        self.outbox.wake.put(done)
        return done.wait(timeout_seconds)

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Write all that waits, stop the writer thread, release the lock; the folder stays for the collector.

        Returns False where the disk did not take everything in time; what it did not take is lost, and whoever
        collects the folder finds it as that of a killed producer. A second call is harmless.
        """
        with self._lock:
            if self._closed:
                return True
            self._closed = True
        atexit.unregister(self.close)
        if self._thread is None or self._writer is None:
            return True
        self._writer.stop(timeout_seconds)
        self._thread.join(timeout_seconds + 1.0)
        return not self._thread.is_alive() and not self.outbox.unsent_bytes()

    def forget_parent(self) -> None:
        """In a forked child: drop what was inherited, where threads, lists and locks are the parent's."""
        if self._writer is not None:
            self._writer.forget_files()
            atexit.unregister(self.close)
        inherited = self.outbox
        self.outbox = Outbox(self.home, self.session, inherited.memory_bytes, inherited.spool_bytes)
        self._thread = self._writer = None
        self._lock = threading.Lock()


_producers: weakref.WeakSet[Producer] = weakref.WeakSet()


def _forget_in_child() -> None:
    for producer in list(_producers):
        producer.forget_parent()


os.register_at_fork(after_in_child=_forget_in_child)


def _added(first: Meter, second: Meter) -> Meter:
    both = Meter()
    both.handed_bytes = first.handed_bytes + second.handed_bytes
    both.frames_dropped = first.frames_dropped + second.frames_dropped
    both.steps_dropped = first.steps_dropped + second.steps_dropped
    for sums, one, other in ((both.captured, first.captured, second.captured), (both.bare, first.bare, second.bare)):
        sums.counts = [a + b for a, b in zip(one.counts, other.counts, strict=True)]
        sums.total = one.total + other.total
        sums.longest = max(one.longest, other.longest)
    return both


def _read_control(path: Path) -> Control | None:
    try:
        return read_checked(path, Control)
    except (OSError, NotAsWritten):
        return None  # what cannot be read changes nothing; the collector finds it, and says so


# The writer thread -------------------------------------------------------------------------------------------------


class Writer:
    """The writer thread: from the lists of an outbox to the files of the producer's folder.

    What the disk refuses stays in memory and is tried again every 0.25 s, in the same order.

    Each call of the system's lets go of the interpreter's lock, and to get it back costs the stepping thread 50 to
    200 µs: so there are as few of them as there can be.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._writes: list[Write] = []
        self._events: list[bytes] = []
        self._nth = 1
        self._event_file: GrowingFile | None = None
        self._event_number = 0
        self._lock: FileLock | None = None
        self._films: set[Film] = set()
        self._deadline: float | None = None
        self._control_stamp = (0, 0)
        self._next_control = 0.0
        self._next_spool_look = 0.0
        self._last_probe = time.monotonic()
        self._last_totals = Meter()

    def run(self) -> None:
        """Write until `stop`; then whatever is left, within its time; then let everything go."""
        waiting: list[threading.Event] = []
        pause = TICK_SECONDS
        while True:
            stopping = self._deadline is not None
            with suppress(Empty):
                flush = self._outbox.wake.get(timeout=0.0 if stopping and pause == TICK_SECONDS else pause)
                if flush is not None:
                    waiting.append(flush)
            self._outbox.awake = False
            try:
                self._look_around()
                self._take()
                self._end_what_is_due(time.monotonic() if not stopping else math.inf)
                self._write_all()
                self._show_live()
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on, and the bounds hold
                self._outbox.trouble = f"{type(error).__name__}: {error}"
                pause = RETRY_SECONDS
            else:
                self._outbox.trouble = ""
                pause = TICK_SECONDS
            written = not self._writes and not self._events
            if written:
                for flush in waiting:
                    flush.set()
                waiting.clear()
            if stopping and (
                (written and not self._outbox.events and not self._outbox.endings)
                or time.monotonic() > (self._deadline or 0.0)
            ):
                break
        self._release()

    def stop(self, timeout_seconds: float) -> None:
        """From another thread: write what is left, and end within so many seconds."""
        self._deadline = time.monotonic() + timeout_seconds
        self._outbox.wake.put(None)

    def forget_files(self) -> None:
        """In a forked child: close what it inherited. The files themselves are the parent's."""
        for film in self._films:
            if film.writer is not None:
                film.writer.close()
        if self._event_file is not None:
            self._event_file.close()

    def _take(self) -> None:
        # Slices, not a swap of the lists: between reading and replacing the attribute an append could get lost.
        # The events come first: what they speak of was appended before them, so it is among the frames taken next.
        events, frames = self._outbox.events, self._outbox.frames
        some = len(events)
        self._events += events[:some]
        del events[:some]
        some = len(frames)
        taken = frames[:some]
        del frames[:some]
        self._writes += gather(taken)

    def _end_what_is_due(self, now: float) -> None:
        """Behind `_take`: all frames of such a recording were appended before its ending was."""
        endings = self._outbox.endings
        for ending in endings[:]:
            if ending.due <= now and ending.claim():
                self._writes += gather(ending.frames)
                self._events += ending.events
                size_bytes = sum(map(len, ending.events)) + ITEM_BYTES * (len(ending.events) + len(ending.frames))
                self._outbox.written_bytes -= size_bytes  # nobody's meter counts it
            if not ending.waits:
                endings.remove(ending)

    def _write_all(self) -> None:
        if not self._writes and not self._events:
            return
        if self._lock is None:
            self._lock = _make_folder(self._outbox)
        while self._writes:
            self._write_frames(self._writes[0])
            del self._writes[0]
        while self._events:
            self._write_events()

    def _write_frames(self, write: Write) -> None:
        film = write.film
        folder = self._outbox.folder / film.plan.recording
        if not film.folder_made:
            folder.mkdir(exist_ok=True)
            fail_point("spool.recording.made")
            write_checked(folder / "recording.json", film.plan, lasting=False)
            fail_point("spool.recording.planned")
            film.folder_made = True
        if film.writer is None:
            film.writer = ChunkWriter(folder / f"{film.chunks_written:05d}.part", film.header)
            fail_point("spool.part.begun")
            self._films.add(film)
        if write.payloads:
            film.writer.append(write.payloads, ends=write.seal)
            fail_point("spool.frames.after")
            self._count(sum(map(len, write.payloads)), len(write.payloads))
            write.payloads = []  # a seal that fails is tried again alone
        if write.seal:
            film.writer.seal()
            fail_point("spool.chunk.sealed")
            film.writer = None
            film.chunks_written += 1
            self._films.discard(film)
            self._count(0, 1)

    def _write_events(self) -> None:
        some = _up_to(self._events, WRITE_BYTES)
        if self._event_file is None or self._event_file.size >= EVENT_FILE_BYTES:
            following = GrowingFile(event_file(self._outbox.folder, self._event_number + 1))
            fail_point("spool.events.begun")
            if self._event_file is not None:
                self._event_file.close()
            self._event_file = following
            self._event_number += 1
        batch = self._events[:some]
        fail_point("spool.events.before")
        self._event_file.append(pack_batch(self._nth, batch))
        fail_point("spool.events.after")
        self._nth += some
        del self._events[:some]
        self._count(sum(map(len, batch)), some)

    def _count(self, size_bytes: int, items: int) -> None:
        self._outbox.written_bytes += size_bytes + ITEM_BYTES * items
        self._outbox.spool_used_bytes += size_bytes  # until the next look at the whole spool

    # Four times a second, or once ------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        now = time.monotonic()
        if now >= self._next_control:
            self._next_control = now + CONTROL_SECONDS
            self._look_at_control()
            self._look_who_watches()
        if now >= self._next_spool_look:
            self._outbox.spool_used_bytes = folder_bytes(spool_folder(self._outbox.home))
            taken = time.monotonic() - now
            # A long look at a spool of many files costs the stepping thread its turn: at most 2 % of the time.
            self._next_spool_look = now + max(SECOND, 50 * taken)
        if now - self._last_probe >= SECOND or self._deadline is not None:
            self._probe(now - self._last_probe)
            self._last_probe = now

    def _look_at_control(self) -> None:
        for path in (self._outbox.folder / "control.json", self._outbox.home / "capture.json"):
            with suppress(OSError):
                status = path.stat()
                # The inode too: a file that is replaced within one tick of the file system's clock keeps its time.
                stamp = (status.st_mtime_ns, status.st_ino)
                if stamp != self._control_stamp:
                    self._control_stamp = stamp
                    self._outbox.control = _read_control(path) or self._outbox.control
                return

    def _show_live(self) -> None:
        if self._outbox.watched is not None and self._lock is not None:
            write_moments(self._outbox)

    def _look_who_watches(self) -> None:
        watching = self._outbox.control.watching
        watched = together(watching.values(), time.time()) if watching else None
        if watched is None and self._outbox.watched is not None:
            clear_moments(self._outbox)
        self._outbox.watched = watched

    def _probe(self, seconds: float) -> None:
        totals = Meter()
        for meter in self._outbox.meters:
            totals = _added(totals, meter)
            meter.captured.longest = meter.bare.longest = 0.0
        before, self._last_totals = self._last_totals, totals
        captured, bare = _difference(totals.captured, before.captured), _difference(totals.bare, before.bare)
        steps = sum(captured.counts) + sum(bare.counts)
        dropped = totals.steps_dropped - before.steps_dropped
        if not steps and not dropped:
            return
        probe = encode(
            Probe(
                session=self._outbox.session,
                steps=steps,
                seconds=seconds,
                captured=captured,
                bare=bare,
                spool_bytes=self._outbox.spool_used_bytes,
                frames_dropped=totals.frames_dropped - before.frames_dropped,
                steps_dropped=dropped,
                unsent_bytes=max(0, self._outbox.unsent_bytes()),
            )
        )
        self._outbox.written_bytes -= len(probe) + ITEM_BYTES  # nobody's meter counts it
        self._events.append(probe)

    def _release(self) -> None:
        self.forget_files()
        if self._outbox.watched is not None:
            self._outbox.watched = None
            clear_moments(self._outbox)
        if self._lock is not None:
            self._lock.release()


BUILDS = 3
TICK_SECONDS = 0.04
RETRY_SECONDS = 0.25
CONTROL_SECONDS = 0.25
SECOND = 1.0
WRITE_BYTES = 1024 * 1024
"""About how much goes into one write, so that what is copied for it stays small."""


class Write:
    """Frames of one film that go to the disk in one write, and whether its chunk ends with them."""

    __slots__ = ("film", "payloads", "seal", "size_bytes")

    def __init__(self, film: Film) -> None:
        self.film = film
        self.payloads: list[bytes] = []
        self.size_bytes = 0
        self.seal = False


def gather(items: Iterable[tuple[Film, bytes | None]]) -> list[Write]:
    """Put the frames of each film together, in the order of each film."""
    writes: list[Write] = []
    growing: dict[Film, Write] = {}
    for film, payload in items:
        write = growing.get(film)
        if write is None:
            write = growing[film] = Write(film)
            writes.append(write)
        if payload is None:
            write.seal = True
        else:
            write.payloads.append(payload)
            write.size_bytes += len(payload)
        if write.seal or write.size_bytes >= WRITE_BYTES:
            del growing[film]
    return writes


def folder_bytes(folder: Path | str) -> int:
    """Bytes of all files in a folder and the folders in it. What cannot be looked at is not counted."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _make_folder(outbox: Outbox) -> FileLock:
    """Build the producer's folder under another name, lock it, and rename it: who sees it unlocked knows it is dead.

    Before it is locked, a kernel that starts may take it for a dead builder's, and remove it: then it is built again.
    """
    for _ in range(BUILDS):
        with suppress(FileNotFoundError, BlockingIOError):
            return _build_folder(outbox)
    return _build_folder(outbox)


def _build_folder(outbox: Outbox) -> FileLock:
    building = outbox.folder.with_name(f".{outbox.producer}.tmp")
    building.mkdir(parents=True, exist_ok=True)
    fail_point("spool.folder.made")
    lock = acquire(building / "lock")
    if lock is None:
        raise BlockingIOError(f"{building}/lock is held by a kernel that starts")
    try:
        write_producer_file(building, outbox.producer, outbox.session)
        fail_point("spool.folder.before")
        building.rename(outbox.folder)
        fail_point("spool.folder.after")
    except OSError:
        lock.release()
        shutil.rmtree(building, ignore_errors=True)
        raise
    lock.moved(outbox.folder / "lock")
    return lock


def write_producer_file(folder: Path, producer: str, session: str) -> None:
    """Say whose folder this is. Its lock file is there, and not changed any more."""
    status = (folder / "lock").lstat()
    about = ProducerFile(
        producer=producer,
        session=session,
        pid=os.getpid(),
        started=time.time(),
        lock=(status.st_ino, status.st_ctime_ns),
    )
    write_checked(folder / "producer.json", about, lasting=False)


def _up_to(items: list[bytes], size_bytes: int) -> int:
    """How many of the first items make about so many bytes; at least one."""
    total = 0
    for number, item in enumerate(items, 1):
        total += len(item)
        if total >= size_bytes:
            return number
    return len(items)


def _difference(now: StepClock, before: StepClock) -> StepTimes:
    counts = [a - b for a, b in zip(now.counts, before.counts, strict=True)]
    while counts and not counts[-1]:
        counts.pop()
    return StepTimes(counts=counts, total_seconds=max(0.0, now.total - before.total), longest_seconds=now.longest)
