"""The kernel, workers, ffmpegs and all of them together are killed at random moments of a live run: nothing is lost.

A few kills in each run of the tests; many with `--kills 500`, whose figures `-s` shows.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from kernel.log import read
from plugins.check_home import look
from plugins.encoder_pool import EncoderPoolOptions
from plugins.events import EpisodeEnded, StepRecorded, VideoAvailable, VideoFailed, WorkerStarted
from tests.end_to_end.homes import run_kernel, started, write_config
from tests.faults.lives import Recorded, Served

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.driver import Driver

FEW = 6
KILLS_A_HOME = 10
PATIENT = ("--set", "plugins.encoder.stall_seconds=300")
GRACE_SECONDS = 300.0


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random moments, of a seed that is printed."""
    seed = request.config.getoption("--seed")
    seed = random.randrange(2**32) if seed is None else seed
    say(f"{request.node.name}: --seed {seed}")
    return random.Random(seed)


def kills_of(request: pytest.FixtureRequest, few: int, part: float) -> int:
    """How many: a few, or this part of what was asked for."""
    return round(request.config.getoption("--kills") * part) or few


def homes_of(folder: Path, kills: int) -> Iterator[tuple[Path, int]]:
    """Folders for homes, and how many kills each is to see."""
    for number, first in enumerate(range(0, kills, KILLS_A_HOME)):
        place = folder / str(number)
        (place / "side").mkdir(parents=True)
        yield place, min(KILLS_A_HOME, kills - first)


