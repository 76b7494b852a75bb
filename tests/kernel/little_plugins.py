"""Plugins for kernels that the tests run as processes of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from kernel.plugin import Options, Plugin, Refused, on
from tests.kernel.ticks import Tick, Tock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class CountOptions(Options):
    count: int = 10
    """How many ticks to say; 0 for as many as there is time."""
    pause_seconds: float = 0.0
    stubborn: bool = False
    """Does not care to be stopped."""


class Count(Plugin[CountOptions], publishes=[Tick]):
    """A source that counts."""

    source = True

    async def run(self) -> None:
        n = 0
        while n != (self.options.count or -1):
            if self.stopping.is_set() and not self.options.stubborn:
                break
            n += 1
            await self.publish(Tick(n=n))
            await anyio.sleep(self.options.pause_seconds)


class Echo(Plugin[Options], publishes=[Tock]):
    """Answers each tick."""

    @on(Tick)
    async def answer(self, tick: Tick) -> None:
        await self.publish(Tock(n=tick.n))


class WorkOptions(Options):
    seconds: float = 0.0
    """How long its drain takes."""


class Work(Plugin[WorkOptions], publishes=[Tock]):
    """Has work in hand at the end."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield
        await self.publish(Tock(n=-2))

    async def drain(self) -> None:
        await anyio.sleep(self.options.seconds)
        if self.options.seconds:
            await self.publish(Tock(n=-1))
            self.options = WorkOptions()

    def pending(self) -> str:
        return "1 piece of work" if self.options.seconds else ""


class Failing(Plugin[Options]):
    """Fails on every tick."""

    @on(Tick)
    async def fail(self, tick: Tick) -> None:
        raise ValueError(f"cannot take {tick.n}")


class RequiredFailing(Failing):
    """Fails on every tick, and the kernel cannot do without it."""

    required = True


class Picky(Plugin[Options]):
    """Is never content."""

    async def check(self) -> None:
        raise Refused("env: nothing is good enough; choose another")


class TouchingOptions(Options):
    file: Path


class Touching(Plugin[TouchingOptions]):
    """Says on the disk that it was started."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.options.file.touch()
        yield


class SlowOptions(Options):
    enter_seconds: float = 0.0
    leave_seconds: float = 0.0


class Slow(Plugin[SlowOptions], publishes=[Tock]):
    """Says when it begins to start and to stop, and takes its time for both."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        await self.publish(Tock(n=-3))
        await anyio.sleep(self.options.enter_seconds)
        yield
        await self.publish(Tock(n=-4))
        await anyio.sleep(self.options.leave_seconds)
        await self.publish(Tock(n=-5))
