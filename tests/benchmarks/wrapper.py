"""What RecordVideo adds to a step, in microseconds of the stepping thread's CPU beside an empty `gym.Wrapper`.

The environment does nothing: it hands out the same observation of four numbers and the same picture of 4×4. Each way
is timed in turn, round by round, and the median of the differences within a round is told. Wanted: at most 0.5 µs
for a step of an episode that is not captured, and at most 3 µs for one that is told or captured, beside its frame.
"""

from __future__ import annotations

import warnings
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import lz4.block
import numpy as np

from plugins.recorder.wrappers import RecordVideo
from tests.benchmarks import alone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.benchmarks.samples import Sample
    from tests.benchmarks.suites import Scope

STEPS = 20_000


def wrapper(scope: Scope) -> Iterator[Sample]:
    """In a process of its own, where nothing else was measured before."""
    arguments = {"rounds": 1 if scope.quick else 7}
    yield from alone.rounds("wrapper", [("an idle step", "stepreel", "tests.benchmarks.wrapper:added", arguments)], 1)


class Idle(gym.Env[Any, Any]):
    """Does nothing."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    render_mode = "rgb_array"
    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)
    picture = np.zeros((4, 4, 3), np.uint8)
    result = (np.zeros(4, np.float32), 1.0, False, False, dict[str, Any]())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.result[0], {}

    def step(self, action: Any) -> Any:
        return self.result

    def render(self) -> Any:
        return self.picture


class Empty(gym.Wrapper[Any, Any, Any, Any]):
    """Hands everything on."""


def step_cost(env: Any) -> float:
    """Microseconds of this thread's CPU for a step."""
    env.reset()
    step = env.step
    step(0)
    began = thread_time()
    for _ in range(STEPS):
        step(0)
    return (thread_time() - began) / STEPS * 1e6


def frame_cost() -> float:
    """Microseconds for rendering and compressing one of the pictures."""
    env = Idle()
    began = thread_time()
    for _ in range(STEPS):
        lz4.block.compress(env.render(), store_size=False)
    return (thread_time() - began) / STEPS * 1e6


def added(folder: Path, rounds: int) -> dict[str, float]:
    """Microseconds, by what they are added for."""
    warnings.simplefilter("ignore")

    def ours(**options: Any) -> Any:
        return RecordVideo(Idle(), folder / "videos", home=folder / "home", **options)

    def never(_: int) -> bool:
        return False

    envs = {
        "added by Gymnasium's RecordVideo, not captured": gym.wrappers.RecordVideo(
            Idle(), str(folder), episode_trigger=never
        ),
        "added by ours, not captured": ours(episode_trigger=never),
        "added by ours, told": ours(episode_trigger=never, telemetry="all"),
        "added by ours, captured and told": ours(episode_trigger=lambda _: True),
    }
    empty = Empty(Idle())
    found: dict[str, list[float]] = {"an empty gym.Wrapper": []}
    for _ in range(rounds):
        bare = step_cost(empty)
        found["an empty gym.Wrapper"].append(bare)
        for name, env in envs.items():
            found.setdefault(name, []).append(step_cost(env) - bare)
        found.setdefault("of it the frame", []).append(frame_cost())
    for env in envs.values():
        env.close()
    return {name: median(costs) for name, costs in found.items()}
