"""Supervision: a plugin that fails is restarted, then left off; the others never notice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.config import LogOptions
from kernel.event import DeliveryFailed, EventsDropped, KernelStopped, PluginState
from kernel.log import read
from kernel.plugin import Options, Plugin, Refused, on, on_batch
from kernel.runtime import Outcome, StartRefused
from kernel.testing import running
from tests.kernel.ticks import Flash, Tick, Tock, answer, numbers, python, ticks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kernel.event import Record
    from kernel.testing import RunningKernel

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.supervisor.BACKOFF_SECONDS", (0.01, 0.01, 0.01))


class Listener(Plugin[Options]):
    """A bystander: hears every tick, and must never notice what the others do."""

    def __init__(self, options: Options, port: Any) -> None:
        super().__init__(options, port)
        self.heard: list[int] = []

    @on(Tick)
    async def listen(self, tick: Tick) -> None:
        self.heard.append(tick.n)


class Echo(Plugin[Options], publishes=[Tock]):
    """Fails as often as `failures` says; else answers each tick."""

    failures = 0

    @on(Tick)
    async def answer(self, tick: Tick) -> None:
        if type(self).failures:
            type(self).failures -= 1
            raise ValueError("not now")
        await self.publish(Tock(n=tick.n))


def failing(times: int) -> type[Echo]:
    class Failing(Echo):
        failures = times

    return Failing


def states(kernel: RunningKernel, plugin: str) -> list[str]:
    return [record.event.state for record in kernel.records(PluginState) if record.event.plugin == plugin]


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_plugin_that_fails_is_restarted_and_the_others_never_notice(home: Path) -> None:
    plugins: dict[str, tuple[type[Plugin[Any]], Options]] = {
        "before": (Listener, Options()),
        "it": (failing(1), Options()),
        "behind": (Listener, Options()),
    }
    async with running(home, plugins) as kernel:
        others = [kernel.plugins["before"], kernel.plugins["behind"]]
        await kernel.publish(*ticks(1, 5))
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1, 2, 3, 4, 5]
        assert states(kernel, "it") == ["started", "restarting", "started"]
        (restarting,) = [r.event for r in kernel.records(PluginState) if r.event.state == "restarting"]
        assert restarting.reason == "ValueError: not now"
        assert 'raise ValueError("not now")' in restarting.traceback
        assert kernel.said == ["[plugins.it] failed and is restarted: ValueError: not now"]
        assert [kernel.plugins["before"], kernel.plugins["behind"]] == others
        assert all(each.heard == [1, 2, 3, 4, 5] for each in others if isinstance(each, Listener))
    assert kernel.outcome is Outcome.drained


async def test_three_restarts_are_granted_and_the_fourth_failure_within_a_minute_leaves_it_off(home: Path) -> None:
    plugins: dict[str, tuple[type[Plugin[Any]], Options]] = {
        "it": (failing(4), Options()),
        "other": (Listener, Options()),
    }
    async with running(home, plugins) as kernel:
        await kernel.publish(*ticks(1, 5))
        await until(lambda: "left off" in states(kernel, "it"))
        await kernel.publish(*ticks(6, 8))
        await kernel.settle()
        assert states(kernel, "it") == ["started", "restarting"] * 3 + ["started", "left off"]
        assert "it" not in kernel.plugins
        listener = kernel.plugins["other"]
        assert isinstance(listener, Listener)
        assert listener.heard == list(range(1, 9))
        assert kernel.said[-1] == "[plugins.it] failed 4 times and is left off: ValueError: not now"
    assert kernel.outcome is Outcome.failed
    (stopped,) = read(home, KernelStopped)
    assert stopped.event.outcome == "failed"


async def test_what_only_a_user_can_mend_leaves_a_plugin_off_at_once(home: Path) -> None:
    class Refusing(Plugin[Options]):
        @on(Tick)
        async def refuse(self, tick: Tick) -> None:
            raise Refused("codec: nothing encodes it; choose another")

    async with running(home, {"it": (Refusing, Options()), "other": (Listener, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        await kernel.settle()
        assert states(kernel, "it") == ["started", "left off"]
        assert kernel.said == ["[plugins.it] is left off: codec: nothing encodes it; choose another"]
    assert kernel.outcome is Outcome.failed


async def test_failures_that_are_far_apart_do_not_add_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.supervisor.WITHIN_SECONDS", 0.02)
    async with running(home, {"it": (failing(6), Options())}) as kernel:
        for n in range(1, 8):
            await kernel.publish(Tick(n=n))
            await kernel.settle()
            await anyio.sleep(0.03)
        assert states(kernel, "it").count("restarting") == 6
        assert "it" in kernel.plugins


async def test_a_required_plugin_that_is_left_off_stops_the_kernel_in_good_order(home: Path) -> None:
    ended: list[str] = []

    class Required(failing(4)):  # type: ignore[misc]  # a class that a function made
        required = True

    class Draining(Listener):
        async def drain(self) -> None:
            ended.append("drained")

    async with running(home, {"it": (Required, Options()), "other": (Draining, Options())}) as kernel:
        await kernel.publish(*ticks(1, 2))
        await until(kernel.kernel._stopping.is_set)
        await until(lambda: "drained" in ended)
    assert kernel.outcome is Outcome.failed
    assert "stopping: [plugins.it] is required" in kernel.said


async def test_a_plugin_that_is_left_off_holds_the_log_no_more(home: Path) -> None:
    log = LogOptions(segment_bytes=2000, keep_bytes=2000)
    async with running(home, {"it": (failing(4), Options())}, log=log) as kernel:
        bus = kernel.kernel.bus
        await kernel.publish(*ticks(1, 5))
        await until(kernel.kernel.lives[0].ended.is_set)
        for n in range(100):
            await kernel.publish(*ticks(n, n))
        await bus.sync()
        await bus.trim()
        assert bus.log.size_bytes <= 2 * 2000
        assert bus._subscriptions == []


# Where a plugin may raise ----------------------------------------------------------------------------------------


async def test_a_lifespan_that_fails_to_be_entered_is_tried_again_before_the_others_start(home: Path) -> None:
    order: list[str] = []

    class Slow(Echo):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            order.append("try")
            if len(order) < 3:
                raise OSError("the port is taken")
            yield

    class Later(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            order.append("later")
            yield

    async with running(home, {"it": (Slow, Options()), "later": (Later, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1]
    assert order == ["try", "try", "try", "later"]
    assert kernel.outcome is Outcome.drained


async def test_a_lifespan_that_always_fails_leaves_the_plugin_off_and_starts_the_rest(home: Path) -> None:
    class Hopeless(Echo):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            if self.name:
                raise OSError("the port is taken")
            yield

    async with running(home, {"it": (Hopeless, Options()), "other": (Listener, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        await kernel.settle()
        listener = kernel.plugins["other"]
        assert isinstance(listener, Listener)
        assert listener.heard == [1]
    assert kernel.outcome is Outcome.failed


@pytest.mark.parametrize("place", ["lifespan", "handlers"])
async def test_a_plugin_that_cannot_be_made_or_has_no_place_is_treated_like_any_that_fails(
    home: Path, place: str
) -> None:
    class Hopeless(Echo):
        def __init__(self, options: Options, port: Any) -> None:
            super().__init__(options, port)
            if place == "lifespan":
                raise KeyError("option")

        async def cursor(self) -> int | None:
            raise OSError("no store")

    async with running(home, {"it": (Hopeless, Options()), "other": (Listener, Options())}) as kernel:
        await kernel.settle()
        assert "other" in kernel.plugins
        assert states(kernel, "it")[-1] == "left off"
    assert kernel.outcome is Outcome.failed


async def test_a_lifespan_is_left_when_its_plugin_fails_and_entered_anew(home: Path) -> None:
    order: list[str] = []

    class Orderly(failing(2)):  # type: ignore[misc]  # a class that a function made
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            order.append("in")
            try:
                yield
            finally:
                order.append("out")

    async with running(home, {"it": (Orderly, Options())}) as kernel:
        await kernel.publish(*ticks(1, 2))
        await kernel.settle()
    assert order == ["in", "out"] * 3


async def test_a_lifespan_that_keeps_failures_back_is_no_endless_loop(home: Path) -> None:
    entered: list[int] = []

    class Swallowing(failing(100)):  # type: ignore[misc]  # a class that a function made
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            entered.append(1)
            with contextlib.suppress(Exception):
                yield

    async with running(home, {"it": (Swallowing, Options())}) as kernel:
        await kernel.publish(*ticks(1, 200))
        await until(lambda: "left off" in states(kernel, "it"))
        assert "lifespan" in kernel.said[0]
    assert len(entered) == 4


async def test_a_lifespan_that_fails_while_it_is_left_at_the_stop_is_said_and_counts(home: Path) -> None:
    left: list[str] = []

    class Broken(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            raise OSError("cannot commit")

    class Before(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            left.append("before")

    async with running(home, {"before": (Before, Options()), "it": (Broken, Options())}) as kernel:
        await kernel.settle()
    assert left == ["before"]
    assert kernel.said[-1] == "[plugins.it] failed while it was stopped: OSError: cannot commit"
    assert kernel.outcome is Outcome.failed


async def test_a_lifespan_that_fails_while_it_is_left_between_restarts_is_one_more_failure(home: Path) -> None:
    class Broken(failing(1)):  # type: ignore[misc]  # a class that a function made
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            try:
                yield
            finally:
                if Broken.failures == 0 and not self.stopping.is_set():
                    Broken.failures = -1
                    raise OSError("and the port is gone")

        @on(Tick)
        async def answer(self, tick: Tick) -> None:
            if Broken.failures > 0:
                Broken.failures = 0
                raise ValueError("not now")
            await self.publish(Tock(n=tick.n))

    async with running(home, {"it": (Broken, Options())}) as kernel:
        await kernel.publish(*ticks(1, 2))
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1, 2]
        assert states(kernel, "it") == ["started", "restarting", "started"]


@pytest.mark.parametrize("where", ["lifespan", "cursor", "run", "drain", "leaving"])
async def test_a_cancelled_error_of_a_plugins_own_is_a_failure_wherever_it_comes_from(home: Path, where: str) -> None:
    """It comes of awaiting a task that was cancelled, and would end the plugin without a word."""
    raised: list[str] = []

    def perhaps_raise(place: str) -> None:
        if place == where and not raised:
            raised.append(place)
            raise asyncio.CancelledError

    class It(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with super().lifespan():
                perhaps_raise("lifespan")
                yield
                perhaps_raise("leaving")

        async def cursor(self) -> int | None:
            perhaps_raise("cursor")
            return None

        async def run(self) -> None:
            perhaps_raise("run")

        async def drain(self) -> None:
            perhaps_raise("drain")

    async with running(home, {"it": (It, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3))
        await kernel.settle()
        if where != "leaving":
            assert "restarting" in states(kernel, "it")
            await until(lambda: states(kernel, "it")[-1] == "started")
        plugin = kernel.plugins["it"]
        assert isinstance(plugin, It)
        await kernel.publish(*ticks(4, 6))
        await kernel.settle()
        assert plugin.heard[-3:] == [4, 5, 6]
    assert raised == [where]
    (words,) = [line for line in kernel.said if "CancelledError" in line]
    assert "RuntimeError: it raised CancelledError, though nobody had cancelled it" in words
    assert kernel.outcome is (Outcome.failed if where == "leaving" else Outcome.drained)


async def test_a_plugin_that_leaks_every_descriptor_there_is_stops_nobody_else(home: Path) -> None:
    code = """
