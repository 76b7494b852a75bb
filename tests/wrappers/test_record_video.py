"""What RecordVideo does beyond upstream, and for environments and scripts that are not as they should be."""

from __future__ import annotations

import gc
import json
import time
import warnings
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

from plugins.events import Keep, VideoAvailable
from plugins.recorder import tape
from plugins.recorder.wrappers import RecordVideo
from tests.end_to_end.homes import check_log, events, frames_of, rows
from tests.environments.bars import Bars, draw, shown
from tests.wrappers.homes import end_script, home_in, wait_until_quiet
from tests.wrappers.misbehaving import Batch, Filmed, OnDevice, ResetsItself, Shows

if TYPE_CHECKING:
    from pathlib import Path

EPISODES: dict[str, Any] = {"episode_trigger": lambda _: True}


def record(env: Any, folder: Path | str, **options: Any) -> Any:
    """As scripts do: without types."""
    return RecordVideo(env, folder, **options)


def bars(length: int = 4, **options: Any) -> Any:
    return Bars(length=length, render_mode="rgb_array", **options)


def play(env: Any, episodes: int = 1, *, length: int = 4) -> None:
    """Episodes to their ends, `length` steps each."""
    for _ in range(episodes):
        env.reset()
        for _ in range(length):
            env.step(0)


