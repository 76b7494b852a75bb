"""Homes as large as the viewer has to carry: many episodes in every state, and one that is very long."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from kernel.testing import running
from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    SessionEnded,
    SessionStarted,
    StepRecorded,
    VideoFailed,
    VideoPruned,
    WorkerStarted,
)
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.event import Event

MANY, LONG = "20261122-062718-many", "20261122-062718-long"
BATCH = 2000


async def make(home: Path, episodes: int, steps: int) -> None:
    """A home with a session of so many episodes of one step each, and one with a single episode of so many steps."""
    async with running(home, {"sqlite": (SqliteSink, SqliteSinkOptions())}) as kernel:
        for events in (_many(episodes), _long(steps)):
            batch: list[Event] = []
            for event in events:
                batch.append(event)
                if len(batch) == BATCH:
                    await kernel.publish(*batch)
                    batch.clear()
            await kernel.publish(*batch)
        await kernel.settle(120)


def _many(episodes: int) -> Iterator[Event]:
    yield SessionStarted(session=MANY, kind="runner", env_id="Cave-v1", label="many episodes", workers=4, seed="1")
    for worker in range(4):
        yield WorkerStarted(session=MANY, worker=worker, pid=1000 + worker, env_id="Cave-v1")
    for episode in range(episodes):
        yield from _episode(episode)
    yield SessionEnded(session=MANY, outcome="finished", episodes=episodes, steps=episodes, recordings=episodes // 5)


def _episode(episode: int) -> Iterator[Event]:
    """Every fifth is captured, and its recording came to one of five ends."""
    worker, recording = episode % 4, f"{MANY}-r{episode}" if episode % 5 == 0 else None
    total = 200 * (1 - math.exp(-episode / 3000)) + 30 * math.sin(episode * 1.7)
    path = f"videos/{MANY}/rl-video-episode-{episode}.mp4"
    yield EpisodeStarted(
        session=MANY, worker=worker, episode=episode, env_id="Cave-v1", seed=str(1 + episode),
        captured=recording is not None, capture="every 5" if recording else "not due", recording=recording,
        first_frame=0 if recording else None, observation=[0.0, 0.0], info={}, time=1764000000.0 + episode,
        evaluation=episode % 50 == 0,
    )  # fmt: skip
    if recording:
        yield RecordingStarted(
            recording=recording, session=MANY, worker=worker, episode=episode, env_id="Cave-v1", path=path, fps=30.0,
            width=160, height=96,
        )  # fmt: skip
    yield StepRecorded(
        session=MANY, worker=worker, episode=episode, step=1, action=1, reward=total, terminated=True,
        truncated=False, observation=[1.0, 2.0], info={}, frame=1 if recording else None,
        frames=1 if recording else 0, time=1764000001.0 + episode, step_seconds=0.001,
    )  # fmt: skip
    yield EpisodeEnded(
        session=MANY, worker=worker, episode=episode, env_id="Cave-v1", total_reward=total, steps=1,
        outcome="terminated" if episode % 7 else "truncated", success=episode % 3 != 0, env_steps=episode // 4 + 1,
        seconds=0.5 + episode % 9, time=1764000001.0 + episode, recording=recording, evaluation=episode % 50 == 0,
    )  # fmt: skip
    if not recording:
        return
    yield RecordingSealed(
        recording=recording, session=MANY, worker=worker, first_episode=episode, last_episode=episode, chunks=1,
        frames=2, total_reward=total,
    )  # fmt: skip
    match episode // 5 % 4:
        case 0:
            yield RecordingDiscarded(recording=recording, session=MANY, why="not among the best 5")
        case 1:
            yield VideoFailed(recording=recording, session=MANY, attempts=3, reason="Invalid argument")
        case 2:
            yield VideoPruned(
                recording=recording, session=MANY, path=path, size_bytes=31_000, policy="max_videos_per_session",
                reason="more than 50 videos",
            )  # fmt: skip


def _long(steps: int) -> Iterator[Event]:
    yield SessionStarted(session=LONG, kind="runner", env_id="Walker-v1", label="one long episode", workers=1, seed="1")
    yield WorkerStarted(session=LONG, worker=0, pid=1000, env_id="Walker-v1")
    yield EpisodeStarted(
        session=LONG, worker=0, episode=0, env_id="Walker-v1", seed="1", captured=False, capture="not due",
        observation=[0.0] * 8, info={}, time=1764000000.0,
    )  # fmt: skip
    total = 0.0
    for step in range(1, steps + 1):
        forward, control = math.sin(step / 900) + 1, -0.1 * math.sin(step * 1.3) ** 2
        lost = step % 9973 == 0
        total += forward + control
        yield StepRecorded(
            session=LONG, worker=0, episode=0, step=step, action=[math.sin(step / 50), math.cos(step / 70)],
            reward=forward + control, terminated=step == steps, truncated=False,
            observation=[None if lost and i == 3 else math.sin(step / (100 + 37 * i)) * (i + 1) for i in range(8)],
            info={"reward_forward": forward, "reward_control": control, "height": 1 + 0.2 * math.sin(step / 300)},
            time=1764000000.0 + step * 0.01, step_seconds=0.0002,
            nonfinite={"observation.3": "nan"} if lost else {},
        )  # fmt: skip
    yield EpisodeEnded(
        session=LONG,
        worker=0,
        episode=0,
        env_id="Walker-v1",
        total_reward=total,
        steps=steps,
        outcome="terminated",
        env_steps=steps,
        seconds=steps * 0.01,
        time=1764000000.0 + steps * 0.01,
    )
    yield SessionEnded(session=LONG, outcome="finished", episodes=1, steps=steps, recordings=0)


if __name__ == "__main__":
    anyio.run(make, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
