"""RecordVideo against Gymnasium's own, call by call: the same files, counts and attributes."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import gymnasium.wrappers
import pytest

from plugins.recorder.wrappers import RecordVideo
from tests.end_to_end.homes import frames_of
from tests.environments.bars import Bars, shown
from tests.wrappers.homes import home_in
from tests.wrappers.test_record_video import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Theirs = gymnasium.wrappers.RecordVideo[Any, Any]
else:
    Theirs = gymnasium.wrappers.RecordVideo  # its type has two parameters or three, by its version


class Upstream(Theirs):
    """Gymnasium's, which notes what it would encode."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.videos: dict[str, int] = {}
        super().__init__(*arguments, **options)

    def stop_recording(self) -> None:
        assert self.recording
        if self.recorded_frames:
            self.videos[f"{self._video_name}.mp4"] = len(self.recorded_frames)
        self.recorded_frames = []
        self.recording = False
        self._video_name = None


def make(length: int, mode: str) -> gym.Env[Any, Any]:
    env = Bars(length=length, width=64, height=32, render_mode="rgb_array")
    return gym.wrappers.RenderCollection(env) if mode == "rgb_array_list" else env


TRIGGERS: dict[str, dict[str, Any]] = {
    "by default": {},
    "every second episode": {"episode_trigger": lambda episode: episode % 2 == 0},
    "every fifth step": {"step_trigger": lambda step: step % 5 == 0},
    "both": {"episode_trigger": lambda episode: episode % 3 == 1, "step_trigger": lambda step: step % 7 == 3},
    "never": {"episode_trigger": lambda _: False},
}


def state(env: Any) -> tuple[Any, ...]:
    return env.recording, env.episode_id, env.step_id, env._video_name, env.video_length


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with home_in(tmp_path_factory.mktemp("upstream")) as home:
        yield home


@pytest.mark.parametrize(
    ("trigger", "video_length", "mode"),
    [
        (trigger, video_length, ("rgb_array", "rgb_array_list")[(column + row) % 2])
        for column, trigger in enumerate(TRIGGERS)
        for row, video_length in enumerate((0, 1, 4, 25))
    ],
)
def test_every_call_leaves_the_same_attributes_and_the_same_files(
    tmp_path: Path, one_home: Path, trigger: str, video_length: int, mode: str
) -> None:
    """Resets, steps, renders and manual recordings in random order, also steps behind an episode's end."""
    chance = random.Random(f"{trigger} {video_length} {mode}")
    options: dict[str, Any] = {"video_length": video_length, "name_prefix": "p", **TRIGGERS[trigger]}
    theirs = Upstream(make(6, mode), str(tmp_path / "theirs"), **options)
    ours = RecordVideo(make(6, mode), str(tmp_path / "ours"), **options, wait=False, home=one_home)
    both: tuple[Any, Any] = (theirs, ours)

    def each(call: Callable[[Any], Any]) -> None:
        results = [call(env) for env in both]
        assert state(theirs) == state(ours)
        assert repr(results[0]) == repr(results[1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each(lambda env: env.reset(seed=1))
        for number in range(70):
            kind = chance.choices(["step", "reset", "render", "start", "stop"], [80, 12, 4, 2, 2])[0]
            if kind == "step":
                each(lambda env: env.step(0))
            elif kind == "reset":
                each(lambda env: env.reset())
            elif kind == "render":
                each(lambda env: env.render())
            elif kind == "start":
                each(lambda env, number=number: env.start_recording(f"by-hand-{number}"))  # type: ignore[misc] # a default
            elif ours.recording and theirs.recorded_frames:
                each(lambda env: env.stop_recording())
        each(lambda env: env.close())
    assert ours.flush(60)
    videos = {path.name: path for path in (tmp_path / "ours").iterdir()}
    assert sorted(videos) == sorted(theirs.videos)
    some = chance.sample(sorted(videos), min(3, len(videos)))
    assert {name: sum(1 for _ in frames_of(videos[name])) for name in some} == {
        name: theirs.videos[name] for name in some
    }


def test_frame_k_is_the_picture_after_step_k(tmp_path: Path, home: Path) -> None:
    env = record(Bars(length=50, render_mode="rgb_array"), tmp_path / "v", episode_trigger=lambda _: True)
    env.reset()
    while not env.step(0)[2]:
        pass
    env.close()
    assert [shown(picture) for picture in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")] == list(range(51))
