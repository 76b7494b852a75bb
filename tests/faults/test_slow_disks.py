"""Disks that hang or lose what they were given: nobody steps slower, and nothing lost counts as written."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, BinaryIO

import anyio
import pytest

from kernel.event import Event, KernelStopped
from kernel.log import read
from kernel.plugin import Options, Plugin, on
from kernel.testing import running
from plugins.encoder_pool import handover
from plugins.events import VideoAvailable, VideoFailed
from tests.encoder_pool.films import film
from tests.encoder_pool.pools import encoding, indices, say
from tests.faults.full_disks import Stepping, until
from tests.kernel.ticks import Tick, numbers, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class Disk:
    """One call to the system, which hangs until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        self._goes_on = threading.Event()
        self._goes_on.set()
        self.waiting = 0
        real = getattr(os, call)

        def slow(*arguments: object) -> object:
            if not self._goes_on.is_set():
                self.waiting += 1
                self._goes_on.wait(120)
            return real(*arguments)

        monkeypatch.setattr(os, call, slow)

    def hang(self) -> None:
        self._goes_on.clear()

    def go_on(self) -> None:
        self._goes_on.set()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch, "write")
    yield disk
    disk.go_on()


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch, "fsync")
    yield disk
    disk.go_on()


async def test_stepping_goes_on_while_every_write_hangs(home: Path, writes: Disk) -> None:
    stepping = Stepping(home)
    stepping.episode(1)
    await until(stepping.written)
    writes.hang()
    stepping.episode(5)  # to its end, or this fails
    await until(lambda: writes.waiting)
    assert not stepping.written()
    writes.go_on()
    await until(stepping.written)
    assert {(meter.frames_dropped, meter.steps_dropped) for meter in stepping.producer.outbox.meters} == {(0, 0)}
    stepping.recorder.close()
    assert stepping.producer.close()


async def test_publishing_and_routing_go_on_while_an_fsync_hangs_and_who_waits_for_it_waits(
    home: Path, syncs: Disk
) -> None:
    heard: list[int] = []
    synced: list[int] = []

    class Careful(Plugin[Options]):
        @on(Tick)
        async def hear(self, tick: Tick) -> None:
            heard.append(tick.n)

        async def run(self) -> None:
            while True:
                await self.sync()
                synced.append(len(heard))
                await anyio.sleep(0.01)

    async with running(home, {"it": (Careful, Options())}) as kernel:
        await until(lambda: synced)
        syncs.hang()
        await kernel.publish(Tick(n=1))
        await until(lambda: syncs.waiting)
        before = len(synced)
        for n in range(2, 1001):
            await kernel.publish(Tick(n=n))
        await until(lambda: len(heard) == 1000)
        assert len(synced) == before
        syncs.go_on()
        await until(lambda: len(synced) > before + 1)
    assert numbers(read(home, Tick)) == list(range(1, 1001))


async def test_after_one_failed_fsync_the_kernel_ends_and_only_the_next_one_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports it once. A second try would succeed, and say that what is lost is on disk."""
    real, failures = os.fsync, 0

    def failing_once(descriptor: int) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    async with running(home, {}) as kernel:
        await kernel.publish(*ticks(1, 5))
        monkeypatch.setattr(os, "fsync", failing_once)
        await until(lambda: kernel.kernel.bus.log.broken)
        with pytest.raises(OSError, match="Input/output"):
            await kernel.publish(*ticks(6, 9))
    assert kernel.outcome is not None
    assert kernel.outcome.name == "failed"
    assert kernel.said[-1].startswith(f"stopped: {home}/log cannot be written: ")
    assert failures == 1
    assert not list(read(home, KernelStopped))
    async with running(home, {}) as kernel:
        await kernel.publish(*ticks(6, 9))
    assert numbers(read(home, Tick)) == list(range(1, 10))
    records: list[Event] = [record.event for record in read(home, KernelStopped)]
    assert len(records) == 1


async def test_a_video_whose_fsync_failed_is_made_anew_and_not_put_on_disk_once_more(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.encoder_pool.pool.RETRY_SECONDS", (0.05,))
    real, inodes = handover.sync_file, list[int]()
    kept: list[BinaryIO] = []

    def failing_once(file: Path) -> None:
        if file.suffix == ".mp4":
            inodes.append(file.stat().st_ino)
            if len(inodes) == 1:
                kept.append(file.open("rb"))  # so that its number is not used again
                raise OSError(errno.EIO, "Input/output error", str(file))
        real(file)

    monkeypatch.setattr(handover, "sync_file", failing_once)
    async with encoding(home) as kernel:
        await say(kernel, *film(home, 30).events)
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
        assert not kernel.records(VideoFailed)
    for file in kept:
        file.close()
    assert len(set(inodes)) == len(inodes) == 2
    assert (home / available.path).stat().st_ino == inodes[-1]
    assert indices(home, available) == list(range(30))
