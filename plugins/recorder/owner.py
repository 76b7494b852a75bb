"""What all of our wrappers have: a camera, from the first reset to the close, whatever rules it films by."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from plugins.recorder.camera import Camera
from plugins.recorder.derived import has_own, reads_frames
from plugins.recorder.home import HomeUnusable
from plugins.recorder.line import warn
from plugins.recorder.script import announce_root, script_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from plugins.events import SessionStarted
    from plugins.recorder.filming import Order


class CameraOwner:
    """Owns a camera; see the module."""

    orig_close: Callable[[], Any]

    _environments = 1
    """How many are in one picture, each with telemetry of its own."""

    _STOP = "stop_recording"
    """The method that ends a recording, and that a derived class may have itself."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self:
        """Have an `orig_close` from the first moment.

        Where W&B's `monitor_gym` has patched the class, the `__del__` of a wrapper that nobody closed calls it, which
        would otherwise close the user's environment.
        """
        self = super().__new__(cls)
        self.orig_close = _nothing
        return self

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no camera: it records from its own reset on."""
        return {**self.__dict__, "_camera": None, "orig_close": _nothing}

    def _take_order(self, order: Order, about: SessionStarted, agents: Sequence[str] = ("agent_0",)) -> None:
        """Take what the wrapper was told. `about` is the session, were this its first environment."""
        self._order = order
        self._about = about
        self._agents = tuple(agents)
        self._camera: Camera | None = None
        self._training_step: int | None = None
        self._told_unusable = False
        self.recorded_frames: list[Any] = []
        """Empty: a frame is compressed and on its way as soon as it is captured.

        What a derived class adds to it is taken over. Where one reads it, frames stay in it until the recording ends.
        """
        self._frames_stay = reads_frames(type(self))
        self._frames_known = 0
        """How many of `recorded_frames` are in the recording."""
        self._captured = 0
        """Pictures of the running recording, as the library's own would count them."""
        self._stops_itself = has_own(type(self), self._STOP)
        """A derived class does something at a recording's end, often with its file."""

    @property
    def recording(self) -> bool:
        """Whether a recording is running. A derived class may set it, which begins or ends one."""
        camera = self._camera
        return camera is not None and camera.tape.open and not camera.line.off

    @recording.setter
    def recording(self, runs: bool) -> None:
        with self._guarded():
            if runs:
                if not self.recording:
                    self._begin_recording()
            elif self._camera is None or not self.recording:
                pass
            elif self._frames_stay:
                self._camera.drop_recording(f"{type(self).__name__} makes its videos itself")
                self._forget_frames()
            else:
                self._end_recording()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the videos of all ended recordings of this environment stand, have failed, or cannot be made.

        Returns False where that would take longer than `timeout` seconds.
        """
        camera = self._camera
        if camera is None or camera.foreign:
            return True
        return camera.script.wait_for(camera.awaited, timeout)

    def set_step(self, step: int) -> None:
        """Tell the training's own count of steps: the x-axis of this environment's episodes and videos from now on."""
        self._training_step = int(step)
        if self._camera is not None:
            for stream in self._camera.streams:
                stream.training_step = self._training_step

    # What a wrapper says of itself -----------------------------------------------------------------------------------

    def _begin_recording(self) -> None:
        """Begin a recording by the name that it has been given."""
        raise NotImplementedError

    def _end_recording(self) -> None:
        """End the running recording, if there is one."""
        raise NotImplementedError

    # What the wrappers build on --------------------------------------------------------------------------------------

    def _add(self, frame: Any, seconds: float) -> None:
        """Add a picture to the running recording."""
        camera = self._camera
        assert camera is not None
        self._captured += 1
        camera.tape.add(frame, seconds)
        if self._frames_stay:
            self.recorded_frames.append(frame)
            self._frames_known += 1

    def _take_over(self) -> None:
        """Add what a derived class has captured into `recorded_frames`."""
        if not self.recorded_frames:
            return
        new = self.recorded_frames[self._frames_known :]
        camera = self._camera
        if camera is not None and self.recording:
            for frame in new:
                self._captured += 1
                camera.tape.add(frame, 0.0)
        if self._frames_stay:
            self._frames_known = len(self.recorded_frames)
        else:
            self._forget_frames()

    def _forget_frames(self) -> None:
        self.recorded_frames = []
        self._frames_known = 0

    def _ready(self) -> Camera | None:
        """The camera; a new one at the first reset, after a fork and after `close`. None: nothing is recorded."""
        camera = self._camera
        if camera is None or camera.foreign or camera.closed:
            try:
                script = script_in(self._order.home)
            except (OSError, HomeUnusable) as error:
                if not self._told_unusable:
                    self._told_unusable = True
                    warn(f"nothing is recorded, and the training goes on: {error}")
                return None
            self._camera = camera = Camera(
                script,
                env_id=self._about.env_id,
                tells=self._order.telemetry,
                keep=self._order.keep,
                max_videos=self._order.max_videos,
                on_video=self._order.on_video,
                waits=self._order.wait,
                agents=self._agents,
                about=self._about,
            )
            camera.telemetry.training_step = self._training_step
            camera.film_batch(self._environments)
            self.orig_close = camera.end
        return None if camera.line.off else camera

    def _close_camera(self) -> None:
        """Seal everything, and wait for the videos."""
        camera = self._camera
        if camera is None or camera.foreign:
            return
        with self._guarded():
            camera.close()
        if self._order.wait:
            self.flush()

    def _let_go(self) -> None:
        """In `__del__`: seal what is open, and wait for nothing. Silent on an object that was never finished."""
        camera = self.__dict__.get("_camera")
        if camera is not None:
            camera.end()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let no exception of ours reach the training loop."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the training loop goes on, whatever it is
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        camera = self._camera
        if camera is not None:
            camera.fail(error)
        elif not self._told_unusable:
            self._told_unusable = True
            warn(f"{self._about.env_id}: nothing is recorded ({type(error).__name__}: {error})")


def _nothing() -> None:
    """There is no camera yet."""


announce_root()  # a script may only hand our classes to processes that wrap, as Stable-Baselines3's make_vec_env does
