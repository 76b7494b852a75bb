"""VecVideoRecorder, a drop-in replacement for Stable-Baselines3's that never holds up the training.

It films the one picture that a `VecEnv` renders of all its environments. Each of them has telemetry of its own.

Stable-Baselines3 resets an environment within the step that ends its episode (SAME_STEP). So the observation of that
step is the next episode's first; its own is in the info, as `terminal_observation`, and no picture shows it.
"""

# mypy: disallow-subclassing-any = False
# Where Stable-Baselines3 is not installed, its classes are Any.

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.dummy_vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.subproc_vec_env import SubprocVecEnv

from plugins.recorder.apart import Rows
from plugins.recorder.batch import Batch, BatchStep, Opening
from plugins.recorder.camera import BY_HAND, CLOSED, Rule
from plugins.recorder.describe import env_id_of
from plugins.recorder.filming import about_session, order, usable_rate
from plugins.recorder.line import warn
from plugins.recorder.owner import CameraOwner
from plugins.recorder.pictures import is_picture
from plugins.recorder.tape import NOTHING_SHOWN, Shown
from plugins.recorder.values import number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn

    from plugins.events import Keep, VideoAvailable
    from plugins.recorder.camera import Camera

TRIGGER = Rule("trigger", whole=False)
ANOTHER_BEGAN = "another recording began before it had its length"
OF_THE_STEP = ("TimeLimit.truncated", "terminal_observation")
"""What Stable-Baselines3 adds to infos, and rows say in fields of their own."""


