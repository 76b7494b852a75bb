"""Homes to be looked at: a real log, and the tables that the real sink makes of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import numpy as np

from kernel.testing import running
from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    RecordingSealed,
    RecordingStarted,
    SessionEnded,
    SessionStarted,
    StepRecorded,
    VideoAvailable,
)
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kernel.event import Event

SESSION = "20261122-062718-k3v9"
OTHER = "20261122-070000-a1b2"
BEGAN = 1_790_000_000.0
SINK = {"sqlite": (SqliteSink, SqliteSinkOptions())}


async def make_home(home: Path, events: Sequence[Event]) -> None:
    """Log the events, and let the sink take them in."""
    async with running(home, SINK) as kernel:
        for start in range(0, len(events), 2000):
            await kernel.publish(*events[start : start + 2000])
        await kernel.settle()


def session(name: str = SESSION, **fields: Any) -> SessionStarted:
    values: dict[str, Any] = {
        "session": name,
        "kind": "runner",
        "env_id": "CartPole-v1",
        "label": "test",
        "workers": 1,
        "seed": "0",
    }
    return SessionStarted(**{**values, **fields})


def session_ended(name: str = SESSION, **fields: Any) -> SessionEnded:
    values: dict[str, Any] = {
        "session": name,
        "outcome": "finished",
        "episodes": 1,
        "steps": 1,
        "recordings": 0,
    }
    return SessionEnded(**{**values, **fields})


def episode(index: int, steps: int = 10, *, session: str = SESSION, recording: str | None = None, **ended: Any) -> Any:
    """The start and the end of an episode."""
    start = EpisodeStarted(
        session=session,
        worker=0,
        episode=index,
        env_id="CartPole-v1",
        seed=str(index),
        capture="every 5" if recording else "not due",
        captured=recording is not None,
        recording=recording,
        first_frame=0 if recording else None,
        time=BEGAN + index,
        evaluation=bool(ended.get("evaluation", False)),
    )
    values: dict[str, Any] = {
        "session": session,
        "worker": 0,
        "episode": index,
        "env_id": "CartPole-v1",
        "total_reward": float(steps),
        "steps": steps,
        "outcome": "terminated",
        "env_steps": steps,
        "seconds": 0.5,
        "time": BEGAN + index + 0.5,
        "recording": recording,
    }
    return start, EpisodeEnded(**{**values, **ended})


def step(index: int, number: int, *, session: str = SESSION, **fields: Any) -> StepRecorded:
    values: dict[str, Any] = {
        "session": session,
        "worker": 0,
        "episode": index,
        "step": number,
        "action": number % 2,
        "reward": 1.0,
        "terminated": False,
        "truncated": False,
        "observation": [0.25 * number, -1.5, 0.0, 3.0],
        "info": {},
        "time": BEGAN + number / 50,
        "step_seconds": 0.001,
    }
    return StepRecorded(**{**values, **fields})


def film(file: Path, frames: int = 30) -> bytes:
    """A real MP4 of so many frames, 64 by 48; its bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(file), (64, 48), fps=30, codec="libx264", quality=None, output_params=["-crf", "21"], macro_block_size=1
    )
    writer.send(None)
    for index in range(frames):
        writer.send(np.full((48, 64, 3), index * 8 % 256, np.uint8))
    writer.close()
    return file.read_bytes()


def video(recording: str, index: int, path: str, content: bytes = b"", **fields: Any) -> list[Event]:
    """All that is said of a recording of one episode, up to its video."""
    start = RecordingStarted(
        recording=recording,
        session=SESSION,
        worker=0,
        episode=index,
        env_id="CartPole-v1",
        path=path,
        fps=30.0,
        width=64,
        height=48,
    )
    sealed = RecordingSealed(
        recording=recording, session=SESSION, worker=0, first_episode=index, last_episode=index, chunks=1, frames=30
    )
    values: dict[str, Any] = {
        "recording": recording,
        "session": SESSION,
        "worker": 0,
        "first_episode": index,
        "last_episode": index,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "frames": 30,
        "fps": 30.0,
        "width": 64,
        "height": 48,
        "codec": "h264",
        "seconds": 1.0,
    }
    return [start, sealed, VideoAvailable(**{**values, **fields})]
