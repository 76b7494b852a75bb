"""What all of our wrappers have: a camera, from the first reset to the close, whatever rules it films by."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from plugins.recorder.camera import Camera
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

    @property
    def recording(self) -> bool:
        """Whether a recording is running."""
        camera = self._camera
        return camera is not None and camera.tape.open and not camera.line.off

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

    # What the wrappers build on --------------------------------------------------------------------------------------

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
