"""Runs with a full disk, each for a process of its own: `python -m tests.faults.full_disks SCENARIO HOME PLACE`.

What is full is the place: the whole home, its log, its videos or its database. A thread steps meanwhile, and the disk
gets room only when it has stepped to its end: so if it ever waited for the disk, it would wait for ever.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np

from kernel.event import DeliveryFailed, DiskFull, DiskHasRoom, KernelStopped, PluginState
from kernel.log import read
from kernel.testing import running
from plugins.collector import Collector, CollectorOptions
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.events import EpisodeEnded, RecordingSealed, StepRecorded, VideoAvailable, VideoFailed
from plugins.pruner import Pruner, PrunerOptions
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Producer
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions
from tests.end_to_end.homes import check_home, rows
from tests.faults.small_disks import SmallDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kernel.testing import RunningKernel

STEPS = 40
SESSION = "20261122-062718-k3v9"


class Stepping:
    """A script that steps and records, in a thread of its own, a stretch of episodes at a time."""

    def __init__(self, home: Path, **bounds: int) -> None:
        self.producer = Producer(home, SESSION, **bounds)
        self.recorder = Recorder(
            self.producer,
            env_id="Noise-v0",
            fps=50.0,
            video_path=lambda episode: f"videos/{SESSION}/rl-video-episode-{episode}.mp4",
        )
        self.episodes = 0

    def episode(self, count: int) -> None:
        """Step through so many episodes, to the end, whatever the disk does."""

        def step_through() -> None:
            for _ in range(count):
                self._play(self.episodes)
                self.episodes += 1

        thread = threading.Thread(target=step_through)
        thread.start()
        thread.join(120)
        assert not thread.is_alive(), "stepping waits for the disk"

    def _play(self, episode: int) -> None:
        recorder, noise = self.recorder, np.random.default_rng(episode)
        observation = np.zeros(4, np.float32)

        def picture() -> Any:
            return noise.integers(0, 256, (48, 64, 3), np.uint8)

        recorder.reset(observation, {}, seed=episode, episode=episode)
        recorder.capture_frame(picture())
        for step in range(1, STEPS + 1):
            frame = picture() if recorder.recording else None
            recorder.step(1, observation, 1.0, step == STEPS, False, {}, frame, 0.001)

    def written(self) -> bool:
        """Whether nothing waits in memory."""
        return self.producer.flush(0.05)


def plugins(database: str = "stepreel.sqlite") -> dict[str, Any]:
    return {
        "collector": (Collector, CollectorOptions()),
        "encoder": (EncoderPool, EncoderPoolOptions(attempts=1, jobs=1)),
        "sqlite": (SqliteSink, SqliteSinkOptions(path=Path(database))),
        "pruner": (Pruner, PrunerOptions(min_free_bytes=0)),
    }


@asynccontextmanager
async def recording(home: Path, **options: str) -> AsyncIterator[tuple[RunningKernel, Stepping]]:
    """A kernel with all plugins and a script that steps beside it; everything is as it must be when both have ended."""
    async with running(home, plugins(**options), drain_seconds=100) as kernel:
        stepping = Stepping(home)
        await anyio.to_thread.run_sync(stepping.episode, 1)
        await until(lambda: len(list(read(home, VideoAvailable))) == 1)
        yield kernel, stepping
        await anyio.to_thread.run_sync(stepping.recorder.close)
        await anyio.to_thread.run_sync(stepping.producer.close)
    assert kernel.outcome is not None
    assert kernel.outcome.name == "drained", kernel.said
    check_everything(home, stepping.episodes)


def check_everything(home: Path, episodes: int) -> None:
    """Nothing is lost, nothing is there twice, and nothing is half."""
    for kind, count in ((StepRecorded, episodes * STEPS), (EpisodeEnded, episodes), (VideoAvailable, episodes)):
        assert len(list(read(home, kind))) == count, kind
    assert not list(read(home, VideoFailed, DeliveryFailed))
    assert {record.event.frames for record in read(home, VideoAvailable)} == {STEPS + 1}
    assert {record.event.frames_dropped for record in read(home, RecordingSealed)} == {0}
    assert [record.event.outcome for record in read(home, KernelStopped)][-1] == "drained"


async def until(true: Callable[[], object]) -> float:
    """How many seconds it took until it was so."""
    began = time.monotonic()
    with anyio.fail_after(60):
        while not true():
            await anyio.sleep(0.02)
    return time.monotonic() - began


# Scenarios ---------------------------------------------------------------------------------------------------------


async def spool(home: Path, disk: SmallDisk) -> float:
    """The home's disk is full while a script records and no kernel runs."""
    stepping = Stepping(home)
    stepping.episode(1)
    await until(stepping.written)
    disk.fill()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stepping.episode(4)
        await until(lambda: stepping.producer.outbox.trouble)
        stepping.episode(1)
    assert sum("cannot be written" in str(each.message) for each in told) == 1, [str(each.message) for each in told]
    assert not stepping.written()
    disk.free()
    seconds = await until(stepping.written)
    stepping.recorder.close()
    assert stepping.producer.close()
    async with running(home, plugins(), drain_seconds=100):
        pass
    check_everything(home, 6)
    return seconds


