"""Filming: RecordVideo's rules, by which all of our wrappers begin, name and end their recordings.

`Filming` is what the wrappers have in common: the attributes and methods of Gymnasium 1.4's RecordVideo, which scripts
and environments read, write, call and override. A wrapper calls

    _load           in its __init__
    _at_reset       behind each reset
    _at_step        behind each step
    _wind_up        in its close

and says what `_render` is, and how a reset and a step are told to the telemetry.
"""

from __future__ import annotations

import gc
import math
import os
import re
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from gymnasium import logger

from plugins.events import Keep, SessionStarted
from plugins.recorder.camera import BY_HAND, CLOSED, Camera, Rule
from plugins.recorder.derived import has_own
from plugins.recorder.describe import in_words, plain_arguments, script_label, versions
from plugins.recorder.home import find_home
from plugins.recorder.line import warn
from plugins.recorder.owner import CameraOwner
from plugins.recorder.pictures import is_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugins.events import VideoAvailable
    from plugins.recorder.requests import Decision
    from plugins.recorder.telemetry import Episode, Tally

RESET_EARLY = "the environment was reset before the episode had ended"
ANOTHER_BEGAN = "another recording began before the episode had ended"

AT_STEP = Rule("step trigger", whole=False)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a wrapper was told beside RecordVideo's own arguments."""

    home: Path
    telemetry: Literal["all", "captured", "episodes", "none"]
    keep: Keep
    max_videos: int
    on_video: Any
    """Called with each `VideoAvailable`, or None."""
    wait: bool
    resume: bool
    tags: list[str]


def order(
    *,
    home: str | os.PathLike[str] | None,
    telemetry: Any,
    keep: Keep | None,
    max_videos: int | None,
    on_video: Callable[[VideoAvailable], None] | None,
    wait: bool,
    resume: bool,
    tags: Sequence[str] | None,
) -> Order:
    """The order that a wrapper's arguments make. Raises `ValueError` for one that makes no sense."""
    if telemetry not in ("captured", "all", "episodes", False):
        raise ValueError(f'telemetry must be "captured", "all", "episodes" or False, not {telemetry!r}')
    if keep is not None and not isinstance(keep, Keep):
        raise ValueError(f"keep must be a Keep, such as Keep(best=5, failures=True), not {keep!r}")
    if max_videos is not None and (not isinstance(max_videos, int) or max_videos < 1):
        raise ValueError(f"max_videos must be a number from 1 on, or None for all, not {max_videos!r}")
    if on_video is not None and not callable(on_video):
        raise ValueError(f"on_video must be a function that takes a VideoAvailable, not {on_video!r}")
    if isinstance(tags, str):
        raise ValueError(f"tags must be a list of texts, such as [{tags!r}], not {tags!r}")
    return Order(
        home=find_home(home),
        telemetry=telemetry or "none",
        keep=keep or Keep(),
        max_videos=max_videos or 0,
        on_video=on_video,
        wait=wait,
        resume=resume,
        tags=[str(tag) for tag in tags or ()],
    )


def refuse_render_mode(mode: Any) -> None:
    """Raise `ValueError` for a render mode that gives no picture."""
    if mode in {None, "human", "ansi"}:
        raise ValueError(
            f"Render mode is {mode}, which is incompatible with RecordVideo. "
            "Initialize your environment with a render_mode that returns an image, such as rgb_array."
        )


