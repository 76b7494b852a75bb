"""The soak: a kernel and eight producers for as long as you like, and a fault every few seconds.

    python -m tests.soak --minutes 30

Kernel, producers and ffmpeg are killed, stopped and ended at random, the disk is full now and then, and videos are
pinned, unpinned and asked to go. For the last third of the time the kernel is not ended any more: memory, descriptors,
threads and children must then stay flat, in it and in the producer that lives from the first minute to the last. At
the end all that must hold of a home is checked. Prints its seed and what it saw; exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import psutil

from kernel.files import holder
from kernel.log import read
from plugins import catalogue
from plugins.check_home import look
from plugins.events import VideoAvailable, VideoDeleteAsked, VideoFailed, VideoPinned, VideoPruned, VideoUnpinned
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Producer, new_session_id
from tests.end_to_end.homes import PLUGINS
from tests.faults.small_disks import MOUNT, ROOT, SmallDisk, way_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEP_SECONDS = 0.02
FLAT_BYTES = 48 * 2**20
"""What the memory of a process may grow by in the time that is looked at; what fragments of it there are."""
FLAT_COUNT = 8
"""The same for descriptors, threads and children, of which there are some more while something is at work."""
CONFIG = f"""
home = "HOME"
drain_seconds = 6
{PLUGINS}
min_free_bytes = 0
max_videos_per_session = 8
""".replace(
    '[plugins.progress]\nuse = "plugins.progress:Progress"\n',
    "",
).replace('EncoderPool"', 'EncoderPool"\nstall_seconds = 4.0')


# A producer --------------------------------------------------------------------------------------------------------


def produce(home: Path, seed: int) -> None:
    """Step and record until SIGTERM: most episodes are short, and some have several chunks."""
    chance, ended = random.Random(seed), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    session = new_session_id()
    producer = Producer(home, session)
    recorder = Recorder(
        producer, env_id="Soak-v0", fps=50.0, video_path=lambda n: f"videos/{session}/rl-video-episode-{n}.mp4"
    )
    observation, picture = np.zeros(4, np.float32), np.zeros((48, 64, 3), np.uint8)
    episode = 0
    while not ended.is_set():
        recorder.reset(observation, {}, seed=episode, episode=episode)
        recorder.capture_frame(picture)
        steps = chance.choice((20, 60, 150, 600))
        for step in range(1, steps + 1):
            time.sleep(STEP_SECONDS)
            picture[step % 48, :, step % 3] = step % 256
            frame = picture if recorder.recording else None
            recorder.step(1, observation, 1.0, step == steps, False, {}, frame, STEP_SECONDS)
            if ended.is_set():
                break
        episode += 1
    recorder.close()
    producer.close()


# What is looked at -------------------------------------------------------------------------------------------------


class Sample(msgspec.Struct):
    """What one process has at one moment."""

    memory_bytes: int
    descriptors: int
    threads: int
    children: int


def sample(pid: int, home: Path | None = None) -> Sample | None:
    """None where the process is gone, and where it is to serve this home and has not begun: its tables tell that."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if home is not None and process.create_time() > _written_at(home):
                return None
            return Sample(process.memory_info().rss, process.num_fds(), process.num_threads(), len(process.children()))
    except psutil.Error:
        return None


def _written_at(home: Path) -> float:
    """When the tables were last written; 0 where there are none."""
    latest = 0.0
    for name in ("stepreel.sqlite", "stepreel.sqlite-wal"):
        with suppress(FileNotFoundError):
            latest = max(latest, (home / name).stat().st_mtime)
    return latest


