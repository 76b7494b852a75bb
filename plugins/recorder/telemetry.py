"""Telemetry: the episodes and steps of one environment, as events."""

from __future__ import annotations

import math
import os
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from plugins.events import EpisodeEnded, EpisodeStarted, StepRecorded, WorkerEnded, WorkerStarted
from plugins.recorder.spool import ITEM_BYTES, encode
from plugins.recorder.tape import NOTHING_SHOWN
from plugins.recorder.triggers import success_of
from plugins.recorder.values import POLICIES, number, small

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kernel.event import Event
    from plugins.recorder.line import Line
    from plugins.recorder.live import Window
    from plugins.recorder.spool import Outbox
    from plugins.recorder.tape import Shown

Tells = Literal["all", "captured", "episodes", "none"]
"""Of which steps there are events: of all, of those of captured episodes, or of none; `none` has no episodes either."""


LONE = ("agent_0",)


class Telemetry:
    """The episodes and steps of one environment of the session. One thread at a time uses it."""

    def __init__(
        self,
        line: Line,
        *,
        env_id: str,
        tells: Tells = "all",
        values: Literal["small", "all", "none"] = "small",
        agents: Sequence[str] = ("agent_0",),
    ) -> None:
        """An episode is over when all of `agents`, and any other that stepped, have terminated or been truncated."""
        self.line = line
        self.worker = -1
        self.env_id = env_id
        self.episode: Episode | None = None
        """The one that is open."""
        self.training_step: int | None = None
        """What the script says the training's step is."""
        self._tells = tells
        self._plain = POLICIES[values]
        self._plain_action = POLICIES["all"] if values == "all" else small
        self._agents = tuple(agents)
        self.taking_part = [] if self._agents == LONE else list(agents)
        """Who takes part in the next episode, for its start to tell."""
        self._steps_before = 0
        self.outbox: Outbox = line.producer.outbox
        """Where to look whether somebody watches."""
        self.tells_losses = True
        """Whether its end counts what was dropped on the line; of several on one line, one does."""
        self.window: Window | None = None
        """Through which the environment is watched live."""
        self.settle: Callable[[], None] | None = None
        """Where untold steps are counted elsewhere (see `batch`): brings the open episode up to date."""

    def start(self, worker: int) -> None:
        """Begin, as this worker of the session, on a line that is connected."""
        self.worker = worker
        self.episode = None
        self._steps_before = 0
        self.outbox = self.line.producer.outbox
        session = self.line.session
        self.line.say(WorkerStarted(session=session, worker=worker, pid=os.getpid(), env_id=self.env_id))

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        episode = self.episode
        if episode is None:
            return self._steps_before
        untold = [tally.steps for tally in episode.agents.values()]
        return self._steps_before + max(episode.steps, *untold)

    def begin(
        self,
        observation: Any,
        info: Any,
        *,
        seed: int | None,
        episode: int,
        evaluation: bool = False,
        captured: bool,
        why: str,
        recording: str | None = None,
        first_frame: int | None = None,
    ) -> None:
        """Begin an episode; the one before has ended. `first_frame` is the index that the reset's picture will have."""
        line = self.line
        self.episode = opened = Episode(episode, evaluation, self._agents)
        opened.recording = recording
        opened.told = self._tells == "all" or (captured and self._tells == "captured")
        if self._tells == "none":
            return
        nonfinite: dict[str, str] = {}
        line.say(
            EpisodeStarted(
                session=line.session,
                worker=self.worker,
                episode=episode,
                env_id=self.env_id,
                seed=None if seed is None else str(seed),
                observation=self._plain(observation, "observation", nonfinite),
                info=self._plain(info, "info", nonfinite),
                capture=why,
                captured=captured,
                recording=recording,
                first_frame=first_frame,
                agents=self.taking_part,
                time=time(),
                evaluation=evaluation,
                training_step=self.training_step,
                nonfinite=nonfinite,
            )
        )

    def captured(self) -> None:
        """Say that a recording of the open episode has begun in the midst of it: its steps are told from now on."""
        if self.episode is not None and self._tells == "captured":
            if self.settle is not None:
                self.settle()
            self.episode.told = True

    def mute(self) -> None:
        """Say nothing of episodes and steps."""
        self._tells = "none"

    def step(  # noqa: C901, PLR0912, PLR0917 - each call and each keyword costs as much as a part of the work
        self,
        action: Any,
        observation: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        info: Any,
        step_seconds: float,
        shown: Shown = NOTHING_SHOWN,
        agent: str = "agent_0",
        total_reward: float | None = None,
    ) -> bool:
        """One step of one agent; whether the episode is over by it, for all agents.

        Its arrays may change as soon as this returns. A step outside of an episode, or of an agent that has ended, is
        no step, and is left out. `total_reward` is the return of an agent that ends, where somebody knows better than
        the sum of its rewards.
        """
        # 2 µs; the writer thread does the rest.
        episode = self.episode
        if episode is None:
            return False
        now = time()
        tally = episode.agents.get(agent)
        if tally is None:
            tally = episode.agents[agent] = Tally()
        elif tally.ended:
            return False
        tally.steps = step = tally.steps + 1
        if step > episode.steps:  # noqa: PLR1730 - max() costs a call; the first agent to take its n-th step begins the environment's n-th
            episode.steps = step
        recording, frame, frames = shown
        if frame is not None and not episode.shown_in:
            episode.shown_in = recording

        nonfinite: dict[str, str] = {}
        plain_reward: float | None
        if type(reward) is float and math.isfinite(reward):
            plain_reward = reward
            tally.total += reward
        else:
            value = number(reward, "reward", nonfinite)
            plain_reward = None if nonfinite else value
            tally.total += value

        line = self.line
        meter = line.meter
        if meter.handed_bytes > line.look_at:
            line.look()
        if line.fullness == 2:
            meter.steps_dropped += 1
        elif episode.told:
            packed = encode(
                _step_recorded(
                    line.session,
                    self.worker,
                    agent,
                    episode.index,
                    step,
                    self._plain_action(action, "action", nonfinite),
                    plain_reward,
                    bool(terminated),
                    bool(truncated),
                    self._plain(observation, "observation", nonfinite),
                    self._plain(info, "info", nonfinite),
                    frame,
                    frames,
                    None if recording == episode.recording else recording,
                    now,
                    step_seconds,
                    nonfinite,
                )
            )
            meter.handed_bytes += len(packed) + ITEM_BYTES
            line.say_packed(packed)
        if self.outbox.watched is not None and self.window is not None:
            self.show(captured=frame is not None)
        if (terminated or truncated) and not episode.ends_by_leaving:
            if total_reward is not None:
                tally.total = total_reward
            self._end_agent(episode, agent, tally, "terminated" if terminated else "truncated", success_of(info))
            return self._over(episode)
        return False

    def show(self, *, captured: bool) -> None:
        """Behind a step: let those see it who watch, if it is time. `captured`: the step's picture was recorded."""
        episode = self.episode
        if episode is None or self.window is None:
            return
        tallies = episode.agents.values()
        self.window.step(
            self.outbox,
            self.worker,
            episode=episode.index,
            step=max([tally.steps for tally in tallies], default=0),
            total=sum([tally.total for tally in tallies]),
            captured=captured,
            evaluation=episode.evaluation,
        )

    @property
    def watched(self) -> bool:
        """Whether somebody wants to see a picture now."""
        window = self.window
        return window is not None and window.due(self.outbox, self.worker)

    def untold(self) -> Tally | None:
        """Where nothing has to be said of a lone agent's steps, its tally: count there, and call `end` at the end."""
        episode = self.episode
        if episode is None or episode.told or len(episode.agents) != 1:
            return None
        (tally,) = episode.agents.values()
        return None if tally.ended else tally

    def end(self, info: Any, outcome: Literal["terminated", "truncated"], total_reward: float | None = None) -> None:
        """End the episode of a lone agent whose steps were counted in `untold`; `total_reward` as in `step`."""
        episode = self.episode
        if episode is not None:
            for agent, tally in episode.agents.items():
                episode.steps = max(episode.steps, tally.steps)
                if total_reward is not None:
                    tally.total = total_reward
                self._end_agent(episode, agent, tally, outcome, success_of(info))
            self._over(episode)

    def abort(self) -> Episode | None:
        """End the open episode before its end; which it was."""
        episode = self.episode
        if episode is None:
            return None
        if self.settle is not None:
            self.settle()
        for agent, tally in episode.agents.items():
            episode.steps = max(episode.steps, tally.steps)
            if not tally.ended:
                noted = tally.outcome is not None  # it has not left, and had come to its end all the same
                self._end_agent(episode, agent, tally, tally.outcome or "aborted", tally.success if noted else None)
        self._over(episode)
        return episode

    def leave(self, agent: str) -> None:
        """End the episode of an agent whose outcome is noted in its tally, and with the last agent the episode."""
        episode = self.episode
        if episode is not None:
            tally = episode.agents[agent]
            if tally.outcome is not None and not tally.ended:
                self._end_agent(episode, agent, tally, tally.outcome, tally.success)
                self._over(episode)

    def close(self, outcome: Literal["finished", "failed"]) -> None:
        """Say that the environment has ended; the last episode has, too."""
        meter = self.line.meter
        self.line.say(
            WorkerEnded(
                session=self.line.session,
                worker=self.worker,
                outcome=outcome,
                steps=self.env_steps,
                frames_dropped=meter.frames_dropped if self.tells_losses else 0,
                steps_dropped=meter.steps_dropped if self.tells_losses else 0,
            )
        )

    def _over(self, episode: Episode) -> bool:
        if all(tally.ended for tally in episode.agents.values()):
            self._steps_before += episode.steps
            self.episode = None
            return True
        return False

    def _end_agent(
        self,
        episode: Episode,
        agent: str,
        tally: Tally,
        outcome: Literal["terminated", "truncated", "aborted"],
        success: bool | None,  # noqa: FBT001 - a value that is said
    ) -> None:
        tally.ended = True
        tally.total += tally.owed
        tally.owed = 0.0
        if success is not None:
            tally.success = success
        if self._tells == "none":
            return
        nonfinite: dict[str, str] = {}
        total = number(tally.total, "total_reward", nonfinite)
        self.line.say(
            EpisodeEnded(
                session=self.line.session,
                worker=self.worker,
                agent=agent,
                episode=episode.index,
                env_id=self.env_id,
                total_reward=None if nonfinite else total,
                steps=tally.steps,
                outcome=outcome,
                success=success,
                env_steps=self.env_steps,
                seconds=perf_counter() - episode.began,
                time=time(),
                recording=episode.shown_in,
                evaluation=episode.evaluation,
                training_step=self.training_step,
                nonfinite=nonfinite,
            )
        )


