"""Environments that count their steps, and misbehave on request. They register themselves on import."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled


class Count(gym.Env[Any, Any]):
    """`length` steps of reward 1. The observation is a number that the seed alone decides, and the step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        length: int = 10,
        step_seconds: float = 0.0,
        noisy: bool = False,
        does: str = "",
        in_episode: int = -1,
        start_child: bool = False,
    ) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0, np.inf, (2,), np.float64)
        self._length = length
        self._step_seconds = step_seconds
        self._noisy = noisy
        self._does = does
        self._in_episode = in_episode
        self._seed = 0
        self._step = 0
        if start_child:
            child = subprocess.Popen(["sleep", "600"])  # noqa: S607 - wherever it is
            print(f"child {child.pid}", file=sys.stderr)  # noqa: T201 - environments print

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = seed or 0
        self._step = 0
        self._drawn = float(self.np_random.random())
        if self._noisy:
            print("a line on standard output")  # noqa: T201 - environments print
            os.write(1, b'{"type":"Done","steps":0}\n')
            print(f"standard input has {sys.stdin.read()!r}", file=sys.stderr)  # noqa: T201 - environments print
        return np.array([self._drawn, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        if self._step_seconds:
            time.sleep(self._step_seconds)
        if self._step == 3 and self._in_episode in {-1, self._seed}:
            self._misbehave()
        return np.array([self._drawn, self._step]), 1.0, self._step == self._length, False, {}

    def render(self) -> Any:
        if self._does == "draws floats":
            return np.zeros((16, 16, 3))
        return np.full((16, 16, 3), self._step % 256, np.uint8)

    def _misbehave(self) -> None:
        match self._does:
            case "raises":
                raise ValueError("the third step is too much")
            case "exits":
                sys.exit("enough")
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "crashes":
                ctypes.string_at(0)
            case "hangs":
                print("hanging", file=sys.stderr)  # noqa: T201 - environments print
                time.sleep(600)


class Text(Count):
    """Draws letters only."""

    metadata = {"render_modes": ["human", "ansi"]}


class Blind(Count):
    """Draws nothing."""

    metadata = {"render_modes": []}


class Incomplete(Count):
    """Needs what is not installed."""

    def __init__(self, render_mode: str | None = None) -> None:
        raise DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')


class Crashing(Count):
    """Takes its process down as it is made."""

    def __init__(self, render_mode: str | None = None) -> None:
        print("about to crash", file=sys.stderr)  # noqa: T201 - environments print
        ctypes.string_at(0)


class Loud(gym.Wrapper[Any, Any, Any, Any]):
    """Multiplies rewards."""

    def __init__(self, env: gym.Env[Any, Any], times: float = 2.0) -> None:
        super().__init__(env)
        self._times = times

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) * self._times, terminated, truncated, info


gym.register("Count-v0", entry_point="envs:Count")
gym.register("Text-v0", entry_point="envs:Text")
gym.register("Blind-v0", entry_point="envs:Blind")
gym.register("Incomplete-v0", entry_point="envs:Incomplete")
gym.register("Crashing-v0", entry_point="envs:Crashing")