def numbers(video: Path) -> list[int]:
    return [shown(picture) for picture in frames_of(video)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def told(home: Path, *types: str) -> list[dict[str, Any]]:
    """The events of these types, when the script has ended and all is done."""
    end_script(home)
    wait_until_quiet(home)
    check_log(home)
    assert not list((home / "spool").iterdir())
    return events(home, *types)


# The environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "human", "ansi"])
def test_a_render_mode_without_pictures_is_refused_with_the_words_that_fix_it(tmp_path: Path, mode: str | None) -> None:
    env = bars()
    env.render_mode = mode
    with pytest.raises(ValueError, match="such as rgb_array") as refused:
        record(env, tmp_path / "videos")
    assert len(refused.value.args) == 1
    gc.collect()  # the half-built wrapper goes in silence: warnings are errors here
    assert not (tmp_path / "videos").exists()


def test_an_object_that_was_never_built_goes_in_silence() -> None:
    RecordVideo.__new__(RecordVideo).__del__()


def test_it_is_a_wrapper_whose_arguments_are_in_the_environments_spec(tmp_path: Path) -> None:
    env = record(
        gym.make("CartPole-v1", render_mode="rgb_array"),
        str(tmp_path / "v"),
        name_prefix="p",
        video_length=7,
        tags=["x"],
    )
    assert isinstance(env, gym.Wrapper)
    assert isinstance(env, gym.utils.RecordConstructorArgs)
    assert env.spec is not None
    kwargs = env.spec.additional_wrappers[-1].kwargs
    assert kwargs is not None
    assert (kwargs["name_prefix"], kwargs["video_length"], kwargs["tags"]) == ("p", 7, ["x"])
    with pytest.warns(UserWarning, match="Overwriting"):
        again = gym.make(env.spec)
    assert isinstance(again, RecordVideo)
    assert again.name_prefix == "p"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"telemetry": "some"}, "telemetry must be"),
        ({"keep": {"best": 5}}, "keep must be a Keep"),
        ({"max_videos": 0}, "max_videos must be"),
        ({"on_video": "print"}, "on_video must be"),
        ({"tags": "one"}, "tags must be"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        record(bars(), tmp_path / "videos", **options)


def test_nothing_but_the_video_folder_exists_before_the_first_reset(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "videos")
    assert names(tmp_path) == ["videos"]
    env.close()
    assert names(tmp_path) == ["videos"]


def test_a_folder_that_exists_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.warns(UserWarning, match="Overwriting existing videos"):
        record(bars(), tmp_path / "videos")


def test_an_episode_that_is_not_captured_renders_nothing(tmp_path: Path, home: Path) -> None:
    env = Shows(lambda step: draw(step, 96, 160))
    recorder = record(env, tmp_path / "v", episode_trigger=lambda episode: episode == 1)
    play(recorder)
    assert env.renders == 0
    play(recorder)
    assert env.renders == 5
    recorder.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-1.mp4") == [0, 1, 2, 3, 4]


def test_results_are_handed_on_as_they_are(tmp_path: Path, home: Path) -> None:
    class Marked(Bars):
        result: Any = (np.zeros(1), np.float32(0.5), np.bool_(False), 0, {"x": object()})

        def step(self, action: Any) -> Any:
            return self.result

    env = Marked(render_mode="rgb_array")
    for captured in (True, False):
        recorder = record(env, tmp_path / f"{captured}", episode_trigger=lambda _, captured=captured: captured)
        recorder.reset()
        assert recorder.step(0) is env.result
        assert recorder.step(0) is env.result
        recorder.close()


# How recordings end ----------------------------------------------------------------------------------------------


def test_an_ended_episodes_video_comes_without_the_next_reset(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    play(env)
    assert env.recording
    wait_for_file(tmp_path / "v" / "rl-video-episode-0.mp4")
    assert not env.recording
    env._capture_frame()  # of an environment that looked at `recording` before: nobody's mistake
    env.step(0)
    play(env)
    env.close()
    assert names(tmp_path / "v") == ["rl-video-episode-0.mp4", "rl-video-episode-1.mp4"]
    ends = [(end["episode"], end["steps"], end["outcome"]) for end in told(home, "EpisodeEnded")]
    assert ends == [(0, 4, "terminated"), (1, 1, "aborted"), (2, 4, "terminated")]


def wait_for_file(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


def test_a_step_behind_the_end_begins_an_episode_and_goes_on_with_the_recording(tmp_path: Path, home: Path) -> None:
    env = record(ResetsItself(bars(3)), tmp_path / "v", **EPISODES)
    env.reset()
    for _ in range(8):
        env.step(0)
    env.close()
    assert names(tmp_path / "v") == ["rl-video-episode-0.mp4"]
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    (video,) = told(home, "VideoAvailable")
    assert (video["first_episode"], video["last_episode"]) == (0, 2)
    steps = [(step["episode"], step["step"], step["frame"]) for step in events(home, "StepRecorded")]
    assert steps == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 4), (1, 2, 5), (1, 3, 6), (2, 1, 7), (2, 2, 8)]
    shown_in = rows(
        home, "SELECT episode, frame FROM steps JOIN videos ON videos.id = video_id WHERE state = 'available'"
    )
    assert len(shown_in) == 8


def test_the_resetting_step_of_an_autoreset_wrapper_is_a_reset_and_no_step(tmp_path: Path, home: Path) -> None:
    env = record(gym.wrappers.Autoreset(bars(3)), tmp_path / "v", **EPISODES)
    env.reset()
    for _ in range(7):
        env.step(0)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 0, 1, 2, 3]
    told(home)
    starts = [
        (start["episode"], start["first_frame"], start["observation"]) for start in events(home, "EpisodeStarted")
    ]
    assert starts == [(0, 0, [0.0]), (1, 4, [0.0])]
    steps = [(step["episode"], step["step"], step["frame"]) for step in events(home, "StepRecorded")]
    assert steps == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 5), (1, 2, 6), (1, 3, 7)]


def test_a_stretch_spans_episodes_and_is_shown_by_their_steps(tmp_path: Path, home: Path) -> None:
    env = record(bars(4), tmp_path / "v", step_trigger=lambda step: step == 2, video_length=5)
    play(env, 3)
    env.close()
    assert names(tmp_path / "v") == ["rl-video-step-2.mp4"]
    assert numbers(tmp_path / "v" / "rl-video-step-2.mp4") == [3, 4, 0, 1, 2, 3]
    (video,) = told(home, "VideoAvailable")
    assert (video["first_episode"], video["last_episode"], video["complete"]) == (0, 1, True)
    placed = rows(home, "SELECT episode, step, frame FROM steps WHERE video_id IS NOT NULL ORDER BY seq")
    assert placed == [(0, 3, 0), (0, 4, 1), (1, 1, 3), (1, 2, 4), (1, 3, 5)]


