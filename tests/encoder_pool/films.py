"""Recordings for these tests: put into the spool as a producer leaves them, and read back from the video."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import msgspec
import numpy as np

from kernel.files import write_whole
from plugins.events import ChunkSealed, Keep, RecordingSealed
from plugins.recorder.frames import CHUNK_FRAMES, ChunkWriter, layout_of, pack
from plugins.recorder.spool import RecordingPlan, write_producer_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kernel.event import Event

Picture = np.ndarray[Any, np.dtype[np.uint8]]

SESSION = "20261122-062718-k3v9"
PRODUCER = f"{SESSION}-q2xa81bc"
BITS = 12
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


class Film(msgspec.Struct, frozen=True):
    """A recording in the spool, and what its producer said of it."""

    recording: str
    folder: Path
    plan: RecordingPlan
    chunks: list[ChunkSealed]
    sealed: RecordingSealed

    @property
    def events(self) -> list[Event]:
        return [*self.chunks, self.sealed]


def film(
    home: Path,
    frames: int = 20,
    *,
    number: int = 0,
    fps: float = 50,
    size: tuple[int, int] = (96, 64),
    path: str | None = None,
    wait_for_seal: bool = False,
    chunk_frames: int = CHUNK_FRAMES,
    picture: Callable[[int, int, int], Picture] | None = None,
) -> Film:
    """Put a recording of so many frames into the spool; each shows its own index unless there is a `picture`."""
    width, height = size
    recording = f"{PRODUCER}-{number:04}"
    folder = home / "spool" / PRODUCER / recording
    folder.mkdir(parents=True)
    if path is not None:  # outside of the home, only a producer that ran here may choose it
        (folder.parent / "lock").touch()
        write_producer_file(folder.parent, PRODUCER, SESSION)
    plan = RecordingPlan(
        recording=recording,
        session=SESSION,
        worker=0,
        episode=number,
        env_id="Bars-v0",
        path=path or f"videos/{SESSION}/rl-video-episode-{number}.mp4",
        fps=fps,
        width=width,
        height=height,
        keep=Keep(),
        wait_for_seal=wait_for_seal,
        started=1_000_000_000.0 + number,
        capture="every 1",
    )
    write_whole(folder / "recording.json", msgspec.json.encode(plan), lasting=False)
    draw = picture or bars
    chunks = []
    for index, first in enumerate(range(0, frames, chunk_frames)):
        pictures = [draw(frame, width, height) for frame in range(first, min(first + chunk_frames, frames))]
        chunks.append(_write_chunk(folder, index, pictures))
    sealed = RecordingSealed(
        recording=recording,
        session=SESSION,
        worker=0,
        first_episode=number,
        last_episode=number,
        chunks=len(chunks),
        frames=frames,
        total_reward=12.5,
        kept_for=["best"],
    )
    return Film(recording, folder, plan, chunks, sealed)


def _write_chunk(folder: Path, index: int, pictures: Sequence[Picture]) -> ChunkSealed:
    header = layout_of(pictures[0])
    writer = ChunkWriter(folder / f"{index:05}.part", header)
    writer.append([pack(picture, header) for picture in pictures])
    file = writer.seal()
    name = f"{folder.parent.name}/{folder.name}/{file.name}"
    return ChunkSealed(recording=folder.name, chunk=index, file=name, frames=len(pictures))


def bars(index: int, width: int, height: int) -> Picture:
    """A picture that shows its index as black and white bars, one a bit."""
    picture = np.full((height, width, 3), 128, np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        picture[:, edges[bit] : edges[bit + 1]] = 235 if index >> bit & 1 else 20
    return picture


def shown(picture: Picture) -> int:
    """The index that a picture of bars shows."""
    height, width = picture.shape[:2]
    edges = np.linspace(0, width, BITS + 1).astype(int)
    middles = (edges[:-1] + edges[1:]) // 2
    lit = [picture[height // 4 : height // 2, middle - 1 : middle + 1].mean() > 128 for middle in middles]
    return sum(1 << bit for bit, on in enumerate(lit) if on)


def decode(video: Path) -> Picture:
    """All frames of a video, as a player would show them."""
    width, height = size_of(video)
    arguments = [FFMPEG, "-loglevel", "error", "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24"]
    decoded = subprocess.run([*arguments, "-fps_mode", "passthrough", "-"], stdout=subprocess.PIPE, check=True)
    return np.frombuffer(decoded.stdout, np.uint8).reshape(-1, height, width, 3)


def size_of(video: Path) -> tuple[int, int]:
    """Width and height."""
    found = re.search(r"Video: .*, (\d+)x(\d+)\b", described(video))
    assert found is not None
    return int(found[1]), int(found[2])


def described(video: Path) -> str:
    """What ffmpeg says of a file."""
    return subprocess.run(
        [FFMPEG, "-hide_banner", "-i", str(video)], capture_output=True, text=True, check=False
    ).stderr


def times(video: Path) -> list[tuple[int, int]]:
    """When each frame is shown, in order, and the ticks a second that this is counted in."""
    arguments = [FFMPEG, "-loglevel", "error", "-i", str(video), "-map", "0:v", "-c", "copy", "-f", "framecrc", "-"]
    lines = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    base = next(line for line in lines if line.startswith("#tb")).rpartition("/")[2]
    return sorted((int(line.split(",")[2]), int(base)) for line in lines if not line.startswith("#"))
