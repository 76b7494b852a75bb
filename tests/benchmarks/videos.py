"""What is in the videos: how many frames, which of them shows what, and how near they come to what was captured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def in_order(folder: Path) -> list[Path]:
    """The MP4s of a folder and those within, by the numbers in their names."""
    return sorted(folder.rglob("*.mp4"), key=lambda path: [int(word) for word in re.findall(r"\d+", str(path))])


def frames_in(path: Path) -> int:
    """How many frames a video has, by its packets; none where it cannot be read."""
    try:
        frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        return 0
    return int(frames)


def decoded(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Each frame of a video, as a picture of (height, width, 3)."""
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"])
    width, height = next(reader)["source_size"]
    for frame in reader:
        yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)


class Quality:
    """The mean squared error over many frames."""

    def __init__(self) -> None:
        self._squares = 0.0
        self._values = 0

    def add(self, frame: np.ndarray[Any, Any], captured: np.ndarray[Any, Any]) -> None:
        """Compare a frame with what was captured; padding on the right and below is left out."""
        height, width = captured.shape[:2]
        difference = frame[:height, :width].astype(np.int16) - captured
        self._squares += float(np.square(difference, dtype=np.float64).sum())
        self._values += captured.size

    @property
    def decibels(self) -> float:
        """Peak signal-to-noise ratio; 99 where nothing differs."""
        if not self._squares:
            return 99.0
        return float(10 * np.log10(255**2 / (self._squares / self._values)))
