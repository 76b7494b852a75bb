"""An environment whose pictures compress badly, as those of textured scenes do: LZ4 makes them 4 times smaller."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SIZE = 480
NOISE = 0.05
"""The part of the texture's pixels that differ from their neighbours, which sets how badly it compresses."""


class Textured(gym.Env[np.ndarray[Any, Any], np.int64]):
    """A window that moves over a large texture; a picture takes `render_seconds` of processor time."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, *, length: int = 200, render_seconds: float = 0.001, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(4)
        self.observation_space = spaces.Box(0.0, np.inf, (2,), np.float32)
        self._length = length
        self._render_seconds = render_seconds
        self._texture = texture(2 * SIZE)
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._observation(), 1.0, False, self._step == self._length, {}

    def render(self) -> np.ndarray[Any, Any]:
        until = time.thread_time() + self._render_seconds
        x, y = (int(place) for place in self._observation())
        picture = self._texture[y : y + SIZE, x : x + SIZE].copy()
        while time.thread_time() < until:  # work, not sleep: a renderer would hold the core
            pass
        return picture

    def _observation(self) -> np.ndarray[Any, Any]:
        return np.array([2 * self._step % SIZE, self._step % SIZE], np.float32)


def texture(size: int) -> np.ndarray[Any, Any]:
    """Patches of 8 by 8 in a colour each, some of whose pixels are a little lighter or darker."""
    rng = np.random.default_rng(7)
    patches = rng.integers(40, 200, (size // 8, size // 8, 3), np.uint8)
    pixels = patches.repeat(8, axis=0).repeat(8, axis=1)
    grain = rng.integers(-12, 13, (size, size, 1)) * (rng.random((size, size, 1)) < NOISE)
    return (pixels + grain).astype(np.uint8)


gym.register("Textured-v0", entry_point="textured:Textured")
