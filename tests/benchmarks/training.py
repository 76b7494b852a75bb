"""What recording costs a training script as a whole: Gymnasium's RecordVideo, ours by one import, ours by `exec`.

    python -m tests.benchmarks.training [--rounds 3] [--steps 100000]

The same PPO script (tests/training/ppo.py) with the same seed is run as a whole process, each time in an empty folder.
The contenders take turns, and none begins before all that the one before left behind has gone. Medians over the rounds
are printed, with the least and the most. Linux: a process's own time is read when it has just ended.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import imageio_ffmpeg
import psutil

from tests.training.scripts import OURS, PPO, UPSTREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl


class Contender(NamedTuple):
    """One way to run the script."""

    name: str
    script: str
    command: tuple[str, ...]
    """What stands before the script's name."""
    arguments: tuple[str, ...]


class Turn(NamedTuple):
    """What one run took, and what it made."""

    wall_seconds: float
    own_cpu_seconds: float
    """Of the training process alone."""
    all_cpu_seconds: float
    """With everything it started, whether it waited for it or not."""
    longest_step_seconds: float
    closing_seconds: float
    """From the last step to the end of the process."""
    frames: dict[str, int]
    """Of each file, by its path in the folder."""
    mean_return: str


def contenders() -> list[Contender]:
    """The floor first, then upstream, then ours in two ways."""
    script = PPO.read_text()
    assert script.count(UPSTREAMS) == 1
    one_import = script.replace(UPSTREAMS, OURS)
    return [
        Contender("no video", script, (), ()),
        Contender("RecordVideo", script, (), ("--capture-video",)),
        Contender("one import", one_import, (), ("--capture-video",)),
        Contender("stepreel exec", script, ("-m", "kernel", "exec"), ("--capture-video",)),
    ]


def take_turn(contender: Contender, arguments: Sequence[str]) -> Turn:
    """Run the script in an empty folder, and wait until all that it started has gone."""
    with tempfile.TemporaryDirectory() as name:
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
        videos = sorted((folder / "videos").rglob("*")) if (folder / "videos").exists() else []
        return Turn(
            wall_seconds=wall_seconds,
            own_cpu_seconds=own.user + own.system,
            all_cpu_seconds=all_cpu_seconds,
            longest_step_seconds=float(said(printed, "longest_step")),
            closing_seconds=ended_at - float(said(printed, "last_step_at")),
            frames={str(file.relative_to(folder)): frames_in(file) for file in videos if file.is_file()},
            mean_return=said(printed, "mean_return_of_last_20"),
        )


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


def said(printed: str, name: str) -> str:
    """What the script printed of this name."""
    found = re.search(rf"^(?:.* )?{name}=(\S+)", printed, re.MULTILINE)
    assert found is not None, printed
    return found[1]


def frames_in(file: Path) -> int:
    """How many frames a video has; -1 for a file that is none."""
    try:
        frames, _ = imageio_ffmpeg.count_frames_and_secs(str(file))
    except RuntimeError:
        return -1
    return int(frames)


def spread(values: Sequence[float], digits: int) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


COLUMNS: list[tuple[str, Callable[[Turn], float], int]] = [
    ("wall time, s", lambda turn: turn.wall_seconds, 2),
    ("CPU of the training process, s", lambda turn: turn.own_cpu_seconds, 2),
    ("CPU of all that it started, s", lambda turn: turn.all_cpu_seconds, 2),
    ("longest step, ms", lambda turn: turn.longest_step_seconds * 1e3, 1),
    ("from the last step to the end, s", lambda turn: turn.closing_seconds, 2),
]


def compared(mine: Sequence[Turn], upstream: Turn) -> tuple[str, str]:
    """How the files of all runs look beside upstream's: how many and whether their names are equal; their frames."""
    files = {name: turn.frames[name] for turn in mine for name in turn.frames}
    equal = all(set(turn.frames) == set(upstream.frames) for turn in mine)
    differing = sorted(
        f"{Path(name).name}: {frames}, upstream {upstream.frames.get(name, 'none')}"
        for turn in mine
        for name, frames in turn.frames.items()
        if upstream.frames.get(name) != frames
    )
    names = f"{len(files)}, names {'equal' if equal else 'not equal: ' + ', '.join(sorted(files))}"
    return names, "; ".join(dict.fromkeys(differing)) or f"equal, {sum(upstream.frames.values())} in all"


def main() -> None:
    """Run the rounds and print the table."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin, which is no time of the training's
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # who loses his parent becomes ours: we see his time, and his end
    arguments = ["--seed", str(options.seed), "--total-timesteps", str(options.steps)]
    entered = contenders()
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in entered}
    for number in range(options.rounds):
        for contender in entered[number % len(entered) :] + entered[: number % len(entered)]:
            turns[contender.name].append(take_turn(contender, arguments))
            print(f"round {number + 1}, {contender.name}: {turns[contender.name][-1]}", file=sys.stderr)
    for name, taken in turns.items():
        print(name)
        for title, of, digits in COLUMNS:
            print(f"    {title:36}{spread([of(turn) for turn in taken], digits)}")
        print(f"    {'return of the last 20 episodes':36}{', '.join(sorted({turn.mean_return for turn in taken}))}")
        if taken[0].frames:
            files, frames = compared(taken, turns["RecordVideo"][0])
            print(f"    {'files':36}{files}")
            print(f"    {'frames per file beside upstream':36}{frames}")


if __name__ == "__main__":
    main()
