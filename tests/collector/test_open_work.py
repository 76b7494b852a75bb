"""What a killed producer would have said, had it ended everything: whole recordings, stretches, several agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plugins.collector.work import KILLED, OpenWork, SealedFrames
from plugins.events import (
    ChunkSealed,
    EpisodeEnded,
    EpisodeStarted,
    RecordingSealed,
    RecordingStarted,
    StepRecorded,
    WorkerEnded,
    WorkerStarted,
)

if TYPE_CHECKING:
    from kernel.event import Event

ON_DISK = SealedFrames(["p/r/00000.chunk"], [10])


def begun(episode: int, recording: str | None = None, *, worker: int = 0, **fields: Any) -> EpisodeStarted:
    return EpisodeStarted(
        session="s", worker=worker, episode=episode, env_id="e", seed=None, observation=[0.5], info={}, capture="",
        captured=recording is not None, recording=recording, first_frame=None if recording is None else 0, time=100.0,
        **fields,
    )  # fmt: skip


def filmed(episode: int, recording: str = "r", *, worker: int = 0, **fields: Any) -> RecordingStarted:
    return RecordingStarted(
        recording=recording, session="s", worker=worker, episode=episode, env_id="e", path="x.mp4", fps=30, width=2,
        height=2, **fields,
    )  # fmt: skip


def step(
    episode: int, number: int, frame: int | None = None, *, agent: str = "agent_0", reward: float | None = 1.0,
    worker: int = 0, recording: str | None = None,
) -> StepRecorded:  # fmt: skip
    return StepRecorded(
        session="s", worker=worker, agent=agent, episode=episode, step=number, action=0, reward=reward,
        terminated=False, truncated=False, frame=frame, recording=recording, time=100.0 + number, step_seconds=0.0,
    )  # fmt: skip


def over(
    episode: int, total_reward: float | None = 5.0, *, agent: str = "agent_0", env_steps: int = 5, worker: int = 0
) -> EpisodeEnded:
    return EpisodeEnded(
        session="s", worker=worker, agent=agent, episode=episode, env_id="e", total_reward=total_reward, steps=5,
        outcome="terminated", env_steps=env_steps, seconds=1.0, recording="r",
    )  # fmt: skip


def ends(*events: Event, frames: int = 10, again: bool = True) -> list[Event]:
    """What is said for a producer that was killed behind these events; the same when its work was put on disk."""
    work = OpenWork()
    for event in events:
        work.follow(event)
        if again:
            work = msgspec.json.decode(msgspec.json.encode(work), type=OpenWork)
    return work.ends({name: SealedFrames(["p/r/00000.chunk"], [frames]) for name in work.recordings})


def seal(*events: Event, recording: str = "r") -> RecordingSealed:
    (sealed,) = (each for each in ends(*events) if isinstance(each, RecordingSealed) and each.recording == recording)
    assert (sealed.complete, sealed.incomplete_because) in {(True, ""), (False, KILLED)}
    return sealed


def aborted(*events: Event) -> list[EpisodeEnded]:
    return [each for each in ends(*events) if isinstance(each, EpisodeEnded)]


WHOLE = {
    "killed in the midst of its episode": ([begun(0, "r"), filmed(0), step(0, 1, 1)], False, 0, 1.0),
    "killed when its episode had ended": ([begun(0, "r"), filmed(0), step(0, 1, 1), over(0, 7.5)], True, 0, 7.5),
    "nothing is told of its steps": ([begun(0, "r"), filmed(0), over(0, 7.5)], True, 0, 7.5),
    "its return is not finite": ([begun(0, "r"), filmed(0), over(0, None)], True, 0, None),
    "it goes on with the next episode": (
        [begun(0, "r"), filmed(0), over(0), begun(1, "r"), step(1, 1, 3)],
        False,
        1,
        None,
    ),
    "two episodes, and both have ended": ([begun(0, "r"), filmed(0), over(0), begun(1, "r"), over(1)], True, 1, None),
    "another episode began that it does not show": ([begun(0, "r"), filmed(0), over(0), begun(1)], False, 0, None),
    "it began behind the episode's end": ([begun(0), over(0), filmed(0)], False, 0, None),
    "a stretch that began in mid-episode, whole": (
        [begun(3), step(3, 1), filmed(3), step(3, 2, 0, recording="r"), over(3, 9.0)],
        True,
        3,
        9.0,
    ),
    "no episode was told of": ([filmed(0)], False, 0, None),
    "the episode of another worker": ([begun(0, worker=1), filmed(0), over(0, worker=1)], False, 0, None),
}


@pytest.mark.parametrize(("events", "complete", "last", "total_reward"), WHOLE.values(), ids=WHOLE)
def test_a_recording_is_complete_when_its_episode_had_ended_before_the_kill(
    events: list[Event], *, complete: bool, last: int, total_reward: float | None
) -> None:
    sealed = seal(*events)
    assert (sealed.complete, sealed.last_episode, sealed.total_reward) == (complete, last, total_reward)
    assert sealed.first_episode == next(each.episode for each in events if isinstance(each, RecordingStarted))


STRETCHES = {
    "in its first episode": ([begun(2, "r"), filmed(2, frames_wanted=9), step(2, 1, 1)], 2),
    "in mid-episode": ([begun(2), filmed(2, frames_wanted=9), step(2, 7, 1, recording="r")], 2),
    "in a later episode, as its start says": ([begun(2, "r"), filmed(2, frames_wanted=9), over(2), begun(3, "r")], 3),
    "as its steps say": ([begun(2), filmed(2, frames_wanted=9), over(2), begun(4), step(4, 1, 2, recording="r")], 4),
    "behind the end of an episode": ([begun(2, "r"), filmed(2, frames_wanted=9), over(2)], 2),
}


@pytest.mark.parametrize(("events", "last"), STRETCHES.values(), ids=STRETCHES)
def test_a_stretch_of_frames_that_a_kill_cut_short_is_incomplete_and_tells_its_last_episode(
    events: list[Event], last: int
) -> None:
    sealed = seal(*events)
    assert (sealed.complete, sealed.last_episode) == (False, last)


def test_a_mosaic_tells_of_the_episodes_of_its_own_worker_alone() -> None:
    sealed = seal(filmed(0, worker=2), begun(7, "r", worker=0), step(7, 1, 1, worker=0), over(7, worker=0))
    assert (sealed.worker, sealed.first_episode, sealed.last_episode, sealed.complete) == (2, 0, 0, False)


def test_each_agents_return_counts_and_the_episode_ends_with_the_last_of_them() -> None:
    steps = [step(0, number, number, agent=agent) for number in (1, 2) for agent in ("red", "blue")]
    both = [begun(0, "r"), filmed(0), *steps]
    assert [(end.agent, end.total_reward, end.steps) for end in aborted(*both)] == [("red", 2.0, 2), ("blue", 2.0, 2)]
    assert (seal(*both).complete, seal(*both).total_reward) == (False, 4.0)
    one = [*both, over(0, 3.0, agent="red")]
    assert [end.agent for end in aborted(*one)] == ["blue"]
    assert (seal(*one).complete, seal(*one).total_reward) == (False, 5.0)
    none = [*one, over(0, 4.0, agent="blue")]
    assert not aborted(*none)
    assert (seal(*none).complete, seal(*none).total_reward) == (True, 7.0)


def test_an_agent_that_steps_only_when_all_that_were_known_have_ended_opens_the_episode_again() -> None:
    """As in a game of turns, where the first player may lose at once."""
    first = [begun(0, "r"), filmed(0), step(0, 1, 1, agent="red"), over(0, -1.0, agent="red")]
    events = [*first, step(0, 1, 2, agent="blue", reward=0.5)]
    assert [(end.agent, end.total_reward) for end in aborted(*events)] == [("blue", 0.5)]
    assert (seal(*events).complete, seal(*events).total_reward) == (False, -0.5)
    events.append(over(0, 1.0, agent="blue"))
    assert (seal(*events).complete, seal(*events).total_reward) == (True, 0.0)
    assert seal(*first, over(0, 2.0, agent="blue")).total_reward == 1.0


UNKNOWN = {
    "no step was told": [begun(0)],
    "the first steps were not told": [begun(0), step(0, 5), step(0, 6)],
    "a step was dropped": [begun(0), step(0, 1), step(0, 3)],
    "a reward was not finite": [begun(0), step(0, 1, reward=None), step(0, 2)],
    "the sum is not finite": [begun(0), step(0, 1, reward=1.7e308), step(0, 2, reward=1.7e308)],
}


@pytest.mark.parametrize("events", UNKNOWN.values(), ids=UNKNOWN)
def test_a_return_that_the_steps_do_not_tell_is_not_made_up(events: list[Event]) -> None:
    (ended,) = aborted(*events)
    assert ended.total_reward is None


@pytest.mark.parametrize(
    ("events", "shown_in"),
    [
        ([begun(0, "r"), filmed(0)], "r"),  # the picture after the reset
        ([begun(0, "r")], None),
        ([begun(0), filmed(0), filmed(0, "later")], "r"),
        ([begun(0, "r"), filmed(0), over(0), begun(1, "r"), step(1, 1, 4)], "r"),
        ([filmed(0, worker=2), begun(0, "r"), step(0, 1, 1)], "r"),
        ([begun(0), step(0, 1, 1, recording="sealed before")], "sealed before"),
    ],
)
def test_an_aborted_episode_names_the_first_recording_that_shows_it(events: list[Event], shown_in: str | None) -> None:
    assert aborted(*events)[-1].recording == shown_in


def test_an_episode_whose_pictures_were_all_lost_is_not_said_to_be_shown() -> None:
    lost = [begun(0, "r"), filmed(0), over(0), msgspec.structs.replace(begun(1, "r"), first_frame=10)]
    (ended,) = (each for each in ends(*lost, frames=10) if isinstance(each, EpisodeEnded))
    assert ended.recording is None


def test_environment_steps_are_counted_once_for_all_agents_and_where_some_were_not_told() -> None:
    worker = WorkerStarted(session="s", worker=0, pid=1, env_id="e")
    steps = [step(0, number, agent=agent) for number in (1, 2, 3) for agent in ("red", "blue")]
    said = ends(worker, begun(0), *steps, over(0, agent="red", env_steps=3), over(0, agent="blue", env_steps=3),
                begun(1), step(1, 4))  # fmt: skip
    (lost,) = (each for each in said if isinstance(each, WorkerEnded))
    assert (lost.outcome, lost.steps) == ("lost", 7)


def test_the_trainings_step_is_that_of_the_episode_which_the_recording_began_with() -> None:
    assert seal(begun(0, "r", training_step=500), filmed(0)).training_step == 500
    assert seal(begun(0, training_step=500), step(0, 1), filmed(0)).training_step is None


def test_chunks_that_were_announced_are_not_announced_again() -> None:
    announced = ChunkSealed(recording="r", chunk=0, file="p/r/00000.chunk", frames=10)
    assert [type(each) for each in ends(begun(0, "r"), filmed(0), announced)] == [EpisodeEnded, RecordingSealed]
    assert [type(each) for each in ends(begun(0, "r"), filmed(0))] == [EpisodeEnded, ChunkSealed, RecordingSealed]


def test_what_is_remembered_does_not_grow_with_the_episodes() -> None:
    work = OpenWork()
    work.follow(WorkerStarted(session="s", worker=0, pid=1, env_id="e"))
    work.follow(filmed(0, frames_wanted=10**9))
    sizes = set()
    for episode in range(1000, 1100):
        for event in (begun(episode, "r"), step(episode, 1, 1), over(episode)):
            work.follow(event)
        sizes.add(len(msgspec.json.encode(work)))
    assert max(sizes) - min(sizes) < 10  # the digits of counts
