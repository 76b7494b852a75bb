from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events
from tests.training.scripts import NOBODYS, OURS, Place, interrupt, numbers_in, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# Two whole episodes, and a third that is cut short after ten steps.
LOOP = """
import os, signal, sys
import gymnasium as gym
import bars
{the_import}
env = gym.make("Bars-v0", render_mode="rgb_array", length=30)
env = RecordVideo(env, "videos", episode_trigger=lambda episode: True)

def train():
    for episode in range(3):
        env.reset(seed=episode)
        for step in range(30 if episode < 2 else 10):
            env.step(0)
    print("trained", flush=True)
    {the_end}

{the_call}
"""

ENDS = {
    "close": ("env.close()", "train()"),
    "close, twice": ("env.close(); env.close()", "train()"),
    "return": ("return", "train()"),
    "last reference": ("return", "train(); del env"),
    "another environment": ("return", "train(); env = None; import gc; gc.collect(); env = gym.make('CartPole-v1')"),
    "exception": ("raise ValueError('a bug of the user')", "train()"),
    "exit code": ("sys.exit(3)", "train()"),
    "exit message": ("sys.exit('gave up')", "train()"),
    "interrupt": ("signal.raise_signal(signal.SIGINT)", "train()"),
    "in a thread": (
        "return",
        "import threading; thread = threading.Thread(target=train); thread.start(); thread.join()",
    ),
    "exception in a with block": ("raise ValueError('a bug of the user')", "with env: train()"),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_a_script_ends_it_ends_as_without_us_and_its_videos_stand(
    end: str, place: Place, tmp_path: Path
) -> None:
    the_end, the_call = ENDS[end]
    beside = Place(tmp_path / "without")
    script = LOOP.format(the_import=NOBODYS.strip(), the_end=the_end, the_call=the_call)
    without = beside.run(beside.write("train.py", script).name)
    assert without.out == "trained\n"

    script = LOOP.format(the_import=OURS.strip(), the_end=the_end, the_call=the_call)
    ended = place.run(place.write("train.py", script).name)
    names = place.video_names()  # at once: whoever looks into the folder when the script has ended finds them
    assert (ended.code, ended.out) == (without.code, without.out)
    assert without_progress(ended.err) == without_progress(without.err).replace(str(beside.folder), str(place.folder))
    assert names == [f"rl-video-episode-{episode}.mp4" for episode in range(3)]
    place.at_rest()
    videos = {event["first_episode"]: event for event in events(place.home, "VideoAvailable")}
    for episode, frames in enumerate([31, 31, 11]):
        assert numbers_in(place.home / videos[episode]["path"]) == list(range(frames))
        assert videos[episode]["complete"] == (episode < 2)
    assert [event["outcome"] for event in events(place.home, "EpisodeEnded")] == ["terminated", "terminated", "aborted"]
    (session,) = events(place.home, "SessionEnded")
    assert session["outcome"] in ("finished", "failed", "stopped")


def without_progress(err: str) -> str:
    """What stands in stderr but for the line that says what is waited for, where the machine is slow."""
    return re.sub(r"(?m)^.*waiting for.*\n", "", err)


UNTIL_INTERRUPTED = f"""
import os
import gymnasium as gym
import bars
{OURS}
env = gym.make("Bars-v0", render_mode="rgb_array", length=100, step_seconds=0.002)
env = RecordVideo(env, "videos", episode_trigger=lambda episode: True)
while True:
    env.reset()
    for step in range(100):
        env.step(0)
"""


def test_ctrl_c_in_the_terminal_ends_the_script_and_not_the_recorder_process(place: Place) -> None:
    with place.started(place.write("train.py", UNTIL_INTERRUPTED)) as process:
        wait_until(lambda: len(events(place.home, "EpisodeEnded")) >= 2, what="two episodes")
        interrupt(process)
        _, err = process.communicate(timeout=60)
    names = place.video_names()
    assert process.returncode == -2
    assert without_progress(err).rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1, err
    place.at_rest()
    videos = events(place.home, "VideoAvailable")
    assert names == sorted(f"rl-video-episode-{video['first_episode']}.mp4" for video in videos)
    assert len(videos) == len(events(place.home, "EpisodeStarted"))
    for video in videos:
        assert numbers_in(place.home / video["path"]) == list(range(video["frames"]))
    assert place.recorder_starts() == 1


IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def test_a_terminal_that_is_closed_ends_the_script_and_not_the_recorder_process(place: Place) -> None:
    terminal, end = os.openpty()
    login = place.write("login.py", IN_A_TERMINAL)
    with place.started(login, end, place.write("train.py", UNTIL_INTERRUPTED), pass_fds=[end]) as process:
        os.close(end)
        wait_until(lambda: len(events(place.home, "EpisodeEnded")) >= 2, what="two episodes")
        recorder = place.wait_for_recorder()
        os.close(terminal)
        assert process.wait(60) == -signal.SIGHUP
        assert place.recorder() == recorder
    place.at_rest()
    assert place.recorder_starts() == 1
    videos = events(place.home, "VideoAvailable")
    assert len(videos) == len(events(place.home, "EpisodeStarted"))
    assert place.video_names() == sorted(f"rl-video-episode-{video['first_episode']}.mp4" for video in videos)


def test_a_second_ctrl_c_ends_the_waiting_and_the_videos_are_made_all_the_same(place: Place) -> None:
    with place.started(place.write("train.py", UNTIL_INTERRUPTED)) as process:
        wait_until(lambda: len(events(place.home, "EpisodeEnded")) >= 2, what="two episodes")
        recorder = place.wait_for_recorder()
        os.kill(recorder, signal.SIGSTOP)
        interrupt(process)
        assert process.stderr is not None
        said = ""
        while "waiting for" not in said:  # it says so when it has waited for a second
            said = process.stderr.readline()
            assert said, "it has not waited"
        interrupt(process)
        process.communicate(timeout=60)
        assert process.returncode == -2
        os.kill(recorder, signal.SIGCONT)
    place.at_rest()
    videos = events(place.home, "VideoAvailable")
    assert place.video_names() == sorted(f"rl-video-episode-{video['first_episode']}.mp4" for video in videos)
    assert len(videos) == len(events(place.home, "EpisodeStarted"))
