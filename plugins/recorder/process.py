"""The recorder process, seen from a script: find the one that serves a home, or start it.

    home/
        lock            held by the kernel that runs on the home: the recorder process, or one that somebody started
        wanted          held by a kernel that waits for the recorder process to make way
        start.lock      held by whoever starts a recorder process, until it is at work
        recorder.lock   held by a recorder process from its first moment to its last
        recorder.json   `Life`: how the last one ended
        recorder.log    what it said

All of them are looked at without being taken, save `start.lock`: so of any number of processes one starts it.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

import kernel.files
from kernel.fail_points import fail_point
from kernel.files import acquire, clear_up, holder, write_all, write_whole
from plugins.recorder.sessions import sessions_folder
from plugins.recorder.spool import spool_folder

PROGRAM = Path(__file__).absolute().parent.parent / "recorder_process"
REPORT = 3
"""The descriptor on which the program answers."""
START_SECONDS = 20.0
"""How long `look` waits for the process that it has started."""
RESTARTS = 3
WITHIN_SECONDS = 60.0
"""More unexpected ends than `RESTARTS` within so many seconds, and it is left off for a while."""
AGAIN_SECONDS = 600.0
"""Before another try after one that was given up."""
LIFE = "recorder.json"
LOG_BYTES = 1 << 20
"""A recorder.log that is larger is begun anew."""


State = Literal["at work", "done", "left", "failed"]
"""`done`: it has found nothing left to do. `left`: it made way, or was stopped in good order. One that is said to be at
work, and does not hold its lock, was killed."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What `recorder.json` says. Written by the recorder process, and between two of them by who starts the next."""

    state: State = "left"
    why: str = ""
    pid: int = 0
    begun: float = 0.0
    """When it began, by the clock that the home's files have their times from."""
    ends: list[float] = []
    """When others failed or were killed lately: Unix times."""


class Answer(msgspec.Struct, frozen=True):
    """What a recorder process reports to the script that has started it, once."""

    state: State | Literal["silent"]
    """`silent`: it takes long, and says nothing yet."""
    why: str = ""


