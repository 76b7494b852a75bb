"""Videos that nobody recorded: a small MP4, and what would be said of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import imageio_ffmpeg
import numpy as np

from plugins.events import VideoAvailable

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path, number: int, *, worker: int = 0, training_step: int | None = None) -> VideoAvailable:
    """A video of three grey frames; each number has its own grey."""
    folder.mkdir(exist_ok=True)
    path = folder.absolute() / f"rl-video-w{worker}-episode-{number}.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (64, 48), fps=30)
    writer.send(None)
    for _ in range(3):
        writer.send(np.full((48, 64, 3), 20 * number + 5 * worker, np.uint8).tobytes())
    writer.close()
    content = path.read_bytes()
    return VideoAvailable(
        recording=f"made-{worker}-{number}", session="made", worker=worker, first_episode=number, last_episode=number,
        path=str(path), sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), frames=3, fps=30.0,
        width=64, height=48, codec="h264", seconds=0.1, total_reward=1.5, training_step=training_step,
    )  # fmt: skip
