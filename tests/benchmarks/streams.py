"""What a producer says: CartPole's episodes of 200 steps, each with its recording, as the recorder would tell them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from plugins.events import (
    ChunkSealed,
    EpisodeEnded,
    EpisodeStarted,
    RecordingSealed,
    RecordingStarted,
    SessionStarted,
    StepRecorded,
    WorkerStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.event import Event

SESSION = "20261122-062718-k3v9"
EPISODE_STEPS = 200
BORN = 1_764_000_000.0


def step(number: int) -> StepRecorded:
    """The number-th step of all."""
    episode, place = divmod(number, EPISODE_STEPS)
    return StepRecorded(
        session=SESSION, worker=0, episode=episode, step=place + 1, action=number & 1, reward=1.0,
        terminated=place == EPISODE_STEPS - 1, truncated=False,
        observation=[0.012345679, -0.45678902, 0.034567891, 0.67890126], info={}, frame=place + 1,
        time=BORN + number * 0.02, step_seconds=0.00012345,
    )  # fmt: skip


def told(steps: int) -> Iterator[Event]:
    """So many steps, and everything that is said around them."""
    yield SessionStarted(session=SESSION, kind="runner", env_id="CartPole-v1", workers=1, seed="1", render_fps=50.0)
    yield WorkerStarted(session=SESSION, worker=0, pid=4711, env_id="CartPole-v1")
    for first in range(0, steps, EPISODE_STEPS):
        episode, count = first // EPISODE_STEPS, min(EPISODE_STEPS, steps - first)
        recording = f"{SESSION}-q2xa81bc-{episode:04}"
        yield RecordingStarted(
            recording=recording, session=SESSION, worker=0, episode=episode, env_id="CartPole-v1",
            path=f"videos/{SESSION}/rl-video-episode-{episode}.mp4", fps=50.0, width=600, height=400,
        )  # fmt: skip
        yield EpisodeStarted(
            session=SESSION, worker=0, episode=episode, env_id="CartPole-v1", seed=str(episode),
            observation=[0.01, 0.02, 0.03, 0.04], info={}, capture="every 1", captured=True, recording=recording,
            first_frame=0, time=BORN + first * 0.02,
        )  # fmt: skip
        yield from map(step, range(first, first + count))
        yield EpisodeEnded(
            session=SESSION, worker=0, episode=episode, env_id="CartPole-v1", total_reward=float(count), steps=count,
            outcome="terminated", env_steps=first + count, seconds=count * 0.02, recording=recording,
        )  # fmt: skip
        file = f"{SESSION}-q2xa81bc/{recording}/00000.chunk"
        yield ChunkSealed(recording=recording, chunk=0, file=file, frames=count + 1)
        yield RecordingSealed(
            recording=recording, session=SESSION, worker=0, first_episode=episode, last_episode=episode, chunks=1,
            frames=count + 1, total_reward=float(count),
        )  # fmt: skip


def in_batches(events: Iterator[Event], size: int) -> list[list[Event]]:
    """All of them, cut into lists of so many."""
    batches = []
    while batch := list(islice(events, size)):
        batches.append(batch)
    return batches
