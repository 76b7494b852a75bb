"""Pictures: what producers show live, made into JPEGs once for all pages, and the last few of each worker."""

from __future__ import annotations

import math
import os
import secrets
import stat
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread
import msgspec
import numpy as np
import simplejpeg

from plugins.events import SessionAsked, VideoAvailable
from plugins.recorder.live import LARGEST_FILE, MOST_FPS, NoMoment, live_file, read_moment
from plugins.video.cores import spare_cores
from plugins.viewer.answers import Wrong
from plugins.viewer.asking import BY
from plugins.viewer.ids import WorkerId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from kernel.event import Event, Record
    from plugins.recorder.live import Moment
    from plugins.viewer.asking import Asking
    from plugins.viewer.following import Follower

LEASE_SECONDS = 20.0
RENEW_SECONDS = 8.0
SETTLE_SECONDS = 0.3
"""What pages watch may change so fast that asking at each change would flood the log."""
CROWDED_FPS = 5.0
"""At most so many a second of each worker where more wants to run than there are cores: it is the steps that count."""
LOOKS = 2
"""In the time of a picture."""
FIND_SECONDS = 0.5
"""Between two looks for the file of a worker that has none."""
KEPT_BYTES = 32 * 1024 * 1024
"""Of all pictures that can be looked at again."""
QUALITY = 85
WIDEST = 1280
"""A wider picture is sent at half, a third, … of its size."""


class Picture(NamedTuple):
    """A picture as the pages get it."""

    number: int
    worker: WorkerId
    moment: Moment
    jpeg: bytes
    width: int
    height: int

    @property
    def message(self) -> bytes:
        """The binary message of the WebSocket."""
        moment = self.moment
        header = msgspec.json.encode(
            {
                "worker": str(self.worker),
                "picture": self.number,
                "episode": moment.episode,
                "step": moment.step,
                "return": moment.total_reward,
                "time": moment.time,
                "width": self.width,
                "height": self.height,
            }
        )
        return b"".join((len(header).to_bytes(4, "little"), header, self.jpeg))


