"""The vocabulary: what producers and plugins say to each other about sessions, episodes, recordings and videos."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kernel.event import Event

# Parts of events -------------------------------------------------------------------------------------------------


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """A Gymnasium space in plain words."""

    kind: str
    """Its class: `Box`, `Discrete`, `Dict`, …"""
    shape: list[int] | None = None
    dtype: str | None = None
    description: str = ""
    """Its `repr`, up to 1 KiB."""


class Keep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which captured episodes become videos, decided when the episode has ended. Nothing set: all of them."""

    best: int = 0
    """Keep the N episodes of the highest return."""
    worst: int = 0
    """Keep the N episodes of the lowest return."""
    failures: bool = False
    """Keep episodes whose last info says `is_success` or `success` is false."""
    every: int = 0
    """Keep every N-th episode, whatever its return."""


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to capture an episode."""

    mode: Literal["every", "cubic", "eval", "manual", "off"] = "every"
    every: int = 1
    """With mode `every`: capture episodes 0, N, 2N, …"""


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long steps took, as counts in buckets that double: bucket i holds times below 2**i microseconds."""

    counts: list[int]
    total_seconds: float
    longest_seconds: float


# Sessions, workers, episodes, steps ------------------------------------------------------------------------------


class SessionStarted(Event):
    """A run began: N workers that step one environment spec, or one training script."""

    session: str
    kind: Literal["runner", "script"]
    env_id: str
    env_kwargs: dict[str, Any] = {}
    label: str = ""
    tags: list[str] = []
    workers: int | None = None
    seed: str | None = None
    """Episode i is reset with seed + i. Text, as Gymnasium's own seeds may have 126 bits."""
    observation_space: Space | None = None
    action_space: Space | None = None
    render_fps: float | None = None
    configuration: dict[str, Any] = {}
    """The runner's options, or the wrapper's arguments."""
    versions: dict[str, str] = {}


class SessionEnded(Event):
    """A run is over, and all its workers' events are in the log before this one."""

    session: str
    outcome: Literal["finished", "stopped", "failed", "lost"]
    """By itself, by a signal or a user, by an error, or killed."""
    episodes: int
    steps: int
    recordings: int
    frames_dropped: int = 0
    steps_dropped: int = 0


class WorkerStarted(Event):
    """An environment of a session began to be stepped."""

    session: str
    worker: int
    pid: int
    env_id: str


class WorkerFailed(Event):
    """A worker's environment or policy raised."""

    session: str
    worker: int
    episode: int | None
    error: str
    traceback: str


class RecorderFailed(Event):
    """The recorder of an environment failed and is off; the environment itself goes on, unrecorded."""

    session: str
    worker: int
    episode: int | None
    error: str
    traceback: str


class WorkerEnded(Event):
    """An environment has ended, and all that it left is collected."""

    session: str
    worker: int
    outcome: Literal["finished", "failed", "lost"]
    """`lost`: its process died; what it had open was aborted and sealed in its name."""
    steps: int
    """Environment steps of this worker's process."""
    frames_dropped: int = 0
    steps_dropped: int = 0


class EpisodeStarted(Event):
    """An environment was reset."""

    session: str
    worker: int
    episode: int
    env_id: str
    seed: str | None
    observation: Any = None
    info: Any = None
    capture: str
    """Why it is captured (`every 5`, `cubic`, `asked`, …), or why not (`not due`, `off`, `low disk`, …)."""
    captured: bool
    recording: str | None = None
    first_frame: int | None = None
    """Index in the recording of the picture after the reset."""
    agents: list[str] = []
    """Who takes part, as far as that is known; empty for a lone `agent_0`."""
    time: float = 0.0
    """When the reset returned: Unix time in seconds, by the producer's clock."""
    evaluation: bool = False
    training_step: int | None = None
    """The training's own count of steps, where the script tells it (`set_step`)."""
    nonfinite: dict[str, str] = {}
    """Values that JSON cannot say: their dotted name, and `nan`, `inf` or `-inf`. They are null in their place."""