def test_what_ended_whole_is_complete_and_what_was_cut_short_is_not(tmp_path: Path, home: Path) -> None:
    env = record(bars(4), tmp_path / "v", **EPISODES)
    play(env, length=2)  # cut short by the next reset
    play(env, length=4)
    play(env, length=3)  # cut short by the end
    env.close()
    videos = {video["path"].rpartition("-")[2]: video for video in told(home, "VideoAvailable")}
    assert {name: video["complete"] for name, video in videos.items()} == {
        "0.mp4": False,
        "1.mp4": True,
        "2.mp4": False,
    }
    assert "reset before" in videos["0.mp4"]["incomplete_because"]
    assert "closed" in videos["2.mp4"]["incomplete_because"]
    assert [video["total_reward"] for video in videos.values() if video["complete"]] == [4.0]


def test_stop_recording_waits_for_the_video_and_recording_by_hand_is_complete(tmp_path: Path, home: Path) -> None:
    env = record(bars(9), tmp_path / "v", episode_trigger=lambda _: False)
    env.reset()
    env.step(0)
    env.start_recording("mine")
    env.step(0)
    env.step(0)
    env.stop_recording()
    assert numbers(tmp_path / "v" / "mine.mp4") == [2, 3]
    with pytest.raises(AssertionError, match="no recording was started"):
        env.stop_recording()
    with pytest.raises(AssertionError, match="wasn't started"):
        env._capture_frame()
    env.close()
    (video,) = told(home, "VideoAvailable")
    assert video["complete"]


