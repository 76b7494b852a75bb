"""Live: the latest picture of an environment, and where it stands, for whoever watches; nothing while nobody does.

    live-<worker>.frame   in the producer's folder: magic, u32le length, a msgpack `Moment`, and its picture's LZ4 block

The stepping thread puts a moment into a dict when one is due, and the writer thread makes it a file. A captured picture
was compressed for its recording anyway. One that is rendered for the watchers alone may take 5 % of the time.
"""

from __future__ import annotations

import math
import struct
import time
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from lz4.block import LZ4BlockError, decompress

from kernel.files import write_whole
from plugins.recorder.frames import ChunkHeader, FrameRefused, layout_of, pack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from plugins.recorder.spool import Outbox
    from plugins.recorder.tape import Tape

MOST_FPS = 10.0
RENDER_BUDGET = 0.05
"""The part of the time that rendering for those who watch may take."""
MAGIC = b"SRLIVE1\n"
LARGEST_PICTURE = 64 * 1024 * 1024
"""Bytes of a picture that a reader unpacks."""
LARGEST_FILE = LARGEST_PICTURE + 1024 * 1024


class Watching(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody watches a session, as `control.json` says it."""

    until: float
    """Unix time in seconds; whoever goes on watching says so before."""
    fps: float = MOST_FPS
    workers: list[int] = []
    """Empty: all."""


class Watched(msgspec.Struct, frozen=True):
    """What all who watch want together."""

    until: float
    fps: float
    workers: frozenset[int]
    """Empty: all."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Where an environment stands."""

    session: str
    worker: int
    episode: int
    step: int
    """The picture is the one after this step."""
    total_reward: float | None
    """So far; null where it is not finite."""
    time: float
    captured: bool
    """It is being recorded."""
    evaluation: bool = False
    picture: ChunkHeader | None = None
    """How the bytes behind it become a picture; null: there is none."""


def together(watching: Iterable[Watching], now: float) -> Watched | None:
    """What those want who still watch; None where nobody does."""
    still = [each for each in watching if each.until > now and each.fps > 0]
    if not still:
        return None
    everyone = any(not each.workers for each in still)
    return Watched(
        until=max(each.until for each in still),
        fps=min(MOST_FPS, max(each.fps for each in still)),
        workers=frozenset() if everyone else frozenset(worker for each in still for worker in each.workers),
    )


# The stepping side -------------------------------------------------------------------------------------------------


class Window:
    """Through which one environment is watched. The thread that steps it uses it, and waits for nobody."""

    __slots__ = ("_next", "_offered", "_tape")

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._next = 0.0
        self._offered: tuple[Any, float] | None = None

    def due(self, outbox: Outbox, worker: int) -> bool:
        """Whether somebody wants to see this worker now."""
        watched = outbox.watched
        if watched is None or perf_counter() < self._next:
            return False
        return not watched.workers or worker in watched.workers

    def offer(self, picture: Any, seconds: float) -> None:
        """A picture that was rendered for those who watch, and how long that took."""
        self._offered = picture, seconds

    def step(
        self,
        outbox: Outbox,
        worker: int,
        *,
        episode: int,
        step: int,
        total: float,
        captured: bool,
        evaluation: bool,
    ) -> None:
        """Behind a step, while somebody watches: show it, if it is time. `captured`: its picture was recorded."""
        watched = outbox.watched
        if watched is None or not self.due(outbox, worker):
            return
        began = perf_counter()
        header, payload, rendered = self._picture(captured)
        moment = Moment(
            session=outbox.session,
            worker=worker,
            episode=episode,
            step=step,
            total_reward=total if math.isfinite(total) else None,
            time=time.time(),
            captured=self._tape.open,
            evaluation=evaluation,
            picture=header,
        )
        outbox.moments[worker] = _encode(moment), payload  # the one before that nobody took is forgotten
        now = perf_counter()
        self._next = now + max(1.0 / watched.fps, (now - began + rendered) / RENDER_BUDGET)

    def _picture(self, captured: bool) -> tuple[ChunkHeader | None, bytes, float]:  # noqa: FBT001 - as step() got it
        offered, self._offered = self._offered, None
        take = self._tape.take
        if captured and take is not None and take.films and take.films[-1].last:
            return take.films[-1].header, take.films[-1].last, 0.0
        if offered is None:
            return None, b"", 0.0
        picture, seconds = offered
        try:
            header = layout_of(picture)
            return header, pack(picture, header), seconds
        except FrameRefused:
            return None, b"", seconds


# The writer thread -------------------------------------------------------------------------------------------------


def live_file(folder: Path, worker: int) -> Path:
    """Where a producer shows a worker."""
    return folder / f"live-{worker}.frame"


def write_moments(outbox: Outbox) -> None:
    """Make files of what is new. A disk that does not take them is nobody's trouble."""
    moments = outbox.moments
    for worker in list(moments):
        about, payload = moments.pop(worker)
        with suppress(OSError):
            content = b"".join((MAGIC, _LENGTH.pack(len(about)), about, payload))
            write_whole(live_file(outbox.folder, worker), content, lasting=False)


def clear_moments(outbox: Outbox) -> None:
    """Nobody watches any more."""
    outbox.moments.clear()
    with suppress(OSError):
        for file in outbox.folder.glob("live-*.frame"):
            file.unlink(missing_ok=True)


# Whoever watches ---------------------------------------------------------------------------------------------------


class NoMoment(ValueError):
    """A file that shows nothing."""


def read_moment(content: bytes) -> tuple[Moment, NDArray[np.uint8] | None]:
    """What such a file shows: the moment, and its picture of (height, width, channels). Raises `NoMoment`."""
    start = len(MAGIC) + _LENGTH.size
    if not content.startswith(MAGIC) or len(content) < start:
        raise NoMoment("it does not begin as one")
    end = start + _LENGTH.unpack_from(content, len(MAGIC))[0]
    try:
        moment = _decode(content[start:end])
    except msgspec.DecodeError as error:
        raise NoMoment(str(error)) from None
    header = moment.picture
    if header is None:
        return moment, None
    size = header.width * header.height * header.channels
    if min(header.width, header.height) < 1 or header.channels not in (1, 3, 4) or size > LARGEST_PICTURE:
        raise NoMoment("its picture has no size that could be shown")
    try:
        raw = decompress(content[end:], uncompressed_size=size)
    except LZ4BlockError as error:
        raise NoMoment(str(error)) from None
    if len(raw) != size:
        raise NoMoment("its picture is cut short")
    rows, columns = (header.width, header.height) if header.transposed else (header.height, header.width)
    picture = np.frombuffer(raw, np.uint8).reshape(rows, columns, header.channels)
    if header.transposed:
        picture = picture.swapaxes(0, 1)
    return moment, picture[:: -1 if header.flip_rows else 1, :: -1 if header.flip_columns else 1]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Moment).decode
_LENGTH = struct.Struct("<I")