class Gallery:
    """The latest pictures of the workers that somebody watches."""

    def __init__(self, home: Path, follower: Follower, asking: Asking, kept: int) -> None:
        self.latest: dict[WorkerId, tuple[Picture, bytes]] = {}
        """With its message."""
        self._home = home
        self._follower = follower
        self._asking = asking
        self._kept = kept
        self._by = f"{BY} {secrets.token_hex(2)}"  # each viewer watches for itself
        self._cache: dict[WorkerId, deque[Picture]] = {}
        self._by_number: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0
        self._number = 0
        self._files: dict[WorkerId, Path] = {}
        self._stamps: dict[WorkerId, tuple[int, int]] = {}
        self._look_again: dict[WorkerId, float] = {}
        self._most_fps = MOST_FPS
        """By how crowded the machine was when that was looked at last."""
        self._most_fps_at = -math.inf
        self._asked: dict[str, tuple[list[int], float, float]] = {}
        """Of each session: the workers and the rate that were asked for, and when."""
        follower.listeners.add(self._hear)

    # What pages ask for ----------------------------------------------------------------------------------------------

    def frames(self, worker: WorkerId) -> list[Picture]:
        """The last pictures of a worker, oldest first."""
        return list(self._cache.get(worker, ()))

    def frame(self, worker: WorkerId, number: int) -> Picture | None:
        """A picture that is still there."""
        picture = self._by_number.get(number)
        return picture if picture is not None and picture.worker == worker else None

    def rate(self, fps: float) -> float:
        """How fast a worker is shown that is to be shown so fast; the same for some seconds."""
        now = time.monotonic()
        if now - self._most_fps_at > RENEW_SECONDS:
            self._most_fps, self._most_fps_at = CROWDED_FPS if _crowded() else MOST_FPS, now
        return min(self._most_fps, max(0.5, fps))

    # While somebody watches ------------------------------------------------------------------------------------------

    async def ask(self, wanted: Mapping[WorkerId, float]) -> None:
        """Ask the producers for these workers at these rates, again before the last time is over; for no others."""
        now = time.monotonic()
        sessions: dict[str, tuple[list[int], float]] = {}
        for worker, fps in sorted(wanted.items()):
            indices, most = sessions.get(worker.session, ([], 0.0))
            sessions[worker.session] = [*indices, worker.worker], max(most, fps)
        events: list[Event] = []
        for session, (indices, fps) in sessions.items():
            before, rate, at = self._asked.get(session, ([], 0.0, -RENEW_SECONDS))
            changed = (before, rate) != (indices, fps) and now - at > SETTLE_SECONDS
            if changed or now - at > RENEW_SECONDS:
                self._asked[session] = indices, fps, now
                events.append(
                    SessionAsked(
                        session=session, action="watch", by=self._by, workers=indices, fps=fps, seconds=LEASE_SECONDS
                    )
                )
        for session in self._asked.keys() - sessions.keys():
            del self._asked[session]
            events.append(SessionAsked(session=session, action="unwatch", by=self._by))
        if events and self._asking.writable and self._asking.kernel_runs:
            try:
                await self._asking.say(*events)
            except Wrong:
                self._asked.clear()  # the disk is full: again at the next look

    async def look(self, wanted: Mapping[WorkerId, float]) -> list[WorkerId]:
        """Take in what is new of these workers; which have a new picture."""
        for worker in self.latest.keys() - wanted.keys():
            del self.latest[worker]  # who watches again should not see an old one first
        found = await anyio.to_thread.run_sync(self._read, list(wanted)) if wanted else []
        fresh = []
        for worker, moment, drawn in found:
            self._follower.changed += self._follower.state.show(moment)
            if drawn is not None:
                self._number += 1
                picture = Picture(self._number, worker, moment, *drawn)
                self.latest[worker] = picture, picture.message
                self._keep(picture)
                fresh.append(worker)
        return fresh

    def _read(self, workers: list[WorkerId]) -> list[tuple[WorkerId, Moment, tuple[bytes, int, int] | None]]:
        """In a thread: read and compress what has changed."""
        found = []
        for worker in workers:
            file = self._file(worker)
            if file is None:
                continue
            try:
                status = file.stat(follow_symlinks=False)
                stamp = status.st_mtime_ns, status.st_ino
                odd = not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE
                if odd or self._stamps.get(worker) == stamp:
                    continue
                moment, picture = read_moment(file.read_bytes())
            except FileNotFoundError:
                self._files.pop(worker, None)
                continue
            except (OSError, NoMoment):
                continue
            self._stamps[worker] = stamp
            if (moment.session, moment.worker) == worker:
                found.append((worker, moment, None if picture is None else jpeg_of(picture)))
        return found

    def _file(self, worker: WorkerId) -> Path | None:
        file = self._files.get(worker)
        if file is None and time.monotonic() > self._look_again.get(worker, 0.0):
            self._look_again[worker] = time.monotonic() + FIND_SECONDS
            prefix = f"{worker.session}-"
            try:
                folders = [folder for folder in (self._home / "spool").iterdir() if folder.name.startswith(prefix)]
            except OSError:
                return None
            for folder in folders:
                if folder.name.rpartition("-")[0] == worker.session and live_file(folder, worker.worker).is_file():
                    file = self._files[worker] = live_file(folder, worker.worker)
        return file

    # What can be looked at again -------------------------------------------------------------------------------------

    def _keep(self, picture: Picture) -> None:
        if not self._kept:
            return
        cache = self._cache.setdefault(picture.worker, deque())
        cache.append(picture)
        self._by_number[picture.number] = picture
        self._bytes += len(picture.jpeg)
        while len(cache) > self._kept:
            self._drop(cache[0])
        while self._bytes > KEPT_BYTES and len(self._by_number) > 1:
            self._drop(next(iter(self._by_number.values())))

    def _drop(self, picture: Picture) -> None:
        self._bytes -= len(self._by_number.pop(picture.number).jpeg)
        self._cache[picture.worker].remove(picture)
        if not self._cache[picture.worker]:
            del self._cache[picture.worker]

    def _hear(self, record: Record[Event]) -> None:
        """A video stands: its thumbnail takes the place of its episodes' last pictures."""
        video = record.event
        if isinstance(video, VideoAvailable):
            for picture in self.frames(WorkerId(video.session, video.worker)):
                if video.first_episode <= picture.moment.episode <= video.last_episode:
                    self._drop(picture)


def jpeg_of(picture: NDArray[np.uint8]) -> tuple[bytes, int, int]:
    """A picture as a JPEG, with its width and height."""
    stride = -(-picture.shape[1] // WIDEST)
    picture = picture[::stride, ::stride, :3] if stride > 1 else picture[:, :, :3]
    grey = picture.shape[2] == 1
    content: Any = simplejpeg.encode_jpeg(
        np.ascontiguousarray(picture),
        quality=QUALITY,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "420",  # as in the videos; half the time of 4:4:4
        fastdct=True,
    )
    return content, picture.shape[1], picture.shape[0]


def _crowded() -> bool:
    """Whether more wanted to run than there are cores, in the last minute."""
    return os.getloadavg()[0] > spare_cores()
