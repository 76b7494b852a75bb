"""The kernel's life: check, start, wait for an end, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import os
import signal
import sys
import time
from enum import IntEnum
from typing import TYPE_CHECKING, cast

import anyio
import anyio.abc

from kernel.bus import Bus
from kernel.event import EventsDropped, KernelStarted, KernelStopped, LoopLag
from kernel.files import acquire, holder
from kernel.log import HomeFull, HomeHeld, HomeRefused, Log, makes_way, refuse_unusable
from kernel.plugin import Refused
from kernel.supervisor import SPACE_SECONDS, Life, PluginPort, first_of
from kernel.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kernel.config import LogOptions
    from kernel.wiring import Part

HEARTBEAT_SECONDS = 1.0
REMIND_SECONDS = 5.0
LAST_WORDS_SECONDS = 5.0
WANTED_SECONDS = 0.25
"""Between two looks of a kernel that makes way whether another one wants its home."""
TAKE_OVER_SECONDS = 30.0
"""How long to wait for a home whose kernel makes way."""


class Outcome(IntEnum):
    """How a kernel ended; the exit code of the command."""

    drained = 0
    """Everything was handled, and all work in hand was finished."""
    failed = 1
    """A plugin gave up, or the log could not be written."""
    refused = 2
    """Nothing was started: something has to be mended first."""
    undrained = 3
    """Work is left for the next start: the time for it was over, or a second signal came."""


class StartRefused(Exception):
    """The kernel did not start. `problems` has one sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


async def check(home: Path, parts: Sequence[Part], config: str = "") -> None:
    """Ask the home and each plugin whether a run could start. Raises `StartRefused`; creates nothing.

    `config` is the configuration's file, for the sentences to name.
    """
    problems: list[str] = []
    absolute_home = home.absolute()  # noqa: ASYNC240 - a look at the working directory

    async def ask(part: Part) -> None:
        port = PluginPort(part.name, absolute_home, anyio.Event(), cast("Bus", None))  # there is no bus yet
        try:
            await part.plugin(part.options, port).check()
        except Refused as refused:
            problems.append(f"{_place(config, part.name)} {refused}")
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the user gets one sentence
            problems.append(f"{_place(config, part.name)} its check failed: {type(error).__name__}: {error}")

    try:
        refuse_unusable(home)
    except HomeRefused as refused:
        problems.append(str(refused))
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(ask, part)
    if problems:
        raise StartRefused(problems)


