"""The log's writer: no gap, no half record, whatever was torn, cut, filled up or killed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from kernel.event import Event, LogTailCut, Record, UnknownEvent
from kernel.log import HomeRefused, Log, first_seq, last_seq, read, refuse_unusable, salvage, segments
from tests.kernel.ticks import Tick, Tock, answer, numbers, python, ticks, written_log

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 2000  # bytes of a segment that holds about 15 ticks


def seqs(home: Path) -> list[int]:
    return [record.seq for record in read(home)]


def damage(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def test_seq_and_nth_go_on_without_a_gap_over_rolls_and_restarts(home: Path) -> None:
    expected: list[tuple[str, int]] = []
    nth = {"a": 0, "b": 0}
    for _ in range(3):
        log = Log(home, segment_bytes=SMALL)
        for count in (1, 3, 20):
            for source, said in nth.items():
                assert log.last_nth(source) == said
                log.append(source, said + 1, ticks(1, count))
                expected += [(source, said + place) for place in range(1, count + 1)]
                nth[source] = said + count
        log.close()
    records = list(read(home))
    assert [record.seq for record in records] == list(range(1, len(expected) + 1))
    assert [(record.source, record.nth) for record in records] == expected
    assert len(segments(home / "log")) > 3


def test_a_home_keeps_its_id(home: Path) -> None:
    ids = []
    for _ in range(2):
        log = Log(home)
        ids.append(log.home_id)
        log.close()
    assert ids[0] == ids[1]
    assert json.loads((home / "home.json").read_bytes()) == {"id": ids[0]}


def test_a_segment_that_is_full_is_sealed_with_its_checksum_and_last_counts(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL)
    log.append("a", 1, ticks(1, 10))
    log.append("b", 5, ticks(1, 2))
    log.append("a", 11, ticks(11, 20))
    first, second = segments(home / "log")
    assert not first.with_suffix(".seal").exists()  # before it is on disk
    log.sync()
    seal = json.loads(first.with_suffix(".seal").read_bytes())
    assert seal == {
        "last_seq": 12,
        "size_bytes": first.stat().st_size,
        "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
        "nth": {"a": 10, "b": 6},
    }
    assert not second.with_suffix(".seal").exists()
    assert second.name == "0000000000000013.jsonl"
    log.close()


def test_a_start_reads_the_seals_and_the_active_segment_only(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    sealed = segments(home / "log")[:-1]
    for path in sealed:
        damage(path, 50, b"\0" * 20)  # who reads it, notices
    log = Log(home)
    assert (log.last_seq, log.last_nth("a")) == (60, 60)
    log.close()
    for path in sealed:
        path.with_suffix(".seal").unlink()
    with pytest.raises(HomeRefused, match="damaged at byte"):
        Log(home)


def test_seals_that_a_kill_kept_from_being_written_are_made_good_at_the_start(home: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from kernel.log import Log
from tests.kernel.ticks import ticks
log = Log(Path(sys.argv[1]), segment_bytes=2000)
for n in range(1, 41):
    log.append("a", n, ticks(n, n))
os.kill(os.getpid(), 9)
"""
    killed = python(code, home)
    killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert not list(home.glob("log/*.seal"))
    log = Log(home)
    assert (log.last_seq, log.last_nth("a")) == (40, 40)
    log.close()
    assert len(list(home.glob("log/*.seal"))) == len(segments(home / "log")) - 1


def test_an_end_torn_at_any_byte_is_cut_kept_and_said(home: Path) -> None:
    written_log(home, 5)
    path = segments(home / "log")[0]
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[2], len(whole)):
        path.write_bytes(whole[:cut])
        for old in home.glob("log/*.torn"):
            old.unlink()
        log = Log(home)
        kept = sum(end <= cut for end in ends)
        assert log.last_seq == kept
        log.append("a", kept + 1, [Tock(n=kept + 1)])
        log.close()
        assert seqs(home) == list(range(1, kept + 2))
        torn = whole[ends[kept - 1] : cut]
        if torn:
            assert log.repaired == LogTailCut(kept_as=f"{path.stem}.{ends[kept - 1]}.torn", size_bytes=len(torn))
            assert (home / "log" / log.repaired.kept_as).read_bytes() == torn
        else:
            assert log.repaired is None
            assert not list(home.glob("log/*.torn"))


