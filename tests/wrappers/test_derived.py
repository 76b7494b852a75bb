"""Classes that scripts derive from RecordVideo, written for Gymnasium's own: each does with ours what it did there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from kernel.files import holder
from plugins.recorder.derived import has_own, reads_frames
from plugins.recorder.vector import RecordVideoVector
from plugins.recorder.wrappers import RecordVideo
from tests.end_to_end.homes import events, frames_of
from tests.environments.bars import Bars, shown
from tests.training.scripts import wait_until
from tests.wrappers.homes import end_script, wait_until_quiet
from tests.wrappers.test_record_video import EPISODES, bars, names, numbers, play, told

Derivable: Any = RecordVideo  # without types, as scripts derive from it
DerivableVector: Any = RecordVideoVector


class Uploads(Derivable):  # type: ignore[misc] # its base is Any here
    """Takes the file of each recording behind its end."""

    def stop_recording(self) -> None:
        path = Path(self.video_folder, f"{self._video_name}.mp4")
        super().stop_recording()
        self.__dict__.setdefault("uploaded", []).append((path.name, path.is_file() and len(path.read_bytes()) > 0))


class Encodes(Derivable):  # type: ignore[misc] # its base is Any here
    """Makes files of its own of the frames, by a copy of the library's method."""

    recording: bool
    recorded_frames: list[Any]
    _video_name: str | None

    def stop_recording(self) -> None:
        assert self.recording
        if len(self.recorded_frames) > 0:
            np.save(Path(self.video_folder, f"{self._video_name}.npy"), np.stack(self.recorded_frames))
        del self.recorded_frames
        self.recorded_frames = []
        self.recording = False
        self._video_name = None


class Draws(Derivable):  # type: ignore[misc] # its base is Any here
    """Draws into the pictures before it adds them."""

    def _capture_frame(self) -> None:
        assert self.recording
        frame = self.render().copy()
        frame[-8:] = 255
        self.recorded_frames.append(frame)


