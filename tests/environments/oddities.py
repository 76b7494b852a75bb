"""An environment whose rewards, observations and infos are as odd as people's are."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

REWARDS = (float("nan"), float("inf"), -float("inf"), np.float32(0.5), np.float16(2), np.int64(3), np.bool_(True), 1)
SCALARS = [np.dtype(code).type(1) for code in "?bBhHiIlLqQefdgFD"]


class Anything:
    """An object that nobody knows how to write down."""


class Oddities(gym.Env[Any, Any]):
    """Gives one odd reward after the other; observations are a Tuple with a Dict, an image and a scalar in it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Dict({"move": spaces.Discrete(4), "force": spaces.Box(-1, 1, (2,))})
        self.observation_space = spaces.Tuple(
            (
                spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8), "speed": spaces.Box(-9, 9, (3,))}),
                spaces.Discrete(5),
            )
        )
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {"why": "reset", "object": Anything()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        reward = REWARDS[self._step]
        self._step += 1
        info: dict[Any, Any] = {
            "array": np.arange(6).reshape(2, 3),
            "large": np.zeros((100, 100)),
            "nan": np.array([1.0, np.nan, np.inf]),
            "object": Anything(),
            "scalars": SCALARS,
            "deep": {"a": {"b": [1, {"c": None}]}},
            "text": "line\nbreak \x1b[31mred",
            7: "a key that is no text",
        }
        return self._observation(), reward, self._step == len(REWARDS), False, info

    def render(self) -> np.ndarray[Any, Any]:
        return np.full((48, 64, 3), 20 * self._step, np.uint8)

    def _observation(self) -> Any:
        image = np.full((64, 64, 3), self._step, np.uint8)
        return {"image": image, "speed": np.array([0.0, np.nan, self._step], np.float32)}, np.int64(self._step % 5)


gym.register("Oddities-v0", entry_point="oddities:Oddities")
