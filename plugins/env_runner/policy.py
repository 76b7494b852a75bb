"""Policies: what chooses the actions, at random, from a checkpoint, or by a user's own function.

    use = "random"           draws from the action space, which is seeded with the episode's seed
    use = "sb3"              a Stable-Baselines3 checkpoint: path, algorithm, deterministic, vec_normalize
    use = "module:function"  a user's own; the other keys of the table are its keyword arguments:
        a function without a parameter `env` is the policy: it is called with each observation
        a function with a parameter `env` makes the policy: it is called once, with the environment
        a class makes the policy, too; it gets the environment if it has a parameter `env`

A policy may have a method `reset()`, which is called before each episode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.env_runner.loading import Unusable, load, said

if TYPE_CHECKING:
    import gymnasium

Act = Callable[[Any], Any]
"""Chooses an action for an observation."""


class Policy:
    """A policy, ready to act."""

    def __init__(self, act: Act, begin_episode: Callable[[int], None]) -> None:
        self.act = act
        self.begin_episode = begin_episode
        """To be called with the episode's seed."""


def make_policy(table: Mapping[str, Any], env: gymnasium.Env[Any, Any]) -> Policy:
    """The policy that a `policy` table asks for. Raises `Unusable` with what is to be mended."""
    keys = {key: value for key, value in table.items() if key != "use"}
    if table["use"] == "random":
        return _random(keys, env)
    if table["use"] == "sb3":
        return _checkpoint(keys, env)
    if ":" not in table["use"]:
        raise Unusable(f'policy: "{table["use"]}" is not known; use "random", "sb3" or "module:function"')
    return _users_own(table["use"], keys, env)


def _random(keys: Mapping[str, Any], env: gymnasium.Env[Any, Any]) -> Policy:
    if keys:
        raise Unusable(f"policy: the random policy has no option {_listed(keys)}; remove it")
    space = env.action_space

    def seed(seed: int) -> None:
        space.seed(seed)

    return Policy(lambda _observation: space.sample(), seed)


def _users_own(use: str, keys: Mapping[str, Any], env: gymnasium.Env[Any, Any]) -> Policy:
    found = load("policy", use)
    if not callable(found):
        raise Unusable(f'policy: "{use}" is {type(found).__name__}, not a function or a class')
    parameters = inspect.signature(found).parameters
    given = {**keys, "env": env} if "env" in parameters else dict(keys)
    builds = isinstance(found, type) or "env" in parameters
    try:
        inspect.signature(found).bind(*(() if builds else (None,)), **given)
    except TypeError as error:
        raise Unusable(
            f'policy: "{use}" cannot be called with the keys of its table: {error}; it is {use.partition(":")[2]}'
            f"{inspect.signature(found)}"
        ) from None
    if not builds:
        return Policy(partial(found, **given) if given else found, lambda _seed: None)
    try:
        act = found(**given)
    except Exception as error:
        raise Unusable(f'policy: "{use}" raised {said(error)}') from error
    if not callable(act):
        raise Unusable(f'policy: "{use}" made {type(act).__name__}, which cannot be called with an observation')
    reset = getattr(act, "reset", None)
    return Policy(act, lambda _seed: reset() if reset is not None else None)


def _checkpoint(keys: Mapping[str, Any], env: gymnasium.Env[Any, Any]) -> Policy:
    keys = dict(keys)
    path, algorithm = keys.pop("path", None), keys.pop("algorithm", "PPO")
    deterministic, vec_normalize = keys.pop("deterministic", True), keys.pop("vec_normalize", None)
    if keys:
        raise Unusable(
            f"policy: a Stable-Baselines3 checkpoint has no option {_listed(keys)}; it has path, algorithm, "
            "deterministic and vec_normalize"
        )
    if path is None:
        raise Unusable('policy: names no checkpoint; add path = "model.zip"')
    for file in (path, vec_normalize):
        # Stable-Baselines3 adds the ending itself.
        if file is not None and not Path(file).is_file() and not Path(f"{file}.zip").is_file():
            raise Unusable(f"policy: there is no file {file} (looked for from {Path.cwd()})")
    kind = _algorithm(algorithm)
    try:
        model = kind.load(path)
        observe = _normalizer(vec_normalize, env)
    except Exception as error:
        raise Unusable(f'policy: loading "{path}" with the algorithm {algorithm} raised {said(error)}') from error
    state: Any = None
    begins = True

    def begin(_seed: int) -> None:
        nonlocal state, begins
        state, begins = None, True

    def act(observation: Any) -> Any:
        nonlocal state, begins
        action, state = model.predict(
            observe(observation), state=state, episode_start=[begins], deterministic=deterministic
        )
        begins = False
        return action

    return Policy(act, begin)


def _algorithm(name: str) -> Any:
    """The class of an algorithm of Stable-Baselines3, or of another package: `sb3_contrib:RecurrentPPO`."""
    try:
        import stable_baselines3  # noqa: PLC0415 - brings PyTorch: imported only for those who use it
    except ImportError:
        raise Unusable('policy: Stable-Baselines3 is not installed; run pip install "stepreel[sb3]"') from None
    if ":" in name:
        return load("policy", name)
    found = getattr(stable_baselines3, name, None)
    if found is None:
        raise Unusable(
            f'policy: Stable-Baselines3 has no algorithm "{name}"; it has A2C, DDPG, DQN, PPO, SAC and TD3, and '
            'those of other packages are written as "sb3_contrib:RecurrentPPO"'
        )
    return found


def _normalizer(vec_normalize: str | None, env: gymnasium.Env[Any, Any]) -> Act:
    """How observations are to be normalized: as they were in training, by the statistics that were saved then."""
    if vec_normalize is None:
        return lambda observation: observation
    from stable_baselines3.common.vec_env import (  # noqa: PLC0415 - see `_algorithm`
        DummyVecEnv,
        VecNormalize,
    )

    normalizer = VecNormalize.load(vec_normalize, DummyVecEnv([lambda: env]))
    normalizer.training = False
    normalize: Act = normalizer.normalize_obs
    return normalize


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
