"""Retention against readers: python -m tests.faults.retention --rounds 1000

Each round makes a video. The names come again, so that the encoder replaces videos while the pruner removes others;
users pin, unpin and ask videos to go; readers stream them; and the kernel is killed at any moment. Prints its seed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from kernel.log import last_seq, read
from kernel.testing import running
from plugins.check_home import look
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.events import (
    ChunkSealed,
    PruneIntended,
    RecordingSealed,
    VideoAvailable,
    VideoDeleteAsked,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)
from plugins.pruner import Pruner, PrunerOptions
from plugins.recorder.frames import count_frames
from tests.encoder_pool.films import PRODUCER, SESSION, film
from tests.faults.small_disks import ROOT

if TYPE_CHECKING:
    from kernel.event import Event, Record
    from kernel.testing import RunningKernel

NAMES = 7
MOST_VIDEOS = 5
PLUGINS = {
    "encoder": (EncoderPool, EncoderPoolOptions(jobs=2, thumbnails=False, stall_seconds=60.0)),
    "pruner": (Pruner, PrunerOptions(max_videos_per_session=MOST_VIDEOS, min_free_bytes=0)),
}


# One life of a kernel, to be killed ----------------------------------------------------------------------------------


async def live(home: Path, seed: int, rounds: int) -> None:
    """Make so many more videos, and wish this and that of them."""
    chance = random.Random(seed)
    async with running(home, PLUGINS, drain_seconds=600) as kernel:
        first = await _end_what_was_begun(home, kernel)
        for number in range(first, first + rounds):
            made = film(home, chance.randint(1, 4), number=number, path=f"videos/{SESSION}/{number % NAMES}.mp4")
            await kernel.relay(PRODUCER, kernel.kernel.bus.log.last_nth(PRODUCER) + 1, made.events)
            for _ in range(chance.randint(0, 3)):
                recording = f"{PRODUCER}-{chance.randint(max(0, number - 2 * NAMES), number):04}"
                kind = chance.choice((VideoPinned, VideoUnpinned, VideoUnpinned, VideoDeleteAsked))
                await kernel.publish(kind(recording=recording, by="somebody"))
                await anyio.sleep(chance.choice((0.0, 0.0, 0.01)))
            await anyio.sleep(chance.choice((0.0, 0.05, 0.1)))
        await kernel.settle(600)


async def _end_what_was_begun(home: Path, kernel: RunningKernel) -> int:
    """Say of what a kill left in the spool what its producer would have said; the next recording's number."""
    records = read(home, ChunkSealed, RecordingSealed)
    said: set[tuple[str, type[Event]]] = {(_recording_of(record), type(record.event)) for record in records}
    numbers = [int(recording.rpartition("-")[2]) for recording, _ in said]
    for folder in sorted((home / "spool" / PRODUCER).glob("*/")):
        number = int(folder.name.rpartition("-")[2])
        numbers.append(number)
        with tempfile.TemporaryDirectory() as elsewhere:
            path = f"videos/{SESSION}/{number % NAMES}.mp4"
            events = film(Path(elsewhere), 1, number=number, path=path).events
        left = [event for event in events if (folder.name, type(event)) not in said]
        frames = _frames_in(folder)
        if not frames and len(left) == 2:  # nobody has heard of it
            shutil.rmtree(folder)
            continue
        events = [msgspec.structs.replace(event, frames=frames) for event in left]
        await kernel.relay(PRODUCER, kernel.kernel.bus.log.last_nth(PRODUCER) + 1, events)
    return max(numbers, default=-1) + 1


def _recording_of(record: Record[Any]) -> str:
    return str(record.event.recording)


def _frames_in(folder: Path) -> int:
    chunk = folder / "00000.chunk"
    return count_frames(chunk) if chunk.exists() and (folder / "recording.json").exists() else 0


# Beside it -----------------------------------------------------------------------------------------------------------


