"""The bus: log, then route; nobody is waited for, nothing that is logged is lost, and memory stays bounded."""

from __future__ import annotations

import errno
import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest

from kernel.bus import MAILBOX_BYTES, Bus
from kernel.event import DiskFull, DiskHasRoom, Event, EventLeftOut, LogTrimmed, UnknownEvent
from kernel.log import EVENT_BYTES, RESERVE_BYTES, EventTooLarge, Log, read, segments
from tests.kernel.ticks import Flash, Tick, Tock, numbers, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernel.bus import Subscription
    from kernel.event import Record

pytestmark = pytest.mark.anyio

SMALL = 2000
STEP = "x" * 150  # a Tick with it is as long as a StepRecorded


@contextmanager
def opened(home: Path, segment_bytes: int = 2**26, keep_bytes: int = 2**40) -> Iterator[Bus]:
    log = Log(home, segment_bytes=segment_bytes, keep_bytes=keep_bytes)
    yield Bus(log)
    log.close()


async def taken(subscription: Subscription, last_seq: int) -> list[Record[Event]]:
    """Everything that a subscription gives up to this seq, each batch handled at once."""
    records: list[Record[Event]] = []
    with anyio.fail_after(30):
        while subscription.taken < last_seq:
            records += await subscription.take(0.01)
            subscription.done(subscription.taken)
    return records


async def test_what_is_published_is_in_the_log_when_it_is_routed(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick])
        await bus.publish("a", ticks(1, 3))
        assert await subscription.take(0) == list(read(home)) != []


async def test_subscribers_get_their_types_in_the_logs_order_from_its_end_on(home: Path) -> None:
    with opened(home) as bus:
        await bus.publish("a", ticks(1, 5))
        every, two, one = bus.subscribe([Event]), bus.subscribe([Tick, Tock]), bus.subscribe([Tock])
        await bus.publish("a", [Tick(n=6), Tock(n=7)])
        await bus.publish("b", [Tock(n=8)])
        await bus.publish("b", [Flash(n=9), Tick(n=10)])
        assert numbers(await every.take(0)) == [6, 7, 8, 9, 10]
        assert numbers(await two.take(0)) == [6, 7, 8, 10]
        assert numbers(await one.take(0)) == [7, 8]
        bus.unsubscribe(one)
        await bus.publish("b", [Tock(n=11)])
        assert await one.take(0) == []


async def test_a_flood_is_lost_by_nobody_and_memory_stays_bounded(home: Path) -> None:
    count, capacity = 200_000, 2000
    with opened(home) as bus:
        fast, slow = bus.subscribe([Tick], capacity), bus.subscribe([Tick], capacity)
        got: dict[str, list[int]] = {"fast": [], "slow": []}
        most: dict[str, int] = {"fast": 0, "slow": 0}
        fell_behind = 0

        async def consume(name: str, subscription: Subscription, seconds: float) -> None:
            nonlocal fell_behind
            while len(got[name]) < count:
                records = await subscription.take(None)
                got[name] += numbers(records)
                most[name] = max(most[name], len(records), len(subscription._waiting))
                fell_behind += name == "slow" and subscription._reader is not None
                if seconds:
                    await anyio.sleep(seconds)
                subscription.done(subscription.taken)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consume, "fast", fast, 0)
                tasks.start_soon(consume, "slow", slow, 0.001)
                for first in range(1, count + 1, 1000):
                    await bus.publish("a", ticks(first, first + 999, STEP))
        assert got["fast"] == got["slow"] == list(range(1, count + 1))
        assert fell_behind
        block = 2**20 // 200  # records of one block of log
        assert most["fast"] <= max(capacity, block)
        assert most["slow"] <= max(capacity, block)
        assert fast.position == slow.position == bus.log.last_seq == count
        assert fast.dropped == slow.dropped == 0


