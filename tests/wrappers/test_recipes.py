"""Each script of docs/recipes.md runs, and what it shows is looked up where its service keeps it."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest
from PIL import Image

from tests.wrappers.scripts import ROOT, run_script
from tests.wrappers.wandb_runs import rows_of, videos_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("home")

PAGE = (ROOT / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def episodes_of(videos: list[Path]) -> list[int]:
    return sorted(int(re.findall(r"-episode-(\d+)\.mp4$", video.name)[0]) for video in videos)


def test_each_recipe_has_its_test() -> None:
    assert list(RECIPES) == ["Weights & Biases, by itself", "Weights & Biases, by hand", "TensorBoard", "MLflow"]
    assert PAGE.count("```python") == len(RECIPES)


def test_wandb_has_each_video_once_with_its_step_and_every_row_of_the_script(tmp_path: Path) -> None:
    said = run_script(RECIPES["Weights & Biases, by itself"], tmp_path)
    assert "WARNING" not in said
    rows = rows_of(tmp_path)
    logged = [row for row in rows if "total_reward" in row]
    assert len(logged) == 11
    ends = [row["_step"] for row in logged]  # of the episodes, in steps
    begins = [0, *ends]
    assert sorted(videos_in(rows, tmp_path), key=lambda video: int(video[1] or 0)) == [
        (
            f"rl-video-episode-{episode}, step {begins[episode]}, return {logged[episode]['total_reward']:g}",
            begins[episode],
        )
        for episode in (0, 5, 10)
    ]
    assert episodes_of(list(tmp_path.glob("videos/*"))) == [0, 5, 10]


def test_wandb_has_what_was_logged_by_hand(tmp_path: Path) -> None:
    said = run_script(RECIPES["Weights & Biases, by hand"], tmp_path)
    assert "WARNING" not in said
    rows = rows_of(tmp_path)
    recorded = episodes_of(list(tmp_path.glob("videos/*")))
    assert len(recorded) >= 2
    found = videos_in(rows, tmp_path, "rollout")
    assert sorted(caption for caption, _ in found) == sorted(f"episode {episode}" for episode in recorded)
    assert ("episode 0", 0) in found
    assert all(step for caption, step in found if caption != "episode 0")
    assert len([row for row in rows if "progress" in row]) == 3


def test_tensorboard_has_a_moving_picture_at_each_videos_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import img_mime_type_detector

    run_script(RECIPES["TensorBoard"], tmp_path)
    videos = {str(video): imageio_ffmpeg.count_frames_and_secs(str(video)) for video in tmp_path.glob("videos/*.mp4")}
    assert len(videos) >= 2
    events = EventAccumulator(str(tmp_path / "runs" / "cartpole"))
    events.Reload()
    assert len(events.Scalars("progress")) == 300
    shown = events.Images("rollout")
    texts = events.Tensors("rollout/file/text_summary")
    assert [image.step for image in shown] == [text.step for text in texts]
    said = [text.tensor_proto.string_val[0].decode().strip("`") for text in texts]
    assert sorted(said) == sorted(videos)
    for image, video in zip(shown, said, strict=True):
        assert img_mime_type_detector.from_bytes(image.encoded_image_string) == "image/gif"
        with Image.open(BytesIO(image.encoded_image_string)) as gif:
            assert getattr(gif, "n_frames", 1) == pytest.approx(videos[video][1] * 12.5, abs=1.5)
            assert gif.size == (300, 200)


def test_mlflow_has_each_video_in_the_folder_of_its_step(tmp_path: Path) -> None:
    run_script(
        RECIPES["MLflow"], tmp_path, MLFLOW_TRACKING_URI=f"file:{tmp_path}/store", MLFLOW_ALLOW_FILE_STORE="true"
    )
    (metric,) = tmp_path.glob("store/0/*/metrics/video_seconds")
    steps = sorted(int(line.split()[2]) for line in metric.read_text().splitlines())
    artifacts = sorted(metric.parent.parent.glob("artifacts/videos/*/*"))
    videos = list(tmp_path.glob("videos/*"))
    assert [int(artifact.parent.name.removeprefix("step-")) for artifact in artifacts] == steps
    assert len(artifacts) >= 2
    assert {artifact.name: artifact.read_bytes() for artifact in artifacts} == {
        video.name: video.read_bytes() for video in videos
    }


def test_an_unedited_script_with_monitor_gym_uploads_each_video_once(tmp_path: Path) -> None:
    """W&B has put its own `close` and `__del__` into our class, as this is where Gymnasium's is for this script."""
    said = run_script(
        """
        import gc
        import gymnasium as gym, wandb
        with wandb.init(project="cartpole", monitor_gym=True):
            assert gym.wrappers.RecordVideo.close.__module__ == "wandb.integration.gym"
            assert gym.wrappers.RecordVideo.__module__.startswith("plugins.")
            def made():
                env = gym.make("CartPole-v1", render_mode="rgb_array")
                return gym.wrappers.RecordVideo(env, "videos", episode_trigger=lambda episode: episode == 0)
            envs = gym.vector.SyncVectorEnv([made, lambda: gym.make("CartPole-v1")])
            envs.reset(seed=1)
            for _ in range(50):
                envs.step(envs.action_space.sample())
            envs.close()
            envs.close_extras()
            del envs
            gc.collect()
        """,
        tmp_path, "-m", "kernel", "exec",
    )  # fmt: skip
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    ((caption, step),) = videos_in(rows_of(tmp_path), tmp_path)
    assert caption.startswith("rl-video-episode-0, step 0")
    assert step == 0


def test_an_environment_outlives_a_wrapper_that_wandb_has_patched(tmp_path: Path) -> None:
    """W&B's `__del__` closes; ours does not: nobody closed this environment."""
    said = run_script(
        """
        import gc
        import gymnasium as gym, wandb
        class Counting(gym.Wrapper):
            closed = 0
            def close(self):
                self.closed += 1
                super().close()
        env = Counting(gym.make("CartPole-v1", render_mode="rgb_array"))
        wandb.init(project="cartpole", monitor_gym=True)
        recorded = gym.wrappers.RecordVideo(env, "videos", episode_trigger=lambda episode: episode == 0)
        recorded.reset(seed=1)
        recorded.step(1)
        del recorded
        gc.collect()
        try:
            gym.wrappers.RecordVideo(Counting(gym.make("CartPole-v1")), "videos")
        except ValueError as error:
            assert "such as rgb_array" in str(error)
        gc.collect()
        assert env.closed == 0
        """,
        tmp_path, "-m", "kernel", "exec",
    )  # fmt: skip
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    ((caption, _),) = videos_in(rows_of(tmp_path), tmp_path)
    assert caption.startswith("rl-video-episode-0")
