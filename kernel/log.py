"""The log: a home's append-only JSONL segments of events, with one writer and any number of readers.

`Log` writes, `LogReader` reads on from a seq, `read` and `follow` do so from any process while the kernel writes.
A segment is named by its first seq, and holds one `Record` a line without a gap: line i of a segment has the seq
first + i. A sealed segment has a `.seal` beside it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, overload
from zlib import crc32

import anyio
import anyio.to_thread
import msgspec

from kernel.checked import NotAsWritten, read_checked, unpack, write_checked
from kernel.event import (
    Damaged,
    Event,
    LogTailCut,
    LogTrimmed,
    Record,
    Tagged,
    UnknownEvent,
    catalogue,
    decode_known,
    decode_record,
    decode_records,
    encode_lines,
)
from kernel.fail_points import fail_point
from kernel.files import (
    NO_SPACE,
    FileLock,
    acquire,
    clear_up,
    holder,
    is_folder,
    note_of,
    open_regular,
    read_regular,
    reserve,
    sync_folder,
    write_all,
    write_whole,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

E = TypeVar("E", bound=Event)
T = TypeVar("T")

SEGMENT_BYTES = 64 * 2**20
KEEP_BYTES = 20 * 2**30
EVENT_BYTES = 16 * 2**20
"""As long as one event's line may be. A step that is told in full, with all that it may have, stays below."""
RESERVE_BYTES = 64 * 2**10
"""Held in `log/reserve`, to say on a full disk that it is full."""
SPACE_BYTES = 192 * 2**10
"""With less than so much beside the reserve, a disk that was full still is: else it would be full and not in turns."""
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_BLOCK_BYTES = 2**20
CHECKED_BYTES = 2**14
"""A sealed segment is compared with its seal by blocks of so many bytes; a reader's block holds a whole number."""
_MAKES_WAY = b"makes way\n"


class HomeRefused(Exception):
    """This home cannot be used. Its text names the place and the way out."""


class HomeHeld(HomeRefused):
    """Another kernel runs on this home."""


class HomeFull(HomeRefused):
    """The home's disk has no room for what a start has to write."""


class EventTooLarge(ValueError):
    """An event's line is longer than `EVENT_BYTES`. None of the events that came with it was written."""

    def __init__(self, place: int, event: Event, size_bytes: int) -> None:
        self.event_type = event.tag if isinstance(event, UnknownEvent) else type(event).__name__
        super().__init__(
            f"a {self.event_type} of {size_bytes} bytes is larger than an event may be ({EVENT_BYTES} bytes); "
            "write what is large to a file, and name the file in the event"
        )
        self.place = place
        self.size_bytes = size_bytes