async def test_a_subscriber_goes_between_mailbox_and_log_without_gap_or_repeat(home: Path) -> None:
    chance = random.Random(3)
    with opened(home, segment_bytes=20_000) as bus:
        subscription = bus.subscribe([Tick], capacity=20)
        got: list[int] = []
        changes, was_live = 0, True
        n, tocks = 0, 0
        for _ in range(3000):
            if chance.randrange(2):
                count = chance.choice((1, 1, 5, 30))
                n += count
                await bus.publish("a", ticks(n - count + 1, n))
                if not chance.randrange(3):
                    tocks += 1
                    await bus.publish("b", [Tock(n=tocks)])
            if chance.randrange(3):
                before = subscription.position
                got += numbers(await subscription.take(0))
                if chance.randrange(4):
                    subscription.done(subscription.taken)
                assert before <= subscription.position <= bus.log.last_seq
            changes += was_live != subscription._live
            was_live = subscription._live
            assert len(subscription._waiting) <= 20
        while len(got) < n:
            got += numbers(await subscription.take(0))
        assert got == list(range(1, n + 1))
        assert changes > 50


async def test_the_position_is_never_ahead_of_what_was_handled_and_idle_at_the_logs_end(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick], capacity=5)
        await bus.publish("a", [Tock(n=n) for n in range(7)])
        assert subscription.position == 7  # nothing of it is wanted
        await bus.publish("a", ticks(8, 10))
        assert subscription.position == 7
        await subscription.take(0)
        assert subscription.position == 7  # taken is not handled
        await bus.publish("a", [Tock(n=11)])
        assert subscription.position == 7
        subscription.done(10)
        assert subscription.position == 11  # what was handled, and the tock that is not wanted
        await bus.publish("a", ticks(12, 30))  # past its capacity
        assert subscription.position == 11
        while (await subscription.take(0)) or subscription.taken < 30:
            assert subscription.position == 11
        subscription.done(subscription.taken)
        assert subscription.position == 30
        await bus.publish("a", [Tock(n=31), Flash(n=1)])
        assert subscription.position == 31


async def test_events_that_are_not_logged_are_dropped_oldest_first_and_counted(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Flash], capacity=10)
        await bus.publish("a", [Flash(n=n) for n in range(25)])
        assert numbers(await subscription.take(0)) == list(range(15, 25))
        assert subscription.dropped == 15
        assert list(read(home)) == []


async def test_every_event_that_is_not_logged_is_consumed_or_counted_as_dropped(home: Path) -> None:
    chance = random.Random(5)
    with opened(home) as bus:
        subscription = bus.subscribe([Flash, Tick], capacity=15)
        accepted = {Flash: 0, Tick: 0}
        consumed: dict[type[Event], list[int]] = {Flash: [], Tick: []}
        for _ in range(2000):
            kind = chance.choice((Flash, Tick))
            count = chance.choice((1, 3, 12))
            first = accepted[kind]
            accepted[kind] += count
            await bus.publish("a", [kind(n=n) for n in range(first, first + count)])
            if not chance.randrange(4):
                for record in await subscription.take(0):
                    consumed[type(record.event)] += numbers([record])
        while not subscription._live or subscription._waiting:
            for record in await subscription.take(0):
                consumed[type(record.event)] += numbers([record])
        assert accepted[Flash] == len(consumed[Flash]) + subscription.dropped
        assert subscription.dropped > 0
        assert consumed[Flash] == sorted(consumed[Flash])
        assert consumed[Tick] == list(range(accepted[Tick]))


async def test_publish_waits_for_no_subscriber(home: Path) -> None:
    with opened(home) as bus:
        stuck = bus.subscribe([Event], capacity=100)
        for first in range(1, 10_000, 100):
            await bus.publish("a", ticks(first, first + 99))
        assert bus.log.last_seq == 10_000
        assert numbers(await taken(stuck, 10_000)) == list(range(1, 10_001))


async def test_a_publisher_in_a_loop_lets_others_run(home: Path) -> None:
    with opened(home) as bus:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            for n in range(100):
                await bus.publish("a", ticks(n, n))
                await bus.publish("a", [Flash(n=n)])
            tasks.cancel_scope.cancel()
        assert turns >= 200


async def test_relay_leaves_out_what_the_log_has_and_refuses_gaps(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick])
        await bus.relay("p", 1, ticks(1, 5))
        await bus.relay("p", 1, ticks(1, 5))
        await bus.relay("p", 4, ticks(4, 8))
        await bus.relay("p", 2, ticks(2, 3))
        with pytest.raises(ValueError, match="p: event 10 came after event 8"):
            await bus.relay("p", 10, ticks(10, 11))
        await bus.relay("q", 1, ticks(1, 1))
        await bus.relay("p", 9, [])
        assert numbers(await subscription.take(0)) == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert [(record.source, record.nth) for record in read(home)] == [*(("p", n) for n in range(1, 9)), ("q", 1)]