def test_close_waits_and_a_second_close_is_harmless(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    play(env, 3)
    env.close()
    assert len(names(tmp_path / "v")) == 3
    env.close()
    play(env)  # a reset after a close begins anew
    env.close()
    assert names(tmp_path / "v")[-1] == "rl-video-episode-3.mp4"


def test_without_wait_close_returns_and_flush_waits(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES, wait=False)
    play(env, 3)
    env.close()
    assert env.flush(0.0) is (len(names(tmp_path / "v")) == 3)
    assert env.flush()
    assert len(names(tmp_path / "v")) == 3


def test_an_environment_that_nobody_closed_is_sealed_when_it_goes(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    play(env, length=2)
    del env
    gc.collect()
    wait_for_file(tmp_path / "v" / "rl-video-episode-0.mp4")
    assert [end["outcome"] for end in told(home, "EpisodeEnded", "WorkerEnded")] == ["aborted", "finished"]


def test_nothing_but_finished_files_is_ever_in_the_video_folder(tmp_path: Path, home: Path) -> None:
    env = record(bars(100), tmp_path / "v", **EPISODES, wait=False)
    for _ in range(5):
        play(env, length=100)
        for file in (tmp_path / "v").iterdir():
            assert file.suffix == ".mp4"
            assert len(numbers(file)) == 101
    env.close()
    while not env.flush(0.01):
        assert all(file.suffix == ".mp4" for file in (tmp_path / "v").iterdir())


# Files -----------------------------------------------------------------------------------------------------------


def test_a_video_of_an_earlier_run_is_replaced_and_said_to_be(tmp_path: Path, home: Path) -> None:
    for length in (4, 6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = record(bars(length), tmp_path / "v", **EPISODES)
        play(env, length=length)
        env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == list(range(7))
    (pruned,) = told(home, "VideoPruned")
    assert pruned["policy"] == "replaced"


def test_a_file_that_somebody_else_made_is_replaced(tmp_path: Path, home: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "rl-video-episode-0.mp4").write_bytes(b"upstream's")
    with pytest.warns(UserWarning, match="Overwriting"):
        env = record(bars(), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


def test_a_video_folder_that_was_removed_is_made_again(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    (tmp_path / "v").rmdir()
    play(env)
    env.close()
    assert names(tmp_path / "v") == ["rl-video-episode-0.mp4"]


def test_the_second_live_environment_of_a_folder_has_names_of_its_own(tmp_path: Path, home: Path) -> None:
    envs = [record(bars(), tmp_path / "v", **EPISODES, wait=False)]
    for _ in range(2):
        with pytest.warns(UserWarning, match="Overwriting"):
            envs.append(record(bars(), tmp_path / "v", **EPISODES, wait=False))
    play(envs[0])
    for number, env in enumerate(envs[1:], start=1):
        with pytest.warns(RuntimeWarning, match=f"rl-video-w{number}-") as warned:
            play(env, 2)
        assert len(warned) == 1
    for env in envs:
        env.close()
    for env in envs:
        env.flush()
    assert names(tmp_path / "v") == [
        "rl-video-episode-0.mp4",
        *[f"rl-video-w{number}-episode-{episode}.mp4" for number in (1, 2) for episode in (0, 1)],
    ]
    with pytest.warns(UserWarning, match="Overwriting"):
        later = record(bars(), tmp_path / "v", **EPISODES)
    later.episode_id = 8
    play(later)
    later.close()
    assert "rl-video-episode-9.mp4" in names(tmp_path / "v")


def test_the_attributes_that_scripts_write_count(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    env.frames_per_sec, env.name_prefix, env.episode_id, env.step_id = 12, "other", 40, 100
    env.video_folder = str(tmp_path / "w")
    play(env)
    env._video_name = "renamed"
    env.reset()
    assert (env.episode_id, env.step_id) == (42, 104)
    env.video_length = 2
    for _ in range(3):
        env.step(0)
    assert not env.recording
    env.close()
    assert names(tmp_path / "w") == ["other-episode-42.mp4", "renamed.mp4"]
    assert {video["fps"] for video in told(home, "VideoAvailable")} == {12.0}
    assert env.recorded_frames == []


@pytest.mark.parametrize(
    ("metadata", "argument", "fps"), [({"render_fps": 17}, None, 17.0), ({}, None, 30.0), ({}, 9, 9.0)]
)
def test_frames_per_second_come_from_the_argument_or_the_metadata(
    tmp_path: Path, home: Path, metadata: dict[str, Any], argument: int | None, fps: float
) -> None:
    env = bars()
    env.metadata = {"render_modes": ["rgb_array"], **metadata}
    recorder = record(env, tmp_path / "v", **EPISODES, fps=argument)
    play(recorder)
    recorder.close()
    (video,) = told(home, "VideoAvailable")
    assert (video["fps"], video["seconds"]) == (fps, 5 / fps)


def test_resume_goes_on_behind_the_files_that_are_there(tmp_path: Path, home: Path) -> None:
    (tmp_path / "v").mkdir()
    for name in (
        "rl-video-episode-7.mp4",
        "rl-video-w1-episode-9.mp4",
        "rl-video-step-300.mp4",
        "other-episode-99.mp4",
    ):
        (tmp_path / "v" / name).touch()
    env = record(bars(), tmp_path / "v", **EPISODES, resume=True)
    assert (env.episode_id, env.step_id) == (9, 300)
    play(env)
    env.close()
    assert "rl-video-episode-10.mp4" in names(tmp_path / "v")
    (started,) = told(home, "EpisodeStarted")
    assert started["episode"] == 10


def test_max_videos_leaves_the_newest_of_this_environment(tmp_path: Path, home: Path) -> None:
    limited = record(bars(), tmp_path / "v", **EPISODES, max_videos=2)
    free = record(bars(), tmp_path / "w", **EPISODES)
    play(limited, 5)
    play(free, 5)
    free.close()
    limited.close()
    assert {pruned["policy"] for pruned in told(home, "VideoPruned")} == {"max_videos"}
    assert names(tmp_path / "v") == ["rl-video-episode-3.mp4", "rl-video-episode-4.mp4"]
    assert len(names(tmp_path / "w")) == 5


def test_keep_decides_at_an_episodes_end_and_the_rest_is_never_encoded(tmp_path: Path, home: Path) -> None:
    class Paid(Bars):
        episode = -1

        def reset(self, **options: Any) -> Any:
            self.episode += 1
            return super().reset(**options)

        def step(self, action: Any) -> Any:
            observation, _, terminated, truncated, _ = super().step(action)
            reward = float((3, 1, 4, 1, 5)[self.episode % 5])
            return observation, reward, terminated, truncated, {"is_success": self.episode != 3}

    env = record(Paid(length=4, render_mode="rgb_array"), tmp_path / "v", **EPISODES, keep=Keep(best=1, failures=True))
    play(env, 5)
    env.close()
    discarded = told(home, "RecordingDiscarded")
    assert len(discarded) == 1, "episode 1; episodes 0 and 2 were the best until 2 and 4 came"
    kept = {video["first_episode"]: video["kept_for"] for video in events(home, "VideoAvailable")}
    assert kept == {0: ["best"], 2: ["best"], 3: ["failure"], 4: ["best"]}
    assert names(tmp_path / "v") == ["rl-video-episode-3.mp4", "rl-video-episode-4.mp4"]


# Pictures --------------------------------------------------------------------------------------------------------


def test_a_frame_buffer_that_is_used_again_does_no_harm(tmp_path: Path, home: Path) -> None:
    buffer = np.zeros((96, 160, 3), np.uint8)

    def show(step: int) -> Any:
        buffer[:] = draw(step, 96, 160)
        return buffer

    env = record(Shows(show), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind",
    [
        lambda picture: picture[:, :, 0],
        lambda picture: picture[:, :, :1],
        lambda picture: np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)]),
        lambda picture: np.ascontiguousarray(picture[:95, :159]),
        lambda picture: picture[::-1],
    ],
    ids=["grey", "one channel", "RGBA", "odd", "flipped"],
)
def test_pictures_of_all_kinds_are_recorded(tmp_path: Path, home: Path, kind: Any) -> None:
    env = record(Shows(lambda step: kind(draw(step, 96, 160))), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


def test_float_pictures_are_recorded_with_one_warning(tmp_path: Path, home: Path) -> None:
    env = record(Shows(lambda step: draw(step, 96, 160) / 255.0), tmp_path / "v", **EPISODES)
    with pytest.warns(RuntimeWarning, match="frames are of float64") as warned:
        play(env, 2)
    assert len(warned) == 1
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


def test_a_picture_that_changes_its_size_goes_on_in_a_part_of_its_own(tmp_path: Path, home: Path) -> None:
    env = record(Shows(lambda step: draw(step, 96, 160 if step < 3 else 192)), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2]
    assert numbers(tmp_path / "v" / "rl-video-episode-0-part2.mp4") == [3, 4]
    (changed,) = told(home, "FrameSizeChanged")
    assert (changed["width"], changed["height"]) == (192, 96)
    ours = rows(home, "SELECT step, steps.frame, path FROM steps JOIN videos ON videos.id = video_id ORDER BY seq")
    assert [(step, frame, path.rpartition("/")[2]) for step, frame, path in ours] == [
        (1, 1, "rl-video-episode-0.mp4"),
        (2, 2, "rl-video-episode-0.mp4"),
        (3, 0, "rl-video-episode-0-part2.mp4"),
        (4, 1, "rl-video-episode-0-part2.mp4"),
    ]


def test_a_picture_on_a_device_is_copied_only_when_it_is_captured(tmp_path: Path, home: Path) -> None:
    OnDevice.copies = 0
    env = Shows(lambda step: OnDevice(draw(step, 96, 160)))
    recorder = record(env, tmp_path / "v", episode_trigger=lambda episode: episode == 1)
    play(recorder, 3)
    recorder.close()
    assert OnDevice.copies == 5
    assert numbers(tmp_path / "v" / "rl-video-episode-1.mp4") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [None, "a text", 5])
def test_what_is_no_picture_stops_the_recording_with_a_warning(tmp_path: Path, home: Path, wrong: Any) -> None:
    env = record(Shows(lambda step: wrong if step == 2 else draw(step, 96, 160)), tmp_path / "v", **EPISODES)
    env.reset()
    env.step(0)
    with pytest.warns(UserWarning, match="Recording stopped: expected type of frame"):
        env.step(0)
    assert not env.recording
    env.step(0)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1]
    (video,) = told(home, "VideoAvailable")
    assert not video["complete"]


def test_a_render_that_raises_stops_the_recording_and_not_the_training(tmp_path: Path, home: Path) -> None:
    env = record(Shows(lambda step: draw(step, 96, 160) if step < 2 else 1 / 0), tmp_path / "v", **EPISODES)
    env.reset()
    env.step(0)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        env.step(0)
    env.step(0)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1]


def test_a_picture_that_cannot_be_recorded_is_left_out_with_one_warning(tmp_path: Path, home: Path) -> None:
    env = record(Shows(lambda step: draw(step, 96, 160).transpose(2, 0, 1)), tmp_path / "v", **EPISODES)
    with pytest.warns(RuntimeWarning, match="a frame's shape must be") as warned:
        play(env)
    assert len(warned) == 1
    env.close()
    assert not names(tmp_path / "v")


def test_frames_that_the_environment_captures_itself_belong_to_its_step(tmp_path: Path, home: Path) -> None:
    env = Filmed(length=4, render_mode="rgb_array")
    recorder = record(env, tmp_path / "v", **EPISODES)
    env.recorder = recorder
    play(recorder)
    recorder.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, *[k for k in range(1, 5) for _ in range(4)]]
    steps = [(step["frame"], step["frames"]) for step in told(home, "StepRecorded")]
    assert steps == [(4, 4), (8, 4), (12, 4), (16, 4)]