class Log:
    """The writer of one home's log. Opening it takes the home's lock and repairs a torn end.

    One that `makes_way` says so beside the lock, for whoever else wants the home.

    Everything here blocks, and `append` alone is meant for the event loop: it is one encode and one write. `sync`
    and `trim` belong in a thread, one at a time.
    """

    def __init__(
        self,
        home: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        keep_bytes: int = KEEP_BYTES,
        makes_way: bool = False,
    ) -> None:
        self.home = home
        self.folder = home / "log"
        self.segment_bytes = segment_bytes
        self.keep_bytes = keep_bytes
        self.repaired: LogTailCut | None = None
        self.broken: OSError | None = None
        """Why nothing more can be written; None while it can, or while it only waits for space."""
        self._sealed: list[_Segment] = []
        self._retired: list[_Segment] = []
        self.appended_bytes = 0
        """Bytes of the last append."""
        self._folder_changed = False
        self._nth: dict[str, int] = {}
        self._lock = lock_home(home, _MAKES_WAY if makes_way else b"")
        self._folder_descriptor = -1
        try:
            self.home_id = _home_id(home)
            self._active = self._recover()
            self.last_seq = self._active.last_seq
            # Kept open, so that a plugin that leaks all descriptors there are does not stop the log.
            self._folder_descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            self.has_reserve = reserve(self.folder / "reserve", RESERVE_BYTES)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise _unusable(home, error) from None
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments."""
        return self._active.size_bytes + sum(segment.size_bytes for segment in (*self._retired, *self._sealed))

    @property
    def overfull(self) -> bool:
        """Plugins that are far behind hold the log at twice its bound, so nothing more should be taken in."""
        return self.size_bytes > 2 * self.keep_bytes

    def last_nth(self, source: str) -> int:
        """The count of the source's last event; 0 where it has none."""
        return self._nth.get(source, 0)

    def append(self, source: str, first_nth: int, events: Sequence[Event]) -> list[Record[Event]]:
        """Write the events behind the log's end, all or none of them, and return them with their places.

        Raises `OSError` where they cannot be written; the log is then as before, and `broken` unless only space is
        missing. After a failed `sync` it raises that failure, since what the disk then holds is not known. Raises
        `EventTooLarge` for an event that is larger than any may be.
        """
        if self.broken is not None:
            raise self.broken
        if not events:
            return []
        seq, now = self.last_seq, datetime.now(UTC)
        records = [
            Record(seq + place, now, source, first_nth + place - 1, event)
            for place, event in enumerate(events, start=1)
        ]
        lines = encode_lines(records)
        if len(lines) > EVENT_BYTES:
            _refuse_too_large(records)
        try:
            if self._active.size_bytes and self._active.size_bytes + len(lines) > self.segment_bytes:
                self._roll()
            fail_point("log.append.before")
            write_all(self._active.descriptor, lines)
            fail_point("log.append.after")
        except OSError as error:
            self._undo(error)
            raise
        active = self._active
        self.appended_bytes = len(lines)
        active.size_bytes += len(lines)
        self.last_seq = active.last_seq = seq + len(events)
        self._nth[source] = active.nth[source] = first_nth + len(events) - 1
        return records

    def release_reserve(self) -> None:
        """Give the disk the room back that was held to say that it is full."""
        self.has_reserve = False
        (self.folder / "reserve").unlink(missing_ok=True)

    def refill_reserve(self) -> bool:
        """Hold that room again where there is more than that, and so space; False where the disk is still full."""
        if not self.has_reserve:
            held = self.folder / "reserve"
            self.has_reserve = reserve(held, RESERVE_BYTES + SPACE_BYTES)
            os.truncate(held, RESERVE_BYTES if self.has_reserve else 0)
        return self.has_reserve

    def sync(self) -> int:
        """Put what was appended on disk, seal the segments that were rolled, and return the last seq that is safe.

        A failure is remembered: from then on the log refuses to be written, as the system reports it only once.
        """
        if self.broken is not None:
            raise self.broken
        seq, active, retired = self.last_seq, self._active, list(self._retired)
        try:
            fail_point("log.sync.before")
            for segment in (*retired, active):
                os.fsync(segment.descriptor)
            fail_point("log.sync.after")
            if self._folder_changed:
                self._folder_changed = False  # before the look, as a roll may come during it
                os.fsync(self._folder_descriptor)
                fail_point("log.folder.synced")
        except OSError as error:
            self.broken = error
            raise
        for segment in retired:
            try:
                self._sealed.append(seal(segment))
            except OSError:
                break  # the segment is safe without its seal, which the next sync or the next start writes
            self._retired.remove(segment)
            os.close(segment.descriptor)
        return seq

    def trim(self, hold: int) -> LogTrimmed | None:
        """Remove the oldest sealed segments while the log is over its bound, but none with an event behind `hold`."""
        removed_bytes = 0
        while self._sealed and self.size_bytes > self.keep_bytes and self._sealed[0].last_seq <= hold:
            oldest = self._sealed[0]
            fail_point("log.trim.before")
            _remember_trimmed(self.folder, oldest)
            fail_point("log.trim.remembered")
            oldest.path.unlink()
            fail_point("log.trim.unlinked")
            oldest.path.with_suffix(".seal").unlink(missing_ok=True)
            fail_point("log.trim.after")
            removed_bytes += oldest.size_bytes
            del self._sealed[0]
        if not removed_bytes:
            return None
        os.fsync(self._folder_descriptor)
        first = (*self._sealed, *self._retired, self._active)[0]
        return LogTrimmed(first_seq=first.first_seq, removed_bytes=removed_bytes)

    def close(self) -> None:
        """Put everything on disk and give the home up. Nothing may be appended any more."""
        try:
            if self.broken is None:
                self.sync()
        finally:
            for segment in (*self._retired, self._active):
                os.close(segment.descriptor)
            os.close(self._folder_descriptor)
            self._lock.release()

    def _recover(self) -> _Segment:
        self.folder.mkdir(exist_ok=True)
        fail_point("log.folder.made")
        if not is_folder(self.folder):
            raise HomeRefused(f"{self.folder}: is a symbolic link. Put the folder itself into its place.")
        clear_up(self.folder)
        for stale in self.folder.glob("*.seal"):
            if not stale.with_suffix(".jsonl").exists():  # it was being trimmed
                stale.unlink()
                fail_point("log.seal.removed")
        self._nth = trimmed_nth(self.folder)
        paths = segments(self.folder)
        paths, dropped = _as_synced(paths)
        for path, following in pairwise(paths):
            segment = _read_seal(path) or seal(_scan_whole(path))
            if first_seq(following) != segment.last_seq + 1:
                raise HomeRefused(
                    f"{self.folder}: events {segment.last_seq + 1} to {first_seq(following) - 1} are missing: "
                    f"a segment was removed. Put it back; or run `python -m kernel salvage {self.home}`, "
                    "and records that say so stand in for them."
                )
            self._sealed.append(segment)
            self._nth.update(segment.nth)
        self._folder_changed = True  # by this life or, where that was killed, by the last one
        sync_folder(self.home)
        if not paths:
            return _new_segment(self.folder, 1)
        paths[-1].with_suffix(".seal").unlink(missing_ok=True)  # there is one where somebody removed the segment behind
        fail_point("log.seal.undone")
        active, self.repaired = _repair(paths[-1])
        self.repaired = dropped or self.repaired
        self._nth.update(active.nth)
        return active

    def _roll(self) -> None:
        fail_point("log.roll.before")
        try:
            following = _new_segment(self.folder, self.last_seq + 1)
        except OSError as error:
            if error.errno in _NO_FILES:
                return  # it goes on in this segment until somebody closes a file
            raise
        fail_point("log.roll.after")
        self._retired.append(self._active)  # in this order, so that `sync` in its thread misses neither
        self._active = following
        self._folder_changed = True

    def _undo(self, error: OSError) -> None:
        try:
            os.ftruncate(self._active.descriptor, self._active.size_bytes)
        except OSError:
            self.broken = error
        if error.errno not in NO_SPACE:
            self.broken = error


