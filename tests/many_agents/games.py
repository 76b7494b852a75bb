"""Games of many agents that go by a script, so that every reward and every end is known. Pictures show the step."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from tests.environments.bars import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Move(NamedTuple):
    """What a step brings."""

    rewards: Mapping[Any, Any] = {}
    terminated: Sequence[Any] = ()
    truncated: Sequence[Any] = ()
    born: Sequence[Any] = ()
    infos: Mapping[Any, dict[str, Any]] = {}


class _Game:
    """What both kinds have in common."""

    metadata = {"name": "game_v0", "render_modes": ["rgb_array"], "render_fps": 30}
    render_mode: Any = "rgb_array"

    def __init__(self, agents: Sequence[Any], script: Sequence[Move] | Callable[[int], Move], **options: Any) -> None:
        self.possible_agents = list(agents)
        self._first = list(agents)
        self._script = script if callable(script) else script.__getitem__
        self.renders = 0
        self.steps = 0
        for name, value in options.items():
            setattr(self, name, value)

    def observation_space(self, agent: Any) -> Any:
        return spaces.Box(0.0, np.inf, (2,), np.float32)

    def action_space(self, agent: Any) -> Any:
        return spaces.Discrete(2)

    def render(self) -> Any:
        self.renders += 1
        return draw(self.steps, 32, 64)

    def close(self) -> None:
        pass


class InTurns(_Game, AECEnv):  # type: ignore[misc] # PettingZoo ships no types
    """Agents take turns, in the order of their list. `dead_first`: one that has ended is stepped next, as is usual."""

    dead_first = True
    observes = 0

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.steps = self.moves = 0
        self.agents = self._first[:]
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[Any, dict[str, Any]] = {agent: {} for agent in self.agents}
        self._skip_agent_selection = None
        self.agent_selection = self.agents[0]

    def observe(self, agent: Any) -> Any:
        self.observes += 1
        return np.array([self.steps, self._first.index(agent) if agent in self._first else -1], np.float32)

    def step(self, action: Any) -> None:
        self.steps += 1
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            follows = self._next(agent)
            self._was_dead_step(action)
            if not self.dead_first and self.agents:
                self.agent_selection = follows
            return
        move = self._script(self.moves)
        self.moves += 1
        self._cumulative_rewards[agent] = 0
        self._clear_rewards()
        for born in move.born:
            self._add(born)
        for who, reward in move.rewards.items():
            self.rewards[who] = reward
        for who in move.terminated:
            self.terminations[who] = True
        for who in move.truncated:
            self.truncations[who] = True
        for who, info in move.infos.items():
            self.infos[who] = info
        self._accumulate_rewards()
        self.agent_selection = self._next(agent)
        if self.dead_first:
            self._deads_step_first()

    def _next(self, agent: Any) -> Any:
        place = self.agents.index(agent) + 1
        others = [*self.agents[place:], *self.agents[:place]]
        if self.dead_first:  # they come before who is named here
            others = [other for other in others if not (self.terminations[other] or self.truncations[other])] or others
        return others[0]

    def _add(self, agent: Any) -> None:
        self.agents.append(agent)
        self.rewards[agent] = self._cumulative_rewards[agent] = 0
        self.terminations[agent] = self.truncations[agent] = False
        self.infos[agent] = {}


class AtOnce(_Game, ParallelEnv):  # type: ignore[misc] # PettingZoo ships no types
    """Agents act at once."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.steps = 0
        self.agents = self._first[:]
        return self._observations(self.agents), {agent: {"born": 0} for agent in self.agents}

    def step(self, actions: dict[Any, Any]) -> Any:
        if not self.agents:
            return {}, {}, {}, {}, {}
        move = self._script(self.steps)
        self.steps += 1
        self.agents += move.born
        told = self.agents[:]
        self.agents = [agent for agent in told if agent not in (*move.terminated, *move.truncated)]
        return (
            self._observations(told),
            {agent: move.rewards.get(agent, 0.0) for agent in told},
            {agent: agent in move.terminated for agent in told},
            {agent: agent in move.truncated for agent in told},
            {agent: move.infos.get(agent, {}) for agent in told},
        )

    def _observations(self, agents: Sequence[Any]) -> dict[Any, Any]:
        return {agent: np.array([self.steps, place], np.float32) for place, agent in enumerate(agents)}


def play(env: Any, *, most: int = 10_000) -> dict[Any, float]:
    """An episode in turns, to its end, with a `None` step for each that has ended; what `last()` says each got."""
    env.reset()
    totals: dict[Any, float] = defaultdict(float)
    for agent in env.agent_iter(most):
        _, reward, terminated, truncated, _ = env.last()
        totals[agent] += reward
        env.step(None if terminated or truncated else 1)
    return dict(totals)


def play_at_once(env: Any, *, most: int = 10_000) -> dict[Any, float]:
    """An episode at once, to its end; what each got."""
    env.reset()
    totals: dict[Any, float] = defaultdict(float)
    for _ in range(most):
        if not env.agents:
            break
        for agent, reward in env.step(dict.fromkeys(env.agents, 1))[1].items():
            totals[agent] += reward
    return dict(totals)