class Kernel:
    """One home, its log and bus, and the plugins that share them.

    A kernel that `makes_way` leaves at once, as a second `stop` would have it, when another one wants its home: that
    one holds the lock `home/wanted` and waits. What is unfinished is found there at its start.
    """

    def __init__(
        self,
        home: Path,
        parts: Sequence[Part],
        *,
        log: LogOptions,
        drain_seconds: float,
        config: str = "",
        say: Callable[[str], None] | None = None,
        makes_way: bool = False,
    ) -> None:
        self.home = home.absolute()
        self.parts = list(parts)
        self.running = anyio.Event()
        """Set when every plugin is at work."""
        self.made_way = False
        """It has left, or is leaving, because another one wants its home."""
        self.asked_to_stop = False
        """`stop` was called, as it is for a signal."""
        self.bus: Bus
        self.lives: list[Life] = []
        self._log_options = log
        self._drain_seconds = drain_seconds
        self._config = config
        self._say = say or _say
        self._makes_way = makes_way
        self._stopping = anyio.Event()
        self._scope = anyio.CancelScope()

    def stop(self) -> None:
        """Begin to stop: end the sources, drain, leave. A second call stops at once."""
        if self.asked_to_stop:
            self._say("stopping now; what is unfinished is done at the next start")
            self._scope.cancel()
        else:
            self._say("stopping: the work in hand is finished first; Ctrl-C again stops at once")
        self.asked_to_stop = True
        self._stopping.set()

    async def run(self) -> Outcome:
        """Run until the sources have returned or `stop` was called. Raises `StartRefused` or `HomeRefused`."""
        started = time.monotonic()
        log = await self._open_log()
        self.bus = Bus(log)
        outcome = Outcome.undrained
        try:
            with anyio.CancelScope() as self._scope:
                outcome = await self._run(log)
            if any(life.left_off for life in self.lives):
                outcome = Outcome.failed
            if any(life.refused for life in self.lives):
                outcome = Outcome.refused
            stopped = KernelStopped(outcome=outcome.name, seconds=time.monotonic() - started)
            for last_words in (*self.bus.take_last_unknown(), stopped):
                await self.bus.last_words("kernel", last_words)
            with anyio.move_on_after(LAST_WORDS_SECONDS, shield=True):  # a slow disk must not hold up the end
                await self.bus.sync()
        except* OSError as errors:  # plugins' own are handled in their lives: this is the log's
            self._say(f"stopped: {log.folder} cannot be written: {first_of(errors)}")
            outcome = Outcome.failed
        finally:
            log.close()
        if refused := [f"{_place(self._config, life.name)} {life.refused}" for life in self.lives if life.refused]:
            raise StartRefused(refused)
        return outcome

    async def _open_log(self) -> Log:
        """Take the home, as soon as its disk has room for that."""
        told = False
        while True:
            try:
                return await self._take_home()
            except HomeFull as full:
                if self.asked_to_stop:
                    raise
                if not told:
                    self._say(f"{full} The start waits for it.")
                told = True
                await anyio.sleep(SPACE_SECONDS)

    async def _take_home(self) -> Log:
        """Take the home, also from a kernel that makes way."""
        try:
            return self._log()
        except HomeHeld:
            if self._makes_way or not makes_way(self.home):
                raise
        self._say(f"{self.home}: is in use by a process that makes way; it is taken over as soon as that has left")
        wanted = None
        try:
            with anyio.move_on_after(TAKE_OVER_SECONDS):
                while True:
                    wanted = wanted or acquire(self.home / "wanted")
                    await anyio.sleep(0.05)
                    try:
                        return self._log()
                    except HomeHeld:
                        if not makes_way(self.home):
                            raise
        finally:
            if wanted is not None:
                wanted.path.unlink(missing_ok=True)
                wanted.release()
        raise HomeHeld(
            f"{self.home}: the process on this home was to make way, and did not within {TAKE_OVER_SECONDS:g} seconds. "
            f"Its pid is {holder(self.home / 'lock')}; end it, or choose another `home`."
        )

    def _log(self) -> Log:
        options = self._log_options
        return Log(
            self.home,
            segment_bytes=options.segment_bytes,
            keep_bytes=options.keep_bytes,
            makes_way=self._makes_way,
        )

    async def _run(self, log: Log) -> Outcome:
        names = {part.name: f"{part.plugin.__module__}:{part.plugin.__qualname__}" for part in self.parts}
        if log.repaired is not None:
            cut = log.repaired
            self._say(f"the log's end was torn by a crash: {cut.size_bytes} bytes are kept in {cut.kept_as}")
            await self.bus.publish("kernel", [log.repaired])
        started = KernelStarted(version=_version(), pid=os.getpid(), config=self._config, plugins=names)
        await self.bus.publish("kernel", [started])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._heartbeat)
            tasks.start_soon(self._watch_loop)
            if self._makes_way:
                tasks.start_soon(self._make_way)
            await self._start(tasks)
            with anyio.move_on_after(self._drain_seconds) as deadline:
                await self._drain()
            for life in reversed(self.lives):
                if life.entered.is_set():  # it was begun: a refused start ends before the later ones
                    await life.close()
            tasks.cancel_scope.cancel()
        return Outcome.undrained if deadline.cancelled_caught else Outcome.drained

    async def _start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Enter every lifespan in the configuration's order, start the handlers, then every `run`; wait for an end."""
        for part in self.parts:
            port = PluginPort(part.name, self.home, self._stopping, self.bus)
            self.lives.append(Life(part, port, self.bus, self._say))
        for life in self.lives:
            tasks.start_soon(life.live, name=life.name)
            await life.entered.wait()
            if life.refused is not None:
                return
        for life in self.lives:
            life.start_handlers.set()
        for life in self.lives:
            life.start_run.set()
            tasks.start_soon(self._watch, life)
        if self._sources:
            tasks.start_soon(self._stop_after_sources)
        self.running.set()
        await self._stopping.wait()

    @property
    def _sources(self) -> list[Life]:
        return [life for life in self.lives if life.part.plugin.source]

    async def _stop_after_sources(self) -> None:
        for life in self._sources:
            await life.returned.wait()
        self._stopping.set()

    async def _watch(self, life: Life) -> None:
        """Stop in good order when a required plugin gives up."""
        await life.ended.wait()
        if life.part.required and life.left_off and not self._stopping.is_set():
            self._say(f"stopping: [plugins.{life.name}] is required")
            self._stopping.set()

    async def _drain(self) -> None:
        """Wait for the sources, then for the work in hand."""
        if not self.running.is_set():
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._say_what_it_waits_for)
            for life in self._sources:
                await life.returned.wait()
            await self.finish_work()
            tasks.cancel_scope.cancel()

    async def finish_work(self) -> None:
        """Rounds: every `drain` returns and every mailbox is at the log's end, until a round brings no event."""
        last_seq = -1
        while last_seq != self.bus.log.last_seq:
            last_seq = self.bus.log.last_seq
            async with anyio.create_task_group() as drains:
                for life in self.lives:
                    drains.start_soon(life.drain)
            while any(life.behind for life in self.lives):  # noqa: ASYNC110 - as many conditions as plugins
                await anyio.sleep(0.01)

    async def _say_what_it_waits_for(self) -> None:
        while True:
            await anyio.sleep(REMIND_SECONDS)
            waits = [f"{life.name}: {words}" for life in self.lives if life.plugin and (words := life.plugin.pending())]
            if waits:
                self._say(f"waiting for {'; '.join(waits)}")

    async def _make_way(self) -> None:
        """Stop at once when another process wants the home."""
        while holder(self.home / "wanted") is None:  # noqa: ASYNC110 - a file's lock has no event to wait for
            await anyio.sleep(WANTED_SECONDS)
        self._say("making way, as another kernel wants this home; what is unfinished is done there")
        self.made_way = True
        self._stopping.set()
        self._scope.cancel()

    async def _watch_loop(self) -> None:
        """Say who kept the event loop from running."""
        modules = {part.name: part.plugin.__module__ for part in self.parts}
        watchdog = Watchdog(modules, self._say)
        try:
            while True:
                await anyio.sleep(HEARTBEAT_SECONDS)
                for blocked in watchdog.take():
                    await self.bus.publish("kernel", [blocked])
        finally:
            watchdog.stop()

    async def _heartbeat(self) -> None:
        """Once a second: put the log on disk, keep it within its bound, say what was dropped and how late this ran."""
        while True:
            asked = time.monotonic()
            await anyio.sleep(HEARTBEAT_SECONDS)
            late = time.monotonic() - asked - HEARTBEAT_SECONDS
            await self.bus.publish("kernel", [LoopLag(seconds=late)])
            for life in self.lives:
                if dropped := life.take_dropped():
                    await self.bus.publish("kernel", [EventsDropped(plugin=life.name, count=dropped)])
            await self.bus.publish("kernel", self.bus.take_unknown())
            await self.bus.sync()
            if self.running.is_set():  # before, the plugins' cursors are not known, and hold nothing
                await self.bus.trim()


async def run_until_signalled(kernel: Kernel) -> Outcome:
    """Run a kernel; the first SIGINT, SIGTERM or SIGHUP drains it, and the second stops it at once."""
    collect_seldom()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(each, kernel.stop)
    return await kernel.run()


def collect_seldom() -> None:
    """Look for garbage in cycles less often, in a process that is a kernel and nothing else.

    Events hold lists and dicts, so that a busy kernel makes thousands of objects that the collector counts and, as
    none is part of a cycle, never frees: a sixth of its time (measured, from `publish` to SQLite).
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _place(config: str, plugin: str) -> str:
    """What to name in front of a refusal: the file, where there is one, and the table."""
    return f"{config}: [plugins.{plugin}]" if config else f"[plugins.{plugin}]"


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr)  # noqa: T201 - the one place where the kernel speaks to whoever started it


def _version() -> str:
    try:
        return importlib.metadata.version("stepreel")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
