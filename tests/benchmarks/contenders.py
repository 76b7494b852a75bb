"""What people record with: each wraps an environment, and is stepped by the same loop. All but bare ones leave MP4s."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np

from tests.benchmarks.samples import BARE, BUSY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Due = Callable[[int], bool]
    Wrap = Callable[[gym.Env[Any, Any], Path, Due], gym.Env[Any, Any]]

FRAMES_PER_SECOND = 30


class Captured(gym.Wrapper[Any, Any, Any, Any]):
    """Renders at each step of the episodes that are due, and hands the picture to whoever does something with it."""

    def __init__(self, env: gym.Env[Any, Any], folder: Path, due: Due) -> None:
        super().__init__(env)
        self.folder = folder
        self.due = due
        self.episode = -1
        self.capturing = False
        self.fps = env.metadata.get("render_fps", FRAMES_PER_SECOND)

    def reset(self, **kwargs: Any) -> Any:
        result = self.env.reset(**kwargs)
        if self.capturing:
            self.end()
        self.episode += 1
        self.capturing = self.due(self.episode)
        if self.capturing:
            self.begin(self.folder / f"rl-video-episode-{self.episode}.mp4")
            self.take(self.env.render())
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        if self.capturing:
            self.take(self.env.render())
            if result[2] or result[3]:
                self.end()
                self.capturing = False
        return result

    def close(self) -> None:
        if self.capturing:
            self.end()
            self.capturing = False
        self.env.close()

    def begin(self, path: Path) -> None: ...

    def take(self, picture: Any) -> None: ...

    def end(self) -> None: ...


class BesideBusyCore(Captured):
    """Bare, on a machine that is at work all the same: whoever encodes beside the loop can do no better."""

    def __init__(self, env: gym.Env[Any, Any], folder: Path, due: Due) -> None:
        super().__init__(env, folder, due)
        idle = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); print(flush=True)"
        self._busy = subprocess.Popen([sys.executable, "-c", f"{idle}\nwhile True: pass"], stdout=subprocess.PIPE)
        assert self._busy.stdout is not None
        self._busy.stdout.readline()

    def close(self) -> None:
        super().close()
        self._busy.kill()
        self._busy.communicate()


class InlineImageio(Captured):
    """`imageio.get_writer`, as its documentation has it, but for pictures of their own size."""

    def begin(self, path: Path) -> None:
        import imageio

        # By default it makes sizes multiples of 16, and so another picture.
        self._writer = imageio.get_writer(path, fps=self.fps, macro_block_size=2)

    def take(self, picture: Any) -> None:
        self._writer.append_data(picture)

    def end(self) -> None:
        self._writer.close()


class InlinePyAV(Captured):
    """PyAV with the settings of our encoder pool."""

    def begin(self, path: Path) -> None:
        import av
        from av.codec.context import ThreadType

        from plugins.encoder_pool.options import EncoderPoolOptions
        from plugins.video.ffmpeg import KEYFRAME_SECONDS

        ours = EncoderPoolOptions()
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        stream: Any = self._container.add_stream(
            ours.codec, rate=self.fps, options={"preset": ours.preset, "crf": str(ours.crf), "profile": "high"}
        )
        stream.pix_fmt = "yuv420p"
        stream.gop_size = KEYFRAME_SECONDS * self.fps
        stream.thread_count = 1
        stream.thread_type = ThreadType.SLICE
        self._stream = stream
        self._sized = False

    def take(self, picture: Any) -> None:
        import av

        if not self._sized:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._sized = True
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", interpolation="AREA")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def end(self) -> None:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()


class ThreadAndQueue(Captured):
    """What people write by hand: a queue, and a thread that feeds an ffmpeg for each video."""

    def __init__(self, env: gym.Env[Any, Any], folder: Path, due: Due) -> None:
        super().__init__(env, folder, due)
        folder.mkdir(parents=True, exist_ok=True)
        self._queue: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def begin(self, path: Path) -> None:
        self._queue.put(path)

    def take(self, picture: Any) -> None:
        self._queue.put(picture)

    def end(self) -> None:
        self._queue.put(None)

    def close(self) -> None:
        super().close()
        self._queue.put("the end")
        self._thread.join()

    def _feed(self) -> None:
        while (path := self._queue.get()) != "the end":
            picture = self._queue.get()
            height, width, _ = picture.shape
            encoder = subprocess.Popen(
                [
                    *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo"),
                    *("-pixel_format", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(self.fps)),
                    *("-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path)),
                ],
                stdin=subprocess.PIPE,
            )
            assert encoder.stdin is not None
            while picture is not None:
                encoder.stdin.write(picture.tobytes())
                picture = self._queue.get()
            encoder.stdin.close()
            encoder.wait()


def upstream(env: gym.Env[Any, Any], folder: Path, due: Due) -> gym.Env[Any, Any]:
    """Gymnasium's RecordVideo, which encodes by moviepy."""
    return gym.wrappers.RecordVideo(env, str(folder), episode_trigger=due)


def ours(env: gym.Env[Any, Any], folder: Path, due: Due, **options: Any) -> gym.Env[Any, Any]:
    """`stepreel.RecordVideo`, with all its defaults: the steps of captured episodes are told, too."""
    from stepreel import RecordVideo

    return RecordVideo(env, folder, episode_trigger=due, **options)


CONTENDERS: dict[str, Wrap] = {
    BARE: Captured,
    BUSY: BesideBusyCore,
    "stepreel": ours,
    "RecordVideo": upstream,
    "imageio": InlineImageio,
    "PyAV": InlinePyAV,
    "thread": ThreadAndQueue,
}
"""By environments of their own. Those of Stable-Baselines3 are in `turn`, as they have a loop of their own."""
