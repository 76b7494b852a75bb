from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events
from tests.training.scripts import OURS, Place, numbers_in, wait_until, warnings_in

if TYPE_CHECKING:
    from collections.abc import Callable

# It begins, waits until the file "go" is there, and goes on: so two of them overlap however slow the machine is.
SCRIPT = f"""
import sys, time
from pathlib import Path
import gymnasium as gym
import bars
{OURS}
prefix = sys.argv[1]
env = gym.make("Bars-v0", render_mode="rgb_array", length=40)
env = RecordVideo(env, "videos", episode_trigger=lambda episode: True, name_prefix=prefix)
for episode in range(4):
    env.reset(seed=episode)
    for step in range(40):
        env.step(0)
    if episode == 1:
        Path(prefix + "-is-half-way").touch()
        while not Path("go").exists():
            time.sleep(0.001)
env.close()
print("trained")
"""

CONFIG = """
home = "{home}"
[plugins.collector]
use = "plugins.collector:Collector"
[plugins.encoder]
use = "plugins.encoder_pool:EncoderPool"
[plugins.sqlite]
use = "plugins.sqlite_sink:SqliteSink"
"""


def half_way(place: Place, prefix: str) -> None:
    wait_until((place.folder / f"{prefix}-is-half-way").exists, what=f"{prefix} to be half way")


def go_on(place: Place) -> None:
    (place.folder / "go").touch()


def check_videos(place: Place, *prefixes: str) -> None:
    assert place.video_names() == sorted(
        f"{prefix}-episode-{episode}.mp4" for prefix in prefixes for episode in range(4)
    )
    for video in place.videos.iterdir():
        assert numbers_in(video) == list(range(41)), video.name


def test_two_scripts_at_once_share_a_home_and_one_recorder_process(place: Place) -> None:
    script = place.write("train.py", SCRIPT)
    with place.started(script, "one") as one, place.started(script, "two") as two:
        half_way(place, "one")
        half_way(place, "two")
        go_on(place)
        for process in (one, two):
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out) == (0, "trained\n"), err
            assert not warnings_in(err)
    check_videos(place, "one", "two")
    place.at_rest()
    assert len(events(place.home, "SessionStarted")) == 2
    assert place.recorder_starts() == 1


def test_a_script_beside_a_running_kernel_starts_no_recorder_process(place: Place) -> None:
    config = place.write("config.toml", CONFIG.format(home=place.home))
    script = place.write("train.py", SCRIPT)
    with place.started("-m", "kernel", config) as kernel:
        assert place.wait_for_recorder() == kernel.pid
        with place.started(script, "one") as process:
            half_way(place, "one")
            assert place.recorder() == kernel.pid
            assert {found.pid for found in place.processes()} >= {kernel.pid, process.pid}
            go_on(place)
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out) == (0, "trained\n"), err
        check_videos(place, "one")
        wait_until(lambda: events(place.home, "SessionEnded"), what="the session's end")
        assert kernel.poll() is None, "the kernel runs on when the script has gone"
        kernel.send_signal(signal.SIGINT)
        kernel.communicate(timeout=60)
        assert kernel.returncode == 0
    place.at_rest()
    assert place.recorder_starts() == 1


def test_a_kernel_that_is_started_later_takes_the_home_over(place: Place) -> None:
    config = place.write("config.toml", CONFIG.format(home=place.home))
    script = place.write("train.py", SCRIPT)
    with place.started(script, "one") as process:
        half_way(place, "one")
        recorder = place.wait_for_recorder()
        assert recorder != process.pid
        with place.started("-m", "kernel", config) as kernel:
            wait_until(lambda: place.recorder() == kernel.pid, what="the kernel to own the home")
            go_on(place)
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out) == (0, "trained\n"), err
            assert not warnings_in(err)
            check_videos(place, "one")
            wait_until(lambda: events(place.home, "SessionEnded"), what="the session's end")
            assert place.recorder() == kernel.pid
            kernel.send_signal(signal.SIGINT)
            kernel.communicate(timeout=60)
            assert kernel.returncode == 0
    place.at_rest()
    assert place.recorder_starts() == 2


def test_the_next_script_on_a_home_goes_on_where_the_last_one_left_it(place: Place) -> None:
    script = place.write("train.py", SCRIPT)
    go_on(place)
    for prefix in ("one", "two"):
        assert place.run(script, prefix).code == 0
    check_videos(place, "one", "two")
    place.at_rest()
    assert len(events(place.home, "SessionStarted")) == 2


def a_file(folder: Path) -> Path:
    (folder / "home").write_text("mine")
    return folder / "home"


def beneath_a_file(folder: Path) -> Path:
    return a_file(folder) / "home"


def in_a_folder_that_may_not_be_written(folder: Path) -> Path:
    if os.getuid() == 0:
        return Path("/sys/home")  # where not even root may
    (folder / "sealed").mkdir(mode=0o500)
    return folder / "sealed" / "home"


@pytest.mark.parametrize("where", [a_file, beneath_a_file, in_a_folder_that_may_not_be_written])
def test_where_the_home_cannot_be_written_training_runs_with_one_warning(
    where: Callable[[Path], Path], place: Place
) -> None:
    home = where(place.folder)
    go_on(place)
    ended = place.run(place.write("train.py", SCRIPT), "one", STEPREEL_HOME=str(home))
    assert (ended.code, ended.out) == (0, "trained\n"), ended.err
    assert len(warnings_in(ended.err)) == 1, ended.err
    assert str(home) in warnings_in(ended.err)[0]
    assert "Traceback" not in ended.err
    assert place.video_names() == []
    wait_until(lambda: not place.processes(), what="the end of all processes")


def test_a_recorder_process_that_is_killed_costs_one_warning_and_no_video(place: Place) -> None:
    script = place.write("train.py", SCRIPT)
    with place.started(script, "one") as process:
        half_way(place, "one")
        killed = place.wait_for_recorder()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: place.recorder() != killed, what="the recorder process's end")
        go_on(place)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "trained\n"), err
        assert len(warnings_in(err)) == 1, err
    # Whoever works on this home next finishes the work, if the script itself has not seen to it.
    assert place.run(script, "two").code == 0
    check_videos(place, "one", "two")
    place.at_rest()