class Filming(CameraOwner):
    """What all wrappers have in common; see the module."""

    enabled = False
    """W&B's `monitor_gym` looks here whether to upload by itself; we do it (see `weights_and_biases`)."""

    # Before the first reset ------------------------------------------------------------------------------------------

    def _load(
        self,
        order: Order,
        about: SessionStarted,
        *,
        metadata: dict[str, Any],
        video_folder: str | os.PathLike[str],
        episode_trigger: Callable[[int], bool] | None,
        step_trigger: Callable[[int], bool] | None,
        video_length: float,
        name_prefix: str,
        fps: float | None,
        disable_logger: bool,
        gc_trigger: Callable[[int], bool] | None,
        agents: Sequence[str] = ("agent_0",),
    ) -> None:
        """Set the attributes of RecordVideo, and make the video folder. `about` is the session, were this its first."""
        if episode_trigger is None and step_trigger is None:
            from gymnasium.utils.save_video import capped_cubic_video_schedule  # noqa: PLC0415 - needed here alone

            episode_trigger = capped_cubic_video_schedule
        self.episode_trigger = episode_trigger
        self.step_trigger = step_trigger
        self.disable_logger = disable_logger
        self.gc_trigger = gc_trigger
        self.video_folder = os.path.abspath(video_folder)  # noqa: PTH100 - as upstream: links stay, dots go
        folder = Path(self.video_folder)
        if folder.is_dir() and not order.resume:
            logger.warn(
                f"Overwriting existing videos at {self.video_folder} folder "
                "(try specifying a different `video_folder` for the `RecordVideo` wrapper if this is not desired)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.frames_per_sec: Any = metadata.get("render_fps", 30) if fps is None else fps
        self.name_prefix = name_prefix
        self.video_length = video_length if video_length != 0 else math.inf
        self.step_id, self.episode_id = last_numbers(folder, name_prefix) if order.resume else (-1, -1)
        self._set_out(order, about, agents)

    def _set_out(self, order: Order, about: SessionStarted, agents: Sequence[str] = ("agent_0",)) -> None:
        """Have recorded nothing yet."""
        self.render_history: list[Any] = []
        self._video_name: str | None = None
        self._take_order(order, about, agents)
        self._rule: Rule | None = None
        """By which our own rules begin or end a recording at the moment; None: a user does."""
        self._because = ""
        self._waits_for_reset = self._stops_itself or self._frames_stay or has_own(type(self), "reset")
        """Whether an ended episode's recording does: a derived class ends it, or goes on with it, there."""
        self._step_seconds = 0.0
        self._episode = -1
        """The last episode that the telemetry was told of."""
        self._untold: Tally | None = None
        """Where nothing is said of the open episode's steps, they are counted here."""

    # What scripts and environments read, call and override -----------------------------------------------------------

    def start_recording(self, video_name: str) -> None:
        """Begin a recording for `{video_name}.mp4`. One that is running is stopped first."""
        if self.recording:
            self._stop(ANOTHER_BEGAN)
        self._video_name = video_name
        with self._guarded():
            self._begin_recording()

    def stop_recording(self) -> None:
        """Stop the running recording. When you call it, it waits for the video (unless `wait=False`).

        So it does where a derived class calls it, in its place, at the end of any recording.
        """
        assert self.recording, "stop_recording was called, but no recording was started"
        with self._guarded():
            self._end_recording()
        self._video_name = None
        if self.gc_trigger is not None and self.gc_trigger(self.episode_id):
            gc.collect()
        if self._order.wait and (self._rule is None or self._stops_itself):
            self.flush()

    def _capture_frame(self) -> None:
        """Render a picture, and add it to the running recording."""
        camera = self._camera
        assert camera is not None, "Cannot capture a frame, recording wasn't started."
        tape = camera.tape
        take = tape.take
        assert take is not None, "Cannot capture a frame, recording wasn't started."
        if camera.line.off or take.refused or not (take.ending is None or take.ending.waits):
            return  # sealed by itself since somebody looked at `recording`, or turned off
        measured = tape.measures_next
        began = perf_counter() if measured else 0.0
        try:
            frame = self._render()
        except Exception as error:  # noqa: BLE001 - who steps did not ask for this picture
            self._stop("render() failed")
            warn(f"{self._about.env_id}: a recording was stopped, as render() failed ({type(error).__name__}: {error})")
            return
        if isinstance(frame, list):
            if not frame:
                warn(
                    "Trying to capture render frame but 'env.render()' has just been called. "
                    "The frame cannot be captured.",
                    UserWarning,
                )
                return
            self.render_history += frame
            frame = frame[-1]
        if type(frame) is np.ndarray or is_picture(frame):
            self._add(frame, self._step_seconds + perf_counter() - began if measured else 0.0)
        else:
            self._stop(f"render() gave no array but {type(frame).__name__}")
            warn(
                "Recording stopped: expected type of frame returned by render to be a numpy array, "
                f"got instead {type(frame)}.",
                UserWarning,
            )

    # What a wrapper says of its environment --------------------------------------------------------------------------

    def _name_video(self, kind: Literal["episode", "step"], number: int) -> str:
        """What to call the video that begins with an episode, or behind a step."""
        return f"{self.name_prefix}-{kind}-{number}"

    def _render(self) -> Any:
        """What there is to capture: a picture, or a list of those since the last call."""
        raise NotImplementedError

    # Behind resets and steps -----------------------------------------------------------------------------------------

    def _at_reset(self, observation: Any, info: Any, seed: int | None) -> None:
        """Behind a reset, with `episode_id` counted on: a recording where one is due, and the first picture."""
        decision = self._decide(RESET_EARLY)
        if decision is not None:
            self._open(decision, observation, info, seed)

    def _decide(self, because: str) -> Decision | None:
        """Where an episode begins, end the recording that runs, and begin one where it is due. None: nothing is told.

        `because` says why the recording that ends is not complete.
        """
        if self.recording and self.video_length == math.inf:
            self._stop(because)
        trigger = self.episode_trigger
        due = trigger is not None and trigger(self.episode_id)  # the user's: called once, and may raise as it likes
        decision = None
        with self._guarded():
            camera = self._ready()
            if camera is None:
                return None
            self._abort(camera)
            self._episode = max(self._episode + 1, self.episode_id) if self._episode >= 0 else max(self.episode_id, 0)
            decision = camera.decide(self._episode, _name_of(trigger) if due else "")
            if decision.captured:
                rule = Rule(decision.why, whole=self.video_length == math.inf, asked=decision.asked)
                self._start(self._name_video("episode", self.episode_id), rule)
            elif self.recording:
                decision = decision._replace(why="goes on")
        return decision

    def _open(self, decision: Decision, observation: Any, info: Any, seed: int | None) -> None:
        """Begin the episode in the telemetry, and show it from its reset on."""
        camera = self._camera
        if camera is None or camera.line.off:
            return
        with self._guarded():
            self._tell_reset(camera, observation, info, seed, decision)
            if self.recording:
                self._film()
                camera.show_reset()
                self._stop_at_length()

    def _abort(self, camera: Camera) -> None:
        """End what a reset cuts short."""
        camera.abort()

    def _tell_reset(self, camera: Camera, observation: Any, info: Any, seed: int | None, decision: Any) -> None:
        camera.begin_episode(observation, info, seed=seed, episode=self._episode, decision=decision)

    def _begin_at_step(self) -> None:
        """Behind a step, with `step_id` counted on: a recording where the step trigger says so."""
        trigger = self.step_trigger
        if trigger is not None and trigger(self.step_id):
            self._start(self._name_video("step", self.step_id), AT_STEP)

    def _stop_at_length(self) -> None:
        if self._captured > self.video_length and self.recording:
            self._stop("")

    def _over(self, camera: Camera, episode: Episode) -> None:
        """Behind the step that ended an episode."""
        camera.episode_over(episode, seal=self.video_length == math.inf and not self._waits_for_reset)

    def _wind_up(self) -> None:
        """In `close`, behind the environment's own: seal everything, and wait for the videos."""
        camera = self.__dict__.get("_camera")  # W&B's patch closes what was never finished, too
        if camera is None or camera.foreign:
            return
        if self.recording:
            self._stop(CLOSED)
        self._close_camera()

    # Its parts -------------------------------------------------------------------------------------------------------

    def _film(self) -> None:
        """Capture a picture; through `_capture_frame`, which a derived class may have itself."""
        self._capture_frame()
        self._take_over()

    def _begin_recording(self) -> None:
        self._captured = 0
        self._untold = None
        self._forget_frames()
        camera = self._ready()
        if camera is not None:
            camera.begin(
                self._rule or BY_HAND,
                path=camera.path(self.video_folder, self.name_prefix, self._video_name or self.name_prefix),
                fps=usable_rate(self.frames_per_sec),
                frames=None if self.video_length == math.inf else int(self.video_length) + 1,
                episode=max(self._episode, 0),
            )

    def _end_recording(self) -> None:
        camera = self._camera
        if camera is None:
            return
        self._take_over()
        self._forget_frames()
        path = camera.path(self.video_folder, self.name_prefix, self._video_name) if self._video_name else ""
        if not camera.end_recording(self._because, path):
            warn("Ignored saving a video as there were zero frames to save.", UserWarning)

    def _add_rendered(self, rendered: Any) -> Any:
        """What `render()` gives its caller: where pictures are collected, all since his last call, each once."""
        if isinstance(rendered, list):
            if self.recording:
                with self._guarded():
                    for frame in rendered:
                        self._add(frame, 0.0)
            if self.render_history:
                history, self.render_history = self.render_history, []
                return history + rendered
        return rendered

    def _start(self, name: str, rule: Rule) -> None:
        """Begin a recording by our rules; through `start_recording`, which a subclass may have overridden."""
        before, self._rule = self._rule, rule
        try:
            self.start_recording(name)
        finally:
            self._rule = before

    def _stop(self, because: str) -> None:
        """End a recording by our rules, complete where there is no because; through `stop_recording`, likewise."""
        before = self._rule, self._because
        self._rule, self._because = self._rule or BY_HAND, because
        try:
            self.stop_recording()
        finally:
            self._rule, self._because = before


def about_session(
    order: Order, *, env_id: str, env: Any, arguments: dict[str, Any], fps: Any, spaces: tuple[Any, Any]
) -> SessionStarted:
    """What a session says of itself whose first environment this is; its id is put in when it begins."""
    spec = getattr(env, "spec", None)
    return SessionStarted(
        session="",
        kind="script",
        env_id=env_id,
        env_kwargs=plain_arguments(getattr(spec, "kwargs", None) or {}),
        label=script_label(),
        tags=order.tags,
        observation_space=in_words(spaces[0]),
        action_space=in_words(spaces[1]),
        render_fps=usable_rate(fps),
        configuration=plain_arguments({name: value for name, value in arguments.items() if value is not None}),
        versions=versions(),
    )


def _name_of(trigger: Any) -> str:
    return "cubic" if getattr(trigger, "__name__", "") == "capped_cubic_video_schedule" else "trigger"


def usable_rate(fps: Any) -> float:
    """A usable number of frames per second; 30 where it is none."""
    try:
        rate = float(fps)
    except (TypeError, ValueError):
        return 30.0
    return rate if 0.0 < rate < math.inf else 30.0


def last_numbers(folder: Path, prefix: str, whose: str = "") -> tuple[int, int]:
    """The highest step and episode that names of videos in a folder tell; behind the prefix stands `whose` they are."""
    highest = {"step": -1, "episode": -1}
    pattern = re.compile(rf"{re.escape(prefix)}-(?:w\d+-)?{whose}(step|episode)-(\d+)(?:-part\d+)?\.mp4")
    for file in folder.glob("*.mp4"):
        found = pattern.fullmatch(file.name)
        if found:
            highest[found[1]] = max(highest[found[1]], int(found[2]))
    return highest["step"], highest["episode"]