def test_render_gives_the_user_every_picture_once_where_they_are_collected(tmp_path: Path, home: Path) -> None:
    env = record(gym.wrappers.RenderCollection(bars()), tmp_path / "v", **EPISODES)
    play(env, length=2)
    seen: Any = env.render()
    env.step(0)
    seen += env.render()
    assert [shown(picture) for picture in seen] == [0, 1, 2, 3]
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3]


def test_a_collection_on_the_outside_has_every_picture(tmp_path: Path, home: Path) -> None:
    env = gym.wrappers.RenderCollection(record(bars(), tmp_path / "v", **EPISODES))
    play(env)
    collected: Any = env.render()
    assert [shown(picture) for picture in collected] == [0, 1, 2, 3, 4]
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


# Telemetry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("telemetry", "steps", "episodes"),
    [("captured", {1}, 3), ("all", {0, 1, 2}, 3), ("episodes", set(), 3), (False, set(), 0)],
)
def test_telemetry_says_what_is_told(
    tmp_path: Path, home: Path, telemetry: Any, steps: set[int], episodes: int
) -> None:
    env = record(bars(), tmp_path / "v", episode_trigger=lambda episode: episode == 1, telemetry=telemetry)
    play(env, 3)
    env.close()
    assert {step["episode"] for step in told(home, "StepRecorded")} == steps
    assert len(events(home, "StepRecorded")) == 4 * len(steps)
    ends = [
        (end["episode"], end["total_reward"], end["steps"], end["env_steps"]) for end in events(home, "EpisodeEnded")
    ]
    assert ends == [(0, 4.0, 4, 4), (1, 4.0, 4, 8), (2, 4.0, 4, 12)][:episodes]
    assert numbers(tmp_path / "v" / "rl-video-episode-1.mp4") == [0, 1, 2, 3, 4]