def test_no_moment_at_which_the_kernel_is_killed_loses_or_doubles_anything(
    tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = events = 0
    for place, kills in homes_of(tmp_path, kills_of(request, FEW, 1.0)):
        config = configured(place)
        for _ in range(kills):
            with started(str(config), *PATIENT, cwd=place) as process:
                wait_for_home(place, process)
                live_for_a_moment(place, process, chance)
                assert process.poll() is None, process.communicate()
                process.kill()
        finish(config, place)
        videos += check(place)
        events += sum(1 for _ in read(place / "home"))
        done += kills
        say(f"{done} kernels killed: {events} events, {videos} videos, nothing lost or doubled")


def test_no_moment_at_which_all_processes_are_killed_loses_or_doubles_anything(
    tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = 0
    losses: list[float] = []
    for place, kills in homes_of(tmp_path, kills_of(request, FEW // 2, 0.1)):
        config = configured(place)
        for _ in range(kills):
            with started(str(config), *PATIENT, cwd=place) as process:
                wait_for_home(place, process)
                live_for_a_moment(place, process, chance)
                kill_all(process)
        finish(config, place)
        videos += check(place)
        losses += lost_seconds(place)
        done += kills
        say(f"{done} groups killed: {videos} videos, {told(losses)}")


def test_no_moment_at_which_a_worker_is_killed_loses_more_than_its_last_steps(
    tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    losses: list[float] = []
    done = 0
    for place, kills in homes_of(tmp_path, kills_of(request, FEW, 0.4)):
        config = configured(place, length=12, every=20)  # short episodes: who dies again and again before an end fails
        seen: set[int] = set()
        with started(str(config), *PATIENT, cwd=place) as process:
            while len(seen) < kills:
                pid = wait_for(partial(stepping, place, seen), process)
                time.sleep(chance.uniform(0.0, 0.8))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                seen.add(pid)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=GRACE_SECONDS)
            assert process.returncode == 0, err
        check(place)
        losses += lost_seconds(place, seen)
        done += len(seen)
        say(f"{done} workers killed: {told(losses)}")
    # 0.1 s is promised, and measured on a quiet machine: a busy one lets the writer thread wait for its turn.
    assert len(losses) == done


def test_no_moment_at_which_an_ffmpeg_is_killed_costs_a_video(
    tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = 0
    for place, kills in homes_of(tmp_path, kills_of(request, FEW, 0.4)):
        config = configured(place, length=300, every=4, width=320, height=192)
        with started(str(config), "--set", "plugins.encoder.attempts=50", *PATIENT, cwd=place) as process:
            wait_for_home(place, process)  # before it, an ffmpeg is being tried out
            killed: set[int] = set()
            while len(killed) < kills:
                pid = wait_for(partial(encoder_of, process.pid, killed), process)
                time.sleep(chance.uniform(0.0, 0.15))
                with suppress(ProcessLookupError, psutil.NoSuchProcess):
                    if is_ffmpeg(psutil.Process(pid)):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=GRACE_SECONDS)
            assert process.returncode == 0, err
        videos += check(place)
        done += len(killed)
        say(f"{done} ffmpegs killed: {videos} videos, each there")


# Many more, with kernels and producers that are forked from a process that has everything imported ----------------


def test_a_kernel_that_is_killed_beside_a_live_producer_loses_and_doubles_nothing(
    driver: Driver, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = events = 0
    losses: list[float] = []
    for place, kills in homes_of(tmp_path, kills_of(request, FEW, 1.0)):
        home = place / "home"
        producer = driver.start(home, forever(place, "a"))
        for _ in range(kills):
            kernel = driver.start(home, FOREVER)
            run_for(kernel, chance.uniform(0.0, 0.25))
            kill(driver, kernel)
        kill(driver, producer)
        driver.live(home, Served())
        videos += check(place)
        events += sum(1 for _ in read(home))
        losses += lost_seconds(place)
        done += kills
        say(f"{done} forked kernels killed: {events} events, {videos} videos, nothing lost or doubled; {told(losses)}")


def test_a_producer_that_is_killed_beside_a_live_kernel_loses_its_last_moment_at_most(
    driver: Driver, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = 0
    losses: list[float] = []
    for place, kills in homes_of(tmp_path, kills_of(request, FEW // 2, 0.4)):
        home = place / "home"
        home.mkdir()
        kernel = driver.start(home, FOREVER)
        for number in range(kills):
            producer = driver.start(home, forever(place, f"p{number}"))
            run_for(producer, chance.uniform(0.0, 0.1))
            kill(driver, producer)
        kill(driver, kernel)
        driver.live(home, Served())
        videos += check(place)
        losses += lost_seconds(place)
        done += kills
        say(f"{done} forked producers killed: {videos} videos; {told(losses)}")


def test_ffmpegs_that_are_killed_beside_a_live_producer_cost_no_video(
    driver: Driver, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = 0
    for place, kills in homes_of(tmp_path, kills_of(request, FEW // 2, 0.4)):
        home = place / "home"
        producer = driver.start(home, forever(place, "a"))
        patient = Served(endless=True, encoder=EncoderPoolOptions(attempts=50, stall_seconds=300.0))
        kernel = driver.start(home, patient)
        killed: set[int] = set()
        while len(killed) < kills:
            pid = encoder_of(kernel, killed)
            if not pid:
                time.sleep(0.001)
                continue
            time.sleep(chance.uniform(0.0, 0.02))
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if is_ffmpeg(psutil.Process(pid)):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        kill(driver, producer)
        kill(driver, kernel)
        driver.live(home, msgspec.structs.replace(patient, endless=False))
        videos += check(place)
        done += kills
        say(f"{done} ffmpegs of forked kernels killed: {videos} videos, each there")


def test_kernel_producer_and_ffmpegs_that_are_killed_together_lose_nothing_but_the_last_moment(
    driver: Driver, tmp_path: Path, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    done = videos = 0
    losses: list[float] = []
    for place, kills in homes_of(tmp_path, kills_of(request, FEW // 2, 0.1)):
        home = place / "home"
        for number in range(kills):
            producer, kernel = driver.start(home, forever(place, f"p{number}")), driver.start(home, FOREVER)
            run_for(kernel, chance.uniform(0.0, 0.25))
            ffmpegs = psutil.Process(kernel).children(recursive=True)
            for pid in (producer, kernel):
                os.kill(pid, signal.SIGKILL)
            for each in ffmpegs:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            driver.wait(producer)
            driver.wait(kernel)
        driver.live(home, Served())
        videos += check(place)
        losses += lost_seconds(place)
        done += kills
        say(f"{done} forked groups killed: {videos} videos; {told(losses)}")


FOREVER = Served(endless=True)


def forever(place: Path, session: str) -> Recorded:
    """A producer that steps until it is killed, with a short film now and then, and a long one that needs a join."""
    (place / "home").mkdir(exist_ok=True)
    lengths = (25, 25, 25, 25, 530)
    captured = (0, 4, 50)
    return Recorded(session=session, lengths=lengths, captured=captured, endless=True, side=str(place / "side"))


def run_for(pid: int, cpu_seconds: float) -> None:
    """Let it have so much processor time, or ten times that by the clock, as a busy machine may give it little.

    A life that ends before is an error.
    """
    process = psutil.Process(pid)
    used, began = process.cpu_times(), time.monotonic()
    start = used.user + used.system
    while (used := process.cpu_times()).user + used.system - start < cpu_seconds:
        assert process.status() != psutil.STATUS_ZOMBIE, "it has ended by itself: see stderr"
        if time.monotonic() - began > 10 * cpu_seconds:
            break
        time.sleep(0.002)
    time.sleep(0.02 * (cpu_seconds * 1000 % 1))  # it counts in hundredths of a second


def kill(driver: Driver, pid: int) -> None:
    """As `kill -9`, and it is gone when this returns."""
    os.kill(pid, signal.SIGKILL)
    assert driver.wait(pid) == -signal.SIGKILL


# The run ---------------------------------------------------------------------------------------------------------


def configured(place: Path, *, length: int = 40, every: int = 2, width: int = 64, height: int = 32) -> Path:
    """Two environments that step for ever."""
    return write_config(
        place,
        f"""env = "Noting-v0"
import = ["noting"]
workers = 2
[plugins.runner.env_kwargs]
side = "{place / "side"}"
length = {length}
width = {width}
height = {height}
step_seconds = 0.002
[plugins.runner.capture]
every = {every}""",
    )


def finish(config: Path, place: Path) -> None:
    """Let the next start do what is left."""
    code, _, err = run_kernel(config, "--set", "plugins.runner.episodes=2", *PATIENT, cwd=place)
    assert code == 0, err


def wait_for_home(place: Path, process: subprocess.Popen[str]) -> None:
    """Until it has the log; what comes before changes nothing."""
    log = place / "home" / "log"
    before = sum(file.stat().st_size for file in log.glob("*.jsonl"))
    wait_for(lambda: sum(file.stat().st_size for file in log.glob("*.jsonl")) > before, process)


def live_for_a_moment(place: Path, process: subprocess.Popen[str], chance: random.Random) -> None:
    """Once in four times, during its start; else while it steps."""
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0.0, 0.5))
        return
    before = len(list((place / "side").iterdir()))
    wait_for(lambda: len(list((place / "side").iterdir())) > before, process)
    time.sleep(chance.uniform(0.0, 1.5))


def wait_for(found: Callable[[], int], process: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + GRACE_SECONDS
    while not (it := found()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return it


def stepping(place: Path, seen: set[int]) -> int:
    """A worker that steps and was not killed yet; 0 where there is none."""
    pids = [int(file.name) for file in (place / "side").iterdir()]
    return next((pid for pid in pids if pid not in seen and psutil.pid_exists(pid)), 0)


def encoder_of(kernel: int, killed: set[int]) -> int:
    """An ffmpeg at work; 0 where there is none."""
    process = psutil.Process(kernel)
    assert process.status() != psutil.STATUS_ZOMBIE, "the kernel has ended by itself"
    children = process.children(recursive=True)
    return next((child.pid for child in children if child.pid not in killed and is_ffmpeg(child)), 0)


def is_ffmpeg(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return "ffmpeg" in process.name() and "-version" not in process.cmdline()  # as imageio-ffmpeg tries it out
    return False


def kill_all(process: subprocess.Popen[str]) -> None:
    """The kernel, its workers and its ffmpegs, so near to each other as it goes."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family[1:], timeout=GRACE_SECONDS)


# What is left ----------------------------------------------------------------------------------------------------


def check(place: Path) -> int:
    """Everything that must hold when the last run has ended; the number of videos."""
    home = place / "home"
    assert look(home) == []
    assert not list((home / "spool").iterdir())
    assert not list(read(home, VideoFailed))
    steps: dict[tuple[str, int, int], int] = defaultdict(int)
    for record in read(home, StepRecorded):
        step = record.event
        steps[step.session, step.worker, step.episode] += 1
        assert step.step == steps[step.session, step.worker, step.episode], "a step is missing, or there twice"
    for ended in read(home, EpisodeEnded):
        end = ended.event
        assert steps[end.session, end.worker, end.episode] == end.steps
    return sum(1 for _ in read(home, VideoAvailable))


def lost_seconds(place: Path, pids: set[int] | None = None) -> list[float]:
    """For each process that stepped, or of these: from the first to the last of its steps that are not in the log."""
    home = place / "home"
    sources = {record.source: record.event.pid for record in read(home, WorkerStarted)}
    logged: dict[int, int] = defaultdict(int)
    for record in read(home, StepRecorded):
        logged[sources[record.source]] += 1
    losses = []
    for file in (place / "side").iterdir():
        pid = int(file.name)
        if pids is None or pid in pids:
            taken = [float(line) for line in file.read_text().splitlines()]
            lost = taken[logged[pid] :]
            losses.append(lost[-1] - lost[0] if lost else 0.0)
    return losses


def told(losses: list[float]) -> str:
    """The losses in words."""
    ordered = sorted(losses)
    if not ordered:
        return "no process that stepped"
    middle, most = ordered[len(ordered) // 2] * 1000, ordered[-1] * 1000
    late = sum(loss > 0.1 for loss in ordered)
    return f"lost steps: median {middle:.0f} ms, most {most:.0f} ms; above 100 ms: {late} of {len(ordered)}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
