"""VecVideoRecorder against Stable-Baselines3's own, call by call: the same files, counts and attributes."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env.vec_video_recorder import VecVideoRecorder as Theirs

from stepreel import VecVideoRecorder
from tests.end_to_end.homes import events, frames_of
from tests.environments.bars import Bars, shown
from tests.sb3.vecs import batch, close, go, numbers_in, play

if TYPE_CHECKING:
    from collections.abc import Callable


class Upstream(Theirs):  # type: ignore[misc, unused-ignore] # its base is Any where it is not installed
    """Stable-Baselines3's, which notes what it would encode."""

    recording: bool
    recorded_frames: list[Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.videos: dict[str, int] = {}
        super().__init__(*arguments, **options)

    def _start_video_recorder(self) -> None:
        # Theirs names the new one first. So it writes one that is cut by a reset under the name of the one that
        # begins, which replaces it; ours keeps both.
        if self.recording:
            self._stop_recording()
        super()._start_video_recorder()

    def _stop_recording(self) -> None:
        assert self.recording
        self.videos[self.video_name] = len(self.recorded_frames)
        self.recorded_frames = []
        self.recording = False


TRIGGERS: dict[str, Callable[[int], bool]] = {
    "at the start": lambda step: step == 0,
    "every seventh step": lambda step: step % 7 == 0,
    "always": lambda _: True,
    "never": lambda _: False,
}


def state(env: Any) -> tuple[Any, ...]:
    names = "recording", "step_id", "video_length", "name_prefix", "frames_per_sec", "metadata", "num_envs"
    return (*(getattr(env, name) for name in names), env.__dict__.get("video_name"))


@pytest.mark.parametrize("environments", [1, 3])
@pytest.mark.parametrize("video_length", [-1, 0, 1, 5, 30])
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_call_leaves_the_same_attributes_output_and_files(  # noqa: PLR0917 - three of them are pytest's
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], trigger: str, video_length: int, environments: int
) -> None:
    """Resets and steps in random order."""
    chance = random.Random(f"{trigger} {video_length} {environments}")
    lengths = [6, 9, 4][:environments]
    asked: dict[str, list[int]] = {"theirs": [], "ours": []}
    both: dict[str, Any] = {}
    for name, kind in (("theirs", Upstream), ("ours", VecVideoRecorder)):

        def ask(step: int, name: str = name) -> bool:
            asked[name].append(step)
            return TRIGGERS[trigger](step)

        both[name] = kind(batch(*lengths), str(tmp_path / name), ask, video_length, "p")

    def each(call: Callable[[Any], Any]) -> None:
        printed, results = [], []
        for name, env in both.items():
            results.append(repr(call(env)))
            printed.append(capsys.readouterr().out.replace(f"/{name}/", "/"))
        assert results[0] == results[1]
        assert printed[0] == printed[1]
        assert state(both["theirs"]) == state(both["ours"])

    each(lambda env: env.reset())
    for _ in range(60):
        call = chance.choices(["step", "reset", "render"], [90, 6, 4])[0]
        if call == "step":
            each(lambda env: env.step(np.zeros(environments, np.int64)))
        else:
            each(lambda env, call=call: getattr(env, call)())  # type: ignore[misc, unused-ignore] # a default
    each(lambda env: env.close())
    assert asked["ours"] == asked["theirs"]
    assert both["ours"].recorded_frames == []
    videos = {path.name: path for path in (tmp_path / "ours").iterdir()}
    assert sorted(videos) == sorted(both["theirs"].videos)
    some = chance.sample(sorted(videos), min(3, len(videos)))
    counts = {name: sum(1 for _ in frames_of(videos[name])) for name in some}
    assert counts == {name: both["theirs"].videos[name] for name in some}


def test_it_has_their_arguments_in_their_order_and_is_one_of_their_wrappers() -> None:
    theirs = list(inspect.signature(Theirs.__init__).parameters.values())
    ours = list(inspect.signature(VecVideoRecorder.__init__).parameters.values())
    assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [(p.name, p.kind, p.default) for p in theirs]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])
    assert issubclass(VecVideoRecorder, VecEnvWrapper)
    assert VecVideoRecorder.__name__ == "VecVideoRecorder"


