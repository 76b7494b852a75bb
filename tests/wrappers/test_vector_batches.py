"""Batches of environments behind the API of one, as Isaac Lab has it: `RecordVideo(…, indices=[…])`."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from plugins.recorder.wrappers import RecordVideo
from tests.end_to_end.homes import frames_of
from tests.environments.bars import Bars, draw, shown
from tests.wrappers.vector_envs import told

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 6


class Tensor:
    """A vector of a library like PyTorch, on a device: to be indexed there, and brought to the host before use."""

    brought: list[int]
    """How many numbers each copy to the host had."""

    def __init__(self, array: Any) -> None:
        self._array = np.asarray(array)
        self.shape = self._array.shape
        self.ndim = self._array.ndim

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert device type tensor to numpy; use .cpu() first")

    def __getitem__(self, which: Any) -> Tensor:
        return Tensor(self._array[which])

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        Tensor.brought.append(self._array.size)
        return self

    def numpy(self) -> Any:
        return self._array


class Lab(gym.Env[Any, Any]):
    """Environment i's episodes last 3 + i steps; the step that ends one returns the next one's first observation."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    render_mode = "rgb_array"
    num_envs = COUNT
    action_space = spaces.Box(-1, 1, (COUNT, 2))
    observation_space = spaces.Dict({"policy": spaces.Box(-np.inf, np.inf, (COUNT, 2))})

    def __init__(self, array: Any = np.asarray) -> None:
        self._array = array
        self._steps = np.zeros(COUNT, np.int64)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._steps[:] = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self._step += 1
        self._steps += 1
        over = self._steps == 3 + np.arange(COUNT)
        terminated = over & (np.arange(COUNT) % 2 == 0)
        rewards = self._steps.astype(np.float32)
        self._steps[over] = 0
        info = {"time_outs": self._array(over & ~terminated), "log": {"mean": self._array(np.float32(0.5))}}
        return self._observation(), self._array(rewards), self._array(terminated), self._array(over & ~terminated), info

    def render(self) -> Any:
        return draw(self._step, 96, 160)

    def _observation(self) -> Any:
        return {"policy": self._array(np.stack([np.arange(COUNT), self._steps], 1).astype(np.float32))}


@pytest.fixture(params=[np.asarray, Tensor], ids=["numpy", "on a device"])
def array(request: pytest.FixtureRequest) -> Any:
    Tensor.brought = []
    return request.param


def test_what_the_chosen_ones_do_is_told(tmp_path: Path, home: Path, array: Any) -> None:
    env = RecordVideo(Lab(array), tmp_path / "v", step_trigger=lambda _: False, telemetry="all", indices=[4, 1])
    env.reset(seed=9)
    for step in range(9):
        env.step(array(np.full((COUNT, 2), step)))
    env.close()
    happened = told(home, "EpisodeStarted", "StepRecorded", "EpisodeEnded")
    stories: dict[int, list[Any]] = defaultdict(list)
    for event in happened:
        policy = (event.get("observation") or {}).get("policy")
        if event["type"] == "StepRecorded":
            words: tuple[Any, ...] = (
                event["step"],
                event["action"],
                event["reward"],
                event["terminated"],
                event["truncated"],
                policy,
            )
        elif event["type"] == "EpisodeStarted":
            words = ("start", event["episode"], event["seed"], policy)
        else:
            words = (event["outcome"], event["steps"], event["total_reward"])
        stories[event["worker"]].append(words)
    assert stories[0] == [
        ("start", 0, "9", [4.0, 0.0]),
        *((step, [step - 1.0] * 2, step, False, False, [4.0, step]) for step in range(1, 7)),
        (7, [6.0, 6.0], 7.0, True, False, None),  # the observation is the next episode's already
        ("terminated", 7, 28.0),
        ("start", 1, None, [4.0, 0.0]),
        (1, [7.0, 7.0], 1.0, False, False, [4.0, 1.0]),
        (2, [8.0, 8.0], 2.0, False, False, [4.0, 2.0]),
        ("aborted", 2, 3.0),
    ]
    assert [words for words in stories[1] if isinstance(words[0], str)] == [
        ("start", 0, "9", [1.0, 0.0]), ("truncated", 4, 10.0), ("start", 1, None, [1.0, 0.0]), ("truncated", 4, 10.0),
        ("start", 2, None, [1.0, 0.0]), ("aborted", 1, 1.0),
    ]  # fmt: skip
    assert [event["info"] for event in happened if event["type"] == "StepRecorded" and event["worker"] == 1][:4] == [
        *[{"time_outs": False}] * 3, {"time_outs": True}
    ]  # fmt: skip
    if array is Tensor:
        assert Tensor.brought
        assert max(Tensor.brought) == 4  # two environments' two numbers, and never those of all


