from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import pytest
from policies import Alternating  # type: ignore[import-not-found]  # as a user names it, found beside this file

from plugins.env_runner.loading import Unusable
from plugins.env_runner.policy import make_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.env_runner.policy import Policy

OBSERVATION = [0.0, 0.0, 0.3, 0.0]


@pytest.fixture
def env() -> Iterator[gym.Env[Any, Any]]:
    env = gym.make("CartPole-v1")
    yield env
    env.close()


def actions(policy: Policy, seed: int, count: int = 20) -> list[int]:
    policy.begin_episode(seed)
    return [int(policy.act(OBSERVATION)) for _ in range(count)]


def test_random_actions_depend_on_the_seed_of_the_episode_alone(env: gym.Env[Any, Any]) -> None:
    policy = make_policy({"use": "random"}, env)
    first, other = actions(policy, 3), actions(policy, 4)
    assert first != other
    assert actions(policy, 3) == first


def test_a_function_is_the_policy_and_gets_the_other_keys(env: gym.Env[Any, Any]) -> None:
    assert actions(make_policy({"use": "policies:lean"}, env), 0, 1) == [1]
    assert actions(make_policy({"use": "policies:lean", "threshold": 0.5}, env), 0, 1) == [0]


def test_a_function_with_a_parameter_env_makes_the_policy(env: gym.Env[Any, Any]) -> None:
    assert actions(make_policy({"use": "policies:make", "action": 1}, env), 0, 2) == [1, 1]


def test_a_class_makes_the_policy_and_is_reset_before_each_episode(env: gym.Env[Any, Any]) -> None:
    policy = make_policy({"use": "policies:Alternating", "first": 1}, env)
    assert actions(policy, 0, 3) == [1, 0, 1]
    assert actions(policy, 1, 3) == [1, 0, 1]
    assert isinstance(policy.act, Alternating)
    assert policy.act.resets == 2


def test_a_class_gets_the_environment_if_it_asks_for_it(env: gym.Env[Any, Any]) -> None:
    assert actions(make_policy({"use": "policies:Knowing"}, env), 0, 1) == [1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"use": "random", "sigma": 3}, 'policy: the random policy has no option "sigma"; remove it'),
        ({"use": "policies:NOT_CALLABLE"}, 'policy: "policies:NOT_CALLABLE" is int, not a function or a class'),
        (
            {"use": "policies:lean", "treshold": 1},
            (
                'policy: "policies:lean" cannot be called with the keys of its table: got an unexpected keyword '
                "argument 'treshold'; it is lean(observation: 'Any', threshold: 'float' = 0.0) -> 'int'"
            ),
        ),
        ({"use": "sb3"}, 'policy: names no checkpoint; add path = "model.zip"'),
        ({"use": "sb3", "path": "x.zip", "algoritm": "PPO"}, 'has no option "algoritm"; it has path, algorithm'),
        ({"use": "sb3", "path": "nowhere.zip"}, "policy: there is no file nowhere.zip (looked for from "),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(
    env: gym.Env[Any, Any], table: dict[str, Any], message: str
) -> None:
    with pytest.raises(Unusable) as refused:
        make_policy(table, env)
    assert message in str(refused.value)
