"""MP4: what a file that ffmpeg wrote says of the video in it, read from its boxes (ISO/IEC 14496-12).

To ask ffmpeg itself would be another start of it for each video: 25 ms of processor time, a quarter of what it takes
to encode a short episode of small pictures.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from kernel.files import open_regular
from plugins.video.feed import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_BYTES = 256 * 2**20
"""Of the index of a video: that of a million frames has 20 MiB."""

CODECS = {"avc1": "h264", "hvc1": "hevc", "hev1": "hevc", "av01": "av1", "vp09": "vp9", "mp4v": "mpeg4"}
"""What ffmpeg calls the codecs that are named otherwise here."""


class Video(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a video file."""

    codec: str
    """As ffmpeg calls it."""
    width: int
    height: int
    frames: int


def read_video(path: Path) -> Video:
    """The file's only video; all bytes of its frames are in the file. Raises `Failed` where that is not so."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise Failed("it ended as if all were well, and wrote no file; is it an ffmpeg?") from None
    with file:
        index, media_bytes = b"", 0
        for kind, size_bytes in _boxes_of(file, path):
            if kind == b"moov":
                index = file.read(min(size_bytes, MOST_BYTES))
            elif kind == b"mdat":
                media_bytes += size_bytes
    try:
        (video,) = filter(None, map(_video_in, _within(index, b"trak")))
    except (ValueError, struct.error):
        raise Failed(f"{path.name} holds no video, or more than one") from None
    found, sizes = video
    if sum(sizes) > media_bytes:
        raise Failed(f"{path.name} names frames of {sum(sizes)} bytes, and holds {media_bytes} bytes of them")
    return found


def _boxes_of(file: BinaryIO, path: Path) -> Iterator[tuple[bytes, int]]:
    """Kind and content size of each box of a file, which stands where the content begins."""
    end = file.seek(0, 2)
    at = 0
    while at < end:
        file.seek(at)
        start = file.read(16)
        size, kind = _BOX.unpack_from(start) if len(start) >= _BOX.size else (0, b"")
        header = _BOX.size
        if size == 1 and len(start) == 16:
            size, header = _LONG.unpack_from(start, _BOX.size)[0], 16
        if size < header or at + size > end:
            raise Failed(f"{path.name} is no MP4, or is cut off: at byte {at}")
        file.seek(at + header)
        yield kind, size - header
        at += size


def _within(content: bytes, *path: bytes) -> Iterator[bytes]:
    """The contents of all boxes of these kinds, one inside the other."""
    if not path:
        yield content
        return
    at = 0
    while at + _BOX.size <= len(content):
        size, kind = _BOX.unpack_from(content, at)
        if size < _BOX.size or at + size > len(content):
            raise ValueError("a box is cut off")
        if kind == path[0]:
            yield from _within(content[at + _BOX.size : at + size], *path[1:])
        at += size


def _video_in(track: bytes) -> tuple[Video, list[int]] | None:
    """What a track says of its video, and the size of each frame; None for one of another kind."""
    (handler,) = _within(track, b"mdia", b"hdlr")
    if handler[8:12] != b"vide":
        return None
    (description,) = _within(track, b"mdia", b"minf", b"stbl", b"stsd")
    (table,) = _within(track, b"mdia", b"minf", b"stbl", b"stsz")
    codec = description[12:16].decode("latin-1")
    width, height = _SIDES.unpack_from(description, 40)
    size_of_all, frames = _SAMPLES.unpack_from(table, 4)
    if not size_of_all and len(table) != 12 + 4 * frames:
        raise ValueError("its table of sizes is cut off")
    sizes = [size_of_all * frames] if size_of_all else list(struct.unpack_from(f">{frames}I", table, 12))
    return Video(codec=CODECS.get(codec, codec), width=width, height=height, frames=frames), sizes


_BOX = struct.Struct(">I4s")
_LONG = struct.Struct(">Q")
_SIDES = struct.Struct(">HH")
_SAMPLES = struct.Struct(">II")
