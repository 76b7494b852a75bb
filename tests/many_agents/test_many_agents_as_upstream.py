"""Our wrappers against PettingZoo's own, call by call: the same files, counts, attributes and frames."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import OrderEnforcingWrapper, RecordVideo, RecordVideoParallel

from plugins.recorder.pettingzoo import PettingZooRecordVideo, PettingZooRecordVideoParallel
from tests.end_to_end.homes import frames_of
from tests.environments.bars import shown
from tests.many_agents.games import AtOnce, InTurns, Move
from tests.wrappers.homes import home_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPT = [Move({"a": 1}), Move({"b": 1}), Move(terminated=["a"]), Move({"b": 2}), Move(truncated=["b"])]


class Listed:
    """Pictures since the last call, as `rgb_array_list` has them."""

    render_mode = "rgb_array_list"
    pictures: Any = ()

    def reset(self, seed: Any = None, options: Any = None) -> Any:
        result = super().reset(seed, options)  # type: ignore[misc] # of the game behind it
        self.pictures = [super().render()]  # type: ignore[misc] # likewise
        return result

    def step(self, action: Any) -> Any:
        result = super().step(action)  # type: ignore[misc] # likewise
        self.pictures.append(super().render())  # type: ignore[misc] # likewise
        return result

    def render(self) -> Any:
        pictures, self.pictures = self.pictures, []
        return pictures


class InTurnsListed(Listed, InTurns):
    pass


class AtOnceListed(Listed, AtOnce):
    pass


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "in turns": lambda: OrderEnforcingWrapper(InTurns("ab", SCRIPT)),
    "in turns, listed": lambda: InTurnsListed("ab", SCRIPT),
    "converted": lambda: parallel_to_aec(AtOnce("ab", SCRIPT)),
    "at once": lambda: AtOnce("ab", SCRIPT),
    "at once, listed": lambda: AtOnceListed("ab", SCRIPT),
}
TRIGGERS: dict[str, dict[str, Any]] = {
    "by default": {},
    "every second episode": {"episode_trigger": lambda episode: episode % 2 == 0},
    "every fifth step": {"step_trigger": lambda step: step % 5 == 0},
    "both": {"episode_trigger": lambda episode: episode % 3 == 1, "step_trigger": lambda step: step % 7 == 3},
}


def noting(kind: Any) -> Any:
    """PettingZoo's wrapper, which notes what it would encode."""

    class Noting(kind):  # type: ignore[misc] # ships no types
        recording: Any
        recorded_frames: Any
        _video_name: Any

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.videos: dict[str, list[int]] = {}
            super().__init__(*arguments, **options)

        def stop_recording(self) -> None:
            assert self.recording
            if self.recorded_frames:
                self.videos[f"{self._video_name}.mp4"] = [shown(frame) for frame in self.recorded_frames]
            self.recorded_frames = []
            self.recording = False
            self._video_name = None

    return Noting


def state(env: Any) -> tuple[Any, ...]:
    captured = env._captured if isinstance(env, (PettingZooRecordVideo, PettingZooRecordVideoParallel)) else None
    frames = len(env.recorded_frames) if captured is None else captured * env.recording
    return env.recording, env.episode_id, env.step_id, env._video_name, env.video_length, env.frames_per_sec, frames


def step(env: Any) -> Any:
    if isinstance(env, ParallelEnv):
        return repr(env.step(dict.fromkeys(env.agents, 1)))
    if not env.agents:
        return None
    _, _, terminated, truncated, _ = env.last()
    return env.step(None if terminated or truncated else 1)


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with home_in(tmp_path_factory.mktemp("upstream")) as home:
        yield home


@pytest.mark.parametrize(
    ("kind", "trigger", "video_length"),
    [
        (kind, trigger, (0, 1, 4, 25)[(column + row) % 4])
        for row, kind in enumerate(ENVIRONMENTS)
        for column, trigger in enumerate(TRIGGERS)
    ],
)
def test_every_call_leaves_the_same_attributes_the_same_files_and_the_same_frames(
    tmp_path: Path, one_home: Path, kind: str, trigger: str, video_length: int
) -> None:
    """Resets, steps (of the dead, too), renders and manual recordings in random order."""
    chance = random.Random(f"{kind} {trigger} {video_length}")
    options: dict[str, Any] = {"video_length": video_length, "name_prefix": "p", **TRIGGERS[trigger]}
    upstream, our = (
        (RecordVideoParallel, PettingZooRecordVideoParallel)
        if kind.startswith("at once")
        else (RecordVideo, PettingZooRecordVideo)
    )
    theirs = noting(upstream)(ENVIRONMENTS[kind](), str(tmp_path / "theirs"), **options)
    ours = our(ENVIRONMENTS[kind](), str(tmp_path / "ours"), **options, wait=False, home=one_home)
    both: tuple[Any, Any] = (theirs, ours)

    def each(call: Callable[[Any], Any]) -> None:
        results = [call(env) for env in both]
        assert state(theirs) == state(ours)
        assert repr(results[0]) == repr(results[1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each(lambda env: env.reset(seed=1))
        for number in range(80):
            call = chance.choices(["step", "reset", "render", "start", "stop"], [82, 10, 4, 2, 2])[0]
            if call == "step":
                each(step)
            elif call == "reset":
                each(lambda env: env.reset())
            elif call == "render":
                each(lambda env: env.render())
            elif call == "start":
                each(lambda env, number=number: env.start_recording(f"by-hand-{number}"))  # type: ignore[misc] # a default
            elif ours.recording and theirs.recorded_frames:
                each(lambda env: env.stop_recording())
        each(lambda env: env.close())
    assert ours.flush(120)
    videos = {path.name: path for path in (tmp_path / "ours").iterdir()}
    assert sorted(videos) == sorted(theirs.videos)
    for name in chance.sample(sorted(videos), min(4, len(videos))):
        assert [shown(frame) for frame in frames_of(videos[name])] == theirs.videos[name]
