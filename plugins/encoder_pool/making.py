"""Making: the work of one job, off the event loop: a chunk becomes a segment, a recording a checked video."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.fail_points import fail_point
from plugins.encoder_pool import handover, jobs
from plugins.recorder.frames import ChunkDamaged, ChunkReader
from plugins.recorder.spool import RecordingPlan
from plugins.video import ffmpeg
from plugins.video.feed import Child, Failed, Hung, run
from plugins.video.ffmpeg import Encoding
from plugins.video.mp4 import Video, read_video
from plugins.video.priority import Starved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plugins.events import RecordingSealed


class Hopeless(Exception):
    """What no further attempt would mend."""


class WrongJoin(Failed):
    """The segments do not make the video: they are to be encoded anew."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be encoded, and how."""

    home: Path
    folder: Path
    plan: RecordingPlan
    encoding: Encoding
    executable: Path
    stall_seconds: float
    thumbnail: bool
    threads: int
    """Of the encoder, for a video of one chunk. Segments are to be alike whenever they are made, and have one each."""


def make_segment(order: Order, child: Child, chunk: int) -> None:
    """Encode a chunk to a segment that stands, whole and checked, when this returns."""
    with _attempt(order.folder, "segment.mp4") as segment:
        frames = _encode(order, child, chunk, segment)
        _check(segment, frames)
        fail_point("encoder.segment.before")
        segment.replace(jobs.segment_in(order.folder, chunk))
        fail_point("encoder.segment.after")


def make_video(order: Order, child: Child, sealed: RecordingSealed) -> handover.Made:
    """Make the recording's video of its only chunk or of its segments; it waits, on disk, when this returns."""
    folder = order.folder
    with _attempt(folder, "video.mp4") as file, _attempt(folder, "thumbnail.jpg") as jpeg:
        if sealed.chunks == 1 and not jobs.standing_in(folder):
            thumbnail = (sealed.frames // 2, jpeg.name) if order.thumbnail else None
            _encode(order, child, 0, file, faststart=True, thumbnail=thumbnail, threads=order.threads)
            fail_point("encoder.video.encoded")
            video = _check(file, sealed.frames)
        else:
            fail_point("encoder.join.before")
            video = _join(order, child, sealed, file)
            fail_point("encoder.join.after")
            if order.thumbnail:
                # Half a frame early: the seek ends at the first frame that is not before it.
                middle = (sealed.frames // 2 - 0.5) / order.plan.fps
                arguments = ffmpeg.thumbnail_of(order.executable, file.name, middle, jpeg.name)
                run(child, arguments, folder, None, stall_seconds=order.stall_seconds)
        ready = _ready(file)
        sha256 = handover.sha256_of(ready)
        fail_point("encoder.video.hashed")
        return handover.Made(
            video=video, file=ready, sha256=sha256, thumbnail=_ready(jpeg) if order.thumbnail else None
        )


def _encode(
    order: Order,
    child: Child,
    chunk: int,
    output: Path,
    *,
    faststart: bool = False,
    thumbnail: tuple[int, str] | None = None,
    threads: int = 1,
) -> int:
    """Feed one ffmpeg with a chunk; returns the number of frames that the chunk holds."""
    plan = order.plan
    frames = ffmpeg.Frames(width=plan.width, height=plan.height, fps=plan.fps)
    arguments = ffmpeg.encode(
        order.executable,
        frames,
        order.encoding,
        output.name,
        faststart=faststart,
        thumbnail=thumbnail,
        threads=threads,
    )
    with _open(jobs.chunk_in(order.folder, chunk)) as reader:
        header = reader.header
        if plan.fps <= 0:
            raise Hopeless(f"the recording's frames per second are {plan.fps:g}; it takes more than 0 to show them")
        if (header.width, header.height) != (plan.width, plan.height):
            raise Hopeless(
                f"{reader.path} holds frames of {header.width}x{header.height}, and the recording's are "
                f"{plan.width}x{plan.height}"
            )
        try:
            return _feed(order, child, arguments, reader)
        except ChunkDamaged as damage:
            raise Hopeless(str(damage)) from None


def _feed(order: Order, child: Child, arguments: Sequence[str], reader: ChunkReader) -> int:
    """Run an encoder on the chunk's frames, anew where it starves in the idle class; how many frames there were."""
    fed = 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal fed
        fed = 0
        for frame in reader:
            yield frame
            fed += 1

    try:
        run(child, arguments, order.folder, counted(), stall_seconds=order.stall_seconds)
    except Starved:
        run(child, arguments, order.folder, counted(), stall_seconds=order.stall_seconds)
    return fed


def _open(chunk: Path) -> ChunkReader:
    try:
        return ChunkReader(chunk)
    except FileNotFoundError:
        raise Hopeless(f"{chunk} is gone; it was removed by something else than Stepreel") from None
    except ChunkDamaged as damage:
        raise Hopeless(str(damage)) from None


def _join(order: Order, child: Child, sealed: RecordingSealed, output: Path) -> Video:
    segments = [jobs.segment_in(order.folder, chunk) for chunk in range(sealed.chunks)]
    # Nothing is seen to move in a join: it has the time that a slow disk takes to write the file and to move it.
    patience = order.stall_seconds + 2 * ffmpeg.handling_seconds(*segments)
    with _attempt(order.folder, "listing.txt") as listing:
        listing.write_text(ffmpeg.listing_of([segment.name for segment in segments]))
        arguments = ffmpeg.join(order.executable, listing.name, order.plan.fps, output.name)
        try:
            run(child, arguments, order.folder, None, stall_seconds=patience)
            return _check(output, sealed.frames)
        except Hung:
            raise
        except Failed as failure:
            raise WrongJoin(str(failure)) from None


def _check(file: Path, frames: int) -> Video:
    video = read_video(file)
    if video.frames != frames:
        raise Failed(f"{frames} frames were captured, and the video holds {video.frames}")
    return video


def _ready(file: Path) -> Path:
    """Put a finished file on disk, under a name that outlives its attempt; the next start would remove it."""
    handover.sync_file(file)
    fail_point("encoder.ready.before")
    ready = file.replace(jobs.attempt_in(file.parent, f"ready{file.suffix}"))
    fail_point("encoder.ready.after")
    return ready


@contextmanager
def _attempt(folder: Path, name: str) -> Iterator[Path]:
    """A file of this attempt; gone when the block is left, if it was not renamed."""
    file = jobs.attempt_in(folder, name)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