class LogReader:
    """Reads on from a seq, as far as the log goes at the time. Blocks, but never waits for more to come."""

    def __init__(self, folder: Path, after: int = 0, types: tuple[type[Event], ...] = ()) -> None:
        self.position = after
        """The seq of the last line that was scanned."""
        self._folder = folder
        self._types = types
        self._wanted = _pattern(types)
        self._mostly_wanted = False
        """Of the lines before."""
        self._file: BinaryIO | None = None
        self._first = 0
        self._rest = b""
        self._seal: _Seal | None = None
        """Of the segment that is open, where it was sealed when it was opened: what is read is compared with it."""
        self.compares = True
        """Without it, what a sealed segment holds now is read as it is."""

    def read(self) -> list[Record[Event]]:
        """The next records of the wanted types, about 1 MiB of log at most; empty where there are none in it.

        The end is reached when `position` stays as it was. Raises `HomeRefused` where a line is damaged.
        """
        before, lines = self.position, self.read_lines()
        try:
            return self._decode(lines, self.position - before)
        except Damaged as error:
            fault = _damaged(self._folder, f"an event behind {before}", str(error))
            self.close()
            self.position = before  # so that nobody who reads again passes it by
            raise fault from None

    def _decode(self, lines: bytes, count: int) -> list[Record[Event]]:
        """The records of the wanted types, of so many lines. No other line is looked at that would raise `Damaged`."""
        # Where most lines are wanted, decoding the others, too, costs less than looking for those: 1 µs a line.
        records = decode_known(lines) if self._wanted is None or self._mostly_wanted else None
        if records is None:
            records = decode_records(lines if self._wanted is None else _lines_with(self._wanted, lines))
        if self._types:
            others = {kind for kind in {type(record.event) for record in records} if not issubclass(kind, self._types)}
            if others:
                records = [record for record in records if type(record.event) not in others]
        self._mostly_wanted = 2 * len(records) > count
        return records

    def read_lines(self) -> bytes:
        """The next whole lines, about 1 MiB at most; empty at the end of what is written.

        Raises `HomeRefused` where a sealed segment is not what was sealed; `position` stays before it.
        """
        while True:
            if self._file is None and not self._open():
                return b""
            assert self._file is not None
            following, read = 0, b""
            while b"\n" not in self._rest and not (read := self._read_block(self._file)):
                if self._rest or following:
                    break
                following = self._following()
                if not following:
                    break  # else look again: it may have grown before the following one was begun
            block = self._rest + read
            end = block.rfind(b"\n") + 1
            lines, self._rest = block[:end], block[end:]
            if lines:
                self.position += lines.count(b"\n")
                return lines
            if read:
                continue  # a line that is longer than a block
            if not following:
                return b""
            self.close()
            self.position = max(self.position, following - 1)

    def close(self) -> None:
        """Close the file. Reading again opens it again, behind the position."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._rest = b""
        self._seal = None

    @property
    def opened(self) -> bool:
        """Whether the next read goes straight on, without a search for the position."""
        return self._file is not None

    def _open(self) -> bool:
        paths = segments(self._folder)
        at_or_before = [path for path in paths if first_seq(path) <= self.position + 1]
        if not paths:
            return False
        path = at_or_before[-1] if at_or_before else paths[0]  # what came before it was trimmed
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            return self._open()  # it was trimmed just now
        skip = self.position + 1 - first_seq(path)  # line i has the seq first + i
        self._first = first_seq(path)
        self._seal = seal_of(path) if self.compares else None
        self.position = max(self.position, self._first - 1)
        while skip > 0:
            block = self._read_block(self._file)
            if not block:
                break
            lines = block.count(b"\n")
            if lines >= skip:
                self._rest = block.split(b"\n", skip)[-1]
                break
            skip -= lines
        return True

    def _read_block(self, file: BinaryIO) -> bytes:
        """The next bytes; of a sealed segment, blocks of `CHECKED_BYTES` that are as they were sealed."""
        offset = file.tell()
        block = file.read(_BLOCK_BYTES)
        if self._seal is not None:
            bad = _first_bad(block, self._seal.blocks[offset // CHECKED_BYTES :])
            if bad is not None:
                place = self._folder / f"{self._first:016}.jsonl"
                self.close()
                at = offset + bad * CHECKED_BYTES
                raise _damaged(
                    place, f"byte {at} to {at + CHECKED_BYTES}", "its checksum is not the one it was sealed with"
                )
        return block

    def _following(self) -> int:
        """The first seq of the next segment, or of a further one where trimming overtook this reader; 0 for none."""
        return next((seq for path in segments(self._folder) if (seq := first_seq(path)) > self._first), 0)


@overload
def read(home: Path, *, after: int = 0) -> Iterator[Record[Event]]: ...
@overload
def read(home: Path, *types: type[E], after: int = 0) -> Iterator[Record[E]]: ...
def read(home: Path, *types: type[Event], after: int = 0) -> Iterator[Record[Any]]:
    """The records that are in a home's log now. Works beside a running kernel."""
    reader = LogReader(home / "log", after, types)
    try:
        position = -1
        while reader.position != position:
            position = reader.position
            yield from reader.read()
    finally:
        reader.close()


