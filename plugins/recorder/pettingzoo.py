"""Drop-in replacements for PettingZoo's own `RecordVideo` and `RecordVideoParallel` (1.27).

One environment, one picture, one recording; a row and an end of the episode for each agent.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pettingzoo.utils.env import ActionType, AECEnv, AgentID, ObsType, ParallelEnv
from pettingzoo.utils.wrappers.base import BaseWrapper
from pettingzoo.utils.wrappers.base_parallel import BaseParallelWrapper

from plugins.recorder.cast import Cast
from plugins.recorder.describe import env_id_of
from plugins.recorder.filming import Filming, about_session, order, refuse_render_mode
from plugins.recorder.requests import Decision
from plugins.recorder.tape import NOTHING_SHOWN

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from plugins.events import Keep, VideoAvailable
    from plugins.recorder.camera import Camera
    from plugins.recorder.tape import Shown
    from plugins.recorder.telemetry import Episode


class Turn(NamedTuple):
    """What a step of the environment did."""

    actions: Mapping[Any, Any]
    """Of those who acted; nobody did where a dead agent was stepped."""
    rewards: Mapping[Any, Any]
    """Of all who received any, whoever acted."""
    terminations: Mapping[Any, Any]
    truncations: Mapping[Any, Any]
    infos: Mapping[Any, Any]
    observe: Callable[[Any], Any]
    """What an agent sees behind the step."""


class ManyAgents(Filming):
    """What the wrappers of both kinds of environment have in common."""

    env: Any
    _kind: ClassVar[type]
    """Of environments that it wraps."""

    def __init__(  # noqa: PLR0917 - as upstream has it
        self,
        env: Any,
        video_folder: str | os.PathLike[str],
        episode_trigger: Callable[[int], bool] | None = None,
        step_trigger: Callable[[int], bool] | None = None,
        video_length: int = 0,
        name_prefix: str = "rl-video",
        fps: float | None = None,
        disable_logger: bool = True,  # noqa: FBT001, FBT002 - as upstream has it
        gc_trigger: Callable[[int], bool] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        telemetry: Any = "captured",
        keep: Keep | None = None,
        max_videos: int | None = None,
        on_video: Callable[[VideoAvailable], None] | None = None,
        wait: bool = True,
        resume: bool = False,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Wrap an environment whose `render()` gives pictures.

        Args:
            env: The environment, made with `render_mode="rgb_array"` or `"rgb_array_list"`.
            video_folder: Where the MP4s go; made if it is missing. Nothing but finished files is ever in it.
            episode_trigger: Given an episode's index, whether to record it; by default the capped cubic schedule,
                episodes 0, 1, 8, 27, … 729, and each thousandth.
            step_trigger: Given a step's index over all episodes, whether to begin a recording behind it.
            video_length: Stop behind so many steps, over however many episodes; 0: at the episode's end.
            name_prefix: `{prefix}-episode-{N}.mp4`, `{prefix}-step-{N}.mp4`.
            fps: Frames per second; by default the environment's `render_fps`, else 30.
            disable_logger: Taken for compatibility; there is nothing to log.
            gc_trigger: Given the episode's index at the end of a recording, whether to collect garbage then. By default
                nothing is collected, as nothing is held.
            home: Where everything else is kept; by default `$STEPREEL_HOME`, else `./.stepreel`.
            telemetry: `"captured"` tells the steps of captured episodes, and each episode's start and ends; `"all"`
                each step; `"episodes"` starts and ends alone; False nothing.
            keep: Which captured episodes become videos, decided at their end; by default all. The return that it goes
                by is the sum over all agents.
            max_videos: Of this environment's videos the newest so many stay; by default all.
            on_video: Called with each `VideoAvailable`, in this process, from a thread or while closing.
            wait: Whether `close`, `stop_recording` and the script's end wait for the videos.
            resume: Go on numbering behind the files that are there.
            tags: Words for the session.

        Raises:
            AssertionError: for an environment of the other kind.
            ValueError: for a render mode that gives no picture, or an argument that makes no sense.
        """
        super().__init__(env)  # type: ignore[call-arg] # PettingZoo's base, which is behind Filming
        assert isinstance(env, self._kind), (
            f"{type(self).__name__} is only compatible with {self._kind.__name__} environments."
        )
        refuse_render_mode(getattr(env, "render_mode", None))
        arguments = {
            "video_folder": video_folder,
            "episode_trigger": episode_trigger,
            "step_trigger": step_trigger,
            "video_length": video_length,
            "name_prefix": name_prefix,
            "fps": fps,
            "keep": keep,
            "max_videos": max_videos,
        }
        mine = order(
            home=home,
            telemetry=telemetry,
            keep=keep,
            max_videos=max_videos,
            on_video=on_video,
            wait=wait,
            resume=resume,
            tags=tags,
        )
        metadata = getattr(env, "metadata", None) or {}
        rate = metadata.get("render_fps", 30) if fps is None else fps
        self._load(
            mine,
            about_session(
                mine, env_id=env_id_of(env), env=env, arguments=arguments, fps=rate, spaces=_first_spaces(env)
            ),
            metadata=metadata,
            video_folder=video_folder,
            episode_trigger=episode_trigger,
            step_trigger=step_trigger,
            video_length=video_length,
            name_prefix=name_prefix,
            fps=fps,
            disable_logger=disable_logger,
            gc_trigger=gc_trigger,
            agents=(),
        )
        self._cast: Cast | None = None
        self._state = _innermost(env)

    def render(self) -> Any:
        """The picture, or all pictures since the last call, by the environment's render mode."""
        return self._add_rendered(self.env.render())

    def close(self) -> None:
        """Close the environment, and wait until its videos stand. A second call is harmless."""
        self.env.close()
        self._wind_up()

    def __del__(self) -> None:
        """Seal what is open of an environment that nobody closed."""
        self._let_go()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no part in the open episode's telemetry."""
        return {**super().__getstate__(), "_cast": None}

    # Its parts -------------------------------------------------------------------------------------------------------

    def _stepped(self) -> Camera | None:
        """Behind the environment's own step: the camera, where it records."""
        self.step_id += 1
        if self.step_trigger is not None:
            self._begin_at_step()
        camera = self._camera
        return None if camera is None or camera.line.off or camera.foreign else camera

    def _record(self, camera: Camera, turn: Turn) -> None:
        telemetry, tape = camera.telemetry, camera.tape
        episode = telemetry.episode
        if tape.take is None and episode is not None and not episode.told and self._cast is not None:
            # Nothing to tell and nothing to show.
            if self._take_in(self._cast, episode, turn, NOTHING_SHOWN):
                self._over(camera, episode)
            return
        was_over = tape.take is not None and tape.take.ending is not None
        films = camera.goes_on()
        # Where nobody has reset what is over and somebody is alive, the environment below has reset itself.
        if episode is None and self._anybody_alive(turn):
            self._begin_without_reset(camera)
        clock = camera.line.meter.bare
        seconds = self._step_seconds
        if films:
            entered = perf_counter()
            self._film()
            clock = camera.line.meter.captured
            seconds += perf_counter() - entered
        shown = tape.shown() if films else NOTHING_SHOWN
        episode = telemetry.episode
        if episode is not None and self._cast is not None:
            if self._take_in(self._cast, episode, turn, shown):
                self._over(camera, episode)
        elif was_over and tape.open and not self._waits_for_reset:
            camera.seal_soon()  # once more: the dead are being taken off
        clock.add(seconds)
        if films:
            self._stop_at_length()

    def _take_in(self, cast: Cast, episode: Episode, turn: Turn, shown: Shown) -> bool:
        """Tell a step's rows, and the ends that came with it; whether the episode is over, for all agents."""
        actions, rewards, terminations, truncations, infos, observe = turn
        cast.receive(rewards)
        if actions:
            episode.steps += 1
        if shown.frame is not None and not episode.shown_in:
            episode.shown_in = shown.recording
        for agent, action in actions.items():
            if not cast.acts(agent):
                continue
            if not episode.told:
                cast.count(agent)
                continue
            cast.tell(
                agent,
                action,
                observe(agent),
                terminations.get(agent, False),
                truncations.get(agent, False),
                infos.get(agent),
                self._step_seconds,
                shown,
            )
        if cast.changed(rewards, terminations, truncations):
            return cast.settle(self._present(), terminations, truncations, infos)
        return False

    def _tell_reset(self, camera: Camera, observation: Any, info: Any, seed: int | None, decision: Any) -> None:
        self._state = _innermost(self.env)
        agents = self._present() or getattr(self.env, "possible_agents", ())
        camera.telemetry.taking_part = [str(agent) for agent in agents]
        super()._tell_reset(camera, observation, info, seed, decision)
        self._cast = Cast(camera.telemetry, agents)

    def _begin_without_reset(self, camera: Camera) -> None:
        self._episode += 1
        films = camera.tape.open
        decision = Decision(captured=films, why="goes on" if films else "not due", asked=False)
        camera.telemetry.taking_part = [str(agent) for agent in self._present()]
        camera.begin_episode(None, None, seed=None, episode=self._episode, decision=decision)
        self._cast = Cast(camera.telemetry, self._present())

    def _anybody_alive(self, turn: Turn) -> bool:
        return any(not (turn.terminations.get(agent) or turn.truncations.get(agent)) for agent in self._present())

    def _present(self) -> Sequence[Any]:
        """The agents that are there now."""
        return self._state.agents  # type: ignore[no-any-return] # a list of agents' ids

    def _render(self) -> Any:
        return self.env.render()


