from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events
from tests.training.scripts import OURS, PPO, UPSTREAMS, Place, numbers_in

if TYPE_CHECKING:
    from pathlib import Path

# 256 steps of each of two environments, whose episodes take 20 steps and the step that resets: 12 episodes.
FEW_STEPS = ("--capture-video", "--env-id=bars:Bars-v0", "--total-timesteps=512", "--num-envs=2", "--num-steps=64")
IMPORTED = PPO.read_text()
ATTRIBUTE = IMPORTED.replace(UPSTREAMS, "").replace("= RecordVideo(", "= gym.wrappers.RecordVideo(")


def test_the_script_learns(place: Place) -> None:
    ended = place.run(PPO, "--seed", 1)
    assert ended.code == 0, ended.err
    returns = [float(line) for line in re.findall(r"episodic_return=(\S+)", ended.out)]
    assert sum(returns[:20]) / 20 < 50
    assert sum(returns[-20:]) / 20 > 150


@pytest.mark.parametrize(
    ("script", "command"),
    [
        (IMPORTED.replace(UPSTREAMS, OURS), ()),
        (IMPORTED, ("-m", "kernel", "exec")),
        (ATTRIBUTE, ("-m", "kernel", "exec")),
    ],
    ids=["one import", "exec, imported", "exec, attribute"],
)
def test_a_ppo_script_has_the_same_files_and_output_with_upstreams_wrapper_and_with_ours(
    script: str, command: tuple[str, ...], place: Place, tmp_path: Path
) -> None:
    assert script != IMPORTED or command
    beside = Place(tmp_path / "upstream")
    beside.write("ppo.py", IMPORTED)
    upstream = beside.run("ppo.py", *FEW_STEPS)
    assert upstream.code == 0, upstream.err
    assert not beside.home.exists(), "the other run is really upstream's"

    place.write("ppo.py", script)
    ours = place.run(*command, "ppo.py", *FEW_STEPS)
    assert ours.code == 0, ours.err
    assert place.video_names() == beside.video_names() == [f"rl-video-episode-{episode}.mp4" for episode in (0, 1, 8)]
    assert [path.name for path in place.videos.iterdir()] == [path.name for path in beside.videos.iterdir()]
    for video in place.videos.rglob("*.mp4"):
        assert numbers_in(video) == list(range(21)), video.name
    returns = [re.findall(r"global_step=.*", run.out) for run in (upstream, ours)]
    assert returns[0] == returns[1], "training goes the same way"
    assert not re.search("Traceback|RuntimeWarning", ours.err)

    place.at_rest()
    assert len(events(place.home, "VideoAvailable")) == 3
    (begun,) = events(place.home, "SessionStarted")
    assert begun["kind"] == "script"
    assert [event["outcome"] for event in events(place.home, "SessionEnded")] == ["finished"]
