"""`per_env=True`: each sub-environment has its own files, its own triggers and its own telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from plugins.events import Keep
from plugins.recorder.vector import RecordVideoVector
from tests.end_to_end.homes import frames_of
from tests.environments.bars import draw
from tests.wrappers.vector_envs import MODES, Pictures, Seen, play, seen, told, vector

if TYPE_CHECKING:
    from pathlib import Path

LENGTHS = [(3, 6, 4), (5, 2, 9), (7,)]

pytestmark = pytest.mark.filterwarnings("ignore:.*autoreset mode is same-step")


def contents(folder: Path) -> dict[str, list[Seen]]:
    """What each video in a folder shows."""
    return {path.name: [seen(picture) for picture in frames_of(path)] for path in sorted(folder.glob("*.mp4"))}


def whole(env: int, episode: int, steps: int, mode: str) -> list[Seen]:
    """An episode from its reset to its last picture; where it resets in the same step, that one is not to be had."""
    return [Seen(env, episode, step) for step in range(steps + (mode != "SAME_STEP"))]


@pytest.mark.parametrize("mode", MODES)
def test_each_ones_episodes_are_recorded_by_its_own_count(tmp_path: Path, home: Path, mode: str) -> None:
    env = RecordVideoVector(
        vector(LENGTHS, mode), tmp_path / "v", episode_trigger=lambda episode: episode == 1, per_env=True
    )
    play(env, 24)
    env.close()
    assert contents(tmp_path / "v") == {
        "rl-video-env0-episode-1.mp4": whole(0, 1, 6, mode),
        "rl-video-env1-episode-1.mp4": whole(1, 1, 2, mode),
        "rl-video-env2-episode-1.mp4": whole(2, 1, 7, mode),
    }
    videos = told(home, "VideoAvailable")
    assert sorted((video["worker"], video["total_reward"]) for video in videos) == [(0, 21.0), (1, 3.0), (2, 28.0)]
    assert all(video["complete"] and video["first_episode"] == video["last_episode"] == 1 for video in videos)
    recordings = {video["worker"]: video["recording"] for video in videos}
    shown = {event["worker"]: event["recording"] for event in told(home, "EpisodeEnded") if event["recording"]}
    assert shown == recordings


def test_indices_choose_who_is_recorded(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", per_env=True, indices=[2, 1])
    play(env, 9)
    env.close()
    assert contents(tmp_path / "v") == {
        "rl-video-env1-episode-0.mp4": whole(1, 0, 5, ""),
        "rl-video-env1-episode-1.mp4": whole(1, 1, 2, ""),
        "rl-video-env2-episode-0.mp4": whole(2, 0, 7, ""),
        "rl-video-env2-episode-1.mp4": [Seen(2, 1, 0), Seen(2, 1, 1)],
    }
    first = {event["worker"]: event["observation"][0] for event in told(home, "EpisodeStarted")}
    assert first == {0: 2.0, 1: 1.0}


def test_one_rendering_gives_all_their_pictures(tmp_path: Path, home: Path) -> None:
    env = Pictures(lambda step: [draw(index << 12 | step, 16, 64) for index in range(3)])
    recorder = RecordVideoVector(env, tmp_path / "v", episode_trigger=lambda episode: episode == 1, per_env=True)
    play(recorder, 14)
    recorder.close()
    assert env.renders == 5
    assert len(contents(tmp_path / "v")) == 3


def test_a_step_trigger_begins_a_recording_of_each(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(
        vector(LENGTHS), tmp_path / "v", step_trigger=lambda step: step == 4, video_length=3, per_env=True
    )
    asked = []

    def trigger(step: int) -> bool:
        asked.append(step)
        return step == 4

    env.step_trigger = trigger
    play(env, 12)
    assert asked == list(range(12))
    env.close()
    assert contents(tmp_path / "v") == {
        # its first episode is over behind step 2, and step 3 was its reset
        "rl-video-env0-step-4.mp4": [Seen(0, 1, step) for step in (1, 2, 3, 4)],
        "rl-video-env1-step-4.mp4": [Seen(1, 0, 5), Seen(1, 1, 0), Seen(1, 1, 1), Seen(1, 1, 2)],
        "rl-video-env2-step-4.mp4": [Seen(2, 0, step) for step in (5, 6, 7)] + [Seen(2, 1, 0)],
    }


def test_recordings_by_hand_are_of_each(tmp_path: Path, home: Path) -> None:
    env: Any = RecordVideoVector(vector(LENGTHS), tmp_path / "v", episode_trigger=lambda _: False, per_env=True)
    play(env, 2)
    assert not env.recording
    with pytest.raises(AssertionError):
        env.stop_recording()
    env.start_recording("mine")
    assert env.recording
    env.step(np.zeros(3, np.int64))
    env._capture_frame()
    env.stop_recording()
    assert not env.recording
    assert contents(tmp_path / "v") == {  # stop_recording has waited for them
        f"mine-env{index}.mp4": [Seen(index, 0, 3)] * 2 for index in range(3)
    }
    env.close()


def test_what_is_kept_is_decided_among_each_ones_own(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(
        vector(LENGTHS), tmp_path / "v", episode_trigger=lambda _: True, per_env=True, keep=Keep(failures=True)
    )
    play(env, 12)
    env.close()
    assert sorted(contents(tmp_path / "v")) == ["rl-video-env0-episode-1.mp4", "rl-video-env1-episode-1.mp4"]
    told(home)


def test_of_each_one_the_newest_videos_stay(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(
        vector([(2,), (3,)]), tmp_path / "v", episode_trigger=lambda _: True, per_env=True, max_videos=1
    )
    play(env, 11)
    env.close()
    told(home)
    assert sorted(contents(tmp_path / "v")) == ["rl-video-env0-episode-3.mp4", "rl-video-env1-episode-2.mp4"]


def test_numbering_goes_on_behind_each_ones_files(tmp_path: Path, home: Path) -> None:
    for resume in (False, True):
        env = RecordVideoVector(
            vector([(3,), (5,)]), tmp_path / "v", episode_trigger=lambda _: True, per_env=True, resume=resume
        )
        play(env, 7)
        env.close()
    assert sorted(contents(tmp_path / "v")) == [
        *(f"rl-video-env0-episode-{number}.mp4" for number in range(4)),
        *(f"rl-video-env1-episode-{number}.mp4" for number in range(4)),
    ]


def test_two_that_use_one_folder_at_a_time_do_not_share_names(tmp_path: Path, home: Path) -> None:
    first = RecordVideoVector(vector([(3,), (5,)]), tmp_path / "v", per_env=True)
    with pytest.warns(UserWarning, match="Overwriting"):
        second = RecordVideoVector(vector([(3,), (5,)]), tmp_path / "v", per_env=True)
    first.reset()
    with pytest.warns(RuntimeWarning, match="another environment that is in use") as caught:
        second.reset()
    assert len(caught) == 1
    first.close()
    second.close()
    names = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert names == [
        "rl-video-env0-episode-0.mp4", "rl-video-env1-episode-0.mp4",
        "rl-video-w1-env0-episode-0.mp4", "rl-video-w1-env1-episode-0.mp4",
    ]  # fmt: skip


def test_settings_that_a_script_changes_hold_for_each(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector([(3,), (3,)]), tmp_path / "v", per_env=True)
    env.name_prefix = "other"
    env.frames_per_sec = 7
    env.video_folder = str(tmp_path / "w")
    (tmp_path / "w").mkdir()
    play(env, 2)
    env.close()
    assert sorted(contents(tmp_path / "w")) == ["other-env0-episode-0.mp4", "other-env1-episode-0.mp4"]
    assert {video["fps"] for video in told(home, "VideoAvailable")} == {7.0}


@pytest.mark.filterwarnings("ignore:.*zero frames")
@pytest.mark.parametrize("picture", [np.zeros((8, 8, 3), np.uint8), None], ids=["one of all", "none"])
def test_without_a_picture_of_each_the_recordings_stop_and_the_training_goes_on(
    tmp_path: Path, home: Path, picture: Any
) -> None:
    env = RecordVideoVector(Pictures(lambda _: picture), tmp_path / "v", per_env=True, telemetry="all")
    with pytest.warns(RuntimeWarning, match="per_env=True needs one of each"):
        play(env, 3)
    assert not env.recording
    env.close()
    assert not contents(tmp_path / "v")
    assert len(told(home, "StepRecorded")) == 9


def test_the_counts_are_upstreams(tmp_path: Path, home: Path) -> None:
    """`episode_id` counts environment 0's episodes, as it does with one picture of all."""
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", episode_trigger=lambda _: False, per_env=True)
    play(env, 12)
    assert (env.episode_id, env.step_id) == (2, 11)
    env.close()


def test_one_alone_in_the_picture_is_said_in_another_way(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="indices=\\[0\\]"):
        RecordVideoVector(vector(LENGTHS), tmp_path / "v", record_first_only=True, per_env=True)
