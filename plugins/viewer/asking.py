"""Asking: how a user's wishes reach the kernel. The viewer is a producer; its events are in the log as anyone's."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kernel.files import holder
from plugins.recorder.spool import Producer
from plugins.viewer.answers import Wrong

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Event

BY = "viewer"
IDLE_SECONDS = 10.0
"""A producer that has had nothing to say for so long is closed, and the kernel clears its folder away."""
FLUSH_SECONDS = 5.0


class Asking:
    """One producer of the viewer's, while there is something to say."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._producer: Producer | None = None
        self._said_at = 0.0
        self._turn = anyio.Lock()

    @property
    def writable(self) -> bool:
        """Whether anything can be asked for."""
        return os.access(self.home, os.W_OK | os.X_OK)

    @property
    def kernel_runs(self) -> bool:
        """Whether a kernel, or a recorder process, is at work on the home."""
        try:
            return holder(self.home / "lock") is not None
        except OSError:
            return False

    async def say(self, *events: Event) -> None:
        """Hand events in; they are in files when this returns. Raises `Wrong` where that cannot be."""
        if not self.writable:
            raise Wrong(403, "this home cannot be written by this user, so it is only shown")
        async with self._turn:
            if self._producer is None:
                self._producer = Producer(self.home, BY)
            self._said_at = time.monotonic()
            for event in events:
                self._producer.say(event)
            producer = self._producer
            if not await anyio.to_thread.run_sync(producer.flush, FLUSH_SECONDS):
                raise Wrong(507, "the disk did not take it; is it full?")

    async def rest(self) -> None:
        """Close the producer when it has had nothing to say for a while."""
        async with self._turn:
            if self._producer is not None and time.monotonic() - self._said_at > IDLE_SECONDS:
                await self._close()

    async def close(self) -> None:
        """Write what waits, and let the folder go."""
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await anyio.to_thread.run_sync(producer.close, 1.0)
