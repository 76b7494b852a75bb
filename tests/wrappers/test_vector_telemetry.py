"""Of a vector environment, each sub-environment's steps are rows of their own, and say which picture shows them."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

from plugins.recorder import batch
from plugins.recorder.vector import RecordVideoVector
from tests.end_to_end.homes import frames_of, rows
from tests.wrappers.vector_envs import MODES, Nested, Pictures, Scripted, Seen, cells, play, told, vector

if TYPE_CHECKING:
    from pathlib import Path

LENGTHS = [(3, 6, 4), (5, 2, 9), (7,), (1, 1, 4)]
NEVER: dict[str, Any] = {"episode_trigger": lambda _: False}
SECOND: dict[str, Any] = {"episode_trigger": lambda episode: episode == 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*autoreset mode is same-step")


def by_worker(happened: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Each worker's events."""
    mine: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in happened:
        mine[event["worker"]].append(event)
    return mine


def as_told(history: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What a sub-environment returned, in the words of events."""
    words: list[tuple[Any, ...]] = []
    step = total = 0
    episode = -1
    over = True
    for entry in history:
        if len(entry) == 2:
            if not over:
                words.append(("end", episode, "aborted", step, total, None))
            step = total = 0
            episode += 1
            over = False
            words.append(("start", episode, *plain(entry)))
        else:
            action, observation, reward, terminated, truncated, info = entry
            step += 1
            total += reward
            words.append(("step", episode, step, *plain((action, observation)), reward, terminated, truncated, info))
            over = terminated or truncated
            if over:
                outcome = "terminated" if terminated else "truncated"
                words.append(("end", episode, outcome, step, total, info["is_success"]))
    if not over:
        words.append(("end", episode, "aborted", step, total, None))
    return words


def plain(values: Any) -> list[Any]:
    return [value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in values]


def words_of(happened: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The same, of events."""
    words: list[tuple[Any, ...]] = []
    for event in happened:
        kind = event["type"]
        if kind == "EpisodeStarted":
            words.append(("start", event["episode"], event["observation"], event["info"]))
        elif kind == "EpisodeEnded":
            end = (event["outcome"], event["steps"], event["total_reward"], event["success"])
            words.append(("end", event["episode"], *end))
        else:
            names = ("step", "action", "observation", "reward", "terminated", "truncated", "info")
            words.append(("step", event["episode"], *(event[name] for name in names)))
    return words


STORY = ("EpisodeStarted", "StepRecorded", "EpisodeEnded")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_env", [False, True])
def test_every_sub_environments_life_is_told_as_it_was(tmp_path: Path, home: Path, mode: str, *, per_env: bool) -> None:
    inner = vector(LENGTHS, mode)
    env = RecordVideoVector(inner, tmp_path / "v", **SECOND, per_env=per_env, telemetry="all")
    play(env, 40, seed=5)
    env.reset()
    env.close()
    happened = told(home, *STORY)
    workers = by_worker(happened)
    assert [words_of(workers[worker]) for worker in sorted(workers)] == [as_told(one.history) for one in inner.envs]
    seeds = [[event["seed"] for event in workers[worker] if event["type"] == "EpisodeStarted"] for worker in range(4)]
    assert [own[0] for own in seeds] == ["5", "6", "7", "8"]
    assert {seed for own in seeds for seed in own[1:]} == {None}
    ended = told(home, "WorkerEnded")
    assert {event["worker"]: event["steps"] for event in ended} == {
        worker: sum(event["type"] == "StepRecorded" for event in workers[worker]) for worker in workers
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_env", [False, True])
def test_what_is_not_told_is_counted_all_the_same(tmp_path: Path, home: Path, mode: str, *, per_env: bool) -> None:
    """Starts, ends and the steps that are told agree with what the environments did, also where a recording began
    in the midst of an episode."""
    inner = vector(LENGTHS, mode)
    env = RecordVideoVector(inner, tmp_path / "v", **SECOND, per_env=per_env)
    play(env, 40)
    env.start_recording("by-hand")
    for _ in range(3):
        env.step(np.zeros(4, np.int64)) if mode != "DISABLED" else env.reset()
    env.close()
    workers = by_worker(told(home, *STORY))
    for worker, sub in enumerate(inner.envs):
        whole = as_told(sub.history)
        mine = words_of(workers[worker])
        steps = [word for word in mine if word[0] == "step"]
        assert [word for word in mine if word[0] != "step"] == [word for word in whole if word[0] != "step"]
        assert 0 < len(steps) < len([word for word in whole if word[0] == "step"])
        assert all(word in whole for word in steps)
        # from the first step that is told on to the episode's end, none is missing
        for episode in {word[1] for word in steps}:
            numbers = [word[2] for word in steps if word[1] == episode]
            last = max(word[2] for word in whole if word[:2] == ("step", episode))
            assert numbers == list(range(numbers[0], last + 1))


@pytest.mark.parametrize("mode", MODES)
def test_a_row_says_which_frame_of_the_mosaic_shows_it(tmp_path: Path, home: Path, mode: str) -> None:
    env = RecordVideoVector(vector(LENGTHS, mode), tmp_path / "v", **SECOND, telemetry="all")
    play(env, 30)
    env.close()
    video = tmp_path / "v" / "rl-video-episode-1.mp4"
    pictures = [cells(picture, env.frame_cols, 4) for picture in frames_of(video)]
    starts: dict[Any, Any] = {}
    found: dict[int, set[int]] = defaultdict(set)
    for event in told(home, *STORY):
        key = event["worker"], event["episode"]
        if event["type"] == "EpisodeStarted":
            starts[key] = event["recording"]
            if event["first_frame"] is not None:
                assert pictures[event["first_frame"]][event["worker"]] == Seen(*key, 0)
                found[event["worker"]].add(event["first_frame"])
        elif event["type"] == "StepRecorded" and event.get("frame") is not None:
            assert event.get("recording", starts[key]) is not None
            assert pictures[event["frame"]][event["worker"]] == Seen(*key, event["step"])
            found[event["worker"]].add(event["frame"])
        elif mode == "SAME_STEP" and event["type"] == "StepRecorded" and (event["terminated"] or event["truncated"]):
            assert event.get("frame") is None  # its picture is not to be had
    if mode != "DISABLED":  # there, a reset of some shows the others once more
        assert all(found[worker] == set(range(len(pictures))) for worker in range(4))
    ends = told(home, "EpisodeEnded")
    (recording,) = {event["recording"] for event in ends} - {None}
    assert {event["worker"] for event in ends if event["recording"] == recording} == {0, 1, 2, 3}
    in_video = rows(home, "SELECT worker, episode, step, frame FROM step_media_time WHERE video_path IS NOT NULL")
    assert len(in_video) >= 19
    assert all(pictures[frame][worker] == (worker, episode, step) for worker, episode, step, frame in in_video)


def test_the_next_steps_reset_is_nobodys_step(tmp_path: Path, home: Path) -> None:
    """The mosaic's picture of it is the first of the new episode; the others' steps have it, too."""
    env = RecordVideoVector(vector([(9,), (2, 3)]), tmp_path / "v", telemetry="all")
    play(env, 7)
    env.close()
    second = [event for event in told(home, *STORY) if event["worker"] == 1]
    frames = [event.get("frame", event.get("first_frame")) for event in second if event["type"] != "EpisodeEnded"]
    assert frames == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [event.get("step") for event in second if event["type"] == "StepRecorded"] == [1, 2, 1, 2, 3, 1][
        : len(frames) - 3
    ]


@pytest.mark.parametrize("telemetry", ["captured", "all", "episodes"])
def test_the_ends_do_not_depend_on_what_is_told(tmp_path: Path, home: Path, telemetry: str) -> None:
    inner = vector(LENGTHS)
    env = RecordVideoVector(inner, tmp_path / "v", **SECOND, telemetry=telemetry)
    play(env, 40)
    env.close()
    happened = told(home, *STORY)
    ends = [word for word in words_of(happened) if word[0] == "end"]
    assert sorted(ends, key=repr) == sorted(
        (word for one in inner.envs for word in as_told(one.history) if word[0] == "end"), key=repr
    )
    steps = [event for event in happened if event["type"] == "StepRecorded"]
    assert bool(steps) == (telemetry != "episodes")
    shown = {event["worker"] for event in happened if event["type"] == "EpisodeEnded" and event["recording"]}
    assert shown == {0, 1, 2, 3}


def test_with_telemetry_off_nothing_is_told_and_the_video_is_made(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", **SECOND, telemetry=False)
    play(env, 12)
    env.close()
    assert (tmp_path / "v" / "rl-video-episode-1.mp4").exists()
    assert not told(home, *STORY)


def test_indices_choose_whose_steps_are_told(tmp_path: Path, home: Path) -> None:
    """The recordings are of environment 0's episodes, whoever is told."""
    inner = vector(LENGTHS)
    env = RecordVideoVector(inner, tmp_path / "v", **SECOND, indices=[3, 1], telemetry="all")
    play(env, 20)
    env.close()
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["rl-video-episode-1.mp4"]
    workers = by_worker(told(home, *STORY))
    assert [words_of(mine) for mine in workers.values()] == [as_told(inner.envs[index].history) for index in (3, 1)]


def test_with_the_first_alone_in_the_picture_the_others_are_not_captured(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", record_first_only=True, **SECOND)
    play(env, 20)
    env.close()
    happened = told(home, *STORY)
    assert {event["worker"] for event in happened if event["type"] == "StepRecorded"} == {0}
    assert {event["worker"] for event in happened if event["type"] == "EpisodeEnded" and event["recording"]} == {0}
    assert {event["worker"] for event in happened if event["type"] == "EpisodeStarted" and event["captured"]} == {0}
    (sealed,) = told(home, "RecordingSealed")
    assert sealed["total_reward"] == 21.0


@pytest.mark.parametrize("mode", MODES)
def test_observations_and_actions_in_containers_are_taken_apart(tmp_path: Path, home: Path, mode: str) -> None:
    inner = vector([(2, 3), (4,)], mode, kind=Nested)
    env = RecordVideoVector(inner, tmp_path / "v", **NEVER, telemetry="all")
    play(env, 10)
    env.close()
    for worker, mine in by_worker(told(home, *STORY)).items():
        story = inner.envs[worker].history
        entries = [event for event in mine if event["type"] != "EpisodeEnded"]
        assert len(entries) == len(story)
        for event, entry in zip(entries, story, strict=True):
            observation = entry[0] if len(entry) == 2 else entry[1]
            assert event["observation"] == {
                "where.0": observation["where"][0],
                "where.1": observation["where"][1].tolist(),
                "text": observation["text"],
            }
            if len(entry) == 6:
                assert event["action"] == {"push": int(entry[0]["push"])}


def test_each_sub_environment_has_its_own_info(tmp_path: Path, home: Path) -> None:
    """Out of the batch's, also where a wrapper between has added to it."""
    inner = vector([(2,), (3,)])
    env = RecordVideoVector(gym.wrappers.vector.RecordEpisodeStatistics(inner), tmp_path / "v", telemetry="all")
    play(env, 3)
    env.close()
    infos = {
        (event["worker"], event["step"]): event["info"] for event in told(home, "StepRecorded") if event["episode"] == 0
    }
    assert infos[0, 1] == {"double": 2}
    assert {name: infos[0, 2][name] for name in ("double", "is_success", "episode.r", "episode.l")} == {
        "double": 4, "is_success": True, "episode.r": 3.0, "episode.l": 2,
    }  # fmt: skip
    assert infos[1, 2] == {"double": 4}
    assert infos[1, 3]["episode.r"] == 6.0


def test_rewards_that_are_not_finite_are_summed_in_silence(tmp_path: Path, home: Path) -> None:
    """Warnings are errors here."""

    class Odd(Scripted):
        def step(self, action: Any) -> Any:
            observation, reward, *rest = super().step(action)
            return observation, {1: np.inf, 2: -np.inf}.get(int(reward), reward), *rest

    env = RecordVideoVector(vector([(4,), (1,)], kind=Odd), tmp_path / "v", **NEVER)
    play(env, 6)
    env.close()
    ends = {event["worker"]: event for event in told(home, "EpisodeEnded") if event["outcome"] != "aborted"}
    assert (ends[0]["total_reward"], ends[0]["nonfinite"]) == (None, {"total_reward": "nan"})
    assert (ends[1]["total_reward"], ends[1]["nonfinite"]) == (None, {"total_reward": "inf"})


def test_the_scripts_own_step_is_told_of_all(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector([(3,), (3,)]), tmp_path / "v")
    env.set_step(100)
    play(env, 2)
    env.set_step(200)
    env.close()
    assert [event["training_step"] for event in told(home, "EpisodeStarted", "EpisodeEnded")] == [100, 100, 200, 200]
    (video,) = told(home, "VideoAvailable")
    assert video["training_step"] == 100


@pytest.mark.parametrize("options", [{}, {"per_env": True}, {"indices": [1, 7]}], ids=str)
def test_a_step_that_nobody_wants_to_know_of_costs_next_to_nothing(
    tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    """About a microsecond for 256 environments, of which one alone would take more by itself. It renders nothing."""
    inner: Any = Pictures(lambda _: None, 256)
    quiet: Any = (np.zeros((256, 1), np.float32), np.ones(256), np.zeros(256, bool), np.zeros(256, bool), {})
    inner.step = lambda _: quiet  # so that it costs nothing itself
    env = RecordVideoVector(inner, tmp_path / "v", **NEVER, **options)
    env.reset()
    least = 1.0
    for _ in range(20):
        began = time.thread_time()
        for _ in range(200):
            env.step(None)
        least = min(least, (time.thread_time() - began) / 200)
    assert least < 50e-6
    assert inner.renders == 0
    env.close()
    assert {event["steps"] for event in told(home, "EpisodeEnded")} == {4000}
    assert {event["total_reward"] for event in told(home, "EpisodeEnded")} == {4000.0}


# Taking apart ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [None, [2, 0]])
def test_an_info_is_taken_apart_by_its_masks(chosen: list[int] | None) -> None:
    mask = np.array([True, False, True])
    info = {
        "number": np.array([1, 0, 3]), "_number": mask,
        "vector": np.arange(6).reshape(3, 2), "_vector": ~mask,
        "object": np.array(["a", None, [1]], dtype=object), "_object": mask,
        "inner": {"deep": np.array([0.5, 0.0, 2.5]), "_deep": mask}, "_inner": mask,
        "without mask": np.array([7, 8, 9]),
        "a list": ["x", "y", "z"],
        "_private": np.array([4, 5, 6]),
        "everybody's": "text",
        "nobody's": np.zeros((2, 2)),
        7: object(),
    }  # fmt: skip
    of = batch_rows(3, chosen).of_info(info)
    everybodys = {"everybody's": "text"}
    expected = {
        0: {"number": 1, "object": "a", "inner": {"deep": 0.5}, "without mask": 7, "a list": "x", "_private": 4},
        1: {"without mask": 8, "a list": "y", "_private": 5, "vector": [2, 3]},
        2: {"number": 3, "object": [1], "inner": {"deep": 2.5}, "without mask": 9, "a list": "z", "_private": 6},
    }
    for place, index in enumerate(chosen or range(3)):
        own = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in of(place).items()}
        assert own == {**expected[index], **everybodys}


def batch_rows(size: int, chosen: list[int] | None) -> Any:
    from plugins.recorder.apart import Rows

    return Rows(size, chosen)


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("chosen", [None, [1]])
def test_what_cannot_be_taken_apart_is_left_out(chosen: list[int] | None) -> None:
    rows_of = batch_rows(3, chosen)
    odds: list[Any] = [None, 3, "text", [], (), {}, Hostile(), {"a": Hostile()}, np.float32(1), np.zeros(())]
    for odd in [*odds, np.zeros((2, 9))]:
        assert rows_of.of_info(odd)(0) in (None, {})
    for odd in odds:
        assert rows_of.of(odd)(0) in (None, {}, ())


def test_batches_say_how_many_they_are() -> None:
    assert [batch.chosen_of(indices, 4) for indices in (None, [0], [3, 1])] == [None, [0], [3, 1]]