def read_life(home: Path) -> Life:
    """How the last recorder process ended; in good order, where there was none."""
    try:
        return _decode_life((home / LIFE).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return Life()


def write_life(home: Path, life: Life) -> None:
    """Say how it stands with the recorder process."""
    fail_point("recorder.life.before")
    write_whole(home / LIFE, msgspec.json.encode(life) + b"\n", lasting=False)
    fail_point("recorder.life.after")


class RecorderProcess:
    """What a script knows of the recorder process of one home. Has no thread of its own; any thread may call it."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.can_be_made = True
        """False while nobody serves the home and that cannot be helped: waiting for a video then makes no sense."""
        self._seen = False
        """Somebody has served the home since this script looks."""
        self._next_try = 0.0
        self._said: set[str] = set()

    def serving(self) -> bool:
        """Whether a kernel runs on the home: the recorder process, or one that somebody started."""
        return holder(self.home / "lock") is not None

    def look(self) -> str:
        """Make sure that somebody serves the home; to be called about once a second. May take some seconds.

        Returns a sentence for the user where there is one, each only once. Raises nothing.
        """
        try:
            sentence = self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
            sentence = self._give_up(f"could not be started: {_words(error)}")
        if sentence in self._said:
            return ""
        self._said.add(sentence)
        return sentence

    def _look(self) -> str:
        if self._cared_for() or time.monotonic() < self._next_try:
            return ""
        turn = acquire(self.home / "start.lock")
        if turn is None:  # somebody else is starting it
            return ""
        try:
            return "" if self._cared_for() else self._start()
        finally:
            turn.release()

    def _cared_for(self) -> bool:
        """Whether the home is served, or will be: by a recorder process that begins or ends, or a kernel that waits."""
        if self.serving():
            self._seen = self.can_be_made = True
            return True
        return any(holder(self.home / name) is not None for name in ("wanted", "recorder.lock"))

    def _start(self) -> str:
        clear_up(self.home, LIFE)
        last = read_life(self.home)
        if self._seen and _idle(self.home, last):
            return ""
        unexpected = last.state in ("at work", "failed")
        if unexpected:
            now = time.time()
            ends = [*(end for end in last.ends if now - WITHIN_SECONDS < end <= now), now]
            last = msgspec.structs.replace(last, state="left", ends=ends)
            write_life(self.home, last)
            if self._seen and len(ends) > RESTARTS:
                return self._give_up(
                    f"ended {len(ends)} times within a minute and is left off: {last.why or 'it was killed'}"
                )
        answer = start(self.home)
        if answer.state == "failed":
            return self._give_up(f"could not be started: {answer.why}")
        self.can_be_made = True
        if not unexpected or not self._seen:
            self._seen = True
            return ""
        ended = f"failed ({last.why})" if last.why else "was killed"
        return f"The recorder process for {self.home} {ended} and was started again; what it had begun is done again."

    def _give_up(self, what: str) -> str:
        self.can_be_made = False
        self._next_try = time.monotonic() + AGAIN_SECONDS
        return (
            f"The recorder process for {self.home} {what.rstrip('.')}. Training goes on; what is recorded waits in "
            f"that folder, and the next run with it makes the videos. See {self.home / 'recorder.log'}."
        )


def _idle(home: Path, last: Life) -> bool:
    """Whether nothing has come since the last recorder process found nothing left to do, and nobody who may bring some.

    What it left there, as it cannot be read, is older than itself.
    """
    return last.state == "done" and not any(
        holder(folder / "lock") is not None or _changed(folder) >= last.begun for folder in folders(home)
    )


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # its owner has just removed it
        return 0.0


def folders(home: Path) -> list[Path]:
    """The folders of producers and of open sessions, whether anybody lives in them or not."""
    parents = [parent for parent in (spool_folder(home), sessions_folder(home)) if parent.is_dir()]
    return [path for parent in parents for path in parent.iterdir() if path.name[0] != "." and path.is_dir()]


def start(home: Path) -> Answer:
    """Start a recorder process, which is nobody's child, and wait for its answer."""
    log = os.open(home / "recorder.log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(log).st_size > LOG_BYTES:
            os.ftruncate(log, 0)
        begun = os.fstat(log).st_size
        reading, writing = os.pipe()
        try:
            try:
                _detach(home, log, writing)
            finally:
                os.close(writing)
            return _answer(reading) or Answer("failed", _last_words(log, begun))
        finally:
            os.close(reading)
    finally:
        os.close(log)


def _detach(home: Path, log: int, report: int) -> None:
    """Start the program, which forks and ends; what goes on in its fork has a session and no parent of its own.

    It gets the places where we find modules, as the last to be searched but for its own standard library. Its own
    start reads none (`-S`): no other program's startup files take part in it.
    """
    order = {
        "kernel": str(Path(kernel.files.__file__).absolute().parent),
        "plugins": str(PROGRAM.parent),
        "path": [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)],  # noqa: PTH100 - text to text
    }
    # Not subprocess: it waits on a pipe until the program runs, and another thread that forks at that moment leaves the
    # pipe's other end with a child that never runs anything. For the same reason the order ends with its line.
    reading, writing = os.pipe()
    try:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-S", "-P", str(PROGRAM), str(home)],
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, report, REPORT),
            ],
            setsigmask=[],
        )
        with suppress(BrokenPipeError):  # it has ended; its answer, or its last words, say why
            write_all(writing, json.dumps(order).encode() + b"\n")
    finally:
        os.close(reading)
        os.close(writing)
    with suppress(ChildProcessError):  # a script that waits for its children itself may have been quicker
        os.waitpid(process, 0)


def _environment() -> dict[str, str]:
    """The script's own, without what was set for it alone."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STEPREEL_") and (not name.startswith("PYTHON") or name in _KEPT)
    }
    ffmpeg = environment.get("IMAGEIO_FFMPEG_EXE", "")
    if os.sep in ffmpeg:
        environment["IMAGEIO_FFMPEG_EXE"] = os.path.abspath(ffmpeg)  # noqa: PTH100 - its working directory is another
    return environment | _ONE_THREAD


_KEPT = frozenset({"PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"})
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""NumPy is there to read frames; its threads would cost memory."""


def _answer(reading: int) -> Answer | None:
    """What the process reports; None where it ended without a word."""
    poll = select.poll()  # select() refuses a script's thousandth file
    poll.register(reading, select.POLLIN)
    said, deadline = b"", time.monotonic() + START_SECONDS
    while not said.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return Answer("silent")
        read = os.read(reading, 65536)
        if not read:
            return None
        said += read
    return msgspec.json.decode(said, type=Answer)


def _last_words(log: int, begun: int) -> str:
    """The last line that was written to the log behind this place, such as a traceback's."""
    lines = os.pread(log, LOG_BYTES, begun).decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


_decode_life = msgspec.json.Decoder(Life).decode
