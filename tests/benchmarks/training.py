"""What recording costs a training script as a whole: Gymnasium's RecordVideo, ours by one import, ours by `exec`.

The same PPO script (tests/training/ppo.py) with the same seed is run as a whole process, each time in an empty folder,
and no turn begins before all that the one before left behind has gone. Linux: a process's own time is read when it has
just ended.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tests.benchmarks.samples import Sample, plain
from tests.benchmarks.videos import frames_in
from tests.benchmarks.watching import SUBREAPER
from tests.training.scripts import OURS, PPO, UPSTREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.suites import Scope

LOAD = "PPO on CartPole-v1"


class Contender(NamedTuple):
    """One way to run the script."""

    name: str
    script: str
    command: tuple[str, ...]
    """What stands before the script's name."""
    arguments: tuple[str, ...]


def training(scope: Scope) -> Iterator[Sample]:
    """The floor first, then upstream, then ours in two ways."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # who loses his parent becomes ours: we see his time, and his end
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin, which is no time of the training's
    script = PPO.read_text()
    assert script.count(UPSTREAMS) == 1
    entered = [
        Contender("bare", script, (), ()),
        Contender("RecordVideo", script, (), ("--capture-video",)),
        Contender("stepreel", script.replace(UPSTREAMS, OURS), (), ("--capture-video",)),
        Contender("stepreel exec", script, ("-m", "kernel", "exec"), ("--capture-video",)),
    ]
    steps = 1_000 if scope.quick else 50_000
    wanted = scope.contenders_of(*(contender.name for contender in entered), quick=("stepreel exec",))
    entered = [contender for contender in entered if contender.name in wanted]
    for number in range(min(2, scope.rounds)):
        begin = number % len(entered)
        for contender in entered[begin:] + entered[:begin]:
            figures = take_turn(contender, ["--seed", "1", "--total-timesteps", str(steps)])
            seen = ", ".join(f"{name} {plain(value)}" for name, value in figures.items())
            print(f"training, round {number + 1}, {contender.name}: {seen}", file=sys.stderr)
            yield Sample(benchmark="training", load=LOAD, contender=contender.name, round=number, figures=figures)


def take_turn(contender: Contender, arguments: Sequence[str]) -> dict[str, float]:
    """Run the script in an empty folder, and wait until all that it started has gone."""
    with tempfile.TemporaryDirectory(prefix="stepreel-benchmark-") as name:
        folder = Path(name)
        (folder / "ppo.py").write_text(contender.script)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPREEL")}
        command = [sys.executable, *contender.command, "ppo.py", *arguments, *contender.arguments]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            wall_seconds = time.perf_counter() - began
            ended_at = time.time()
        own = psutil.Process(process.pid).cpu_times()  # it is a zombie yet
        all_cpu_seconds = reap(process)
        printed = (folder / "out").read_text()
        if process.returncode:
            sys.exit(f"{contender.name}: exit code {process.returncode}\n{(folder / 'err').read_text()}")
        videos = [*folder.glob("videos/**/*.mp4")]
        return {
            "wall_seconds": wall_seconds,
            "own_cpu_seconds": own.user + own.system,
            "all_cpu_seconds": all_cpu_seconds,
            "longest_step_ms": said(printed, "longest_step") * 1e3,
            "closing_seconds": ended_at - said(printed, "last_step_at"),
            "videos": float(len(videos)),
            "frames": float(sum(map(frames_in, videos))),
            "mean_return": said(printed, "mean_return_of_last_20"),
        }


def reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for all descendants, which are ours where their parent has gone; the time that all of them took."""
    seconds = 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)


def said(printed: str, name: str) -> float:
    """What the script printed of this name."""
    found = re.search(rf"^(?:.* )?{name}=(\S+)", printed, re.MULTILINE)
    assert found is not None, printed
    return float(found[1])