def test_the_sessions_start_says_what_is_trained(tmp_path: Path, home: Path) -> None:
    env = record(gym.make("CartPole-v1", render_mode="rgb_array"), tmp_path / "v", tags=["a", "b"])
    env.reset(seed=2**100)
    env.close()
    (session,) = told(home, "SessionStarted")
    assert (session["kind"], session["env_id"], session["tags"]) == ("script", "CartPole-v1", ["a", "b"])
    assert session["observation_space"]["shape"] == [4]
    assert session["configuration"]["name_prefix"] == "rl-video"
    assert {"gymnasium", "numpy", "python"} <= set(session["versions"])
    assert [start["seed"] for start in events(home, "EpisodeStarted")] == [str(2**100)]
    assert [end["outcome"] for end in events(home, "SessionEnded")] == ["finished"]


def test_the_trainings_own_step_is_told(tmp_path: Path, home: Path) -> None:
    videos: list[VideoAvailable] = []
    env = record(bars(), tmp_path / "v", **EPISODES, on_video=videos.append)
    env.set_step(1000)
    play(env)
    env.set_step(2000)
    play(env)
    env.close()
    assert sorted(video.training_step or 0 for video in videos) == [1000, 2000]
    assert [end["training_step"] for end in told(home, "EpisodeEnded")] == [2000 - 1000, 2000]


