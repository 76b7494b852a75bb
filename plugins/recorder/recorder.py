"""The recorder: what an environment's reset, steps and close become, in events and frames, an episode a recording.

    line        to the producer, and what happens when something goes wrong
    telemetry   episodes and steps
    tape        pictures

The runner's workers use it as it stands. The wrappers put the same three parts together by RecordVideo's rules.
"""

from __future__ import annotations

import os
import weakref
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from plugins.events import CaptureSettings, Keep
from plugins.recorder.judge import KEPT, Judge
from plugins.recorder.line import Line
from plugins.recorder.live import Window
from plugins.recorder.requests import Requests
from plugins.recorder.tape import Close, Tape, Wanted
from plugins.recorder.telemetry import Telemetry
from plugins.recorder.triggers import due

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugins.recorder.spool import Producer
    from plugins.recorder.telemetry import Episode, Tells

FLUSH_SECONDS = 5.0
"""How long `close` waits for the disk: a process may end without a word right after it."""


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
        telemetry: Tells = "all",
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
        self.line = Line(producer, env_id)
        self.telemetry = Telemetry(self.line, env_id=env_id, tells=telemetry, values=values, agents=agents)
        self.tape = Tape(self.line, env_id=env_id)
        self.telemetry.window = Window(self.tape)
        self.worker = -1
        self._worker = worker
        self._fps = fps
        self._video_path = video_path
        self._capture = capture
        self._judge = Judge(self.line, keep)
        self._asked = False
        """A user asked for the open episode."""
        _recorders.add(self)

    @property
    def recording(self) -> bool:
        """Whether a picture is wanted now: after the reset, and after each step until the episode ends."""
        return self.line.connected and not self.line.off and self.tape.open

    @property
    def wanted(self) -> bool:
        """Whether `step` wants a picture: for the recording, or for somebody who watches live."""
        line = self.line
        if not line.connected or line.off:
            return False
        return self.tape.open or (line.producer.outbox.watched is not None and self.telemetry.watched)

    # The life of an environment ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with a `WorkerStarted`; the first `reset` does it too. A second call is harmless."""
        if not (self.line.connected or self.line.off or self.producer.closed):
            self._begin()

    def reset(self, observation: Any, info: Any, *, seed: int | None, episode: int, evaluation: bool = False) -> None:
        """Begin an episode, after `env.reset()` has returned. One that is still open ends as aborted."""
        if self.line.off:
            return
        try:
            self._reset(observation, info, seed, episode, evaluation)
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def capture_frame(self, picture: Any) -> None:
        """Add a picture to the recording: frame 0 right after `reset`, and more where a step shows several.

        Pictures that are added before a step belong to it, but for frame 0.
        """
        if not self.recording:
            return
        try:
            episode = self.telemetry.episode
            self.tape.add(picture)
            if episode is not None and not episode.shown_in:
                episode.shown_in = self.tape.shown().recording
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def step(  # noqa: PLR0917 - each keyword costs as much as a part of the work
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
        try:
            telemetry = self.telemetry
            episode = telemetry.episode
            if episode is None:
                return
            meter = self.line.meter
            clock = meter.bare
            seconds = step_seconds = float(step_seconds)
            if frame is not None and self.tape.open:
                entered = perf_counter()
                self.tape.add(frame, step_seconds + render_seconds)
                clock = meter.captured
                seconds += render_seconds + perf_counter() - entered
            elif frame is not None and telemetry.window is not None:
                telemetry.window.offer(frame, render_seconds)
            over = telemetry.step(
                action, observation, reward, terminated, truncated, info, step_seconds, self.tape.shown(), agent
            )
            clock.add(seconds)
            if over:
                self._seal(episode, "")
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def close(self, outcome: Literal["finished", "failed"] = "finished") -> None:
        """End, with a `WorkerEnded`; an episode that is still open is aborted. A second call is harmless.

        Returns when what was recorded is in files, or after a few seconds.
        """
        line = self.line
        if line.off:
            return
        line.off = True
        if not line.connected:
            return  # never begun, or not in this process
        try:
            self._abort("the environment was closed")
            self._judge.warn_about_failures()
            self.telemetry.close(outcome)
            line.leave()
        except Exception as error:  # noqa: BLE001 - the program goes on, whatever it is
            self._fail(error)
            return
        if not self.producer.outbox.trouble:
            self.producer.flush(FLUSH_SECONDS)

    # Its parts, in the order of an episode ---------------------------------------------------------------------------

    def _begin(self) -> None:
        self.line.connect()
        self.worker = self._worker() if callable(self._worker) else self._worker
        self.telemetry.start(self.worker)
        self.tape.worker = self.worker
        self._requests = Requests(self.line)

    def _reset(self, observation: Any, info: Any, seed: int | None, index: int, evaluation: bool) -> None:  # noqa: FBT001 - as reset() got it
        self._abort("the environment was reset before the episode had ended")
        if self.producer.closed:
            return
        if not self.line.connected:
            self._begin()
        self.line.look_for_trouble()
        self.line.look()
        decision = self._requests.decide(
            index, self.worker, self._capture, lambda capture: due(capture, index, evaluation=evaluation)
        )
        recording = None
        if decision.captured:
            recording = self.tape.begin(
                Wanted(
                    path=self._video_path(index),
                    fps=self._fps,
                    episode=index,
                    why=decision.why,
                    keep=Keep() if decision.asked else self._judge.keep,
                    wait_for_seal=self._judge.decides and not decision.asked,
                )
            )
        self.telemetry.begin(
            observation,
            info,
            seed=seed,
            episode=index,
            evaluation=evaluation,
            captured=decision.captured,
            why=decision.why,
            recording=recording,
            first_frame=0 if decision.captured else None,
        )
        self._asked = decision.asked

    def _abort(self, because: str) -> None:
        episode = self.telemetry.abort()
        if episode is not None:
            self._seal(episode, because)

    def _seal(self, episode: Episode, aborted_because: str) -> None:
        """Seal the recording of an episode all of whose agents have ended."""
        if not aborted_because:
            self._judge.note(episode)
        if self.tape.take is None:
            return
        verdict = KEPT if self._asked else self._judge.verdict(episode, aborted=bool(aborted_because))
        self.tape.close(
            Close(
                verdict=verdict,
                last_episode=episode.index,
                complete=not aborted_because,
                because=aborted_because,
                total_reward=episode.total_reward,
            )
        )

    # What goes wrong -------------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        episode = self.telemetry.episode
        self.line.fail(
            error,
            worker=self.worker,
            episode=None if episode is None else episode.index,
            abort=lambda: self._abort("the recorder failed"),
            end=lambda: self.telemetry.close("failed"),
        )

    def forget_parent(self) -> None:
        """In a forked child: what is open is the parent's."""
        self.telemetry.episode = None
        self.tape.take = None


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forget_in_child() -> None:
    for recorder in list(_recorders):
        recorder.forget_parent()


os.register_at_fork(after_in_child=_forget_in_child)