@pytest.mark.parametrize("mode", ["human", None])
def test_another_render_mode_is_refused_in_their_words(
    tmp_path: Path, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Theirs, "__del__")  # which fails on a half-built object; ours must not
    said = []
    for kind in (Theirs, VecVideoRecorder):
        venv = DummyVecEnv([lambda: Bars(render_mode=mode)])
        with pytest.raises(AssertionError) as refused:
            kind(venv, str(tmp_path / "videos"), lambda _: True)
        said.append(str(refused.value).splitlines()[0])
    assert said[0] == said[1] == f"The render_mode must be 'rgb_array', not {mode}"
    assert not (tmp_path / "videos").exists()


def test_nothing_but_the_folder_is_there_before_the_first_reset(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(5), tmp_path / "a" / "videos", lambda _: True)
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "videos"]
    with pytest.raises(AttributeError):
        _ = env.video_path
    assert env.env is env.venv
    assert (env.step_id, env.recording, env.recorded_frames, env.video_length) == (0, False, [], 200)
    assert env.video_folder == str(tmp_path / "a" / "videos")
    env.close()


def test_the_picture_of_all_environments_is_filmed_and_the_step_that_ends_an_episode_shows_the_next(
    tmp_path: Path, home: Path
) -> None:
    env = VecVideoRecorder(batch(3, 4, 100), tmp_path / "videos", lambda step: step == 0, 6)
    play(env, 6)
    assert not env.recording
    env.close()
    assert env.video_path == str(tmp_path / "videos" / "rl-video-step-0-to-step-6.mp4")
    assert numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-6.mp4", tiles=3) == [
        (0, 0, 0), (1, 1, 1), (2, 2, 2), (0, 3, 3), (1, 0, 4), (2, 1, 5), (0, 2, 6),
    ]  # fmt: skip


def test_a_second_reset_at_the_same_step_begins_the_recording_anew(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(9), tmp_path / "videos", lambda step: step == 0, 3)
    env.reset()
    env.reset()
    play(env, 3)
    env.close()
    assert numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-3.mp4") == [(0,), (1,), (2,), (3,)]
    assert len(events(home, "VideoAvailable")) == 1
    assert [event["why"] for event in events(home, "RecordingDiscarded")] == [
        "another recording of the same name began"
    ] * 2


