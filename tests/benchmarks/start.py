"""How long a start after a kill takes until the first new event is routed: python -m tests.benchmarks.start.

The home has 1,000 videos and an active log segment of nearly 64 MiB, which no kernel has closed; a producer has left
some steps in its spool. The kernel is that of the quickstart's plugins, and one more, which waits for the first step.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from kernel.config import LogOptions
from kernel.log import SEGMENT_BYTES, Log, segments
from kernel.plugin import Options, Plugin, on
from kernel.runtime import Kernel
from kernel.wiring import Part
from plugins import catalogue
from plugins.catalogue import Entry
from plugins.events import Keep, StepRecorded
from plugins.pruner import PrunerOptions
from tests.benchmarks.streams import step
from tests.faults.lives import Recorded, Served, parts, record, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.event import Event

VIDEOS = 1000
BATCH = 1000
ROUNDS = 3
NEW = "20261123-000000-newn"


KEEP_ALL = Served(pruner=PrunerOptions(max_videos_per_session=0, min_free_bytes=0))


class First(Plugin[Options]):
    """Notes when the first step of the new session comes."""

    @on(StepRecorded)
    async def note(self, event: StepRecorded) -> None:
        if event.session == NEW and not found:
            found.append((time.monotonic(), time.process_time()))


found: list[tuple[float, float]] = []


def fill(home: Path) -> None:
    """Make the home, as a kernel leaves it that is killed."""
    log = Log(home)
    (home / "videos").mkdir()
    for number in range(VIDEOS):
        entry = _video(home, number)
        catalogue.write(home, entry)
        _append(log, [catalogue.announcement(entry)])
    steps = [step(number) for number in range(BATCH)]
    while log.size_bytes < SEGMENT_BYTES - 400 * BATCH:
        _append(log, steps)
    log.close()
    serve(home, KEEP_ALL)  # the tables are up to date, and the pruner has its notes
    record(home, Recorded(session=NEW, lengths=(5,), captured=()))


def _append(log: Log, events: Sequence[Event]) -> None:
    log.append("producer", log.last_nth("producer") + 1, events)


def _video(home: Path, number: int) -> Entry:
    file = home / "videos" / f"{number}.mp4"
    file.write_bytes(bytes(100))
    return Entry(
        recording=f"20261122-062718-k3v9-q2xa81bc-{number:04d}", session="20261122-062718-k3v9", worker=0,
        first_episode=number, last_episode=number, env_id="CartPole-v1", path=f"videos/{number}.mp4",
        identity=catalogue.identify(file), sha256="", frames=1, fps=50.0, width=64, height=32, codec="h264",
        seconds=1.0, thumbnail=None, complete=True, incomplete_because="", total_reward=1.0, kept_for=[], keep=Keep(),
        started=1764000000.0 + number, available=1764000001.0 + number,
    )  # fmt: skip


async def start(home: Path) -> None:
    """Start a kernel, and print what it took until the first new step was handled."""
    began, cpu = time.monotonic(), time.process_time()
    lives = [*parts(KEEP_ALL), Part("first", First, Options(), required=True)]
    kernel = Kernel(home, lives, log=LogOptions(), drain_seconds=60, say=lambda _: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.run)
        while not found:
            await anyio.sleep(0.001)
        ((seen, seen_cpu),) = found
        of_process = time.clock_gettime(time.CLOCK_BOOTTIME) - _born()
        print(f"{seen - began:.2f} {seen_cpu - cpu:.2f} {of_process:.2f}", flush=True)
        os._exit(0)  # as a kill: the next round finds the same


def _born() -> float:
    """When this process was started, in seconds since the machine was."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Fill one home, and start a kernel on copies of it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        fill(home)
        (active,) = segments(home / "log")
        print(f"{VIDEOS} videos, an active segment of {active.stat().st_size / 2**20:.1f} MiB")
        for _ in range(ROUNDS):
            copy = Path(folder) / "copy"
            shutil.copytree(home, copy)
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.start", str(copy)], capture_output=True, text=True, check=True
            )
            wall, cpu, of_process = done.stdout.split()
            print(f"first new event routed after {wall} s ({cpu} s of processor time); {of_process} s from the exec on")
            shutil.rmtree(copy)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(start, Path(sys.argv[1]))
    else:
        main()