@pytest.mark.parametrize("rubbish", [b"\0" * 300, b"rubbish\n", b"\xff\xfe", b"\n", b'{"seq":6}\n'])
def test_rubbish_behind_the_last_record_is_cut_too(home: Path, rubbish: bytes) -> None:
    written_log(home, 5)
    path = segments(home / "log")[0]
    with path.open("ab") as file:
        file.write(rubbish)
    log = Log(home)
    assert log.last_seq == 5
    assert log.repaired is not None
    assert (home / "log" / log.repaired.kept_as).read_bytes() == rubbish
    log.close()
    assert seqs(home) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("fault", [b"\0" * 30, b"\n", b"\xff\xff"])
def test_damage_in_the_middle_is_refused_with_the_place_and_the_remedy(home: Path, fault: bytes) -> None:
    written_log(home, 10)
    path = segments(home / "log")[0]
    before = path.read_bytes()
    fourth = [place + 1 for place, byte in enumerate(before) if byte == ord("\n")][3]
    damage(path, fourth + 20, fault)
    damaged = path.read_bytes()
    with pytest.raises(HomeRefused) as refused:
        Log(home)
    assert f"{path}: damaged at byte {fourth}: " in str(refused.value)
    assert f"`python -m kernel salvage {home}`" in str(refused.value)
    assert path.read_bytes() == damaged  # and nothing was touched
    assert salvage(home) == 1
    records = list(read(home))
    assert [record.seq for record in records] == list(range(1, 11))
    assert [type(record.event) for record in records].count(UnknownEvent) == 1
    assert isinstance(records[4].event, UnknownEvent)
    assert records[4].event.tag == "Damaged"
    (kept,) = home.glob("log/*.damaged")
    assert kept.read_bytes() in damaged
    log = Log(home)
    log.append("a", 11, ticks(11, 11))
    log.close()
    assert numbers(read(home)) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert salvage(home) == 0


@pytest.mark.parametrize("place", [1, 6, 15])
def test_salvage_survives_a_damaged_seq(home: Path, place: int) -> None:
    written_log(home, 15)
    path = segments(home / "log")[0]
    path.write_bytes(path.read_bytes().replace(b'{"seq":%d,' % place, b'{"seq":9000000%d,' % place))
    with pytest.raises(HomeRefused):
        Log(home)
    assert salvage(home) == (place < 15)  # a last line that is lost leaves no gap
    Log(home).close()
    assert numbers(read(home)) == [n for n in range(1, 16) if n != place]


def test_salvage_fills_what_an_editor_took_out(home: Path) -> None:
    written_log(home, 15)
    path = segments(home / "log")[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4] + lines[7:]))
    with pytest.raises(HomeRefused, match="event 8 stands where 5 belongs"):
        Log(home)
    assert salvage(home) == 3
    Log(home).close()
    assert seqs(home) == list(range(1, 16))
    assert numbers(read(home)) == [1, 2, 3, 4, *range(8, 16)]


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_sealed_segment_that_lost_its_end_is_refused_and_salvaged(home: Path, cut: int) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    path = segments(home / "log")[1]
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(HomeRefused, match="was sealed with"):
        Log(home)
    lost = salvage(home)
    assert lost == {1: 0, 30: 1, 200: 2}[cut]  # a line that lacks only its end is whole
    Log(home).close()
    assert seqs(home) == list(range(1, 61))
    assert len(numbers(read(home))) == 60 - lost


