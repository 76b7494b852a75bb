"""The telemetry of a batch: many environments that are stepped by one call, each with episodes and steps of its own.

Of steps that are to be told, each environment's is a row. All others are counted for all environments at once, and an
episode learns its counts when somebody looks at it. What goes into a row, and when an episode begins anew, depends on
how the batch resets:

    next step   The step behind an episode's end is the next one's reset. It is nobody's step.
    same step   The step that ends an episode returns the next one's first observation already. Its own, and its own
                info, are under `final_obs` and `final_info`.
    disabled    Who steps resets.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plugins.recorder.tape import NOTHING_SHOWN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from plugins.recorder.apart import Row, Rows
    from plugins.recorder.tape import Shown
    from plugins.recorder.telemetry import Episode, Telemetry


class Over(NamedTuple):
    """An episode that has come to its end."""

    place: int
    episode: Episode


class Opening(NamedTuple):
    """With what an episode begins in the telemetry (see `Telemetry.begin`)."""

    captured: bool
    why: str
    shown: Shown
    """The picture of its reset."""


class BatchStep:
    """One step of a batch, row by row. What nobody asks for is not taken apart."""

    def __init__(self, rows: Rows, spaces: tuple[Any, Any], actions: Any, result: Any, seconds: float) -> None:
        """`spaces` are those of one environment's observations and actions. Raises for what is no step's result."""
        self.seconds = seconds
        self._rows = rows
        self._spaces = spaces
        self._actions = actions
        self._observations, rewards, terminated, truncated, self._infos = result
        self.rewards = rows.vector(rewards)
        self.terminated = rows.vector(terminated)
        self.truncated = rows.vector(truncated)
        self.ended: list[int] = []
        """The places whose episode ended by it."""
        if np.count_nonzero(self.terminated) or np.count_nonzero(self.truncated):
            self.ended = np.flatnonzero(np.logical_or(self.terminated, self.truncated)).tolist()
        self._plain: list[list[Any]] | None = None
        self._action: Row | None = None
        self._observation: Row | None = None
        self._info: Row | None = None

    @property
    def plain(self) -> list[list[Any]]:
        """Rewards, terminated and truncated as lists, whose items are cheap to get."""
        if self._plain is None:
            self._plain = [self.rewards.tolist(), self.terminated.tolist(), self.truncated.tolist()]
        return self._plain

    def action(self, place: int) -> Any:
        """What was asked of an environment."""
        if self._action is None:
            self._action = self._rows.of(self._actions, self._spaces[1])
        return self._action(place)

    def observation(self, place: int) -> Any:
        """What stands in an environment's row of the observations."""
        if self._observation is None:
            self._observation = self._rows.of(self._observations, self._spaces[0])
        return self._observation(place)

    def info(self, place: int) -> Any:
        """An environment's own info."""
        if self._info is None:
            self._info = self._rows.of_info(self._infos)
        return self._info(place)

    def total_reward(self, place: int) -> float | None:  # noqa: ARG002 - other libraries have batches that say it
        """The return of an episode that ended, where somebody knows better than the sum of its rewards."""
        return None

    def final(self, place: int) -> tuple[Any, Any]:
        """The last observation and info of an episode that the next one has followed already; None where unknown."""
        info = self.info(place)
        if not isinstance(info, dict):
            return None, info
        return info.get("final_obs"), info.get("final_info", info)

    def first(self, place: int) -> tuple[Any, Any]:
        """The first observation and info of an episode that began by this step."""
        info = self.info(place)
        if not isinstance(info, dict) or "final_info" not in info:
            return self.observation(place), {}  # the info was the last step's
        own = {key: value for key, value in info.items() if key not in ("final_obs", "final_info")}
        return self.observation(place), own


