"""Runs a program, and sees what it and all that it starts take: processor time, and memory at its peak. Linux.

**Processor time** is exact, whoever waited for whom: whoever loses its parent becomes a child of this process (a
subreaper), so that in the end the time of everybody is in that of our children.

**Memory** is looked at every 50 ms, so a process that lives for less may be missed. The peak of a process is the
kernel's own mark of it (`VmHWM`). The peak of all together counts what is theirs alone (`RssAnon`, `RssShmem`), as the
pages of a program and its libraries are there once, however many run it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl
LOOK_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


class Taken(NamedTuple):
    """What a program and everything it started took."""

    exit_code: int
    cpu_seconds: float
    """From the mark `begin` until the last of them was gone."""
    all_cpu_seconds: float
    """From the start."""
    peak_bytes: float
    """Of all together, at one moment."""
    peaks: dict[str, float]
    """The highest of each kind of process, bytes: `script`, `recorder`, `ffmpeg` and others by their name."""


def watch(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], *, deadline_seconds: float = 900.0
) -> Taken:
    """Run the command, and wait until all that it started has gone too.

    The last argument it gets is the descriptor of a line to us: it writes a mark (`begin`) there, and reads on when we
    have taken note. What it prints goes to the files `out` and `err` in its working directory.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair()
    before = _children_seconds()
    with ours, (cwd / "out").open("wb") as out, (cwd / "err").open("wb") as err:
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                cwd=cwd,
                env=environment,
                stdout=out,
                stderr=err,
                pass_fds=[theirs.fileno()],
            )
        family = _Family(process.pid)
        looking = threading.Thread(target=family.look_until_gone, daemon=True)
        looking.start()
        begun = before
        while mark := ours.recv(64):
            if mark.strip() == b"begin":
                begun = _children_seconds() + family.cpu_seconds()
            ours.sendall(b"noted\n")
    exit_code = _reap_all(process, time.monotonic() + deadline_seconds)
    family.gone.set()
    looking.join()
    after = _children_seconds()
    return Taken(exit_code, after - begun, after - before, family.peak_bytes, family.peaks)


class Mark:
    """The program's end of the line."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._line = socket.socket(fileno=descriptor)

    def __call__(self, name: str) -> None:
        """Tell, and wait until it was noted."""
        self._line.sendall(name.encode() + b"\n")
        self._line.recv(64)

    def close(self) -> None:
        self._line.close()


class _Family:
    """All processes that descend from one of our children."""

    def __init__(self, script: int) -> None:
        self.gone = threading.Event()
        self.peak_bytes = 0.0
        self.peaks: dict[str, float] = {}
        self._script = script
        self._ours = {os.getpid(), script}
        self._strangers: set[int] = set()
        self._kinds: dict[int, str] = {}
        self._lock = threading.Lock()

    def look_until_gone(self) -> None:
        while not self.gone.wait(LOOK_SECONDS):
            total = 0.0
            for pid in self._alive():
                status = _status(pid)
                total += status.get("RssAnon", 0.0) + status.get("RssShmem", 0.0)
                if peak := status.get("VmHWM"):
                    kind = self._kind(pid)
                    self.peaks[kind] = max(self.peaks.get(kind, 0.0), peak)
            self.peak_bytes = max(self.peak_bytes, total)

    def cpu_seconds(self) -> float:
        """Of those alive, and of those that they waited for."""
        return sum(_cpu_seconds(pid) for pid in self._alive())

    def _alive(self) -> list[int]:
        with self._lock:
            here = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - ten times as fast
            self._strangers &= here
            # A parent may have a higher number than its child only where numbers began anew.
            for pid in sorted(here - self._ours - self._strangers):
                (self._ours if _parent(pid) in self._ours else self._strangers).add(pid)
            return sorted((self._ours & here) - {os.getpid()})

    def _kind(self, pid: int) -> str:
        """What it is; a process that has just been forked is not yet what it is going to be."""
        if pid == self._script:
            return "script"
        known = self._kinds.get(pid)
        if known is None:
            known = _name(pid)
            if known != "python":
                self._kinds[pid] = known
        return known


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "python"
    if any(word.endswith(b"recorder_process") for word in words):
        return "recorder"
    if b"kernel" in words:
        return "kernel"
    if b"ffmpeg" in words[0]:
        return "ffmpeg"
    return "python"


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / TICKS if fields else 0.0


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which is in brackets and may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []


def _status(pid: int) -> dict[str, float]:
    """Sizes in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024.0 for name, size, _ in pairs}


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap_all(process: subprocess.Popen[bytes], deadline: float) -> int:
    """Wait for every child, those that became ours included."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            assert process.returncode is not None
            return process.returncode
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
        elif not pid:
            if time.monotonic() > deadline:
                sys.exit(f"{process.args!r}: what it started does not end")
            time.sleep(0.005)


def python(module: str) -> list[str]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", module]
