"""What ffmpeg makes of our arguments: real files, decoded again."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kernel.plugin import Refused
from plugins.video import ffmpeg
from plugins.video.feed import Child, Failed, run
from plugins.video.mp4 import Video, read_video
from tests.encoder_pool.films import bars, decode, described, shown, times

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.encoder_pool.films import Picture

ENCODING = ffmpeg.Encoding(codec="libx264", crf=21, preset="veryfast")
PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (255, 255, 255), (0, 0, 0), (30, 90, 160)]


@pytest.mark.parametrize("size", [(320, 240), (321, 241)])
def test_colours_come_back(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    edges = np.linspace(0, width, len(PATCHES) + 1).astype(int)
    picture = np.zeros((height, width, 3), np.uint8)
    for patch, colour in enumerate(PATCHES):
        picture[:, edges[patch] : edges[patch + 1]] = colour
    video = _encode(tmp_path, [picture] * 10)
    seen = decode(video)[5].astype(int)
    for patch, colour in enumerate(PATCHES):
        middle = (edges[patch] + edges[patch + 1]) // 2
        assert np.abs(seen[height // 2, middle] - colour).max() <= 4
    # The last column and row of an odd size share their chroma with the pixels that were added.
    assert np.abs(seen[height // 2, width - 1] - PATCHES[-1]).max() <= 4
    assert np.abs(seen[height - 1, 5] - PATCHES[0]).max() <= 4


def test_the_file_says_how_its_colours_are_meant(tmp_path: Path) -> None:
    words = described(_encode(tmp_path, [bars(0, 96, 64)] * 3))
    # ffmpeg names matrix, primaries and transfer once where all three are the same.
    assert "h264 (High)" in words
    assert "yuv420p(tv, smpte170m, progressive)" in words


def test_odd_sizes_are_padded_by_one_pixel(tmp_path: Path) -> None:
    video = _encode(tmp_path, [bars(index, 161, 97) for index in range(5)])
    assert decode(video).shape == (5, 98, 162, 3)
    assert read_video(video) == Video(codec="h264", width=162, height=98, frames=5)


def test_there_is_a_keyframe_every_two_seconds(tmp_path: Path) -> None:
    video = _encode(tmp_path, [bars(index // 64, 96, 64) for index in range(100)], fps=12)
    arguments = [str(ffmpeg.find()), "-loglevel", "error", "-skip_frame", "nokey", "-i", str(video)]
    words = subprocess.run([*arguments, "-f", "framecrc", "-"], capture_output=True, text=True, check=True).stdout
    shown_at = [int(line.split(",")[1]) for line in words.splitlines() if not line.startswith("#")]
    assert {0, 24, 48, 72, 96} <= set(shown_at)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [(20, "20"), (23.976, "2997/125"), (24000 / 1001, "24000/1001"), (29.97, "2997/100"), (1 / 3, "1/3"), (60, "60")],
)
def test_the_rate_is_exact(tmp_path: Path, fps: float, exact: str) -> None:
    rate = Fraction(exact)
    assert ffmpeg.exact(fps) == rate
    video = _encode(tmp_path, [bars(index, 96, 64) for index in range(40)], fps=fps)
    assert [Fraction(time, base) for time, base in times(video)] == [index / rate for index in range(40)]


@pytest.mark.parametrize("fps", [23.976, 24000 / 1001])
def test_a_join_of_many_segments_keeps_every_frame_on_its_time(tmp_path: Path, fps: float) -> None:
    rate = ffmpeg.exact(fps)
    _encode(tmp_path, [bars(index, 64, 48) for index in range(7)], fps=fps, name="seven.mp4")
    segments = []
    for number in range(150):
        segments.append(f"{number:05}.mp4")
        shutil.copyfile(tmp_path / "seven.mp4", tmp_path / segments[-1])
    (tmp_path / "listing.txt").write_text(ffmpeg.listing_of(segments))
    run(Child(), ffmpeg.join(ffmpeg.find(), "listing.txt", fps, "joined.mp4"), tmp_path, None, stall_seconds=15)
    seen = [Fraction(time, base) for time, base in times(tmp_path / "joined.mp4")]
    assert seen == [index / rate for index in range(7 * 150)]


def test_decoding_counts_every_frame_and_refuses_what_is_no_video(tmp_path: Path) -> None:
    video = _encode(tmp_path, [bars(index, 96, 64) for index in range(7)])
    count = partial(ffmpeg.count_decoded, Child(), ffmpeg.find(), tmp_path, stall_seconds=15)
    assert count(video.name) == 7
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(Failed, match="Invalid data"):
        count("text.mp4")


def test_under_backlog_only_the_x26x_encoders_have_a_faster_preset() -> None:
    assert ENCODING.under_backlog() == ffmpeg.Encoding(codec="libx264", crf=20, preset="ultrafast")
    other = ffmpeg.Encoding(codec="libsvtav1", crf=30, preset="8")
    assert other.under_backlog() == other


@pytest.mark.parametrize(
    "encoding",
    [
        ENCODING,
        ENCODING.under_backlog(),
        ffmpeg.Encoding(codec="libx265", crf=24, preset="veryfast"),
        ffmpeg.Encoding(codec="mpeg4", crf=-1, preset=""),
    ],
)
def test_an_encoder_that_works_passes_the_probe(encoding: ffmpeg.Encoding) -> None:
    ffmpeg.probe(ffmpeg.find(), encoding, thumbnail=True)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        (ffmpeg.Encoding(codec="libx246", crf=21, preset="veryfast"), "Unknown encoder 'libx246'"),
        (ffmpeg.Encoding(codec="libsvtav1", crf=30, preset="veryfast"), 'set preset = ""'),
        (ffmpeg.Encoding(codec="h264_nvenc", crf=-1, preset=""), "h264_nvenc"),
    ],
)
def test_an_encoder_that_does_not_work_is_refused_with_what_to_do(encoding: ffmpeg.Encoding, words: str) -> None:
    with pytest.raises(Refused) as refused:
        ffmpeg.probe(ffmpeg.find(), encoding, thumbnail=True)
    assert words in str(refused.value)
    assert "Choose a codec" in str(refused.value)


@pytest.mark.parametrize("content", ["#!/bin/sh\necho broken >&2\nexit 1\n", "#!/bin/sh\nexit 0\n", "no program\n"])
def test_a_broken_ffmpeg_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(content)
    script.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
    with pytest.raises(Refused, match="IMAGEIO_FFMPEG_EXE"):
        ffmpeg.probe(ffmpeg.find(), ENCODING, thumbnail=True)


def test_a_missing_ffmpeg_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    with pytest.raises(Refused, match="no program"):
        ffmpeg.find()


def _encode(folder: Path, pictures: Sequence[Picture], *, fps: float = 30, name: str = "video.mp4") -> Path:
    height, width = pictures[0].shape[:2]
    frames = ffmpeg.Frames(width=width, height=height, fps=fps)
    arguments = ffmpeg.encode(ffmpeg.find(), frames, ENCODING, name)
    run(Child(), arguments, folder, [picture.tobytes() for picture in pictures], stall_seconds=15)
    return folder / name


def test_a_thumbnail_shows_the_frame_that_was_named(tmp_path: Path) -> None:
    frames = ffmpeg.Frames(width=640, height=360, fps=30)
    arguments = ffmpeg.encode(ffmpeg.find(), frames, ENCODING, "video.mp4", thumbnail=(7, "at.jpg"))
    run(Child(), arguments, tmp_path, [bars(index, 640, 360).tobytes() for index in range(20)], stall_seconds=15)
    (picture,) = decode(tmp_path / "at.jpg")
    assert picture.shape == (180, 320, 3)
    assert shown(picture) == 7
    assert len(decode(tmp_path / "video.mp4")) == 20
