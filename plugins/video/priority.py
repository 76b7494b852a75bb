"""Priority: encoders give way to those who step, as far as that leaves them enough to get on.

An encoder begins in the system's idle class (Linux), where it runs on what nobody else wants: at nice 10 it would be
let finish its slice, some milliseconds, before a stepping thread that wakes up has its core back. Where all cores are
busy, the idle class is next to nothing, and an unprivileged process cannot be raised from it again: such an encoder is
killed, its work begins anew at nice 10, and for a while nothing more is tried in the idle class.

Even so each thread that begins on a core is let run there until the clock's next tick (4 ms), whatever its class, and
an ffmpeg is seven threads. So it stays off the cores where somebody is stepping, and so does who feeds it.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NICE = 10
STARVED_SECONDS = 2.0
"""An encoder that waited for the processor for so long, and was given less than `STARVED_SHARE` of it, is starved."""
STARVED_SHARE = 0.2
"""Of a core; where several have one core between them, of a fair part of it."""
LOOK_SECONDS = 0.25
"""While an encoder is waited for, it is looked so often whether it gets on, and where others step."""
NICE_SECONDS = 60.0
"""For so long nothing is tried in the idle class, once somebody starved there."""


class Starved(Exception):
    """An encoder in the idle class was given next to no processor time. Its work is to begin anew."""


class Priority:
    """How the encoders of one pool run at the moment. `steppers` gives the ids of the processes that step."""

    def __init__(self, steppers: Callable[[], Iterable[int]] = tuple) -> None:
        self.fed: set[Fed] = set()
        """Those that are being fed. Each enters itself, and leaves, in the thread that feeds it."""
        self._nice_until = 0.0
        self._steppers = steppers

    @property
    def idle(self) -> bool:
        """Whether an encoder that begins now begins in the idle class."""
        return hasattr(os, "SCHED_IDLE") and time.monotonic() >= self._nice_until

    def cores(self) -> set[int]:
        """Where an encoder may run: where nobody steps just now, or anywhere; none where the system takes no orders."""
        if not hasattr(os, "sched_setaffinity"):  # macOS
            return set()
        allowed = os.sched_getaffinity(os.getpid())  # of the first thread, as feeding threads are kept to some
        return allowed - {_core_of(pid) for pid in self._steppers()} or allowed

    def prefer_nice(self) -> None:
        """Take note that somebody starved in the idle class."""
        self._nice_until = time.monotonic() + NICE_SECONDS


class Fed:
    """An encoder that is being fed, as who feeds it sees it: which cores both run on, and whether it gets on."""

    def __init__(self, pid: int, priority: Priority, cores: set[int], *, idle: bool) -> None:
        self._pid = pid
        self._priority = priority
        self._cores = cores
        """Where both run now."""
        self._idle = idle
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._waited_seconds = 0.0
        self._used_before = self._used_seconds() if idle else 0.0

    def __enter__(self) -> Self:
        self._priority.fed.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._priority.fed.discard(self)

    def waited(self, seconds: float) -> None:
        """Take note that its input waited. Raises `Starved`, and tells the pool, where it does not get on."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._move()
        self._waited_seconds += seconds
        if not self._idle or self._waited_seconds < STARVED_SECONDS:
            return
        used = self._used_seconds()
        fair = min(1.0, len(self._cores) / max(1, len(self._priority.fed)))
        if used - self._used_before < STARVED_SHARE * fair * self._waited_seconds:
            self.starve()
        self._waited_seconds, self._used_before = 0.0, used

    def starve(self) -> None:
        """Give it up where it is in the idle class: raises `Starved`, and tells the pool."""
        if self._idle:
            self._priority.prefer_nice()
            raise Starved

    def _move(self) -> None:
        """Go where nobody steps now: who did so may have ended, and left a core."""
        cores = self._priority.cores()
        if cores != self._cores:
            self._cores = cores
            with suppress(OSError):  # it is gone
                os.sched_setaffinity(0, cores)
                for_each_thread(self._pid, lambda thread: os.sched_setaffinity(thread, cores))

    def _used_seconds(self) -> float:
        """Processor time of all its threads; infinite where it is gone, which is no hunger."""
        try:
            fields = _stat(self._pid)
        except (FileNotFoundError, ProcessLookupError):
            return float("inf")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Keep this thread, and what it starts, to these cores; none: to those that it may run on anyway."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # a core was taken from us just now
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def lower(pid: int, *, idle: bool) -> None:
    """Let a process, which leads a group, give way: at nice 10, and in the idle class where that is wanted."""
    # The group, not the process alone: it counts for threads and children that it may have begun by now.
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    if idle:
        with suppress(OSError):  # it is gone, or a thread of its is
            for_each_thread(pid, lambda thread: os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0)))


def for_each_thread(pid: int, do: Callable[[int], None]) -> None:
    """Do something to each thread of a process that those which it begins inherit."""
    done: set[str] = set()
    # Again, as a thread may have begun another one before its turn came.
    while threads := {path.name for path in Path(f"/proc/{pid}/task").iterdir()} - done:
        for thread in threads:
            do(int(thread))
        done |= threads


def _core_of(pid: int) -> int | None:
    """The core that a process's first thread is running on; None where it runs on none just now."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[36]) if fields[0] == "R" else None


def _stat(pid: int) -> list[str]:
    """The fields of a process's `stat` from the third one on, which is its state."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def lower_this_thread() -> None:
    """Let this thread alone, which feeds an encoder, give way like it. For good: it cannot be raised again."""
    # At nice 10 and not in the idle class: it holds the interpreter's lock for moments, and others wait for that.
    if hasattr(os, "SCHED_IDLE"):  # Linux, where each thread has a niceness of its own
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICE, own))