def flat(name: str, samples: list[Sample]) -> list[str]:
    """What is not flat: the median of the last fifth against that of the second. Prints both."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
    faults, words = [], []
    for field, most in (
        ("memory_bytes", FLAT_BYTES),
        ("descriptors", FLAT_COUNT),
        ("threads", FLAT_COUNT),
        ("children", FLAT_COUNT),
    ):
        before, after = (median(getattr(each, field) for each in some) for some in (early, late))
        scale, unit = (2**20, " MiB") if field == "memory_bytes" else (1, "")
        words.append(f"{field.removesuffix('_bytes')} {before / scale:.0f} to {after / scale:.0f}{unit}")
        if after > before + most:
            faults.append(f"{name}: {words[-1]}")
    say(f"{name}: {', '.join(words)}, in {len(samples)} looks, one a second")
    return faults


# The soak ----------------------------------------------------------------------------------------------------------


class Soak:
    """The processes of one soak, and what is done to them."""

    def __init__(self, work: Path, disk: Path | None, seed: int, producers: int) -> None:
        self.work = work
        self.home = (disk or work) / "home"
        self.disk = disk
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.kernel_may_end = True
        self._config = work / "soak.toml"
        self._config.write_text(CONFIG.replace("HOME", str(self.home)))
        self._words = (work / "kernel.txt").open("wb")
        self.kernel = self._start_kernel()
        self.producers = [self._start_producer() for _ in range(producers)]
        self._user = Producer(self.home, new_session_id())

    def _start_kernel(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "kernel", str(self._config)]
        return subprocess.Popen(command, cwd=ROOT, stdout=self._words, stderr=self._words)

    def _start_producer(self) -> subprocess.Popen[bytes]:
        seed = str(self.chance.randrange(2**32))
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak", "--produce", str(self.home), "--seed", seed],
            cwd=ROOT,
            stdout=self._words,
            stderr=self._words,
        )

    # Faults --------------------------------------------------------------------------------------------------------

    def do_something(self) -> None:
        """One fault, or one wish of a user."""
        ways: list[tuple[int, Callable[[], None]]] = [
            (3, self.kill_producer),
            (2, self.end_producer),
            (3, self.kill_ffmpeg),
            (2, self.stop_ffmpeg),
            (2, self.stop_kernel_a_second),
            (1, self.stop_producer_a_second),
            (2, self.pin_or_unpin),
            (1, self.ask_a_video_to_go),
            (3 if self.disk else 0, self.fill_disk),
            (3 if self.kernel_may_end else 0, self.kill_kernel),
            (1 if self.kernel_may_end else 0, self.end_kernel),
        ]
        way = self.chance.choices([each for _, each in ways], [weight for weight, _ in ways])[0]
        self.faults[way.__name__] += 1
        way()
        if self.kernel.poll() is not None:
            raise AssertionError(f"the kernel ended by itself, with {self.kernel.returncode}")

    def _any_producer(self) -> int:
        return self.chance.randrange(1, len(self.producers))  # the first is looked at from its start to its end

    def kill_producer(self) -> None:
        """Its folder is a dead one's from then on."""
        index = self._any_producer()
        self.producers[index].kill()
        self.producers[index].wait()
        self.producers[index] = self._start_producer()

    def end_producer(self) -> None:
        """It seals what it has."""
        index = self._any_producer()
        self.producers[index].terminate()
        self.producers[index].wait(300)
        self.producers[index] = self._start_producer()

    def kill_kernel(self) -> None:
        self.kernel.kill()
        self.kernel.wait()
        self.kernel = self._start_kernel()

    def end_kernel(self) -> None:
        self._until_at_work()
        self.kernel.terminate()
        code = self.kernel.wait(300)
        if code not in (0, 3):
            raise AssertionError(f"the kernel was asked to end, and ended with {code}")
        self.kernel = self._start_kernel()

    def _ffmpegs(self) -> list[psutil.Process]:
        """Those that work in the home; at its start a kernel tries ffmpeg out elsewhere."""
        with suppress(psutil.Error):
            children = psutil.Process(self.kernel.pid).children()
            return [each for each in children if each.name().startswith("ffmpeg") and self._is_at_work(each)]
        return []

    def _is_at_work(self, process: psutil.Process) -> bool:
        return bool(process.cwd().startswith(str(self.home)))

    def _send_to_ffmpeg(self, number: signal.Signals) -> None:
        """The next one that runs, within a second."""
        for _ in range(200):
            if found := self._ffmpegs():
                with suppress(psutil.Error):
                    found[0].send_signal(number)
                return
            time.sleep(0.005)

    def kill_ffmpeg(self) -> None:
        self._send_to_ffmpeg(signal.SIGKILL)

    def stop_ffmpeg(self) -> None:
        self._send_to_ffmpeg(signal.SIGSTOP)

    def stop_kernel_a_second(self) -> None:
        _stopped_a_second(self.kernel)

    def stop_producer_a_second(self) -> None:
        _stopped_a_second(self.chance.choice(self.producers))

    def fill_disk(self) -> None:
        """To the last byte, for two seconds; it is made small before that, so that what fills it is small, too."""
        assert self.disk is not None
        _remount(self.disk, psutil.disk_usage(str(self.disk)).used + 2**20)
        small = SmallDisk(str(self.disk))
        small.fill()
        time.sleep(2)
        small.free()
        _remount(self.disk, DISK_BYTES)

    def _any_video(self) -> str | None:
        entries = [entry.recording for entry in catalogue.read_all(self.home)]
        return self.chance.choice(entries) if entries else None

    def pin_or_unpin(self) -> None:
        if recording := self._any_video():
            kind = self.chance.choice((VideoPinned, VideoUnpinned))
            self._user.say(kind(recording=recording, by="soak"))

    def ask_a_video_to_go(self) -> None:
        if recording := self._any_video():
            self._user.say(VideoDeleteAsked(recording=recording, by="soak"))

    # The end -------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Let all that is at work finish, and a last kernel do what is left."""
        for producer in self.producers:
            producer.terminate()
        for producer in self.producers:
            producer.wait(300)
        self._user.close()
        for last in (False, True):
            self._until_at_work()
            if last:
                self._until_done()
            self.kernel.terminate()
            code = self.kernel.wait(300)
            if code not in ((0,) if last else (0, 3)):
                raise AssertionError(f"a kernel was asked to end, and ended with {code}")
            if not last:
                self.kernel = self._start_kernel()

    def _until_at_work(self) -> None:
        """A signal before the kernel listens to signals would only end its start."""
        _until(lambda: holder(self.home / "lock") == self.kernel.pid, "the kernel does not start")

    def _until_done(self) -> None:
        _until(lambda: not any((self.home / "spool").iterdir()), "the spool does not become empty")

    def kill_all(self) -> None:
        for process in (self.kernel, *self.producers):
            process.kill()
            process.wait()
        self._words.close()


