"""Training scripts run as a user runs them, and a look at what they leave: videos, log, spool, processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from kernel.files import holder
from plugins.check_home import look
from tests.end_to_end.homes import events, frames_of
from tests.environments.bars import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FOLDER = Path(__file__).parent
ENVIRONMENTS = FOLDER.parent / "environments"
PPO = FOLDER / "ppo.py"

# The one line by which scripts differ.
UPSTREAMS = "from gymnasium.wrappers import RecordVideo\n"
OURS = "from stepreel import RecordVideo\n"
NOBODYS = "RecordVideo = lambda env, *arguments, **keywords: env\n"

MARK = "PLACE_OF_A_TEST"
"""In the environment of everything that a place's scripts start, whatever its command line and its parent."""

LEAVE_SECONDS = 30
"""The recorder process is gone within 5 s; a machine that is busy with other things gets longer."""


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str


class Place:
    """A folder where scripts are run, with the home that they use there by default."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / ".stepreel"
        self.videos = folder / "videos"
        self._mark = uuid.uuid4().hex

    # Running -----------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """Write a script."""
        script = self.folder / name
        script.write_text(text)
        return script

    @contextmanager
    def started(
        self, *command: object, pass_fds: Sequence[int] = (), **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """`python …`, in a process group of its own as a terminal gives it; killed where it is left running."""
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            # not communicate(): a child that was forked holds the pipes open for as long as it likes
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def run(self, *command: object, seconds: float = 120, **environment: str) -> Ended:
        """`python …` to its end. Its pipes are read to their ends, too: nothing that it left behind holds them open."""
        with self.started(*command, pass_fds=(), **environment) as process:
            out, err = process.communicate(timeout=seconds)
            return Ended(process.returncode, out, err)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPREEL")}
        modules = os.pathsep.join(filter(None, [str(ENVIRONMENTS), environment.get("PYTHONPATH")]))
        return {**environment, "PYTHONPATH": modules, MARK: self._mark, **more}

    # Processes ---------------------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started from here, by whatever way, and every one that names the home."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self._mark or any(str(self.home) in a for a in process.cmdline()):
                    found.append(process)
        return found

    def recorder(self) -> int | None:
        """The pid of the process that owns the home now."""
        lock = self.home / "lock"
        return holder(lock) if lock.exists() else None

    def wait_for_recorder(self) -> int:
        """The pid of the process that owns the home, as soon as there is one."""
        wait_until(lambda: self.recorder() is not None, what="a process that owns the home")
        pid = self.recorder()
        assert pid is not None
        return pid

    def clear(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    # What is left ------------------------------------------------------------------------------------------------

    def at_rest(self, seconds: float = LEAVE_SECONDS) -> None:
        """Wait until nothing runs any more, and look that nothing was left undone in the home."""
        wait_until(lambda: not self.processes(), seconds, what=lambda: f"the end of {commands(self.processes())}")
        self.check_home()

    def check_home(self) -> None:
        """Everything that must hold in the home when the work is done."""
        home = self.home
        assert look(home) == []
        assert not events(home, "VideoFailed")
        assert not events(home, "RecorderFailed")

    def video_names(self) -> list[str]:
        """The names of all files in the folder for videos, dotfiles too."""
        return sorted(path.name for path in self.videos.rglob("*") if path.is_file())

    def recorder_starts(self) -> int:
        """How many processes have owned the home so far, one after the other."""
        return len(events(self.home, "KernelStarted"))


def numbers_in(video: Path) -> list[int]:
    """The numbers that the frames of a video of the Bars show."""
    return [shown(frame) for frame in frames_of(video)]


def commands(processes: list[psutil.Process]) -> list[str]:
    """What processes are."""
    told = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            told.append(f"{process.pid} {' '.join(process.cmdline())}")
    return told


def wait_until(condition: Callable[[], Any], seconds: float = 60, *, what: str | Callable[[], str] = "it") -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what if isinstance(what, str) else what()}"
        time.sleep(0.05)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the terminal sends it to the whole process group."""
    os.killpg(process.pid, signal.SIGINT)


def warnings_in(err: str) -> list[str]:
    """The lines of stderr that are a warning of ours."""
    return [line for line in err.splitlines() if "RuntimeWarning" in line]