class Counts(Derivable):  # type: ignore[misc] # its base is Any here
    """Stops by the number of frames that it has."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.recording and len(self.recorded_frames) == 3:
            self.stop_recording()
        return result


class TwoEpisodes(Derivable):  # type: ignore[misc] # its base is Any here
    """Has two episodes in each video, by a reset of its own."""

    def reset(self, **options: Any) -> Any:
        result = self.env.reset(**options)
        self.episode_id += 1
        if self.episode_id % 2 == 0:
            if self.recording:
                self.stop_recording()
            self.start_recording(f"from-{self.episode_id}")
        self._capture_frame()
        return result


class Begins(Derivable):  # type: ignore[misc] # its base is Any here
    """Begins and ends recordings by a word."""

    recording: bool
    recorded_frames: list[Any]
    _video_name: str | None

    def start_recording(self, video_name: str) -> None:
        self.recording = True
        self._video_name = f"my-{video_name}"

    def stop_recording(self) -> None:
        self.recorded_frames = []
        self.recording = False
        self._video_name = None


def test_what_a_class_does_behind_the_end_of_a_recording_finds_the_file(tmp_path: Path, home: Path) -> None:
    env = Uploads(bars(), tmp_path / "v", **EPISODES)
    play(env, 2)
    env.close()
    assert env.uploaded == [("rl-video-episode-0.mp4", True), ("rl-video-episode-1.mp4", True)]


@pytest.mark.parametrize(("kind", "wait", "waits"), [(Uploads, True, 1), (Uploads, False, 0), (Derivable, True, 0)])
def test_only_what_does_something_behind_the_end_waits_there(
    tmp_path: Path,
    home: Path,
    kind: Any,
    wait: bool,  # noqa: FBT001 - a case
    waits: int,
) -> None:
    class Noting(kind):  # type: ignore[misc] # its base is Any here
        flushed = 0

        def flush(self, timeout: float | None = None) -> bool:
            self.flushed += 1
            return bool(super().flush(timeout))

    env = Noting(bars(), tmp_path / "v", wait=wait, **EPISODES)
    play(env)
    env.reset()
    assert env.flushed == waits
    env.close()


@pytest.mark.parametrize("kind", [Uploads, TwoEpisodes, Encodes])
def test_a_class_that_ends_recordings_at_the_reset_does_so_however_late_it_comes(
    tmp_path: Path, home: Path, kind: Any
) -> None:
    env = kind(bars(), tmp_path / "v", **EPISODES)
    play(env)
    assert env.recording
    assert env._camera.tape.take.ending is None  # which else is a second behind the episode's end
    env.close()


def test_a_class_that_encodes_the_frames_itself_has_them_all_and_nobody_writes_over_its_files(
    tmp_path: Path, home: Path
) -> None:
    env = Encodes(bars(), tmp_path / "v", **EPISODES)
    play(env, 2)
    wait_until(lambda: holder(home / "lock") is not None, what="a recorder process")  # nothing is waited for below
    env.close()
    assert names(tmp_path / "v") == ["rl-video-episode-0.npy", "rl-video-episode-1.npy"]
    frames = np.load(tmp_path / "v" / "rl-video-episode-1.npy")
    assert [shown(frame) for frame in frames] == [0, 1, 2, 3, 4]
    discarded = told(home, "RecordingDiscarded")
    assert [event["why"] for event in discarded] == ["Encodes makes its videos itself"] * 2
    assert len(events(home, "StepRecorded")) == 8


def test_pictures_that_a_class_draws_into_are_the_videos_and_have_the_steps_of_their_own(
    tmp_path: Path, home: Path
) -> None:
    env = Draws(bars(), tmp_path / "v", **EPISODES)
    play(env)
    assert env.recorded_frames == []
    env.close()
    pictures = list(frames_of(tmp_path / "v" / "rl-video-episode-0.mp4"))
    assert len(pictures) == 5
    assert all(picture[-6:].mean() > 240 for picture in pictures)
    assert [step["frame"] for step in told(home, "StepRecorded")] == [1, 2, 3, 4]


def test_a_stretch_of_drawn_pictures_has_its_length(tmp_path: Path, home: Path) -> None:
    env = Draws(bars(50), tmp_path / "v", step_trigger=lambda step: step == 0, video_length=3)
    env.reset()
    for _ in range(10):
        env.step(0)
    assert not env.recording
    env.close()
    assert len(list(frames_of(tmp_path / "v" / "rl-video-step-0.mp4"))) == 4


def test_a_class_that_counts_its_frames_stops_where_it_did(tmp_path: Path, home: Path) -> None:
    env = Counts(bars(), tmp_path / "v", **EPISODES)
    play(env, 2)
    env.close()
    for episode in range(2):
        assert numbers(tmp_path / "v" / f"rl-video-episode-{episode}.mp4") == [0, 1, 2]


def test_a_class_may_go_on_with_a_recording_at_its_own_reset(tmp_path: Path, home: Path) -> None:
    env = TwoEpisodes(bars(), tmp_path / "v")
    play(env, 4)
    env.close()
    assert names(tmp_path / "v") == ["from-0.mp4", "from-2.mp4"]
    assert numbers(tmp_path / "v" / "from-2.mp4") == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_a_class_may_begin_and_end_a_recording_by_saying_so(tmp_path: Path, home: Path) -> None:
    env = Begins(bars(), tmp_path / "v", **EPISODES)
    play(env, 2)
    env.recording = True  # as it is: nothing begins anew
    env.step(0)
    env.close()
    assert names(tmp_path / "v") == ["my-rl-video-episode-0.mp4", "my-rl-video-episode-1.mp4"]
    assert numbers(tmp_path / "v" / "my-rl-video-episode-0.mp4") == [0, 1, 2, 3, 4]


def test_a_script_may_end_a_recording_by_saying_so(tmp_path: Path, home: Path) -> None:
    env: Any = RecordVideo(bars(), tmp_path / "v", **EPISODES)
    env.reset()
    env.step(0)
    env.recording = False
    assert not env.recording
    env.step(0)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [0, 1]


def test_a_class_derived_from_the_vector_wrapper_draws_and_ends_likewise(tmp_path: Path, home: Path) -> None:
    class Mine(DerivableVector):  # type: ignore[misc] # its base is Any here
        ended = 0

        def _capture_frame(self) -> None:
            frame = self._render().copy()
            frame[-8:] = 255
            self.recorded_frames.append(frame)

        def stop_recording(self) -> None:
            self.recording = False
            self._video_name = None
            self.ended += 1

    envs = Mine(gym.vector.SyncVectorEnv([lambda: Bars(length=4, render_mode="rgb_array")] * 2), tmp_path / "v")
    envs.reset()
    for _ in range(4):
        envs.step(np.zeros(2, np.int64))
    envs.close()
    assert envs.ended == 1
    pictures = list(frames_of(tmp_path / "v" / "rl-video-episode-0.mp4"))
    assert len(pictures) == 5
    assert all(picture[-6:].mean() > 240 for picture in pictures)


def test_what_a_class_does_itself_is_seen_in_its_code() -> None:
    class Passes(Derivable):  # type: ignore[misc] # its base is Any here
        recorded_frames: list[Any]

        def __init__(self, env: Any, folder: Any) -> None:
            super().__init__(env, folder)
            self.recorded_frames = []

        def reset(self, **options: Any) -> Any:
            return super().reset(**options)

    class Further(Encodes):
        pass

    class Later(Derivable):  # type: ignore[misc] # its base is Any here
        @property
        def frames(self) -> int:
            return sum(1 for _ in (len(self.recorded_frames) for _ in "ab"))

    assert [has_own(kind, "stop_recording") for kind in (RecordVideo, RecordVideoVector, Passes, Further)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert has_own(Passes, "reset")
    assert [reads_frames(kind) for kind in (RecordVideo, Passes, Draws, Counts, Further, Later)] == [
        False, False, False, True, True, True,
    ]  # fmt: skip


def test_a_home_that_cannot_be_used_leaves_a_derived_class_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    env = Uploads(bars(), tmp_path / "v", home=tmp_path / "file", **EPISODES)
    with pytest.warns(RuntimeWarning, match="nothing is recorded"):
        play(env, 2)
    env.recording = True
    env.recording = False
    env.close()


def test_a_script_that_ends_without_close_has_the_drawn_pictures(tmp_path: Path, home: Path) -> None:
    env = Draws(bars(50), tmp_path / "v", **EPISODES)
    env.reset()
    env.step(0)
    end_script(home)
    wait_until_quiet(home)
    assert len(list(frames_of(tmp_path / "v" / "rl-video-episode-0.mp4"))) == 2
    env.close()
