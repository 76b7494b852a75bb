"""An environment that draws its step number into the picture, as bars: a decoded frame tells its own index."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

BITS = 16


class Bars(gym.Env[np.ndarray[Any, Any], np.int64]):
    """`length` steps of reward 1; the picture after step k shows k."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        *,
        length: int = 20,
        width: int = 160,
        height: int = 96,
        fps: float = 30,
        step_seconds: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {**self.metadata, "render_fps": fps}
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
        self._length = length
        self._size = (height, width)
        self._step_seconds = step_seconds
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        if self._step_seconds:
            time.sleep(self._step_seconds)
        self._step += 1
        return self._observation(), 1.0, self._step == self._length, False, {}

    def render(self) -> np.ndarray[Any, Any]:
        return draw(self._step, *self._size)

    def _observation(self) -> np.ndarray[Any, Any]:
        return np.array([self._step], np.float32)


def draw(number: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """A picture of (height, width, 3) that shows the number: a white bar for each of its bits that is set."""
    picture = np.zeros((height, width, 3), np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:, bit * bar : (bit + 1) * bar] = 255
    return picture


def shown(picture: np.ndarray[Any, Any]) -> int:
    """The number that a picture shows, however lossily it was encoded."""
    height, width, _ = picture.shape
    bar = width // BITS
    row = picture[height // 2, :, 1]
    return sum((int(row[bit * bar + bar // 2]) > 127) << bit for bit in range(BITS))


gym.register("Bars-v0", entry_point="bars:Bars")
