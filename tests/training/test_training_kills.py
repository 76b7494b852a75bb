from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events
from tests.training.scripts import OURS, Place, numbers_in, wait_until

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = 150

# Each step notes its number and time in a side file before the next one begins: one unbuffered write, which a kill
# cannot take back.
FOREVER = f"""
import os, time
import gymnasium as gym
import bars
{OURS}
side = os.open("side", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
env = gym.make("Bars-v0", render_mode="rgb_array", length={LENGTH}, step_seconds=0.001)
env = RecordVideo(env, "videos", episode_trigger=lambda episode: True)
episode = 0
while True:
    env.reset(seed=episode)
    for step in range(1, {LENGTH} + 1):
        env.step(0)
        os.write(side, b"%d %d %.6f\\n" % (episode, step, time.time()))
    episode += 1
"""


def kill_at_some_moment(place: Place, seconds: float) -> list[tuple[int, int, float]]:
    """Kill the script so long after its first step: the steps that it took, as (episode, step, time)."""
    script = place.write("train.py", FOREVER)
    side = place.folder / "side"
    with place.started(script) as process:
        wait_until(lambda: side.exists() and side.stat().st_size, what="the first step")
        time.sleep(seconds)
        assert process.poll() is None, "it still steps when it is killed"
        process.kill()
    lines = [line.split() for line in side.read_text().splitlines()]
    return [(int(episode), int(step), float(when)) for episode, step, when in lines]


def check_what_is_left(place: Place, taken: list[tuple[int, int, float]]) -> float:
    """Check everything that must hold when a script was killed, and all is at rest: seconds of steps that are lost."""
    place.check_home()
    home = place.home
    recorded = [(event["episode"], event["step"]) for event in events(home, "StepRecorded")]
    all_steps = [(episode, step) for episode, step, _ in taken]
    # The last one may have been recorded and killed before it was noted.
    assert recorded == all_steps[: len(recorded)] or recorded[:-1] == all_steps, "a step is missing before the last"

    videos = {event["recording"]: event for event in events(home, "VideoAvailable")}
    assert sorted(place.video_names()) == sorted(f"rl-video-episode-{v['first_episode']}.mp4" for v in videos.values())
    ends = {event["episode"]: event for event in events(home, "EpisodeEnded")}
    assert sorted(ends) == [event["episode"] for event in events(home, "EpisodeStarted")]
    for video in videos.values():
        episode = video["first_episode"]
        numbers = numbers_in(home / video["path"])
        assert numbers == list(range(video["frames"])), "frame k is frame k"
        of_episode = [step for of, step in recorded if of == episode]
        assert len(numbers) > len(of_episode), "each step's frame is there"
        assert ends[episode]["steps"] == len(of_episode)
        assert ends[episode]["outcome"] == ("terminated" if len(of_episode) == LENGTH else "aborted")
        assert video["complete"] == (len(of_episode) == LENGTH), video
    assert {end["recording"] for end in ends.values()} == set(videos)
    assert [event["outcome"] for event in events(home, "SessionEnded")] == ["lost"]
    lost = [when for episode, step, when in taken if (episode, step) > (recorded[-1] if recorded else (-1, 0))]
    return lost[-1] - lost[0] if lost else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_script_has_all_its_videos_and_loses_its_last_moment_at_most(seed: int, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    try:
        taken = kill_at_some_moment(place, random.Random(seed).uniform(0, 1.5))
        wait_until(lambda: not place.processes(), what="the end of the recorder process")
        # 0.1 s is promised, and measured on a quiet machine
        assert check_what_is_left(place, taken) <= 0.5
    finally:
        place.clear()


def test_what_was_killed_together_with_its_recorder_process_is_finished_by_the_next_script(place: Place) -> None:
    script = place.write("train.py", FOREVER)
    with place.started(script) as process:
        wait_until(lambda: len(events(place.home, "EpisodeEnded")) >= 2, what="two episodes")
        place.clear()
        process.wait()
    wait_until(lambda: not place.processes(), what="the kill")
    with place.started(script) as process:
        wait_until(lambda: len(events(place.home, "SessionStarted")) == 2, what="the next session")
        process.kill()
    place.at_rest(60)
    # Both have begun with episode 0, and the later one's video has replaced the earlier one's.
    pruned = {event["recording"] for event in events(place.home, "VideoPruned")}
    standing = [video for video in events(place.home, "VideoAvailable") if video["recording"] not in pruned]
    assert sorted(f"rl-video-episode-{video['first_episode']}.mp4" for video in standing) == place.video_names()
    for video in standing:
        assert numbers_in(place.home / video["path"]) == list(range(video["frames"]))
    assert [event["outcome"] for event in events(place.home, "SessionEnded")] == ["lost", "lost"]
