"""What goes wrong in a recording, or in its home, leaves the training loop alone."""

from __future__ import annotations

import faulthandler
import multiprocessing
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnvWrapper

from stepreel import VecVideoRecorder
from tests.end_to_end.homes import events
from tests.environments.bars import draw
from tests.sb3.vecs import HEIGHT, WIDTH, Shows, batch, close, go, numbers_in, play, values
from tests.wrappers.homes import end_script, wait_until_quiet

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent


def picture(number: int) -> Any:
    return draw(number, HEIGHT, WIDTH)


def test_a_picture_that_is_no_array_ends_the_recording_with_a_warning(tmp_path: Path, home: Path) -> None:
    venv = Shows(batch(50), lambda number: picture(number) if number < 4 else "a text")
    env = VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 10)
    with pytest.warns(UserWarning, match="Recording stopped: expected .* numpy array, got instead <class 'str'>"):
        play(env, 6)
    assert not env.recording
    close(env, home)
    assert numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-10.mp4") == [(1,), (2,), (3,)]
    assert events(home, "RecordingSealed")[0]["incomplete_because"] == "render() gave no array but str"
    assert [step["step"] for step in events(home, "StepRecorded")] == [1, 2, 3, 4, 5, 6]


def test_a_recording_without_any_picture_is_no_video(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(Shows(batch(50), lambda _: None), tmp_path / "videos", lambda step: step == 0, 10)
    with (
        pytest.warns(UserWarning, match="expected type of frame"),
        pytest.warns(UserWarning, match="zero frames to save"),
    ):
        play(env, 3)
    env.close()
    assert list((tmp_path / "videos").iterdir()) == []


def fails(number: int) -> Any:
    if number == 3:
        raise OSError("no display")
    return picture(number)


def test_a_render_that_fails_ends_the_recording_and_the_next_one_begins(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(Shows(batch(50), fails), tmp_path / "videos", lambda step: step in (0, 4), 3)
    with pytest.warns(RuntimeWarning, match="render\\(\\) failed \\(OSError: no display\\)"):
        play(env, 8)
    env.close()
    assert numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-3.mp4") == [(1,), (2,)]
    assert numbers_in(tmp_path / "videos" / "rl-video-step-4-to-step-7.mp4") == [(4,), (5,), (6,), (7,)]


def test_no_warning_reaches_a_script_whose_warnings_are_errors(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = VecVideoRecorder(Shows(batch(50), lambda _: "a text"), tmp_path / "videos", lambda step: step == 0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(env, 5)
    env.close()
    assert "Recording stopped" in capsys.readouterr().err


def test_a_home_that_cannot_be_used_is_one_warning_and_the_script_reads_its_names(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    env = VecVideoRecorder(batch(3), tmp_path / "videos", lambda step: step % 2 == 0, 4, home=tmp_path / "home")
    with pytest.warns(RuntimeWarning, match="nothing is recorded, and the training goes on") as said:
        play(env, 10)
    assert len(said) == 1
    assert env.video_name == "rl-video-step-10-to-step-14.mp4"
    assert env.video_path == str(tmp_path / "videos" / env.video_name)
    assert not env.recording
    env.close()
    assert list((tmp_path / "videos").iterdir()) == []


class Odd(VecEnvWrapper):  # type: ignore[misc, unused-ignore] # its base is Any where it is not installed
    """Returns what no VecEnv should, from its fifth step on."""

    def __init__(self, venv: Any, odd: Callable[[Any], Any]) -> None:
        super().__init__(venv)
        self._odd = odd
        self._step = 0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        self._step += 1
        result = self.venv.step_wait()
        return self._odd(result) if self._step >= 5 else result


ODD: dict[str, Callable[[Any], Any]] = {
    "rewards of nobody": lambda result: (result[0], None, *result[2:]),
    "too many rewards": lambda result: (result[0], np.zeros(7), *result[2:]),
    "five values": lambda result: (*result, "one more"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("recorded", [True, False])
def test_results_that_nobody_expects_turn_the_recorder_off_and_are_handed_on(
    tmp_path: Path, home: Path, odd: str, *, recorded: bool
) -> None:
    env = VecVideoRecorder(Odd(batch(50), ODD[odd]), tmp_path / "videos", lambda step: step == 0 and recorded, 100)
    play(env, 4)
    with pytest.warns(RuntimeWarning, match="recording is off") as said:
        results = go(env, 6)
    assert len(said) == 1
    assert len(results[-1]) == (5 if odd == "five values" else 4)
    assert not env.recording
    env.close()
    end_script(home)
    wait_until_quiet(home)
    if recorded:
        assert len(numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-100.mp4")) >= 5
        assert len(events(home, "RecorderFailed")) == 1
        assert [end["outcome"] for end in events(home, "WorkerEnded")] == ["failed"]


def test_infos_without_anything_that_stable_baselines_adds_are_told(tmp_path: Path, home: Path) -> None:
    venv = Odd(batch(6), lambda result: (*result[:3], [{}]))
    play(env := VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 100), 8)
    close(env, home)
    steps = events(home, "StepRecorded")
    assert values(steps[4:7], "step", "observation", "info", "terminated") == [
        (5, [5.0], {}, False), (6, None, {}, True), (1, [1.0], {}, False),
    ]  # fmt: skip


def test_closing_twice_is_harmless_and_a_reset_begins_anew(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: step % 10 == 0, 3)
    play(env, 5)
    env.close()
    env.close()
    env.step_id = 20
    play(env, 5)
    close(env, home)
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "rl-video-step-0-to-step-3.mp4",
        "rl-video-step-20-to-step-23.mp4",
    ]
    assert [start["worker"] for start in events(home, "WorkerStarted")] == [0, 1]


def test_a_users_error_in_the_trigger_is_the_users(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: 1 // (3 - step) > 5, 3)
    play(env, 2)
    with pytest.raises(ZeroDivisionError):
        go(env, 1)
    env.close()


@pytest.mark.parametrize(
    ("argument", "value"), [("telemetry", "some"), ("keep", 5), ("max_videos", 0), ("on_video", "x"), ("tags", "tag")]
)
def test_an_argument_that_makes_no_sense_is_refused(tmp_path: Path, argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument):
        VecVideoRecorder(batch(5), tmp_path / "videos", lambda _: True, **{argument: value})


def record_in_child(env: Any) -> None:
    faulthandler.dump_traceback_later(60, exit=True)
    play(env, 5)
    env.close()


def test_a_forked_child_records_on_its_own(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: step in (0, 9), 3)
    play(env, 2)
    env.name_prefix = "child"
    child = multiprocessing.get_context("fork").Process(target=record_in_child, args=(env,))
    env.step_id, before = 9, env.step_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of Python do not like forks beside threads
        child.start()
    env.name_prefix, env.step_id = "rl-video", before
    child.join()
    assert child.exitcode == 0
    go(env, 1)
    close(env, home)
    assert numbers_in(tmp_path / "videos" / "child-step-9-to-step-12.mp4") == [(0,), (1,), (2,), (3,)]
    assert numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-3.mp4") == [(0,), (1,), (2,), (3,)]
    assert {start["worker"] for start in events(home, "WorkerStarted")} == {0, 1}


def test_importing_stepreel_imports_no_stable_baselines() -> None:
    code = (
        "import sys, stepreel; stepreel.RecordVideo; assert 'stable_baselines3' not in sys.modules;"
        "assert issubclass(stepreel.VecVideoRecorder, sys.modules['stable_baselines3'].common.vec_env.VecEnvWrapper)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
