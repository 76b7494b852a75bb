"""Checks: what is wrong in a home. The log's own is here; plugins bring theirs (entry-point group `stepreel.checks`).

A check is a function `check(home, live)` that yields what it finds and changes nothing. Where the home is `live`, a
kernel runs on it, and what such a kernel may have in hand (files in the making, say) is to be passed by.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.checked import NotAsWritten, read_checked
from kernel.event import Tagged
from kernel.log import Log, first_seq, segments

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS = "stepreel.checks"


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be, and what mends it."""

    place: str
    """The file, folder or thing that it is about, for the user to find."""
    wrong: str
    """What is wrong with it, in words."""
    remedy: str
    """What the user can do, in a sentence."""
    repair: Callable[[Log], str] | None = None
    """Mends it, and returns what was done; None where that is not safe.

    It is given the home's log, and so has the home for itself. To be called again after a kill anywhere in it.
    """
    waits: bool = False
    """Nothing is wrong: the next start of a kernel does what is left to do."""


Check = Callable[[Path, bool], Iterable[Finding]]


def waiting(place: str, what: str) -> Finding:
    """A finding that is no fault."""
    return Finding(place, what, "The next start does it.", waits=True)


def leftovers(folder: Path) -> Iterator[Finding]:
    """Files in a folder that were to be renamed into place, by whoever was killed before that."""
    for file in sorted(folder.glob(".*.tmp")):
        if file.is_file():
            yield Finding(str(file), "is half a file that a kill left", "Remove it.", removal(file))


def removal(file: Path) -> Callable[[Log], str]:
    """The repair of a file that should not be there."""

    def remove(_log: Log) -> str:
        file.unlink(missing_ok=True)
        return f"{file} was removed"

    return remove


# The log ---------------------------------------------------------------------------------------------------------


def trimmed(home: Path) -> bool:
    """Whether the log no longer begins with the home's first event."""
    return any(first_seq(path) > 1 for path in segments(home / "log")[:1])


def counts(home: Path) -> dict[str, int]:
    """The count of each source's last event in the log, for as far as the log is readable."""
    nth = _trimmed_counts(home)
    for path in segments(home / "log"):
        for line in path.read_bytes().split(b"\n"):
            try:
                head = _decode_head(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            nth[head.source] = head.nth
    return nth


def check_log(home: Path, live: bool) -> Iterator[Finding]:  # noqa: FBT001 - as all checks have it
    """The seqs without a gap, each source's count too, each sealed segment as it was sealed, and no stray files."""
    if not live:
        yield from leftovers(home)
        for half in sorted((home / "log").glob(".*.tmp")):
            yield waiting(str(half), "is half a file that a kill left")
    yield from _strays(home)
    heard = _Heard(_trimmed_counts(home))
    paths = segments(home / "log")
    for path, following in zip_longest(paths, paths[1:]):
        content = path.read_bytes()
        yield from _check_lines(home, path, content, following, heard, live=live)
        yield from _check_seal(home, path, content, following, live=live)


class _Head(msgspec.Struct):
    seq: int
    source: str
    nth: int
    event: Tagged


class _Seal(msgspec.Struct):
    last_seq: int
    size_bytes: int
    sha256: str
    nth: dict[str, int]


class _Heard:
    """What each source has said so far."""

    def __init__(self, trimmed: dict[str, int]) -> None:
        self.nth = dict(trimmed)
        self.trimmed = trimmed
        """What the log remembers of removed segments, among which may be the oldest that stands."""
        self.stand_ins = 0
        """Records that stand in for damaged ones, whose counts nobody knows."""

    def fault(self, head: _Head) -> str:
        """What is wrong with the count of this record; empty where nothing is."""
        if head.source == "salvage":
            self.stand_ins += 1
            return ""
        expected, self.nth[head.source] = self.nth.get(head.source, 0) + 1, head.nth
        if head.nth < expected <= self.trimmed.pop(head.source, 0) + 1:
            expected = head.nth
        missing = head.nth - expected
        if missing > 0 and self.stand_ins >= missing:
            self.stand_ins -= missing
            return ""
        if missing == 0:
            return ""
        what = "was said twice" if missing < 0 else f"came where {expected} was due"
        return f"event {head.nth} of {head.source} {what} (seq {head.seq})"


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_seal = msgspec.json.Decoder(_Seal).decode
_OURS = re.compile(r"\d{16}\.(jsonl|seal)|\d{16}\.\d+\.(torn|damaged)|trimmed\.json|reserve|\..*\.tmp")
_SALVAGE = "Run `python -m kernel salvage {}`: it keeps the damaged bytes beside, and the rest stays readable."


def _check_lines(
    home: Path, path: Path, content: bytes, following: Path | None, heard: _Heard, *, live: bool
) -> Iterator[Finding]:
    expected, offset = first_seq(path), 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines):
            if line and not following and not live:
                yield waiting(str(path), f"its last line, at byte {offset}, was torn by a crash")
            if line and following:
                yield Finding(str(path), f"ends at byte {offset} in the midst of a line", _SALVAGE.format(home))
            break
        try:
            head = _decode_head(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not following and number == len(lines) - 1 and not lines[-1]:
                yield waiting(str(path), f"its last line, at byte {offset}, is damaged: {error}")
            else:
                yield Finding(str(path), f"line {number}, at byte {offset}, is damaged: {error}", _SALVAGE.format(home))
            expected += 1
            offset += len(line) + 1
            continue
        if head.seq != expected:
            wrong = f"event {head.seq} stands at byte {offset}, where {expected} belongs"
            yield Finding(str(path), wrong, _SALVAGE.format(home))
        if fault := heard.fault(head):
            yield Finding(str(path), fault, "Nothing mends that; please report it.")
        expected = head.seq + 1
        offset += len(line) + 1
    if following and first_seq(following) != expected:
        gone = f"events {expected} to {first_seq(following) - 1} are missing behind it: a segment was removed"
        yield Finding(str(path), gone, f"Put it back. Or: {_SALVAGE.format(home)}")


def _check_seal(home: Path, path: Path, content: bytes, following: Path | None, *, live: bool) -> Iterator[Finding]:
    file = path.with_suffix(".seal")
    try:
        seal = _decode_seal(file.read_bytes())
    except FileNotFoundError:
        if following and not live:
            yield waiting(str(path), "was not sealed before a crash")
        return
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield waiting(str(file), "is damaged; the next start seals anew what can be read")
        return
    if following is None:
        yield Finding(str(file), "seals the last segment: the one behind it was removed", "Put it back, if you can.")
    if (len(content), hashlib.sha256(content).hexdigest()) != (seal.size_bytes, seal.sha256):
        wrong = "is not what was sealed: its checksum or size is another"
        yield Finding(str(path), wrong, f"Restore it from a backup. Or: {_SALVAGE.format(home)}")


def _strays(home: Path) -> Iterator[Finding]:
    for file in sorted((home / "log").iterdir()) if (home / "log").is_dir() else ():
        if not _OURS.fullmatch(file.name):
            yield Finding(str(file), "is no file of the log", "Move it elsewhere.")
        elif file.suffix == ".seal" and not file.with_suffix(".jsonl").exists():
            yield Finding(str(file), "seals a segment that is gone", "Remove it.", removal(file))


def _trimmed_counts(home: Path) -> dict[str, int]:
    try:
        return read_checked(home / "log" / "trimmed.json", dict[str, int]) or {}
    except NotAsWritten:
        return {}