class StepRecorded(Event, omit_defaults=True):
    """One step of one agent. In the log, fields at their default are left out, as there are so many of these."""

    session: str
    worker: int
    agent: str = "agent_0"
    episode: int
    step: int
    """Counts from 1; 0 is the reset."""
    action: Any
    reward: float | None
    terminated: bool
    truncated: bool
    observation: Any = None
    """What `env.step` returned, by policy in full, small (see `plugins.recorder.values`) or not at all."""
    info: Any = None
    frame: int | None = None
    """Index in the recording of the picture after this step; null where none was captured."""
    frames: int = 1
    """How many pictures were captured during this step; `frame` is the last of them."""
    recording: str | None = None
    """The recording that `frame` counts in, where it is not the one that the episode's start names."""
    time: float
    """When the step returned: Unix time in seconds, by the producer's clock."""
    step_seconds: float
    """How long `env.step` took."""
    nonfinite: dict[str, str] = {}


class EpisodeEnded(Event):
    """An episode is over: one event for each agent."""

    session: str
    worker: int
    agent: str = "agent_0"
    episode: int
    env_id: str
    total_reward: float | None
    """Sum of the rewards; null where it is not finite (see `nonfinite`), or not known as the process was killed."""
    steps: int
    outcome: Literal["terminated", "truncated", "aborted"]
    success: bool | None = None
    """The last info's `is_success` or `success`; null where it has neither."""
    env_steps: int
    """Environment steps of this worker's process so far."""
    seconds: float
    """From the reset to the end."""
    time: float = 0.0
    """When it ended: Unix time in seconds, by the producer's clock."""
    recording: str | None = None
    """The first recording that shows some of it."""
    evaluation: bool = False
    training_step: int | None = None
    """The training's own count of steps, where the script tells it (`set_step`)."""
    nonfinite: dict[str, str] = {}


# Recordings and videos -------------------------------------------------------------------------------------------


class RecordingStarted(Event):
    """A video to be. Its frames are in the producer's spool folder, in a folder of the recording's name."""

    recording: str
    session: str
    worker: int
    episode: int
    env_id: str
    path: str
    """Where the video will be: relative to the home, or absolute where the user chose a folder outside it."""
    fps: float
    width: int
    height: int
    frames_wanted: int | None = None
    """How many frames were asked for, over however many episodes; null: the recording is of one whole episode, or until
    somebody stops it."""


class FrameSizeChanged(Event):
    """An environment's pictures changed their size or kind in mid-recording: the rest is a recording of its own."""

    session: str
    worker: int
    recording: str
    continued_as: str
    """The recording that begins with the new size."""
    width: int
    height: int


class ChunkSealed(Event):
    """A chunk file is complete, and may be encoded."""

    recording: str
    chunk: int
    """Index from 0."""
    file: str
    """Relative to the home's spool."""
    frames: int


class RecordingSealed(Event):
    """A recording is complete: no frame will be added."""

    recording: str
    session: str
    worker: int
    first_episode: int
    last_episode: int
    chunks: int
    frames: int
    frames_dropped: int = 0
    complete: bool = True
    """False where it was cut short."""
    incomplete_because: str = ""
    total_reward: float | None = None
    """Return of the episode it shows; null where it shows several or one without a finite return."""
    kept_for: list[str] = []
    """Why it is kept: of `best`, `worst`, `failure`, `every`; empty where no policy decides."""
    path: str = ""
    """Where the video will be, where that is not what `RecordingStarted` said: a script may name it at its end."""
    training_step: int | None = None
    """The training's own count of steps when the recording began, where the script told it (`set_step`)."""


class RecordingDiscarded(Event):
    """A recording will not be encoded; its frames are removed."""

    recording: str
    session: str
    why: str


class VideoAvailable(Event):
    """A video stands in its place, whole and checked. Said once, and last."""

    recording: str
    session: str
    worker: int
    first_episode: int
    last_episode: int
    path: str
    """Relative to the home, or absolute where the user chose a folder outside it."""
    sha256: str
    size_bytes: int
    frames: int
    fps: float
    width: int
    height: int
    codec: str
    seconds: float
    """Length of the video."""
    thumbnail: str | None = None
    """Path of a JPEG, relative to the home."""
    kept_for: list[str] = []
    complete: bool = True
    incomplete_because: str = ""
    total_reward: float | None = None
    training_step: int | None = None
    """The training's own count of steps when the recording began, where the script told it (`set_step`)."""


class VideoFailed(Event):
    """A recording could not be encoded. Said once."""

    recording: str
    session: str
    attempts: int
    reason: str
    """ffmpeg's last words."""
    frames_kept_in: str | None = None
    """Folder with its chunks, relative to the home; null where there was no room for them."""