@overload
def follow(home: Path, *, after: int = 0) -> AsyncIterator[list[Record[Event]]]: ...
@overload
def follow(home: Path, *types: type[E], after: int = 0) -> AsyncIterator[list[Record[E]]]: ...
async def follow(home: Path, *types: type[Event], after: int = 0) -> AsyncIterator[list[Record[Any]]]:
    """The records of a home's log as they come, for ever. The home, or its log, may come later."""
    reader = LogReader(home / "log", after, types)
    try:
        while True:
            position = reader.position
            records = await anyio.to_thread.run_sync(reader.read)
            if records:
                yield records
            elif reader.position == position:
                await anyio.sleep(0.1)
    finally:
        reader.close()


def last_seq(home: Path) -> int:
    """The seq of the last whole line in a home's log; 0 where there is none."""
    paths = segments(home / "log")
    if not paths:
        return 0
    reader = LogReader(home / "log", after=first_seq(paths[-1]) - 1)
    while reader.read_lines():
        pass
    reader.close()
    return reader.position


def refuse_unusable(home: Path) -> None:
    """Raise `HomeRefused` where a kernel could not use this home. Creates nothing, and displaces nobody."""
    nearest = home
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise HomeRefused(f"{home}: {nearest} is a file. Choose another `home`.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise HomeRefused(
            f"{home}: {nearest} is not writable for this user. Choose another `home`, or mend its permissions."
        )
    if (home / "lock").exists() and not makes_way(home):
        lock_home(home).release()


