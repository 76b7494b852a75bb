"""RecordVideo, a drop-in replacement for `gymnasium.wrappers.RecordVideo` (1.4) that never holds up the training."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType

from plugins.recorder.apart import Rows, rows_in
from plugins.recorder.batch import Batch, Opening, chosen_of
from plugins.recorder.describe import env_id_of
from plugins.recorder.filming import Filming, about_session, order, refuse_render_mode
from plugins.recorder.requests import Decision
from plugins.recorder.tape import NOTHING_SHOWN

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from gymnasium.core import RenderFrame

    from plugins.events import Keep, VideoAvailable
    from plugins.recorder.camera import Camera
    from plugins.recorder.tape import Shown
    from plugins.recorder.telemetry import Telemetry


class RecordVideo(  # upstream's bases and their order, behind what all of our wrappers have in common
    Filming,
    gym.Wrapper[ObsType, ActType, ObsType, ActType],
    gym.utils.RecordConstructorArgs,
    Generic[ObsType, ActType],
):
    """Records videos of episodes, and what happened in each step, while another process does the encoding.

    A drop-in replacement for `gymnasium.wrappers.RecordVideo`: the same arguments, the same files, the same attributes.
    See docs/wrappers.md for what is the same and what is better.
    """

    def __init__(  # noqa: PLR0917 - as upstream has it
        self,
        env: gym.Env[ObsType, ActType],
        video_folder: str | os.PathLike[str],
        episode_trigger: Callable[[int], bool] | None = None,
        step_trigger: Callable[[int], bool] | None = None,
        video_length: int = 0,
        name_prefix: str = "rl-video",
        fps: float | None = None,
        disable_logger: bool = True,  # noqa: FBT001, FBT002 - as upstream has it
        gc_trigger: Callable[[int], bool] | None = None,
        *,
        indices: Sequence[int] | None = None,
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
            indices: For a batch of environments behind the API of one (as Isaac Lab has it): tell what these of them
                do. Without, nothing is told of the steps of a batch.
            home: Where everything else is kept; by default `$STEPREEL_HOME`, else `./.stepreel`.
            telemetry: `"captured"` tells the steps of captured episodes, and each episode's start and end; `"all"` each
                step; `"episodes"` starts and ends alone; False nothing.
            keep: Which captured episodes become videos, decided at their end; by default all.
            max_videos: Of this environment's videos the newest so many stay; by default all.
            on_video: Called with each `VideoAvailable`, in this process, from a thread or while closing.
            wait: Whether `close`, `stop_recording` and the script's end wait for the videos.
            resume: Go on numbering behind the files that are there.
            tags: Words for the session.

        Raises:
            ValueError: for a render mode that gives no picture, or an argument that makes no sense.
        """
        arguments = {
            "video_folder": video_folder,
            "episode_trigger": episode_trigger,
            "step_trigger": step_trigger,
            "video_length": video_length,
            "name_prefix": name_prefix,
            "fps": fps,
            "disable_logger": disable_logger,
            "gc_trigger": gc_trigger,
            "indices": indices,
            "home": home,
            "telemetry": telemetry,
            "keep": keep,
            "max_videos": max_videos,
            "on_video": on_video,
            "wait": wait,
            "resume": resume,
            "tags": tags,
        }
        # Not copied: what `on_video` belongs to may be a thing that cannot be.
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        gym.Wrapper.__init__(self, env)
        refuse_render_mode(env.render_mode)
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
        spaces = (env.observation_space, env.action_space)
        rate = self.metadata.get("render_fps", 30) if fps is None else fps
        self._load(
            mine,
            about_session(mine, env_id=env_id_of(env), env=env, arguments=arguments, fps=rate, spaces=spaces),
            metadata=self.metadata,
            video_folder=video_folder,
            episode_trigger=episode_trigger,
            step_trigger=step_trigger,
            video_length=video_length,
            name_prefix=name_prefix,
            fps=fps,
            disable_logger=disable_logger,
            gc_trigger=gc_trigger,
        )
        self._resets_itself = _resets_itself(env)
        self._indices = chosen_of(indices, getattr(env.unwrapped, "num_envs", None))
        self._environments = len(self._indices or (0,))
        self._batched = indices is not None
        """Its results are vectors of many environments: no reward, and no end of an episode."""
        self._batch: Batch | None = None
        """Their telemetry, where it is asked for."""
        self._outbox: Any = None
        """Where to look whether somebody watches, while `_untold` counts."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Reset the environment, and begin a recording where one is due."""
        result = self.env.reset(seed=seed, options=options)
        self.episode_id += 1
        self._untold = None
        self._step_seconds = 0.0
        self._at_reset(*_pair(result), seed)
        return result

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """Step the environment, and record the step where it is to be."""
        tally = self._untold
        if tally is None or self._outbox.watched is not None:
            return self._told_step(action)  # type: ignore[no-any-return] # as the environment has it
        # Nothing to tell and nothing to show: 0.3 µs beside the environment's own step.
        result = self.env.step(action)
        self.step_id += 1
        try:
            _, reward, terminated, truncated, info = result
            tally.steps += 1
            tally.total += float(reward)
            if terminated or truncated:
                self._untold = None
                self._end_untold(info, terminated)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._untold = None
            self._fail(error)
        return result

    def render(self) -> RenderFrame | list[RenderFrame] | None:
        """The picture, or all pictures since the last call, by the environment's render mode."""
        return self._add_rendered(super().render())  # type: ignore[no-any-return] # as the environment has it

    def close(self) -> None:
        """Close the environment, and wait until its videos stand. A second call is harmless."""
        super().close()
        self._wind_up()

    def __del__(self) -> None:
        """Seal what is open of an environment that nobody closed."""
        self._let_go()

    # Its parts -------------------------------------------------------------------------------------------------------

    def _told_step(self, action: ActType) -> Any:
        began = perf_counter()
        result = self.env.step(action)
        seconds = self._step_seconds = perf_counter() - began
        self.step_id += 1
        if self.step_trigger is not None:
            self._begin_at_step()
        camera = self._camera
        if camera is not None and not camera.line.off:
            try:
                self._record(camera, action, result, began, seconds)
            except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
                self._fail(error)
        return result

    def _record(self, camera: Camera, action: Any, result: Any, began: float, seconds: float) -> None:
        # 2.9 µs where the step is told, and 2.3 µs more where it is captured, beside rendering and compressing
        # (python -m tests.benchmarks wrapper).
        observation, reward, terminated, truncated, info = result
        self._untold = None
        telemetry = camera.telemetry
        tape = camera.tape
        take = tape.take
        films = take is not None and (not take.refused if take.ending is None else camera.goes_on())
        fresh = telemetry.episode is None and not self._batched
        if fresh:
            self._begin_without_reset(camera, observation, info)
        if films:
            self._film()
            camera.line.meter.captured.add(perf_counter() - began)
        else:
            if telemetry.outbox.watched is not None and not fresh:
                self._show_live(telemetry)
            camera.line.meter.bare.add(seconds)
        if fresh and self._resets_itself:
            camera.show_reset()  # this step was the reset
        elif self._batch is not None:
            self._tell_rows(self._batch, camera, action, result, tape.shown() if films else NOTHING_SHOWN)
        elif not self._batched and not self._is_batch(terminated):
            episode = telemetry.episode
            over = telemetry.step(
                action,
                observation,
                reward,
                terminated,
                truncated,
                info,
                seconds,
                tape.shown() if films else NOTHING_SHOWN,
            )
            if over and episode is not None:
                self._over(camera, episode)
        if films:
            if self._captured > self.video_length:
                self._stop_at_length()
        elif self.step_trigger is None and not self._batched:
            episode = telemetry.episode
            if episode is not None and not episode.told:
                self._untold = telemetry.untold()
                self._outbox = telemetry.outbox

    def _show_live(self, telemetry: Telemetry) -> None:
        """Render a picture for those alone who watch, if it is time."""
        # To ask for a list of pictures would take them from the user.
        if not telemetry.watched or telemetry.window is None or self.env.render_mode != "rgb_array":
            return
        began = perf_counter()
        try:
            picture = self.env.render()
        except Exception:  # noqa: BLE001 - who steps did not ask for this picture
            telemetry.window = None
            return
        telemetry.window.offer(picture, perf_counter() - began)

    def _end_untold(self, info: Any, terminated: Any) -> None:
        camera = self._camera
        if camera is not None:
            episode = camera.telemetry.episode
            camera.telemetry.end(info, "terminated" if terminated else "truncated")
            if episode is not None:
                self._over(camera, episode)

    def _begin_without_reset(self, camera: Camera, observation: Any, info: Any) -> None:
        """An episode that begins although nobody reset: the environment below did so by itself."""
        self._episode += 1
        decision = Decision(captured=camera.tape.open, why="goes on" if camera.tape.open else "not due", asked=False)
        if self._resets_itself:
            camera.begin_episode(observation, info, seed=None, episode=self._episode, decision=decision)
        else:
            camera.begin_episode(None, None, seed=None, episode=self._episode, decision=decision)

    def _is_batch(self, terminated: Any) -> bool:
        """Whether this is a batch of environments behind the API of one (as Isaac Lab has it)."""
        if type(terminated) is bool or np.ndim(terminated) == 0:
            return False
        self._batched = True
        assert self._camera is not None
        self._camera.abort()
        return True

    def _tell_reset(self, camera: Camera, observation: Any, info: Any, seed: int | None, decision: Decision) -> None:
        if not self._batched:
            super()._tell_reset(camera, observation, info, seed, decision)
        if self._indices is None:
            return
        batch = self._batch
        if batch is None or batch.streams is not camera.streams:
            size = getattr(self.env.unwrapped, "num_envs", 0) or rows_in(observation)
            space = getattr(self.env.unwrapped, "single_observation_space", None)
            self._batch = batch = Batch(camera.streams, Rows(size, self._indices), (space, None))
        row, own = batch.apart(observation, info)
        shown = camera.next_shown()
        opening = Opening(captured=shown.recording is not None, why=decision.why, shown=shown)
        for place in range(len(self._indices)):
            number = self._episode if place == 0 else None
            batch.begin(place, row(place), own(place), opening, seed=seed, number=number)

    def _tell_rows(self, batch: Batch, camera: Camera, action: Any, result: Any, shown: Shown) -> None:
        """A step of a batch, which resets in the same step, as Isaac Lab does."""
        if np.ndim(result[2]) == 0:
            self._batch = None
            camera.abort()
            camera.line.warn_once(
                "indices",
                f"{self._about.env_id}: gives the results of one environment, and indices needs those of many",
            )
            return
        if shown.frame is None and not batch.told and batch.passes(result):
            return
        step = batch.take(action, result, self._step_seconds)
        batch.tell_ends(step)
        batch.tell_steps(step, step.ended, shown, len(batch.streams))
        batch.count(step)
        opening = Opening(captured=camera.tape.open, why="goes on" if camera.tape.open else "not due", shown=shown)
        for place in step.ended:
            batch.begin(place, *step.first(place), opening)
        self._episode = batch.numbers[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_batch": None, "_outbox": None, "_untold": None}

    def _render(self) -> Any:
        return self.env.render()


def _resets_itself(env: Any) -> bool:
    """Whether a wrapper below makes the step behind an episode's end a reset."""
    while env is not None:
        if type(env).__name__ == "Autoreset":
            return True
        env = getattr(env, "env", None)
    return False


def _pair(result: Any) -> tuple[Any, Any]:
    """Observation and info of a reset, whatever an environment returned."""
    return result if isinstance(result, tuple) and len(result) == 2 else (result, {})