class Looks(threading.Thread):
    """A look a second at the kernel that runs now, and at the producer that lives all the time."""

    def __init__(self, run: Soak) -> None:
        super().__init__(daemon=True)
        self.kernel: list[Sample] = []
        """Of the last kernel alone."""
        self.producer: list[Sample] = []
        self._run = run
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        pid = 0
        while not self._stopped.wait(1.0):
            kernel = self._run.kernel.pid
            if kernel != pid:
                pid = kernel
                self.kernel.clear()
            if (seen := sample(pid, self._run.home)) is not None:
                self.kernel.append(seen)
            if (seen := sample(self._run.producers[0].pid)) is not None:
                self.producer.append(seen)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _until(true: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 300
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.05)


def _stopped_a_second(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)


DISK_BYTES = 3 * 2**30


def _remount(disk: Path, size_bytes: int) -> None:
    subprocess.run(["/bin/mount", "-o", f"remount,size={size_bytes}", str(disk)], check=True)


def strays(home: Path) -> list[str]:
    """Processes that are still at work in the home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(str(home)):
                found.append(f"{process.pid} {process.name()}")
    return found


def soak(work: Path, disk: Path | None, seconds: float, seed: int, producers: int) -> list[str]:
    """Everything that is wrong at the end of a soak."""
    run = Soak(work, disk, seed, producers)
    begin = time.monotonic()
    looks = Looks(run)
    try:
        while (now := time.monotonic()) < begin + seconds:
            run.kernel_may_end = now < begin + seconds * 2 / 3
            run.do_something()
            time.sleep(run.chance.uniform(0.5, 5.0))
        _until(lambda: looks.kernel, "the last kernel was never seen at work")
        looks.stop()
        faults = [*flat("kernel", looks.kernel), *flat("first producer", looks.producer)]
        run.end()
    finally:
        looks.stop()
        run.kill_all()
    say(f"faults: {', '.join(f'{name} {count}' for name, count in sorted(run.faults.items()))}")
    counts = Counter(type(record.event).__name__ for record in read(run.home))
    kinds = (VideoAvailable, VideoFailed, VideoPruned)
    said = ", ".join(f"{kind.__name__} {counts[kind.__name__]}" for kind in kinds)
    say(f"log: {counts.total()} events of {counts['KernelStarted']} kernels; {said}; DiskFull {counts['DiskFull']}")
    faults += [f"{finding.place}: {finding.wrong}" for finding in look(run.home)]
    return [*faults, *(f"left behind: {stray}" for stray in strays(run.home))]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="stepreel-soak-") as name:
        yield Path(name)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--producers", type=int, default=8)
    parser.add_argument("--work", type=Path, help="keep everything in this folder")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)  # where the small disk is, once there is one
    parser.add_argument("--produce", type=Path, help=argparse.SUPPRESS)
    options: Any = parser.parse_args(arguments)
    if options.produce is not None:
        produce(options.produce, options.seed)
        return 0
    with _workplace(options.work) as work:
        way = way_in()
        if options.disk is None and way is not None:
            disk = work / "disk"
            disk.mkdir(exist_ok=True)
            again = [*arguments, "--seed", str(options.seed), "--work", str(work), "--disk", str(disk)]
            command = [sys.executable, "-m", "tests.soak", *again]
            mounted = [*way, "sh", "-c", MOUNT, "sh", str(DISK_BYTES), str(disk), *command]
            return subprocess.run(
                mounted, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
            ).returncode
        say(f"soak of {options.minutes:g} minutes, {options.producers} producers, seed {options.seed}")
        wrong = soak(work, options.disk, options.minutes * 60, options.seed, options.producers)
        for each in wrong:
            say(f"WRONG: {each}")
        say("nothing is wrong" if not wrong else f"{len(wrong)} things are wrong")
        return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