class Episode:
    """An open episode."""

    __slots__ = (
        "agents",
        "began",
        "ends_by_leaving",
        "evaluation",
        "index",
        "recording",
        "shown_in",
        "steps",
        "told",
    )

    def __init__(self, index: int, evaluation: bool, agents: Sequence[str]) -> None:  # noqa: FBT001 - a value that is kept
        self.index = index
        self.evaluation = evaluation
        self.agents = {agent: Tally() for agent in agents}
        self.began = perf_counter()
        self.steps = 0
        self.told = False
        """Whether there are events of its steps."""
        self.ends_by_leaving = False
        """An agent may receive rewards behind its last step, so it ends when it has left (`leave`), and not before."""
        self.recording: str | None = None
        """The recording that was open when it began."""
        self.shown_in: str | None = None
        """The first recording that shows some of it."""

    @property
    def total_reward(self) -> float | None:
        """The sum over all agents; None where it is not finite."""
        total = sum([number(tally.total, "", {}) for tally in self.agents.values()])
        return total if math.isfinite(total) else None

    @property
    def success(self) -> bool | None:
        """Whether it was a success for all agents whose info said so; None where none did."""
        known = [tally.success for tally in self.agents.values() if tally.success is not None]
        return all(known) if known else None


class Tally:
    """One agent's episode so far."""

    __slots__ = ("ended", "outcome", "owed", "steps", "success", "total")

    def __init__(self) -> None:
        self.steps = 0
        self.total = 0.0
        self.owed = 0.0
        """What it got since its last step, where others act in between; part of `total` at the latest at its end."""
        self.outcome: Literal["terminated", "truncated"] | None = None
        """What it will have ended by, where it ends by leaving."""
        self.ended = False
        self.success: bool | None = None


def _by_position(kind: type[Event]) -> Callable[..., Any]:
    """What makes the same words as the event, of values by position: in a third of the time that keywords take."""

    def missing() -> Any:
        raise TypeError(f"{kind.__name__} is made of all of its values, by position")

    fields = []
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            fields.append((field.name, Any, msgspec.field(default=field.default)))
        elif field.default_factory is not msgspec.NODEFAULT:
            fields.append((field.name, Any, msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, Any, msgspec.field(default_factory=missing)))
    config = kind.__struct_config__
    return msgspec.defstruct(kind.__name__, fields, tag=config.tag, omit_defaults=config.omit_defaults, gc=False)


_step_recorded = _by_position(StepRecorded)
