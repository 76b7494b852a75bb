"""A worker process, seen from the runner: its start, its three pipes, and its end."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, TYPE_CHECKING

import anyio

from plugins.env_runner.messages import Begin, Examine, FromWorker, Inbox, ToWorker, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LAST_LINES = 20
LINE_BYTES = 8192
"""A longer line is handed on in pieces."""
LOOK_SECONDS = 0.02


class Child:
    """A worker process at work."""

    def __init__(self, process: Popen[bytes]) -> None:
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        """What it wrote last to standard error."""
        self._process = process
        self._outbox = b""
        self._to_send = anyio.Event()
        self._inbox = Inbox(FromWorker)
        self._heard: deque[FromWorker] = deque()
        self._silent = anyio.Event()
        self._cleared_up = False

    def say(self, message: ToWorker) -> None:
        """Send a message. What cannot be sent, as the process is gone, is forgotten."""
        self._outbox += encode(message)
        self._to_send.set()

    async def listen(self) -> FromWorker | None:
        """The next message; None when the process has ended, and all that it said was heard."""
        while not self._heard:
            received = await _read(self._process.stdout)
            if not received:
                await self._silent.wait()
                return None
            self._heard.extend(self._inbox.feed(received))
        return self._heard.popleft()

    @property
    def end(self) -> str:
        """How it ended: `SIGKILL`, or `exit code 1`."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def kill(self) -> None:
        """Kill it, with every process that it has started."""
        if not self._cleared_up:  # later on, its number may be another process's
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter where only zombies are left
                os.killpg(self.pid, signal.SIGKILL)

    async def serve(self, heard: Callable[[str], None]) -> None:
        """Keep the pipes moving until the process has ended."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send)
            async with anyio.create_task_group() as reading:
                reading.start_soon(self._read_errors, heard)
                await self.died()
                self.kill()  # what it started would hold the pipes open, and is nobody's now
                self._cleared_up = True
                reading.cancel_scope.deadline = anyio.current_time() + 1  # something may have left its group
            self._silent.set()
            tasks.cancel_scope.cancel()

    async def died(self) -> None:
        """Return when the process has ended."""
        # asyncio's own wait() waits for the pipes as well, which a grandchild may hold (python/cpython#119710).
        while self._process.poll() is None:  # noqa: ASYNC110 - the end of a process is no event of anyio's
            await anyio.sleep(LOOK_SECONDS)

    async def _send(self) -> None:
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        with suppress(BrokenPipeError):
            while True:
                await self._to_send.wait()
                self._to_send = anyio.Event()
                while self._outbox:
                    await anyio.wait_writable(descriptor)
                    with suppress(BlockingIOError):
                        self._outbox = self._outbox[os.write(descriptor, self._outbox) :]

    async def _read_errors(self, heard: Callable[[str], None]) -> None:
        rest = b""
        while received := await _read(self._process.stderr):
            *lines, rest = (rest + received).split(b"\n")
            if len(rest) > LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._hear(line, heard)
        self._hear(rest, heard)

    def _hear(self, line: bytes, heard: Callable[[str], None]) -> None:
        text = _COLOURS.sub("", line.decode(errors="replace").rstrip().rpartition("\r")[2])
        if text:
            self.last_lines.append(text)
            heard(text)


@asynccontextmanager
async def started(first: Begin | Examine, heard: Callable[[str], None]) -> AsyncIterator[Child]:
    """Start a worker process with its first message. Leaving the block kills it, if it still lives.

    `heard` is called with each line that it writes to standard error, colours taken out. The process leads a process
    group of its own, so a Ctrl-C in the terminal is the runner's alone to hear. It stays in the kernel's session: Linux
    shares the processor out by sessions first (autogroup), and the encoders' niceness counts only within one.
    """
    root = str(Path(__file__).parents[2])
    python_path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = Popen(  # noqa: ASYNC220 - anyio's own is no different, and waits for the pipes of grandchildren
        [sys.executable, "-m", "plugins.env_runner.worker"],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        bufsize=0,
        process_group=0,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    pipes = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
    for pipe in pipes:
        os.set_blocking(pipe.fileno(), False)
    child = Child(process)
    child.say(first)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.serve, heard)
            yield child
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            child.kill()
            await child.died()
            for pipe in pipes:
                pipe.close()


async def _read(pipe: IO[bytes] | None) -> bytes:
    """Some bytes of a pipe; none at its end."""
    assert pipe is not None
    while True:
        await anyio.wait_readable(pipe.fileno())
        with suppress(BlockingIOError):
            return os.read(pipe.fileno(), 65536)


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
