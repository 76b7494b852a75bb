"""A home in which every text that an environment or a user may choose is markup."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from kernel.testing import running
from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    RecordingSealed,
    RecordingStarted,
    SessionEnded,
    SessionStarted,
    StepRecorded,
    VideoFailed,
    WorkerFailed,
    WorkerStarted,
)
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

MARKUP = """<img src=x onerror="window.hurt=1">'"><script>window.hurt=1</script>&amp;"""
SESSION = "20261122-062718-evil"


async def make(home: Path) -> None:
    agents = [MARKUP, "agent_0"]
    async with running(home, {"sqlite": (SqliteSink, SqliteSinkOptions())}) as kernel:
        await kernel.publish(
            SessionStarted(
                session=SESSION, kind="script", env_id=MARKUP, label=MARKUP, tags=[MARKUP], workers=1, seed=MARKUP
            ),
            WorkerStarted(session=SESSION, worker=0, pid=1, env_id=MARKUP),
        )
        for episode in range(3):
            recording = f"{SESSION}-r{episode}"
            await kernel.publish(
                EpisodeStarted(
                    session=SESSION,
                    worker=0,
                    episode=episode,
                    env_id=MARKUP,
                    seed=MARKUP,
                    observation={MARKUP: 1.0},
                    info={MARKUP: MARKUP},
                    capture=MARKUP,
                    captured=True,
                    recording=recording,
                    first_frame=0,
                    agents=agents,
                ),
                RecordingStarted(
                    recording=recording,
                    session=SESSION,
                    worker=0,
                    episode=episode,
                    env_id=MARKUP,
                    path="videos/x.mp4",
                    fps=30,
                    width=16,
                    height=16,
                ),
            )
            for agent in agents:
                await kernel.publish(
                    *(
                        StepRecorded(
                            session=SESSION,
                            worker=0,
                            agent=agent,
                            episode=episode,
                            step=step,
                            action=MARKUP,
                            reward=1.0,
                            terminated=False,
                            truncated=False,
                            observation={MARKUP: float(step)},
                            info={MARKUP: float(step), "said": MARKUP, "rewards": {MARKUP: None}},
                            frame=step,
                            time=1.0,
                            step_seconds=0.1,
                            nonfinite={f"info.rewards.{MARKUP}": "nan"},
                        )
                        for step in range(1, 4)
                    ),
                    EpisodeEnded(
                        session=SESSION,
                        worker=0,
                        agent=agent,
                        episode=episode,
                        env_id=MARKUP,
                        total_reward=3.0,
                        steps=3,
                        outcome="aborted",
                        env_steps=3,
                        seconds=1.0,
                        recording=recording,
                    ),
                )
            await kernel.publish(
                RecordingSealed(
                    recording=recording,
                    session=SESSION,
                    worker=0,
                    first_episode=episode,
                    last_episode=episode,
                    chunks=1,
                    frames=4,
                    incomplete_because=MARKUP,
                    kept_for=[MARKUP],
                ),
                VideoFailed(recording=recording, session=SESSION, attempts=3, reason=MARKUP),
            )
        await kernel.publish(
            WorkerFailed(session=SESSION, worker=0, episode=2, error=MARKUP, traceback=MARKUP),
            SessionEnded(session=SESSION, outcome="failed", episodes=3, steps=9, recordings=3),
        )
        await kernel.settle(120)


if __name__ == "__main__":
    anyio.run(make, Path(sys.argv[1]))