class VecVideoRecorder(CameraOwner, VecEnvWrapper):
    """Records videos of all environments of a `VecEnv` in one picture, and what happened in each step of each of them.

    A drop-in replacement for `stable_baselines3.common.vec_env.VecVideoRecorder`: the same arguments, the same files,
    the same attributes. See docs/wrappers.md for what is the same and what is better.
    """

    video_name: str
    """Of the latest recording; set when it begins, as `video_path` is."""
    video_path: str
    """Where its video will be."""

    _STOP = "_stop_recording"

    def __init__(
        self,
        venv: VecEnv,
        video_folder: str | os.PathLike[str],
        record_video_trigger: Callable[[int], bool],
        video_length: int = 200,
        name_prefix: str = "rl-video",
        *,
        home: str | os.PathLike[str] | None = None,
        telemetry: Any = "captured",
        keep: Keep | None = None,
        max_videos: int | None = None,
        on_video: Callable[[VideoAvailable], None] | None = None,
        wait: bool = True,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Wrap a `VecEnv` whose environments were made with `render_mode="rgb_array"`.

        Args:
            venv: The `VecEnv`, wrapped or not.
            video_folder: Where the MP4s go; made if it is missing. Nothing but finished files is ever in it.
            record_video_trigger: Given the number of steps so far, whether to begin a recording. Each step of all
                environments together is one. It is asked at each reset, and behind each step while nothing is recorded.
            video_length: A recording stops by itself behind so many steps, over however many episodes.
            name_prefix: `{prefix}-step-{A}-to-step-{A + video_length}.mp4`.
            home: Where everything else is kept; by default `$STEPREEL_HOME`, else `./.stepreel`.
            telemetry: `"captured"` tells the steps of episodes that a recording shows, and each episode's start and
                end; `"all"` each step; `"episodes"` starts and ends alone; False nothing.
            keep: Which recordings become videos, decided at their ends: those in which an episode ended that is to be
                kept. By default all.
            max_videos: The newest so many videos stay; by default all.
            on_video: Called with each `VideoAvailable`, in this process, from a thread or while closing.
            wait: Whether `close` and the script's end wait for the videos.
            tags: Words for the session.

        Raises:
            AssertionError: for another render mode.
            ValueError: for an argument that makes no sense.
        """
        VecEnvWrapper.__init__(self, venv)
        self.env = venv
        self._innermost = _innermost(venv)
        self.env.metadata = _metadata(self._innermost)
        if self.env.render_mode != "rgb_array":
            raise AssertionError(f"The render_mode must be 'rgb_array', not {self.env.render_mode}")
        mine = order(
            home=home,
            telemetry=telemetry,
            keep=keep,
            max_videos=max_videos,
            on_video=on_video,
            wait=wait,
            resume=False,
            tags=tags,
        )
        self.frames_per_sec = self.env.metadata.get("render_fps", 30)
        self.record_video_trigger = record_video_trigger
        self.video_folder = os.path.abspath(video_folder)  # noqa: PTH100 - as upstream: links stay, dots go
        Path(self.video_folder).mkdir(parents=True, exist_ok=True)
        self.name_prefix = name_prefix
        self.step_id = 0
        self.video_length = video_length
        self._environments = self.num_envs
        self._batch: Batch | None = None
        self._telling = False
        """Somebody's steps are told at the moment."""
        self._rule = BY_HAND
        """By which a recording begins at the moment."""
        self._because: str | None = None
        """Why our own rules end a recording at the moment, or that it is complete; None: a user ends it."""
        self._begun_at = -1
        """The step at which it began."""
        self._actions: Any = None
        self._step_seconds = 0.0
        arguments = {
            "video_folder": video_folder,
            "record_video_trigger": record_video_trigger,
            "video_length": video_length,
            "name_prefix": name_prefix,
            "num_envs": self.num_envs,
            "telemetry": telemetry,
            "keep": keep,
            "max_videos": max_videos,
        }
        first = self._innermost.envs[0] if isinstance(self._innermost, DummyVecEnv) else None
        spaces = (self.observation_space, self.action_space)
        env_id = _env_id(self._innermost)
        self._take_order(
            mine,
            about_session(mine, env_id=env_id, env=first, arguments=arguments, fps=self.frames_per_sec, spaces=spaces),
        )

    # The environments ------------------------------------------------------------------------------------------------

    def reset(self) -> VecEnvObs:
        """Reset all environments, and begin a recording where one is due."""
        seeds = getattr(self._innermost, "_seeds", None)  # the reset uses them up
        observations = self.venv.reset()
        due = self._video_enabled()  # the user's: called once, and may raise as it likes
        self._step_seconds = 0.0
        with self._guarded():
            self._at_reset(observations, seeds, due=due)
        return observations

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Tell all environments to step."""
        began = perf_counter()
        self.venv.step_async(actions)
        self._actions = actions
        self._step_seconds = perf_counter() - began

    def step_wait(self) -> VecEnvStepReturn:
        """The results of the step; it is recorded where it is to be."""
        began = perf_counter()
        result = self.venv.step_wait()
        self._step_seconds += perf_counter() - began
        self.step_id += 1
        films = self.recording
        due = not films and self._video_enabled()  # as in `reset`
        try:
            self._at_step(result, films=films, due=due)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)
        return result

    def close(self) -> None:
        """Close all environments, and wait until the videos stand. A second call is harmless."""
        VecEnvWrapper.close(self)
        if self.recording:
            self._stop(CLOSED)
        self._close_camera()

    def __del__(self) -> None:
        """Seal what is open of environments that nobody closed."""
        self._let_go()

    # What scripts read, call and override ----------------------------------------------------------------------------

    def _video_enabled(self) -> bool:
        """Whether a recording is due."""
        return self.record_video_trigger(self.step_id)

    def _start_video_recorder(self) -> None:
        """Name a video, begin its recording, and capture the first picture."""
        self.video_name = f"{self.name_prefix}-step-{self.step_id}-to-step-{self.step_id + self.video_length}.mp4"
        self.video_path = str(Path(self.video_folder, self.video_name))
        self._start_recording()
        if self.recording:  # the home may be unusable, or the disk nearly full
            self._capture_frame()

    def _start_recording(self) -> None:
        """Begin a recording; one that is running is stopped first."""
        if self.recording:
            self._stop(ANOTHER_BEGAN)
        self.recording = True

    def _capture_frame(self) -> None:
        """Render a picture of all environments, and add it to the running recording."""
        assert self.recording, "Cannot capture a frame, recording wasn't started."
        began = perf_counter()
        try:
            frame = self.env.render()
        except Exception as error:  # noqa: BLE001 - who steps did not ask for this picture
            self._stop("render() failed")
            warn(f"{self._about.env_id}: a recording was stopped, as render() failed ({type(error).__name__}: {error})")
            return
        if is_picture(frame):
            self._add(frame, self._step_seconds + perf_counter() - began)
            return
        self._stop(f"render() gave no array but {type(frame).__name__}")
        warn(
            "Recording stopped: expected type of frame returned by render to be a numpy array, "
            f"got instead {type(frame)}.",
            UserWarning,
        )

    def _stop_recording(self) -> None:
        """End the running recording. When you call it, it waits for the video (unless `wait=False`).

        So it does where a derived class calls it, in its place, at the end of any recording.
        """
        assert self.recording, "_stop_recording was called, but no recording was started"
        with self._guarded():
            self._end_recording()
        if self._order.wait and (self._because is None or self._stops_itself):
            self.flush()

    # Behind resets and steps -----------------------------------------------------------------------------------------

    def _at_reset(self, observations: Any, seeds: Any, *, due: bool) -> None:
        camera = self._ready()
        batch = self._batch
        if camera is None or batch is None:
            if due:
                self._begin(TRIGGER)  # which names it all the same
            return
        decision = camera.decide(batch.numbers[0] + 1, TRIGGER.why if due else "")
        begins = due or decision.captured
        if begins and self.recording:
            self._stop(ANOTHER_BEGAN)
        camera.abort()
        why = decision.why
        if begins:
            rule = Rule(why, whole=False, asked=decision.asked) if decision.captured else TRIGGER
            self._begin(rule)
            if self.recording:
                why = rule.why
        elif self.recording:
            why = "goes on"
        opening = self._opening(camera, why, camera.tape.shown())
        infos = self._reset_infos()
        row = batch.rows.of(observations, self.observation_space)
        for place in range(self.num_envs):
            seed = seeds[place] if isinstance(seeds, list) and len(seeds) == self.num_envs else None
            batch.begin(place, row(place), _at(infos, place), opening, seed=seed)
        self._telling = bool(batch.told)

    def _at_step(self, result: Any, *, films: bool, due: bool) -> None:
        # 2 µs where nothing is told: counting for all environments, and asking whether somebody's episode is over.
        _, rewards, dones, _ = result
        why = "goes on"
        if films:
            self._capture_frame()
            self._take_over()
        elif due:
            why = TRIGGER.why
            self._begin(TRIGGER)
        elif dones[0]:
            why = self._begin_if_asked()
        camera = self._camera
        if camera is None and not self._told_unusable:
            camera = self._ready()
        batch = self._batch
        if camera is None or camera.line.off or camera.foreign or batch is None:
            return
        if camera.telemetry.episode is None:
            self._begin_without_reset(camera, batch)
        nobody_ends = batch.passes((None, rewards, dones, dones, None))
        if nobody_ends and not (self._telling or films or due):
            return
        shown = camera.tape.shown()
        step = VecStep(batch.rows, self._spaces(), self._actions, result, self._step_seconds, self._reset_infos())
        for ended in batch.tell_steps(step, (), shown, self.num_envs):
            camera.episode_over(ended.episode, seal=False)
        clock = camera.line.meter.bare if shown.frame is None else camera.line.meter.captured
        clock.add(self._step_seconds)
        if films and self._captured > self.video_length and self.recording:
            with suppress(OSError, ValueError):  # nobody reads what is printed
                print(f"Saving video to {self.video_path}")  # noqa: T201 - as upstream
            self._stop("")
        if not nobody_ends:
            batch.count(step)
            opening = self._opening(camera, why if self.recording else "not due", shown)
            for place in step.ended:
                batch.begin(place, *step.first(place), opening)
            self._telling = bool(batch.told)

    def _begin_if_asked(self) -> str:
        """Where the first environment begins an episode: a recording, if users ask for one meanwhile; why."""
        camera = self._camera
        if camera is None or camera.line.off or camera.foreign or self._batch is None:
            return ""
        decision = camera.decide(self._batch.numbers[0] + 1, "")
        if decision.captured:
            self._begin(Rule(decision.why, whole=False, asked=decision.asked))
        return decision.why

    def _begin_without_reset(self, camera: Camera, batch: Batch) -> None:
        """Episodes that nobody began by a reset that we saw."""
        opening = self._opening(camera, "goes on" if self.recording else "not due", NOTHING_SHOWN)
        for place in range(self.num_envs):
            batch.begin(place, None, None, opening)
        self._telling = bool(batch.told)

    def _opening(self, camera: Camera, why: str, shown: Shown) -> Opening:
        """With what episodes begin whose first states `shown` shows."""
        take = camera.tape.take
        if take is None or not self.recording:
            return Opening(captured=False, why=why, shown=NOTHING_SHOWN)
        return Opening(captured=True, why=why, shown=Shown(take.recording, shown.frame, shown.frames))

    # Recordings ------------------------------------------------------------------------------------------------------

    def _begin(self, rule: Rule) -> None:
        """Begin a recording by our rules; through methods that a subclass may have overridden."""
        self._rule = rule
        try:
            self._start_video_recorder()
            self._take_over()
        finally:
            self._rule = BY_HAND

    def _stop(self, because: str) -> None:
        """End a recording by our rules, complete where there is no because; likewise."""
        self._because = because
        try:
            self._stop_recording()
        finally:
            self._because = None

    def _begin_recording(self) -> None:
        camera = self._ready()
        if camera is None or not camera.has_room:
            return
        wanted = Path(self.video_path).absolute()
        self.video_path = camera.path(str(wanted.parent), self.name_prefix, wanted.stem)
        self.video_name = Path(self.video_path).name
        self._captured = 0
        self._forget_frames()
        self._begun_at = self.step_id
        self._telling = True
        batch = self._batch
        camera.begin(
            self._rule,
            path=self.video_path,
            fps=usable_rate(self.frames_per_sec),
            frames=max(int(self.video_length), 1) + 1,
            episode=0 if batch is None else batch.numbers[0] + 1,
        )

    def _end_recording(self) -> None:
        camera = self._camera
        if camera is None or not camera.tape.open:
            return
        self._take_over()
        self._forget_frames()
        if self._because == ANOTHER_BEGAN and self._begun_at == self.step_id:
            camera.drop_recording("another recording of the same name began")
            return
        path = str(Path(self.video_path).absolute())  # it may have been given another name meanwhile
        if not camera.end_recording(self._because or "", path):
            warn("Ignored saving a video as there were zero frames to save.", UserWarning)

    # Its parts -------------------------------------------------------------------------------------------------------

    def _ready(self) -> Camera | None:
        camera = super()._ready()
        if camera is not None and (self._batch is None or self._batch.streams is not camera.streams):
            self._batch = Batch(camera.streams, Rows(self.num_envs), self._spaces())
        return camera

    def _spaces(self) -> tuple[Any, Any]:
        return self.observation_space, self.action_space

    def _reset_infos(self) -> Any:
        """What the latest resets returned beside the observations; wrappers have an empty list of their own."""
        return getattr(self._innermost, "reset_infos", None)


class VecStep(BatchStep):
    """One step of a `VecEnv`, row by row. A row is the step's own, also where the next episode has begun already."""

    def __init__(  # noqa: PLR0917 - those of a step, and one more
        self, rows: Rows, spaces: tuple[Any, Any], actions: Any, result: Any, seconds: float, reset_infos: Any
    ) -> None:
        observations, rewards, dones, infos = result
        dones = rows.vector(dones).astype(bool)
        truncated = np.zeros(len(dones), bool)
        for place in np.flatnonzero(dones).tolist():
            truncated[place] = bool(_field(infos[place], "TimeLimit.truncated"))
        if isinstance(actions, np.ndarray) and actions.ndim == 1:
            actions = actions.tolist()  # plain numbers are cheap to write down
        super().__init__(rows, spaces, actions, (observations, rewards, dones & ~truncated, truncated, infos), seconds)
        self._own_infos = infos
        self._reset_infos = reset_infos
        self._dones = dones

    def observation(self, place: int) -> Any:
        """What the step led to."""
        if self._dones[place]:
            return _field(self._own_infos[place], "terminal_observation")
        return super().observation(place)

    def info(self, place: int) -> Any:
        """The environment's own info."""
        info = self._own_infos[place]
        return {key: info[key] for key in info if key not in OF_THE_STEP} if isinstance(info, dict) else info

    def first(self, place: int) -> tuple[Any, Any]:
        """With what the next episode begins."""
        return super().observation(place), _at(self._reset_infos, place)

    def total_reward(self, place: int) -> float | None:
        """What a `Monitor` says: rewards may have been normalized or clipped on their way to here."""
        said = number(_field(_field(self._own_infos[place], "episode"), "r"), "", {})
        return said if math.isfinite(said) else None


def _innermost(venv: Any) -> Any:
    """The `VecEnv` below all wrappers."""
    while isinstance(venv, VecEnvWrapper):
        venv = venv.venv
    return venv


def _metadata(innermost: Any) -> Any:
    if isinstance(innermost, (DummyVecEnv, SubprocVecEnv)):
        return innermost.get_attr("metadata")[0]
    return innermost.metadata


def _env_id(innermost: Any) -> str:
    """The environments' id, else the name of their class."""
    if isinstance(innermost, DummyVecEnv):
        return env_id_of(innermost.envs[0])
    with suppress(Exception):  # whatever somebody's own VecEnv can do
        if isinstance(innermost, SubprocVecEnv):
            # As text, which can always be sent; a spec that cannot would end the child. `<TimeLimit<CartPole<Name>>>`
            described = str(innermost.env_method("__str__", indices=0)[0])
            return re.sub(r" instance$", "", described.rstrip(">").rpartition("<")[2]) or "SubprocVecEnv"
    return env_id_of(innermost)


def _field(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, dict) else None


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, (list, tuple)) and place < len(values) else None
