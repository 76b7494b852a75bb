"""Feeding: one ffmpeg is started, given frames, listened to, and killed when it hangs or nobody wants it any more."""

from __future__ import annotations

import fcntl
import math
import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn, Self

from plugins.video.priority import LOOK_SECONDS, Fed, Priority, lower, on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PIPE_BYTES = 1 << 20
WORDS_BYTES = 1 << 16


class Failed(Exception):
    """ffmpeg did not do what it was told. The text holds its last words."""


class Hung(Failed):
    """ffmpeg made no progress, and was killed. Nothing says that its input is bad."""


class Child:
    """The ffmpeg that a job runs, one at a time.

    One that is fed runs how and where the pool's `priority` says, any other at nice 10.

    `kill` may come from any thread and at any time. It is final: where no ffmpeg runs, none will be started.
    """

    def __init__(self, priority: Priority | None = None) -> None:
        self.priority = priority
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    @contextmanager
    def started(
        self, arguments: Sequence[str], folder: Path, *, fed: bool, idle: bool
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start ffmpeg in a process group of its own, with low priority. It is gone when the block is left."""
        with self._lock:
            if self._killed:
                raise Failed("it was called off")
            process = self._process = subprocess.Popen(
                arguments,
                cwd=folder,
                stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,
            )
        try:
            lower(process.pid, idle=idle)
            yield process
        finally:
            self._end(process)

    def kill(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                _kill_group(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            _kill_group(process)
        while not self.ended(process):
            time.sleep(0.001)
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()

    def ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has ended. Reaped under the lock, so that `kill` never meets a number that is somebody else's."""
        with self._lock:
            return process.poll() is not None


def run(
    child: Child,
    arguments: Sequence[str],
    folder: Path,
    frames: Iterable[bytes | memoryview] | None,
    *,
    stall_seconds: float,
) -> str:
    """Run ffmpeg to its end on these frames, one in memory at a time, and return what it said.

    Raises `Failed` where it ends badly, and where nothing moved for `stall_seconds`: it is killed then; `Starved` where
    it was in the idle class, and should run at nice 10. What the iterator raises comes through.
    """
    fed = frames is not None
    priority = child.priority if fed else None
    idle = priority is not None and priority.idle
    cores = set() if priority is None else priority.cores()
    with (
        on(cores),
        child.started(arguments, folder, fed=fed, idle=idle) as process,
        nullcontext() if priority is None else Fed(process.pid, priority, cores, idle=idle) as encoder,
        _Pipes(process, stall_seconds, encoder) as pipes,
    ):
        # Where it closes its input too early, its exit code and its words tell why.
        took_all = all(pipes.write(frame) for frame in frames or ())
        pipes.listen_to_the_end()
        deadline = time.monotonic() + stall_seconds
        while not child.ended(process):
            if time.monotonic() > deadline:
                pipes.give_up()
            time.sleep(0.001)
        words = bytes(pipes.words).decode(errors="replace").strip()
        if process.returncode != 0:
            raise Failed(f"ffmpeg {_ending(process.returncode)}: {words[-600:] or 'it said nothing'}")
        if not took_all:
            raise Failed(f"ffmpeg stopped reading in the midst of the frames: {words[-600:] or 'it said nothing'}")
        return words


class _Pipes:
    """The pipes to and from one ffmpeg, neither of which may block."""

    def __init__(self, process: subprocess.Popen[bytes], stall_seconds: float, encoder: Fed | None) -> None:
        self.words = bytearray()
        self._encoder = encoder
        self._longest_select = math.inf if encoder is None else LOOK_SECONDS
        self._stall_seconds = stall_seconds
        self._stdin = process.stdin
        assert process.stderr is not None
        self._stderr = process.stderr
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stderr, selectors.EVENT_READ)
        self._listening = True
        os.set_blocking(self._stderr.fileno(), False)
        if self._stdin is not None:
            os.set_blocking(self._stdin.fileno(), False)
            _widen(self._stdin.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def write(self, frame: bytes | memoryview) -> bool:
        """Hand one frame over; False where ffmpeg takes no more."""
        assert self._stdin is not None
        descriptor = self._stdin.fileno()
        rest = memoryview(frame).cast("B")
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                self._wait_for_room(descriptor)
            except BrokenPipeError:
                return False
        return True

    def listen_to_the_end(self) -> None:
        """Say that there are no more frames, and hear what ffmpeg has to say until it closes its side."""
        if self._stdin is not None:
            self._stdin.close()
        deadline = time.monotonic() + self._stall_seconds
        while self._listening:
            self._select(deadline)

    def give_up(self) -> NoReturn:
        """Nothing moves: raises `Hung`, or in the idle class, where a sound one may stand still, `Starved`."""
        if self._encoder is not None:
            self._encoder.starve()
        raise Hung(f"ffmpeg made no progress for {self._stall_seconds:g} s and was killed")

    def _wait_for_room(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_WRITE)
        deadline = time.monotonic() + self._stall_seconds
        try:
            while descriptor not in self._select(deadline):
                pass
        finally:
            self._selector.unregister(descriptor)

    def _select(self, deadline: float) -> set[int]:
        began = time.monotonic()
        left = deadline - began
        ready = {key.fd for key, _ in self._selector.select(min(max(left, 0), self._longest_select))}
        if self._encoder is not None:
            self._encoder.waited(time.monotonic() - began)
        if self._stderr.fileno() in ready:
            self._listen()
            if self._listening:
                ready.discard(self._stderr.fileno())  # talking is no progress
        if not ready and left <= 0:
            self.give_up()
        return ready

    def _listen(self) -> None:
        said = os.read(self._stderr.fileno(), WORDS_BYTES)
        self.words += said
        del self.words[:-WORDS_BYTES]
        if not said:
            self._selector.unregister(self._stderr)
            self._listening = False


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # not reaped, so that its number is still its own
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal the dead
            os.killpg(process.pid, signal.SIGKILL)


def _widen(descriptor: int) -> None:
    """Let a whole frame fit in, where the system can: every refill of 64 KiB would cost a switch."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(PermissionError):  # the user's pipes are at their limit; a narrow one works, too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
