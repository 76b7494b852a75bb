"""Environments that do what real ones do to a recorder."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from tests.environments.bars import Bars, draw


class Shows(Bars):
    """Bars whose picture is whatever `show` makes of the step's number."""

    def __init__(self, show: Any, *, length: int = 4) -> None:
        super().__init__(length=length, render_mode="rgb_array")
        self._show = show
        self.renders = 0

    def render(self) -> Any:
        self.renders += 1
        return self._show(self._step)


class Filmed(Bars):
    """Captures frames inside `step`, as HighwayEnv does: three in each."""

    recorder: Any = None

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.recorder is not None and self.recorder.recording:
            for _ in range(3):
                self.recorder._capture_frame()
        return result


class ResetsItself(gym.Wrapper[Any, Any, Any, Any]):
    """The step that ends an episode has begun the next one already."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            observation, _ = self.env.reset()
        return observation, reward, terminated, truncated, info


class Batch(gym.Env[Any, Any]):
    """Five environments behind the API of one, as Isaac Lab has it: vectors of rewards and ends."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    render_mode = "rgb_array"
    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0.0, np.inf, (5, 1), np.float32)
    num_envs = 5

    def __init__(self) -> None:
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._step = 0
        return np.zeros((5, 1), np.float32), {}

    def step(self, action: Any) -> Any:
        self._step += 1
        ended = np.arange(5) == self._step % 5
        return np.full((5, 1), self._step, np.float32), np.ones(5), ended, np.zeros(5, bool), {}

    def render(self) -> Any:
        return draw(self._step, 96, 160)


class OnDevice:
    """An array of a library like PyTorch: it has to be brought to the host before numpy can see it."""

    copies = 0

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert device type tensor to numpy; use .cpu() first")

    def detach(self) -> OnDevice:
        return self

    def cpu(self) -> OnDevice:
        type(self).copies += 1
        return self

    def numpy(self) -> Any:
        return self._array
