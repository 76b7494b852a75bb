"""Chunks: files of up to 512 LZ4-compressed frames, the unit of work between a producer and the encoder pool.

A file begins with `MAGIC`. Records follow: u32le payload length, u32le CRC-32 of the payload, u8 kind, payload. The
first is the `HEADER`, and a sealed chunk's last is the `END`, which counts its frames. While a chunk grows it is called
`<index>.part`; the name `<index>.chunk` says that it is whole.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from zlib import crc32

import msgspec
import numpy as np
from lz4.block import LZ4BlockError, compress, decompress

from kernel.fail_points import fail_point
from kernel.files import open_regular, sync_folder, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

CHUNK_FRAMES = 512
LZ4_RATIO = 256
"""No LZ4 block holds more bytes than its own times so many."""
MAGIC = b"SRCHUNK1"
FRAME, REPEAT, HEADER, END = 0, 1, 254, 255
"""Kinds of records: an LZ4 block of the raw bytes, the frame before once more (without payload), a msgpack
`ChunkHeader`, and the u32le count of all frames."""


class ChunkHeader(msgspec.Struct, frozen=True, kw_only=True):
    """How the raw bytes of a recording's frames become pictures.

    The bytes are a C-contiguous uint8 array of (height, width, channels), or (width, height, channels) where
    `transposed`. The picture is that array with its first two axes swapped where `transposed`, and then turned upside
    down where `flip_rows` and left to right where `flip_columns`.
    """

    width: int
    height: int
    channels: int
    """1 (grey), 3 (RGB) or 4 (RGBA, whose alpha is left out of the video)."""
    flip_rows: bool = False
    flip_columns: bool = False
    transposed: bool = False


class FrameRefused(ValueError):
    """A picture that cannot be a frame of the recording. Its text says what it is, and what is wanted."""


class ChunkDamaged(Exception):
    """A chunk file that is not what it should be. Its text names the file and the place in it."""


# From a picture to a payload: the stepping thread's part -----------------------------------------------------------


def layout_of(picture: Any) -> ChunkHeader:
    """The header that lets pictures like this one be compressed as they lie in memory, where that is possible.

    Raises `FrameRefused` for what is no picture of uint8 with 1, 3 or 4 channels.
    """
    if not isinstance(picture, np.ndarray):
        raise FrameRefused(
            f"a frame must be a numpy array of uint8, not {type(picture).__name__}; "
            'make the environment with render_mode="rgb_array"'
        )
    if picture.dtype != np.uint8:
        raise FrameRefused(
            f"a frame must be of uint8 from 0 to 255, not {picture.dtype}; "
            "convert it in render(), for floats from 0 to 1 with (frame * 255).astype(numpy.uint8)"
        )
    height, width, channels = _size_of(picture)
    flip_rows, flip_columns = (stride < 0 for stride in picture.strides[:2])
    upright = picture[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    if upright.flags.c_contiguous:
        transposed = False
    elif upright.swapaxes(0, 1).flags.c_contiguous:
        transposed = True
    else:
        flip_rows = flip_columns = transposed = False
    return ChunkHeader(
        width=width,
        height=height,
        channels=channels,
        flip_rows=flip_rows,
        flip_columns=flip_columns,
        transposed=transposed,
    )


def pack(picture: Any, header: ChunkHeader, acceleration: int = 1) -> bytes:
    """The payload of a frame: its raw bytes, laid out as the header says, as one LZ4 block.

    A picture that lies in memory as the header says is not copied; any other is. The picture may change as soon as
    this returns. Raises `FrameRefused` for a picture of another kind or size than the header's.
    """
    if type(picture) is not np.ndarray or picture.dtype.char != "B" or picture.ndim not in (2, 3):
        layout_of(picture)
        picture = np.asarray(picture)
    size = (header.height, header.width, header.channels)
    if picture.shape != size and _size_of(picture) != size:
        raise FrameRefused(
            f"the frame's shape is {picture.shape}, and the recording's frames are {header.width} wide and "
            f"{header.height} high with {header.channels} channels; one recording holds frames of one size"
        )
    if header.flip_rows:
        picture = picture[::-1]
    if header.flip_columns:
        picture = picture[:, ::-1]
    if header.transposed:
        picture = picture.swapaxes(0, 1)
    try:
        return _compressed(picture, acceleration)
    except ValueError:  # it is not contiguous; to ask before costs more than the rest of this function
        return _compressed(np.ascontiguousarray(picture), acceleration)


def _compressed(picture: np.ndarray[Any, Any], acceleration: int) -> bytes:
    if acceleration == 1:
        return compress(picture, store_size=False)  # type: ignore[no-any-return] # lz4 ships no types
    return compress(picture, mode="fast", acceleration=acceleration, store_size=False)  # type: ignore[no-any-return] # lz4 ships no types


def _size_of(picture: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    shape = picture.shape
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] and shape[1]:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2 and shape[0] and shape[1]:
        return shape[0], shape[1], 1
    raise FrameRefused(
        f"a frame's shape must be (height, width), or (height, width, channels) with 1, 3 or 4 channels, not {shape}"
    )


# Writing: the writer thread's part ---------------------------------------------------------------------------------


def checksum(content: bytes) -> int:
    """The CRC-32 of bytes. In the writer thread: zlib lets go of the interpreter's lock for more than 5 KiB.

    To get it back takes longer than the sum, and costs the thread that steps as much; so it is kept for up to 256 KiB,
    which take 0.06 ms.
    """
    size_bytes = len(content)
    if size_bytes <= _HELD_BYTES or size_bytes > _MOST_HELD_BYTES:
        return crc32(content)
    view, value = memoryview(content), 0
    for start in range(0, size_bytes, _HELD_BYTES):
        value = crc32(view[start : start + _HELD_BYTES], value)
    return value


_HELD_BYTES = 5 * 1024
_MOST_HELD_BYTES = 256 * 1024


class GrowingFile:
    """A file that grows by whole appends: one that fails is cut off again, and may be tried again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._torn = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, content: bytes) -> None:
        """Write all of it, or raise `OSError` and leave the file as it was."""
        try:
            if self._torn:
                os.ftruncate(self._descriptor, self.size)
                self._torn = False
            write_all(self._descriptor, content)
        except OSError:
            self._torn = True
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
                self._torn = False
            raise
        self.size += len(content)

    def close(self) -> None:
        """A second call is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ChunkWriter:
    """A chunk in the making."""

    def __init__(self, part: Path, header: ChunkHeader) -> None:
        self.frames = 0
        self._start = _pack_header(header)
        self._ended = False
        self._file = GrowingFile(part)

    def append(self, payloads: Sequence[bytes], *, ends: bool = False) -> None:
        """Append frames: LZ4 blocks, and an empty payload to repeat the frame before. All of them, or `OSError`.

        With the last ones, where it is known that they are (`ends`), goes the chunk's end.
        """
        frames = self.frames + len(payloads)
        parts = [self._start]
        for payload in payloads:
            parts += (_RECORD.pack(len(payload), checksum(payload), FRAME if payload else REPEAT), payload)
        if ends:
            parts.append(_pack_end(frames))
        self._file.append(b"".join(parts))
        self.frames, self._ended, self._start = frames, ends, b""

    def seal(self) -> Path:
        """Write the end and rename to `.chunk`; returns that path. May be tried again after an `OSError`."""
        if not self._ended:
            self.append((), ends=True)
        fail_point("chunk.seal.ended")
        self._file.close()
        sealed = self._file.path.replace(self._file.path.with_suffix(".chunk"))
        fail_point("chunk.seal.renamed")
        return sealed

    def close(self) -> None:
        """Leave the part as it is."""
        self._file.close()


def _pack_header(header: ChunkHeader) -> bytes:
    return MAGIC + _pack_record(HEADER, msgspec.msgpack.encode(header))


def _pack_record(kind: int, payload: bytes) -> bytes:
    return _RECORD.pack(len(payload), checksum(payload), kind) + payload


def _pack_end(frames: int) -> bytes:
    return _pack_record(END, _COUNT.pack(frames))


# Reading -----------------------------------------------------------------------------------------------------------


class ChunkReader:
    """Reads a sealed chunk frame by frame; a context manager.

    Each frame comes as `height * width * 3` contiguous bytes of RGB, whatever its kind and orientation were in the
    environment. Raises `ChunkDamaged` for anything that is not as it should be; frames handed out before it are good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        try:
            self.header = _read_header(self._file)
        except ChunkDamaged:
            self._file.close()
            raise
        self._first = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self._file.seek(self._first)
        raw_bytes = self.header.width * self.header.height * self.header.channels
        picture: bytes | memoryview = b""
        for frames, (offset, kind, payload) in enumerate(_records(self._file)):
            if kind == END:
                if payload != _COUNT.pack(frames):
                    raise _damaged(self._file, offset, f"it ends after {frames} frames, and its end counts others")
                if self._file.read(1):
                    raise _damaged(self._file, offset, "something follows its end")
                return
            if kind == FRAME:
                if raw_bytes > LZ4_RATIO * len(payload):  # said before so much memory is asked for
                    raise _damaged(self._file, offset, f"a frame of {raw_bytes} bytes cannot come of {len(payload)}")
                try:
                    raw = decompress(payload, uncompressed_size=raw_bytes)
                except (LZ4BlockError, ValueError, OverflowError) as error:
                    raise _damaged(self._file, offset, f"a frame cannot be decompressed ({error})") from None
                if len(raw) != raw_bytes:
                    raise _damaged(self._file, offset, f"a frame has {len(raw)} bytes and not {raw_bytes}")
                picture = to_rgb(raw, self.header)
            elif kind == HEADER or not picture:
                raise _damaged(self._file, offset, "a header or a repeat stands where a frame should")
            yield picture
        raise _damaged(self._file, self._file.tell(), "it has no end; it was not sealed")


