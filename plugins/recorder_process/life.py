"""The life of the recorder process: serve the home, tell the script that has started it, and say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from kernel.config import LogOptions
from kernel.files import holder
from kernel.log import HomeRefused
from kernel.runtime import Kernel, Outcome, StartRefused, check, run_until_signalled
from kernel.wiring import Part
from plugins.collector import Collector, CollectorOptions
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.pruner import Pruner, PrunerOptions
from plugins.recorder.process import LOG_BYTES, Answer, read_life, write_life
from plugins.recorder_process.attendance import Attendance, AttendanceOptions
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions
from plugins.video.cores import spare_cores

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.plugin import Options, Plugin

NICE = 5
ENCODERS = 2
"""At a time, beside a training script that wants the rest of the machine."""


def main(home: Path, report: int) -> None:
    """Serve the home until nobody records on it and all is encoded, or until another kernel wants it.

    The caller holds the lock `home/recorder.lock`, and gives it up afterwards.
    """
    script = Script(report)
    life = msgspec.structs.replace(read_life(home), state="at work", why="", pid=os.getpid())
    write_life(home, life)
    begun = (home / "recorder.json").stat().st_mtime
    _say(f"the recorder process {os.getpid()} begins on {home}")
    refused = False
    try:
        end = asyncio.run(_serve(home, script))
    except (HomeRefused, StartRefused) as reason:
        refused = True  # in good order, as for the file, which counts deaths; the script is told what has to be mended
        elsewhere = holder(home / "lock") is not None
        end = Answer("left" if elsewhere else "failed", _plain(str(reason)))
    except Exception as error:  # noqa: BLE001 - the script and the next one are told, whatever it is
        traceback.print_exc()
        end = Answer("failed", f"{type(error).__name__}: {error}")
    _say(f"the recorder process {os.getpid()} ends ({end.state}): {end.why}")
    state = "left" if refused else end.state
    with contextlib.suppress(FileNotFoundError):  # the home was removed
        write_life(home, msgspec.structs.replace(life, state=state, why=end.why, begun=begun))
    script.tell(end)


class Script:
    """The script that has started this process, and waits for one answer."""

    def __init__(self, report: int) -> None:
        self._report: int | None = report

    def tell(self, answer: Answer) -> None:
        """Answer, where it was not done before. The script may be gone."""
        if self._report is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._report, msgspec.json.encode(answer) + b"\n")
            os.close(self._report)
            self._report = None


async def _serve(home: Path, script: Script) -> Answer:
    parts = [
        _part("attendance", Attendance, AttendanceOptions()),
        _part("collector", Collector, CollectorOptions()),
        _part("encoder", EncoderPool, EncoderPoolOptions(jobs=min(ENCODERS, spare_cores()))),
        # The tables catch up from the log at any later start.
        msgspec.structs.replace(_part("sqlite", SqliteSink, SqliteSinkOptions()), required=False),
        _part("pruner", Pruner, PrunerOptions(max_videos_per_session=0)),
    ]
    await check(home, parts)
    said = [""]

    def say(line: str) -> None:
        said[0] = _plain(line)
        _say(line)

    kernel = Kernel(home, parts, log=LogOptions(), drain_seconds=math.inf, say=say, makes_way=True)
    tasks = [asyncio.create_task(_tell_when_running(kernel, script)), asyncio.create_task(_stay_home(kernel))]
    try:
        outcome = await run_until_signalled(kernel)
    finally:
        for task in tasks:
            task.cancel()
    if outcome is Outcome.failed:
        left_off = [f"{life.name}: {life.left_off}" for life in kernel.lives if life.part.required and life.left_off]
        return Answer("failed", (left_off or said)[0])
    if kernel.made_way:
        return Answer("left", "another kernel wanted this home")
    if kernel.asked_to_stop:
        return Answer("left", "it was stopped")
    return Answer("done", "nothing is left to do")


def _part(name: str, plugin: type[Plugin[Any]], options: Options) -> Part:
    """A plugin without which no video is made, so that it is of no use to go on."""
    return Part(name, plugin, options, required=True)


async def _tell_when_running(kernel: Kernel, script: Script) -> None:
    await kernel.running.wait()
    # No sooner: beside a busy script, a nice start would take seconds. The group, not the process alone, as that would
    # be this one of its threads.
    os.setpriority(os.PRIO_PGRP, 0, NICE + os.getpriority(os.PRIO_PROCESS, 0))
    script.tell(Answer("at work"))


async def _stay_home(kernel: Kernel) -> None:
    """Leave at once when somebody has removed the home, or put another one into its place."""
    await kernel.running.wait()
    lock = kernel.home / "lock"
    mine = lock.stat().st_ino
    while _inode(lock) == mine:  # noqa: ASYNC110 - nobody tells when a folder goes
        await asyncio.sleep(1.0)
    _say(f"{kernel.home} was removed; nothing is left to serve")
    kernel.stop()
    kernel.stop()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _plain(text: str) -> str:
    """A refusal as one line, without the name of the plugin's table, as there is no configuration to look into."""
    return " ".join(re.sub(r"^\[plugins\.\w+\] ", "", line).strip() for line in text.splitlines())


def _say(line: str) -> None:
    """Into recorder.log, which is this process's stderr."""
    with contextlib.suppress(OSError):
        if os.fstat(sys.stderr.fileno()).st_size > LOG_BYTES:
            os.ftruncate(sys.stderr.fileno(), 0)
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
