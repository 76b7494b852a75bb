"""Events per CPU-second of the kernel, from `publish` to the log and two plugins: python -m tests.benchmarks.bus.

200,000 events as long as a StepRecorded are published in batches of 1,000; one of the two plugins sleeps 1 ms a batch.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import anyio

from kernel.plugin import Options, Plugin, on_batch
from kernel.testing import running
from plugins.events import StepRecorded

if TYPE_CHECKING:
    from kernel.event import Record

EVENTS, BATCH = 200_000, 1000


class Quick(Plugin[Options]):
    heard = 0
    seconds: ClassVar[float] = 0.0

    @on_batch(StepRecorded, size=BATCH)
    async def take(self, records: list[Record[StepRecorded]]) -> None:
        self.heard += len(records)
        if self.seconds:
            await anyio.sleep(self.seconds)


class Sleepy(Quick):
    seconds: ClassVar[float] = 0.001


def step(number: int) -> StepRecorded:
    return StepRecorded(
        session="20261122-062718-k3v9", worker=0, agent="agent_0", episode=number // 200, step=number % 200, action=1,
        reward=1.0, terminated=False, truncated=False, observation=[0.0123, -0.4567, 0.0345, 0.6789], info={},
        frame=number % 200, time=1764000000.0 + number, step_seconds=0.00012,
    )  # fmt: skip


async def main(home: Path) -> None:
    events = [step(number) for number in range(EVENTS)]
    async with running(home, {"quick": (Quick, Options()), "sleepy": (Sleepy, Options())}) as kernel:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.monotonic(), time.process_time()
        for first in range(0, EVENTS, BATCH):
            await kernel.publish(*events[first : first + BATCH])
        await kernel.settle()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        heard = {name: plugin.heard for name, plugin in kernel.plugins.items() if isinstance(plugin, Quick)}
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        size = kernel.kernel.bus.log.size_bytes / kernel.kernel.bus.log.last_seq
    print(f"{EVENTS} events of {size:.0f} bytes; heard: {heard}; memory grew by {grown / 1024:.1f} MiB")
    print(f"{EVENTS / cpu:,.0f} events per CPU-second, {EVENTS / seconds:,.0f} per second")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(main, Path(folder) / "home")
