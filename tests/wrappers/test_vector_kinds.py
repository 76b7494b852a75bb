"""RecordVideoVector on every kind of vector environment, and for scripts that are not as they should be."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorWrapper

from plugins.recorder.apart import Rows
from plugins.recorder.vector import AutoresetMode, RecordVideoVector
from tests.end_to_end.homes import frames_of
from tests.environments.bars import draw
from tests.wrappers.vector_envs import MODES, Pictures, cells, play, told, vector

if TYPE_CHECKING:
    from pathlib import Path

LENGTHS = [(3, 6, 4), (5, 2, 9), (7,)]
SECOND: dict[str, Any] = {"episode_trigger": lambda episode: episode == 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*autoreset mode is same-step")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_processes_are_recorded_like_a_loop(tmp_path: Path, home: Path, mode: str) -> None:
    """AsyncVectorEnv and SyncVectorEnv give the same pictures and the same rows."""
    pictures = []
    for asynchronous in (False, True):
        folder = tmp_path / str(asynchronous)
        env = RecordVideoVector(vector(LENGTHS, mode, asynchronous=asynchronous), folder, **SECOND, telemetry="all")
        play(env, 16, seed=3)
        env.close(**({"timeout": 5} if asynchronous else {}))
        pictures.append([cells(picture, env.frame_cols, 3) for picture in frames_of(folder / "rl-video-episode-1.mp4")])
    stories: list[list[tuple[Any, ...]]] = [[], []]
    for event in told(home, "EpisodeStarted", "StepRecorded", "EpisodeEnded"):
        which, worker = divmod(event["worker"], 3)
        words = ("type", "episode", "step", "observation", "info", "action", "frame", "first_frame", "total_reward")
        stories[which].append((worker, *(event.get(word) for word in words)))
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) >= 6
    assert stories[0] == stories[1]


@pytest.mark.parametrize("kind", ["sync", "async", "vector_entry_point"])
@pytest.mark.parametrize("per_env", [False, True])
def test_what_make_vec_makes_is_recorded(tmp_path: Path, home: Path, kind: Any, *, per_env: bool) -> None:
    inner = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode=kind, render_mode="rgb_array")
    inner = gym.wrappers.vector.RecordEpisodeStatistics(inner)
    env = RecordVideoVector(inner, tmp_path / "v", per_env=per_env, telemetry="all")
    env.reset(seed=1)
    for _ in range(20):
        env.step(np.ones(2, np.int64))  # to the right, until it falls
    env.close()
    expected = ["rl-video-env0-episode-0.mp4", "rl-video-env0-episode-1.mp4"] if per_env else ["rl-video-episode-0.mp4"]
    assert set(expected) <= set(names(tmp_path / "v"))
    lengths = [
        (event["steps"], event["total_reward"])
        for event in told(home, "EpisodeEnded")
        if event["worker"] == 0 and event["episode"] == 0
    ]
    frames = list(frames_of(tmp_path / "v" / expected[0]))
    assert lengths == [(len(frames) - 1, len(frames) - 1)]
    assert frames[0].shape[:2] == ((400, 600) if per_env else (400, 1200))
    assert {event["env_id"] for event in told(home, "WorkerStarted")} == {"CartPole-v1"}


def test_results_are_handed_on_as_they_are(tmp_path: Path, home: Path) -> None:
    class Marked(VectorWrapper):  # Gymnasium 1.0's takes no type arguments
        def reset(self, **options: Any) -> Any:
            self.result: Any = super().reset(**options)
            return self.result

        def step(self, actions: Any) -> Any:
            self.result = super().step(actions)
            return self.result

    inner = Marked(vector(LENGTHS))
    for per_env in (False, True):
        env = RecordVideoVector(inner, tmp_path / str(per_env), **SECOND, per_env=per_env)
        assert env.reset() is inner.result
        for _ in range(12):
            assert env.step(np.zeros(3, np.int64)) is inner.result
    env.close()


def test_it_is_a_vector_wrapper_that_says_how_it_was_made(tmp_path: Path) -> None:
    inner = vector(LENGTHS)
    env: Any = RecordVideoVector(inner, str(tmp_path / "v"), (16, 9), True, None, None, 7, "p", 12)
    assert all(isinstance(env, base) for base in (VectorWrapper, gym.utils.RecordConstructorArgs))
    assert env.unwrapped is inner
    assert (env.video_length, env.name_prefix, env.frames_per_sec) == (7, "p", 12)
    assert env.video_aspect_ratio == (16, 9)
    assert env.record_first_only is True
    assert env.episode_trigger is not None
    assert env._saved_kwargs["name_prefix"] == "p"
    assert env.recorded_frames == env.render_history == []


def test_nothing_but_the_video_folder_exists_before_the_first_reset(tmp_path: Path, home: Path) -> None:
    for per_env in (False, True):
        env = RecordVideoVector(vector(LENGTHS), tmp_path / f"videos-{per_env}", per_env=per_env)
        env.close()
        env.close()
    assert names(tmp_path) == ["videos-False", "videos-True"]


def test_a_second_close_is_harmless_and_what_was_open_is_sealed(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v")
    play(env, 2)
    env.close()
    env.close()
    assert names(tmp_path / "v") == ["rl-video-episode-0.mp4"]
    (video,) = told(home, "VideoAvailable")
    assert (video["complete"], video["frames"]) == (False, 3)


@pytest.mark.parametrize("per_env", [False, True])
def test_who_lets_go_of_it_loses_no_video(tmp_path: Path, home: Path, *, per_env: bool) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", per_env=per_env)
    play(env, 2)
    del env
    gc.collect()
    told(home)
    assert len(names(tmp_path / "v")) == (3 if per_env else 1)


# Warnings and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "human", "ansi"])
def test_a_render_mode_without_pictures_is_refused(tmp_path: Path, mode: str | None) -> None:
    inner = vector(LENGTHS)
    inner.render_mode = mode
    with pytest.raises(ValueError, match="such as rgb_array"):
        RecordVideoVector(inner, tmp_path / "videos")
    gc.collect()  # the half-built wrapper goes in silence: warnings are errors here
    assert not (tmp_path / "videos").exists()
    RecordVideoVector.__new__(RecordVideoVector).__del__()


@pytest.mark.parametrize("indices", [[], [3], [-1], [0, 0]])
def test_indices_of_nobody_are_refused(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 2, each once"):
        RecordVideoVector(vector(LENGTHS), tmp_path / "v", indices=indices)


@pytest.mark.skipif(len(MODES) == 1, reason="Gymnasium 1.0 says nothing of the modes")
def test_an_environment_that_does_not_say_how_it_resets_is_warned_about_and_resets_at_the_next_step(
    tmp_path: Path,
) -> None:
    inner = vector(LENGTHS)
    del inner.metadata["autoreset_mode"]
    with pytest.warns(UserWarning, match="doesn't specify its autoreset mode"):
        env = RecordVideoVector(inner, tmp_path / "v")
    assert env.autoreset_mode == AutoresetMode.NEXT_STEP


@pytest.mark.skipif(len(MODES) == 1, reason="Gymnasium 1.0 has one mode")
def test_the_missing_last_picture_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="will not contain the last frame"):
        RecordVideoVector(vector(LENGTHS, "SAME_STEP"), tmp_path / "v")


@pytest.mark.parametrize("per_env", [False, True])
def test_a_home_that_cannot_be_written_costs_one_warning(tmp_path: Path, *, per_env: bool) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", per_env=per_env, home=blocked)
    with pytest.warns(RuntimeWarning, match="nothing is recorded, and the training goes on") as caught:
        play(env, 20)
    assert len(caught) == 1
    assert (env.episode_id, env.step_id) == (3, 19)
    assert not env.recording
    env.close()


class Broken:
    """A piece of ours that fails."""

    def __init__(self, *_: Any) -> None:
        raise ZeroDivisionError("ours")


@pytest.mark.parametrize("per_env", [False, True])
@pytest.mark.parametrize("where", ["vector", "of_info", "of"])
def test_no_exception_of_ours_reaches_the_training(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, where: str, *, per_env: bool
) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", per_env=per_env, telemetry="all", wait=False)
    env.reset()
    monkeypatch.setattr(Rows, where, lambda *_: Broken())
    with pytest.warns(RuntimeWarning, match="recording is off for this environment"):
        env.step(np.zeros(3, np.int64))
    for _ in range(19):
        env.step(np.zeros(3, np.int64))
    assert (env.episode_id, env.step_id, env.recording) == (3, 19, False)
    env.close()
    monkeypatch.undo()
    assert env.flush(60)
    with pytest.raises(AssertionError, match="RecorderFailed"):
        told(home)


def test_results_that_are_none_of_a_vector_environment_turn_it_off(tmp_path: Path, home: Path) -> None:
    inner: Any = Pictures(lambda step: draw(step, 96, 160))
    env = RecordVideoVector(inner, tmp_path / "v", wait=False)
    env.reset()
    odd = (None, None, None, None, None)
    inner.step = lambda _: odd  # an environment that is not as it should be
    with pytest.warns(RuntimeWarning, match="recording is off"):
        assert env.step(None) is odd
    assert env.step(None) is odd
    env.close()


def test_an_episode_that_is_over_is_sealed_without_another_step(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector([(3,), (9,)]), tmp_path / "v")
    play(env, 3)
    assert env.flush(60)
    while env.recording:
        pass
    assert env.flush(60)
    while not names(tmp_path / "v"):
        pass
    play_on = env.step(np.zeros(2, np.int64))
    assert play_on[0][0].tolist() == [0, 1, 0]
    env.close()
    videos = {video["path"].rpartition("/")[2]: video for video in told(home, "VideoAvailable")}
    assert videos["rl-video-episode-0.mp4"]["complete"]
    assert videos["rl-video-episode-0.mp4"]["frames"] == 4


def test_a_forked_child_leaves_the_parents_recording_alone(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v")
    play(env, 1)
    child = os.fork()
    if not child:
        try:
            assert not env.recording
            env.step(np.zeros(3, np.int64))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    env.step(np.zeros(3, np.int64))
    env.step(np.zeros(3, np.int64))
    env.close()
    assert [len(list(frames_of(path))) for path in (tmp_path / "v").iterdir()] == [4]
    told(home)


@pytest.mark.parametrize("per_env", [False, True])
def test_a_copy_records_nothing_until_its_own_reset(tmp_path: Path, home: Path, *, per_env: bool) -> None:
    env = RecordVideoVector(vector(LENGTHS), tmp_path / "v", per_env=per_env)
    play(env, 1)
    other = copy.deepcopy(env)
    other.step(np.zeros(3, np.int64))
    assert not other.recording
    env.step(np.zeros(3, np.int64))
    env.close()
    assert [len(list(frames_of(path))) for path in (tmp_path / "v").iterdir()] == [3] * (3 if per_env else 1)
    other.episode_id = 7
    other.episode_trigger = lambda _: True
    play(other, 1)
    other.close()
    assert len(names(tmp_path / "v")) > 1
    told(home)


def test_the_modes_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(AutoresetMode.NEXT_STEP)) is AutoresetMode.NEXT_STEP  # noqa: S301 - our own
