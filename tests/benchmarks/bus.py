"""From `publish` to three subscriptions, beside other buses of asyncio.

Each event is a `StepRecorded`, or the same fields in the other's own kind of event. Only ours and bubus write a log.
Ours may be behind with handing on when `publish` returns, so the time goes on until everybody has heard everything.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from kernel.plugin import Options, Plugin, on_batch
from kernel.runtime import collect_seldom
from kernel.testing import running
from plugins.events import StepRecorded
from tests.benchmarks import alone
from tests.benchmarks.streams import in_batches, step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from kernel.event import Record
    from tests.benchmarks.samples import Sample
    from tests.benchmarks.suites import Scope

SUBSCRIPTIONS = 3
EVENTS = {"stepreel": 300_000, "blinker": 100_000, "pyee": 30_000, "bubus": 600}
"""So many take each some tenths of a second and more."""


class Listener(Plugin[Options]):
    """Counts what it hears."""

    heard = 0

    @on_batch(StepRecorded, size=1000)
    async def take(self, records: list[Record[StepRecorded]]) -> None:
        self.heard += len(records)


def bus(scope: Scope) -> Iterator[Sample]:
    """Events a second, published one by one and by the thousand."""
    turns = []
    for batch in (1, 1000):
        for contender in scope.contenders_of(*EVENTS, quick=tuple(EVENTS)):
            events = EVENTS[contender] // (100 if scope.quick else 3 if batch == 1 else 1)
            load = "one at a time" if batch == 1 else "batches of 1,000"
            arguments = {"events": max(events, 5), "batch": batch}
            turns.append((load, contender, f"tests.benchmarks.bus:{contender}", arguments))
    yield from alone.rounds("bus", turns, scope.rounds)


def stepreel(folder: Path, events: int, batch: int) -> dict[str, float]:
    """Our kernel, with its log, and three plugins."""

    async def main() -> dict[str, float]:
        batches = in_batches(map(step, range(events)), batch)
        plugins = {f"listener-{place}": (Listener, Options()) for place in range(SUBSCRIPTIONS)}
        collect_seldom()
        async with running(folder / "home", plugins) as kernel:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            meter = Meter()
            for each in batches:
                await kernel.publish(*each)
            await kernel.settle(120)
            figures = meter.figures(events)
            heard = [plugin.heard for plugin in kernel.plugins.values() if isinstance(plugin, Listener)]
            assert heard == [events] * SUBSCRIPTIONS
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        return {**figures, "grown_mb": grown / 1024}

    return anyio.run(main)


def blinker(_: Path, events: int, batch: int) -> dict[str, float]:
    """A signal with three receivers, which are awaited one after the other: no queue, and no log."""
    from blinker import Signal

    signal = Signal()
    heard = [0] * SUBSCRIPTIONS
    receivers = [_receiver(heard, place) for place in range(SUBSCRIPTIONS)]
    for receiver in receivers:
        signal.connect(receiver)

    async def send(batch: list[Any]) -> None:
        for event in batch:
            await signal.send_async(event)

    return _publish_to(send, in_batches(map(step, range(events)), batch), heard)


def pyee(_: Path, events: int, batch: int) -> dict[str, float]:
    """An emitter that makes a task for each event and listener: no order between them, and no log."""
    from pyee.asyncio import AsyncIOEventEmitter

    emitter = AsyncIOEventEmitter()
    heard = [0] * SUBSCRIPTIONS
    for place in range(SUBSCRIPTIONS):
        emitter.on("step", _receiver(heard, place))

    async def send(batch: list[Any]) -> None:
        for event in batch:
            emitter.emit("step", event)
        await asyncio.sleep(0)

    return _publish_to(send, in_batches(map(step, range(events)), batch), heard)


def bubus(folder: Path, events: int, batch: int) -> dict[str, float]:
    """Events of pydantic, and a log of its own; it takes 50 events at a time, and refuses more."""
    from bubus import BaseEvent, EventBus

    logging.disable(logging.CRITICAL)

    class Step(BaseEvent[None]):  # type: ignore[misc,unused-ignore]  # untyped where it is not installed
        told: dict[str, Any]

    heard = [0] * SUBSCRIPTIONS
    told = [Step(told=msgspec.to_builtins(step(number))) for number in range(events)]
    buses: list[Any] = []

    async def send(batch: list[Any]) -> None:
        if not buses:
            buses.append(EventBus("benchmark", wal_path=folder / "log.jsonl"))
            for place in range(SUBSCRIPTIONS):
                receiver = _receiver(heard, place)
                receiver.__name__ = f"receiver_{place}"
                buses[0].on(Step, receiver)
        for first in range(0, len(batch), 50):
            for event in batch[first : first + 50]:
                buses[0].dispatch(event)
            await buses[0].wait_until_idle()

    async def stop() -> None:
        await buses[0].stop()  # else it does not let go of the loop

    return _publish_to(send, in_batches(iter(told), batch), heard, stop)


class Meter:
    """Wall clock and processor time of this process."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def figures(self, events: int) -> dict[str, float]:
        """So many events were handled since."""
        return {
            "events_per_second": events / (time.perf_counter() - self._began),
            "events_per_core_second": events / (time.process_time() - self._cpu),
        }


def _receiver(heard: list[int], place: int) -> Callable[[Any], Awaitable[None]]:
    async def receive(_: Any) -> None:
        heard[place] += 1

    return receive


def _publish_to(
    send: Callable[[list[Any]], Awaitable[None]],
    batches: list[list[Any]],
    heard: list[int],
    stop: Callable[[], Awaitable[None]] | None = None,
) -> dict[str, float]:
    events = sum(map(len, batches))

    async def main() -> dict[str, float]:
        collect_seldom()  # for the others, too, as their events are here before they are sent
        meter = Meter()
        for batch in batches:
            await send(batch)
        with anyio.fail_after(60):
            while heard != [events] * SUBSCRIPTIONS:  # they have no common word for it
                await asyncio.sleep(0)
        figures = meter.figures(events)
        if stop is not None:
            await stop()
        return figures

    return asyncio.run(main())