def test_a_recording_shows_them_all_and_ends_by_its_length(tmp_path: Path, home: Path, array: Any) -> None:
    env = RecordVideo(Lab(array), tmp_path / "v", step_trigger=lambda step: step == 2, video_length=5, indices=[0, 1])
    env.reset()
    for _ in range(12):
        env.step(np.zeros((COUNT, 2)))
    env.close()
    assert [shown(frame) for frame in frames_of(tmp_path / "v" / "rl-video-step-2.mp4")] == [3, 4, 5, 6, 7, 8]
    steps = [event for event in told(home, "StepRecorded") if event["worker"] == 0]
    # Its second episode began with the picture of the step that ended its first one.
    assert [(step["episode"], step["step"], step.get("frame")) for step in steps] == [
        (0, 3, None), (1, 1, 1), (1, 2, 2), (1, 3, None), (2, 1, 4), (2, 2, 5), (2, 3, None),
    ]  # fmt: skip
    starts = [event for event in told(home, "EpisodeStarted") if event["worker"] == 0]
    assert [start["first_frame"] for start in starts] == [None, 0, 3, None, None]


def test_several_resets_of_a_batch_turn_nothing_off(tmp_path: Path, home: Path, array: Any) -> None:
    for indices in (None, [5]):
        env = RecordVideo(Lab(array), tmp_path / f"{indices}", episode_trigger=lambda e: e == 2, indices=indices)
        for _ in range(3):
            env.reset()
            for _ in range(4):
                env.step(np.zeros((COUNT, 2)))
        env.close()
        assert len(list(frames_of(tmp_path / f"{indices}" / "rl-video-episode-2.mp4"))) == 5
    steps = told(home, "StepRecorded")
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert {step["observation"]["policy"][0] for step in steps} == {5.0}


def test_what_is_not_told_of_a_batch_is_counted(tmp_path: Path, home: Path, array: Any) -> None:
    env = RecordVideo(Lab(array), tmp_path / "v", episode_trigger=lambda _: False, indices=[2])
    env.reset()
    for _ in range(12):
        env.step(np.zeros((COUNT, 2)))
    env.close()
    assert not told(home, "StepRecorded")
    assert [(end["steps"], end["total_reward"]) for end in told(home, "EpisodeEnded")] == [(5, 15.0)] * 2 + [(2, 3.0)]


@pytest.mark.parametrize("indices", [[], [COUNT], [-1], [1, 1]])
def test_indices_of_nobody_are_refused(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="each once"):
        RecordVideo(Lab(), tmp_path / "v", indices=indices)


def test_indices_for_a_lone_environment_cost_a_warning(tmp_path: Path, home: Path) -> None:
    env = RecordVideo(Bars(length=4, render_mode="rgb_array"), tmp_path / "v", indices=[0])
    env.reset()
    with pytest.warns(RuntimeWarning, match="gives the results of one environment"):
        env.step(np.int64(0))
    for _ in range(3):
        env.step(np.int64(0))
    env.close()
    assert [shown(frame) for frame in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")] == [0, 1, 2, 3, 4]
    assert not told(home, "StepRecorded")
