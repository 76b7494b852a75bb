"""The plugin: the viewer's process as a child of the kernel's.

It is a process of its own so that a page that asks for 100,000 steps takes nothing from the kernel's loop, and so that
no open stream can hold up the kernel's end. It gets nothing from here that it could not read in the home, but for one
number a second: how late the kernel's loop is.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from kernel.event import LoopLag
from kernel.plugin import Options, Plugin, Refused, on
from plugins.viewer.settings import LOOPBACK, PORT, TOKEN, Ready, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEEDS = ("plotly", "simplejpeg", "starlette", "uvicorn", "websockets")
READY_SECONDS = 60.0
END_SECONDS = 1.0
"""How long the process may take to end, before it is killed."""
LOOK_SECONDS = 0.1


class ViewerOptions(Options):
    port: int = PORT
    """Where to listen; the next free one where it is taken. 0: any."""
    address: str = LOOPBACK
    """Where to listen: the loopback, unless you know who else can reach the machine."""
    hosts: list[str] = []
    """Names, beside localhost, under which a browser reaches it, such as a proxy's."""
    folders: list[Path] = []
    """Folders outside of the home whose videos may be shown; relative to where the kernel is started."""
    database: Path = Path("stepreel.sqlite")
    """The tables, as the SQLite sink's `path` says it."""
    frame_cache: int = 5
    """How many of a worker's last live pictures can be looked at again; 0: none."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: must be from 0 (any) to 65535; it is {self.port}")
        if not 0 <= self.frame_cache <= 100:
            raise ValueError(f"frame_cache: must be from 0 to 100; it is {self.frame_cache}")


class Viewer(Plugin[ViewerOptions]):
    """Shows the home in the browser, as long as the kernel runs."""

    _process: subprocess.Popen[bytes] | None = None

    async def check(self) -> None:
        missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            raise Refused(f'{", ".join(missing)}: not installed. pip install "stepreel[viewer]"')

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        process = await anyio.to_thread.run_sync(start, self._settings())
        self._process = process
        try:
            yield
        finally:
            self._process = None
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(end, process)

    async def run(self) -> None:
        """Print where it is, and see that it stays there."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with anyio.fail_after(READY_SECONDS):
            await anyio.wait_readable(process.stdout.fileno())
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        if line:
            ready = msgspec.json.decode(line, type=Ready)
            if ready.refused:
                raise Refused(ready.refused)
            sys.stderr.write(f"viewer: {ready.url}\nviewer: from another machine, first: {ready.ssh}\n")
        while process.poll() is None:  # noqa: ASYNC110 - the end of a process is no event of anyio's
            await anyio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the viewer's process ended with the exit code {process.returncode}")

    def _settings(self) -> Settings:
        options = self.options
        return Settings(
            home=str(self.home.resolve()),
            database=str(options.database),
            address=options.address,
            port=options.port,
            hosts=options.hosts,
            folders=[str(folder.resolve()) for folder in options.folders],
            frame_cache=options.frame_cache,
            token=os.environ.get(TOKEN, ""),
            follow_parent=True,
        )

    @on(LoopLag)
    async def pass_on(self, lag: LoopLag) -> None:
        """Hand on what nobody can read in the log."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):  # it is busy or gone: then it misses one
                os.write(process.stdin.fileno(), b"%.6f\n" % lag.seconds)


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """Start the process, which ends when its standard input does: also where the kernel is killed.

    It leads a process group of its own, so a Ctrl-C in the terminal is the kernel's alone to hear.
    """
    root = str(Path(__file__).parents[2])
    python_path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "plugins.viewer", "--for-kernel"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(settings) + b"\n")
    process.stdin.flush()
    os.set_blocking(process.stdin.fileno(), False)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process: by the end of its input, and where that takes too long, by force."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