def to_rgb(raw: bytes, header: ChunkHeader) -> bytes | memoryview:
    """The raw bytes of a frame as contiguous RGB, the orientation undone."""
    if header.channels == 3 and not (header.flip_rows or header.flip_columns or header.transposed):
        return raw
    sides = (header.width, header.height) if header.transposed else (header.height, header.width)
    picture = np.frombuffer(raw, np.uint8).reshape(*sides, header.channels)
    if header.transposed:
        picture = picture.swapaxes(0, 1)
    if header.flip_columns:
        picture = picture[:, ::-1]
    if header.flip_rows:
        picture = picture[::-1]
    if header.channels == 1:
        picture = np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(picture[:, :, :3]).data.cast("B")


def count_frames(chunk: Path) -> int:
    """How many frames a sealed chunk holds, read from its end. Raises `ChunkDamaged` where it has none."""
    with open_regular(chunk) as file:
        offset = max(0, file.seek(0, os.SEEK_END) - _END_BYTES)
        file.seek(offset)
        for _, kind, payload in _records(file):
            if kind == END and len(payload) == _COUNT.size:
                return int(_COUNT.unpack(payload)[0])
        raise _damaged(file, offset, "it has no end; it was not sealed")


def count_whole_frames(chunk: Path) -> int:
    """How many frames stand in a chunk before its end, or before what is damaged in it."""
    frames = 0
    with open_regular(chunk) as file, suppress(ChunkDamaged):
        _read_header(file)
        for _, kind, _ in _records(file):
            if kind not in (FRAME, REPEAT):
                break
            frames += 1
    return frames


