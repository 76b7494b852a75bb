"""What a producer has begun and not ended, as its events tell; and the events that end it in its name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from plugins.events import (
    ChunkSealed,
    EpisodeEnded,
    EpisodeStarted,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    StepRecorded,
    WorkerEnded,
    WorkerStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kernel.event import Event

KILLED = "its process was killed"


class SealedFrames(msgspec.Struct, frozen=True):
    """The chunks of a recording that stand on disk: their files, relative to the spool, and their frames."""

    files: list[str]
    frames: list[int]


class AgentTotals(msgspec.Struct):
    """What one agent did in an episode."""

    steps: int = 0
    total_reward: float | None = None
    """None: not known, as not each of its steps was told, or not finite."""
    last_time: float = 0.0
    ended: bool = False


class Episode(msgspec.Struct):
    """A worker's episode: the one that is open, or the last that has ended."""

    started: EpisodeStarted
    """Without what was observed."""
    agents: dict[str, AgentTotals] = {}
    """Those that are known by a step or by their end."""
    steps: int = 0
    """Of the environment."""
    shown_in: str | None = None
    """The first recording that shows some of it."""

    @property
    def total_reward(self) -> float | None:
        """The sum over its agents; None where that of one is not known."""
        totals = [agent.total_reward for agent in self.agents.values() if agent.total_reward is not None]
        return _finite(sum(totals)) if totals and len(totals) == len(self.agents) else None


class Recording(msgspec.Struct):
    """A recording that is open."""

    started: RecordingStarted
    last_episode: int
    """Of its worker's episodes that it shows some of."""
    episode_ended: bool = False
    """One that it shows has ended."""
    announced_chunks: int = 0
    training_step: int | None = None


