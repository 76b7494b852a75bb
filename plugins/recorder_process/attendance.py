"""Attendance: the source that lasts as long as there is somebody who records."""

from __future__ import annotations

import os
import time

import anyio

from kernel.files import holder
from kernel.plugin import Options, Plugin
from plugins.recorder.process import folders


class AttendanceOptions(Options):
    linger_seconds: float = 1.0
    """Go when nobody has been there for so long: a script's processes may come one after the other."""
    first_seconds: float = 3.0
    """The same, until somebody has been there."""
    poll_seconds: float = 0.25
    """Between two looks."""


class Attendance(Plugin[AttendanceOptions]):
    """Ends the run when no producer and no session's owner is alive.

    Each holds the lock in its folder. The locks of the dead are free, or the collector's, which is this process.
    """

    source = True

    async def run(self) -> None:
        last, patience = time.monotonic(), self.options.first_seconds
        while not self.stopping.is_set():
            now = time.monotonic()
            there = folders(self.home)
            if there:
                patience = self.options.linger_seconds
            if any(holder(folder / "lock") not in (None, os.getpid()) for folder in there):
                last = now
            elif now - last >= patience:
                return
            with anyio.move_on_after(self.options.poll_seconds):
                await self.stopping.wait()
