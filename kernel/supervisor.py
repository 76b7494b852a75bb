"""One plugin's life: start, work, restart with backoff, give up."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from kernel.delivery import Delivery, own_failure
from kernel.event import Event, PluginState, Record
from kernel.files import wants_space
from kernel.plugin import Plugin, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from kernel.bus import Bus
    from kernel.wiring import Part

E = TypeVar("E", bound=Event)

RESTARTS = 3
WITHIN_SECONDS = 60.0
BACKOFF_SECONDS = (0.2, 1.0, 4.0)
SPACE_SECONDS = 1.0
"""Between two tries of a plugin that a full disk keeps from working. These are no failures of its own."""


class PluginPort:
    """What the kernel offers to one plugin (see `kernel.plugin.Port`)."""

    def __init__(self, name: str, home: Path, stopping: anyio.Event, bus: Bus) -> None:
        self.name = name
        self.home = home
        self.stopping = stopping
        self._bus = bus

    async def publish(self, *events: Event) -> None:
        await self._bus.publish(self.name, events)

    async def relay(self, source: str, first_nth: int, events: Sequence[Event]) -> None:
        await self._bus.relay(source, first_nth, events)

    async def sync(self) -> None:
        await self._bus.sync()

    def last_nth(self, source: str) -> int:
        return self._bus.log.last_nth(source)

    def read(self, *types: type[E], after: int = 0) -> AsyncIterator[Record[E]]:
        return self._bus.read(types, after)


class Life:
    """Runs one plugin from its first lifespan to its last, through as many instances as its restarts take.

    The runtime opens the gates in order (`entered` of all plugins, then `start_handlers`, then `start_run`) and
    closes the life; in between, a failure of the plugin is this class's business alone.
    """

    def __init__(self, part: Part, port: PluginPort, bus: Bus, say: Callable[[str], None]) -> None:
        self.name = part.name
        self.part = part
        self.plugin: Plugin[Any] | None = None
        """The instance at work; None between restarts, and when the plugin has ended or was left off."""
        self.left_off = ""
        """Why it was given up; empty while it was not."""
        self.refused: Refused | None = None
        """Why its first start was refused."""
        self.start_handlers = anyio.Event()
        self.start_run = anyio.Event()
        self.entered = anyio.Event()
        """Its lifespan was entered, or never will be."""
        self.returned = anyio.Event()
        """Its `run` has returned, or never will."""
        self.ended = anyio.Event()
        self._port = port
        self._bus = bus
        self._say = say
        self._wants_space = False
        """It said that it waits for space, and has not been at work since."""
        self._closing = anyio.Event()
        self._at_work = anyio.Event()
        self._work_scope = anyio.CancelScope()
        self._drain_scope = anyio.CancelScope()
        self._drain_lock = anyio.Lock()
        self._drain_failure: Exception | None = None
        types = {kind for handler in part.plugin.handlers for kind in handler.types}
        self._subscription = bus.subscribe(tuple(types)) if types else None
        self._delivery = (
            Delivery(part.name, part.plugin.handlers, self._subscription, self._publish) if self._subscription else None
        )

    @property
    def behind(self) -> int:
        """How many events of the log it has yet to look at."""
        if self._subscription is None or self.ended.is_set():
            return 0
        return self._bus.log.last_seq - self._subscription.position

    def take_dropped(self) -> int:
        """How many events that are not durable were dropped since this was last called."""
        if self._subscription is None:
            return 0
        dropped, self._subscription.dropped = self._subscription.dropped, 0
        return dropped

    async def live(self) -> None:
        """Live until `close`. What the plugin raises is handled in here."""
        failures: deque[float] = deque(maxlen=RESTARTS + 1)
        try:
            while not self._closing.is_set():
                try:
                    await _own(self._live_once())
                except Exception as raised:  # noqa: BLE001 - whatever a plugin raises is handled here
                    error = first_of(raised)
                    if isinstance(error, Refused) and not self.entered.is_set():
                        self.refused = error
                        return
                    if wants_space(error) and not self._ends_before_it_began():
                        await self._wait_for_space(error)
                        continue
                    failures.append(time.monotonic())
                    if not await self._again(error, failures):
                        return
        finally:
            self.plugin = None
            if self._subscription is not None:
                self._bus.unsubscribe(self._subscription)
            for reached in (self.entered, self.returned, self._at_work, self.ended):
                reached.set()

    async def drain(self) -> None:
        """Let the plugin finish its work in hand; where it fails or is being restarted, the next instance's."""
        async with self._drain_lock:
            while True:
                await self._at_work.wait()
                if self.plugin is None:
                    return
                with anyio.CancelScope() as self._drain_scope:
                    try:
                        await _own(self.plugin.drain())
                    except Exception as error:  # noqa: BLE001 - the same failure as any other of the plugin's
                        self._drain_failure = error
                        self._work_scope.cancel()
                        await anyio.sleep_forever()  # until the instance is gone
                    else:
                        return

    async def close(self) -> None:
        """End its work and leave its lifespan; returns when that is done."""
        self._closing.set()
        self._work_scope.cancel()
        await self.ended.wait()

    async def _live_once(self) -> None:
        plugin = self.part.plugin(self.part.options, self._port)
        async with plugin.lifespan():
            await self._find_place(plugin)
            self.entered.set()
            try:
                with anyio.CancelScope() as self._work_scope:
                    if not self._closing.is_set():
                        await self._work(plugin)
            finally:
                self.plugin = None
                if not self._closing.is_set():
                    self._at_work = anyio.Event()
                self._drain_scope.cancel()
            failure, self._drain_failure = self._drain_failure, None
            if failure is not None:
                raise failure
        if not self._closing.is_set():
            raise RuntimeError("its lifespan kept back what was raised in it; let it through, to be restarted in order")

    async def _work(self, plugin: Plugin[Any]) -> None:
        await self.start_handlers.wait()
        async with anyio.create_task_group() as tasks:
            if self._delivery is not None:
                tasks.start_soon(self._delivery.serve, plugin, name=self.name)
            self.plugin = plugin
            self._at_work.set()
            await self.start_run.wait()
            if self._wants_space:
                tasks.start_soon(self._say_that_it_works)
            else:
                await self._publish(PluginState(plugin=self.name, state="started"))
            if not (plugin.source and self.returned.is_set()):  # a source's job is done once, whatever fails later
                await _own(plugin.run())
            self.returned.set()
            await self._closing.wait()
            tasks.cancel_scope.cancel()

    async def _find_place(self, plugin: Plugin[Any]) -> None:
        """Begin behind what the plugin's own store holds, where it keeps one; else go on where the last one was."""
        if self._subscription is None or self._delivery is None:
            return
        cursor = await plugin.cursor()
        if cursor is None:
            return
        last_seq = self._bus.log.last_seq
        if cursor > last_seq:
            raise Refused(
                f"has taken in events up to {cursor}, but the log of {self._port.home} ends at "
                f"{last_seq}: the log was replaced or cut. {plugin.rebuild}".rstrip()
            )
        self._delivery.forget_handled()
        self._subscription.start_behind(cursor)

    def _ends_before_it_began(self) -> bool:
        return self._closing.is_set() or (self._port.stopping.is_set() and not self.entered.is_set())

    async def _wait_for_space(self, error: Exception) -> None:
        """Say once that a full disk keeps it from working, and let it be tried again soon, as often as it takes."""
        if not self._wants_space:
            self._wants_space = True
            reason = f"{type(error).__name__}: {error}"
            self._say(f"[plugins.{self.name}] waits for space on the disk: {reason}")
            await self._publish(PluginState(plugin=self.name, state="waiting", reason=reason))
        with anyio.move_on_after(SPACE_SECONDS):
            await self._closing.wait()

    async def _say_that_it_works(self) -> None:
        """After a full disk, when it has been at work for a while."""
        await anyio.sleep(2 * SPACE_SECONDS)
        self._wants_space = False
        self._say(f"[plugins.{self.name}] goes on: there is space on the disk")
        await self._publish(PluginState(plugin=self.name, state="started"))

    async def _again(self, error: Exception, failures: deque[float]) -> bool:
        """Say what happened, and wait before the next try; False when there is none."""
        final = isinstance(error, Refused)  # what only a user can mend does not go away by itself
        reason = str(error) if final else f"{type(error).__name__}: {error}".removesuffix(": ")
        text = "".join(traceback.format_exception(error))
        recent = sum(at > time.monotonic() - WITHIN_SECONDS for at in failures)
        if self._ends_before_it_began():
            self.left_off = reason
            self._say(f"[plugins.{self.name}] failed while it was stopped: {reason}")
            await self._publish(PluginState(plugin=self.name, state="stopped", reason=reason, traceback=text))
            return False
        if final or recent > RESTARTS:
            self.left_off = reason
            often = "" if final else f"failed {recent} times and "
            self._say(f"[plugins.{self.name}] {often}is left off: {reason}")
            await self._publish(PluginState(plugin=self.name, state="left off", reason=reason, traceback=text))
            return False
        self._say(f"[plugins.{self.name}] failed and is restarted: {reason}")
        await self._publish(PluginState(plugin=self.name, state="restarting", reason=reason, traceback=text))
        with anyio.move_on_after(BACKOFF_SECONDS[recent - 1]):
            await self._closing.wait()
        return True

    async def _publish(self, event: Event) -> None:
        await self._bus.publish("kernel", [event])


async def _own(work: Awaitable[None]) -> None:
    """Await a plugin's own code, whose CancelledError is a failure like any other where nobody has cancelled it."""
    try:
        await work
    except asyncio.CancelledError as cancelled:
        failure = own_failure()
        if failure is None:
            raise
        raise failure from cancelled


def first_of(error: Exception) -> Exception:
    """The first plain exception in a group of them."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
