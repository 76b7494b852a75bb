"""What the kernel's tests say to each other, and how they start other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kernel.event import Event
from kernel.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.event import Record

ROOT = Path(__file__).parents[2]


class Tick(Event):
    """A logged event that counts."""

    n: int
    padding: str = ""


class Tock(Event):
    """Another one, to tell apart."""

    n: int


class Flash(Event):
    """An event that is not logged."""

    durable: ClassVar[bool] = False
    n: int


def ticks(first: int, last: int, padding: str = "") -> list[Tick]:
    return [Tick(n=n, padding=padding) for n in range(first, last + 1)]


def numbers(records: Iterable[Record[Event]]) -> list[int]:
    """The `n` of the ticks, tocks and flashes among the records."""
    return [record.event.n for record in records if isinstance(record.event, Tick | Tock | Flash)]


def written_log(home: Path, count: int, *, padding: str = "", segment_bytes: int = 2**20) -> None:
    """A home whose log holds this many ticks, and whose kernel is gone."""
    log = Log(home, segment_bytes=segment_bytes)
    for n in range(1, count + 1):
        log.append("a", n, [Tick(n=n, padding=padding)])
        if not n % 10:
            log.sync()
    log.close()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs this code, with pipes to all its ends."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    """What a process says until its end, which has to be a good one."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stepreel(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """The command line with these arguments, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "kernel", *map(str, arguments)],
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line with these arguments."""
    process = stepreel(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
