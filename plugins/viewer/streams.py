"""Streams: one WebSocket a page, with events that resume by seq and pictures of what the page shows just now.

Each page has its own sender, which takes what is latest when its page has taken what was before. So a page that stops
reading holds up nobody, and nothing is kept for it but a number.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from starlette.websockets import WebSocketDisconnect

from plugins.viewer.answers import Wrong
from plugins.viewer.following import POLL_SECONDS
from plugins.viewer.ids import WorkerId, worker_id
from plugins.viewer.pictures import LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.websockets import WebSocket

    from plugins.viewer.asking import Asking
    from plugins.viewer.following import Follower
    from plugins.viewer.pictures import Gallery
    from plugins.viewer.tables import Tables

MOST_TILES = 64
MOST_PAGES = 32
AT_ONCE = 500
"""Events in one message."""
STATE_SECONDS = 0.25
TABLES_SECONDS = 1.0
KERNEL_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
"""A page that has not acknowledged a picture for so long does not look any more."""


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    after: int | None = None


class Watch(msgspec.Struct, tag_field="type", tag="watch"):
    workers: list[str]
    fps: float = 10.0


class Ack(msgspec.Struct, tag_field="type", tag="ack"):
    picture: int


_decode = msgspec.json.Decoder(Subscribe | Watch | Ack).decode
_encode = msgspec.json.Encoder().encode


class Stream:
    """One page that is open."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.wanted: dict[WorkerId, float] = {}
        self.news = anyio.Event()
        self.seq: int | None = None
        """How far its events were sent; None before it subscribed."""
        self.state_sent = -1
        self.notices: dict[str, bytes] = {}
        """Of each kind, the last that is to be sent."""
        self._waiting: dict[WorkerId, _Waiting] = {}
        """The picture of each worker that the page has not acknowledged."""
        self._sent: dict[WorkerId, int] = {}

    def wake(self) -> None:
        """Let the sender look."""
        self.news.set()

    def hear(self, text: str, position: int) -> None:
        """Take a message of the page in. Raises `msgspec.DecodeError` for what is none."""
        match _decode(text):
            case Subscribe(after=after):
                self.seq = position if after is None else max(0, after)
            case Watch(workers=workers, fps=fps):
                found = [worker_id(each) for each in workers[:MOST_TILES]]
                self.wanted = {each: fps for each in found if each is not None}
                self._waiting = {key: each for key, each in self._waiting.items() if key in self.wanted}
            case Ack(picture=picture):
                self._waiting = {key: each for key, each in self._waiting.items() if each.picture > picture}

    def picture(self, gallery: Gallery) -> bytes | None:
        """The next picture to be sent: the latest of a worker whose last one was acknowledged."""
        for worker in self.wanted:
            if worker in self._waiting or worker not in gallery.latest:
                continue
            picture, message = gallery.latest[worker]
            if self._sent.get(worker, 0) < picture.number:
                self._sent[worker] = picture.number
                self._waiting[worker] = _Waiting(picture.number, time.monotonic())
                return message
        return None

    def wants(self, now: float) -> Iterator[tuple[WorkerId, float]]:
        """Which workers to show, and how fast. Who does not take what was sent costs the workers nothing more."""
        for worker, fps in self.wanted.items():
            waiting = self._waiting.get(worker)
            if waiting is None or now - waiting.since < PATIENCE_SECONDS:
                yield worker, fps


class _Waiting(NamedTuple):
    """A picture that was sent."""

    picture: int
    since: float
    """By the monotonic clock."""


