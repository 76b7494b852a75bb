"""A subscriber that is far behind: python -m tests.faults.far_behind --events 1000000

Events as long as a StepRecorded are published as fast as they go; of two plugins one sleeps at each batch. Prints what
each has heard, and by how much the memory of the process grew.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from kernel.plugin import Options, Plugin, on_batch
from kernel.testing import running
from tests.kernel.ticks import Tick, numbers

if TYPE_CHECKING:
    from kernel.event import Record

STEP = "x" * 150
BATCH = 1000


class Quick(Plugin[Options]):
    """Takes what comes, in order and without a gap."""

    last = 0

    @on_batch(Tick, size=BATCH)
    async def take(self, records: list[Record[Tick]]) -> None:
        await self.pause()
        heard = numbers(records)
        if heard != list(range(self.last + 1, self.last + 1 + len(heard))):
            raise AssertionError(f"{heard[0]} to {heard[-1]} came behind {self.last}")
        self.last = heard[-1]

    async def pause(self) -> None:
        """Keeps nobody waiting."""


class Sleepy(Quick):
    """Falls behind at once."""

    async def pause(self) -> None:
        await anyio.sleep(0.005)


async def fall_behind(home: Path, events: int) -> str:
    """What they heard in the end, in words."""
    async with running(home, {"quick": (Quick, Options()), "sleepy": (Sleepy, Options())}) as kernel:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for first in range(1, events + 1, BATCH):
            await kernel.publish(*(Tick(n=n, padding=STEP) for n in range(first, min(first + BATCH, events + 1))))
        behind = kernel.kernel.lives[1].behind
        await kernel.settle(3600)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # of KiB; bytes on macOS
        heard = [plugin.last for plugin in kernel.plugins.values() if isinstance(plugin, Quick)]
    return f"{events} events; behind by {behind} at their end; heard {heard}; memory grew by {grown:.1f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.far_behind", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="stepreel-behind-") as folder:
        sys.stdout.write(f"{anyio.run(fall_behind, Path(folder) / 'home', events)}\n")


if __name__ == "__main__":
    main()
