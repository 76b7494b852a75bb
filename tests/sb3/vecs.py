"""Batches of environments as Stable-Baselines3 steps them, whose pictures and results tell what happened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from kernel.files import holder
from tests.end_to_end.homes import events, frames_of
from tests.environments.bars import Bars, shown
from tests.training.scripts import wait_until
from tests.wrappers.homes import end_script, wait_until_quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WIDTH, HEIGHT = 64, 32


class Numbered(Bars):
    """Bars whose resets and steps are told apart by their infos. The reward of step k is k."""

    def __init__(self, length: int) -> None:
        super().__init__(length=length, width=WIDTH, height=HEIGHT, render_mode="rgb_array")
        self._resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, _ = super().reset(seed=seed)
        self._resets += 1
        return observation, {"reset": self._resets}

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, _ = super().step(action)
        info = {"is_success": True} if terminated else {}
        return observation, float(self._step), terminated, truncated, {"at": self._step, **info}


class Nested(gym.ObservationWrapper[Any, Any, Any]):
    """Observations of another kind."""

    def __init__(self, env: gym.Env[Any, Any], kind: str) -> None:
        super().__init__(env)
        one = env.observation_space
        self._kind = kind
        self.observation_space = spaces.Dict({"a": one, "b": one}) if kind == "dict" else spaces.Tuple((one, one))

    def observation(self, observation: Any) -> Any:
        return {"a": observation, "b": -observation} if self._kind == "dict" else (observation, -observation)


class Shows(VecEnvWrapper):  # type: ignore[misc, unused-ignore] # its base is Any where it is not installed
    """Renders whatever it is told to."""

    def __init__(self, venv: Any, show: Any) -> None:
        super().__init__(venv)
        self._show = show
        self.renders = 0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def render(self, mode: str | None = None) -> Any:
        self.renders += 1
        return self._show(self.renders)


def batch(*lengths: int) -> Any:
    """One environment for each length of episodes."""
    return DummyVecEnv([lambda length=length: Numbered(length) for length in lengths])  # type: ignore[misc, unused-ignore] # a default


def play(env: Any, steps: int) -> None:
    """Reset, and so many steps."""
    env.reset()
    go(env, steps)


def go(env: Any, steps: int) -> list[Any]:
    """So many steps; what each returned."""
    return [env.step(np.zeros(env.num_envs, np.int64)) for _ in range(steps)]


def numbers_in(video: Path, tiles: int = 1) -> list[tuple[int, ...]]:
    """The numbers that each frame of a video shows, in the order of the environments."""
    columns = math.ceil(tiles / math.ceil(math.sqrt(tiles)))
    found = []
    for frame in frames_of(video):
        corners = [(HEIGHT * (tile // columns), WIDTH * (tile % columns)) for tile in range(tiles)]
        found.append(tuple(shown(frame[y : y + HEIGHT, x : x + WIDTH]) for y, x in corners))
    return found


def close(env: Any, home: Path) -> None:
    """Close, and wait until all that was recorded is in the log and in the tables."""
    wait_until(lambda: holder(home / "lock") is not None, what="a recorder process")
    env.close()
    end_script(home)
    wait_until_quiet(home)


def of_worker(home: Path, worker: int, *types: str) -> list[dict[str, Any]]:
    """The events of one environment."""
    return [event for event in events(home, *types) if event["worker"] == worker]


def values(found: Sequence[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """These fields of events."""
    return [tuple(event.get(name) for name in names) for event in found]
