"""The workshop: what ffmpeg makes for a page, one thing at a time and out of the way: strips, and videos side by side.

Each is made in a folder of its own, from copies: so ffmpeg sees plain names, and nothing of a stranger's but bytes.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio
import anyio.to_thread
import msgspec

from kernel.plugin import Refused
from plugins.video import ffmpeg
from plugins.video.feed import Child, Failed, run
from plugins.viewer.answers import Wrong
from plugins.viewer.videos import TILES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STALL_SECONDS = 60.0
STRIPS_BYTES = 32 * 1024 * 1024
"""Of strips that are kept."""
MOST_BYTES = 2 * 1024**3
"""A larger video gets no strip, and is put beside no other."""
KEPT_COMPARISONS = 4
LONGEST_SECONDS = 1800.0
COPY_BYTES = 1024 * 1024


class Source(NamedTuple):
    """A video to make something of."""

    open: Callable[[], int]
    """Opens its file: a descriptor, for the caller to close. Raises `Wrong`."""
    frames: int
    fps: float


class Comparison(msgspec.Struct):
    """Videos side by side, in the making or made."""

    id: str
    state: Literal["running", "ready", "failed"] = "running"
    error: str = ""
    descriptor: int = -1
    """Of the finished file, which has no name any more: it goes with this process, however that ends."""


class Workshop:
    """Makes strips and comparisons. Closing it kills what is being made."""

    def __init__(self) -> None:
        self.comparisons: OrderedDict[str, Comparison] = OrderedDict()
        self._strips: OrderedDict[str, bytes] = OrderedDict()
        self._turn = anyio.CapacityLimiter(1)
        self._children: set[Child] = set()
        self._closing = threading.Event()

    async def strip(self, name: str, source: Source) -> bytes:
        """The strip of a video; made when it is first asked for. Raises `Wrong` where there can be none."""
        strip = self._strips.get(name)
        if strip is None:
            strip = await anyio.to_thread.run_sync(self._strip, name, source, limiter=self._turn)
            self._strips[name] = strip
            while sum(map(len, self._strips.values())) > STRIPS_BYTES:
                self._strips.popitem(last=False)
        self._strips.move_to_end(name)
        return strip

    def begin(self) -> Comparison:
        """Note a comparison; `compare` makes it."""
        comparison = Comparison(id=secrets.token_hex(8))
        self.comparisons[comparison.id] = comparison
        while len(self.comparisons) > KEPT_COMPARISONS:
            oldest = next((each for each in self.comparisons.values() if each.state != "running"), None)
            if oldest is None:
                break
            del self.comparisons[oldest.id]
            _close(oldest)
        return comparison

    async def compare(self, comparison: Comparison, sources: Sequence[Source], align: str) -> None:
        """Make the comparison. It says itself how that ended."""
        try:
            comparison.descriptor = await anyio.to_thread.run_sync(self._compare, sources, align, limiter=self._turn)
            comparison.state = "ready"
        except Wrong as wrong:
            comparison.state, comparison.error = "failed", wrong.sentence

    def close(self) -> None:
        """Kill what is being made."""
        self._closing.set()
        for child in list(self._children):
            child.kill()

    # In a thread -----------------------------------------------------------------------------------------------------

    def _strip(self, name: str, source: Source) -> bytes:
        known = self._strips.get(name)  # whoever waited for the same strip finds it here
        if known is not None:
            return known
        with tempfile.TemporaryDirectory(prefix="stepreel-strip-") as temporary:
            folder = Path(temporary)
            self._copy(source, folder / "video.mp4")
            arguments = ffmpeg.strip_of(
                _executable(), "video.mp4", "strip.jpg", frames=source.frames, fps=source.fps, tiles=TILES
            )
            self._run(arguments, folder)
            return (folder / "strip.jpg").read_bytes()

    def _compare(self, sources: Sequence[Source], align: str) -> int:
        fps = max(source.fps for source in sources)
        rates = [fps if align == "step" else source.fps for source in sources]
        lengths = [source.frames / rate for source, rate in zip(sources, rates, strict=True)]
        seconds = max(lengths)
        if seconds > LONGEST_SECONDS:
            raise Wrong(413, f"videos of up to {LONGEST_SECONDS / 60:.0f} minutes are put side by side")
        with tempfile.TemporaryDirectory(prefix="stepreel-sides-") as temporary:
            folder = Path(temporary)
            sides = []
            for place, (source, rate, length) in enumerate(zip(sources, rates, lengths, strict=True)):
                self._copy(source, folder / f"{place}.mp4")
                wait = seconds - length if align == "end" else 0.0
                sides.append(ffmpeg.Side(file=f"{place}.mp4", fps=rate, wait_seconds=wait))
            self._run(ffmpeg.side_by_side(_executable(), sides, fps, seconds, "whole.mp4"), folder)
            return os.open(folder / "whole.mp4", os.O_RDONLY | os.O_CLOEXEC)

    def _run(self, arguments: list[str], folder: Path) -> None:
        child = Child()
        self._children.add(child)
        try:
            if self._closing.is_set():
                raise Wrong(503, "the viewer is stopping")
            run(child, arguments, folder, None, stall_seconds=STALL_SECONDS)
        except (Failed, OSError) as failure:
            raise Wrong(500, f"ffmpeg could not make it: {str(failure)[-300:]}") from None
        finally:
            self._children.discard(child)

    def _copy(self, source: Source, target: Path) -> None:
        descriptor = source.open()
        try:
            if os.fstat(descriptor).st_size > MOST_BYTES:
                raise Wrong(413, "this video is too large for that")
            with target.open("wb") as file:
                at = 0
                while (block := os.pread(descriptor, COPY_BYTES, at)) and not self._closing.is_set():
                    file.write(block)
                    at += len(block)
        except OSError as failure:
            raise Wrong(507, f"there is no room for a copy: {failure.strerror}") from None
        finally:
            with suppress(OSError):
                os.close(descriptor)


def _close(comparison: Comparison) -> None:
    descriptor, comparison.descriptor = comparison.descriptor, -1
    if descriptor >= 0:
        os.close(descriptor)


def _executable() -> Path:
    try:
        return ffmpeg.find()
    except Refused as refused:
        raise Wrong(500, str(refused)) from None