def makes_way(home: Path) -> bool:
    """Whether another process runs on this home and leaves it to whoever wants it."""
    return holder(home / "lock") is not None and note_of(home / "lock") == _MAKES_WAY


def segments(folder: Path) -> list[Path]:
    """The log's segments, the oldest first."""
    return sorted(folder.glob("[0-9]" * 16 + ".jsonl"))


def first_seq(path: Path) -> int:
    """The seq of a segment's first line, which names it."""
    return int(path.stem)


class _Home(msgspec.Struct):
    id: str


class _Segment(msgspec.Struct):
    path: Path
    first_seq: int
    last_seq: int
    size_bytes: int
    nth: dict[str, int]
    """The last count of each source that speaks in it."""
    descriptor: int = -1


class _Seal(msgspec.Struct):
    """What stands beside a segment to which nothing is added any more."""

    last_seq: int
    size_bytes: int
    sha256: str
    nth: dict[str, int]
    blocks: list[int] = []
    """The CRC-32 of each 16 KiB."""


class _Scan(NamedTuple):
    segment: _Segment
    fault: str
    """Why the scan ended before the file did; empty where it did not."""
    valid_beyond: bool
    """A whole record stands behind the fault."""


_heads = msgspec.json.Decoder(Record[Tagged])


def decode_head(line: bytes) -> Record[Any]:
    """What every line must say, and no more of the event. Raises `Damaged`."""
    try:
        line.decode()  # msgspec passes by what it does not look into
        return _heads.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from None
    except RecursionError:
        return decode_record(line)