async def test_relay_knows_over_a_restart_and_a_trim_what_it_has_relayed(home: Path) -> None:
    with opened(home, segment_bytes=SMALL, keep_bytes=SMALL) as bus:
        await bus.relay("p", 1, ticks(1, 20))
        for n in range(100):
            await bus.publish("a", ticks(n, n))
        await bus.sync()
        await bus.trim()
    assert not list(read(home, Tick, after=0)) or next(read(home)).source == "a"
    with opened(home) as bus:
        before = bus.log.last_seq
        await bus.relay("p", 11, ticks(11, 22))
        assert bus.log.last_seq == before + 2
        assert bus.log.last_nth("p") == 22


async def test_those_who_sync_together_share_an_fsync(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(home) as bus:
        await bus.publish("a", ticks(1, 1))
        await bus.sync()
        synced: list[int] = []
        real = bus.log.sync

        def sync() -> int:
            synced.append(real())
            return synced[-1]

        monkeypatch.setattr(bus.log, "sync", sync)
        await bus.sync()
        assert synced == []  # nothing is new
        await bus.publish("a", ticks(2, 9))
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(bus.sync)
        assert synced == [9]
        assert bus.synced_seq == 9


async def test_sync_returns_when_what_was_logged_before_it_is_safe_and_waits_for_no_more(home: Path) -> None:
    with opened(home) as bus:
        async with anyio.create_task_group() as tasks:

            async def say() -> None:
                for n in range(200):
                    await bus.publish("a", ticks(n, n))

            tasks.start_soon(say)
            for _ in range(5):
                wanted = bus.log.last_seq
                await bus.sync()
                assert bus.synced_seq >= wanted


async def test_a_slow_subscriber_holds_the_log_and_a_fast_one_does_not(home: Path) -> None:
    with opened(home, segment_bytes=SMALL, keep_bytes=SMALL) as bus:
        slow, fast = bus.subscribe([Tick], capacity=10), bus.subscribe([Tock])
        for n in range(1, 101):
            await bus.publish("a", ticks(n, n))
        await bus.sync()
        await bus.trim()
        assert next(read(home)).seq == 1
        assert fast.position == 100
        records = await taken(slow, 100)
        assert numbers(records) == list(range(1, 101))
        await bus.trim()
        (trimmed,) = read(home, LogTrimmed)
        assert trimmed.event.first_seq == next(read(home)).seq > 1
        assert bus.log.size_bytes <= 2 * SMALL


async def test_unsubscribing_releases_the_hold(home: Path) -> None:
    with opened(home, segment_bytes=SMALL, keep_bytes=SMALL) as bus:
        stuck = bus.subscribe([Tick])
        for n in range(1, 101):
            await bus.publish("a", ticks(n, n))
        await bus.sync()
        await bus.trim()
        assert next(read(home)).seq == 1
        bus.unsubscribe(stuck)
        await bus.trim()
        assert next(read(home)).seq > 1


async def test_relay_pauses_past_twice_the_bound_and_publish_does_not(home: Path) -> None:
    with opened(home, segment_bytes=SMALL, keep_bytes=SMALL) as bus:
        stuck = bus.subscribe([Tick], capacity=10)
        nth = 0
        while not bus.log.overfull:
            nth += 1
            await bus.relay("p", nth, ticks(nth, nth))
        with anyio.move_on_after(0.4) as waited:
            await bus.relay("p", nth + 1, ticks(nth + 1, nth + 1))
        assert waited.cancelled_caught
        await bus.publish("kernel", [Tock(n=1)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.relay, "p", nth + 1, ticks(nth + 1, nth + 1))
            await taken(stuck, bus.log.last_seq)
            await bus.sync()
            await bus.trim()
            with anyio.fail_after(10):
                while bus.log.last_nth("p") == nth:
                    await anyio.sleep(0.05)
        assert bus.log.last_nth("p") == nth + 1


async def test_reading_gives_what_is_in_the_log_at_the_call(home: Path) -> None:
    with opened(home, segment_bytes=SMALL) as bus:
        await bus.publish("a", ticks(1, 50))
        await bus.publish("a", [Tock(n=51)])
        got: list[int] = []
        async for record in bus.read((Tick,), 10):
            await bus.publish("a", [Tick(n=1000)])
            got.append(record.event.n)
        assert got == list(range(11, 51))
        assert [record async for record in bus.read((Flash,), 0)] == []


async def test_publishing_waits_for_space_and_then_says_everything_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick])
        full = True
        real = os.write

        def write(descriptor: int, content: memoryview) -> int:
            if full and len(content) < 200:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, content[:150] if full else content)

        monkeypatch.setattr(os, "write", write)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.relay, "p", 1, ticks(1, 5))
            tasks.start_soon(bus.publish, "a", ticks(6, 9))
            await anyio.sleep(0.1)
            assert await subscription.take(0) == []
            full = False
        assert sorted(numbers(await subscription.take(0))) == list(range(1, 10))
        monkeypatch.undo()
        assert "No space left on device; events wait for space" in capsys.readouterr().err
    assert sorted((record.source, record.nth) for record in read(home)) == [
        *(("a", n) for n in range(1, 5)),
        ("kernel", 1),  # that there is space again; that it was missing could not be said to a disk that took nothing
        *(("p", n) for n in range(1, 6)),
    ]