def test_on_video_is_called_once_for_each_video_and_may_raise(tmp_path: Path, home: Path) -> None:
    seen: list[VideoAvailable] = []

    def look(video: VideoAvailable) -> None:
        seen.append(video)
        raise LookupError("the user's own")

    env = record(bars(), tmp_path / "v", **EPISODES, on_video=look)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        play(env, 3)
        env.close()
    assert sum("LookupError" in str(each.message) for each in warned) == 3
    assert sorted(video.path for video in seen) == [str(tmp_path / "v" / f"rl-video-episode-{n}.mp4") for n in range(3)]
    assert {video.frames for video in seen} == {5}


def test_a_batch_behind_the_api_of_one_records_without_ends_and_rows(tmp_path: Path, home: Path) -> None:
    env = record(Batch(), tmp_path / "v", step_trigger=lambda step: step == 3, video_length=4)
    env.reset()
    for _ in range(12):
        env.step(0)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-step-3.mp4") == [4, 5, 6, 7, 8]
    assert not told(home, "StepRecorded", "RecorderFailed")


# What goes wrong -------------------------------------------------------------------------------------------------


def test_no_exception_of_ours_reaches_the_training(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = record(bars(), tmp_path / "v", **EPISODES)
    other = record(bars(), tmp_path / "w", **EPISODES)
    env.reset()
    env.step(0)
    with monkeypatch.context() as broken:
        broken.setattr(tape, "pack", lambda *_: 1 / 0)
        with pytest.warns(RuntimeWarning, match="recording is off for this environment"):
            env.step(0)
    assert not env.recording
    play(env, 2)
    play(other)
    env.close()
    other.close()
    assert [failed["error"] for failed in told(home, "RecorderFailed")] == ["ZeroDivisionError: division by zero"]
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1]
    assert numbers(tmp_path / "w" / "rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


def test_a_step_result_that_makes_no_sense_is_the_environments_own_affair(tmp_path: Path, home: Path) -> None:
    class Odd(Bars):
        def step(self, action: Any) -> Any:
            return "neither", "nor"

    for captured in (True, False):
        trigger = {"episode_trigger": lambda _, captured=captured: captured}
        env = record(Odd(render_mode="rgb_array"), tmp_path / f"{captured}", **trigger)
        env.reset()
        with pytest.warns(RuntimeWarning, match="recording is off"):
            assert env.step(0) == ("neither", "nor")
        assert env.step(0) == ("neither", "nor")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env.close()


def test_a_home_that_cannot_be_used_leaves_training_alone_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    env = record(bars(), tmp_path / "v", **EPISODES, home=tmp_path / "taken")
    with pytest.warns(RuntimeWarning, match="nothing is recorded") as warned:
        play(env, 3)
    assert len(warned) == 1
    assert not env.recording
    env.close()
    assert not names(tmp_path / "v")


def test_a_trigger_that_raises_is_the_users_own(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", episode_trigger=lambda episode: 1 // (1 - episode) > 0)
    play(env)
    with pytest.raises(ZeroDivisionError):
        env.reset()
    env.close()


def test_what_users_ask_for_meanwhile_is_taken_up(tmp_path: Path, home: Path) -> None:
    env = record(bars(), tmp_path / "v", episode_trigger=lambda _: False)
    play(env)
    wait_for_file(home / "spool")
    while not (found := [path for path in (home / "spool").iterdir() if not path.name.startswith(".")]):
        time.sleep(0.01)
    (found[0] / "control.json").write_text(json.dumps({"once": 5}))
    deadline = time.monotonic() + 30
    while not list((tmp_path / "v").iterdir()) and time.monotonic() < deadline:
        play(env)
        time.sleep(0.05)
    env.close()
    (video,) = told(home, "VideoAvailable")
    assert video["frames"] == 5


def test_two_homes_in_one_script(tmp_path: Path) -> None:
    with home_in(tmp_path / "a") as one, home_in(tmp_path / "b") as other:
        envs = [record(bars(), tmp_path / home.parent.name / "v", **EPISODES, home=home) for home in (one, other)]
        for env in envs:
            play(env)
        for env in envs:
            env.close()
        assert [len(events(home, "VideoAvailable")) for home in (one, other)] == [1, 1]
