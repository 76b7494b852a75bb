"""What is played: an environment, and a policy that plays the same episodes for every contender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENVIRONMENTS = Path(__file__).resolve().parent.parent / "environments"


class Load(NamedTuple):
    """An environment to be recorded."""

    title: str
    env_id: str
    steps_per_second: float
    """About so many are stepped and rendered on one core: by it a turn's length is chosen."""
    sparse_steps_per_second: float
    """The same where every 20th episode is rendered."""
    share: float
    """Of the seconds that a turn is to last: less where those who encode in the loop take long."""
    kwargs: dict[str, Any]
    policy: Callable[[int, int], Callable[[Any], int]]
    """Given the number of actions and a seed, a function from an observation to an action."""


def at_random(actions: int, seed: int) -> Callable[[Any], int]:
    """The same actions for everybody, whatever is observed."""
    rng = np.random.default_rng(seed)
    drawn: Iterator[int] = iter(())

    def act(_: Any) -> int:
        nonlocal drawn
        for action in drawn:
            return action
        drawn = iter(rng.integers(actions, size=4096).tolist())
        return next(drawn)

    return act


def lean(_: int, __: int) -> Callable[[Any], int]:
    """Push the cart to where the pole leans: it wanders, and balances for some hundred steps and more."""
    return lambda observation: int(observation[2] + 0.5 * observation[3] > 0)


def balance(_: int, __: int) -> Callable[[Any], int]:
    """Balance for ever."""
    return lambda observation: int(
        0.1 * observation[0] + 0.2 * observation[1] + observation[2] + 0.5 * observation[3] > 0
    )


LOADS = {
    "cartpole": Load("CartPole-v1, 600×400", "CartPole-v1", 900, 14_000, 1.0, {}, lean),
    "unrendered": Load("CartPole-v1, never rendered", "CartPole-v1", 60_000, 60_000, 0.5, {}, lean),
    "balanced": Load(
        "CartPole-v1, an episode without an end", "CartPole-v1", 900, 900, 1.0, {"max_episode_steps": 10**9}, balance
    ),
    "lunarlander": Load("LunarLander-v3, 600×400", "LunarLander-v3", 650, 5_000, 0.5, {}, at_random),
    "breakout": Load("ALE/Breakout-v5, 160×210", "ale_py:ALE/Breakout-v5", 2700, 3300, 0.5, {}, at_random),
    "textured": Load("a textured picture, 480×480", "textured:Textured-v0", 950, 16_000, 0.25, {}, at_random),
    "bars": Load(
        "bars that tell their own index, 160×96", "bars:Bars-v0", 40_000, 100_000, 1.0, {"length": 200}, at_random
    ),
}


def player(env: gym.Env[Any, Any], load: str, seed: int) -> Callable[[Any], int]:
    """A load's policy, as our runner's configuration names it."""
    assert isinstance(env.action_space, gym.spaces.Discrete)
    return LOADS[load].policy(int(env.action_space.n), seed)


class Seen(gym.Wrapper[Any, Any, Any, Any]):
    """Innermost: counts the pictures that somebody asked for, and keeps them where that is wanted."""

    def __init__(self, env: gym.Env[Any, Any], *, keep: bool = False) -> None:
        super().__init__(env)
        self.pictures = 0
        self.kept: list[np.ndarray[Any, Any]] | None = [] if keep else None

    def render(self) -> Any:
        self.pictures += 1
        picture = self.env.render()
        if self.kept is not None:
            self.kept.append(np.array(picture))
        return picture


def make(load: Load, *, keep_pictures: bool = False, **kwargs: Any) -> Seen:
    """The environment of a load, ready to be wrapped by a contender."""
    return Seen(gym.make(load.env_id, render_mode="rgb_array", **{**load.kwargs, **kwargs}), keep=keep_pictures)
