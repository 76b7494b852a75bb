"""A camera: what records one wrapped environment of a script, from its first reset to its close.

It knows its place in the home and in the session, the recording that runs, and which episodes that recording shows.
When to record, and under which name, is RecordVideo's business (see `filming`).
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from plugins.events import CaptureSettings, Keep
from plugins.recorder.claims import claim, named
from plugins.recorder.judge import KEPT, Judge
from plugins.recorder.line import Line
from plugins.recorder.live import Window
from plugins.recorder.requests import Decision, Requests
from plugins.recorder.sessions import claim_worker
from plugins.recorder.tape import NOTHING_SHOWN, Close, Shown, Tape, Wanted
from plugins.recorder.telemetry import Telemetry
from plugins.recorder.triggers import Verdict, due
from plugins.recorder.watch import Awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugins.events import SessionStarted, VideoAvailable
    from plugins.recorder.claims import Claim
    from plugins.recorder.script import Script
    from plugins.recorder.spool import Film
    from plugins.recorder.telemetry import Episode, Tells

CLOSED = "the environment was closed"


class Rule(NamedTuple):
    """By which rule a recording begins."""

    why: str
    whole: bool
    """It is to show whole episodes."""
    asked: bool = False
    """A user asked for it while the script ran."""


BY_HAND = Rule("start_recording", whole=False)


class Camera:
    """Records one environment. One thread at a time uses it; in a forked child it is foreign, and does nothing."""

    def __init__(
        self,
        script: Script,
        *,
        env_id: str,
        tells: Tells,
        keep: Keep,
        max_videos: int,
        on_video: Callable[[VideoAvailable], None] | None,
        waits: bool,
        agents: Sequence[str],
        about: SessionStarted,
    ) -> None:
        self.script = script
        self.foreign = False
        """It is the parent's."""
        self.closed = False
        self.line = Line(script.producer, env_id)
        self.tape = Tape(self.line, env_id=env_id)
        self.telemetry = Telemetry(self.line, env_id=env_id, tells=tells, agents=agents)
        self.telemetry.window = Window(self.tape)
        self.streams = [self.telemetry]
        """The telemetry of each of its environments; of a batch (see `film_batch`), `telemetry` is the first one's."""
        self.in_picture = self.streams
        """Those of them that its pictures show."""
        self.awaited: list[Awaited] = []
        """Videos of which it is not known yet what became of them."""
        self._tells = tells
        self._max_videos = max_videos
        self._on_video = on_video
        self._waits = waits
        self._judge = Judge(self.line, keep)
        self._asked = False
        """A user asked for what is being recorded, so no policy decides."""
        self._open_ended = False
        """The recording has no end of its own, so it is complete whenever it ends."""
        self._verdicts: list[Verdict] = []
        """On the episodes that have ended in the recording."""
        self._ended: Episode | None = None
        """The last of them."""
        self._env_steps = 0
        """The environment's steps before the recording."""
        self._claims: dict[tuple[str, str], Claim] = {}
        self.line.connect()
        worker = script.take_part(self)
        script.begin_session(about)
        self.telemetry.start(worker)
        self.tape.worker = worker
        self._requests = Requests(self.line)
        _cameras.add(self)

    def film_batch(self, size: int) -> None:
        """Have telemetry of so many environments, which are in one picture: each is a worker of its own."""
        for _ in range(size - len(self.streams)):
            stream = Telemetry(self.line, env_id=self.line.env_id, tells=self._tells)
            stream.training_step = self.telemetry.training_step
            stream.tells_losses = False
            stream.start(claim_worker(self.script.home, self.script.session))
            self.streams.append(stream)

    # Episodes --------------------------------------------------------------------------------------------------------

    def decide(self, episode: int, why_due: str) -> Decision:
        """Whether to record an episode: where it is due (`why_due`), and by what users ask for meanwhile."""

        def own_or(capture: CaptureSettings | Callable[[int], bool]) -> tuple[bool, str]:
            if isinstance(capture, CaptureSettings):
                return due(capture, episode, evaluation=False)
            return bool(why_due), why_due or "not due"

        self.line.look_for_trouble()
        self.line.look()
        decision = self._requests.decide(episode, self.telemetry.worker, bool, own_or)
        if decision.why == "low disk":
            self.line.warn_once(
                "disk",
                f"{self.line.env_id}: no recording begins, as the disk of {self.script.home} is nearly full; the first "
                "episode after there is room again is recorded.",
            )
        return decision

    def begin_episode(self, observation: Any, info: Any, *, seed: int | None, episode: int, decision: Decision) -> None:
        """Begin an episode in the telemetry; the recording that shows it has begun before."""
        shown = self.next_shown()
        self.telemetry.begin(
            observation,
            info,
            seed=seed,
            episode=episode,
            captured=shown.recording is not None,
            why=decision.why,
            recording=shown.recording,
            first_frame=shown.frame,
        )

    def next_shown(self) -> Shown:
        """What the next picture will show, where one is wanted."""
        take = self.tape.take
        if take is None or not self.tape.open:
            return NOTHING_SHOWN
        return Shown(take.recording, take.films[-1].frames if take.films else 0, 1)

    def show_reset(self) -> None:
        """Behind the picture that belongs to a reset, and to no step."""
        shown = self.tape.shown()
        episode = self.telemetry.episode
        if episode is not None and shown.frame is not None:
            episode.shown_in = shown.recording

    def episode_over(self, episode: Episode, *, seal: bool) -> None:
        """Take note of an episode that has come to its end; `seal` the recording soon, unless something goes on."""
        self._judge.note(episode)
        if not self.tape.open:
            return
        self._verdicts.append(self._judge.verdict(episode, aborted=False))
        self._ended = episode
        if seal:
            self.seal_soon()

    def seal_soon(self) -> None:
        """Seal the recording in a second, unless something goes on with it before."""
        self._expect(self.tape.close_soon(self._close("", "")))

    def goes_on(self) -> bool:
        """Behind a step: whether the recording runs, also one that was about to be sealed."""
        take = self.tape.take
        if take is None:
            return False
        if take.ending is not None:
            if not self.tape.go_on():
                self._forget_recording()
                return False
            self._withdraw(take.films)
        return self.tape.open

    def abort(self) -> None:
        """End every open episode before its end."""
        for stream in self.streams:
            stream.abort()

    # Recordings ------------------------------------------------------------------------------------------------------

    def path(self, folder: str, prefix: str, name: str) -> str:
        """Where a video of this name goes; other live environments that use the folder and prefix have other names."""
        key = (folder, prefix)
        if key not in self._claims:
            self._claims[key] = mine = claim(self.script.home, folder, prefix)
            if mine.number:
                self.line.warn_once(
                    "name",
                    f"{folder}: another environment that is in use writes its videos there as {prefix}-…, too; this "
                    f"one's are called {prefix}-w{mine.number}-…. Give it a folder or a name_prefix of its own to "
                    "name them yourself.",
                )
        return str(Path(folder, f"{named(prefix, name, self._claims[key].number)}.mp4"))

    def share_names(self, other: Camera) -> None:
        """Name videos by the same claims as another camera of the same wrapper."""
        self._claims = other._claims

    @property
    def has_room(self) -> bool:
        """Whether a recording may begin: neither is the disk nearly full, nor the spool."""
        return not (self.line.producer.outbox.control.held or self.line.full())

    def begin(self, rule: Rule, *, path: str, fps: float, frames: int | None, episode: int) -> None:
        """Begin a recording; the one before is closed."""
        self._forget_recording()
        self._asked = asked = rule.asked
        self._env_steps = self.telemetry.env_steps
        self.script.be_first_at_exit()
        self._open_ended = frames is None and not rule.whole
        self.tape.begin(
            Wanted(
                path=path,
                fps=fps,
                episode=episode if self.telemetry.episode is None or rule.whole else self.telemetry.episode.index,
                why=rule.why,
                keep=Keep() if asked else self._judge.keep,
                wait_for_seal=self._judge.decides and not asked,
                frames=frames,
                max_videos=self._max_videos,
                training_step=self.telemetry.training_step,
            )
        )
        for stream in self.in_picture:
            stream.captured()

    def end_recording(self, because: str, path: str) -> int:
        """End the running recording, complete where there is no because; how many frames it has."""
        take = self.tape.take
        if take is None:
            return 0
        if take.ending is not None:
            because = ""  # all of its episode is there
        frames = sum(film.frames for film in take.films)
        self._expect(self.tape.close(self._close(because, path if path != take.wanted.path else "")))
        self._forget_recording()
        return frames

    def drop_recording(self, why: str) -> None:
        """End the running recording without a video."""
        self.tape.close(Close(verdict=Verdict(kept=False, kept_for=[], why=why), last_episode=None))
        self._forget_recording()

    def end(self) -> None:
        """Where the script, or the wrapper, ends without a `close`: seal what is open."""
        try:
            self.close("the script ended")
        except Exception as error:  # noqa: BLE001 - the script ends as it would without us
            self.fail(error)

    def close(self, because: str = CLOSED) -> None:
        """End everything. A second call is harmless."""
        line = self.line
        if line.off or self.foreign:
            return
        self.closed = line.off = True
        self.end_recording(because, "")
        self.abort()
        self._judge.warn_about_failures()
        self._end_streams("finished")
        line.leave()
        self._release_claims()

    def fail(self, error: Exception) -> None:
        """Turn off, and leave the training loop alone."""
        if self.line.off:
            return
        episode = self.telemetry.episode

        def abort() -> None:
            self.abort()
            self.end_recording("the recorder failed", "")

        self.line.fail(
            error,
            worker=self.telemetry.worker,
            episode=None if episode is None else episode.index,
            abort=abort,
            end=lambda: self._end_streams("failed"),
        )
        self._release_claims()

    # Its parts -------------------------------------------------------------------------------------------------------

    def _end_streams(self, outcome: Literal["finished", "failed"]) -> None:
        for stream in self.streams:
            stream.close(outcome)

    def _close(self, because: str, path: str) -> Close:
        if self._open_ended:
            because = ""
        episode = self.telemetry.episode or self._ended
        shows_one = len(self._verdicts) == len(self.in_picture) == 1
        only = self._ended if shows_one and not because else None
        return Close(
            verdict=self._verdict(episode),
            last_episode=None if episode is None else episode.index,
            complete=not because,
            because=because,
            total_reward=None if only is None else only.total_reward,
            path=path,
        )

    def _verdict(self, episode: Episode | None) -> Verdict:
        """A recording is kept where one of the episodes that ended in it is."""
        if self._asked or not self._judge.decides:
            return KEPT
        verdicts = self._verdicts
        if not verdicts and episode is not None:
            verdicts = [self._judge.verdict(episode, aborted=True)]
        reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.kept_for)
        if reasons:
            return Verdict(kept=True, kept_for=list(reasons), why="")
        return Verdict(kept=False, kept_for=[], why=verdicts[0].why if verdicts else "no episode ended in it")

    def _withdraw(self, films: Sequence[Film]) -> None:
        """A recording that was about to be sealed goes on, or is sealed in another way."""
        for awaited in self.awaited:
            if awaited.film in films:
                awaited.withdrawn = True

    def _expect(self, films: Sequence[Film]) -> None:
        self._withdraw(films)
        awaited = [Awaited(film, self._on_video, self._env_steps, waits=self._waits) for film in films]
        self.awaited = [each for each in self.awaited if not (each.done or each.withdrawn)]
        self.awaited += awaited
        self.script.watch.expect(awaited)

    def _forget_recording(self) -> None:
        self._verdicts = []
        self._ended = None
        self._asked = False

    def _release_claims(self) -> None:
        for claimed in self._claims.values():
            claimed.lock.release()
        self._claims.clear()

    def forget_parent(self) -> None:
        """In a forked child: all that is open is the parent's."""
        self.foreign = self.line.off = True
        self.tape.take = None
        for stream in self.streams:
            stream.episode = None


_cameras: weakref.WeakSet[Camera] = weakref.WeakSet()


def _forget_in_child() -> None:
    for camera in list(_cameras):
        camera.forget_parent()


os.register_at_fork(after_in_child=_forget_in_child)
