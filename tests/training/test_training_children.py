from __future__ import annotations

import os
import re
import signal

import pytest

from tests.end_to_end.homes import events
from tests.training.scripts import OURS, Place, numbers_in, wait_until

# 100 steps, with one of them for each reset: episodes 0, 1, 2 of 30 steps, and 3 cut short after 7.
EIGHT_CHILDREN = f"""
import sys
import gymnasium as gym
import numpy as np
import bars
{OURS}
def make():
    env = gym.make("Bars-v0", render_mode="rgb_array", length=30)
    return RecordVideo(env, "videos", episode_trigger=lambda episode: True)

if __name__ == "__main__":
    envs = gym.vector.AsyncVectorEnv([make] * 8, context=sys.argv[1])
    envs.reset(seed=1)
    for _ in range(100):
        envs.step(np.zeros(8, np.int64))
    envs.close()
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_eight_children_have_one_recorder_process_and_every_video(context: str, place: Place) -> None:
    ended = place.run(place.write("train.py", EIGHT_CHILDREN), context)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err, ended.err
    place.at_rest()

    names = place.video_names()
    groups: dict[str, set[int]] = {}
    for name in names:
        found = re.fullmatch(r"rl-video-(w\d+-)?episode-(\d+)\.mp4", name)
        assert found is not None, name
        groups.setdefault(found[1] or "", set()).add(int(found[2]))
    assert len(names) == 8 * 4
    assert groups.pop("") == {0, 1, 2, 3}
    assert len(groups) == 7
    assert all(episodes == {0, 1, 2, 3} for episodes in groups.values())

    videos = events(place.home, "VideoAvailable")
    assert len(videos) == 8 * 4
    assert {video["worker"] for video in videos} == set(range(8))
    for video in videos:
        assert numbers_in(place.home / video["path"]) == list(range(31 if video["first_episode"] < 3 else 8))
    assert len(events(place.home, "StepRecorded")) == 8 * (3 * 30 + 7)
    assert place.recorder_starts() == 1
    assert len(events(place.home, "SessionStarted")) == 1
    pids = {event["pid"] for event in events(place.home, "WorkerStarted")}
    assert len(pids) == 8


SLEEPING_CHILD = f"""
import os, time
import gymnasium as gym
import bars
{OURS}
env = gym.make("Bars-v0", render_mode="rgb_array", length=50, step_seconds=0.001)
env = RecordVideo(env, "videos", episode_trigger=lambda episode: True)
episode = 0
while True:
    env.reset(seed=episode)
    if episode == 2:
        child = os.fork()
        if not child:
            while True:
                time.sleep(1)
        print(child, flush=True)
    for _ in range(50):
        env.step(0)
    episode += 1
"""


def test_a_forked_child_that_sleeps_on_holds_up_nothing_when_its_parent_is_killed(place: Place) -> None:
    with place.started(place.write("train.py", SLEEPING_CHILD)) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        wait_until(lambda: len(events(place.home, "EpisodeEnded")) > 3, what="some episodes after the fork")
        process.kill()
        process.wait()
        wait_until(lambda: {found.pid for found in place.processes()} == {child}, what="the recorder process's end")
        os.kill(child, signal.SIGKILL)
    place.check_home()
    videos = events(place.home, "VideoAvailable")
    assert place.video_names() == sorted(f"rl-video-episode-{video['first_episode']}.mp4" for video in videos)
    assert [video["complete"] for video in videos].count(False) <= 1
    for video in videos:
        assert numbers_in(place.home / video["path"]) == list(range(video["frames"]))
        assert video["frames"] == 51 or not video["complete"]
    assert [event["outcome"] for event in events(place.home, "SessionEnded")] == ["lost"]
