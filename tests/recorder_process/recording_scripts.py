"""Scripts that record into a home and look after its recorder process, each a process that does what it is asked."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from kernel.files import holder
from plugins.recorder.process import read_life

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]

# Reads a line, does it, and answers with a line. At the end of its orders it closes its producer and ends.
CODE = """
import sys, time
from pathlib import Path
import numpy as np
from plugins.recorder.process import RecorderProcess
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Producer, new_session_id

home = Path(sys.argv[1])
producer = Producer(home, new_session_id())
recorder = Recorder(producer, env_id="E", fps=30.0, video_path=lambda index: f"videos/{producer.session}-{index}.mp4")
process = RecorderProcess(home)
pictures = np.zeros((20, 240, 320, 3), np.uint8)
pictures[:, :60] = np.random.default_rng(0).integers(0, 256, (20, 60, 320, 3))
episode = 0

def begin():
    recorder.start()
    assert producer.flush()

def record(episodes, steps):
    global episode
    for _ in range(episodes):
        recorder.reset(None, {}, seed=None, episode=episode)
        recorder.capture_frame(pictures[0])
        for step in range(1, steps + 1):
            recorder.step(0, None, 1.0, step == steps, False, {}, pictures[step % 20], 0.001)
            assert step % 100 or producer.flush()
        episode += 1
    assert producer.flush()

def look_until_served():
    said = []
    while True:
        said += filter(None, [process.look()])
        if process.serving() or not process.can_be_made:
            return said
        time.sleep(0.02)

print("ready", flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
recorder.close()
assert producer.close()
"""


class Script:
    """A training script, as far as its home is concerned."""

    def __init__(
        self, home: Path, *, code: str = CODE, flags: tuple[str, ...] = (), cwd: Path = ROOT, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-c", code, str(home)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._line() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, order: str) -> Any:
        """Have it do something, and return its answer."""
        self.order(order)
        return self.answer()

    def order(self, order: str) -> None:
        """Have it do something, without waiting for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What came of the last order."""
        return ast.literal_eval(self._line())

    def end(self) -> str:
        """Let it end, and return what it said on stderr."""
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return err

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return line


def recorder_process(home: Path) -> psutil.Process:
    """The recorder process that is at work on a home."""
    pid = holder(home / "lock")
    assert pid is not None
    assert pid == read_life(home).pid
    return psutil.Process(pid)


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; nobody may be there to collect a process that is nobody's child."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_served(home: Path) -> None:
    """Kill whatever runs on a home; its locks may outlive it by a moment, as each of its threads has to end."""
    locks = [home / "lock", home / "recorder.lock"]
    for pid in {pid for lock in locks if (pid := holder(lock)) is not None}:
        psutil.Process(pid).kill()
    until(lambda: not any(holder(lock) for lock in locks))


def until(true: Callable[[], object], seconds: float = 240.0) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def environment_of(process: psutil.Process) -> Mapping[str, str]:
    """The environment variables that a process was started with."""
    variables: Mapping[str, str] = process.environ()
    return variables