class Streams:
    """All pages that are open, and the work that is done while there are any."""

    def __init__(self, home_id: str, follower: Follower, gallery: Gallery, tables: Tables, asking: Asking) -> None:
        self._home_id = home_id
        self._state = 0
        """Of the workers' state, what the pages were last told to look at."""
        self._follower = follower
        self._gallery = gallery
        self._tables = tables
        self._asking = asking
        self._open: set[Stream] = set()
        self._somebody = anyio.Event()
        self._kernel: Literal["running", "none"] = "none"
        self._tables_seq = -1

    # One page --------------------------------------------------------------------------------------------------------

    async def serve(self, socket: WebSocket) -> None:
        """Serve a page until it goes."""
        await socket.accept()
        if len(self._open) >= MOST_PAGES:
            await socket.close(1013, "too many pages are open")
            return
        stream = Stream(socket)
        self._open.add(stream)
        self._somebody.set()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, stream)
                await self._listen(stream)
                tasks.cancel_scope.cancel()
        finally:
            self._open.discard(stream)
            if not self._open:
                self._somebody = anyio.Event()

    async def _listen(self, stream: Stream) -> None:
        try:
            while True:
                stream.hear(await stream.socket.receive_text(), self._follower.position)
                stream.wake()
        except WebSocketDisconnect:
            return
        except (msgspec.DecodeError, KeyError):
            with suppress(RuntimeError):
                await stream.socket.close(1003, "this is no message of the page's")

    async def _send(self, stream: Stream) -> None:
        try:
            await self._follower.catch_up()
            self._kernel = "running" if self._asking.kernel_runs else "none"
            hello = {"type": "hello", "home": self._home_id, "seq": self._follower.position}
            await _say(stream, {**hello, "kernel": self._kernel})
            while True:
                stream.news = anyio.Event()
                await self._send_news(stream)
                await stream.news.wait()
        except (WebSocketDisconnect, RuntimeError):  # it went while something was being sent
            return

    async def _send_news(self, stream: Stream) -> None:
        follower = self._follower
        if stream.seq is not None:
            await self._send_events(stream)
        while stream.notices:
            await stream.socket.send_text(stream.notices.pop(next(iter(stream.notices))).decode())
        if stream.seq is not None and stream.state_sent != self._state:
            stream.state_sent = self._state
            await _say(stream, {"type": "workers", "workers": list(follower.state.workers.values())})
        while (message := stream.picture(self._gallery)) is not None:
            await stream.socket.send_bytes(message)

    async def _send_events(self, stream: Stream) -> None:
        follower = self._follower
        assert stream.seq is not None
        if stream.seq < follower.dropped_up_to:
            await _say(stream, {"type": "gap", "after": follower.dropped_up_to})
            stream.seq = follower.dropped_up_to
        while stream.seq < follower.position:
            lines = []
            last = follower.position
            for seq, line in reversed(follower.recent):
                if seq <= stream.seq:
                    break
                lines.append((seq, line))
            lines.reverse()
            if len(lines) > AT_ONCE:
                lines = lines[:AT_ONCE]
                last = lines[-1][0]
            stream.seq = last
            if lines:
                records = b",".join(line for _, line in lines)
                await stream.socket.send_text(
                    (b'{"type":"events","seq":%d,"records":[' % last + records + b"]}").decode()
                )

    # While there are any ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the log and what the producers show, while a page is open."""
        async with anyio.create_task_group() as tasks:
            for work in (self._follow, self._show, self._look_at_tables, self._rest):
                tasks.start_soon(work)

    async def _anybody(self) -> None:
        await self._somebody.wait()

    async def _follow(self) -> None:
        told_at = 0.0
        while True:
            await self._anybody()
            came = await self._follower.read_on()
            now = time.monotonic()
            if self._follower.changed != self._state and now - told_at > STATE_SECONDS:
                self._state, told_at, came = self._follower.changed, now, True
            if came:
                self._wake(lambda stream: stream.seq is not None)
            await anyio.sleep(POLL_SECONDS)

    async def _show(self) -> None:
        while True:
            await self._anybody()
            wanted = self._wanted()
            await self._gallery.ask(wanted)
            fresh = set(await self._gallery.look(wanted))
            if fresh:
                self._wake(lambda stream, fresh=fresh: not fresh.isdisjoint(stream.wanted))  # type: ignore[misc] # mypy knows no defaults of lambdas
            await anyio.sleep(min([POLL_SECONDS, *(1 / fps / LOOKS for fps in wanted.values())]))

    async def _look_at_tables(self) -> None:
        stamp, kernel_at = (0, 0), 0.0
        while True:
            await self._anybody()
            if time.monotonic() - kernel_at > KERNEL_SECONDS:
                kernel_at = time.monotonic()
                kernel: Literal["running", "none"] = "running" if self._asking.kernel_runs else "none"
                if kernel != self._kernel:
                    self._kernel = kernel
                    self.notify("kernel", {"type": "kernel", "kernel": kernel})
            now = await anyio.to_thread.run_sync(self._tables.stamp)
            if now != stamp:
                stamp = now
                with suppress(Wrong):
                    seq = await self._tables.ask(_cursor)
                    if seq != self._tables_seq:
                        self._tables_seq = seq
                        self.notify("tables", {"type": "tables", "seq": seq})
            await anyio.sleep(TABLES_SECONDS)

    async def _rest(self) -> None:
        while True:
            await anyio.sleep(5.0)
            await self._asking.rest()
            if not self._open:
                await self._gallery.ask({})

    def notify(self, kind: str, message: dict[str, Any]) -> None:
        """Send every page a message; of each kind the last one counts."""
        encoded = _encode(message)
        for stream in self._open:
            stream.notices[kind] = encoded
            stream.wake()

    def _wanted(self) -> dict[WorkerId, float]:
        wanted: dict[WorkerId, float] = {}
        now = time.monotonic()
        for stream in self._open:
            for worker, fps in stream.wants(now):
                wanted[worker] = max(self._gallery.rate(fps), wanted.get(worker, 0.0))
        return wanted

    def _wake(self, whom: Callable[[Stream], bool]) -> None:
        for stream in self._open:
            if whom(stream):
                stream.wake()


def _cursor(connection: Any) -> int:
    (seq,) = connection.execute("SELECT max(seq) FROM cursor").fetchone()
    return int(seq or 0)


async def _say(stream: Stream, message: dict[str, Any]) -> None:
    await stream.socket.send_text(_encode(message).decode())
