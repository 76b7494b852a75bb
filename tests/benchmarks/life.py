"""A kernel as a process: how soon it is at work, what it takes while nothing happens, and how soon `tail` tells.

Linux: a process's time is read in /proc.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from kernel.event import LogTrimmed, PluginState
from kernel.log import read
from kernel.plugin import Options, Plugin
from kernel.testing import running
from plugins.recorder.sessions import open_session
from plugins.recorder.spool import Producer, new_session_id
from tests.benchmarks import alone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.benchmarks.samples import Sample
    from tests.benchmarks.suites import Scope

PLUGINS = {
    "progress": "plugins.progress:Progress",
    "collector": "plugins.collector:Collector",
    "encoder": "plugins.encoder_pool:EncoderPool",
    "sqlite": "plugins.sqlite_sink:SqliteSink",
    "pruner": "plugins.pruner:Pruner",
}
SILENT_PRODUCERS = 16


def start(scope: Scope) -> Iterator[Sample]:
    """From the command to the moment at which every plugin is at work."""
    turns: list[tuple[str, str, str, dict[str, float]]] = [
        ("all plugins, an empty home", "stepreel", "tests.benchmarks.life:started", {})
    ]
    yield from alone.rounds("start", turns, scope.rounds)


def idle(scope: Scope) -> Iterator[Sample]:
    """A kernel beside producers that live and say nothing."""
    arguments = {"seconds": 1.0 if scope.quick else 20.0}
    turns = [(f"{SILENT_PRODUCERS} silent producers", "stepreel", "tests.benchmarks.life:idled", arguments)]
    yield from alone.rounds("idle", turns, 1)


def tail(scope: Scope) -> Iterator[Sample]:
    """From `publish` to the line that `python -m kernel tail --follow` prints."""
    arguments = {"events": 5 if scope.quick else 100}
    turns = [("seven events a second", "stepreel", "tests.benchmarks.life:tailed", arguments)]
    yield from alone.rounds("tail", turns, 1)


def started(folder: Path) -> dict[str, float]:
    """The time of the wall and of the processor."""
    began = time.time()
    with kernel_on(folder) as process:
        at_work = max(record.time.timestamp() for record in read(folder / "home", PluginState))
        cpu = cpu_seconds(process.pid)
    return {"seconds": at_work - began, "cpu_seconds": cpu}


def idled(folder: Path, seconds: float) -> dict[str, float]:
    """The producers are all in this process, each with its own folder, lock and writer thread."""
    home = folder / "home"
    with kernel_on(folder) as process:
        session = open_session(home, new_session_id(), "script")
        producers = [Producer(home, session.id) for _ in range(SILENT_PRODUCERS)]
        for producer in producers:
            producer.start()
        time.sleep(min(seconds, 3.0))  # until the collector no longer expects anything
        before = cpu_seconds(process.pid)
        time.sleep(seconds)
        cpu = cpu_seconds(process.pid) - before
        for producer in producers:
            producer.close()
        session.end("finished")
    return {"percent_of_a_core": 100 * cpu / seconds}


def tailed(folder: Path, events: int) -> dict[str, float]:
    """The tail's clock is looked at when its line is read, in this process."""
    home = folder / "home"
    lags: list[float] = []

    async def main() -> None:
        async with running(home, {"nobody": (Plugin[Options], Options())}) as kernel:
            await kernel.publish(LogTrimmed(first_seq=0, removed_bytes=0))
            tail = await anyio.open_process(
                [sys.executable, "-m", "kernel", "tail", str(home), "--json", "--follow", "--since", "0"]
            )
            try:
                lines = lines_of(tail)
                while b"LogTrimmed" not in await anext(lines):
                    pass  # it is at work when it has told what was there
                for number in range(1, events + 1):
                    await anyio.sleep(0.137)  # not in step with how often it looks
                    said = time.perf_counter()
                    await kernel.publish(LogTrimmed(first_seq=number, removed_bytes=0))
                    while b"LogTrimmed" not in await anext(lines):
                        pass
                    lags.append(time.perf_counter() - said)
            finally:
                tail.terminate()
                await tail.wait()

    anyio.run(main)
    return {"lag_ms": median(lags) * 1e3, "longest_lag_ms": max(lags) * 1e3}


@contextmanager
def kernel_on(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m kernel` at work on `folder/home`, with all of our plugins but the runner; ended in good order."""
    tables = "".join(f'[plugins.{name}]\nuse = "{use}"\n' for name, use in PLUGINS.items())
    config = folder / "config.toml"
    config.write_text(f'home = "{folder / "home"}"\n{tables}')
    process = subprocess.Popen([sys.executable, "-m", "kernel", str(config)], stdout=subprocess.DEVNULL)
    try:
        while len([*read(folder / "home", PluginState)]) < len(PLUGINS):
            assert process.poll() is None, "the kernel has ended"
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have taken, and the processes that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


async def lines_of(process: anyio.abc.Process) -> AsyncIterator[bytes]:
    """What a process prints, line by line."""
    assert process.stdout is not None
    rest = b""
    async for block in process.stdout:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line
