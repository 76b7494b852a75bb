"""What we read from an MP4, beside what ffmpeg says of the same file."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from kernel.plugin import Refused
from plugins.video import ffmpeg
from plugins.video.feed import Child, Failed, run
from plugins.video.mp4 import Video, read_video
from tests.encoder_pool.films import bars

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path, frames: int, *, codec: str = "libx264", faststart: bool = False) -> Path:
    """A video of so many frames."""
    encoding = ffmpeg.Encoding(codec=codec, crf=-1, preset="")
    size = ffmpeg.Frames(width=97, height=65, fps=30)
    arguments = ffmpeg.encode(ffmpeg.find(), size, encoding, "made.mp4", faststart=faststart)
    pictures = [bars(index, 97, 65).tobytes() for index in range(frames)]
    run(Child(), arguments, folder, pictures, stall_seconds=30)
    return folder / "made.mp4"


def packets_in(video: Path) -> int:
    """How many ffmpeg reads."""
    arguments = [str(ffmpeg.find()), "-i", str(video), "-map", "0:v", "-c", "copy", "-f", "null", "-"]
    words = subprocess.run(arguments, capture_output=True, text=True, check=True).stderr
    return int(re.findall(r"frame= *(\d+)", words)[-1])


@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 31, 600])
def test_as_many_frames_are_read_as_ffmpeg_reads(tmp_path: Path, frames: int, *, faststart: bool) -> None:
    video = made(tmp_path, frames, faststart=faststart)
    assert read_video(video) == Video(codec="h264", width=98, height=66, frames=frames)
    assert packets_in(video) == frames


@pytest.mark.parametrize(("codec", "name"), [("libx265", "hevc"), ("mpeg4", "mpeg4"), ("libvpx-vp9", "vp9")])
def test_other_codecs_are_called_as_ffmpeg_calls_them(tmp_path: Path, codec: str, name: str) -> None:
    assert read_video(made(tmp_path, 3, codec=codec)) == Video(codec=name, width=98, height=66, frames=3)


@pytest.mark.parametrize("faststart", [False, True])
def test_a_video_cut_at_any_byte_is_none(tmp_path: Path, *, faststart: bool) -> None:
    whole = made(tmp_path, 3, faststart=faststart).read_bytes()
    cut = tmp_path / "cut.mp4"
    refused = 0
    for size in range(0, len(whole), 7):
        cut.write_bytes(whole[:size])
        with pytest.raises(Failed, match=r"^cut\.mp4 "):
            read_video(cut)
        refused += 1
    assert refused > 100


def test_a_video_whose_frames_are_not_all_there_is_none(tmp_path: Path) -> None:
    whole = made(tmp_path, 3).read_bytes()
    at = whole.index(b"mdat")
    size = int.from_bytes(whole[at - 4 : at])
    # The box, and with it the file, is shorter by a frame's bytes, as if one had not been written.
    (tmp_path / "short.mp4").write_bytes(
        whole[: at - 4] + (size - 100).to_bytes(4) + whole[at : at - 4 + size - 100] + whole[at - 4 + size :]
    )
    with pytest.raises(Failed, match=r"short\.mp4 names frames of \d+ bytes, and holds \d+ bytes of them"):
        read_video(tmp_path / "short.mp4")


def test_a_program_that_writes_nothing_is_no_ffmpeg_and_the_start_says_so(tmp_path: Path) -> None:
    idle = tmp_path / "idle"
    idle.write_text("#!/bin/sh\ncat > /dev/null\n")
    idle.chmod(0o755)
    with pytest.raises(Refused, match="wrote no file; is it an ffmpeg"):
        ffmpeg.probe(idle, ffmpeg.Encoding(codec="libx264", crf=20, preset=""), thumbnail=False)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x08free", b"\0\0\0\x01mdat", b"\0\0\0\x10moovtrakxxxx"])
def test_what_is_no_mp4_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.mp4").write_bytes(content)
    with pytest.raises(Failed, match=r"^text\.mp4 (holds no video|is no MP4)"):
        read_video(tmp_path / "text.mp4")