# Retention -------------------------------------------------------------------------------------------------------


class FailedFramesDropped(Event):
    """The frames of a recording that failed, kept in `failed/` until now, make room for those of newer ones."""

    recording: str
    size_bytes: int


class VideoPinned(Event):
    """A user wants this video kept, whatever the policy says."""

    recording: str
    by: str = ""


class VideoUnpinned(Event):
    """The policy decides on this video again."""

    recording: str
    by: str = ""


class VideoDeleteAsked(Event):
    """A user wants this video removed. A pinned one is not."""

    recording: str
    by: str = ""


class RetentionAsked(Event):
    """A user wants other limits for the home's videos than are configured; null leaves one as it is configured."""

    max_videos_per_session: int | None = None
    max_bytes: int | None = None
    max_age_days: float | None = None
    evict: Literal["oldest", "thin"] | None = None
    by: str = ""


class PruneIntended(Event):
    """A video is about to be removed."""

    recording: str
    session: str
    path: str
    size_bytes: int
    policy: str
    """`keep`, `max_videos`, `max_age`, `max_videos_per_session`, `max_bytes`, `asked`, `replaced` or `gone`."""
    reason: str
    by: str = ""


class VideoPruned(Event):
    """A video was removed, or was found gone."""

    recording: str
    session: str
    path: str
    size_bytes: int
    """Bytes that were freed; 0 where the file was gone, or was no longer the one that was catalogued."""
    policy: str
    reason: str
    by: str = ""


class CaptureHeld(Event):
    """Free disk space fell below `min_free_bytes`, so no new recording begins; or there is room again."""

    held: bool
    free_bytes: int
    min_free_bytes: int


# What users ask for ----------------------------------------------------------------------------------------------


class CaptureAsked(Event):
    """A user wants episodes to be captured in another way, in this home, from their next reset on."""

    settings: CaptureSettings
    once: bool = False
    """Capture the next episode of each worker, once, and leave the settings as they are."""
    session: str | None = None
    """Only in this session; null: in all, and in later ones."""
    by: str = ""


class CaptureApplied(Event):
    """A worker took up the capture settings that were asked for."""

    session: str
    worker: int
    episode: int
    """The first episode that they decide on."""
    settings: CaptureSettings
    once: bool = False


class SessionAsked(Event):
    """A user wants a running session to pause, go on, stop, or show its pictures live."""

    session: str
    action: Literal["pause", "resume", "stop", "watch", "unwatch"]
    """Whoever watches says `watch` again before its `seconds` are over; `unwatch` ends that of the same `by`."""
    by: str = ""
    workers: list[int] = []
    """With `watch`: which of them; empty: all."""
    fps: float = 10.0
    """With `watch`: pictures a second, up to 10."""
    seconds: float = 20.0
    """With `watch`: for how long, up to 60."""


# Trouble ---------------------------------------------------------------------------------------------------------


class ProducerSetAside(Event):
    """A producer's spool folder cannot be read on; it stays where it is, and the rest goes on."""

    producer: str
    reason: str


class FileDamaged(Event):
    """A file in the home does not hold what was written into it. What could be done without it was done."""

    file: str
    """Relative to the home."""
    consequence: str
    """What that means: what was found again elsewhere, and what was not."""


class SpoolTailCut(Event):
    """The end of what a dead producer wrote was torn: bytes that are no whole event were cut off."""

    producer: str
    size_bytes: int


class EventLost(Event):
    """Stands for one event of a producer that was in the log, and is not any more: the log was damaged.

    It has the place that the event had in its producer's count.
    """

    producer: str


# Measurements ----------------------------------------------------------------------------------------------------


class Probe(Event):
    """What a producer measured in about a second in which it stepped."""

    session: str
    steps: int
    seconds: float
    captured: StepTimes
    """Of steps whose picture was captured: stepping, rendering and recording together."""
    bare: StepTimes
    """Of all other steps."""
    spool_bytes: int
    """Bytes in the home's whole spool."""
    frames_dropped: int = 0
    """In this second."""
    steps_dropped: int = 0
    unsent_bytes: int = 0
    """Bytes in memory that wait for the disk."""


class EncoderProbe(Event):
    """What the encoder pool measured; said when it changed, at most once a second."""

    waiting_chunks: int
    running_jobs: int
    frames_encoded: int
    """Since the kernel's start."""
