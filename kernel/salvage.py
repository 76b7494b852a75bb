"""Salvage: a damaged log is made readable again, and says what was lost."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from kernel.event import Record, UnknownEvent, encode_lines
from kernel.fail_points import fail_point
from kernel.files import write_whole
from kernel.log import (
    CHECKED_BYTES,
    decode_head,
    first_seq,
    lock_home,
    scan,
    seal,
    seal_of,
    segments,
    seq_of,
    trimmed_nth,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


LEAST_LINE_BYTES = 64
"""No record takes less."""


def salvage(home: Path, say: Callable[[str], None] = lambda _line: None) -> int:
    """Put a record that says so in the place of each damaged or missing event, and return how many there were.

    Seqs stay without a gap, and so do the counts of those whose events they were, as far as that can be told; the
    damaged bytes are kept beside. A bit that has changed in a sealed segment is found, and set right again. `say` gets
    a sentence on each segment that was mended. Raises `HomeRefused` where the home is in use.
    """
    lock = lock_home(home)
    try:
        paths = segments(home / "log")
        lost, nth = 0, trimmed_nth(home / "log")
        for path, following in zip_longest(paths, paths[1:]):
            lost += _salvage_segment(path, following, nth, say)
        return lost
    finally:
        lock.release()


def _salvage_segment(path: Path, following: Path | None, nth: dict[str, int], say: Callable[[str], None]) -> int:
    """Mend a segment; `nth` has the count of each source before it, and behind it when this returns."""
    content = _as_sealed(path, say)
    segment, fault, valid_beyond = scan(path)
    end = 0 if following is None else first_seq(following)
    whole = not fault and content is None
    if (following is None and (whole or not valid_beyond)) or (whole and segment.last_seq + 1 == end):
        if following is not None:
            seal(segment)
        nth.update(segment.nth)
        return 0  # whole, or only torn at its end, which the next start repairs
    damaged = path.read_bytes() if content is None else content
    kept: list[bytes | _Missing] = []
    lost: list[bytes] = []
    expected = segment.first_seq
    passed: list[bytes] = []
    """Damaged lines since the last good one."""
    lines = [line for line in damaged.split(b"\n") if line]
    seqs = [seq_of(line) for line in lines]
    for line, seq, next_seq in zip(lines, seqs, [*seqs[1:], 0], strict=True):
        # A seq may itself be damaged: it is believed where it fits its place, or the one behind it goes on from it.
        fits = seq == expected + len(passed) or next_seq == seq + 1 or _may_be_missing(seq - expected, passed)
        if seq < expected or 0 < end <= seq or not fits:
            lost.append(line)
            passed.append(line)
            continue
        kept += _missing(expected, seq, passed)
        kept.append(line)
        expected, passed = seq + 1, []
    kept += _missing(expected, end, passed)
    fail_point("log.salvage.before")
    write_whole(path.with_name(f"{path.stem}.{segment.size_bytes}.damaged"), b"\n".join(lost), lasting=True)
    fail_point("log.salvage.kept")
    path.with_suffix(".seal").unlink(missing_ok=True)
    fail_point("log.salvage.unsealed")
    _attribute(kept, nth)
    said = [_stand_in(each) if isinstance(each, _Missing) else each for each in kept]
    write_whole(path, b"\n".join([*said, b""]), lasting=True)
    fail_point("log.salvage.after")
    missing = sum(isinstance(each, _Missing) for each in kept)
    say(f"{path}: {missing} events were damaged; what was left of them is kept beside, in a file named .damaged")
    return missing


def _may_be_missing(count: int, passed: list[bytes]) -> bool:
    """Whether so many records may have stood in these lines: a line end that has changed makes one line of two."""
    return len(passed) < count <= sum(map(len, passed)) // LEAST_LINE_BYTES


def _as_sealed(path: Path, say: Callable[[str], None]) -> bytes | None:
    """What a sealed segment is to be salvaged from, where it is not as it was sealed; None where nothing tells that.

    One bit that changed in a block is found again, as the checksums of all others differ from the block's. What else is
    in a block that has changed counts as damaged: nothing tells which of its lines are as they were.
    """
    sealed = seal_of(path)
    content = path.read_bytes()
    if sealed is None or not sealed.blocks or len(content) != sealed.size_bytes:
        return None
    blocks = [content[at : at + CHECKED_BYTES] for at in range(0, len(content), CHECKED_BYTES)]
    bad = [index for index, block in enumerate(blocks) if crc32(block) != sealed.blocks[index]]
    if not bad:
        return None
    for index in bad:
        blocks[index] = _without_flip(blocks[index], sealed.blocks[index]) or _MARK * len(blocks[index])
    mended = b"".join(blocks)
    if hashlib.sha256(mended).hexdigest() == sealed.sha256:
        beside = path.with_name(f"{path.stem}.{sealed.size_bytes}.damaged")
        write_whole(beside, content, lasting=True)
        write_whole(path, mended, lasting=True)
        say(f"{path}: {len(bad)} bits had changed, and are as they were; the damaged file is kept as {beside.name}")
        return None
    return mended


def _without_flip(block: bytes, checksum: int) -> bytes | None:
    """The block with one bit turned so that it has this checksum; None where that is not enough. Takes a second."""
    trial = bytearray(block)
    for place in range(len(trial)):
        for bit in range(8):
            trial[place] ^= 1 << bit
            if crc32(trial) == checksum:
                return bytes(trial)
            trial[place] ^= 1 << bit
    return None


_MARK = b"\0"
"""In the place of what is not believed: no line that holds it is a record."""


class _Missing(msgspec.Struct):
    """An event that is damaged or gone, and who is known to have said it."""

    seq: int
    source: str = "salvage"
    nth: int = 0


def _missing(first: int, end: int, damaged: list[bytes]) -> list[_Missing]:
    """The events from first to end, of which these lines are what is left, if they are as many."""
    found = [_Missing(seq) for seq in range(first, end)]
    if len(found) == len(damaged):
        for each, line in zip(found, damaged, strict=True):
            head = _SAID_BY.search(line)
            if head is not None:
                each.source, each.nth = head[1].decode(), int(head[2])
    return found


def _attribute(kept: list[bytes | _Missing], nth: dict[str, int]) -> None:
    """Give the missing events to those in whose count one is missing, so that nobody's count has a gap."""
    nobodys: list[_Missing] = []
    for each in kept:
        if isinstance(each, _Missing):
            if each.nth == nth.get(each.source, 0) + 1:
                nth[each.source] = each.nth
            else:
                each.source, each.nth = "salvage", each.seq
                nobodys.append(each)
            continue
        head = decode_head(each)
        for count in range(nth.get(head.source, head.nth - 1) + 1, head.nth):
            if nobodys:
                owned = nobodys.pop(0)
                owned.source, owned.nth = head.source, count
        nth[head.source] = head.nth


_SAID_BY = re.compile(rb'"source":"([!#-\[\]-~]{1,200})","nth":(\d{1,15}),"event":\{')


def _stand_in(missing: _Missing) -> bytes:
    damaged = UnknownEvent(tag="Damaged", raw=b'{"type":"Damaged"}')
    record = Record(missing.seq, datetime.now(UTC), missing.source, missing.nth, damaged)
    return encode_lines([record]).rstrip(b"\n")
