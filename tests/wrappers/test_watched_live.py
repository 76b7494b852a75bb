"""Whoever watches a training script sees what its environment shows, and the script never notices."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest

from plugins.events import SessionAsked
from plugins.recorder.live import NoMoment, read_moment
from plugins.recorder.spool import Producer
from plugins.recorder.wrappers import RecordVideo
from tests.environments.bars import Bars, shown
from tests.wrappers.homes import home_in

if TYPE_CHECKING:
    from pathlib import Path


def record(env: Any, folder: Path, **options: Any) -> Any:
    """As scripts do: without types."""
    return RecordVideo(env, folder, **options)


@pytest.mark.parametrize("captured", [True, False])
def test_a_watched_script_shows_the_picture_of_the_step_it_names(captured: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    with home_in(tmp_path) as home:
        env = record(
            Bars(length=10**6, render_mode="rgb_array", step_seconds=0.002),
            tmp_path / "videos",
            home=home,
            episode_trigger=lambda _: captured,
            video_length=50,
            wait=False,
        )
        env.reset()
        session = env._camera.script.session
        asking = Producer(home, "viewer")
        asking.say(SessionAsked(session=session, action="watch", by="test", seconds=60.0))
        seen: list[int] = []
        deadline = time.monotonic() + 60
        number = 0
        while len(seen) < 5:
            assert time.monotonic() < deadline, "nothing was shown"
            _, reward, *_ = env.step(0)
            number += 1
            assert reward == 1.0
            for file in (home / "spool").glob(f"{session}-*/live-0.frame"):
                try:
                    moment, picture = read_moment(file.read_bytes())
                except (OSError, NoMoment):
                    continue
                if picture is not None and moment.step not in seen:
                    assert shown(picture) == moment.step <= number
                    assert moment.total_reward == moment.step
                    seen.append(moment.step)
        asking.close()
        env.close()


def test_a_script_whose_render_fails_is_watched_by_its_numbers(tmp_path: Path) -> None:
    class Fails(Bars):
        def render(self) -> Any:
            raise RuntimeError("no screen")

    with home_in(tmp_path) as home:
        env = record(
            Fails(length=10**6, render_mode="rgb_array", step_seconds=0.002),
            tmp_path / "videos",
            home=home,
            episode_trigger=lambda _: False,
        )
        env.reset()
        session = env._camera.script.session
        asking = Producer(home, "viewer")
        asking.say(SessionAsked(session=session, action="watch", by="test", seconds=60.0))
        deadline = time.monotonic() + 60
        while env._camera.telemetry.window is not None:
            assert time.monotonic() < deadline, "it was never asked to render"
            env.step(0)
        for _ in range(10):
            env.step(0)
        asking.close()
        env.close()


def test_a_copy_in_mid_episode_steps_on_by_itself(tmp_path: Path) -> None:
    with home_in(tmp_path) as home:
        env = record(
            Bars(length=10, render_mode="rgb_array"), tmp_path / "videos", home=home, episode_trigger=None,
            step_trigger=None, telemetry="captured",
        )  # fmt: skip
        env.episode_trigger = _never
        env.reset()
        for _ in range(3):
            env.step(0)
        copy = pickle.loads(pickle.dumps(env))  # noqa: S301 - our own
        for each in (env, copy):
            for _ in range(7):
                _, _, terminated, _, _ = each.step(0)
            assert terminated
        env.close()


def _never(_: int) -> bool:
    return False
