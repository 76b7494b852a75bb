"""The cast: the agents of one episode, what each has received, and when each has come to its end.

An agent's row carries all that it received since its row before: where agents take turns, others act in between, and
what they bring it is its reward, too. What comes behind its last row is in its return alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugins.recorder.telemetry import Tally
from plugins.recorder.triggers import success_of
from plugins.recorder.values import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plugins.recorder.tape import Shown
    from plugins.recorder.telemetry import Episode, Telemetry


class Cast:
    """The agents of the telemetry's open episode, by the environment's own ids of them."""

    def __init__(self, telemetry: Telemetry, agents: Iterable[Any]) -> None:
        assert telemetry.episode is not None
        self._telemetry = telemetry
        self._episode: Episode = telemetry.episode
        self._episode.ends_by_leaving = True
        self._tallies: dict[Any, Tally] = {}
        self._names: dict[Any, str] = {}
        self._playing = 0
        """How many have not ended."""
        for agent in agents:
            self._join(agent)

    def acts(self, agent: Any) -> bool:
        """Whether a step of this agent is one: it has not come to its end before."""
        tally = self._tallies.get(agent)
        return tally is not None and tally.outcome is None

    def receive(self, rewards: Mapping[Any, Any]) -> None:
        """The rewards behind a step, of whoever acted in it; a new agent joins by one."""
        tallies = self._tallies
        for agent, reward in rewards.items():
            tally = tallies.get(agent)
            if tally is None:
                tally = self._join(agent)
            kind = type(reward)
            plain = kind is float or (kind is int and -_EXACT < reward < _EXACT)
            tally.owed += reward if plain else number(reward, "", {})

    def count(self, agent: Any) -> None:
        """A step of an agent of which nothing is told."""
        tally = self._tallies[agent]
        tally.steps += 1
        tally.total += tally.owed
        tally.owed = 0.0

    def tell(  # noqa: PLR0917 - each keyword costs as much as a part of the work
        self,
        agent: Any,
        action: Any,
        observation: Any,
        terminated: Any,
        truncated: Any,
        info: Any,
        step_seconds: float,
        shown: Shown,
    ) -> None:
        """A step of an agent as a row."""
        tally = self._tallies[agent]
        reward, tally.owed = tally.owed, 0.0
        self._telemetry.step(
            action, observation, reward, terminated, truncated, info, step_seconds, shown, self._names[agent]
        )

    def changed(
        self, rewards: Mapping[Any, Any], terminations: Mapping[Any, Any], truncations: Mapping[Any, Any]
    ) -> bool:
        """Whether anybody has come to its end, or left, so that there is something to settle."""
        return len(rewards) != self._playing or True in terminations.values() or True in truncations.values()

    def settle(
        self,
        present: Sequence[Any],
        terminations: Mapping[Any, Any],
        truncations: Mapping[Any, Any],
        infos: Mapping[Any, Any],
    ) -> bool:
        """Take note of who has come to its end, and who has left; whether the episode is over, for all agents.

        It is over when nobody is `present` who has not come to its end. Who has, and is present, may still receive.
        """
        for agent in present:
            if agent not in self._tallies:
                self._join(agent)
        here = set(present)
        goes_on = False
        for agent, tally in self._tallies.items():
            if tally.ended:
                continue
            if tally.outcome is None and terminations.get(agent):
                tally.outcome = "terminated"
            elif tally.outcome is None and truncations.get(agent):
                tally.outcome = "truncated"
            if tally.outcome is None:
                goes_on = goes_on or agent in here
            else:
                tally.success = _latest(success_of(infos.get(agent)), tally.success)
                if agent not in here:
                    self._leave(agent, tally)
        if goes_on:
            return False
        for agent, tally in self._tallies.items():
            if not tally.ended:
                tally.outcome = tally.outcome or "terminated"  # left without a word
                self._leave(agent, tally)
        return True

    def _join(self, agent: Any) -> Tally:
        name = str(agent)
        if name in self._episode.agents:
            name = repr(agent)  # 1 and "1"
        tally = self._tallies[agent] = self._episode.agents[name] = Tally()
        self._names[agent] = name
        self._playing += 1
        return tally

    def _leave(self, agent: Any, tally: Tally) -> None:
        self._telemetry.leave(self._names[agent])
        self._playing -= 1
        assert tally.ended


_EXACT = 2**53
"""Integers below it are exact as floats."""


def _latest(said: bool | None, before: bool | None) -> bool | None:  # noqa: FBT001 - values that are chosen from
    return before if said is None else said
