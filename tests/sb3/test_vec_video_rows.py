"""The telemetry of a VecEnv: a worker, episodes and steps for each of its environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from plugins.events import CaptureSettings
from plugins.recorder.spool import Control
from stepreel import Keep, VecVideoRecorder
from tests.end_to_end.homes import events, rows
from tests.sb3.vecs import Nested, Numbered, batch, close, go, numbers_in, of_worker, play, values

if TYPE_CHECKING:
    from pathlib import Path


def never(_: int) -> bool:
    return False


def test_each_environment_is_a_worker_whose_rows_say_what_happened_to_it(tmp_path: Path, home: Path) -> None:
    venv = batch(3, 5)
    venv.seed(7)
    env = VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 6)
    env.reset()
    for step in range(6):
        env.step(np.array([step % 2, 1]))
    close(env, home)

    assert [event["worker"] for event in events(home, "WorkerStarted")] == [0, 1]
    assert [event["worker"] for event in events(home, "WorkerEnded")] == [0, 1]
    assert [event["steps"] for event in events(home, "WorkerEnded")] == [6, 6]
    starts = of_worker(home, 0, "EpisodeStarted")
    assert values(starts, "episode", "seed", "observation", "info", "captured", "first_frame") == [
        (0, "7", [0.0], {"reset": 1}, True, 0),
        (1, None, [0.0], {"reset": 2}, True, 3),
        (2, None, [0.0], {"reset": 3}, False, None),  # the recording ended by the step that begins it
    ]
    steps = of_worker(home, 0, "StepRecorded")
    assert values(steps, "episode", "step", "action", "reward", "observation", "terminated", "frame") == [
        (0, 1, 0, 1.0, [1.0], False, 1),
        (0, 2, 1, 2.0, [2.0], False, 2),
        (0, 3, 0, 3.0, [3.0], True, 3),
        (1, 1, 1, 1.0, [1.0], False, 4),
        (1, 2, 0, 2.0, [2.0], False, 5),
        (1, 3, 1, 3.0, [3.0], True, 6),
    ]
    assert [step["info"] for step in steps[:3]] == [{"at": 1}, {"at": 2}, {"at": 3, "is_success": True}]
    ends = events(home, "EpisodeEnded")
    assert values(ends, "worker", "episode", "outcome", "steps", "total_reward", "success") == [
        (0, 0, "terminated", 3, 6.0, True),
        (1, 0, "terminated", 5, 15.0, True),
        (0, 1, "terminated", 3, 6.0, True),
        (0, 2, "aborted", 0, 0.0, None),
        (1, 1, "aborted", 1, 1.0, None),
    ]
    assert of_worker(home, 1, "EpisodeStarted")[0]["seed"] == "8"
    (video,) = events(home, "VideoAvailable")
    assert (video["frames"], video["complete"], video["total_reward"]) == (7, True, None)
    recording = video["recording"]
    assert [end["recording"] for end in ends] == [recording, recording, recording, None, recording]


def test_the_tables_lead_from_every_environments_step_to_its_picture(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(4, 7, 3), tmp_path / "videos", lambda step: step == 5, 10)
    play(env, 20)
    close(env, home)
    video = tmp_path / "videos" / "rl-video-step-5-to-step-15.mp4"
    pictures = numbers_in(video, tiles=3)
    found = rows(
        home, "SELECT worker, frame, observation, terminated, video_path FROM step_media_time WHERE frame IS NOT NULL"
    )
    assert len(found) == 3 * 11
    for worker, frame, observation, terminated, path in found:
        assert path == str(video)
        after = 0 if terminated else int(float(observation.strip("[]")))
        assert pictures[frame][worker] == after
    for worker, length in enumerate((4, 7, 3)):
        # The pictures are those behind steps 5 to 15; what begins by the last of them is not recorded.
        shown = [(episode,) for episode in range(20) if episode * length < 15 and (episode + 1) * length >= 5]
        with_video = rows(home, f"SELECT episode FROM episodes WHERE worker = {worker} AND video_path IS NOT NULL")
        assert sorted(with_video) == shown


def test_a_step_that_ran_out_of_time_is_truncated_and_not_terminated(tmp_path: Path, home: Path) -> None:
    venv = DummyVecEnv([lambda: gym.wrappers.TimeLimit(Numbered(100), 2), lambda: Numbered(2)])
    play(env := VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 4), 4)
    close(env, home)
    flags = values(events(home, "StepRecorded"), "worker", "step", "terminated", "truncated")
    assert flags[:4] == [(0, 1, False, False), (1, 1, False, False), (0, 2, False, True), (1, 2, True, False)]
    outcomes = {(end["worker"], end["outcome"]) for end in events(home, "EpisodeEnded") if end["steps"]}
    assert outcomes == {(0, "truncated"), (1, "terminated")}
    assert "TimeLimit.truncated" not in str(events(home, "StepRecorded"))


@pytest.mark.parametrize("monitored", ["each", "all"])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_return_is_the_monitors_and_not_that_of_normalized_rewards(
    tmp_path: Path, home: Path, monitored: str, *, recorded: bool
) -> None:
    venv: Any = DummyVecEnv([lambda: Monitor(Numbered(4))]) if monitored == "each" else VecMonitor(batch(4))
    env = VecVideoRecorder(VecNormalize(venv), tmp_path / "videos", lambda step: step == 0 and recorded, 5)
    env.reset()
    results = go(env, 5)
    close(env, home)
    ended, cut = events(home, "EpisodeEnded")
    assert (ended["total_reward"], ended["steps"]) == (10.0, 4)
    assert cut["total_reward"] == pytest.approx(float(results[4][1][0]))
    told = events(home, "StepRecorded")
    assert [step["reward"] for step in told] == [float(result[1][0]) for result in results][: len(told)]
    if recorded:  # the rows are what the training saw, and the last one the end of its own episode
        assert len(told) == 5
        final = results[3][3][0]["terminal_observation"]
        assert told[3]["observation"] == pytest.approx(final.tolist())
        assert told[3]["info"]["episode.r"] == 10.0
        assert "terminal_observation" not in str(told)
        assert "terminal_observation" in results[3][3][0], "the user's own info is as it was"


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_observations_of_dicts_and_tuples_are_taken_apart(tmp_path: Path, home: Path, kind: str) -> None:
    venv = DummyVecEnv([lambda length=length: Nested(Numbered(length), kind) for length in (2, 3)])  # type: ignore[misc, unused-ignore] # a default
    play(env := VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 3), 3)
    close(env, home)
    one, other = ("a", "b") if kind == "dict" else ("0", "1")
    told = [step["observation"] for step in of_worker(home, 0, "StepRecorded")]
    assert told == [{one: [float(number)], other: [-float(number)]} for number in (1, 2, 1)]
    told = [step["observation"] for step in of_worker(home, 1, "StepRecorded")]
    assert told == [{one: [float(number)], other: [-float(number)]} for number in (1, 2, 3)]
    assert of_worker(home, 0, "EpisodeStarted")[1]["observation"] == {one: [0.0], other: [0.0]}


@pytest.mark.parametrize(("telemetry", "told"), [("captured", 12), ("all", 40), ("episodes", 0), (False, 0)])
def test_telemetry_says_which_steps_are_told(tmp_path: Path, home: Path, telemetry: Any, told: int) -> None:
    """Two environments with episodes of 5 and 4 steps; the recording shows steps 6 and 7."""
    env = VecVideoRecorder(batch(5, 4), tmp_path / "videos", lambda step: step == 6, 1, telemetry=telemetry)
    play(env, 20)
    close(env, home)
    steps = events(home, "StepRecorded")
    if telemetry == "captured":  # 6 to 10 of the one, 6 to 8 of the other
        assert values(steps, "worker", "step") == [(0, 1), (1, 2), (0, 2), (1, 3), (0, 3), (1, 4), (0, 4), (0, 5)]
    else:
        assert len(steps) == told
    ends = [(end["steps"], end["total_reward"]) for end in events(home, "EpisodeEnded") if end["outcome"] != "aborted"]
    assert ends == ([] if telemetry is False else [(4, 10.0), (5, 15.0)] * 4 + [(4, 10.0)])
    shown = [(end["worker"], end["episode"]) for end in events(home, "EpisodeEnded") if end["recording"]]
    assert shown == ([] if telemetry is False else [(1, 1), (0, 1)])
    assert len(events(home, "VideoAvailable")) == 1


def test_a_recorder_that_never_sees_a_reset_tells_steps_all_the_same(tmp_path: Path, home: Path) -> None:
    venv = batch(3)
    venv.reset()
    go(venv, 1)
    env = VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 2, 2)
    go(env, 5)
    close(env, home)
    starts = events(home, "EpisodeStarted")
    assert values(starts, "episode", "observation", "captured") == [
        (0, None, False),
        (1, [0.0], True),
        (2, [0.0], False),
    ]
    steps = events(home, "StepRecorded")
    assert values(steps, "episode", "step", "observation", "frame") == [
        (0, 2, [3.0], 0), (1, 1, [1.0], 1), (1, 2, [2.0], 2), (1, 3, [3.0], None),
    ]  # fmt: skip


def test_a_reset_in_the_midst_aborts_every_episode_and_the_recording_goes_on(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(9, 9), tmp_path / "videos", lambda step: step == 1, 5)
    play(env, 3)
    play(env, 3)
    close(env, home)
    ends = events(home, "EpisodeEnded")[:2]
    assert values(ends, "worker", "outcome", "steps") == [(0, "aborted", 3), (1, "aborted", 3)]
    assert numbers_in(tmp_path / "videos" / "rl-video-step-1-to-step-6.mp4", tiles=2) == [
        (1, 1), (2, 2), (3, 3), (1, 1), (2, 2), (3, 3),
    ]  # fmt: skip
    again = of_worker(home, 1, "EpisodeStarted")[1]
    assert (again["captured"], again["capture"], again["first_frame"]) == (True, "goes on", None)
    assert again["recording"] == events(home, "VideoAvailable")[0]["recording"]


def test_a_recording_is_kept_for_the_episodes_that_ended_in_it(tmp_path: Path, home: Path) -> None:
    """Both environments end an episode in the first recording; only a worse one ends in the second."""
    env = VecVideoRecorder(
        batch(4, 6), tmp_path / "videos", lambda step: step in (0, 7), 6, keep=Keep(best=1), name_prefix="kept"
    )
    play(env, 20)
    close(env, home)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["kept-step-0-to-step-6.mp4"]
    assert events(home, "VideoAvailable")[0]["kept_for"] == ["best"]
    assert len(events(home, "RecordingDiscarded")) == 1


def test_of_max_videos_the_newest_stay_and_are_handed_over(tmp_path: Path, home: Path) -> None:
    seen: list[Any] = []
    env = VecVideoRecorder(
        batch(50), tmp_path / "videos", lambda step: step % 5 == 0, 2, max_videos=2, on_video=seen.append
    )
    play(env, 14)
    env.close()  # which waits for them
    newest = {str(tmp_path / "videos" / f"rl-video-step-{begin}-to-step-{begin + 2}.mp4") for begin in (5, 10)}
    assert newest <= {video.path for video in seen}
    close(env, home)
    assert {str(path) for path in (tmp_path / "videos").iterdir()} == newest


def test_set_step_is_the_x_axis_of_every_environment(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(2, 2), tmp_path / "videos", lambda step: step == 4, 1)
    play(env, 3)
    env.set_step(1234)
    go(env, 3)
    close(env, home)
    ended = [end["training_step"] for end in events(home, "EpisodeEnded") if end["outcome"] == "terminated"]
    assert ended == [None, None, 1234, 1234, 1234, 1234]
    assert events(home, "VideoAvailable")[0]["training_step"] == 1234


def test_what_users_ask_for_begins_a_recording_with_the_first_environments_next_episode(
    tmp_path: Path, home: Path
) -> None:
    env = VecVideoRecorder(batch(5, 50), tmp_path / "videos", never, 3)
    play(env, 2)
    assert env._camera is not None
    env._camera.script.producer.outbox.control = Control(once=1)
    go(env, 12)
    close(env, home)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["rl-video-step-5-to-step-8.mp4"]
    start = of_worker(home, 0, "EpisodeStarted")[1]
    assert values([start], "captured", "capture", "first_frame") == [(True, "asked", 0)]
    assert events(home, "CaptureApplied")[0]["once"] is True


def test_no_recording_begins_while_the_disk_is_nearly_full(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(5), tmp_path / "videos", lambda step: step % 4 == 0, 2)
    play(env, 3)
    assert env._camera is not None
    outbox = env._camera.script.producer.outbox
    outbox.control = Control(held=True)
    env.step_id = 4
    play(env, 3)
    assert not env.recording
    outbox.control = Control(settings=CaptureSettings(mode="off"), asked=1)
    go(env, 4)
    close(env, home)
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["rl-video-step-0-to-step-2.mp4", "rl-video-step-8-to-step-10.mp4"]
    assert events(home, "EpisodeStarted")[1]["capture"] == "low disk"
