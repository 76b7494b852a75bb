"""Policies of every shape that a configuration may name."""

from __future__ import annotations

from typing import Any

NOT_CALLABLE = 3


def lean(observation: Any, threshold: float = 0.0) -> int:
    return int(observation[2] > threshold)


def make(env: Any, action: int = 0) -> Any:
    assert env.action_space.contains(action)
    return lambda _observation: action


class Alternating:
    """0, 1, 0, 1, … from the beginning of each episode."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.resets = 0
        self.next = first

    def reset(self) -> None:
        self.resets += 1
        self.next = self.first

    def __call__(self, observation: Any) -> int:
        action, self.next = self.next, 1 - self.next
        return action


class Knowing:
    def __init__(self, env: Any) -> None:
        self.last = int(env.action_space.n) - 1

    def __call__(self, observation: Any) -> int:
        return self.last


def broken(observation: Any) -> int:
    raise IndexError("no such observation")


def broken_later(observation: Any) -> int:
    if observation[1] == 4:
        raise IndexError("no such step")
    return 0