def lock_home(home: Path, note: bytes = b"") -> FileLock:
    """Take the home for this process. Raises `HomeRefused`."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = acquire(home / "lock")
    except OSError as error:
        raise _unusable(home, error) from None
    if lock is None:
        raise HomeHeld(f"{home}: another kernel is running on this home. Stop it, or choose another `home`.")
    try:
        lock.note(note)
    except OSError as error:
        lock.release()
        raise _unusable(home, error) from None
    return lock


def _unusable(home: Path, error: OSError) -> HomeRefused:
    if error.errno in NO_SPACE:
        return HomeFull(f"{home}: {error.strerror}. Make room, or choose another `home`.")
    return HomeRefused(f"{home}: {error.strerror}. Choose another `home`, or mend its permissions.")


def _home_id(home: Path) -> str:
    file = home / "home.json"
    clear_up(home, file.name)
    known = _read_small(file, _Home)
    if known is None:
        known = _Home(secrets.token_hex(8))
        write_whole(file, msgspec.json.encode(known) + b"\n", lasting=True)
    return known.id


def _read_small(file: Path, kind: type[T]) -> T | None:
    try:
        return unpack(read_regular(file), kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotAsWritten):
        raise HomeRefused(f"{file}: is not what a kernel wrote. Restore it, or remove it.") from None


def _new_segment(folder: Path, seq: int) -> _Segment:
    path = folder / f"{seq:016}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    return _Segment(path, seq, seq - 1, 0, {}, descriptor)


def _refuse_too_large(records: list[Record[Event]]) -> None:
    for place, record in enumerate(records):
        size_bytes = len(encode_lines([record]))
        if size_bytes > EVENT_BYTES:
            raise EventTooLarge(place, record.event, size_bytes)


def scan(path: Path) -> _Scan:
    """Read a segment up to its end, or to the first line that is not the next record."""
    content = read_regular(path)
    segment = _Segment(path, first_seq(path), first_seq(path) - 1, 0, {})
    nth = segment.nth
    start, expected, fault = 0, segment.first_seq, ""
    while start < len(content):
        end = content.find(b"\n", start)
        if end < 0:
            fault = "the last line has no end"
            break
        try:
            head = decode_head(content[start:end])
        except Damaged as error:
            fault = str(error)
            break
        if head.seq != expected:
            fault = f"event {head.seq} stands where {expected} belongs"
            break
        nth[head.source] = head.nth
        expected += 1
        start = end + 1
    segment.last_seq, segment.size_bytes = expected - 1, start
    return _Scan(segment, fault, valid_beyond=bool(fault) and _any_record(content[start:]))


def _any_record(content: bytes) -> bool:
    return any(seq_of(line) for line in content.split(b"\n")[:-1])


def _scan_whole(path: Path) -> _Segment:
    segment, fault, _ = scan(path)
    if fault:
        raise _damaged(path, f"byte {segment.size_bytes}", fault)
    return segment


def _as_synced(paths: list[Path]) -> tuple[list[Path], LogTailCut | None]:
    """The segments up to where a power loss has left a gap, and what was behind it, which is kept beside.

    A roll syncs nothing. So a power loss may keep a segment and lose the end of the one before, or all of it. What is
    behind such a gap was never said to be on disk. That is known by the seals: a segment is sealed as soon as it is.
    """
    unsealed = next((place for place, path in enumerate(paths) if not path.with_suffix(".seal").exists()), len(paths))
    if any(path.with_suffix(".seal").exists() for path in paths[unsealed:-1]):
        return paths, None
    for place in range(unsealed, len(paths) - 1):
        segment, fault, valid_beyond = scan(paths[place])
        if valid_beyond:
            break
        if fault or first_seq(paths[place + 1]) != segment.last_seq + 1:
            return paths[: place + 1], _keep_beside(paths[place + 1 :])
    return paths, None


def _keep_beside(paths: list[Path]) -> LogTailCut:
    """Take segments out of the log, the last first, so that a kill leaves no other gap."""
    size_bytes, name = 0, ""
    for path in reversed(paths):
        size_bytes += path.stat().st_size
        name = path.replace(path.with_name(f"{path.stem}.0.torn")).name
    sync_folder(paths[0].parent)
    return LogTailCut(kept_as=name, size_bytes=size_bytes)


def _repair(path: Path) -> tuple[_Segment, LogTailCut | None]:
    """Open the newest segment for writing; cut off what a crash tore, and keep it beside."""
    segment, fault, valid_beyond = scan(path)
    if valid_beyond:
        raise _damaged(path, f"byte {segment.size_bytes}", fault)
    segment.descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    beside = path.with_name(f"{path.stem}.{segment.size_bytes}.torn")
    if not fault:
        # Where nothing was appended since an earlier start has cut the tail, it was killed before it had said so.
        cut = LogTailCut(kept_as=beside.name, size_bytes=beside.stat().st_size) if beside.exists() else None
        return segment, cut
    torn = path.read_bytes()[segment.size_bytes :]
    fail_point("log.repair.before")
    write_whole(beside, torn, lasting=True)
    fail_point("log.repair.kept")
    os.ftruncate(segment.descriptor, segment.size_bytes)
    fail_point("log.repair.cut")
    os.fsync(segment.descriptor)
    fail_point("log.repair.after")
    return segment, LogTailCut(kept_as=beside.name, size_bytes=len(torn))


def seal(segment: _Segment) -> _Segment:
    """Write a segment's seal beside it; it is on disk when this returns."""
    digest, blocks = hashlib.sha256(), []
    with open_regular(segment.path) as file:
        while block := file.read(CHECKED_BYTES):
            digest.update(block)
            blocks.append(crc32(block))
        os.fsync(file.fileno())  # one that a kill left, and a start has found, may not be on disk
    content = _Seal(segment.last_seq, segment.size_bytes, digest.hexdigest(), segment.nth, blocks)
    fail_point("log.seal.before")
    write_checked(segment.path.with_suffix(".seal"), content, lasting=True)
    fail_point("log.seal.after")
    return segment


