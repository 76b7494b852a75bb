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
    from collections.abc import Mapping

    from kernel.event import Event

KILLED = "its process was killed"


class SealedFrames(msgspec.Struct, frozen=True):
    """The chunks of a recording that stand on disk: their files, relative to the spool, and their frames."""

    files: list[str]
    frames: list[int]


class AgentTotals(msgspec.Struct):
    """What one agent did in an episode that is still open."""

    steps: int = 0
    total_reward: float = 0.0
    last_time: float = 0.0


class OpenEpisode(msgspec.Struct):
    """An episode that has not ended."""

    started: EpisodeStarted
    agents: dict[str, AgentTotals] = {}
    ended_agents: set[str] = set()


class OpenWork:
    """Follows a producer's events, in their order, and knows what is open behind each of them."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerStarted] = {}
        self.episodes: dict[tuple[int, int], OpenEpisode] = {}
        self.recordings: dict[str, RecordingStarted] = {}
        self.announced_chunks: dict[str, int] = {}
        self.env_steps: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self.workers or self.episodes or self.recordings)

    def open_now(self) -> frozenset[str | tuple[int, int]]:
        """The keys of all episodes and recordings that are open."""
        return frozenset((*self.episodes, *self.recordings))

    def follow(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case StepRecorded():
                self._step(event)
            case EpisodeStarted():
                self.episodes[event.worker, event.episode] = OpenEpisode(event)
            case EpisodeEnded():
                self._end_episode(event)
            case RecordingStarted():
                self.recordings[event.recording] = event
            case ChunkSealed():
                self.announced_chunks[event.recording] = event.chunk + 1
            case RecordingSealed() | RecordingDiscarded():
                self.recordings.pop(event.recording, None)
                self.announced_chunks.pop(event.recording, None)
            case WorkerStarted():
                self.workers[event.worker] = event
            case WorkerEnded():
                self.workers.pop(event.worker, None)

    def ends(self, on_disk: Mapping[str, SealedFrames]) -> list[Event]:
        """What the producer would have said had it ended everything now. `on_disk` has each open recording."""
        events: list[Event] = []
        for episode in self.episodes.values():
            events += self._episode_ends(episode)
        for recording, started in self.recordings.items():
            events += self._recording_ends(started, on_disk[recording])
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

    def _step(self, step: StepRecorded) -> None:
        self.env_steps[step.worker] = self.env_steps.get(step.worker, 0) + 1
        episode = self.episodes.get((step.worker, step.episode))
        if episode is None:
            return
        totals = episode.agents.get(step.agent)
        if totals is None:
            totals = episode.agents[step.agent] = AgentTotals()
        totals.steps = step.step
        totals.total_reward += math.nan if step.reward is None else step.reward
        totals.last_time = step.time

    def _end_episode(self, ended: EpisodeEnded) -> None:
        self.env_steps[ended.worker] = max(ended.env_steps, self.env_steps.get(ended.worker, 0))
        episode = self.episodes.get((ended.worker, ended.episode))
        if episode is None:
            return
        episode.ended_agents.add(ended.agent)
        if episode.ended_agents.issuperset(episode.agents):
            del self.episodes[ended.worker, ended.episode]

    def _episode_ends(self, episode: OpenEpisode) -> list[Event]:
        started = episode.started
        agents = episode.agents or {"agent_0": AgentTotals()}
        return [
            EpisodeEnded(
                session=started.session,
                worker=started.worker,
                agent=agent,
                episode=started.episode,
                env_id=started.env_id,
                total_reward=totals.total_reward if math.isfinite(totals.total_reward) else None,
                steps=totals.steps,
                outcome="aborted",
                env_steps=self.env_steps.get(started.worker, 0),
                seconds=max(0.0, totals.last_time - started.time),
                time=max(totals.last_time, started.time),
                recording=started.recording if started.recording in self.recordings else None,
                evaluation=started.evaluation,
            )
            for agent, totals in agents.items()
            if agent not in episode.ended_agents
        ]

    def _recording_ends(self, started: RecordingStarted, on_disk: SealedFrames) -> list[Event]:
        if not sum(on_disk.frames):
            why = f"{KILLED} before a picture of it was written"
            return [RecordingDiscarded(recording=started.recording, session=started.session, why=why)]
        episodes = [episode for worker, episode in self.episodes if worker == started.worker]
        announced = self.announced_chunks.get(started.recording, 0)
        chunks = [
            ChunkSealed(recording=started.recording, chunk=index, file=file, frames=frames)
            for index, (file, frames) in enumerate(zip(on_disk.files, on_disk.frames, strict=True))
            if index >= announced
        ]
        sealed = RecordingSealed(
            recording=started.recording,
            session=started.session,
            worker=started.worker,
            first_episode=started.episode,
            last_episode=max([started.episode, *episodes]),
            chunks=len(on_disk.files),
            frames=sum(on_disk.frames),
            complete=False,
            incomplete_because=KILLED,
            total_reward=self._return_of(started),
        )
        return [*chunks, sealed]

    def _return_of(self, started: RecordingStarted) -> float | None:
        episode = self.episodes.get((started.worker, started.episode))
        if episode is None or len(episode.agents) != 1:
            return None
        (totals,) = episode.agents.values()
        return totals.total_reward if math.isfinite(totals.total_reward) else None