def test_it_works_in_a_chain_of_wrappers(tmp_path: Path, home: Path) -> None:
    """Below, between and above others; each finds the attributes of those below it."""
    venv = VecNormalize(VecMonitor(batch(5, 5)))
    recorder = VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 8)
    env = VecMonitor(recorder)
    play(env, 8)
    assert env.video_path == recorder.video_path
    assert env.get_attr("_length") == [5, 5]
    assert recorder.obs_rms is venv.obs_rms
    env.close()
    assert len(numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-8.mp4", tiles=2)) == 9


def test_a_made_vec_env_has_its_id_and_arguments_in_the_session(tmp_path: Path, home: Path) -> None:
    venv = make_vec_env("CartPole-v1", n_envs=2, seed=5, env_kwargs={"sutton_barto_reward": True})
    env = VecVideoRecorder(venv, tmp_path / "videos", lambda step: step == 0, 3, tags=["a tag"])
    play(env, 3)
    env.close()
    (session,) = events(home, "SessionStarted")
    assert session["env_id"] == "CartPole-v1"
    assert session["env_kwargs"]["sutton_barto_reward"] is True
    assert session["tags"] == ["a tag"]
    assert session["configuration"]["num_envs"] == 2
    assert session["render_fps"] == 50
    assert "stable_baselines3" in session["versions"]
    assert [start["seed"] for start in events(home, "EpisodeStarted")] == ["5", "6"]


class CapturesItself(VecVideoRecorder):
    """As scripts do that draw into the pictures."""

    def _capture_frame(self) -> None:
        frame: Any = self.env.render()
        frame[:, :, 0] = 255
        self.recorded_frames.append(frame)


class EndsItself(VecVideoRecorder):
    """As scripts do that stop by rules of their own, and encode in a thread of their own."""

    def step_wait(self) -> Any:
        result = self.venv.step_wait()
        self.step_id += 1
        if self.recording:
            self.recorded_frames.append(self.env.render())
            if len(self.recorded_frames) > 3:
                self._stop_recording()
        return result

    def _start_recording(self) -> None:
        self.video_name = "own-name.mp4"
        self.video_path = f"{self.video_folder}/{self.video_name}"
        self.recording = True


class StopsItself(VecVideoRecorder):
    def _stop_recording(self) -> None:
        self.recorded_frames = []
        self.recording = False


class EncodesItself(VecVideoRecorder):
    """As scripts do that have a copy of the library's method."""

    def _stop_recording(self) -> None:
        np.save(self.video_path.replace(".mp4", ".npy"), np.stack(self.recorded_frames))
        self.recorded_frames = []
        self.recording = False


class Uploads(VecVideoRecorder):
    """As scripts do that take the file behind the end of its recording."""

    def _stop_recording(self) -> None:
        super()._stop_recording()
        assert Path(self.video_path).is_file()
        self.uploaded = self.video_name


def test_a_subclass_that_encodes_itself_has_the_frames_and_nobody_writes_beside_it(tmp_path: Path, home: Path) -> None:
    env = EncodesItself(batch(50), tmp_path / "videos", lambda step: step == 0, 5)
    play(env, 10)
    close(env, home)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["rl-video-step-0-to-step-5.npy"]
    frames = np.load(tmp_path / "videos" / "rl-video-step-0-to-step-5.npy")
    assert [shown(frame) for frame in frames] == [0, 1, 2, 3, 4, 5]
    (discarded,) = events(home, "RecordingDiscarded")
    assert discarded["why"] == "EncodesItself makes its videos itself"


def test_a_subclass_that_takes_the_file_behind_the_end_finds_it(tmp_path: Path, home: Path) -> None:
    env = Uploads(batch(50), tmp_path / "videos", lambda step: step == 0, 5)
    play(env, 10)
    assert env.uploaded == "rl-video-step-0-to-step-5.mp4"
    env.close()


def test_a_subclass_that_captures_itself_records_its_own_pictures(tmp_path: Path, home: Path) -> None:
    env = CapturesItself(batch(50), tmp_path / "videos", lambda step: step == 0, 5)
    play(env, 10)
    assert env.recorded_frames == []
    env.close()
    pictures = list(frames_of(tmp_path / "videos" / "rl-video-step-0-to-step-5.mp4"))
    assert len(pictures) == 6
    assert all(picture[:, :, 0].mean() > 200 for picture in pictures)


def test_a_subclass_that_begins_and_ends_itself_has_its_own_names_and_lengths(tmp_path: Path, home: Path) -> None:
    env = EndsItself(batch(50), tmp_path / "videos", lambda step: step == 0, 100)
    play(env, 10)
    assert not env.recording
    env.close()
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["own-name.mp4"]
    assert numbers_in(tmp_path / "videos" / "own-name.mp4") == [(number,) for number in range(4)]


def test_a_subclass_that_only_says_that_it_does_not_record_any_more_ends_the_recording(
    tmp_path: Path, home: Path
) -> None:
    env = StopsItself(batch(50), tmp_path / "videos", lambda step: step == 0, 5)
    play(env, 10)
    env.close()
    assert len(numbers_in(tmp_path / "videos" / "rl-video-step-0-to-step-5.mp4")) == 6


def test_the_rate_and_the_path_that_a_script_sets_are_the_videos(tmp_path: Path, home: Path) -> None:
    env = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: step == 0, 5)
    env.frames_per_sec = 7
    env.reset()
    (tmp_path / "elsewhere").mkdir()
    env.video_path = str(tmp_path / "elsewhere" / "renamed.mp4")
    go(env, 5)
    env.close()
    assert list((tmp_path / "videos").iterdir()) == []
    (video,) = events(home, "VideoAvailable")
    assert (video["path"], video["fps"]) == (str(tmp_path / "elsewhere" / "renamed.mp4"), 7.0)


def test_two_recorders_of_one_folder_do_not_write_over_each_other(tmp_path: Path, home: Path) -> None:
    first = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: step == 0, 3)
    second = VecVideoRecorder(batch(50), tmp_path / "videos", lambda step: step == 0, 3)
    play(first, 3)
    with pytest.warns(RuntimeWarning, match="rl-video-w1-"):
        play(second, 3)
    assert second.video_name == "rl-video-w1-step-0-to-step-3.mp4"
    first.close()
    second.close()
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "rl-video-step-0-to-step-3.mp4",
        "rl-video-w1-step-0-to-step-3.mp4",
    ]
