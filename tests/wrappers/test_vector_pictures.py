"""The mosaic, whatever `render()` gives: sequences, arrays, one picture, and pictures that do not fit each other."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from plugins.recorder.vector import RecordVideoVector
from tests.end_to_end.homes import frames_of
from tests.environments.bars import draw, shown
from tests.wrappers.misbehaving import OnDevice
from tests.wrappers.vector_envs import HEIGHT, WIDTH, Pictures, cells, play, told, vector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = (HEIGHT, WIDTH)


def three(step: int) -> list[Any]:
    """A picture of each of three, with its index in the upper bits."""
    return [draw(env << 12 | step, *SIZE) for env in range(3)]


KINDS: dict[str, Callable[[int], Any]] = {
    "a list": three,
    "a tuple": lambda step: tuple(three(step)),
    "a batch": lambda step: np.stack(three(step)),
    "a batch of greys": lambda step: np.stack(three(step))[..., 0],
    "greys": lambda step: [picture[..., 0] for picture in three(step)],
    "floats": lambda step: [picture / np.float32(255) for picture in three(step)],
    "of a device": lambda step: [OnDevice(picture) for picture in three(step)],
    "a batch of a device": lambda step: OnDevice(np.stack(three(step))),
    "in other memory": lambda step: [picture[::-1, :, ::-1] for picture in three(step)],
    "collected": lambda step: [[np.zeros_like(picture), picture] for picture in three(step)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*frames are of float32")
def test_pictures_are_laid_out_in_the_order_of_the_environments(tmp_path: Path, home: Path, kind: str) -> None:
    env = RecordVideoVector(Pictures(KINDS[kind]), tmp_path / "v", (4, 1))
    play(env, 4)
    assert (env.frame_rows, env.frame_cols) == (1, 3)
    env.close()
    frames = [cells(picture, 3, 3) for picture in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")]
    assert frames == [[(0, 0, step), (1, 0, step), (2, 0, step)] for step in range(5)]


def test_one_picture_of_all_is_taken_as_it_is(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(Pictures(lambda step: draw(step, 96, 160)), tmp_path / "v")
    play(env, 4)
    env.close()
    assert [shown(frame) for frame in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")] == [0, 1, 2, 3, 4]
    assert all(step["frame"] == step["step"] for step in told(home, "StepRecorded"))


def test_render_gives_the_user_what_the_environment_gives(tmp_path: Path, home: Path) -> None:
    pictures = three(0)
    env = RecordVideoVector(Pictures(lambda _: pictures), tmp_path / "v")
    env.reset()
    assert env.recording
    assert env.render() is pictures
    env.close()


def test_pictures_of_different_sizes_get_fields_of_one_size_and_one_warning(tmp_path: Path, home: Path) -> None:
    def show(step: int) -> list[Any]:
        first, second, third = three(step)
        return [first, second[: HEIGHT // 2], third]

    env = RecordVideoVector(Pictures(show), tmp_path / "v", (4, 1))
    with pytest.warns(RuntimeWarning, match="different sizes \\(64×16, 64×8\\)") as caught:
        play(env, 4)
    assert len(caught) == 1
    env.close()
    frames = list(frames_of(tmp_path / "v" / "rl-video-episode-0.mp4"))
    assert len(frames) == 5
    assert all(frame.shape[:2] == (HEIGHT, 3 * WIDTH) for frame in frames)
    assert [cells(frame, 3, 3)[::2] for frame in frames] == [[(0, 0, step), (2, 0, step)] for step in range(5)]
    assert all(frame[HEIGHT // 2 + 1 :, WIDTH + 4 : 2 * WIDTH - 4].max() < 40 for frame in frames)


def test_an_environment_without_a_picture_is_black(tmp_path: Path, home: Path) -> None:
    env = RecordVideoVector(
        Pictures(lambda step: [*three(step)[:2], None if step < 2 else three(step)[2]]), tmp_path / "v", (4, 1)
    )
    with pytest.warns(RuntimeWarning, match="no picture for 2, which are black") as caught:
        play(env, 4)
    assert len(caught) == 1
    env.close()
    frames = [cells(picture, 3, 3) for picture in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")]
    assert [frame[:2] for frame in frames] == [[(0, 0, step), (1, 0, step)] for step in range(5)]
    assert [frame[2] for frame in frames] == [(0, 0, 0), (0, 0, 0), (2, 0, 2), (2, 0, 3), (2, 0, 4)]


def test_pictures_of_different_kinds_are_brought_together(tmp_path: Path, home: Path) -> None:
    """A grey one, one of floats with an alpha channel, and one as it should be."""

    def show(step: int) -> list[Any]:
        first, second, third = three(step)
        alpha = np.dstack([second / 255, np.ones(SIZE)])
        return [first[..., 0], alpha, third]

    env = RecordVideoVector(Pictures(show), tmp_path / "v", (4, 1))
    with pytest.warns(RuntimeWarning, match="pictures of different kinds"):
        play(env, 4)
    env.close()
    frames = [cells(picture, 3, 3) for picture in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")]
    assert frames == [[(0, 0, step), (1, 0, step), (2, 0, step)] for step in range(5)]


@pytest.mark.parametrize(
    "nothing",
    [None, [None] * 3, [], "text", [np.zeros((0, 4, 3), np.uint8)] * 3, [np.zeros((2, 2, 7), np.uint8)] * 3],
    ids=["None", "None for each", "empty", "text", "no pixels", "seven channels"],
)
def test_what_is_no_picture_ends_the_recording_and_not_the_training(tmp_path: Path, home: Path, nothing: Any) -> None:
    inner = Pictures(lambda step: three(step) if step < 3 else nothing)
    env = RecordVideoVector(inner, tmp_path / "v", episode_trigger=lambda episode: episode == 0)
    with pytest.warns(UserWarning, match="Recording stopped"):
        play(env, 6)
    env.close()
    assert sum(1 for _ in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")) == 3
    assert [event["steps"] for event in told(home, "EpisodeEnded")] == [4, 4, 4, 1, 1, 1]


def test_a_render_that_raises_ends_the_recording_and_not_the_training(tmp_path: Path, home: Path) -> None:
    def show(step: int) -> list[Any]:
        if step == 2:
            raise OSError("no display")
        return three(step)

    env = RecordVideoVector(Pictures(show), tmp_path / "v", episode_trigger=lambda _: True)
    with pytest.warns(RuntimeWarning, match="no display"):
        play(env, 9)
    env.close()
    assert [sum(1 for _ in frames_of(tmp_path / "v" / f"rl-video-episode-{n}.mp4")) for n in (0, 1)] == [2, 5]
    told(home)


def test_an_environment_that_draws_into_one_buffer_is_recorded_as_it_was(tmp_path: Path, home: Path) -> None:
    buffer = np.zeros((3, *SIZE, 3), np.uint8)

    def show(step: int) -> Any:
        buffer[:] = three(step)
        return buffer

    env = RecordVideoVector(Pictures(show), tmp_path / "v", (4, 1))
    play(env, 4)
    buffer[:] = 255
    env.close()
    frames = [cells(picture, 3, 3) for picture in frames_of(tmp_path / "v" / "rl-video-episode-0.mp4")]
    assert frames == [[(0, 0, step), (1, 0, step), (2, 0, step)] for step in range(5)]


def test_pictures_that_all_change_their_size_begin_a_part_of_their_own(tmp_path: Path, home: Path) -> None:
    def show(step: int) -> list[Any]:
        return three(step) if step < 3 else [draw(env << 12 | step, 32, 128) for env in range(3)]

    env = RecordVideoVector(Pictures(show), tmp_path / "v", (4, 1))
    play(env, 4)
    env.close()
    shapes = {path.name: next(frames_of(path)).shape for path in (tmp_path / "v").iterdir()}
    assert shapes == {
        "rl-video-episode-0.mp4": (HEIGHT, 3 * WIDTH, 3),
        "rl-video-episode-0-part2.mp4": (32, 384, 3),
    }
    (change,) = told(home, "FrameSizeChanged")
    frames = {
        (step["worker"], step["step"]): (step.get("recording"), step["frame"]) for step in told(home, "StepRecorded")
    }
    assert frames[1, 2] == (None, 2)
    assert frames[1, 3] == (change["continued_as"], 0)


def test_the_sub_environments_are_rendered_once_a_step_and_not_at_all_between_recordings(
    tmp_path: Path, home: Path
) -> None:
    env = Pictures(three)
    recorder = RecordVideoVector(env, tmp_path / "v", episode_trigger=lambda episode: episode == 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(recorder, 14)
    recorder.close()
    assert env.renders == 5


def test_an_aspect_ratio_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="such as \\(16, 9\\)"):
        RecordVideoVector(vector([(3,)]), tmp_path / "v", (1, 0))
