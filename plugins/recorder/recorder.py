"""The recorder: what an environment's reset, steps and close become, in events and frames."""

from __future__ import annotations

import math
import os
import sys
import traceback
import warnings
import weakref
from contextlib import suppress
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Literal

from plugins.events import (
    CaptureApplied,
    CaptureSettings,
    ChunkSealed,
    EpisodeEnded,
    EpisodeStarted,
    Keep,
    RecorderFailed,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    StepRecorded,
    WorkerEnded,
    WorkerStarted,
)
from plugins.recorder.frames import CHUNK_FRAMES, FrameRefused, layout_of, pack
from plugins.recorder.spool import ITEM_BYTES, Film, Meter, Outbox, Producer, RecordingPlan, encode
from plugins.recorder.triggers import KeepPolicy, due, success_of
from plugins.recorder.values import POLICIES, number, small

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kernel.event import Event

COMPRESSION_BUDGET = 0.05
"""LZ4 goes easier on the step when compressing takes more than this part of it."""

ACCELERATIONS = (1, 4, 16, 64)
"""LZ4's acceleration, from the smallest frames to the fastest."""

FLUSH_SECONDS = 5.0
"""How long `close` waits for the disk: a process may end without a word right after it."""

PATIENCE_EPISODES = 10
"""After so many episodes without `is_success` or `success`, a policy that keeps failures is warned about."""


