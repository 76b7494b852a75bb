"""RecordVideoVector, a drop-in replacement for `gymnasium.wrappers.vector.RecordVideo` (1.4), and what goes beyond it.

By default one picture is put together of all sub-environments, and recorded by upstream's rules. With `per_env=True`
each has recordings of its own (see `each`). Both tell what every sub-environment does (see `batch`).
"""

from __future__ import annotations

from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import logger
from gymnasium.vector import VectorWrapper

from plugins.recorder.apart import Rows
from plugins.recorder.batch import Batch, Opening, chosen_of, seed_of
from plugins.recorder.describe import env_id_of
from plugins.recorder.each import Each
from plugins.recorder.filming import RESET_EARLY, Filming, about_session, order, refuse_render_mode
from plugins.recorder.mosaic import Layout, Mosaic, apart, layout
from plugins.recorder.tape import NOTHING_SHOWN

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from gymnasium.vector import VectorEnv

    from plugins.events import Keep, VideoAvailable
    from plugins.recorder.batch import BatchStep
    from plugins.recorder.camera import Camera
    from plugins.recorder.filming import Order
    from plugins.recorder.requests import Decision
    from plugins.recorder.tape import Shown


class _AutoresetMode(Enum):
    """The modes, for Gymnasium 1.0, whose vector environments all reset at the next step and do not say so."""

    NEXT_STEP = "NextStep"
    SAME_STEP = "SameStep"
    DISABLED = "Disabled"


AutoresetMode: Any = getattr(gym.vector, "AutoresetMode", _AutoresetMode)