import os, resource, sys
from pathlib import Path
import anyio
from kernel.config import LogOptions
from kernel.event import Event
from kernel.plugin import Options, Plugin, on
from kernel.testing import running
from tests.kernel.ticks import Tick, Tock, numbers, ticks

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

class Leaking(Plugin[Options]):
    @on(Tick)
    async def leak(self, tick):
        while True:
            os.dup(0)

class Echo(Plugin[Options], publishes=[Tock]):
    @on(Tick)
    async def answer(self, tick):
        await self.publish(Tock(n=tick.n))

async def main():
    plugins = {"leaking": (Leaking, Options()), "echo": (Echo, Options())}
    async with running(Path(sys.argv[1]), plugins, log=LogOptions(segment_bytes=2000)) as kernel:
        await kernel.publish(*ticks(1, 200))
        with anyio.fail_after(60):
            while kernel.kernel.bus.log.last_nth("echo") < 200 or "leaking" in kernel.plugins:
                await anyio.sleep(0.05)
        os.closerange(40, 64)
    print(kernel.outcome.name, [line.partition(":")[0] for line in kernel.said][-1])

anyio.run(main)
"""
    assert answer(python(code, home)) == "failed [plugins.leaking] failed 4 times and is left off"
    assert sorted(numbers(read(home, Tock))) == list(range(1, 201))
    assert [record.seq for record in read(home)] == list(range(1, len(list(read(home))) + 1))


async def test_a_run_that_fails_is_run_again(home: Path) -> None:
    runs: list[int] = []

    class Service(Echo):
        async def run(self) -> None:
            runs.append(1)
            if len(runs) < 3:
                raise ConnectionError("away")
            await anyio.sleep_forever()

    async with running(home, {"it": (Service, Options())}) as kernel:
        await until(lambda: len(runs) == 3)
        await kernel.publish(Tick(n=1))
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1]
    assert kernel.outcome is Outcome.drained


async def test_a_sources_job_is_done_once_whatever_fails_behind_it(home: Path) -> None:
    runs: list[int] = []

    class Source(failing(1), publishes=[Tick]):  # type: ignore[call-arg,misc]  # a class that a function made
        source = True

        async def run(self) -> None:
            runs.append(1)
            await self.publish(Tick(n=1))

    async with running(home, {"it": (Source, Options())}) as kernel:
        await until(lambda: len(kernel.records(Tock)) == 1)
    assert runs == [1]
    assert kernel.outcome is Outcome.drained


async def test_a_drain_that_fails_is_tried_by_the_next_instance(home: Path) -> None:
    drains: list[int] = []

    class Drained(Echo):
        async def drain(self) -> None:
            drains.append(1)
            if len(drains) == 1:
                raise OSError("not yet")
            await self.publish(Tock(n=77)) if len(drains) == 2 else None

    async with running(home, {"it": (Drained, Options())}) as kernel:
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [77]
        assert states(kernel, "it") == ["started", "restarting", "started"]
    assert kernel.outcome is Outcome.drained


async def test_a_drain_that_always_fails_ends_in_a_stop_all_the_same(home: Path) -> None:
    class Drained(Echo):
        async def drain(self) -> None:
            raise OSError("never")

    async with running(home, {"it": (Drained, Options())}) as kernel:
        pass
    assert kernel.outcome is Outcome.failed
    assert kernel.said[-1] == "[plugins.it] failed 4 times and is left off: OSError: never"


async def test_a_plugin_that_publishes_what_it_did_not_declare_is_told_so(home: Path) -> None:
    class Undeclared(Plugin[Options]):
        @on(Tick)
        async def answer(self, tick: Tick) -> None:
            await self.publish(Tock(n=tick.n))

    async with running(home, {"it": (Undeclared, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        await kernel.settle()
        assert "publishes a Tock that it does not declare; add it to publishes=[...]" in kernel.said[0]


# Cursors ---------------------------------------------------------------------------------------------------------


class Sink(Plugin[Options]):
    """Keeps the ticks and its cursor in one list, as a sink does in one transaction."""

    rebuild = "Delete store.sqlite to rebuild it from the log."
    store: list[tuple[int, int]]
    fails_at: set[int]

    async def cursor(self) -> int | None:
        return self.store[-1][0] if self.store else 0

    @on_batch(Tick, size=7, within=0.02)
    async def keep(self, records: list[Record[Tick]]) -> None:
        await anyio.sleep(0)
        for record in records:
            if record.event.n in type(self).fails_at:
                type(self).fails_at.discard(record.event.n)
                raise OSError("no space")
        self.store.extend((record.seq, record.event.n) for record in records)


def sink(*fails_at: int) -> type[Sink]:
    class Fresh(Sink):
        pass

    Fresh.store, Fresh.fails_at = [], set(fails_at)
    return Fresh


async def test_a_plugin_with_a_cursor_has_each_event_exactly_once_over_failures_and_restarts(home: Path) -> None:
    kind = sink(5, 30, 77)
    async with running(home, {"before": (Listener, Options())}) as kernel:
        await kernel.publish(*ticks(1, 40))
    for first in (41, 71):
        async with running(home, {"it": (kind, Options())}) as kernel:
            await kernel.publish(*ticks(first, first + 29))
            await kernel.settle()
            assert kernel.records(DeliveryFailed) == []
    assert [n for _, n in kind.store] == list(range(1, 101))
    assert kind.fails_at == set()


async def test_a_plugin_that_loses_what_it_did_not_commit_gets_it_again_behind_its_cursor(home: Path) -> None:
    class Uncommitted(sink()):  # type: ignore[misc]  # a class that a function made
        """Commits every tenth only; what failed before that is rolled back."""

        open: list[tuple[int, int]]
        failed = False

        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.open = []
            yield

        @on(Tick)
        async def keep(self, tick: Tick) -> None:
            if tick.n == 25 and not Uncommitted.failed:
                Uncommitted.failed = True
                raise OSError("no space")
            self.open.append((0, tick.n))
            if not tick.n % 10:
                (seq,) = [r.seq for r in read(home, Tick) if r.event.n == tick.n]
                self.store.extend((seq, n) for _, n in self.open)
                self.open.clear()

    async with running(home, {"it": (Uncommitted, Options())}) as kernel:
        await kernel.publish(*ticks(1, 40))
        await kernel.settle()
    assert [n for _, n in Uncommitted.store] == list(range(1, 41))


async def test_a_cursor_beyond_the_logs_end_is_refused_with_the_words_to_rebuild(home: Path) -> None:
    kind = sink()
    kind.store.append((1000, 1))
    left: list[str] = []

    class Before(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            left.append("before")

    plugins = {"before": (Before, Options()), "it": (kind, Options()), "behind": (Listener, Options())}
    with anyio.fail_after(10), pytest.raises(StartRefused) as refused:
        async with running(home, plugins):
            pytest.fail("it started")
    (problem,) = refused.value.problems
    assert problem.startswith("[plugins.it] has taken in events up to 1000, but the log of ")
    assert problem.endswith("Delete store.sqlite to rebuild it from the log.")
    assert left == ["before"]
    assert [record.event.outcome for record in read(home, KernelStopped)] == ["refused"]


async def test_a_lifespan_that_refuses_ends_the_start_with_its_sentence(home: Path) -> None:
    class Refusing(Listener):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            if self.name:
                raise Refused("port: 80 is taken; choose another")
            yield

    with anyio.fail_after(10), pytest.raises(StartRefused, match=r"\[plugins\.it\] port: 80 is taken"):
        async with running(home, {"it": (Refusing, Options()), "behind": (Listener, Options())}):
            pytest.fail("it started")


async def test_a_cursor_holds_the_log_from_before_its_plugin_is_at_work(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.runtime.HEARTBEAT_SECONDS", 0.02)
    log = LogOptions(segment_bytes=2000, keep_bytes=2000)
    kind = sink()

    class SlowToOpen(kind):  # type: ignore[misc,valid-type]  # a class that a function made
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            await anyio.sleep(0.3)  # the heart beats meanwhile, and may trim
            yield

    async with running(home, {"other": (Listener, Options())}, log=LogOptions(segment_bytes=2000)) as kernel:
        for n in range(1, 101):
            await kernel.publish(Tick(n=n))
    async with running(home, {"it": (SlowToOpen, Options())}, log=log) as kernel:
        await kernel.settle()
    assert [n for _, n in kind.store] == list(range(1, 101))


async def test_events_that_were_dropped_are_said_with_their_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.runtime.HEARTBEAT_SECONDS", 0.02)
    go_on = anyio.Event()
    heard: list[int] = []

    class Stuck(Plugin[Options]):
        @on(Flash)
        async def look(self, flash: Flash) -> None:
            await go_on.wait()
            heard.append(flash.n)

    async with running(home, {"it": (Stuck, Options())}) as kernel:
        await kernel.publish(Flash(n=0))
        await anyio.sleep(0.01)
        await kernel.publish(*(Flash(n=n) for n in range(1, 10_001)))
        await until(lambda: kernel.records(EventsDropped))
        go_on.set()
        await until(lambda: heard[-1:] == [10_000])
        dropped = sum(record.event.count for record in kernel.records(EventsDropped))
        assert {record.event.plugin for record in kernel.records(EventsDropped)} == {"it"}
    assert dropped + len(heard) == 10_001
    gc.collect()  # what was left half open would be said here