async def test_that_the_disk_is_full_is_said_in_the_log_with_what_was_held_back_for_that(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home) as bus:
        await bus.publish("a", ticks(1, 5))
        held = home / "log" / "reserve"
        assert held.stat().st_blocks * 512 >= RESERVE_BYTES
        full = True
        real = os.write

        def write(descriptor: int, content: memoryview) -> int:  # only what was held back is free
            if full and (held.exists() or len(content) > 4096):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, content)

        def hold(descriptor: int, offset: int, size_bytes: int) -> None:
            write(descriptor, memoryview(bytes(size_bytes)))

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(os, "posix_fallocate", hold, raising=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.publish, "a", ticks(6, 9))
            tasks.start_soon(bus.publish, "b", ticks(10, 12))
            with anyio.fail_after(10):
                while not list(read(home, DiskFull)):
                    await anyio.sleep(0.01)
            await anyio.sleep(0.6)  # they look again, and take nothing of it
            assert len(list(read(home, Tick))) == 5
            full = False
        (room,) = read(home, DiskHasRoom)
        assert room.event.seconds > 0.6
        assert [record.event for record in read(home, DiskFull)] == [DiskFull(reason="No space left on device")]
        assert sorted(numbers(read(home, Tick))) == list(range(1, 13))
        assert held.stat().st_blocks * 512 >= RESERVE_BYTES  # for the next time


async def test_a_reader_that_saw_lines_of_a_write_that_came_back_short_reads_them_again(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick], capacity=10)
        await bus.publish("a", ticks(1, 50))
        (segment,) = segments(home / "log")
        before = segment.stat().st_size
        last = segment.read_bytes().splitlines(keepends=True)[-1]
        with segment.open("ab") as file:
            file.write(last.replace(b'"seq":50', b'"seq":51').replace(b'"n":50', b'"n":-1'))
        assert await subscription.take(0) == []
        os.truncate(segment, before)
        await bus.publish("a", ticks(51, 60))
        assert numbers(await taken(subscription, 60)) == list(range(1, 61))


async def test_a_producers_event_that_is_too_large_is_replaced_and_its_count_goes_on(home: Path) -> None:
    huge = Tick(n=2, padding="x" * EVENT_BYTES)
    with opened(home) as bus:
        await bus.relay("p", 1, [Tick(n=1), huge, Tick(n=3)])
        await bus.relay("p", 1, [Tick(n=1), huge, Tick(n=3), Tick(n=4)])
        with pytest.raises(EventTooLarge, match=r"a Tick of 16777\d\d\d bytes is larger .* name the file in the event"):
            await bus.publish("a", [Tick(n=5), huge])
    assert numbers(read(home, Tick)) == [1, 3, 4]
    assert [record.nth for record in read(home)] == [1, 2, 3, 4]
    (left_out,) = read(home, EventLeftOut)
    assert (left_out.seq, left_out.nth, left_out.event.event_type) == (2, 2, "Tick")
    assert left_out.event.size_bytes > EVENT_BYTES


