"""The options of the environment runner: its table in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kernel.plugin import Options
from plugins.events import CaptureSettings, Keep

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024**2
GIB = 1024**3


class CaptureOptions(CaptureSettings, frozen=True, kw_only=True):
    """The table `[plugins.runner.capture]`: which episodes are captured. By default, all of them."""

    off: bool = False
    """Capture nothing, and keep telemetry only: the same as `mode = "off"`."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f'every: {self.every} is not a number of episodes; use 1 or more, or mode = "off"')
        if self.mode != "every" and self.every != 1:
            raise ValueError(f'every: counts for mode = "every" alone, and the mode is "{self.mode}"; set one of them')
        if self.off and (self.mode in ("cubic", "eval", "manual") or self.every != 1):
            raise ValueError("off: is true, so nothing is captured; remove it, or the other keys of this table")

    @property
    def settings(self) -> CaptureSettings:
        """What the recorder wants to know."""
        return CaptureSettings(mode="off" if self.off else self.mode, every=self.every)


class EnvRunnerOptions(Options):
    """Which environment is run, for how long, by which policy, and what of it is recorded."""

    env: str
    """Id of the environment, as `gymnasium.make` takes it."""
    env_kwargs: dict[str, Any] = {}
    """Further arguments to `gymnasium.make`."""
    imports: list[str] = msgspec.field(default_factory=list, name="import")
    """Modules to import first, for environments that register themselves on import."""
    wrappers: list[str | dict[str, Any]] = []
    """Wrappers from the inside out: `"module:Class"`, or a table of `use` and the wrapper's other arguments."""
    max_episode_steps: int | None = None
    """Truncate episodes after this many steps; unless set, as the environment is registered."""

    workers: int = 1
    """Worker processes, each with an environment of its own."""
    episodes: int = 0
    """End after this many episodes over all workers; 0 sets no limit."""
    steps: int = 0
    """End after this many steps over all workers, in mid-episode if need be; 0 sets no limit."""
    seconds: float = 0.0
    """End this many seconds after the start, in mid-episode if need be; 0 sets no limit."""
    seed: int | None = None
    """Episode i is reset with seed + i, whatever the number of workers. Unless set, one is drawn and recorded."""
    policy: dict[str, Any] = msgspec.field(default_factory=lambda: {"use": "random"})
    """What chooses the actions: `use` is `random`, `sb3` or `module:function`; the other keys are passed on to it."""
    eval_every: int = 0
    """Mark episodes 0, N, 2N, … as evaluation episodes; 0 marks none."""

    label: str = ""
    """A name for the session, for people."""
    tags: list[str] = []
    """Words to find the session by."""

    capture: CaptureOptions = CaptureOptions()
    """Which episodes are captured."""
    keep: Keep = Keep()
    """Which captured episodes become videos, decided when they have ended."""
    telemetry: Literal["all", "captured", "episodes"] = "all"
    """Record every step, the steps of captured episodes, or none."""
    values: Literal["small", "all", "none"] = "small"
    """Record observations and infos where they are small, in full, or not at all."""
    video_folder: str = "videos"
    """Where the videos go, each session's into a folder of its own; relative to the home."""
    name_prefix: str = "rl-video"
    """What the names of the video files begin with."""
    fps: float | None = None
    """Pictures a second in the videos; unless set, the environment's `render_fps`, or 30."""

    memory_bytes: int = 64 * MIB
    """What a worker may hold in memory for its disk; beyond it, pictures are dropped and counted."""
    spool_bytes: int = 4 * GIB
    """What may wait on the disk to be encoded; beyond it, pictures are dropped and counted."""

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ValueError("\n  ".join(problems))

    def _problems(self) -> list[str]:
        """What makes no sense or contradicts itself, each as a sentence."""
        return [*self._senseless(), *self._contradictions()]

    def _senseless(self) -> Iterator[str]:
        for key, value, least in (
            ("max_episode_steps", self.max_episode_steps, 1),
            ("workers", self.workers, 1),
            ("episodes", self.episodes, 0),
            ("steps", self.steps, 0),
            ("seconds", self.seconds, 0),
            ("seed", self.seed, 0),
            ("eval_every", self.eval_every, 0),
            ("keep.best", self.keep.best, 0),
            ("keep.worst", self.keep.worst, 0),
            ("keep.every", self.keep.every, 0),
            ("memory_bytes", self.memory_bytes, MIB),
            ("spool_bytes", self.spool_bytes, MIB),
        ):
            if value is not None and value < least:
                yield f"{key}: {value} is too small; use {least} or more"
        if self.fps is not None and not 0 < self.fps <= 1000:
            yield f"fps: {self.fps} is not a number of pictures a second; use one above 0, up to 1000"
        if not self.env:
            yield 'env: is empty; name an environment, such as "CartPole-v1"'
        if not self.video_folder:
            yield 'video_folder: is empty; name a folder, such as "videos"'
        if not self.name_prefix or "/" in self.name_prefix:
            yield f'name_prefix: "{self.name_prefix}" cannot begin a file name; use letters, digits and dashes'
        if not isinstance(self.policy.get("use"), str):
            yield 'policy: has no `use`; set it to "random", "sb3" or "module:function"'
        for wrapper in self.wrappers:
            if ":" not in str(wrapper if isinstance(wrapper, str) else wrapper.get("use")):
                yield f'wrappers: {wrapper!r} names no wrapper; write "module:Class", or {{use = "module:Class", ...}}'

    def _contradictions(self) -> Iterator[str]:
        if "render_mode" in self.env_kwargs:
            yield "env_kwargs: the runner sets the render_mode itself, to rgb_array; remove it"
        if "max_episode_steps" in self.env_kwargs:
            yield "env_kwargs: max_episode_steps is a key of the runner's own table; set it there"
        if 0 < self.steps < self.workers:
            yield f"steps: {self.steps} cannot be split over {self.workers} workers; use fewer workers"
        mode = self.capture.settings.mode
        if mode == "off" and self.keep != Keep():
            yield "keep: there is nothing to keep, as capture is off; remove one of the two"
        if mode == "off" and self.telemetry == "captured":
            yield 'telemetry: "captured" records no step, as capture is off; use "all" or "episodes"'
        if mode == "eval" and not self.eval_every:
            yield 'capture: the mode "eval" captures nothing, as no episode is an evaluation; set eval_every'