class Reader(threading.Thread):
    """Streams any video, in pieces, while whatever happens happens to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.read: list[str] = []
        """The SHA-256 of each file that was read to its end."""
        self._folder = folder
        self._chance = random.Random(seed)
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(self._chance.uniform(0.0, 0.02)):
            with suppress(OSError):  # there is none, or it goes before it is open
                self._stream(self._chance.choice([*self._folder.glob("*.mp4")] or [self._folder / "none.mp4"]))

    def _stream(self, file: Path) -> None:
        digest = hashlib.sha256()
        with file.open("rb", buffering=0) as opened:
            while piece := opened.read(400):
                digest.update(piece)
                time.sleep(self._chance.choice((0.0, 0.0, 0.02)))
        self.read.append(digest.hexdigest())

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def race(home: Path, seed: int, rounds: int, readers: int = 2) -> str:
    """Race for so many rounds. Raises `AssertionError` where anything is wrong; what there was, in words."""
    chance = random.Random(seed)
    streams = [Reader(home / "videos" / SESSION, chance.randrange(2**32)) for _ in range(readers)]
    kills = 0
    try:
        while (left := rounds - made(home)) > 0:
            life = _start(home, chance.randrange(2**32), left)
            if _until_the_log_grew(home, life, chance.randint(1, 80)):
                time.sleep(chance.uniform(0.0, 0.1))
                os.kill(life.pid, signal.SIGKILL)
                kills += 1
            assert life.wait() in (0, -signal.SIGKILL)
        last = _start(home, chance.randrange(2**32), 0)  # what the last kill left
        assert last.wait() == 0
    finally:
        for stream in streams:
            stream.stop()
    check(home, [digest for stream in streams for digest in stream.read])
    counts = Counter(type(record.event).__name__ for record in read(home))
    said = ", ".join(f"{kind} {counts[kind]}" for kind in ("VideoAvailable", "VideoPruned", "VideoPinned"))
    return f"{said}; {kills} kills; {sum(len(stream.read) for stream in streams)} files read whole"


def _until_the_log_grew(home: Path, life: subprocess.Popen[bytes], lines: int) -> bool:
    """By so many lines, however slow the machine is; False where it ended before that."""
    last = last_seq(home) + lines
    while life.poll() is None:
        if last_seq(home) >= last:
            return True
        time.sleep(0.02)
    return False


def made(home: Path) -> int:
    """How many videos were asked for."""
    return len({_recording_of(record) for record in read(home, RecordingSealed)})


def _start(home: Path, seed: int, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.retention", "--home", str(home)]
    return subprocess.Popen([*command, "--seed", str(seed), "--rounds", str(rounds)], cwd=ROOT)


def check(home: Path, digests: list[str]) -> None:
    """Every removal once, with its intent; none of what was pinned; and whoever read a file has read a whole one."""
    pinned_before_intent: dict[str, bool] = {}
    pinned: set[str] = set()
    intended: set[str] = set()
    pruned: set[str] = set()
    for record in read(home, VideoPinned, VideoUnpinned, PruneIntended, VideoPruned):
        recording = _recording_of(record)
        match record.event:
            case VideoPinned():
                pinned.add(recording)
                pinned_before_intent[recording] = recording not in intended
            case VideoUnpinned():
                pinned.discard(recording)
            case PruneIntended():
                if recording not in pinned:
                    intended.add(recording)
            case VideoPruned():
                assert recording not in pruned, f"{recording} was removed twice"
                assert recording in intended, f"{recording} was removed without an intent"
                assert not (recording in pinned and pinned_before_intent[recording]), f"{recording} was pinned"
                pruned.add(recording)
    announced = {record.event.sha256 for record in read(home, VideoAvailable)}
    assert set(digests) <= announced, "somebody has read what was never a whole video"
    with suppress(OSError):
        for name in ("lock", "producer.json"):
            (home / "spool" / PRODUCER / name).unlink()
        (home / "spool" / PRODUCER).rmdir()  # these films have no collector
    findings = look(home)
    assert not findings, "\n".join(f"{each.place}: {each.wrong}" for each in findings)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.retention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.home is not None:
        anyio.run(live, options.home, options.seed, options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="stepreel-retention-") as folder:
        sys.stdout.write(f"{options.rounds} rounds, seed {options.seed}\n")
        sys.stdout.write(f"{race(Path(folder) / 'home', options.seed, options.rounds)}; nothing is wrong\n")


if __name__ == "__main__":
    main()
