from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.recorder.frames import (
    ChunkDamaged,
    ChunkReader,
    ChunkWriter,
    FrameRefused,
    checksum,
    count_frames,
    layout_of,
    pack,
    seal_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def noise(*shape: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def rgb(picture: Picture) -> bytes:
    if picture.ndim == 2:
        picture = picture[:, :, None]
    return np.ascontiguousarray(np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[:, :, :3]).tobytes()


def write_part(folder: Path, pictures: list[Picture], header_of: Picture | None = None) -> tuple[Path, ChunkWriter]:
    header = layout_of(pictures[0] if header_of is None else header_of)
    part = folder / "00000.part"
    writer = ChunkWriter(part, header)
    last = b""
    for picture in pictures:
        payload = pack(picture, header)
        writer.append([b"" if payload == last else payload])
        last = payload
    return part, writer


def write_chunk(folder: Path, pictures: list[Picture], header_of: Picture | None = None) -> Path:
    return write_part(folder, pictures, header_of)[1].seal()


def read_chunk(chunk: Path) -> list[bytes]:
    with ChunkReader(chunk) as reader:
        return [bytes(frame) for frame in reader]


@pytest.mark.parametrize(
    "picture",
    [noise(7, 5, 3), noise(7, 5, 4), noise(7, 5, 1), noise(7, 5), noise(1, 1, 3), noise(1, 9, 3), noise(9, 1, 3)],
    ids=["RGB", "RGBA", "grey with an axis", "grey", "one pixel", "one row", "one column"],
)
def test_every_kind_of_picture_comes_back_as_rgb(tmp_path: Path, picture: Picture) -> None:
    assert read_chunk(write_chunk(tmp_path, [picture])) == [rgb(picture)]


VIEWS: dict[str, tuple[Callable[[Picture], Picture], tuple[bool, bool, bool]]] = {
    "upside down": (lambda base: base[::-1], (True, False, False)),
    "mirrored": (lambda base: base[:, ::-1], (False, True, False)),
    "half a turn": (lambda base: base[::-1, ::-1], (True, True, False)),
    "transposed": (lambda base: base.swapaxes(0, 1), (False, False, True)),
    "a quarter turn": (np.rot90, (True, False, True)),
    "a quarter turn back": (lambda base: np.rot90(base, -1), (False, True, True)),
    "half a turn, transposed": (lambda base: base[::-1, ::-1].swapaxes(0, 1), (True, True, True)),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", VIEWS)
def test_a_turned_view_is_compressed_from_the_memory_beneath_it(tmp_path: Path, name: str, channels: int) -> None:
    turn, flags = VIEWS[name]
    base = noise(6, 4, channels)
    view = turn(base)
    header = layout_of(view)
    assert (header.flip_rows, header.flip_columns, header.transposed) == flags
    assert pack(view, header) == pack(base, layout_of(base)), "the bytes of the buffer as it lies in memory"
    assert read_chunk(write_chunk(tmp_path, [view])) == [rgb(view)]


@pytest.mark.parametrize(
    "view",
    [noise(8, 8, 3)[::2], noise(8, 8, 3)[:, 2:6], noise(8, 8, 3)[:, :, ::-1], np.asfortranarray(noise(8, 8, 3))],
    ids=["every second row", "a cut", "BGR", "Fortran order"],
)
def test_a_view_without_a_contiguous_one_beneath_is_copied(tmp_path: Path, view: Picture) -> None:
    assert read_chunk(write_chunk(tmp_path, [view])) == [rgb(view)]


def test_frames_of_another_layout_are_brought_into_the_recordings(tmp_path: Path) -> None:
    pictures = [turn(noise(6, 6, 3, seed=seed)) for seed, (turn, _) in enumerate(VIEWS.values())]
    pictures.append(noise(6, 6, 3, seed=99))
    for index, first in enumerate(pictures):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert read_chunk(write_chunk(folder, pictures, header_of=first)) == [rgb(picture) for picture in pictures]


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (noise(4, 4, 3) / 255.0, "uint8"),
        (noise(4, 4, 3).astype(np.int64), "uint8"),
        (noise(4, 4, 3).tolist(), "numpy array"),
        (None, "rgb_array"),
        (noise(4, 4, 2), "channels"),
        (noise(0, 4, 3), "shape"),
        (noise(4), "shape"),
        (noise(2, 4, 4, 3), "shape"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(picture: Any, says: str) -> None:
    with pytest.raises(FrameRefused, match=says):
        layout_of(picture)
    with pytest.raises(FrameRefused, match=says):
        pack(picture, layout_of(noise(4, 4, 3)))


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(FrameRefused, match="one size"):
        pack(noise(4, 5, 3), layout_of(noise(4, 4, 3)))


@pytest.mark.parametrize("size_bytes", [0, 1, 5 * 1024, 5 * 1024 + 1, 10 * 1024, 256 * 1024, 256 * 1024 + 1])
def test_a_checksum_is_the_crc32_whatever_the_size(size_bytes: int) -> None:
    content = noise(1, max(1, size_bytes), 1).tobytes()[:size_bytes]
    assert checksum(content) == zlib.crc32(content)


def test_the_end_goes_with_the_last_frames_and_only_once(tmp_path: Path) -> None:
    header = layout_of(noise(7, 5, 3))
    frames = [noise(7, 5, 3, seed=place) for place in range(3)]
    apart = ChunkWriter(tmp_path / "00000.part", header)
    apart.append([pack(frame, header) for frame in frames])
    together = ChunkWriter(tmp_path / "00001.part", header)
    together.append([pack(frames[0], header)])
    together.append([pack(frame, header) for frame in frames[1:]], ends=True)
    assert apart.seal().read_bytes() == together.seal().read_bytes()
    assert read_chunk(tmp_path / "00001.chunk") == [rgb(frame) for frame in frames]


def test_higher_acceleration_gives_the_same_pictures(tmp_path: Path) -> None:
    picture = noise(30, 30, 3) // 64
    header = layout_of(picture)
    writer = ChunkWriter(tmp_path / "00000.part", header)
    writer.append([pack(picture, header, acceleration) for acceleration in (1, 4, 16, 64)])
    assert read_chunk(writer.seal()) == [rgb(picture)] * 4


def test_a_picture_may_change_after_it_was_packed(tmp_path: Path) -> None:
    picture = noise(5, 5, 3)
    before = rgb(picture)
    part, writer = write_part(tmp_path, [picture])
    picture[:] = 0
    chunk = writer.seal()
    assert not part.exists()
    assert read_chunk(chunk) == [before]


def test_a_repeated_frame_costs_no_bytes_and_is_read_again(tmp_path: Path) -> None:
    one, other = noise(20, 20, 3), noise(20, 20, 3, seed=1)
    chunk = write_chunk(tmp_path, [one, one, one, other, other, one])
    assert read_chunk(chunk) == [rgb(picture) for picture in (one, one, one, other, other, one)]
    assert chunk.stat().st_size < 3.5 * len(pack(one, layout_of(one)))
    assert count_frames(chunk) == 6


def sample(folder: Path) -> tuple[Path, list[bytes]]:
    pictures = [noise(3, 3, 3, seed=seed) for seed in (1, 1, 2, 3)]
    return write_chunk(folder, pictures), [rgb(picture) for picture in pictures]


def test_a_part_cut_at_any_byte_is_sealed_to_a_prefix_of_its_frames(tmp_path: Path) -> None:
    chunk, pictures = sample(tmp_path)
    content = chunk.read_bytes()
    chunk.unlink()
    part = tmp_path / "00000.part"
    counts = []
    for size in range(len(content) + 1):
        part.write_bytes(content[:size])
        frames = seal_part(part)
        counts.append(frames)
        assert not part.exists()
        assert chunk.exists() == (frames > 0)
        if frames:
            assert count_frames(chunk) == frames
            assert read_chunk(chunk) == pictures[:frames]
            chunk.unlink()
    assert counts == sorted(counts), "a longer rest never holds fewer frames"
    assert set(counts) == {0, 1, 2, 3, 4}


def test_a_part_with_zeros_at_its_end_is_sealed_before_them(tmp_path: Path) -> None:
    chunk, pictures = sample(tmp_path)
    part = chunk.rename(tmp_path / "00000.part")
    part.write_bytes(part.read_bytes()[:-13] + bytes(4096))
    assert seal_part(part) == 4
    assert read_chunk(chunk) == pictures


def test_a_chunk_cut_at_any_byte_is_damaged(tmp_path: Path) -> None:
    chunk, pictures = sample(tmp_path)
    content = chunk.read_bytes()
    for size in range(len(content)):
        chunk.write_bytes(content[:size])
        with pytest.raises(ChunkDamaged, match=r"00000\.chunk: damaged at byte \d+"):
            read_chunk(chunk)
        with pytest.raises(ChunkDamaged):
            count_frames(chunk)
    chunk.write_bytes(content + b"\0")
    with pytest.raises(ChunkDamaged, match="follows its end"):
        read_chunk(chunk)
    chunk.write_bytes(content)
    assert read_chunk(chunk) == pictures


def test_every_flipped_bit_of_a_chunk_is_noticed(tmp_path: Path) -> None:
    chunk, _ = sample(tmp_path)
    content = bytearray(chunk.read_bytes())
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(content)
        with pytest.raises(ChunkDamaged):
            read_chunk(chunk)
        content[bit // 8] ^= 1 << bit % 8


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_damaged_and_never_otherwise(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("junk")
    part = folder / "00000.part"
    part.write_bytes(b"SRCHUNK1" + junk)
    with pytest.raises(ChunkDamaged):
        read_chunk(part)
    assert seal_part(part) == 0
    assert not list(folder.iterdir())
