"""Reading the log beside its writer: no gap and no repeat, across rolls, trims and kills."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.event import Event, UnknownEvent
from kernel.log import HomeRefused, Log, LogReader, follow, last_seq, read, segments
from tests.kernel.ticks import Tick, Tock, answer, numbers, python, ticks, written_log

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Record

SMALL = 2000

WRITER = """
import sys, time
from pathlib import Path
from kernel.log import Log
from tests.kernel.ticks import ticks
n = 0
for start in range(4):
    log = Log(Path(sys.argv[1]), segment_bytes=20000, keep_bytes=int(sys.argv[2]))
    for batch in range(150):
        log.append("a", n + 1, ticks(n + 1, n + 1 + batch % 17))
        n += 1 + batch % 17
        if not batch % 10:
            log.sync()
            log.trim(n)
            time.sleep(0.005)
    log.close()
print(n)
"""


def read_on(reader: LogReader) -> list[Record[Event]]:
    """All that a reader gets until it stands still."""
    records: list[Record[Event]] = []
    position = -1
    while position != reader.position:
        position = reader.position
        records += reader.read()
    return records


def mixed_log(home: Path, count: int) -> None:
    """Ticks, tocks and strangers in turns, over several segments."""
    log = Log(home, segment_bytes=SMALL)
    stranger = UnknownEvent(tag="LogReaderTestStranger", raw=b'{"type":"LogReaderTestStranger","of":{"type":"Tick"}}')
    for n in range(1, count + 1):
        log.append("a", n, [(Tick(n=n), Tock(n=n), stranger)[n % 3]])
    log.close()


@pytest.mark.anyio
async def test_a_follower_beside_another_process_sees_every_event_once_across_rolls_and_restarts(home: Path) -> None:
    seen: list[int] = []
    followed = anyio.Event()
    last = 0

    async def look() -> None:
        async for records in follow(home):  # from before the home exists
            seen.extend(numbers(records))
            if last and len(seen) >= last:
                followed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await anyio.sleep(0.05)
        writer = python(WRITER, home, 2**30)
        last = int(await anyio.to_thread.run_sync(answer, writer))
        if len(seen) < last:
            with anyio.fail_after(30):
                await followed.wait()
        tasks.cancel_scope.cancel()
    assert seen == list(range(1, last + 1))
    assert len(segments(home / "log")) > 20


@pytest.mark.anyio
async def test_a_follower_that_trimming_overtakes_jumps_on_and_sees_nothing_twice(home: Path) -> None:
    writer = python(WRITER, home, 60_000)
    seen: list[int] = []

    async def look() -> None:
        async for records in follow(home):
            seen.extend(numbers(records))
            await anyio.sleep(0.02)  # slower than the writer trims

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        last = int(await anyio.to_thread.run_sync(answer, writer))
        with anyio.fail_after(30):
            while not seen or seen[-1] != last:
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    assert seen == sorted(set(seen))


def test_reading_begins_behind_any_seq(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    for after in range(62):
        assert [record.seq for record in read(home, after=after)] == list(range(after + 1, 61))


def test_a_reader_whose_place_was_trimmed_begins_at_the_oldest_that_is_left(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    oldest, second, *_ = segments(home / "log")
    oldest.unlink()
    for after in (0, 5):
        assert next(read(home, after=after)).seq == int(second.stem)


def test_a_reader_in_a_file_that_is_trimmed_reads_it_to_its_end_and_goes_on(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    oldest, second, third, *_ = segments(home / "log")
    reader = LogReader(home / "log")
    first = reader.read()
    oldest.unlink()
    second.unlink()
    rest = read_on(reader)
    reader.close()
    assert numbers([*first, *rest]) == [*range(1, int(second.stem)), *range(int(third.stem), 61)]


def test_a_file_that_is_trimmed_between_the_look_and_the_opening_is_passed_by(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    listed = segments(home / "log")
    listed[0].unlink()
    stale = [listed]
    monkeypatch.setattr("kernel.log.segments", lambda folder: stale.pop() if stale else segments(folder))
    assert [record.seq for record in read(home)] == list(range(int(listed[1].stem), 61))


def test_an_empty_segment_behind_a_roll_is_an_end_and_no_endless_loop(home: Path) -> None:
    written_log(home, 20)
    (home / "log" / f"{21:016}.jsonl").touch()
    reader = LogReader(home / "log")
    assert numbers(read_on(reader)) == list(range(1, 21))
    assert reader.read() == []
    log = Log(home)
    log.append("a", 21, ticks(21, 22))
    assert numbers(read_on(reader)) == [21, 22]
    log.close()
    reader.close()


def test_a_segment_that_lost_its_end_is_no_endless_loop(home: Path) -> None:
    written_log(home, 60, segment_bytes=SMALL)
    _, second, third, *_ = segments(home / "log")
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(HomeRefused, match="not the one it was sealed with"):
        list(read(home))
    second.with_suffix(".seal").unlink()
    lost = {int(third.stem) - 2, int(third.stem) - 1}
    assert [record.seq for record in read(home)] == [seq for seq in range(1, 61) if seq not in lost]


def test_a_line_longer_than_a_block_is_no_end(home: Path) -> None:
    log = Log(home)
    log.append("a", 1, [Tick(n=1), Tick(n=2, padding="x" * 3_000_000), Tick(n=3)])
    log.close()
    assert numbers(read(home)) == [1, 2, 3]
    assert last_seq(home) == 3
    assert numbers(read(home, after=1)) == [2, 3]
    assert numbers(read(home, after=2)) == [3]


def test_half_a_line_is_not_read_until_it_is_whole(home: Path) -> None:
    written_log(home, 2)
    path = segments(home / "log")[0]
    whole = path.read_bytes()
    half = whole.index(b"\n") + 30
    path.write_bytes(whole[:half])
    reader = LogReader(home / "log")
    assert numbers(read_on(reader)) == [1]
    with path.open("ab") as file:
        file.write(whole[half:-1])
        file.flush()
        assert reader.read() == []
        file.write(b"\n")
    assert numbers(reader.read()) == [2]
    reader.close()


@pytest.mark.parametrize(
    "types", [(Tick,), (Tick, Tock), (UnknownEvent,), (UnknownEvent, Tock), (Event,), (), (Event, Tick)]
)
def test_asking_for_types_gives_what_a_look_at_all_would_give(home: Path, types: tuple[type[Event], ...]) -> None:
    mixed_log(home, 100)
    expected = [record for record in read(home) if not types or isinstance(record.event, types)]
    assert 0 < len(expected) <= 100
    assert list(read(home, *types)) == expected
    reader = LogReader(home / "log", 0, types)
    assert read_on(reader) == expected
    assert reader.position == 100  # also past what is not wanted
    reader.close()


def test_an_ill_typed_event_is_not_given_to_those_who_asked_for_its_type(home: Path) -> None:
    log = Log(home)
    ill_typed = UnknownEvent(tag="Tick", raw=b'{"type":"Tick","n":"one"}')
    log.append("a", 1, [Tick(n=1), ill_typed, Tick(n=3)])
    log.close()
    assert numbers(read(home, Tick)) == [1, 3]
    assert [record.event for record in read(home, UnknownEvent)] == [ill_typed]


def test_damage_is_named_and_never_passed_by(home: Path) -> None:
    written_log(home, 30)
    path = segments(home / "log")[0]
    path.write_bytes(path.read_bytes().replace(b'"seq":17', b'"seq":!!'))
    reader = LogReader(home / "log")
    for _ in range(3):
        with pytest.raises(HomeRefused, match=f"python -m kernel salvage {home}"):
            read_on(reader)
    assert reader.position == 0
    reader.close()


def test_a_home_without_a_log_has_nothing_to_read(home: Path) -> None:
    assert list(read(home)) == []
    assert last_seq(home) == 0
    home.mkdir()
    assert list(read(home)) == []


def test_readers_at_random_places_beside_a_writer_in_small_steps(home: Path) -> None:
    chance = random.Random(7)
    log = Log(home, segment_bytes=SMALL)
    readers = [(0, LogReader(home / "log"))]
    seen: list[list[int]] = [[]]
    n = 0
    for _ in range(300):
        count = chance.randrange(1, 9)
        log.append("a", n + 1, ticks(n + 1, n + count))
        n += count
        if not chance.randrange(15):
            after = chance.randrange(n + 1)
            readers.append((after, LogReader(home / "log", after)))
            seen.append([])
        for (_, reader), got in zip(readers, seen, strict=True):
            if chance.randrange(3):
                got.extend(numbers(reader.read()))
            if not chance.randrange(20):
                reader.close()
    for (after, reader), got in zip(readers, seen, strict=True):
        got.extend(numbers(read_on(reader)))
        reader.close()
        assert got == list(range(after + 1, n + 1))
    log.close()