def is_torn_only(part: Path) -> bool:
    """Whether nothing but the end of a part is missing: no whole frame stands behind what is damaged in it."""
    with open_regular(part) as file:
        good = 0
        try:
            _read_header(file)
            good = file.tell()
            for _ in _records(file):
                good = file.tell()
        except ChunkDamaged:
            file.seek(good)
            return not _any_frame(file.read())
    return True


def _any_frame(content: bytes) -> bool:
    for start in range(1, len(content) - _RECORD.size):
        if content[start + _RECORD.size - 1] == FRAME:
            length, checksum, _ = _RECORD.unpack_from(content, start)
            payload = content[start + _RECORD.size : start + _RECORD.size + length] if length < len(content) else b""
            if 0 < length == len(payload) and crc32(payload) == checksum:
                return True
    return False


def seal_part(part: Path) -> int:
    """Make a chunk of what a dead producer left: cut the torn tail, add the end, and rename it into place, to last.

    Returns its number of frames. A part without a whole frame is removed, and 0 returned.
    """
    frames = 0
    with open_regular(part, "rb+") as file:
        try:
            _read_header(file)
            good = file.tell()
            for _, kind, _ in _records(file):
                if kind not in (FRAME, REPEAT):
                    break
                good = file.tell()
                frames += 1
        except ChunkDamaged:
            pass  # what came before is good, and what follows is the torn tail
        if frames:
            fail_point("part.seal.before")
            file.truncate(good)
            fail_point("part.seal.cut")
            file.seek(good)
            file.write(_pack_end(frames))
            file.flush()
            fail_point("part.seal.ended")
            os.fsync(file.fileno())
    if frames:
        part.replace(part.with_suffix(".chunk"))
        fail_point("part.seal.renamed")
    else:
        part.unlink()
        fail_point("part.empty.removed")
    sync_folder(part.parent)
    return frames


def _read_header(file: BinaryIO) -> ChunkHeader:
    if file.read(len(MAGIC)) != MAGIC:
        raise _damaged(file, 0, "it does not begin as a chunk does")
    for _, kind, payload in _records(file):
        if kind == HEADER:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                header = _header.decode(payload)
                if header.width > 0 and header.height > 0 and header.channels in (1, 3, 4):
                    return header
        break
    raise _damaged(file, len(MAGIC), "its header cannot be read")


def _records(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Offset, kind and payload of each record up to the end of the file. Raises `ChunkDamaged` at the first bad one."""
    size = os.fstat(file.fileno()).st_size
    while start := file.read(_RECORD.size):
        offset = file.tell() - len(start)
        if len(start) < _RECORD.size:
            raise _damaged(file, offset, "a record is cut off")
        length, checksum, kind = _RECORD.unpack(start)
        if length > size - file.tell():
            raise _damaged(file, offset, "a record is cut off")
        payload = file.read(length)
        if crc32(payload) != checksum:
            raise _damaged(file, offset, "a record's checksum is wrong")
        if (length and kind not in (FRAME, HEADER, END)) or (not length and kind != REPEAT):
            raise _damaged(file, offset, f"a record of kind {kind} has {length} bytes")
        yield offset, kind, payload


def _damaged(file: BinaryIO, offset: int, what: str) -> ChunkDamaged:
    return ChunkDamaged(f"{file.name}: damaged at byte {offset}: {what}")


_COUNT = struct.Struct("<I")
_RECORD = struct.Struct("<IIB")
_END_BYTES = _RECORD.size + _COUNT.size
_header = msgspec.msgpack.Decoder(ChunkHeader)
