"""Vector environments whose episodes have lengths that a test knows, and whose pictures tell what they show."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from plugins.recorder.vector import AutoresetMode
from tests.end_to_end.homes import check_log, events
from tests.environments.bars import draw, shown
from tests.wrappers.homes import end_script, wait_until_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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

    The reward of step k is k, its info `{"double": 2k}`, and the last info says whether it was a success. It remembers
    all that it returned.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    action_space: spaces.Space[Any] = spaces.Discrete(4)
    observation_space: spaces.Space[Any] = spaces.Box(0, 255, (3,), np.float32)

    def __init__(self, env: int = 0, lengths: Sequence[int] = (4,), render_mode: str | None = "rgb_array") -> None:
        self.render_mode = render_mode
        self._env = env
        self._lengths = lengths
        self._episode = -1
        self._step = 0
        self.renders = 0
        self.history: list[tuple[Any, ...]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._episode += 1
        self._step = 0
        result = self.observation(), {"begun": self._episode}
        self.history.append(result)
        return result

    def step(self, action: Any) -> Any:
        self._step += 1
        over = self._step >= self._lengths[min(self._episode, len(self._lengths) - 1)]
        even = self._episode % 2 == 0
        info: dict[str, Any] = {"double": 2 * self._step}
        if over:
            info["is_success"] = even
        result = self.observation(), float(self._step), over and even, over and not even, info
        self.history.append((action, *result))
        return result

    def render(self) -> Any:
        self.renders += 1
        return draw(self._env << 12 | self._episode % 32 << 7 | self._step % 128, HEIGHT, WIDTH)

    def observation(self) -> Any:
        return np.array([self._env, self._episode, self._step], np.float32)


class Nested(Scripted):
    """With a Dict that has a Tuple and a text in it."""

    observation_space = spaces.Dict(
        {"where": spaces.Tuple((spaces.Discrete(100), spaces.Box(0, 255, (2,), np.float32))), "text": spaces.Text(9)}
    )
    action_space = spaces.Dict({"push": spaces.Discrete(4)})

    def observation(self) -> Any:
        return {"where": (self._step, np.array([self._env, self._episode], np.float32)), "text": f"s{self._step}"}


class Pictures(VectorEnv[Any, Any, Any]):
    """A vector environment that shows whatever `show` makes of the step's number, and whose episodes last 4 steps."""

    render_mode = "rgb_array"

    def __init__(self, show: Callable[[int], Any], num_envs: int = 3) -> None:
        self.metadata = {"render_fps": 30, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 255, (1,), np.float32)
        self.single_action_space = spaces.Discrete(4)
        self.action_space = spaces.MultiDiscrete([4] * num_envs)
        self._show = show
        self._step = 0
        self.renders = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self._step = 0
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self._step += 1
        over = np.full(self.num_envs, self._step % 5 == 4)
        rewards = np.ones(self.num_envs)
        return np.full((self.num_envs, 1), self._step, np.float32), rewards, over, np.zeros_like(over), {}

    def render(self) -> Any:
        self.renders += 1
        return self._show(self._step)


def vector(
    lengths: Sequence[Sequence[int]], mode: str = "NEXT_STEP", *, kind: Any = Scripted, asynchronous: bool = False
) -> Any:
    """A vector environment of one sub-environment for each of these lists."""
    makers = [partial(kind, env, tuple(own)) for env, own in enumerate(lengths)]
    which: Any = gym.vector.AsyncVectorEnv if asynchronous else gym.vector.SyncVectorEnv
    if len(MODES) == 1:
        return which(makers)
    return which(makers, autoreset_mode=AutoresetMode[mode])


def play(env: Any, steps: int, *, seed: int | None = None) -> None:
    """So many steps, with the resets that the environment leaves to who steps."""
    env.reset(seed=seed)
    disabled = env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED
    over = np.zeros(env.num_envs, bool)
    for step in range(steps):
        if disabled and over.any():
            env.reset(options={"reset_mask": over})
        actions = env.action_space.sample()
        if isinstance(actions, np.ndarray):
            actions = (np.arange(env.num_envs) + step) % 4
        _, _, terminated, truncated, _ = env.step(actions)
        over = np.logical_or(terminated, truncated)


def told(home: Path, *types: str) -> list[dict[str, Any]]:
    """The events of these types, when the script has ended and all is done."""
    end_script(home)
    deadline = time.monotonic() + 60
    while list((home / "spool").iterdir()):  # the recorder process may be about to start
        assert time.monotonic() < deadline, "the spool does not become empty"
        time.sleep(0.02)
    wait_until_quiet(home)
    check_log(home)
    assert not events(home, "RecorderFailed"), "RecorderFailed was said"
    return events(home, *types)


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
