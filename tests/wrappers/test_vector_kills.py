"""A script that is killed in the midst of a vector environment's episodes leaves whole videos, and an end of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.homes import events, frames_of
from tests.training.scripts import Place, wait_until
from tests.wrappers.vector_envs import Seen, cells, seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = """
import os, sys, time
import numpy as np
sys.path.insert(0, {root!r})
from stepreel import RecordVideoVector
from tests.wrappers.vector_envs import vector

side = os.open("side", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
envs = RecordVideoVector(vector([(40,), (25,), (30,)]), "videos", (3, 1), per_env={per_env}, telemetry="all")
envs.reset()
while True:
    envs.step(np.zeros(3, np.int64))
    os.write(side, b"step\\n")
    time.sleep(0.005)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "run")
    yield place
    place.clear()


@pytest.mark.parametrize("per_env", [False, True])
def test_every_episode_ends_and_every_video_shows_what_its_steps_say(place: Place, *, per_env: bool) -> None:
    root = __file__.rpartition("/tests/")[0]
    script = place.write("train.py", SCRIPT.format(root=root, per_env=per_env))
    side = place.folder / "side"
    with place.started(script) as process:
        wait_until(lambda: side.exists() and side.stat().st_size > 5 * 33, what="33 steps")
        time.sleep(0.2)
        process.kill()
    steps = len(side.read_text().splitlines())
    place.at_rest()
    home = place.home
    starts, ends = events(home, "EpisodeStarted"), events(home, "EpisodeEnded")
    assert sorted((one["worker"], one["episode"]) for one in starts) == sorted(
        (e["worker"], e["episode"]) for e in ends
    )
    assert {end["worker"] for end in ends if end["outcome"] == "aborted"} <= {0, 1, 2}
    lost = events(home, "WorkerEnded")
    assert {event["worker"]: event["outcome"] for event in lost} == dict.fromkeys(range(3), "lost")
    rows = events(home, "StepRecorded")
    taken = len(rows) + sum(one["episode"] > 0 for one in starts)  # with each reset's own step
    assert 3 * (steps - 40) <= taken <= 3 * (steps + 1)  # at most the last 100 ms are lost, on an idle machine
    videos = {event["recording"]: event for event in events(home, "VideoAvailable")}
    pictures = {
        recording: [
            cells(frame, 3, 3) if not per_env else seen(frame) for frame in frames_of(place.home / video["path"])
        ]
        for recording, video in videos.items()
    }
    named = {(one["worker"], one["episode"]): one["recording"] for one in starts}
    in_video = 0
    for row in rows:
        if row.get("frame") is None:
            continue
        worker = row["worker"]
        shown = pictures[row.get("recording") or named[worker, row["episode"]]]
        if row["frame"] < len(shown):  # the kill may have taken a frame and left its step
            picture = shown[row["frame"]]
            assert (picture if per_env else picture[worker]) == Seen(worker, row["episode"], row["step"])
            in_video += 1
    assert in_video > 60
