"""What RecordVideo adds to a step, in microseconds of the stepping thread's CPU beside an empty `gym.Wrapper`.

    python tests/benchmarks/wrapper.py [--rounds 5]

The environment does nothing: it hands out the same observation of four numbers and the same picture of 4×4. Each way
is timed in turn, round by round, and the median of the differences within a round is printed. Wanted: at most 0.5 µs
for a step of an episode that is not captured, and at most 3 µs for one that is told or captured, beside its frame.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import lz4.block
import numpy as np

from plugins.recorder.wrappers import RecordVideo

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 20_000


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"

        def ours(**options: Any) -> Any:
            return RecordVideo(Idle(), Path(folder) / "videos", home=home, wait=False, **options)

        never: Callable[[int], bool] = lambda _: False  # noqa: E731 - as users write it
        envs = {
            "gymnasium's, not captured": gym.wrappers.RecordVideo(Idle(), folder, episode_trigger=never),
            "ours, not captured": ours(episode_trigger=never),
            "ours, told": ours(episode_trigger=never, telemetry="all"),
            "ours, captured and told": ours(episode_trigger=lambda _: True),
        }
        empty = Empty(Idle())
        added: dict[str, list[float]] = {name: [] for name in envs}
        frames: list[float] = []
        for _ in range(rounds):
            bare = step_cost(empty)
            frames.append(frame_cost())
            for name, env in envs.items():
                added[name].append(step_cost(env) - bare)
        print(f"{'an empty gym.Wrapper':32} {step_cost(empty):6.2f} µs a step")
        for name, costs in added.items():
            print(f"{name:32} {median(costs):+6.2f} µs")
        print(f"{'of it the frame':32} {median(frames):+6.2f} µs")


if __name__ == "__main__":
    main()
