"""Vector environments whose episodes have lengths that a test knows, and whose pictures tell what they show."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from plugins.recorder.vector import AutoresetMode
from tests.environments.bars import draw, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

HEIGHT, WIDTH = 16, 64
MODES = ("NEXT_STEP", "SAME_STEP", "DISABLED") if hasattr(gym.vector, "AutoresetMode") else ("NEXT_STEP",)
"""Those that the installed Gymnasium has."""


class Seen(NamedTuple):
    """What a picture or an observation tells."""

    env: int
    episode: int
    step: int


class Scripted(gym.Env[Any, Any]):
    """Episode e lasts `lengths[e]` steps, and from the last one on as long as the last one. Even ones terminate.

    The reward of step k is k, its info `{"double": 2k}`, and the last info says whether it was a success.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    action_space = spaces.Discrete(4)
    observation_space: spaces.Space[Any] = spaces.Box(0, 255, (3,), np.float32)

    def __init__(self, env: int = 0, lengths: Sequence[int] = (4,), render_mode: str | None = "rgb_array") -> None:
        self.render_mode = render_mode
        self._env = env
        self._lengths = lengths
        self._episode = -1
        self._step = 0
        self.renders = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._episode += 1
        self._step = 0
        return self._observation(), {"begun": self._episode}

    def step(self, action: Any) -> Any:
        self._step += 1
        over = self._step >= self._lengths[min(self._episode, len(self._lengths) - 1)]
        even = self._episode % 2 == 0
        info: dict[str, Any] = {"double": 2 * self._step}
        if over:
            info["is_success"] = even
        return self._observation(), float(self._step), over and even, over and not even, info

    def render(self) -> Any:
        self.renders += 1
        return draw(self._env << 12 | self._episode % 32 << 7 | self._step % 128, HEIGHT, WIDTH)

    def _observation(self) -> Any:
        return np.array([self._env, self._episode, self._step], np.float32)


class Nested(Scripted):
    """With a Dict that has a Tuple in it."""

    observation_space = spaces.Dict(
        {"where": spaces.Tuple((spaces.Discrete(100), spaces.Box(0, 255, (2,), np.float32))), "text": spaces.Text(9)}
    )
    action_space = spaces.Dict({"push": spaces.Discrete(4)})  # type: ignore[assignment]  # another one's

    def _observation(self) -> Any:
        return {"where": (self._step, np.array([self._env, self._episode], np.float32)), "text": f"s{self._step}"}


def vector(
    lengths: Sequence[Sequence[int]], mode: str = "NEXT_STEP", *, kind: Any = Scripted, asynchronous: bool = False
) -> Any:
    """A vector environment of one sub-environment for each of these lists."""
    makers = [partial(kind, env, tuple(own)) for env, own in enumerate(lengths)]
    which = gym.vector.AsyncVectorEnv if asynchronous else gym.vector.SyncVectorEnv
    if len(MODES) == 1:
        return which(makers)
    return which(makers, autoreset_mode=AutoresetMode[mode])


def seen(picture: Any) -> Seen:
    """What one sub-environment's picture shows."""
    number = shown(picture)
    return Seen(number >> 12, number >> 7 & 31, number & 127)


def cells(picture: Any, columns: int, count: int) -> list[Seen]:
    """What each sub-environment shows in the picture of all."""
    found = []
    for place in range(count):
        row, column = divmod(place, columns)
        found.append(seen(picture[row * HEIGHT : (row + 1) * HEIGHT, column * WIDTH : (column + 1) * WIDTH]))
    return found
