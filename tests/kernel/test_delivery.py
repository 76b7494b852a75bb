"""Delivery: in the log's order, in batches, once to every handler, whatever fails in between."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.bus import Bus
from kernel.delivery import Delivery
from kernel.event import DeliveryFailed, Event, PluginState, Record
from kernel.log import Log
from kernel.plugin import Options, Plugin, on, on_batch
from kernel.testing import running
from tests.kernel.ticks import Flash, Tick, Tock, numbers, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.supervisor.BACKOFF_SECONDS", (0.01, 0.01, 0.01))


@contextmanager
def delivered(home: Path, kind: type[Plugin[Any]]) -> Iterator[tuple[Bus, Delivery]]:
    """A delivery to this plugin's handlers, to be served by hand."""
    log = Log(home)
    bus = Bus(log)
    subscription = bus.subscribe([each for handler in kind.handlers for each in handler.types])

    async def publish(event: Event) -> None:
        await bus.publish("kernel", [event])

    yield bus, Delivery("it", kind.handlers, subscription, publish)
    log.close()


async def test_a_plugins_handlers_see_the_logs_order_and_a_batch_comes_before_a_later_single_event(home: Path) -> None:
    heard: list[list[int]] = []

    class Ordered(Plugin[Options]):
        @on_batch(Tick, size=1000, within=60)
        async def many(self, records: list[Record[Tick]]) -> None:
            await anyio.sleep(0)
            heard.append(numbers(records))

        @on(Tock)
        async def one(self, tock: Tock) -> None:
            await anyio.sleep(0)
            heard.append([tock.n])

    async with running(home, {"it": (Ordered, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3), Tock(n=4), Tock(n=5), *ticks(6, 7), Tock(n=8))
        await kernel.settle()
    assert heard == [[1, 2, 3], [4], [5], [6, 7], [8]]


async def test_a_batch_is_handed_over_when_it_is_full_or_its_time_is_over(home: Path) -> None:
    heard: list[list[int]] = []
    got = anyio.Event()

    class Batched(Plugin[Options]):
        @on_batch(Tick, size=4, within=0.05)
        async def many(self, records: list[Record[Tick]]) -> None:
            heard.append(numbers(records))
            if records[-1].event.n == 10:
                got.set()

    async with running(home, {"it": (Batched, Options())}) as kernel:
        await kernel.publish(*ticks(1, 10))
        with anyio.fail_after(10):
            await got.wait()  # nothing comes behind it that could push it out
    assert heard == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


async def test_a_full_batch_takes_the_others_with_it(home: Path) -> None:
    heard: list[tuple[str, list[int]]] = []

    class Two(Plugin[Options]):
        @on_batch(Tick, size=3, within=0.1)
        async def a(self, records: list[Record[Tick]]) -> None:
            heard.append(("a", numbers(records)))

        @on_batch(Tick, Tock, size=100, within=0.1)
        async def b(self, records: list[Record[Event]]) -> None:
            heard.append(("b", numbers(records)))

    async with running(home, {"it": (Two, Options())}) as kernel:
        await kernel.publish(Tock(n=1), *ticks(2, 5), Tock(n=6))
        await kernel.settle()
    assert sorted(heard[:2]) == [("a", [2, 3, 4]), ("b", [1, 2, 3])]  # the third tick had yet to come to b
    assert sorted(heard[2:]) == [("a", [5]), ("b", [4, 5, 6])]


async def test_an_event_that_fails_comes_once_more_and_is_then_set_aside(home: Path) -> None:
    heard: list[int] = []

    class Failing(Plugin[Options]):
        @on(Tick)
        async def one(self, tick: Tick) -> None:
            heard.append(tick.n)
            if tick.n == 3:
                raise ValueError("three")

    async with running(home, {"it": (Failing, Options())}) as kernel:
        await kernel.publish(*ticks(1, 6))
        await kernel.settle()
        await kernel.publish(*ticks(7, 7))
        await kernel.settle()
        (failed,) = kernel.records(DeliveryFailed)
        (third,) = [record.seq for record in kernel.records(Tick) if record.event.n == 3]
        assert failed.event == DeliveryFailed(plugin="it", seq=third, event_type="Tick", reason="ValueError: three")
    assert heard == [1, 2, 3, 3, 4, 5, 6, 7]


async def test_an_event_that_fails_once_is_handled_at_its_second_coming(home: Path) -> None:
    heard: list[int] = []

    class FailingOnce(Plugin[Options]):
        @on_batch(Tick)
        async def many(self, records: list[Record[Tick]]) -> None:
            if not heard:
                heard.append(-1)
                raise OSError("the net is away")
            heard.extend(numbers(records))

    async with running(home, {"it": (FailingOnce, Options())}) as kernel:
        await kernel.publish(*ticks(1, 50))
        await kernel.settle()
        assert kernel.records(DeliveryFailed) == []
    assert heard == [-1, *range(1, 51)]


async def test_a_full_disk_sets_no_event_aside_however_long_it_lasts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.supervisor.SPACE_SECONDS", 0.02)
    heard: list[int] = []
    tries = 0

    class Storing(Plugin[Options]):
        @on(Tick)
        async def one(self, tick: Tick) -> None:
            nonlocal tries
            if tick.n == 3:
                tries += 1
                if tries < 10:
                    full = OSError(errno.ENOSPC, "No space left on device")
                    raise RuntimeError("a library's own word for it") from full
            heard.append(tick.n)

    async with running(home, {"it": (Storing, Options())}) as kernel:
        await kernel.publish(*ticks(1, 6))
        with anyio.fail_after(20):
            while [record.event.state for record in kernel.records(PluginState)] != ["started", "waiting", "started"]:
                await anyio.sleep(0.01)
        await kernel.settle()
        assert kernel.records(DeliveryFailed) == []
        assert kernel.said == [
            "[plugins.it] waits for space on the disk: RuntimeError: a library's own word for it",
            "[plugins.it] goes on: there is space on the disk",
        ]
    assert heard == [1, 2, 3, 4, 5, 6]
    assert tries == 10
    assert kernel.outcome is not None
    assert kernel.outcome.name == "drained"


async def test_a_handler_that_waited_for_a_cancelled_task_has_failed_and_is_not_silent_for_ever(home: Path) -> None:
    heard: list[int] = []

    class Waiting(Plugin[Options]):
        @on(Tick)
        async def one(self, tick: Tick) -> None:
            heard.append(tick.n)
            if tick.n == 3:
                task = asyncio.create_task(anyio.sleep_forever())
                task.cancel()
                await task

    async with running(home, {"it": (Waiting, Options())}) as kernel:
        await kernel.publish(*ticks(1, 6))
        await kernel.settle()
        (failed,) = kernel.records(DeliveryFailed)
        assert failed.event.reason == "RuntimeError: it raised CancelledError, though nobody had cancelled it"
    assert heard == [1, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["first", "single", "last"])
async def test_a_poisoned_event_in_a_batch_of_1000_costs_no_handler_any_other_event(home: Path, where: str) -> None:
    poison = 500
    heard: dict[str, list[int]] = {"first": [], "single": [], "last": [], "tocks": []}

    def hear(name: str, numbers_: list[int]) -> None:
        if where == name and poison in numbers_:
            raise ValueError("poison")
        heard[name] += numbers_

    class Mixed(Plugin[Options]):
        @on_batch(Tick, Tock, size=1000, within=0.1)
        async def a_first(self, records: list[Record[Event]]) -> None:
            hear("first", numbers(records))

        @on_batch(Tick, size=300, within=0.1)
        async def b_last(self, records: list[Record[Tick]]) -> None:
            hear("last", numbers(records))

        @on(Tock)
        async def c_tocks(self, tock: Tock) -> None:
            hear("tocks", [tock.n])

    class WithSingle(Mixed):
        @on(Tick)
        async def d_single(self, tick: Tick) -> None:
            hear("single", [tick.n])

    kind = WithSingle if where == "single" else Mixed
    async with running(home, {"it": (kind, Options())}) as kernel:
        events: list[Event] = [Tock(n=n) if n % 100 == 50 else Tick(n=n) for n in range(1, 1001)]
        await kernel.publish(*events)
        await kernel.settle()
        await kernel.publish(Tick(n=1001))
        await kernel.settle()
        (failed,) = kernel.records(DeliveryFailed)
        (poisoned,) = [r.seq for r in kernel.records(Tick) if r.event.n == poison]
        assert failed.event.seq == poisoned
    every = set(range(1, 1002)) - {poison}
    tocks = set(range(50, 1000, 100))
    expected = {"first": every, "last": every - tocks, "tocks": tocks}
    if where == "single":
        expected["single"] = every - tocks
    for name, wanted in expected.items():
        times = Counter(heard[name])
        times.pop(poison, None)  # a handler before the failing one may have had it
        assert times == Counter(wanted), name
        assert heard[name] == sorted(heard[name])


async def test_what_waits_in_a_batch_survives_the_failure_of_another_part_of_the_plugin(home: Path) -> None:
    heard: list[int] = []
    fail = anyio.Event()
    failed = anyio.Event()

    class Torn(Plugin[Options]):
        @on_batch(Tick, within=0.2)
        async def many(self, records: list[Record[Tick]]) -> None:
            heard.extend(numbers(records))

        @on(Tock)
        async def one(self, tock: Tock) -> None:
            heard.append(tock.n)
            if tock.n == 5 and not failed.is_set():
                fail.set()
                await anyio.sleep(10)  # is cancelled here, and comes again

        async def run(self) -> None:
            await fail.wait()
            if not failed.is_set():
                failed.set()
                raise RuntimeError("run failed")

    async with running(home, {"it": (Torn, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3), Tock(n=4), Tock(n=5), *ticks(6, 8), Tock(n=9))
        await kernel.settle()
    assert failed.is_set()
    assert heard == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


async def test_a_waiting_batch_survives_a_failing_run(home: Path) -> None:
    heard: list[int] = []
    fail = anyio.Event()
    failed = anyio.Event()

    class Torn(Plugin[Options]):
        @on_batch(Tick, within=0.3)
        async def many(self, records: list[Record[Tick]]) -> None:
            heard.extend(numbers(records))

        async def run(self) -> None:
            await fail.wait()
            if not failed.is_set():
                failed.set()
                raise RuntimeError("run failed")

    async with running(home, {"it": (Torn, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3))
        await anyio.sleep(0.05)  # they wait in the batch by now
        fail.set()
        await kernel.settle()
    assert heard == [1, 2, 3]


async def test_a_failure_does_not_send_a_long_idle_plugin_back_to_its_last_event(home: Path) -> None:
    class Rare(Plugin[Options]):
        @on(Tick)
        async def one(self, tick: Tick) -> None:
            raise ValueError("no")

    with delivered(home, Rare) as (bus, delivery):
        serving = delivery._subscription
        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                with pytest.raises(ValueError, match="no"):
                    await delivery.serve(Rare(Options(), None))  # type: ignore[arg-type]  # it does not speak

            tasks.start_soon(serve)
            await anyio.sleep(0)
            for first in range(0, 3000, 1000):
                await bus.publish("a", [Tock(n=n) for n in range(first, first + 1000)])
            await bus.publish("a", ticks(1, 1))
        assert serving.position == 3000


async def test_the_position_moves_on_while_batches_always_wait(home: Path) -> None:
    class Busy(Plugin[Options]):
        @on_batch(Tick, size=10, within=60)
        async def many(self, records: list[Record[Tick]]) -> None:
            pass

    with delivered(home, Busy) as (bus, delivery):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(delivery.serve, Busy(Options(), None))  # type: ignore[arg-type]  # it does not speak
            await bus.publish("a", ticks(1, 1))
            for first in range(2, 1500, 15):  # so that after each of these some are left over
                await bus.publish("a", ticks(first, first + 14))
                await anyio.sleep(0)
            await anyio.sleep(0.02)
            assert bus.log.last_seq == 1501
            assert delivery._subscription.position == 1500
            tasks.cancel_scope.cancel()


async def test_an_event_that_is_not_logged_and_fails_is_gone_and_the_logged_ones_are_not(home: Path) -> None:
    heard: list[tuple[str, int]] = []

    class Flashed(Plugin[Options]):
        @on(Flash)
        async def flash(self, flash: Flash) -> None:
            heard.append(("flash", flash.n))
            raise ValueError("flash")

        @on(Tick)
        async def tick(self, tick: Tick) -> None:
            heard.append(("tick", tick.n))

    async with running(home, {"it": (Flashed, Options())}) as kernel:
        await kernel.publish(Tick(n=1), Flash(n=2), Tick(n=3))
        await kernel.settle()
        await kernel.publish(Tick(n=4))
        await kernel.settle()
        assert kernel.records(DeliveryFailed) == []
        assert [r.event.state for r in kernel.records(PluginState)] == ["started", "restarting", "started"]
    assert heard == [("tick", 1), ("flash", 2), ("tick", 3), ("tick", 4)]


async def test_a_poisoned_event_at_the_end_of_its_batch_costs_no_third_failure(home: Path) -> None:
    heard: list[int] = []

    class Failing(Plugin[Options]):
        @on_batch(Tick, size=10)
        async def many(self, records: list[Record[Tick]]) -> None:
            if 10 in numbers(records):
                raise ValueError("poison")
            heard.extend(numbers(records))

    async with running(home, {"it": (Failing, Options())}) as kernel:
        await kernel.publish(*ticks(1, 30))
        await kernel.settle()
        assert [r.event.state for r in kernel.records(PluginState)].count("restarting") == 2
    assert heard == [n for n in range(1, 31) if n != 10]


async def test_two_poisoned_events_are_both_set_aside(home: Path) -> None:
    heard: list[int] = []

    class Failing(Plugin[Options]):
        @on_batch(Tick, size=100)
        async def many(self, records: list[Record[Tick]]) -> None:
            if {20, 21} & set(numbers(records)):
                raise ValueError("poison")
            heard.extend(numbers(records))

    async with running(home, {"it": (Failing, Options())}) as kernel:
        await kernel.publish(*ticks(1, 100))
        await kernel.settle()
        assert len(kernel.records(DeliveryFailed)) == 2
        assert "it" in kernel.plugins
    assert heard == [n for n in range(1, 101) if n not in (20, 21)]


async def test_a_slow_plugin_with_a_failing_event_gets_everything_while_much_comes(home: Path) -> None:
    heard: list[int] = []

    class Slow(Plugin[Options]):
        @on_batch(Tick, size=500)
        async def many(self, records: list[Record[Tick]]) -> None:
            await anyio.sleep(0.001)
            if 7000 in numbers(records):
                raise ValueError("poison")
            heard.extend(numbers(records))

    async with running(home, {"it": (Slow, Options())}) as kernel:
        for first in range(1, 30_001, 1000):
            await kernel.publish(*ticks(first, first + 999))
        await kernel.settle()
    assert heard == [n for n in range(1, 30_001) if n != 7000]