@pytest.mark.parametrize("torn", [True, False])
def test_a_segment_that_lost_its_end_before_its_seal_is_refused_and_salvaged(home: Path, *, torn: bool) -> None:
    # A power loss may keep a new segment and lose the end of the one before.
    written_log(home, 60, segment_bytes=SMALL)
    path = segments(home / "log")[1]
    path.with_suffix(".seal").unlink()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + (lines[-2][:40] if torn else b""))
    with pytest.raises(HomeRefused, match="salvage"):
        Log(home)
    assert salvage(home) == 2
    Log(home).close()
    assert seqs(home) == list(range(1, 61))


def test_a_missing_segment_is_refused_and_stood_in_for_by_salvage(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    _, second, third, *_ = segments(home / "log")
    first_missing, behind = int(second.stem), int(third.stem)
    second.unlink()
    with pytest.raises(HomeRefused, match=f"events {first_missing} to {behind - 1} are missing"):
        Log(home)
    assert salvage(home) == behind - first_missing
    Log(home).close()
    assert seqs(home) == list(range(1, 61))


def test_a_home_whose_newest_segment_was_removed_can_be_written_and_started_again(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    newest = segments(home / "log")[-1]
    newest.unlink()
    kept = int(newest.stem) - 1
    for start, segment_bytes in enumerate((2**20, SMALL, SMALL)):  # the second rolls what the first reopened
        log = Log(home, segment_bytes=segment_bytes)
        log.append("a", log.last_nth("a") + 1, ticks(1, 15))
        assert log.last_seq == kept + 15 * (start + 1)
        log._lock.release()  # as if it was killed, before it could seal what it rolled
    assert seqs(home) == list(range(1, kept + 46))


def test_salvage_of_a_home_in_use_is_refused(home: Path) -> None:
    log = Log(home)
    with pytest.raises(HomeRefused, match="another kernel"):
        salvage(home)
    log.close()


@pytest.mark.parametrize("file", ["home.json", "log/trimmed.json"])
def test_a_damaged_small_file_is_refused_by_name(home: Path, file: str) -> None:
    written_log(home, 1)
    (home / file).write_bytes(b"\0\xff")
    with pytest.raises(HomeRefused, match=f"{file}: is not what a kernel wrote"):
        Log(home)


def test_a_damaged_seal_is_made_anew(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    seal = segments(home / "log")[0].with_suffix(".seal")
    good = seal.read_bytes()
    for content in (b"", b"\xff\xff", b"{}", b'"\xff"'):
        seal.write_bytes(content)
        Log(home).close()
        assert seal.read_bytes() == good


def test_a_second_kernel_on_the_same_home_is_refused_and_harms_nothing(home: Path) -> None:
    log = Log(home)
    log.append("a", 1, ticks(1, 3))
    code = """
import sys
from pathlib import Path
from kernel.log import HomeRefused, Log
try:
    Log(Path(sys.argv[1]))
except HomeRefused as refused:
    print(refused)
"""
    assert "another kernel is running on this home" in answer(python(code, home))
    with pytest.raises(HomeRefused, match="another kernel is running"):
        Log(home)
    log.append("a", 4, ticks(4, 4))
    log.close()
    assert seqs(home) == [1, 2, 3, 4]
    answer(python(code, home))


def test_a_killed_kernel_leaves_its_home_free_and_all_that_append_returned_for(home: Path) -> None:
    code = """
import sys
from pathlib import Path
from kernel.log import Log
from tests.kernel.ticks import ticks
log = Log(Path(sys.argv[1]))
for n in range(1, 10**9):
    log.append("a", n, ticks(n, n))
    print(n, flush=True)
"""
    for _ in range(3):
        writer = python(code.replace("range(1,", f"range({last_seq(home) + 1},"), home)
        assert writer.stdout is not None
        for _ in range(200):
            writer.stdout.readline()
        writer.kill()
        said = int(writer.stdout.read().rpartition("\n")[0].rpartition("\n")[2] or 0)
        writer.communicate()
        log = Log(home)
        assert log.last_seq >= said
        assert log.last_nth("a") == log.last_seq
        log.close()
    assert seqs(home) == list(range(1, last_seq(home) + 1))


# Full disks ------------------------------------------------------------------------------------------------------

FILE_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from kernel.log import Log
from tests.kernel.ticks import ticks
log = Log(Path(sys.argv[1]))
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""


def test_a_write_that_comes_back_short_leaves_nothing_of_its_batch(home: Path) -> None:
    code = (
        FILE_SIZE_LIMIT
        + """
log.append("a", 1, ticks(1, 5))
limit(log.size_bytes + 250)  # two ticks and a bit
try:
    log.append("a", 6, ticks(6, 15))
except OSError as error:
    print(error.strerror, log.last_seq, log.last_nth("a"), log.broken is not None)
print(len((log.folder / "0000000000000001.jsonl").read_bytes().splitlines()))
log.close()
"""
    )
    assert answer(python(code, home)).splitlines() == ["File too large 5 5 True", "5"]
    log = Log(home)
    assert log.repaired is None
    log.close()
    assert seqs(home) == [1, 2, 3, 4, 5]


def test_a_full_disk_leaves_the_log_as_it_was_and_usable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(home)
    log.append("a", 1, ticks(1, 5))
    real = os.write

    def full(descriptor: int, content: memoryview) -> int:  # a disk takes what fits, then says so
        if len(content) < 150:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content[: len(content) - 140])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        log.append("a", 6, ticks(6, 15))
    monkeypatch.undo()
    assert log.broken is None
    assert log.last_seq == 5
    log.append("a", 6, ticks(6, 15))
    log.close()
    assert numbers(read(home)) == list(range(1, 16))


def test_a_roll_that_fails_leaves_the_log_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(home, segment_bytes=SMALL)
    log.append("a", 1, ticks(1, 12))

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"):
        log.append("a", 13, ticks(13, 24))
    monkeypatch.undo()
    assert (log.broken, log.last_seq, log.last_nth("a")) == (None, 12, 12)
    log.append("a", 13, ticks(13, 24))
    log.close()
    assert seqs(home) == list(range(1, 25))


def test_without_a_file_to_be_opened_the_log_goes_on_in_its_segment(home: Path) -> None:
    """A plugin that leaks descriptors leaves none, and is no reason to stop."""
    code = """
import os, resource, sys
from pathlib import Path
from kernel.log import Log
from tests.kernel.ticks import ticks
log = Log(Path(sys.argv[1]), segment_bytes=2000)
log.append("a", 1, ticks(1, 12))
some = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, some[1]))  # no file more can be opened
log.append("a", 13, ticks(13, 24))
print(log.sync(), end=" ")
resource.setrlimit(resource.RLIMIT_NOFILE, some)
log.append("a", 25, ticks(25, 26))
print(log.sync(), flush=True)
os._exit(0)
"""
    assert answer(python(code, home)) == "24 26"
    assert [first_seq(path) for path in segments(home / "log")] == [1, 25]
    assert seqs(home) == list(range(1, 27))


def test_after_a_failed_fsync_the_log_refuses_to_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(home)
    log.append("a", 1, ticks(1, 2))

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        log.sync()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Input/output"):
        log.append("a", 3, ticks(3, 3))
    with pytest.raises(OSError, match="Input/output"):
        log.sync()  # the system reports a lost write once only
    log.close()
    assert seqs(home) == [1, 2]


def test_an_event_that_json_cannot_say_leaves_the_log_as_it_was(home: Path) -> None:
    class LogTestAnything(Event):
        value: object

    log = Log(home)
    with pytest.raises(TypeError):
        log.append("a", 1, [Tick(n=1), LogTestAnything(value=object())])
    with pytest.raises(UnicodeEncodeError):
        log.append("a", 1, [LogTestAnything(value="\ud800")])
    log.append("a", 1, ticks(1, 1))
    log.close()
    assert numbers(read(home)) == [1]


# Trimming --------------------------------------------------------------------------------------------------------


def test_trimming_removes_the_oldest_segments_down_to_the_bound_and_says_what(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL, keep_bytes=2 * SMALL)
    for n in range(1, 101):
        log.append("a", n, ticks(n, n))
    log.sync()
    before = log.size_bytes
    trimmed = log.trim(hold=100)
    assert trimmed is not None
    assert trimmed.removed_bytes == before - log.size_bytes
    assert log.size_bytes <= 2 * SMALL
    assert trimmed.first_seq == int(segments(home / "log")[0].stem)
    assert seqs(home) == list(range(trimmed.first_seq, 101))
    assert len(list(home.glob("log/*.seal"))) == len(segments(home / "log")) - 1
    assert log.trim(hold=100) is None
    log.close()


def test_trimming_keeps_what_a_position_holds(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL, keep_bytes=SMALL)
    for n in range(1, 101):
        log.append("a", n, ticks(n, n))
    log.sync()
    last_of_first = int(segments(home / "log")[1].stem) - 1
    assert log.trim(hold=last_of_first - 1) is None
    trimmed = log.trim(hold=last_of_first)
    assert trimmed is not None
    assert trimmed.first_seq == last_of_first + 1
    log.close()


def test_the_counts_of_what_was_trimmed_outlive_a_restart(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL, keep_bytes=SMALL)
    log.append("gone", 1, ticks(1, 7))
    for n in range(1, 101):
        log.append("a", n, ticks(n, n))
    log.sync()
    log.trim(hold=100)
    log.close()
    assert all(record.source == "a" for record in read(home))
    for _ in range(2):
        log = Log(home)
        assert (log.last_nth("gone"), log.last_nth("a")) == (7, 100)
        log.close()


def test_the_log_is_overfull_at_twice_its_bound(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL, keep_bytes=SMALL)
    seen: list[tuple[bool, bool]] = []
    for n in range(1, 61):
        log.append("a", n, ticks(n, n))
        seen.append((log.size_bytes > 2 * SMALL, log.overfull))
    log.sync()
    log.trim(hold=60)
    seen.append((False, log.overfull))
    log.close()
    assert set(seen) == {(False, False), (True, True)}
    assert seen[-2] == (True, True)


def test_an_append_larger_than_a_segment_stays_in_one(home: Path) -> None:
    log = Log(home, segment_bytes=SMALL)
    log.append("a", 1, ticks(1, 1))
    log.append("a", 2, ticks(2, 50))
    log.append("a", 51, ticks(51, 51))
    log.close()
    assert [int(path.stem) for path in segments(home / "log")] == [1, 2, 51]
    assert seqs(home) == list(range(1, 52))


def test_nothing_is_appended_for_no_events(home: Path) -> None:
    log = Log(home)
    records: list[Record[Event]] = log.append("a", 1, [])
    assert records == []
    assert log.last_nth("a") == 0
    log.close()


# Homes -----------------------------------------------------------------------------------------------------------


def test_a_home_under_a_file_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        for look in (refuse_unusable, Log):
            with pytest.raises(HomeRefused, match=f"{home}: .*Choose another `home`"):
                look(home)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_look_at_a_home_creates_nothing(home: Path) -> None:
    refuse_unusable(home)
    refuse_unusable(home / "deep" / "down")
    assert not home.exists()


def test_a_look_at_a_home_in_use_says_so_and_leaves_it_locked(home: Path) -> None:
    log = Log(home)
    for _ in range(2):
        with pytest.raises(HomeRefused, match="another kernel"):
            refuse_unusable(home)
    log.close()
    refuse_unusable(home)


def test_a_home_whose_files_cannot_be_used_is_refused_in_one_sentence(home: Path) -> None:
    (home / "home.json").mkdir(parents=True)
    with pytest.raises(HomeRefused, match=f"{home}: Is a directory. Choose another `home`"):
        Log(home)
    (home / "home.json").rmdir()
    Log(home).close()  # and the lock was given up


def test_temporary_files_that_a_kill_left_are_removed(home: Path) -> None:
    written_log(home, 1)
    (home / "log" / ".0000000000000001.seal.4711.tmp").write_bytes(b"half")
    Log(home).close()
    assert not list(home.glob("log/.*"))
