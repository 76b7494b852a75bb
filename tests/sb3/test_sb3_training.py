"""Stable-Baselines3's PPO, in scripts of its own: with its VecVideoRecorder and ours, and with RecordVideo inside."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events, frames_of, rows
from tests.training.scripts import Place, numbers_in

if TYPE_CHECKING:
    from pathlib import Path

# 128 steps of each of two environments: videos from steps 0 and 50, and one that is cut short by the close.
THEIRS = """
import sys
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecVideoRecorder

if __name__ == "__main__":
    torch.set_num_threads(1)
    how = sys.argv[1]
    env = make_vec_env(
        "CartPole-v1", n_envs=2, seed=3,
        vec_env_cls=DummyVecEnv if how == "dummy" else SubprocVecEnv,
        vec_env_kwargs=None if how == "dummy" else {"start_method": how},
    )
    env = VecVideoRecorder(env, "videos", record_video_trigger=lambda step: step % 50 == 0, video_length=40)
    model = PPO("MlpPolicy", env, seed=1, n_steps=64, n_epochs=2, device="cpu")
    model.learn(256)
    print("weights", sum(float(weights.sum()) for weights in model.policy.parameters()))
    if "leave" not in sys.argv:
        env.close()
"""
OURS = THEIRS.replace(", VecVideoRecorder\n", "\nfrom stepreel import VecVideoRecorder\n")
NAMES = {"rl-video-step-0-to-step-40.mp4": 41, "rl-video-step-50-to-step-90.mp4": 41}
CUT_SHORT = {"rl-video-step-100-to-step-140.mp4": 29}


def frames_in(place: Place) -> dict[str, int]:
    return {name: sum(1 for _ in frames_of(place.videos / name)) for name in place.video_names()}


def check_rows(place: Place) -> None:
    """Rows for both environments, whose frames are in the videos."""
    database = place.home
    assert rows(database, "SELECT kind, env_id, outcome FROM sessions") == [("script", "CartPole-v1", "finished")]
    counted = dict(rows(database, "SELECT worker, sum(steps) FROM episodes GROUP BY worker"))
    assert counted == {0: 128, 1: 128}
    assert rows(database, "SELECT DISTINCT seed FROM episodes WHERE episode = 0 ORDER BY worker") == [("1",), ("2",)]
    for worker in (0, 1):
        shown = rows(
            database,
            "SELECT path, count(DISTINCT frame), min(frame), max(frame) FROM steps "
            f"JOIN videos ON videos.id = video_id WHERE steps.worker = {worker} AND frame IS NOT NULL "
            "GROUP BY path ORDER BY videos.id",
        )
        assert shown == [
            (str(place.videos / "rl-video-step-0-to-step-40.mp4"), 40, 1, 40),
            (str(place.videos / "rl-video-step-50-to-step-90.mp4"), 41, 0, 40),
            (str(place.videos / "rl-video-step-100-to-step-140.mp4"), 29, 0, 28),
        ]
    returns = rows(database, "SELECT total_reward, steps FROM episodes WHERE outcome = 'terminated'")
    assert returns
    assert all(total == steps for total, steps in returns)


@pytest.mark.parametrize(
    ("script", "command"), [(OURS, ()), (THEIRS, ("-m", "kernel", "exec"))], ids=["one import", "exec"]
)
def test_ppo_learns_the_same_and_has_the_same_files_as_with_their_recorder(
    script: str, command: tuple[str, ...], place: Place, tmp_path: Path
) -> None:
    beside = Place(tmp_path / "theirs")
    theirs = beside.run(beside.write("train.py", THEIRS).name, "dummy")
    assert theirs.code == 0, theirs.err
    assert not beside.home.exists(), "the other run is really theirs"
    ours = place.run(*command, place.write("train.py", script).name, "dummy")
    assert ours.code == 0, ours.err
    assert "RuntimeWarning" not in ours.err
    said = [re.findall(r"^(?:weights|Saving).*", run.out, re.MULTILINE) for run in (theirs, ours)]
    assert said[1] == [line.replace(str(beside.folder), str(place.folder)) for line in said[0]]
    assert len(said[0]) == 3
    assert frames_in(place) == frames_in(beside) == NAMES | CUT_SHORT
    place.at_rest()
    check_rows(place)


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
def test_ppo_on_environments_in_processes_of_their_own_has_the_same_videos_and_rows(
    start_method: str, place: Place
) -> None:
    ended = place.run(place.write("train.py", OURS).name, start_method)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert frames_in(place) == NAMES | CUT_SHORT
    place.at_rest()
    check_rows(place)
    assert place.recorder_starts() == 1


@pytest.mark.parametrize("how", ["dummy", "fork"])
def test_a_script_that_does_not_close_has_its_videos_when_it_has_ended(how: str, place: Place) -> None:
    """With Bars: a child that renders by pygame does not heed SIGTERM, with or without us, and holds up its script."""
    script = OURS.replace("CartPole-v1", "bars:Bars-v0")
    ended = place.run(place.write("train.py", script).name, how, "leave")
    assert ended.code == 0, ended.err
    assert frames_in(place) == NAMES | CUT_SHORT
    place.at_rest()
    assert rows(place.home, "SELECT outcome FROM sessions") == [("finished",)]
    assert rows(place.home, "SELECT worker, sum(steps) FROM episodes GROUP BY worker") == [(0, 128), (1, 128)]


# Each environment has a recorder of its own, in the process that steps it. Episodes of 20 steps; PPO has 64 of each.
INSIDE = """
import sys
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from stepreel import RecordVideo