async def memory(home: Path, disk: SmallDisk) -> float:
    """It stays full until the producer's memory is full, too: pictures go first, then steps, all of them counted."""
    stepping = Stepping(home, memory_bytes=400_000)
    stepping.episode(1)
    await until(stepping.written)
    disk.fill()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stepping.episode(3)
        some = [(meter.frames_dropped, meter.steps_dropped) for meter in stepping.producer.outbox.meters]
        assert sum(frames for frames, _ in some) > 0 == sum(steps for _, steps in some)
        stepping.episode(60)
    disk.free()
    seconds = await until(stepping.written)
    stepping.episode(1)
    stepping.recorder.close()
    assert stepping.producer.close()
    async with running(home, plugins(), drain_seconds=100):
        pass
    steps = list(read(home, StepRecorded))
    dropped = sum(meter.steps_dropped for meter in stepping.producer.outbox.meters)
    assert len(steps) + dropped == stepping.episodes * STEPS
    assert dropped > 0
    ends = [record.event for record in read(home, EpisodeEnded)]
    assert [end.episode for end in ends] == list(range(stepping.episodes))  # what is no step is never dropped
    videos = {record.event.recording: record.event for record in read(home, VideoAvailable)}
    seals = {record.event.recording: record.event for record in read(home, RecordingSealed)}
    for recording, sealed in seals.items():
        assert sealed.frames == videos[recording].frames
    shown = [step.event.frame for step in steps]
    assert shown.count(None) > 0
    assert videos[ends[-1].recording or ""].frames == STEPS + 1  # recording goes on as before
    return seconds


async def log(home: Path, disk: SmallDisk) -> float:
    """The log's disk is full: the last it takes is that it is full, and everybody waits."""
    async with recording(home) as (_, stepping):
        disk.fill()
        await anyio.to_thread.run_sync(stepping.episode, 3)
        await until(lambda: list(read(home, DiskFull)))
        await anyio.to_thread.run_sync(stepping.episode, 3)
        before = len(list(read(home)))
        await anyio.sleep(1.2)  # looks again, and takes none of what is held back
        assert len(list(read(home))) == before
        disk.free()
        seconds = await until(lambda: list(read(home, DiskHasRoom)))
    assert len(list(read(home, DiskFull))) == len(list(read(home, DiskHasRoom))) == 1
    check_home(home)
    return seconds


async def videos(home: Path, disk: SmallDisk) -> float:
    """The videos' disk is full: videos wait, and nothing else."""
    async with recording(home) as (kernel, stepping):
        disk.fill()
        await anyio.to_thread.run_sync(stepping.episode, 3)
        await until(lambda: "the disk is full" in kernel.plugins["encoder"].pending())
        await until(lambda: rows(home, "SELECT count(*) FROM steps") == [(4 * STEPS,)])
        assert len(list(read(home, VideoAvailable))) == 1
        folder = home / "videos" / SESSION
        await anyio.sleep(1.5)  # a further try, or two
        disk.free()
        seconds = await until(lambda: len(list(read(home, VideoAvailable))) == 4)
        assert sorted(file.name for file in folder.iterdir()) == [f"rl-video-episode-{n}.mp4" for n in range(4)]
    check_home(home)
    return seconds


async def database(home: Path, disk: SmallDisk) -> float:
    """The database's disk is full: the tables wait, and no event is set aside."""
    assert disk.place is not None
    file = disk.place / "tables.sqlite"

    def states() -> list[str]:
        return [record.event.state for record in read(home, PluginState) if record.event.plugin == "sqlite"]

    async with recording(home, database=str(file)) as (_, stepping):
        disk.fill()
        await anyio.to_thread.run_sync(stepping.episode, 2)
        await until(lambda: states()[-1] == "waiting")
        await anyio.to_thread.run_sync(stepping.episode, 2)
        await until(lambda: len(list(read(home, VideoAvailable))) == 5)  # nobody else waits
        await anyio.sleep(2.5)  # a few further tries
        (home / "stepreel.sqlite").symlink_to(file)
        assert rows(home, "SELECT count(*) FROM steps WHERE episode > 2") == [(0,)]
        disk.free()
        seconds = await until(lambda: rows(home, "SELECT count(*) FROM steps") == [(5 * STEPS,)])
        await until(lambda: states()[-1] == "started")
    assert states() == ["started", "waiting", "started"]
    check_home(home)
    return seconds


async def whole(home: Path, disk: SmallDisk) -> float:
    """The disk of the whole home is full again and again, at any moment of a run."""
    seconds = 0.0
    async with recording(home) as (_, stepping):
        for _ in range(4):
            disk.fill()
            await anyio.to_thread.run_sync(stepping.episode, 2)
            await anyio.sleep(0.7)
            disk.free()
            seconds = max(seconds, await until(stepping.written))
            await anyio.to_thread.run_sync(stepping.episode, 1)
    check_home(home)
    return seconds


async def limited(home: Path, disk: SmallDisk) -> float:
    """Where files may not grow, nothing can be waited for: the kernel ends in good order, and the next one goes on."""
    stepping = Stepping(home)
    said: list[str] = []
    async with running(home, plugins(), drain_seconds=100) as kernel:
        stepping.episode(1)
        await until(lambda: len(list(read(home, VideoAvailable))) == 1)
        disk.fill()
        stepping.episode(2)
        await until(lambda: kernel.kernel.bus.log.broken is not None)
        said = kernel.said
    assert "cannot be written" in said[-1]
    disk.free()
    stepping.recorder.close()
    assert stepping.producer.close()
    async with running(home, plugins(), drain_seconds=100):
        pass
    check_everything(home, 3)
    check_home(home)
    return 0.0


SCENARIOS = {each.__name__: each for each in (spool, memory, log, videos, database, whole, limited)}

if __name__ == "__main__":
    name, folder, place = sys.argv[1:]
    warnings.simplefilter("ignore")
    took = anyio.run(SCENARIOS[name], Path(folder), SmallDisk(place))
    sys.stdout.write(f"{name}: went on {took:.1f} s after there was room\n")
