"""Steps to log and SQLite, as they come and out of a log that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from kernel.log import Log
from kernel.runtime import collect_seldom
from kernel.testing import running
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions
from tests.benchmarks import alone
from tests.benchmarks.bus import Meter
from tests.benchmarks.streams import in_batches, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.benchmarks.samples import Sample
    from tests.benchmarks.suites import Scope


def tables(scope: Scope) -> Iterator[Sample]:
    """Steps a second until they are rows, and on disk in the log."""
    steps = 2_000 if scope.quick else 300_000
    turns = [("steps to log and tables", "stepreel", "tests.benchmarks.tables:persisted", {"steps": steps})]
    yield from alone.rounds("tables", turns, scope.rounds)


def rebuild(scope: Scope) -> Iterator[Sample]:
    """The tables out of a log of a million steps."""
    steps = 2_000 if scope.quick else 1_000_000
    turns = [(f"a log of {steps:,} steps", "stepreel", "tests.benchmarks.tables:rebuilt", {"steps": steps})]
    yield from alone.rounds("rebuild", turns, 1)


def persisted(folder: Path, steps: int) -> dict[str, float]:
    """Published in batches of 1,000 as fast as they are taken; the end is when the sink has committed the last row."""
    batches = in_batches(told(steps), 1000)

    async def main() -> dict[str, float]:
        collect_seldom()
        async with running(folder / "home", {"sqlite": (SqliteSink, SqliteSinkOptions())}) as kernel:
            meter = Meter()
            for batch in batches:
                await kernel.publish(*batch)
            await kernel.settle(600)
            return meter.figures(steps)

    return anyio.run(main)


def rebuilt(folder: Path, steps: int) -> dict[str, float]:
    """From the kernel's start on."""
    log, nth = Log(folder / "home"), 1
    for batch in in_batches(told(steps), 10_000):
        log.append("producer", nth, batch)
        nth += len(batch)
    log.close()

    async def main() -> dict[str, float]:
        collect_seldom()
        meter = Meter()
        async with running(folder / "home", {"sqlite": (SqliteSink, SqliteSinkOptions())}) as kernel:
            await kernel.settle(600)
            return {**meter.figures(steps), "log_mb": kernel.kernel.bus.log.size_bytes / 1e6}

    return anyio.run(main)
