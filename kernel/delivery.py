"""Delivery: from a plugin's mailbox to its handlers, in the log's order, in batches where they want them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from kernel.event import DeliveryFailed, Event, Record
from kernel.files import wants_space

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kernel.bus import Subscription
    from kernel.plugin import Handler, Plugin


class Delivery:
    """Serves one instance of a plugin after the other, and knows over a restart what each handler has had.

    What was in hand when a handler failed comes again, to the handlers that have not had it; the records that the
    failed call held come one by one. One that then fails alone is set aside, with a `DeliveryFailed`, and does not
    come a third time. A full disk is no event's fault: what it refused comes again until there is room.
    """

    def __init__(
        self,
        name: str,
        handlers: tuple[Handler, ...],
        subscription: Subscription,
        publish: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._name = name
        self._handlers = handlers
        self._subscription = subscription
        self._publish = publish
        self._by_type: dict[type[Event], list[Handler]] = {}
        self._batches: dict[Handler, list[Record[Event]]] = {}
        self._due: float | None = None
        """When the waiting batches are handed over at the latest, by the monotonic clock."""
        self._through = 0
        """Everything up to here was handled by every handler."""
        self._handled: dict[Handler, int] = {}
        self._again_through = 0
        """Up to here records had been taken when an instance ended, and may come again."""
        self._failed: set[int] = set()
        self._set_aside: set[int] = set()

    def forget_handled(self) -> None:
        """The plugin's own store says what it has had: deliver anew whatever is behind its cursor."""
        self._handled.clear()

    async def serve(self, plugin: Plugin[Any]) -> None:
        """Hand over what comes, for ever. Raises what a handler raised; call it again for the next instance."""
        subscription = self._subscription
        self._batches, self._due, self._through = {}, None, subscription.position
        try:
            while True:
                records = await subscription.take(self._seconds_left())
                if records:
                    await self._hand_over(plugin, records)
                if self._seconds_left() == 0.0:
                    await self._flush(plugin)
                if not self._batches:
                    self._through = subscription.taken
                subscription.done(self._through)
                if self._failed and self._through >= self._again_through:
                    self._failed.clear()
        finally:
            # What is in hand comes again to the next instance, also where another part of the plugin failed.
            self._again_through = max(self._again_through, subscription.taken)
            subscription.start_behind(max(self._through, subscription.position))

    def _seconds_left(self) -> float | None:
        """Until the waiting batches are due; None where none waits."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    async def _hand_over(self, plugin: Plugin[Any], records: list[Record[Event]]) -> None:
        # With batches alone 0.15 µs a record (benchmark "bus"): no call and no await but for a full batch.
        by_type, batches = self._by_type, self._batches
        for record in records:
            kind, seq = type(record.event), record.seq
            handlers = by_type.get(kind)
            if handlers is None:
                handlers = by_type[kind] = [each for each in self._handlers if issubclass(kind, each.types)]
            again = 0 < seq <= self._again_through
            alone = again and seq in self._failed
            for handler in handlers:
                if again and (seq <= self._handled.get(handler, 0) or seq in self._set_aside):
                    continue
                if batches and (alone or not handler.batched):
                    await self._flush(plugin)
                if not handler.batched:
                    await self._call(plugin, handler, [record])
                    continue
                batch = batches.get(handler)
                if batch is None:
                    batch = batches[handler] = []
                    if self._due is None:
                        self._due = time.monotonic() + handler.within_seconds
                batch.append(record)
                if alone or len(batch) >= handler.size:
                    await self._flush(plugin)
            if seq and not batches:
                self._through = seq

    async def _flush(self, plugin: Plugin[Any]) -> None:
        """Hand over every waiting batch."""
        waiting = list(self._batches.items())
        self._batches.clear()
        self._due = None
        for handler, records in waiting:
            await self._call(plugin, handler, records)

    async def _call(self, plugin: Plugin[Any], handler: Handler, records: list[Record[Event]]) -> None:
        try:
            await getattr(plugin, handler.method)(records if handler.batched else records[0].event)
        except asyncio.CancelledError as cancelled:
            failure = own_failure()
            if failure is None:
                raise
            await self._remember_failure(failure, records)
            raise failure from cancelled
        except Exception as error:
            if not wants_space(error):
                await self._remember_failure(error, records)
            raise
        self._handled[handler] = records[-1].seq or self._handled.get(handler, 0)

    async def _remember_failure(self, error: Exception, records: list[Record[Event]]) -> None:
        only = records[0]
        if len(records) == 1 and only.seq in self._failed:
            self._set_aside.add(only.seq)
            reason = f"{type(error).__name__}: {error}"
            event_type = type(only.event).__name__
            await self._publish(DeliveryFailed(plugin=self._name, seq=only.seq, event_type=event_type, reason=reason))
        self._failed.update(record.seq for record in records if record.seq)


def own_failure() -> RuntimeError | None:
    """In an `except CancelledError`: the failure that it is, where nobody has cancelled this task; else None.

    It comes of waiting for a task that was cancelled, say, and would end a plugin's work without a word.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return None
    return RuntimeError("it raised CancelledError, though nobody had cancelled it")
