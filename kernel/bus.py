"""The bus: publish is append to the log, then route; a subscription is one plugin's place in the log.

`publish` waits for no subscriber. Between append and route there is no `await`, so what is routed is what the log
says, in its order. A mailbox that overflows empties itself and reads on from the log, and goes live again when its
position is the log's last seq, with no `await` between the look and the change: no gap, no repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from kernel.event import DiskFull, DiskHasRoom, Event, EventLeftOut, EventsUnknown, Record, UnknownEvent
from kernel.log import EventTooLarge, Log, LogReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

E = TypeVar("E", bound=Event)

MAILBOX_RECORDS = 8192
MAILBOX_BYTES = 64 * 2**20
_HEAVY_BYTES = MAILBOX_BYTES // MAILBOX_RECORDS
"""Of events that are larger on average, a mailbox counts the bytes, too."""
_INLINE_RECORDS = 1000
_FULL_SECONDS = 0.5
"""Between two looks whether a full disk has room again."""


class Bus:
    """Publishes to one log and routes to the subscriptions."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.synced_seq = 0
        self._subscriptions: list[Subscription] = []
        self._unknown = _Unknown()
        self._routes: dict[type[Event], list[Subscription | _Unknown]] = {}
        self._sync_lock = anyio.Lock()
        self._full_since: float | None = None
        """When the log's disk was full first; None while it takes events."""

    def subscribe(self, types: Sequence[type[Event]], capacity: int = MAILBOX_RECORDS) -> Subscription:
        """A subscription at the log's end. A base class stands for its subclasses, `Event` for everything."""
        subscription = Subscription(self, tuple(types), capacity)
        self._subscriptions.append(subscription)
        self._routes.clear()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Route nothing to it any more, and release its hold on the log."""
        self._subscriptions.remove(subscription)
        self._routes.clear()

    async def publish(self, source: str, events: Sequence[Event]) -> None:
        """Log and route. Waits for disk space, and for nothing else."""
        durable = [event for event in events if event.durable]
        if len(durable) == len(events):
            await self._say(source, None, durable)
        else:
            for event in events:  # one at a time, as some have no place in the log
                if event.durable:
                    await self._say(source, None, [event])
                else:
                    self._route([Record(0, datetime.now(UTC), source, 0, event)])
        await asyncio.sleep(0)  # once, so that a publisher in a loop does not starve the others

    async def relay(self, source: str, first_nth: int, events: Sequence[Event]) -> None:
        """Publish on a producer's behalf; what the log has already is left out.

        An event that is larger than any may be is replaced by an `EventLeftOut`, so that the producer's count goes on.
        """
        while self.log.overfull:  # noqa: ASYNC110 - a file size has no event to wait for
            await anyio.sleep(0.25)
        known = self.log.last_nth(source)
        if first_nth > known + 1:
            message = f"{source}: event {first_nth} came after event {known}; those between are missing"
            raise ValueError(message)
        new = events[known + 1 - first_nth :]
        while new:
            try:
                await self._say(source, known + 1, new)
            except EventTooLarge as error:
                left_out = EventLeftOut(event_type=error.event_type, size_bytes=error.size_bytes)
                new = [*new[: error.place], left_out, *new[error.place + 1 :]]
            else:
                break
        await asyncio.sleep(0)

    async def sync(self) -> None:
        """Return when what was logged so far is on disk. Those who wait together share one fsync."""
        wanted = self.log.last_seq
        async with self._sync_lock:
            if self.synced_seq < wanted or self.log.broken is not None:
                self.synced_seq = await anyio.to_thread.run_sync(self.log.sync)

    async def trim(self) -> None:
        """Keep the log within its bound, as far as the subscriptions' positions allow, and say what was removed."""
        if self.log.size_bytes <= self.log.keep_bytes:
            return
        hold = min((subscription.position for subscription in self._subscriptions), default=self.log.last_seq)
        async with self._sync_lock:
            trimmed = await anyio.to_thread.run_sync(self.log.trim, hold)
        if trimmed is not None:
            await self.publish("kernel", [trimmed])

    async def read(self, types: tuple[type[E], ...], after: int) -> AsyncIterator[Record[E]]:
        """The records of these types that are in the log now."""
        reader, last_seq = LogReader(self.log.folder, after, types), self.log.last_seq
        try:
            while reader.position < last_seq:
                for record in await anyio.to_thread.run_sync(reader.read):
                    if record.seq <= last_seq:
                        yield record  # type: ignore[misc]  # the reader gives these types only
        finally:
            reader.close()

    async def last_words(self, source: str, event: Event) -> None:
        """Publish, or, where the disk is full, say it with what is held back for that; waits for nothing."""
        try:
            records = self.log.append(source, self.log.last_nth(source) + 1, [event])
        except OSError:
            if self.log.broken is not None:
                raise
            self._say_from_reserve(source, event)
        else:
            self._route(records)

    def take_unknown(self) -> list[EventsUnknown]:
        """What is to be said of events whose type nobody has declared: at the first, and at twice as many."""
        return self._unknown.take(2.0)

    def take_last_unknown(self) -> list[EventsUnknown]:
        """What has not been said of them yet."""
        return self._unknown.take(1.0)

    async def _say(self, source: str, first_nth: int | None, events: Sequence[Event]) -> None:
        while True:
            # While the disk is full, what was held back comes first: else it would be used up by whatever waits.
            if self._full_since is None or self.log.refill_reserve():
                try:
                    nth = self.log.last_nth(source) + 1 if first_nth is None else first_nth
                    records = self.log.append(source, nth, events)
                except OSError as error:
                    if self.log.broken is not None:
                        raise
                    self._note_full(error)
                else:
                    break
            await anyio.sleep(_FULL_SECONDS)
        self._route(records, self.log.appended_bytes)
        if self._full_since is not None:
            self._note_room()

    def _note_full(self, error: OSError) -> None:
        """Say once that the disk is full: on the terminal, and in the log with what is held back for that."""
        if self._full_since is None:
            self._full_since = time.monotonic()
            _tell(f"{self.log.folder}: {error.strerror}; events wait for space, and nothing of them is lost")
            self._say_from_reserve("kernel", DiskFull(reason=error.strerror or str(error)))

    def _note_room(self) -> None:
        assert self._full_since is not None
        seconds, self._full_since = time.monotonic() - self._full_since, None
        _tell(f"{self.log.folder}: there is space again, after {seconds:.1f} s")
        try:
            records = self.log.append("kernel", self.log.last_nth("kernel") + 1, [DiskHasRoom(seconds=seconds)])
        except OSError:
            if self.log.broken is not None:
                raise
        else:
            self._route(records)

    def _say_from_reserve(self, source: str, event: Event) -> None:
        if not self.log.has_reserve:
            return
        self.log.release_reserve()
        try:
            records = self.log.append(source, self.log.last_nth(source) + 1, [event])
        except OSError:
            if self.log.broken is not None:
                raise
        else:
            self._route(records)

    def _route(self, records: list[Record[Event]], size_bytes: int = 0) -> None:
        routes = self._routes
        for record in records:
            kind = type(record.event)
            route = routes.get(kind)
            if route is None:
                found = [each for each in self._subscriptions if issubclass(kind, each.types)]
                route = routes[kind] = [self._unknown, *found] if kind is UnknownEvent else [*found]
            for subscription in route:
                subscription.put(record)
        if size_bytes > _HEAVY_BYTES * len(records):
            for subscription in self._subscriptions:
                subscription.weigh(size_bytes)


