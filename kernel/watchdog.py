"""The watchdog: a thread that sees when the event loop does not run, and whose code keeps it from running."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from kernel.event import LoopBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

LOOK_SECONDS = 0.5
BLOCKED_SECONDS = 2.0
MOST_WAITING = 100


class Watchdog:
    """Watches the running event loop, from which it is made, until `stop`.

    Twice a second its thread asks the loop to answer. Where no answer comes for two seconds it looks at what the loop
    runs: so a loop that only waits for its turn on a busy machine is not taken for a blocked one.
    """

    def __init__(self, modules: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._modules = modules
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._found: deque[LoopBlocked] = deque(maxlen=MOST_WAITING)
        self._thread = threading.Thread(target=self._watch, name="loop watchdog", daemon=True)
        self._thread.start()

    def take(self) -> Iterator[LoopBlocked]:
        """What was seen since the last call; the newest hundred of it."""
        while self._found:
            yield self._found.popleft()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._answered.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self._answered.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:  # the loop is closed
                return
            if self._answered.wait(BLOCKED_SECONDS) or self._stopped.is_set():
                continue
            culprit = self._culprit()
            if culprit is not None:
                plugin, where = culprit
                name = f"[plugins.{plugin}] " if plugin else ""
                self._say(
                    f"{name}blocks the kernel's event loop at {where}, and everybody waits for it: "
                    "let a thread do what takes long (anyio.to_thread.run_sync)"
                )
            self._answered.wait()
            if culprit is not None and not self._stopped.is_set():
                self._found.append(LoopBlocked(plugin=plugin, where=where, seconds=time.monotonic() - asked))

    def _culprit(self) -> tuple[str, str] | None:
        """The plugin and the place whose code runs; None where the loop itself waits, for a turn on the processor."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the only way to see another thread's stack
        if frame is None or frame.f_globals.get("__name__") == "selectors":
            return None
        stack = list(_outwards(frame))
        task = asyncio.current_task(self._loop)
        plugin = task.get_name() if task is not None else ""
        if plugin not in self._modules:  # a task of a plugin's own making
            plugin = next((name for each in stack if (name := self._plugin_of(each))), "")
        own = next((each for each in stack if self._plugin_of(each)), frame)
        where = f"{own.f_code.co_filename}:{own.f_lineno} in {own.f_code.co_qualname}"
        # The author knows his own place, also where a library does the work.
        return plugin, where if own is frame else f"{where}, which calls {frame.f_code.co_qualname}"

    def _plugin_of(self, frame: FrameType) -> str:
        module = frame.f_globals.get("__name__", "")
        return next((name for name, own in self._modules.items() if own == module), "")


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
