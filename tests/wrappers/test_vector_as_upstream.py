"""RecordVideoVector against Gymnasium's own, call by call: the same files, frames, counts and attributes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import gymnasium.wrappers.vector
import numpy as np
import pytest

from plugins.recorder import tape
from plugins.recorder.mosaic import layout
from plugins.recorder.vector import RecordVideoVector
from tests.end_to_end.homes import frames_of
from tests.wrappers.homes import home_in
from tests.wrappers.vector_envs import MODES, cells, vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

if not hasattr(gymnasium.wrappers.vector, "RecordVideo"):
    pytest.skip("this Gymnasium has no RecordVideo for vector environments", allow_module_level=True)

if TYPE_CHECKING:
    Theirs = gymnasium.wrappers.vector.RecordVideo[Any, Any]
else:
    Theirs = gymnasium.wrappers.vector.RecordVideo  # its type has two parameters or three, by its version


class Upstream(Theirs):
    """Gymnasium's, which notes what it would encode."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.videos: dict[str, list[Any]] = {}
        super().__init__(*arguments, **options)

    def stop_recording(self) -> None:
        assert self.recording
        if self.recorded_frames:
            self.videos[f"{self._video_name}.mp4"] = self.recorded_frames
        self.recorded_frames = []
        self.recording = False
        self._video_name = None


TRIGGERS: dict[str, dict[str, Any]] = {
    "by default": {},
    "every episode": {"episode_trigger": lambda _: True},
    "every second episode": {"episode_trigger": lambda episode: episode % 2 == 0},
    "every ninth step": {"step_trigger": lambda step: step % 9 == 0},
    "both": {"episode_trigger": lambda episode: episode % 3 == 1, "step_trigger": lambda step: step % 7 == 3},
}

LENGTHS_AND_SIZES = [(0, 1), (0, 6), (1, 3), (4, 4), (13, 2)]

LENGTHS = [(3, 6, 4), (5, 2, 9), (7,), (1, 4), (6, 6), (2, 8)]


def state(env: Any) -> tuple[Any, ...]:
    return (
        env.recording, env.episode_id, env.step_id, env._video_name, env.video_length, bool(env.has_autoreset),
        env.autoreset_mode, env.frame_rows, env.frame_cols, env.record_first_only, env.frames_per_sec,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with home_in(tmp_path_factory.mktemp("upstream")) as home:
        yield home


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("mode", "trigger", "video_length", "num_envs", "first_only"),
    [
        (mode, trigger, *LENGTHS_AND_SIZES[(row + column) % 5], (row + column + height) % 3 == 0)
        for height, mode in enumerate(MODES)
        for column, trigger in enumerate(TRIGGERS)
        for row in range(3)
    ],
)
def test_every_call_leaves_the_same_attributes_and_the_same_frames(  # noqa: PLR0917 - one for each parameter
    tmp_path: Path,
    one_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    trigger: str,
    video_length: int,
    num_envs: int,
    first_only: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Steps, resets of all and of some, and manual recordings in random order."""
    monkeypatch.setattr(tape, "ENDED_SECONDS", 600.0)  # so that `recording` does not depend on this machine's speed
    chance = random.Random(f"{mode} {trigger} {video_length} {num_envs}")
    options: dict[str, Any] = {
        "video_aspect_ratio": chance.choice([(1, 1), (16, 9), (9, 16)]),
        "record_first_only": first_only,
        "video_length": video_length,
        "name_prefix": "p",
        **TRIGGERS[trigger],
    }
    lengths = LENGTHS[:num_envs]
    theirs = Upstream(vector(lengths, mode), str(tmp_path / "theirs"), **options)
    ours = RecordVideoVector(vector(lengths, mode), str(tmp_path / "ours"), **options, wait=False, home=one_home)
    both: tuple[Any, Any] = (theirs, ours)
    over = np.zeros(num_envs, bool)
    actions = np.zeros(num_envs, np.int64)

    def each(call: Callable[[Any], Any]) -> Any:
        results = [call(env) for env in both]
        assert state(theirs) == state(ours)
        assert repr(results[0]) == repr(results[1])
        return results[1]

    def reset(mask: Any = None) -> None:
        each(lambda env: env.reset(options=None if mask is None else {"reset_mask": mask.copy()}))
        over[:] = False if mask is None else over & ~mask

    reset()
    for number in range(50):
        if mode == "DISABLED" and over.any():
            reset(over.copy())
        kind = chance.choices(["step", "reset", "some", "start", "stop", "render"], [80, 5, 6, 2, 2, 5])[0]
        if kind == "step":
            _, _, terminated, truncated, _ = each(lambda env: env.step(actions))
            over[:] = terminated | truncated
        elif kind == "reset":
            reset()
        elif kind == "some":
            mask = np.array([chance.random() < 0.5 for _ in range(num_envs)])
            mask[chance.randrange(num_envs)] = True
            reset(mask)
        elif kind == "start":
            each(lambda env, number=number: env.start_recording(f"by-hand-{number}"))  # type: ignore[misc] # a default
        elif kind == "render":
            each(lambda env: env.render())
        elif ours.recording and theirs.recorded_frames:
            each(lambda env: env.stop_recording())
    each(lambda env: env.close())
    assert ours.flush(60)

    videos = {path.name: path for path in (tmp_path / "ours").iterdir()}
    assert sorted(videos) == sorted(theirs.videos)
    shows = 1 if first_only else num_envs
    for name in chance.sample(sorted(videos), min(2, len(videos))):
        recorded = [cells(frame, ours.frame_cols, shows) for frame in frames_of(videos[name])]
        assert recorded == [cells(frame, theirs.frame_cols, shows) for frame in theirs.videos[name]]


@pytest.mark.parametrize("ratio", [(1, 1), (16, 9), (1, 7), (5, 1)])
def test_the_layout_is_upstreams(ratio: tuple[int, int]) -> None:
    class Bare:
        video_aspect_ratio = ratio
        frame_rows = frame_cols = -1

    theirs: Any = gymnasium.wrappers.vector.RecordVideo._get_concat_frame_shape
    for pictures in range(1, 65):
        for height, width in ((16, 64), (400, 600), (210, 160), (100, 100)):
            bare: Any = Bare()
            theirs(bare, pictures, height, width)
            assert layout(pictures, height, width, ratio[0] / ratio[1]) == (bare.frame_rows, bare.frame_cols)