class Recorder:
    """Records one environment. Plain and synchronous; one thread at a time may step it.

    The order is `start`, then `reset`, `capture_frame` while `recording`, `step`s, `reset`, …, and `close`. After
    `start` nothing here raises, and nothing waits for the disk but `close`: what goes wrong turns this recorder off,
    with one warning and a `RecorderFailed`. In a forked child a recorder is idle until its next `reset`, which starts
    it again as part of the child's own producer.
    """

    def __init__(
        self,
        producer: Producer,
        *,
        worker: int | Callable[[], int] = 0,
        env_id: str,
        fps: float,
        video_path: Callable[[int], str],
        capture: CaptureSettings | Callable[[int], bool] = CaptureSettings(),  # noqa: B008 - frozen
        keep: Keep = Keep(),  # noqa: B008 - frozen
        telemetry: Literal["all", "captured", "episodes"] = "all",
        values: Literal["small", "all", "none"] = "small",
        agents: Sequence[str] = ("agent_0",),
    ) -> None:
        """`worker` may be a function, which is asked at the start, and once more in a forked child.

        `capture` with a function is a trigger: it is given the episode's index. `video_path` is given it, too, and
        says where the MP4 will be (see `RecordingPlan.path`). `telemetry` says of which steps there are events;
        `values` how much of an observation and an info they hold (see `values`). An episode is over when all of
        `agents`, and any other that stepped, have terminated or been truncated.
        """
        self.producer = producer
        self.worker = -1
        self._worker = worker
        self._env_id = env_id
        self._fps = fps
        self._video_path = video_path
        self._capture = capture
        self._policy = KeepPolicy(keep)
        self._telemetry = telemetry
        self._plain = POLICIES[values]
        self._plain_action = POLICIES["all"] if values == "all" else small
        self._agents = tuple(agents)
        self._off = False
        self._outbox: Outbox | None = None
        self._episode: Episode | None = None
        self._acceleration = 0
        self._packed = 0
        self._pack_seconds = 0.0
        self._packed_step_seconds = 0.0
        self._episodes_ended = 0
        self._success_known = False
        self._warned: set[str] = set()
        _recorders.add(self)

    @property
    def recording(self) -> bool:
        """Whether a picture is wanted now: after the reset, and after each step until the episode ends."""
        return self._episode is not None and self._episode.wanted

    # The life of an environment ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with a `WorkerStarted`; the first `reset` does it too. A second call is harmless."""
        if self._outbox is not self.producer.outbox and not self._off and not self.producer.closed:
            self._begin()

    def reset(self, observation: Any, info: Any, *, seed: int | None, episode: int, evaluation: bool = False) -> None:
        """Begin an episode, after `env.reset()` has returned. One that is still open ends as aborted."""
        if self._off:
            return
        try:
            self._reset(observation, info, seed, episode, evaluation)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def capture_frame(self, picture: Any) -> None:
        """Add a picture to the recording: frame 0 right after `reset`, and more where a step shows several.

        Pictures that are added before a step belong to it, but for frame 0.
        """
        episode = self._episode
        if episode is None or not episode.wanted:
            return
        try:
            first = episode.film is None and not episode.steps
            if self._add_frame(episode, picture) is not None and not first:
                episode.pictures += 1
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def step(  # noqa: C901, PLR0912, PLR0915, PLR0917 - each call and keyword costs as much as the work
        self,
        action: Any,
        observation: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        info: Any,
        frame: Any,
        step_seconds: float,
        agent: str = "agent_0",
        render_seconds: float = 0.0,
    ) -> None:
        """Record a step, after `env.step()` has returned and its picture, where one is wanted, is rendered.

        `frame` is that picture, or None. Its arrays may change as soon as this returns. A step outside of an episode,
        or of an agent that has ended, is no step, and is left out.
        """
        # 2 to 3 µs without a frame; the writer thread does the rest.
        episode = self._episode
        if episode is None:
            return
        try:
            now = time()
            tally = episode.agents.get(agent)
            if tally is None:
                tally = episode.agents[agent] = Tally()
            elif tally.ended:
                return
            tally.steps = step = tally.steps + 1
            if step > episode.steps:  # the first agent to take its n-th step begins the environment's n-th
                episode.steps = step
                self._env_steps += 1

            meter = self._meter
            clock = meter.bare
            seconds = step_seconds
            if frame is not None and episode.wanted:
                entered = perf_counter()
                if self._add_frame(episode, frame, step_seconds + render_seconds) is not None:
                    episode.pictures += 1
                clock = meter.captured
                seconds += render_seconds + perf_counter() - entered
            index = None
            pictures = 1
            if episode.pictures:
                index = episode.film.frames - 1  # type: ignore[union-attr] # there is a film where there are pictures
                pictures = episode.pictures
                episode.pictures = 0

            nonfinite: dict[str, str] = {}
            plain_reward: float | None
            if type(reward) is float and math.isfinite(reward):
                plain_reward = reward
                tally.total += reward
            else:
                value = number(reward, "reward", nonfinite)
                plain_reward = None if nonfinite else value
                tally.total += value

            if meter.handed_bytes > self._look_at:
                self._look()
            if self._fullness == 2:
                meter.steps_dropped += 1
            elif episode.tells_steps:
                packed = encode(
                    StepRecorded(
                        session=self._session,
                        worker=self.worker,
                        agent=agent,
                        episode=episode.index,
                        step=step,
                        action=self._plain_action(action, "action", nonfinite),
                        reward=plain_reward,
                        terminated=bool(terminated),
                        truncated=bool(truncated),
                        observation=self._plain(observation, "observation", nonfinite),
                        info=self._plain(info, "info", nonfinite),
                        frame=index,
                        frames=pictures,
                        time=now,
                        step_seconds=float(step_seconds),
                        nonfinite=nonfinite,
                    )
                )
                meter.handed_bytes += len(packed) + ITEM_BYTES
                self._say_packed(packed)
            clock.add(seconds)
            if terminated or truncated:
                self._end_agent(episode, agent, tally, "terminated" if terminated else "truncated", success_of(info))
                if all(other.ended for other in episode.agents.values()):
                    self._end(episode, "")
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def close(self, outcome: Literal["finished", "failed"] = "finished") -> None:
        """End, with a `WorkerEnded`; an episode that is still open is aborted. A second call is harmless.

        Returns when what was recorded is in files, or after a few seconds.
        """
        if self._off:
            return
        self._off = True
        if self._outbox is not self.producer.outbox:
            return  # never begun, or not in this process
        try:
            if self._episode is not None:
                self._abort(self._episode, "the environment was closed")
            if self._episodes_ended:
                self._warn_about_failures()
            self._leave(outcome)
        except Exception as error:  # noqa: BLE001 - the program goes on, whatever it is
            self._fail(error)
            return
        if not self.producer.outbox.trouble:
            self.producer.flush(FLUSH_SECONDS)

    # Its parts, in the order of an episode ---------------------------------------------------------------------------

    def _begin(self) -> None:
        self.producer.start()
        self._outbox = outbox = self.producer.outbox
        self.worker = self._worker() if callable(self._worker) else self._worker
        self._session = outbox.session
        self._meter = Meter()
        self.producer.join(self._meter)
        # What other threads append to these lists meanwhile lies before or behind, never in between.
        self._say_packed = outbox.events.append
        self._append_frame = outbox.frames.append
        self._env_steps = 0
        self._fullness = 0
        self._look_at = 0
        self._asked = 0
        self._once = outbox.control.once
        self._say(WorkerStarted(session=self._session, worker=self.worker, pid=os.getpid(), env_id=self._env_id))

    def _reset(self, observation: Any, info: Any, seed: int | None, index: int, evaluation: bool) -> None:  # noqa: FBT001 - as reset() got it
        if self._episode is not None:
            self._abort(self._episode, "the environment was reset before the episode had ended")
        if self.producer.closed:
            return
        if self._outbox is not self.producer.outbox:
            self._begin()
        outbox = self.producer.outbox
        if outbox.trouble and not outbox.trouble_told:
            outbox.trouble_told = True
            self._warn(
                f"{outbox.folder}: cannot be written ({outbox.trouble}). What is recorded waits in memory, up to "
                f"{outbox.memory_bytes} bytes; then frames are dropped. Make room, or mend the path."
            )
        self._look()
        captured, why, asked = self._decide(index, evaluation)
        episode = self._episode = Episode(index, evaluation, self._agents)
        episode.captured = episode.wanted = captured
        episode.why = why
        episode.asked = asked
        episode.tells_steps = self._telemetry == "all" or (captured and self._telemetry == "captured")
        if captured:
            episode.recording = f"{outbox.producer}-{next(outbox.recordings):04d}"
        nonfinite: dict[str, str] = {}
        self._say(
            EpisodeStarted(
                session=self._session,
                worker=self.worker,
                episode=index,
                env_id=self._env_id,
                seed=None if seed is None else str(seed),
                observation=self._plain(observation, "observation", nonfinite),
                info=self._plain(info, "info", nonfinite),
                capture=why,
                captured=captured,
                recording=episode.recording or None,
                first_frame=0 if captured else None,
                time=time(),
                evaluation=evaluation,
                nonfinite=nonfinite,
            )
        )

    def _decide(self, index: int, evaluation: bool) -> tuple[bool, str, bool]:  # noqa: FBT001 - as reset() got it
        """Whether to capture the episode, why, and whether a user asked for this one."""
        control = self.producer.outbox.control
        capture = control.settings or self._capture
        captured, why = due(capture, index, evaluation=evaluation)
        once = control.once != self._once
        if once:
            captured, why = True, "asked"
        if captured and control.held:
            captured, why = False, "low disk"
        elif captured and self._fullness:
            captured, why = False, "spool full"
        applied = control.settings is not None and control.asked != self._asked
        once = once and captured  # one that cannot be now is honoured when it can
        if applied or once:
            settings = capture if isinstance(capture, CaptureSettings) else CaptureSettings(mode="manual")
            self._say(
                CaptureApplied(session=self._session, worker=self.worker, episode=index, settings=settings, once=once)
            )
        self._asked = control.asked
        if once:
            self._once = control.once
        return captured, why, once

    def _add_frame(self, episode: Episode, picture: Any, step_seconds: float = 0.0) -> int | None:
        """Compress and append a picture; its index, or None where it was dropped."""
        meter = self._meter
        film = episode.film
        try:
            if film is None:
                film = self._new_film(episode, picture)
            elif self._full():
                film.dropped += 1
                meter.frames_dropped += 1
                return None
            began = perf_counter()
            payload = pack(picture, film.header, ACCELERATIONS[self._acceleration])
        except FrameRefused as refusal:
            if episode.film is None:
                episode.wanted = False  # its first frame has no index to be missed at; the next episode tries again
            else:
                episode.film.dropped += 1
            meter.frames_dropped += 1
            self._warn_once("frame", f"{self._env_id}: a frame was left out of the video: {refusal}")
            return None
        if step_seconds:
            self._adapt(perf_counter() - began, step_seconds)
        if payload == film.last:
            payload = b""  # a repeat
        else:
            film.last = payload
        self._append_frame((film, payload))
        meter.handed_bytes += len(payload) + ITEM_BYTES
        film.frames += 1
        if episode.film is None:
            episode.film = film
            self._say(_recording_started(film.plan))
        if film.frames % CHUNK_FRAMES == 0:
            self._seal_chunk(film)
        return film.frames - 1

    def _new_film(self, episode: Episode, picture: Any) -> Film:
        header = layout_of(picture)
        plan = RecordingPlan(
            recording=episode.recording,
            session=self._session,
            worker=self.worker,
            episode=episode.index,
            env_id=self._env_id,
            path=self._video_path(episode.index),
            fps=self._fps,
            width=header.width,
            height=header.height,
            keep=Keep() if episode.asked else self._policy.keep,
            wait_for_seal=self._policy.decides and not episode.asked,
            started=time(),
            capture=episode.why,
        )
        return Film(plan, header)

    def _full(self) -> bool:
        if self._meter.handed_bytes > self._look_at:
            self._look()
        return self._fullness > 0

    def _look(self) -> None:
        """See whether there is room, and when to look again: all recorders together pass a bound by 2 % at most."""
        outbox = self.producer.outbox
        self._fullness = outbox.fullness()
        stride = min(64 * 1024, outbox.memory_bytes // 64) // len(outbox.meters)
        self._look_at = 0 if self._fullness else self._meter.handed_bytes + stride

    def _adapt(self, pack_seconds: float, step_seconds: float) -> None:
        self._packed += 1
        self._pack_seconds += pack_seconds
        self._packed_step_seconds += step_seconds
        if self._packed < 32:
            return
        dear = self._pack_seconds > COMPRESSION_BUDGET * self._packed_step_seconds
        if dear and self._acceleration < len(ACCELERATIONS) - 1:
            self._acceleration += 1
        self._packed = 0
        self._pack_seconds = self._packed_step_seconds = 0.0

    def _seal_chunk(self, film: Film) -> None:
        self._append_frame((film, None))
        self._meter.handed_bytes += ITEM_BYTES
        film.last = b""  # each chunk can be read alone, so none begins with a repeat
        chunk = (film.frames - 1) // CHUNK_FRAMES
        recording = film.plan.recording
        self._say(
            ChunkSealed(
                recording=recording,
                chunk=chunk,
                file=f"{self.producer.id}/{recording}/{chunk:05d}.chunk",
                frames=film.frames - chunk * CHUNK_FRAMES,
            )
        )

    def _end_agent(
        self,
        episode: Episode,
        agent: str,
        tally: Tally,
        outcome: Literal["terminated", "truncated", "aborted"],
        success: bool | None,  # noqa: FBT001 - a value that is said
    ) -> None:
        tally.ended = True
        if success is not None:
            tally.success = success
            self._success_known = True
        nonfinite: dict[str, str] = {}
        total = number(tally.total, "total_reward", nonfinite)
        self._say(
            EpisodeEnded(
                session=self._session,
                worker=self.worker,
                agent=agent,
                episode=episode.index,
                env_id=self._env_id,
                total_reward=None if nonfinite else total,
                steps=tally.steps,
                outcome=outcome,
                success=success,
                env_steps=self._env_steps,
                seconds=perf_counter() - episode.began,
                time=time(),
                recording=None if episode.film is None else episode.recording,
                evaluation=episode.evaluation,
                nonfinite=nonfinite,
            )
        )

    def _abort(self, episode: Episode, because: str) -> None:
        for agent, tally in episode.agents.items():
            if not tally.ended:
                self._end_agent(episode, agent, tally, "aborted", None)
        self._end(episode, because)

    def _end(self, episode: Episode, aborted_because: str) -> None:
        """Seal the recording of an episode all of whose agents have ended."""
        self._episode = None
        if not aborted_because:
            self._episodes_ended += 1
            if self._episodes_ended == PATIENCE_EPISODES:
                self._warn_about_failures()
        film = episode.film
        if film is None:
            return
        if film.frames % CHUNK_FRAMES:
            self._seal_chunk(film)
        total: float | None = sum(tally.total for tally in episode.agents.values())
        if not math.isfinite(total or 0.0):
            total = None
        known = [tally.success for tally in episode.agents.values() if tally.success is not None]
        policy = KeepPolicy(Keep()) if episode.asked else self._policy
        verdict = policy.judge(
            episode=episode.index,
            total_reward=total,
            success=all(known) if known else None,
            aborted=bool(aborted_because),
        )
        if not verdict.kept:
            self._say(RecordingDiscarded(recording=episode.recording, session=self._session, why=verdict.why))
            return
        self._say(
            RecordingSealed(
                recording=episode.recording,
                session=self._session,
                worker=self.worker,
                first_episode=episode.index,
                last_episode=episode.index,
                chunks=-(-film.frames // CHUNK_FRAMES),
                frames=film.frames,
                frames_dropped=film.dropped,
                complete=not aborted_because,
                incomplete_because=aborted_because,
                total_reward=total,
                kept_for=verdict.kept_for,
            )
        )

    def _leave(self, outcome: Literal["finished", "failed"]) -> None:
        self._say(
            WorkerEnded(
                session=self._session,
                worker=self.worker,
                outcome=outcome,
                steps=self._env_steps,
                frames_dropped=self._meter.frames_dropped,
                steps_dropped=self._meter.steps_dropped,
            )
        )
        self.producer.leave(self._meter)

    def _say(self, event: Event) -> None:
        packed = encode(event)
        self._meter.handed_bytes += len(packed) + ITEM_BYTES
        self._say_packed(packed)

    # What goes wrong -------------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """Turn off: end what is open as well as it can be, say so once, and leave the training loop alone."""
        self._off = True
        episode, self._episode = self._episode, None
        self._warn(
            f"{self._env_id}: recording is off for this environment, which goes on without it "
            f"({type(error).__name__}: {error}). Please report this, with the traceback in the event RecorderFailed."
        )
        if self._outbox is not self.producer.outbox:
            return
        with suppress(Exception):  # what failed above may fail here again
            if episode is not None:
                self._abort(episode, "the recorder failed")
        with suppress(Exception):
            self._say(
                RecorderFailed(
                    session=self._session,
                    worker=self.worker,
                    episode=None if episode is None else episode.index,
                    error=f"{type(error).__name__}: {error}",
                    traceback="".join(traceback.format_exception(error)),
                )
            )
            self._leave("failed")

    def _warn_about_failures(self) -> None:
        if self._policy.keep.failures and not self._success_known:
            self._warn_once(
                "failures",
                f"{self._env_id}: keep failures = true keeps nothing, as no episode's last info says is_success or "
                "success. Add one of them to the info in a wrapper, or keep episodes by best, worst or every.",
            )

    def _warn_once(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._warn(text)

    def _warn(self, text: str) -> None:
        try:
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        except Warning:  # warnings are errors here, and an error of ours must not end a training
            sys.stderr.write(f"stepreel: {text}\n")

    def forget_parent(self) -> None:
        """In a forked child: the open episode is the parent's."""
        self._episode = None


class Episode:
    """An open episode."""

    __slots__ = (
        "agents", "asked", "began", "captured", "evaluation", "film", "index", "pictures", "recording", "steps",
        "tells_steps", "wanted", "why",
    )  # fmt: skip

    def __init__(self, index: int, evaluation: bool, agents: Sequence[str]) -> None:  # noqa: FBT001 - a value that is kept
        self.index = index
        self.evaluation = evaluation
        self.agents = {agent: Tally() for agent in agents}
        self.began = perf_counter()
        self.steps = 0
        self.captured = self.wanted = self.asked = self.tells_steps = False
        self.why = ""
        self.recording = ""
        self.film: Film | None = None
        self.pictures = 0
        """Captured since the last step."""


class Tally:
    """One agent's episode so far."""

    __slots__ = ("ended", "steps", "success", "total")

    def __init__(self) -> None:
        self.steps = 0
        self.total = 0.0
        self.ended = False
        self.success: bool | None = None


def _recording_started(plan: RecordingPlan) -> RecordingStarted:
    return RecordingStarted(
        recording=plan.recording,
        session=plan.session,
        worker=plan.worker,
        episode=plan.episode,
        env_id=plan.env_id,
        path=plan.path,
        fps=plan.fps,
        width=plan.width,
        height=plan.height,
    )


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forget_in_child() -> None:
    for recorder in list(_recorders):
        recorder.forget_parent()


os.register_at_fork(after_in_child=_forget_in_child)