class _Unknown:
    """Counts events whose type nobody has declared, as a subscription would get them."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._said: dict[str, int] = {}

    def put(self, record: Record[Any]) -> None:
        tag = record.event.tag[:_TAG_CHARACTERS]
        if tag not in self._totals and len(self._totals) >= _MOST_TAGS:
            tag = "…"
        self._totals[tag] = self._totals.get(tag, 0) + 1

    def take(self, factor: float) -> list[EventsUnknown]:
        """What is to be said of those that have grown by this factor since it was last said of them."""
        news = [
            EventsUnknown(tag=tag, total=total)
            for tag, total in self._totals.items()
            if total > (said := self._said.get(tag, 0)) and total >= factor * said
        ]
        self._said.update({event.tag: event.total for event in news})
        return news


_MOST_TAGS = 1000
_TAG_CHARACTERS = 200


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr)  # noqa: T201 - the disk is full: where else


class Subscription:
    """One plugin's place in the log, and its mailbox: a bounded deque with one waiter.

    It outlives the plugin's restarts. Its memory is bounded by the mailbox's capacity, in records and in bytes, and
    one block of log.
    """

    def __init__(self, bus: Bus, types: tuple[type[Event], ...], capacity: int) -> None:
        self.types = types
        self.dropped = 0
        """Events that are not durable, dropped since this was last set to 0."""
        self._bus = bus
        self._capacity = capacity
        self._heavy_bytes = 0
        """Of large events that came since the mailbox was emptied, its own and those of others."""
        self._waiting: deque[Record[Event]] = deque()
        self._arrived = asyncio.Event()
        self._reader: LogReader | None = None
        self._taken = self._done = bus.log.last_seq

    @property
    def position(self) -> int:
        """The seq up to which everything was scanned and handled."""
        if self._live and not self._waiting and self._done == self._taken:
            return self._bus.log.last_seq
        return self._done

    @property
    def taken(self) -> int:
        """The seq up to which `take` has handed everything out."""
        return self._taken

    def put(self, record: Record[Event]) -> None:
        """Leave a record in the mailbox. Never waits."""
        waiting = self._waiting
        if self._reader is not None:
            self.dropped += record.seq == 0  # the others are read from the log
        elif len(waiting) < self._capacity:
            if not waiting and self._done == self._taken:
                self._done = self._taken = (record.seq or self._bus.log.last_seq + 1) - 1
            waiting.append(record)
            self._arrived.set()
        elif record.seq == 0:
            self._drop_oldest_for(record)
        else:
            self.dropped += sum(each.seq == 0 for each in waiting)
            self._read_from(self._taken)

    def weigh(self, size_bytes: int) -> None:
        """Count large events that were routed, whoever got them; past the bound, the log keeps them for this one."""
        if self._reader is None and self._waiting:
            self._heavy_bytes += size_bytes
            if self._heavy_bytes > MAILBOX_BYTES:
                self.dropped += sum(each.seq == 0 for each in self._waiting)
                self._read_from(self._taken)

    async def take(self, within_seconds: float | None) -> list[Record[Event]]:
        """Everything that waits, in the log's order; empty where nothing came in time.

        While it catches up it may come back empty, too, having scanned a stretch of log without a wanted record.
        """
        if self._reader is not None:
            return await self._read_on(self._reader)
        if not self._waiting:
            self._arrived.clear()
            await self._something_or(within_seconds)
            if not self._live:
                return []
        records = list(self._waiting)
        self._waiting.clear()
        self._heavy_bytes = 0
        if records:
            self._taken = self._bus.log.last_seq
        return records

    async def _something_or(self, within_seconds: float | None) -> None:
        """Wait until something has arrived, or the time is over."""
        if within_seconds is None:
            await self._arrived.wait()
            return
        # A cancel scope costs 3 µs more, and where events come singly there is a wait for each (benchmark "bus").
        alarm = asyncio.get_running_loop().call_later(within_seconds, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            alarm.cancel()

    def done(self, seq: int) -> None:
        """Say that everything up to this seq was handled."""
        self._done = max(self._done, seq)

    def start_behind(self, seq: int) -> None:
        """Go on behind this seq, back or forth; what waits in the mailbox is read again from the log."""
        self.dropped += sum(each.seq == 0 for each in self._waiting)
        self._done = seq
        self._read_from(seq)

    @property
    def _live(self) -> bool:
        return self._reader is None

    def _read_from(self, seq: int) -> None:
        if self._reader is not None:
            self._reader.close()
        self._waiting.clear()
        self._heavy_bytes = 0
        self._taken = seq
        self._reader = LogReader(self._bus.log.folder, seq, self.types)
        self._arrived.set()

    async def _read_on(self, reader: LogReader) -> list[Record[Event]]:
        log, before = self._bus.log, reader.position
        if before == log.last_seq:
            records = []
        elif log.last_seq - before > _INLINE_RECORDS or not reader.opened:
            records = await anyio.to_thread.run_sync(reader.read)
        else:
            records = reader.read()
        if reader is not self._reader:
            return []
        if reader.position > log.last_seq:  # it saw lines of a write that came back short, and were cut off again
            self._read_from(before)
            return []
        self._taken = reader.position
        if reader.position == log.last_seq:
            reader.close()
            self._reader = None
        elif reader.position == before:
            await anyio.sleep(0.05)
        return records

    def _drop_oldest_for(self, record: Record[Event]) -> None:
        """Make room for an event that is not durable, at the cost of the oldest such event, or of itself."""
        self.dropped += 1
        for place, each in enumerate(self._waiting):
            if each.seq == 0:
                del self._waiting[place]
                self._waiting.append(record)
                return
