"""For plugin authors: run a real kernel in a test, on a home of the test's own.

async with running(tmp_path, {"best": (Leaderboard, LeaderboardOptions())}) as kernel:
    await kernel.publish(EpisodeEnded(...))
    await kernel.settle()
    assert kernel.records(NewBest)
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import anyio

from kernel.config import LogOptions
from kernel.log import read
from kernel.runtime import Kernel, Outcome
from kernel.wiring import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from kernel.event import Event, Record
    from kernel.plugin import Options, Plugin

E = TypeVar("E", bound="Event")


class RunningKernel:
    """A kernel at work, with what a test wants of it."""

    def __init__(self, kernel: Kernel, said: list[str]) -> None:
        self.kernel = kernel
        self.said = said
        """The lines that the kernel would have printed."""
        self.outcome: Outcome | None = None
        """How it ended; None while it runs."""

    @property
    def plugins(self) -> dict[str, Plugin[Any]]:
        """The plugin instances at work, by name."""
        return {life.name: life.plugin for life in self.kernel.lives if life.plugin is not None}

    async def publish(self, *events: Event) -> None:
        """Publish as the source `test`."""
        await self.kernel.bus.publish("test", events)

    async def relay(self, source: str, first_nth: int, events: Sequence[Event]) -> None:
        """Publish as a producer would, by way of a collector."""
        await self.kernel.bus.relay(source, first_nth, events)

    async def settle(self, within_seconds: float = 30.0) -> None:
        """Return when every plugin has drained and handled everything. Raises `TimeoutError` when that takes longer."""
        with anyio.fail_after(within_seconds):
            await self.kernel.finish_work()

    @overload
    def records(self) -> list[Record[Event]]: ...
    @overload
    def records(self, *types: type[E]) -> list[Record[E]]: ...
    def records(self, *types: type[Event]) -> list[Any]:
        """The log's records of these types; of all types where none is given."""
        return list(read(self.kernel.home, *types))


@asynccontextmanager
async def running(
    home: Path,
    plugins: Mapping[str, tuple[type[Plugin[Any]], Options]],
    *,
    log: LogOptions | None = None,
    drain_seconds: float = 30.0,
) -> AsyncIterator[RunningKernel]:
    """Run a kernel with these plugins, in this order, while the block lasts; then drain and stop it in good order.

    The log, the bus, the supervision and the stop are the real ones; only signals and the configuration file are
    left out. A plugin that is refused at its start raises `kernel.runtime.StartRefused` here.
    """
    parts = [Part(name, plugin, options, plugin.required) for name, (plugin, options) in plugins.items()]
    said: list[str] = []
    kernel = Kernel(home, parts, log=log or LogOptions(), drain_seconds=drain_seconds, say=said.append)
    harness = RunningKernel(kernel, said)
    life = asyncio.create_task(kernel.run())
    life.add_done_callback(lambda _: kernel.running.set())
    await kernel.running.wait()
    try:
        if life.done():
            life.result()  # raises why it did not start
        yield harness
    finally:
        if not life.done():
            kernel.stop()
        harness.outcome = await life