class OpenWork(msgspec.Struct):
    """Follows a producer's events, in their order, and knows what is open behind each of them.

    A worker has one open episode at most. All of it is bounded by the number of environments that are open.
    """

    workers: dict[int, WorkerStarted] = {}
    episodes: dict[int, Episode] = {}
    """The open one of each worker."""
    ended: dict[int, Episode] = {}
    """The last one of each worker, where none is open."""
    recordings: dict[str, Recording] = {}
    env_steps: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self.workers or self.episodes or self.recordings)

    def follow(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case StepRecorded():
                self._step(event)
            case EpisodeStarted():
                self._start_episode(event)
            case EpisodeEnded():
                self._end_agent(event)
            case RecordingStarted():
                self._start_recording(event)
            case ChunkSealed():
                if event.recording in self.recordings:
                    self.recordings[event.recording].announced_chunks = event.chunk + 1
            case RecordingSealed() | RecordingDiscarded():
                self.recordings.pop(event.recording, None)
            case WorkerStarted():
                self.workers[event.worker] = event
            case WorkerEnded():
                for of_worker in (self.workers, self.ended, self.env_steps):
                    of_worker.pop(event.worker, None)

    def ends(self, on_disk: Mapping[str, SealedFrames]) -> list[Event]:
        """What the producer would have said had it ended everything now. `on_disk` has each open recording."""
        events: list[Event] = []
        for episode in self.episodes.values():
            events += self._episode_ends(episode, on_disk)
        for recording in self.recordings.values():
            events += self._recording_ends(recording, on_disk.get(recording.started.recording, SealedFrames([], [])))
        events += [
            WorkerEnded(
                session=worker.session,
                worker=worker.worker,
                outcome="lost",
                steps=self.env_steps.get(worker.worker, 0),
            )
            for worker in self.workers.values()
        ]
        return events

    # What is begun, and goes on --------------------------------------------------------------------------------------

    def _start_episode(self, started: EpisodeStarted) -> None:
        self.ended.pop(started.worker, None)
        without = msgspec.structs.replace(started, observation=None, info=None, nonfinite={})
        self.episodes[started.worker] = Episode(without, {agent: AgentTotals() for agent in started.agents})
        self._show(started.recording, started.worker, started.episode)

    def _start_recording(self, started: RecordingStarted) -> None:
        recording = self.recordings[started.recording] = Recording(started, started.episode)
        episode = self.episodes.get(started.worker)
        if episode is not None and episode.started.episode == started.episode:
            episode.shown_in = episode.shown_in or started.recording
            if episode.started.recording == started.recording:  # they began together
                recording.training_step = episode.started.training_step

    def _step(self, step: StepRecorded) -> None:
        episode = self.episodes.get(step.worker)
        if episode is None:
            episode = self._reopen(step)
        if episode is None or episode.started.episode != step.episode:
            return
        totals = episode.agents.get(step.agent)
        if totals is None or not totals.steps:
            totals = episode.agents[step.agent] = AgentTotals(total_reward=0.0)
        if step.step != totals.steps + 1 or step.reward is None or totals.total_reward is None:
            totals.total_reward = None
        else:
            totals.total_reward = _finite(totals.total_reward + step.reward)
        totals.steps = step.step
        totals.last_time = step.time
        if step.step > episode.steps:  # the first agent to take its n-th step begins the environment's n-th
            self.env_steps[step.worker] = self.env_steps.get(step.worker, 0) + step.step - episode.steps
            episode.steps = step.step
        if step.frame is not None:
            episode.shown_in = episode.shown_in or step.recording or episode.started.recording
            self._show(step.recording, step.worker, step.episode)

    def _reopen(self, step: StepRecorded) -> Episode | None:
        """All agents that were known had ended, and here is another."""
        episode = self.ended.get(step.worker)
        if episode is None or episode.started.episode != step.episode or step.agent in episode.agents:
            return None
        self.episodes[step.worker] = self.ended.pop(step.worker)
        return episode

    def _show(self, recording: str | None, worker: int, episode: int) -> None:
        """A recording shows some of this episode. That of a mosaic counts the episodes of its own worker alone."""
        shows = self.recordings.get(recording or "")
        if shows is not None and shows.started.worker == worker:
            shows.last_episode = max(shows.last_episode, episode)

    # What ends -------------------------------------------------------------------------------------------------------

    def _end_agent(self, ended: EpisodeEnded) -> None:
        worker = ended.worker
        self.env_steps[worker] = max(ended.env_steps, self.env_steps.get(worker, 0))
        episode = self.episodes.get(worker) or self.ended.get(worker)
        if episode is None or episode.started.episode != ended.episode:
            return
        episode.agents[ended.agent] = AgentTotals(
            steps=ended.steps, total_reward=ended.total_reward, last_time=ended.time, ended=True
        )
        if worker in self.episodes and all(agent.ended for agent in episode.agents.values()):
            self.ended[worker] = self.episodes.pop(worker)
            for recording in self.recordings.values():
                if recording.started.worker == worker and ended.episode <= recording.last_episode:
                    recording.episode_ended = True

    def _episode_ends(self, episode: Episode, on_disk: Mapping[str, SealedFrames]) -> Iterator[Event]:
        started = episode.started
        agents = episode.agents or {"agent_0": AgentTotals()}
        shown_in = episode.shown_in
        named = on_disk.get(started.recording or "")
        if not shown_in and named is not None and (started.first_frame or 0) < sum(named.frames):
            shown_in = started.recording  # the picture after the reset is there, and no step was taken
        for agent, totals in agents.items():
            if not totals.ended:
                yield EpisodeEnded(
                    session=started.session,
                    worker=started.worker,
                    agent=agent,
                    episode=started.episode,
                    env_id=started.env_id,
                    total_reward=totals.total_reward,
                    steps=totals.steps,
                    outcome="aborted",
                    env_steps=self.env_steps.get(started.worker, 0),
                    seconds=max(0.0, totals.last_time - started.time),
                    time=max(totals.last_time, started.time),
                    recording=shown_in,
                    evaluation=started.evaluation,
                )

    def _recording_ends(self, recording: Recording, on_disk: SealedFrames) -> list[Event]:
        started = recording.started
        if not sum(on_disk.frames):
            why = f"{KILLED} before a picture of it was written"
            return [RecordingDiscarded(recording=started.recording, session=started.session, why=why)]
        chunks = [
            ChunkSealed(recording=started.recording, chunk=index, file=file, frames=frames)
            for index, (file, frames) in enumerate(zip(on_disk.files, on_disk.frames, strict=True))
            if index >= recording.announced_chunks
        ]
        # Where the episode has ended, the producer only waited to see whether anything goes on with its recording.
        complete = started.frames_wanted is None and recording.episode_ended and started.worker not in self.episodes
        sealed = RecordingSealed(
            recording=started.recording,
            session=started.session,
            worker=started.worker,
            first_episode=started.episode,
            last_episode=recording.last_episode,
            chunks=len(on_disk.files),
            frames=sum(on_disk.frames),
            complete=complete,
            incomplete_because="" if complete else KILLED,
            total_reward=self._return_in(recording),
            training_step=recording.training_step,
        )
        return [*chunks, sealed]

    def _return_in(self, recording: Recording) -> float | None:
        """The return of the only episode that it shows."""
        worker, only = recording.started.worker, recording.started.episode
        episode = self.episodes.get(worker) or (self.ended.get(worker) if recording.episode_ended else None)
        if episode is None or episode.started.episode != only or recording.last_episode != only:
            return None
        return episode.total_reward


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