def seal_of(path: Path) -> _Seal | None:
    """The segment's seal; None where it has none, or none that can be read."""
    try:
        return read_checked(path.with_suffix(".seal"), _Seal)
    except NotAsWritten:
        return None


def _first_bad(content: bytes, blocks: list[int]) -> int | None:
    """The index of the first block that is not as it was sealed."""
    view = memoryview(content)
    for index, checksum in zip(range(-(-len(content) // CHECKED_BYTES)), blocks, strict=False):
        if crc32(view[index * CHECKED_BYTES : (index + 1) * CHECKED_BYTES]) != checksum:
            return index
    return None


def _read_seal(path: Path) -> _Segment | None:
    sealed = seal_of(path)
    if sealed is None:
        return None
    if path.stat().st_size != sealed.size_bytes:
        raise _damaged(path, "its end", f"it has {path.stat().st_size} bytes and was sealed with {sealed.size_bytes}")
    return _Segment(path, first_seq(path), sealed.last_seq, sealed.size_bytes, sealed.nth)


def trimmed_nth(folder: Path) -> dict[str, int]:
    """The last count of each source in what was trimmed."""
    return _read_small(folder / "trimmed.json", dict[str, int]) or {}


def _remember_trimmed(folder: Path, segment: _Segment) -> None:
    """Keep the last count of each source of a segment that is about to go, or its spool would be taken in again."""
    nth = trimmed_nth(folder) | segment.nth
    write_checked(folder / "trimmed.json", nth, lasting=True)


def _pattern(types: tuple[type[Event], ...]) -> re.Pattern[bytes] | None:
    """What a line of these types contains, to pass by the others undecoded; None where every line is wanted."""
    if not types or UnknownEvent in types or Event in types:
        return None
    tags = "|".join(tag for tag, kind in catalogue.items() if issubclass(kind, types))
    return re.compile(f'"event":{{"type":"(?:{tags})"'.encode())


def _lines_with(pattern: re.Pattern[bytes], lines: bytes) -> bytes:
    """The lines that contain the pattern; a search in the whole is ten times as fast as a look at each line."""
    found, end = [], 0
    for match in pattern.finditer(lines):
        if match.start() >= end:
            start, end = lines.rfind(b"\n", 0, match.start()) + 1, lines.index(b"\n", match.end()) + 1
            found.append(lines[start:end])
    return b"".join(found)


def _damaged(place: Path, where: str, fault: str) -> HomeRefused:
    home = place.parent if place.name == "log" else place.parent.parent
    return HomeRefused(
        f"{place}: damaged at {where}: {fault}. Run `python -m kernel salvage {home}`: "
        "it keeps the damaged bytes beside and makes the log readable again."
    )


def seq_of(line: bytes) -> int:
    """The seq that a line says; 0 where it is damaged."""
    try:
        return decode_head(line).seq
    except Damaged:
        return 0