async def test_a_mailbox_of_large_events_is_bounded_in_bytes(home: Path) -> None:
    large = "x" * 2**20
    with opened(home) as bus:
        subscription, others = bus.subscribe([Tick]), bus.subscribe([Tock])
        await bus.publish("a", [Tock(n=0)])
        for n in range(1, 101):
            await bus.publish("a", [Tick(n=n, padding=large)])
            assert sum(len(record.event.padding) for record in waiting(subscription)) <= MAILBOX_BYTES
        assert len(waiting(subscription)) < 64
        assert numbers(await taken(subscription, 101)) == list(range(1, 101))
        await bus.publish("a", [Tick(n=101)])
        assert numbers(await subscription.take(0)) == [101]  # it is live again
        assert numbers(await taken(others, 102)) == [0]


async def test_events_that_nobody_declared_are_counted_and_said_at_the_first_and_each_doubling(home: Path) -> None:
    def unknown(tag: str, count: int) -> list[UnknownEvent]:
        return [UnknownEvent(tag=tag, raw=msgspec.json.encode({"type": tag})) for _ in range(count)]

    with opened(home) as bus:
        said: list[tuple[str, int]] = []

        def take() -> None:
            said.extend((event.tag, event.total) for event in bus.take_unknown())

        for nth in range(1, 41):
            await bus.relay("p", nth, unknown("Strange", 1))
            take()
        assert said == [("Strange", total) for total in (1, 2, 4, 8, 16, 32)]
        assert [(event.tag, event.total) for event in bus.take_last_unknown()] == [("Strange", 40)]
        said.clear()
        for number in range(2000):  # a program that makes up a new type each time
            await bus.relay("q", number + 1, unknown(f"Strange{number:05}" + "x" * 500, 1))
        take()
        assert len(said) == 1000
        assert said[-1] == ("…", 1001)
        assert max(len(tag) for tag, _ in said) == 200


def waiting(subscription: Subscription) -> list[Record[Tick]]:
    return list(subscription._waiting)  # type: ignore[arg-type]  # it wants ticks only


async def test_publishing_into_a_broken_log_raises(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.EIO, errno.ENOSPC):
        with opened(home.with_name(str(number))) as bus:
            await bus.publish("a", ticks(1, 1))

            def failing(descriptor: int, number: int = number) -> None:
                raise OSError(number, "lost")

            monkeypatch.setattr(os, "fsync", failing)
            with pytest.raises(OSError, match="lost"):
                await bus.sync()
            monkeypatch.undo()
            with anyio.fail_after(5):  # and waits for nothing, whatever the number of the error
                with pytest.raises(OSError, match="lost"):
                    await bus.publish("a", ticks(2, 2))
                with pytest.raises(OSError, match="lost"):
                    await bus.sync()
            assert bus.synced_seq == 0


async def test_a_subscription_that_starts_behind_gets_everything_from_there(home: Path) -> None:
    with opened(home, segment_bytes=SMALL) as bus:
        await bus.publish("a", ticks(1, 50))
        subscription = bus.subscribe([Tick])
        await bus.publish("a", ticks(51, 55))
        subscription.start_behind(20)
        assert subscription.position == 20
        assert numbers(await taken(subscription, 55)) == list(range(21, 56))
        await bus.publish("a", ticks(56, 56))
        assert numbers(await subscription.take(0)) == [56]


async def test_a_log_that_somebody_removes_does_not_stop_the_loop(home: Path) -> None:
    with opened(home) as bus:
        subscription = bus.subscribe([Tick], capacity=10)
        await bus.publish("a", ticks(1, 50))
        (home / "log" / f"{1:016}.jsonl").unlink()
        looks = 0
        with anyio.move_on_after(0.2):
            while True:
                assert await subscription.take(None) == []
                looks += 1
        assert 0 < looks < 20  # it looks again now and then, and not all the time
        await bus.publish("a", ticks(51, 60))