class PettingZooRecordVideo(ManyAgents, BaseWrapper[AgentID, ObsType, ActionType]):  # type: ignore[misc] # PettingZoo ships no types
    """Records videos of an environment whose agents take turns (AEC), while another process does the encoding.

    A drop-in replacement for `pettingzoo.utils.wrappers.RecordVideo`: the same arguments, the same files, the same
    attributes. Each `step(action)` has a frame, and a row of the agent whose turn it was. See docs/wrappers.md.
    """

    _kind = AECEnv

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset the environment, and begin a recording where one is due."""
        self.env.reset(seed=seed, options=options)
        self.episode_id += 1
        self._step_seconds = 0.0
        self._at_reset(None, getattr(self.env, "infos", None), seed)

    def step(self, action: ActionType) -> None:
        """Step the agent whose turn it is, and record the step where it is to be."""
        state = self._state
        try:
            agent = state.agent_selection
        except Exception:  # noqa: BLE001 - there was no reset: the step itself says it better
            agent = None
        began = perf_counter()
        self.env.step(action)
        self._step_seconds = perf_counter() - began
        camera = self._stepped()
        if camera is None:
            return
        try:
            dead = action is None and (self._cast is None or not self._cast.acts(agent))
            turn = Turn(
                actions={} if dead else {agent: action},
                rewards=state.rewards,
                terminations=state.terminations,
                truncations=state.truncations,
                infos=state.infos,
                observe=self._observed,
            )
            self._record(camera, turn)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def _tell_reset(self, camera: Camera, observation: Any, info: Any, seed: int | None, decision: Any) -> None:
        tells = self._order.telemetry
        agent = getattr(self.env, "agent_selection", None)
        if agent is not None and (tells == "all" or (tells == "captured" and camera.tape.open)):
            observation = {agent: self._observed(agent)}
        super()._tell_reset(camera, observation, info, seed, decision)

    def _observed(self, agent: Any) -> Any:
        """What an agent sees now; None where the environment cannot say."""
        try:
            return self.env.observe(agent)
        except Exception as error:  # noqa: BLE001 - nobody but us asked
            if self._camera is not None:
                self._camera.line.warn_once(
                    "observe",
                    f"{self._about.env_id}: steps are told without what an agent observes where observe() fails "
                    f"({type(error).__name__}: {error})",
                )
            return None


class PettingZooRecordVideoParallel(ManyAgents, BaseParallelWrapper[AgentID, ObsType, ActionType]):  # type: ignore[misc] # PettingZoo ships no types
    """Records videos of an environment whose agents act at once, while another process does the encoding.

    A drop-in replacement for `pettingzoo.utils.wrappers.RecordVideoParallel`: the same arguments, the same files, the
    same attributes. Each `step(actions)` has a frame, and a row of each agent that acted. See docs/wrappers.md.
    """

    _kind = ParallelEnv

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[AgentID, ObsType], dict[AgentID, dict[str, Any]]]:
        """Reset the environment, and begin a recording where one is due."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.episode_id += 1
        self._step_seconds = 0.0
        self._at_reset(observations, infos, seed)
        return observations, infos

    def step(
        self, actions: dict[AgentID, ActionType]
    ) -> tuple[
        dict[AgentID, ObsType],
        dict[AgentID, float],
        dict[AgentID, bool],
        dict[AgentID, bool],
        dict[AgentID, dict[str, Any]],
    ]:
        """Step all agents, and record the step where it is to be."""
        began = perf_counter()
        result = self.env.step(actions)
        self._step_seconds = perf_counter() - began
        camera = self._stepped()
        if camera is not None:
            try:
                observations, rewards, terminations, truncations, infos = result
                self._record(camera, Turn(actions, rewards, terminations, truncations, infos, observations.get))
            except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
                self._fail(error)
        return result  # type: ignore[no-any-return] # as the environment has it


def _innermost(env: Any) -> Any:
    """Where the environment's state is: PettingZoo's own wrappers have none, and looking through each takes time."""
    while type(env).__module__.startswith("pettingzoo.utils.wrappers."):
        env = env.env
    return env


def _first_spaces(env: Any) -> tuple[Any, Any]:
    """The spaces of the first agent, where it is known before a reset."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about spaces that are an attribute
        agent = env.possible_agents[0]
        return env.observation_space(agent), env.action_space(agent)
    return None, None
