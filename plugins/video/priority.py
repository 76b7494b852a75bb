"""Priority: encoders give way to those who step, as far as that leaves them enough to get on.

An encoder begins in the system's idle class (Linux), where it runs on what nobody else wants: at nice 10 it would be
let finish its slice, some milliseconds, before a stepping thread that wakes up has its core back. Where all cores are
busy, the idle class is next to nothing, and an unprivileged process cannot be raised from it again: such an encoder is
killed, its work begins anew at nice 10, and for a while nothing more is tried in the idle class.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

NICE = 10
STARVED_SECONDS = 2.0
"""An encoder that waited for the processor for so long, and was given less than `STARVED_SHARE` of it, is starved."""
STARVED_SHARE = 0.2
NICE_SECONDS = 60.0
"""For so long nothing is tried in the idle class, once somebody starved there."""


class Starved(Exception):
    """An encoder in the idle class was given next to no processor time. Its work is to begin anew."""


class Priority:
    """How the encoders of one pool run at the moment."""

    def __init__(self) -> None:
        self._nice_until = 0.0

    @property
    def idle(self) -> bool:
        """Whether an encoder that begins now begins in the idle class."""
        return hasattr(os, "SCHED_IDLE") and time.monotonic() >= self._nice_until

    def prefer_nice(self) -> None:
        """Take note that somebody starved in the idle class."""
        self._nice_until = time.monotonic() + NICE_SECONDS


class Hunger:
    """How much of the processor an encoder in the idle class was given while its input waited for it."""

    def __init__(self, pid: int, priority: Priority) -> None:
        self._priority = priority
        self._stat = Path(f"/proc/{pid}/stat")
        self._waited_seconds = 0.0
        self._used_before = self._used_seconds()

    def waited(self, seconds: float) -> None:
        """Take note that its input waited. Raises `Starved`, and tells the pool, where it does not get on."""
        self._waited_seconds += seconds
        if self._waited_seconds < STARVED_SECONDS:
            return
        used = self._used_seconds()
        if used - self._used_before < STARVED_SHARE * self._waited_seconds:
            self._priority.prefer_nice()
            raise Starved
        self._waited_seconds, self._used_before = 0.0, used

    def _used_seconds(self) -> float:
        """Processor time of all its threads; infinite where it is gone, which is no hunger."""
        try:
            fields = self._stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return float("inf")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lower(pid: int, *, idle: bool) -> None:
    """Let a process, which leads a group, give way: at nice 10, and in the idle class where that is wanted."""
    # The group, not the process alone: it counts for threads and children that it may have begun by now.
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    if idle:
        with suppress(OSError):  # it is gone, or a thread of its is
            _put_into_idle_class(pid)


def _put_into_idle_class(pid: int) -> None:
    done: set[str] = set()
    # Again, as a thread may have begun another one before its turn came; afterwards all begin as they are now.
    while threads := {path.name for path in Path(f"/proc/{pid}/task").iterdir()} - done:
        for thread in threads:
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
        done |= threads


def lower_this_thread() -> None:
    """Let this thread alone, which feeds an encoder, give way like it. For good: it cannot be raised again."""
    # At nice 10 and not in the idle class: it holds the interpreter's lock for moments, and others wait for that.
    if hasattr(os, "SCHED_IDLE"):  # Linux, where each thread has a niceness of its own
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICE, own))
