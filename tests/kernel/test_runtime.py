"""The kernel's life: everything starts in order, ends in order, and tells how it ended."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.event import DeliveryFailed, KernelStarted, KernelStopped, LogTailCut, LoopLag, PluginState
from kernel.log import Log, read, segments
from kernel.plugin import Options, Plugin, Refused, on, on_batch
from kernel.runtime import Outcome, StartRefused, check
from kernel.testing import running
from kernel.wiring import Part
from tests.kernel.little_plugins import Count, CountOptions, Echo, Work, WorkOptions
from tests.kernel.ticks import Tick, Tock, numbers, ticks, written_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kernel.event import Record

pytestmark = pytest.mark.anyio


class Noted(Plugin[Options], publishes=[Tock]):
    """Notes down what happens to it."""

    notes: list[str]

    def note(self, what: str) -> None:
        self.notes.append(f"{self.name} {what}")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.note("in")
        yield
        self.note("out")

    async def run(self) -> None:
        self.note("run")

    async def drain(self) -> None:
        self.note("drain")


def noted() -> type[Noted]:
    class Fresh(Noted):
        notes: list[str] = []

    return Fresh


def parts(**plugins: type[Plugin[Any]]) -> list[Part]:
    return [Part(name, kind, kind.options_type(), kind.required) for name, kind in plugins.items()]


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_lifespans_are_entered_in_order_before_any_work_and_left_in_reverse(home: Path) -> None:
    kind = noted()
    async with running(home, {name: (kind, Options()) for name in ("c", "a", "b")}):
        await until(lambda: len(kind.notes) == 6)
    assert kind.notes[:3] == ["c in", "a in", "b in"]
    assert sorted(kind.notes[3:6]) == ["a run", "b run", "c run"]
    assert sorted(kind.notes[6:9]) == ["a drain", "b drain", "c drain"]
    assert kind.notes[-3:] == ["b out", "a out", "c out"]


async def test_what_a_lifespan_publishes_reaches_those_that_are_entered_later(home: Path) -> None:
    heard: list[int] = []

    class Early(Plugin[Options], publishes=[Tick]):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            await self.publish(Tick(n=1))
            yield
            await self.publish(Tick(n=2))

    class Late(Plugin[Options]):
        @on(Tick)
        async def listen(self, tick: Tick) -> None:
            heard.append(tick.n)

    async with running(home, {"early": (Early, Options()), "late": (Late, Options())}) as kernel:
        await kernel.settle()
    assert heard == [1]
    assert numbers(read(home, Tick)) == [1, 2]


async def test_the_log_tells_of_start_and_stop(home: Path) -> None:
    async with running(home, {"it": (Echo, Options())}) as kernel:
        await kernel.settle()
    first, *_, last = read(home)
    assert isinstance(first.event, KernelStarted)
    assert first.event.pid == os.getpid()
    assert first.event.plugins == {"it": "tests.kernel.little_plugins:Echo"}
    assert isinstance(last.event, KernelStopped)
    assert last.event.outcome == "drained"
    assert (first.source, last.source) == ("kernel", "kernel")
    assert [record.event.state for record in read(home, PluginState)] == ["started"]


async def test_the_kernel_ends_when_its_sources_have_returned_and_all_was_handled(home: Path) -> None:
    plugins = {
        "one": (Count, CountOptions(count=30)),
        "two": (Count, CountOptions(count=20, pause_seconds=0.01)),
        "echo": (Echo, Options()),
    }
    async with running(home, plugins) as kernel:
        await until(kernel.kernel._stopping.is_set)
    assert kernel.outcome is Outcome.drained
    assert len(list(read(home, Tock))) == 50


async def test_without_a_source_the_kernel_runs_until_it_is_asked_to_stop(home: Path) -> None:
    async with running(home, {"echo": (Echo, Options())}) as kernel:
        await anyio.sleep(0.1)
        assert not kernel.kernel._stopping.is_set()
        await kernel.publish(Tick(n=1))
    assert kernel.outcome is Outcome.drained
    assert numbers(read(home, Tock)) == [1]


async def test_sources_are_asked_to_stop_and_awaited(home: Path) -> None:
    class Thorough(Plugin[Options], publishes=[Tick]):
        source = True

        async def run(self) -> None:
            await self.stopping.wait()
            await anyio.sleep(0.1)
            await self.publish(Tick(n=1))

    async with running(home, {"it": (Thorough, Options()), "echo": (Echo, Options())}):
        pass
    assert numbers(read(home, Tock)) == [1]


async def test_draining_goes_on_in_rounds_until_one_brings_nothing(home: Path) -> None:
    class Left(Plugin[Options], publishes=[Tick]):
        """Publishes three more, one each time it is drained."""

        left = 3

        async def drain(self) -> None:
            if self.left:
                self.left -= 1
                await self.publish(Tick(n=self.left))

    class Relay(Plugin[Options], publishes=[Tock]):
        @on_batch(Tick, within=0.02)
        async def answer(self, records: list[Record[Tick]]) -> None:
            await anyio.sleep(0.01)
            await self.publish(*(Tock(n=n) for n in numbers(records)))

    heard: list[int] = []

    class Last(Plugin[Options]):
        @on(Tock)
        async def listen(self, tock: Tock) -> None:
            heard.append(tock.n)

    plugins = {"last": (Last, Options()), "relay": (Relay, Options()), "left": (Left, Options())}
    async with running(home, plugins) as kernel:
        pass
    assert heard == [2, 1, 0]
    assert kernel.outcome is Outcome.drained


async def test_services_keep_running_while_the_others_drain(home: Path) -> None:
    class Service(Plugin[Options], publishes=[Tick]):
        async def run(self) -> None:
            n = 0
            while True:
                n += 1
                await self.publish(Tick(n=n))
                await anyio.sleep(0.02)

    class Needy(Plugin[Options]):
        """Its drain waits for what the service says after the stop has begun."""

        heard = 0

        @on(Tick)
        async def listen(self, tick: Tick) -> None:
            self.heard += self.stopping.is_set()

        async def drain(self) -> None:
            await until(lambda: self.heard >= 5)
            self.left = True

    async with running(home, {"service": (Service, Options()), "it": (Needy, Options())}, drain_seconds=3) as kernel:
        needy = kernel.plugins["it"]
    assert isinstance(needy, Needy)
    assert needy.heard >= 5


async def test_a_drain_that_takes_too_long_is_left_for_the_next_start(home: Path) -> None:
    kind = noted()

    class Slow(kind):  # type: ignore[misc,valid-type]  # a class that a function made
        async def drain(self) -> None:
            await anyio.sleep(60)

    async with running(home, {"a": (kind, Options()), "b": (Slow, Options())}, drain_seconds=0.2) as kernel:
        pass
    assert kernel.outcome is Outcome.undrained
    assert kind.notes[-2:] == ["b out", "a out"]
    (stopped,) = read(home, KernelStopped)
    assert stopped.event.outcome == "undrained"


async def test_a_source_that_does_not_return_is_left_behind_at_the_deadline(home: Path) -> None:
    plugins = {"it": (Count, CountOptions(count=0, pause_seconds=0.01, stubborn=True))}
    async with running(home, plugins, drain_seconds=0.2) as kernel:
        pass
    assert kernel.outcome is Outcome.undrained


async def test_the_second_stop_stops_at_once(home: Path) -> None:
    async with running(home, {"work": (Work, WorkOptions(seconds=60))}) as kernel:
        kernel.kernel.stop()
        await anyio.sleep(0.05)
    assert kernel.outcome is Outcome.undrained
    assert [line.partition(":")[0].partition(";")[0] for line in kernel.said] == ["stopping", "stopping now"]


async def test_a_first_stop_while_the_kernel_drains_by_itself_lets_it_drain(home: Path) -> None:
    plugins = {"source": (Count, CountOptions(count=1)), "work": (Work, WorkOptions(seconds=0.3))}
    async with running(home, plugins) as kernel:
        await until(kernel.kernel._stopping.is_set)
        await anyio.sleep(0.05)
    assert kernel.outcome is Outcome.drained
    assert numbers(read(home, Tock)) == [-1, -2]


async def test_while_it_drains_the_kernel_says_what_it_waits_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.runtime.REMIND_SECONDS", 0.05)
    plugins = {"work": (Work, WorkOptions(seconds=0.2)), "echo": (Echo, Options())}
    async with running(home, plugins) as kernel:
        pass
    assert "waiting for work: 1 piece of work" in kernel.said


async def test_a_torn_end_is_said_and_logged(home: Path) -> None:
    written_log(home, 5)
    with segments(home / "log")[0].open("ab") as file:
        file.write(b'{"seq":6,"ti')
    async with running(home, {"echo": (Echo, Options())}) as kernel:
        (cut,) = kernel.records(LogTailCut)
        assert (cut.seq, cut.event.size_bytes) == (6, 12)
        assert cut.event.kept_as in kernel.said[0]


async def test_the_heart_tells_how_late_the_loop_is_and_brings_the_log_to_disk(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.runtime.HEARTBEAT_SECONDS", 0.02)
    lags: list[float] = []

    class Watching(Plugin[Options]):
        @on(LoopLag)
        async def look(self, lag: LoopLag) -> None:
            lags.append(lag.seconds)

    async with running(home, {"it": (Watching, Options())}) as kernel:
        bus = kernel.kernel.bus
        await kernel.publish(Tick(n=1))
        await until(lambda: bus.synced_seq == bus.log.last_seq and len(lags) > 2)
        assert all(0 <= lag < 10 for lag in lags)


# A log that cannot be written ------------------------------------------------------------------------------------


async def test_a_disk_that_fails_stops_the_kernel_with_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.runtime.HEARTBEAT_SECONDS", 0.05)
    left: list[str] = []

    class Orderly(Echo):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            try:
                yield
            finally:
                left.append("out")

    async with running(home, {"it": (Orderly, Options())}) as kernel:

        def failing(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", failing)
        await kernel.publish(Tick(n=1))
        await until(lambda: left)
    monkeypatch.undo()
    assert kernel.outcome is Outcome.failed
    assert f"stopped: {home}/log cannot be written: [Errno 5] Input/output error" in kernel.said
    Log(home).close()  # and the home is free and whole


async def test_a_write_that_fails_in_a_plugins_hands_stops_the_kernel_with_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def failing(descriptor: int, content: memoryview) -> int:
        raise OSError(errno.EFBIG, "File too large")

    class SlowEcho(Echo):
        @on(Tick)
        async def answer(self, tick: Tick) -> None:
            await anyio.sleep(0.05)
            await self.publish(Tock(n=tick.n))

    async with running(home, {"it": (SlowEcho, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        monkeypatch.setattr(os, "write", failing)
        await until(lambda: kernel.said and "stopped" in kernel.said[-1])
        monkeypatch.setattr(os, "write", real)
    assert kernel.outcome is Outcome.failed
    assert "cannot be written: [Errno 27] File too large" in kernel.said[-1]
    assert [record.seq for record in read(home)] == list(range(1, len(list(read(home))) + 1))


async def test_a_full_disk_does_not_hold_up_the_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.runtime.LAST_WORDS_SECONDS", 0.1)
    real = os.write

    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with anyio.fail_after(20):
        async with running(home, {"it": (Echo, Options())}) as kernel:
            await kernel.settle()
            monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(os, "write", real)
    assert kernel.outcome is Outcome.drained
    assert list(read(home, KernelStopped)) == []


async def test_a_full_disk_lets_plugins_wait_and_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with running(home, {"echo": (Echo, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3))
        monkeypatch.setattr(os, "write", full)
        await anyio.sleep(0.1)
        monkeypatch.setattr(os, "write", real)
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1, 2, 3]
        assert kernel.records(DeliveryFailed) == []
    assert kernel.outcome is Outcome.drained


# Checks ----------------------------------------------------------------------------------------------------------


async def test_a_check_asks_everybody_and_creates_nothing(home: Path) -> None:
    class One(Plugin[Options]):
        async def check(self) -> None:
            assert self.home.is_absolute()
            raise Refused("one: no")

    class Two(Plugin[Options]):
        async def check(self) -> None:
            raise KeyError("two")

    with pytest.raises(StartRefused) as refused:
        await check(home, parts(a=One, b=Two, c=One, d=Echo))
    assert sorted(refused.value.problems) == [
        "[plugins.a] one: no",
        "[plugins.b] its check failed: KeyError: 'two'",
        "[plugins.c] one: no",
    ]
    await check(home, parts(d=Echo))
    assert not home.exists()


async def test_a_check_of_a_home_in_use_says_so(home: Path) -> None:
    async with running(home, {"echo": (Echo, Options())}):
        with pytest.raises(StartRefused, match="another kernel is running"):
            await check(home, parts(d=Echo))