if __name__ == "__main__":
    torch.set_num_threads(1)
    how = sys.argv[1]
    env = make_vec_env(
        "bars:Bars-v0", n_envs=4, seed=3,
        wrapper_class=RecordVideo,
        wrapper_kwargs={"video_folder": "videos", "episode_trigger": lambda episode: episode in (0, 2)},
        vec_env_cls=DummyVecEnv if how == "dummy" else SubprocVecEnv,
        vec_env_kwargs=None if how == "dummy" else {"start_method": how},
    )
    model = PPO("MlpPolicy", env, seed=1, n_steps=64, n_epochs=1, device="cpu")
    model.learn(256)
    if "leave" not in sys.argv:
        env.close()
"""


@pytest.mark.parametrize("how", ["dummy", "fork", "forkserver", "spawn"])
def test_record_video_inside_a_made_vec_env_has_every_video_and_one_recorder_process(how: str, place: Place) -> None:
    ended = place.run(place.write("train.py", INSIDE).name, how)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    names = place.video_names()
    place.at_rest()
    numbered = Counter(re.sub(r"episode-\d+", "episode-N", name) for name in names)
    assert numbered.pop("rl-video-episode-N.mp4") == 2
    assert list(numbered.values()) == [2, 2, 2]
    videos = events(place.home, "VideoAvailable")
    assert sorted((video["worker"], video["first_episode"]) for video in videos) == [
        (worker, episode) for worker in range(4) for episode in (0, 2)
    ]
    assert all(numbers_in(place.home / video["path"]) == list(range(21)) for video in videos)
    assert place.recorder_starts() == 1
    assert rows(place.home, "SELECT outcome FROM sessions") == [("finished",)]
    assert rows(place.home, "SELECT worker, sum(steps), count(video_path) FROM episodes GROUP BY worker") == [
        (worker, 64, 2) for worker in range(4)
    ]
    assert rows(place.home, "SELECT count(*) FROM steps") == [(4 * 2 * 20,)]
    pids = {event["pid"] for event in events(place.home, "WorkerStarted")}
    assert len(pids) == (1 if how == "dummy" else 4)


@pytest.mark.parametrize("how", ["fork", "forkserver"])
def test_children_that_are_ended_with_their_script_leave_their_videos_to_the_recorder_process(
    how: str, place: Place
) -> None:
    """Stable-Baselines3's are daemons, which Python kills at the script's end where nobody closed the environment."""
    ended = place.run(place.write("train.py", INSIDE).name, how, "leave")
    assert ended.code == 0, ended.err
    place.at_rest()
    videos = events(place.home, "VideoAvailable")
    assert sorted((video["worker"], video["first_episode"]) for video in videos) == [
        (worker, episode) for worker in range(4) for episode in (0, 2)
    ]
    for video in videos:
        shown = numbers_in(place.home / video["path"])
        assert shown == list(range(len(shown)))  # a killed child loses its last moment
        assert len(shown) == 21 or not video["complete"]