class RecordVideoVector(
    Filming, VectorWrapper, gym.utils.RecordConstructorArgs
):  # Gymnasium 1.0's takes no type arguments
    """Records videos of vector environments, and what happened in each sub-environment, while another process encodes.

    A drop-in replacement for `gymnasium.wrappers.vector.RecordVideo`: the same arguments, files and attributes.
    See docs/wrappers.md for what is the same and what is better.
    """

    def __init__(  # noqa: PLR0917 - as upstream has it
        self,
        env: VectorEnv[Any, Any, Any],
        video_folder: str | os.PathLike[str],
        video_aspect_ratio: tuple[float, float] = (1, 1),
        record_first_only: bool = False,  # noqa: FBT001, FBT002 - as upstream has it
        episode_trigger: Callable[[int], bool] | None = None,
        step_trigger: Callable[[int], bool] | None = None,
        video_length: int = 0,
        name_prefix: str = "rl-video",
        fps: float | None = None,
        disable_logger: bool = True,  # noqa: FBT001, FBT002 - as upstream has it
        gc_trigger: Callable[[int], bool] | None = None,
        *,
        per_env: bool = False,
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
        """Wrap a vector environment whose `render()` gives pictures.

        Args:
            env: The vector environment, whose sub-environments were made with `render_mode="rgb_array"`.
            video_folder: Where the MP4s go; made if it is missing. Nothing but finished files is ever in it.
            video_aspect_ratio: What the whole picture's width and height should be near to.
            record_first_only: Show sub-environment 0 alone.
            episode_trigger: Given the index of an episode of sub-environment 0, whether to record from its start to
                its end; by default the capped cubic schedule. With `per_env`, of each one's own episodes.
            step_trigger: Given a step's index, whether to begin a recording behind it.
            video_length: Stop behind so many steps, over however many episodes; 0: at the episode's end.
            name_prefix: `{prefix}-episode-{N}.mp4`, `{prefix}-step-{N}.mp4`; with `per_env`
                `{prefix}-env{i}-episode-{N}.mp4`, `{prefix}-env{i}-step-{N}.mp4`.
            fps: Frames per second; by default the environment's `render_fps`, else 30.
            disable_logger: Taken for compatibility; there is nothing to log.
            gc_trigger: Given the episode's index at the end of a recording, whether to collect garbage then. By default
                nothing is collected, as nothing is held.
            per_env: Make a file for each sub-environment, instead of one that shows all.
            indices: Tell the steps of these sub-environments alone, and with `per_env` record them alone.
            home: Where everything else is kept; by default `$STEPREEL_HOME`, else `./.stepreel`.
            telemetry: `"captured"` tells the steps of captured episodes, and each episode's start and end; `"all"` each
                step; `"episodes"` starts and ends alone; False nothing.
            keep: Which captured episodes become videos, decided at their end; by default all.
            max_videos: Of these videos the newest so many stay, with `per_env` of each sub-environment; by default all.
            on_video: Called with each `VideoAvailable`, in this process, from a thread or while closing.
            wait: Whether `close`, `stop_recording` and the script's end wait for the videos.
            resume: Go on numbering behind the files that are there.
            tags: Words for the session.

        In a vector environment that resets in the same step, the last picture of an episode is not to be had.

        Raises:
            ValueError: for a render mode that gives no picture, or an argument that makes no sense.
        """
        arguments = {
            "video_folder": video_folder,
            "video_aspect_ratio": video_aspect_ratio,
            "record_first_only": record_first_only,
            "episode_trigger": episode_trigger,
            "step_trigger": step_trigger,
            "video_length": video_length,
            "name_prefix": name_prefix,
            "fps": fps,
            "disable_logger": disable_logger,
            "gc_trigger": gc_trigger,
            "per_env": per_env,
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
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        VectorWrapper.__init__(self, env)
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
        if per_env and record_first_only:
            raise ValueError("record_first_only shows one sub-environment; with per_env=True, say indices=[0]")
        if not all(length > 0 for length in video_aspect_ratio):
            raise ValueError(
                f"video_aspect_ratio must be two numbers above 0, such as (16, 9), not {video_aspect_ratio}"
            )
        chosen = chosen_of(indices, self.num_envs)
        self.autoreset_mode = _autoreset_mode_of(env)
        self.has_autoreset = False
        self.record_first_only = record_first_only
        self.video_aspect_ratio = video_aspect_ratio
        self.frame_cols = -1
        self.frame_rows = -1
        spaces = (env.single_observation_space, env.single_action_space)
        rate = self.metadata.get("render_fps", 30) if fps is None else fps
        about = about_session(mine, env_id=_sub_env_id_of(env), env=env, arguments=arguments, fps=rate, spaces=spaces)
        self._load(
            mine,
            about,
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
        self._spaces = spaces
        self._mosaic = Mosaic(self._warn_of_pictures)
        self._rows, self._mute_first = _rows_told(chosen, self.num_envs, mine)
        self._environments = len(self._rows)
        self._batch: Batch | None = None
        self._quiet = False
        """The next step is one of which nothing is to be said, unless it ends an episode."""
        self._resetting: Sequence[int] = ()
        """The places whose next step is a reset."""
        self._cut_short: Sequence[int] = ()
        """The places that are being reset by the user."""
        self._decision: Decision | None = None
        """What was decided for the episode of environment 0 that begins now."""
        self._each: Each | None = None
        if per_env:
            self._each = Each(self, mine, about, Rows(self.num_envs, chosen), spaces)
            self._rows = self._each.rows

    # What scripts call -----------------------------------------------------------------------------------------------

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset the environments, or those of `options["reset_mask"]`, and begin a recording where one is due."""
        mask = _mask_of(options, self.num_envs)  # before the environment takes it out of the options
        first = mask is None or bool(mask[0])
        if first:
            self.episode_id += 1
        result = self.env.reset(seed=seed, options=options)
        self._quiet = False
        self._step_seconds = 0.0
        self.has_autoreset = False
        observations, infos = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        places = [place for place, index in enumerate(self._rows.chosen) if mask is None or mask[index]]
        self._resetting = [place for place in self._resetting if place not in places]
        if self._each is None:
            self._behind_reset(places, observations, infos, seed, first=first)
        else:
            self._each.reset(self, places, observations, infos, seed)
            self._batch = self._each.batch
        return result

    def step(self, actions: Any) -> Any:
        """Step the environments, and record what is to be recorded of it."""
        if self._quiet:
            result = self.env.step(actions)
            self.step_id += 1
            try:
                if self._batch.passes(result):  # type: ignore[union-attr]  # there is one where it is quiet
                    return result
            except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
                self._fail(error)
            self._behind_step(actions, result)
            return result
        began = perf_counter()
        result = self.env.step(actions)
        self._step_seconds = perf_counter() - began
        self.step_id += 1
        self._behind_step(actions, result)
        return result

    def render(self) -> Any:
        """The pictures as the environment gives them; none of them is lost by recording."""
        return self.env.render()

    def close(self, **kwargs: Any) -> None:
        """Close the environments, and wait until the videos stand. A second call is harmless."""
        self.env.close(**kwargs)
        self._wind_up()

    def __del__(self) -> None:
        """Seal what is open of an environment that nobody closed."""
        self._let_go()

    @property
    def recording(self) -> bool:
        """Whether a recording is running; with `per_env`, whether any is. Setting it begins or ends one."""
        each = self._each
        return super().recording if each is None else each.recording

    @recording.setter
    def recording(self, runs: bool) -> None:
        if self._each is None:
            Filming.recording.fset(self, runs)  # type: ignore[attr-defined] # of the property
        elif not runs:
            self._each.end("")

    def start_recording(self, video_name: str) -> None:
        """Begin a recording for `{video_name}.mp4`; with `per_env`, one for each `{video_name}-env{i}.mp4`."""
        self._quiet = False
        if self._each is None:
            super().start_recording(video_name)
        else:
            self._each.begin(self, video_name)
            self._batch = self._each.batch

    def stop_recording(self) -> None:
        """Stop what is running. When you call it, it waits for the videos (unless `wait=False`)."""
        if self._each is None:
            super().stop_recording()
        else:
            assert self.recording, "stop_recording was called, but no recording was started"
            self._each.end("")
            if self._order.wait:
                self.flush()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the videos of all ended recordings stand, have failed, or cannot be made.

        Returns False where that would take longer than `timeout` seconds.
        """
        each = self._each
        return super().flush(timeout) if each is None else each.flush(timeout)

    def set_step(self, step: int) -> None:
        """Tell the training's own count of steps: the x-axis of all episodes and videos from now on."""
        super().set_step(step)
        if self._each is not None:
            self._each.set_step(step)

    def _capture_frame(self) -> None:
        """Render, and add the picture to the running recording, or each picture to its own."""
        if self._each is None:
            super()._capture_frame()
        else:
            self._each.capture()

    # Behind resets and steps -----------------------------------------------------------------------------------------

    def _behind_reset(self, places: Sequence[int], observations: Any, infos: Any, seed: Any, *, first: bool) -> None:
        rows = self._rows
        self._decision = None
        self._cut_short = places
        try:
            if first:
                self._decision = self._decide(RESET_EARLY)
            else:
                with self._guarded():
                    camera = self._ready()
                    if camera is not None:
                        self._abort(camera)
        finally:
            self._cut_short = ()
        with self._guarded():
            camera, batch = self._live, self._batch
            if camera is None or batch is None:
                return
            shown = self._shown(camera)
            observation, info = batch.apart(observations, infos)
            for place in places:
                self._begin(place, (observation(place), info(place)), shown, seed_of(seed, rows.chosen[place]))
            self._stop_at_length()

    def _behind_step(self, actions: Any, result: Any) -> None:
        """Upstream's rules, in upstream's order; and between them what is told of each sub-environment."""
        each = self._each
        step: BatchStep | None = None
        first_over = False
        try:
            first_over = bool(result[2][0] or result[3][0])
            if self._batch is not None and (self._live is not None if each is None else each.live):
                step = self._batch.take(actions, result, self._step_seconds)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)
        ended: Sequence[int] = () if step is None else step.ended
        same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
        opened: Sequence[int] = ()
        """The places in which this step began a new episode."""
        turns = False
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            opened, self._resetting = self._resetting, ended
            turns, self.has_autoreset = self.has_autoreset, first_over
        elif same_step:
            opened, turns = ended, first_over
            if step is not None and ended:
                with self._guarded():
                    self._tell_ends(step) if each is None else each.tell_ends(step)
        self._turn(opened, first=turns)
        if self.step_trigger is not None:
            self._begin_at_step()
        if step is not None and self._batch is not None:
            try:
                if each is None:
                    self._record(step, opened, same_step=same_step)
                else:
                    each.record(step, opened, same_step=same_step)
                self._quiet = self.step_trigger is None and not (self.recording or self._resetting or self._batch.told)
            except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
                self._fail(error)

    def _turn(self, opened: Sequence[int], *, first: bool) -> None:
        """Behind a step that began new episodes: end and begin recordings. `first`: it did so in environment 0."""
        self._decision = None
        if first:
            self.episode_id += 1
        if self._each is not None:
            self._each.turn(self, opened)
        elif first:
            self._decision = self._decide("")

    def _begin_at_step(self) -> None:
        if self._each is None:
            super()._begin_at_step()
        elif self.step_trigger is not None and self.step_trigger(self.step_id):
            self._each.begin_at_step(self, self.step_id)

    def _tell_ends(self, step: BatchStep) -> None:
        """Of a batch that resets in the same step: the last steps, which no picture shows."""
        camera, batch = self._live, self._batch
        if camera is not None and batch is not None:
            for place, episode in batch.tell_ends(step):
                if place == 0:
                    camera.episode_over(episode, seal=False)

    def _record(self, step: BatchStep, opened: Sequence[int], *, same_step: bool) -> None:
        """Behind all that begins and ends recordings: show and tell the step."""
        camera, batch = self._live, self._batch
        if camera is None or batch is None:
            return
        entered = perf_counter()
        shown = self._shown(camera)
        films = shown is not NOTHING_SHOWN
        for place, episode in batch.tell_steps(step, opened, shown, len(camera.in_picture)):
            if place == 0:
                self._over(camera, episode)
        batch.count(step)
        for place in opened:
            first = step.first(place) if same_step else (step.observation(place), step.info(place))
            self._begin(place, first, shown)
        meter = camera.line.meter
        if films:
            meter.captured.add(step.seconds + perf_counter() - entered)
        else:
            meter.bare.add(step.seconds)
        self._stop_at_length()

    @property
    def _live(self) -> Camera | None:
        """The camera of the picture of all, where it records."""
        camera = self._camera
        return None if camera is None or camera.line.off or camera.foreign else camera

    def _shown(self, camera: Camera) -> Shown:
        """What a picture of now shows, where a recording runs."""
        if not camera.goes_on():
            return NOTHING_SHOWN
        self._film()
        return camera.tape.shown()

    def _begin(self, place: int, first: tuple[Any, Any], shown: Shown, seed: int | None = None) -> None:
        """Begin an episode in the telemetry, behind the picture of its reset; `first` are its observation and info."""
        camera, batch = self._camera, self._batch
        assert camera is not None
        assert batch is not None
        decision = self._decision
        why = "not due" if decision is None else decision.why
        captured = camera.tape.open and place < len(camera.in_picture)
        if captured and not (decision is not None and decision.captured):
            why = "goes on"
        opening = Opening(captured=captured, why=why, shown=shown if captured else NOTHING_SHOWN)
        number = self._episode if place == 0 and decision is not None else None
        batch.begin(place, *first, opening, seed=seed, number=number)
        self._episode = batch.numbers[0]

    # What `Filming` asks of a wrapper --------------------------------------------------------------------------------

    def _render(self) -> Any:
        rendered = self.env.render()
        pictures = apart(rendered, self.num_envs)
        if pictures is None:
            return rendered  # one picture of them all, as it is; or what is none, which ends the recording
        if self.record_first_only:
            pictures = pictures[:1]
        size = self._mosaic.size_of_one(pictures)
        if size is None:
            return None
        if -1 in (self.frame_rows, self.frame_cols) or self.frame_rows * self.frame_cols < len(pictures):
            width, height = self.video_aspect_ratio
            self.frame_rows, self.frame_cols = layout(len(pictures), *size, width / height)
        return self._mosaic.put_together(pictures, Layout(self.frame_rows, self.frame_cols))

    def _ready(self) -> Camera | None:
        before = self._camera
        camera = super()._ready()
        if camera is not None and camera is not before:
            self._batch = Batch(camera.streams, self._rows, self._spaces)
            if self._mute_first:
                camera.telemetry.mute()
            if self.record_first_only:
                camera.in_picture = camera.streams[:1]
        return camera

    def _abort(self, _: Camera) -> None:
        assert self._batch is not None
        self._batch.abort(self._cut_short)

    def _wind_up(self) -> None:
        if self._each is None:
            super()._wind_up()
        else:
            self._each.close()
            if self._order.wait:
                self.flush()

    def _let_go(self) -> None:
        each = self.__dict__.get("_each")
        if each is None:
            super()._let_go()
        else:
            each.let_go()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_batch": None, "_quiet": False, "_resetting": ()}

    def _fail(self, error: Exception) -> None:
        self._quiet = False
        if self._each is None:
            super()._fail(error)
        else:
            self._each.fail(error)

    def _warn_of_pictures(self, text: str) -> None:
        camera = self._camera
        if camera is not None:
            camera.line.warn_once("mosaic", f"{self._about.env_id}: {text}")


def _rows_told(chosen: list[int] | None, size: int, order: Order) -> tuple[Rows, bool]:
    """Of whom there is telemetry, environment 0 first, as the recordings are of its episodes; whether 0 is mute."""
    if order.telemetry == "none":
        return Rows(size, [0]), True
    if chosen is None:
        return Rows(size), False
    others = [index for index in chosen if index]
    return Rows(size, [0, *others]), len(others) == len(chosen)


def _mask_of(options: Any, size: int) -> np.ndarray[Any, Any] | None:
    """Which sub-environments a reset is for; None for all."""
    if not isinstance(options, dict) or "reset_mask" not in options:
        return None
    try:
        return np.asarray(options["reset_mask"], dtype=bool).reshape(size)
    except Exception:  # noqa: BLE001 - what it is, is between the user and his environment
        return None


def _autoreset_mode_of(env: Any) -> Any:
    """How a vector environment resets sub-environments whose episode is over; warns where that matters."""
    mode = env.metadata.get("autoreset_mode")
    if mode is None:
        if AutoresetMode is not _AutoresetMode:
            logger.warn(
                f"{env} metadata doesn't specify its autoreset mode ({env.metadata!r}), therefore, defaulting to "
                "next step."
            )
        return AutoresetMode.NEXT_STEP
    if mode == AutoresetMode.SAME_STEP:
        logger.warn(
            "Vector environment's autoreset mode is same-step (https://farama.org/Vector-Autoreset-Mode). Recorded "
            "episodes will not contain the last frame of the episode."
        )
    return mode


def _sub_env_id_of(env: Any) -> str:
    """The id of the sub-environments, where it can be had without asking another process."""
    spec = getattr(env, "spec", None)
    if spec is None:
        inner = getattr(getattr(env, "unwrapped", env), "envs", None)
        if isinstance(inner, (list, tuple)) and inner:
            return env_id_of(inner[0])
    return env_id_of(env)