class Batch:
    """The telemetry of the environments of a batch that are looked at, each by its place among them."""

    def __init__(self, streams: Sequence[Telemetry], rows: Rows, spaces: tuple[Any, Any] = (None, None)) -> None:
        """One stream for each of the rows; what has begun in them before is over."""
        self.streams = streams
        self.rows = rows
        self.numbers = [-1] * len(rows)
        """The index of each environment's last episode."""
        self._spaces = spaces
        self._totals = np.zeros(len(rows))
        """The return of each open episode whose steps are counted here."""
        self._count = 0
        """Steps of the batch."""
        self._begun = [0] * len(rows)
        """The count when each open episode began."""
        for place, stream in enumerate(streams):
            stream.settle = partial(self._settle, place)

    # Episodes --------------------------------------------------------------------------------------------------------

    def begin(
        self,
        place: int,
        observation: Any,
        info: Any,
        opening: Opening,
        *,
        seed: int | None = None,
        number: int | None = None,
    ) -> None:
        """Begin an environment's next episode, or the one of this number. One that is open ends as aborted."""
        stream = self.streams[place]
        if stream.episode is not None:
            stream.abort()
        self.numbers[place] = episode = self.numbers[place] + 1 if number is None else number
        shown = opening.shown
        stream.begin(
            observation,
            info,
            seed=seed,
            episode=episode,
            captured=opening.captured,
            why=opening.why,
            recording=shown.recording,
            first_frame=shown.frame,
        )
        self.began(place, episode, shown)

    def began(self, place: int, number: int, shown: Shown) -> None:
        """An episode of this number has begun in an environment's stream."""
        self.numbers[place] = number
        self._totals[place] = 0.0
        self._begun[place] = self._count
        opened = self.streams[place].episode
        if opened is not None and shown.frame is not None:
            opened.shown_in = shown.recording

    def apart(self, observations: Any, infos: Any) -> tuple[Row, Row]:
        """What gives each environment's observation and info, of those that a reset returned."""
        return self.rows.of(observations, self._spaces[0]), self.rows.of_info(infos)

    def abort(self, places: Iterable[int]) -> None:
        """End what is open of these environments' episodes before the end."""
        for place in places:
            self.streams[place].abort()

    @property
    def told(self) -> list[int]:
        """The places of whose steps there are events now."""
        return [
            place
            for place, stream in enumerate(self.streams)
            if (episode := stream.episode) is not None and episode.told
        ]

    # Steps -----------------------------------------------------------------------------------------------------------

    def passes(self, result: Any) -> bool:
        """Count a step of which nothing is to be said; False, and uncounted, where somebody's episode is over by it."""
        # 1.5 µs for 64 environments.
        _, rewards, terminated, truncated, _ = result
        rows = self.rows
        plain = type(rewards) is type(terminated) is type(truncated) is np.ndarray
        if rows.partial or not plain or rewards.shape != self._totals.shape:
            rewards, terminated, truncated = map(rows.vector, (rewards, terminated, truncated))
        if np.count_nonzero(terminated) or np.count_nonzero(truncated):
            return False
        self._add(rewards)
        return True

    def take(self, actions: Any, result: Any, seconds: float) -> BatchStep:
        """A step, to be told row by row and then counted. Raises for what is no step's result."""
        return BatchStep(self.rows, self._spaces, actions, result, seconds)

    def count(self, step: BatchStep) -> None:
        """Count a step, behind all that is told of it, and before what begins by it."""
        self._add(step.rewards)

    def tell_ends(self, step: BatchStep) -> list[Over]:
        """The last steps of episodes that the next ones have followed already, so no picture shows them."""
        over = []
        for place in step.ended:
            episode = self.tell(place, step, *step.final(place), NOTHING_SHOWN)
            if episode is not None:
                over.append(Over(place, episode))
        return over

    def tell_steps(self, step: BatchStep, opened: Collection[int], shown: Shown, in_picture: int) -> list[Over]:
        """All steps that are to be told, but for those of whom an episode was `opened` by it; whose episode is over.

        The picture that is `shown` shows so many environments, from the first on.
        """
        over = []
        if shown.frame is not None:
            self._note_shown(shown, in_picture)
        told = self.told
        for place in told if len(told) == len(self.streams) else sorted({*told, *step.ended}):
            if place in opened:
                continue
            row_shown = shown if place < in_picture else NOTHING_SHOWN
            episode = self.tell(place, step, step.observation(place), step.info(place), row_shown)
            if episode is not None:
                over.append(Over(place, episode))
        return over

    def tell(self, place: int, step: BatchStep, observation: Any, info: Any, shown: Shown) -> Episode | None:
        """One environment's step, where it is to be told, or ended its episode; the episode, where that is over."""
        stream = self.streams[place]
        episode = stream.episode
        if episode is None:
            return None
        rewards, terminations, truncations = step.plain
        terminated, truncated = terminations[place], truncations[place]
        total = step.total_reward(place) if terminated or truncated else None
        if episode.told:
            over = stream.step(
                step.action(place), observation, rewards[place], terminated, truncated, info, step.seconds, shown,
                total_reward=total,
            )  # fmt: skip
            return episode if over else None
        if shown.frame is not None and not episode.shown_in:
            episode.shown_in = shown.recording
        if not terminated and not truncated:
            return None
        self._settle(place)
        (tally,) = episode.agents.values()
        tally.steps += 1  # this one is not counted yet
        tally.total += float(rewards[place])
        stream.end(info, "terminated" if terminated else "truncated", total)
        return episode

    # Its parts -------------------------------------------------------------------------------------------------------

    def _add(self, rewards: np.ndarray[Any, Any]) -> None:
        self._count += 1
        try:
            np.add(self._totals, rewards, out=self._totals)
        except RuntimeWarning:  # where warnings are errors: infinities of both signs made a NaN, and all has been added
            return

    def _settle(self, place: int) -> None:
        """Let an episode that is counted here know its counts."""
        episode = self.streams[place].episode
        if episode is not None and not episode.told:
            (tally,) = episode.agents.values()
            tally.steps = episode.steps = self._count - self._begun[place]
            tally.total = float(self._totals[place])

    def _note_shown(self, shown: Shown, in_picture: int) -> None:
        for stream in self.streams[:in_picture]:
            if stream.episode is not None and not stream.episode.shown_in:
                stream.episode.shown_in = shown.recording


def seed_of(seed: Any, index: int) -> int | None:
    """The seed of one sub-environment, out of what all were reset with."""
    if isinstance(seed, (int, np.integer)):
        return int(seed) + index
    if isinstance(seed, (list, tuple, np.ndarray)) and index < len(seed):
        return None if seed[index] is None else int(seed[index])
    return None


def chosen_of(indices: Sequence[int] | None, size: int | None) -> list[int] | None:
    """The environments that `indices` names; None for all. Raises `ValueError` where it names none, or others.

    `size` is how many there are; None where that is not known yet.
    """
    if indices is None:
        return None
    chosen = [int(index) for index in indices]
    most = math.inf if size is None else size
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= index < most for index in chosen):
        raise ValueError(f"indices must name environments from 0 to {most - 1}, each once, not {indices!r}")
    return chosen
