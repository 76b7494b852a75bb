"""Each sub-environment of a vector environment with recordings of its own: its triggers, its files, its telemetry.

    {prefix}-env{i}-episode-{N}.mp4     episode N of sub-environment i
    {prefix}-env{i}-step-{N}.mp4        begun behind the vector environment's step N

One call of `render()` gives all that are recorded at a step their pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plugins.recorder.batch import Batch, seed_of
from plugins.recorder.camera import BY_HAND, CLOSED
from plugins.recorder.filming import AT_STEP, RESET_EARLY, Filming, last_numbers
from plugins.recorder.mosaic import apart
from plugins.recorder.tape import NOTHING_SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plugins.events import SessionStarted
    from plugins.recorder.apart import Rows
    from plugins.recorder.batch import BatchStep
    from plugins.recorder.camera import Camera
    from plugins.recorder.filming import Order
    from plugins.recorder.requests import Decision


class Cell(Filming):
    """One sub-environment, recorded by RecordVideo's rules."""

    def __init__(self, index: int, picture: Callable[[int], Any], order: Order, about: SessionStarted) -> None:
        """`picture` renders that of a sub-environment."""
        self.index = index
        self._picture = picture
        self._set_out(order, about)
        self.step_id = self.episode_id = -1
        self._decision: Decision | None = None
        """What was decided for the episode that begins now."""

    def follow(self, owner: Filming) -> None:
        """Take over what a script may have set in its wrapper."""
        self.video_folder = owner.video_folder
        self.name_prefix = owner.name_prefix
        self.frames_per_sec = owner.frames_per_sec
        self.video_length = owner.video_length
        self.episode_trigger = owner.episode_trigger
        self.step_trigger = owner.step_trigger
        self.gc_trigger = owner.gc_trigger

    def go_on_numbering(self) -> None:
        """Number behind the files that are there."""
        whose = f"env{self.index}-"
        self.step_id, self.episode_id = last_numbers(Path(self.video_folder), self.name_prefix, whose)

    def ready(self) -> Camera | None:
        """Have a camera of this process, or None where there can be none."""
        with self._guarded():
            self._ready()
        camera = self.own
        return None if camera is None or camera.closed else camera

    def hush(self) -> None:
        """Not to say that nothing can be recorded, as another one has."""
        self._told_unusable = True

    @property
    def own(self) -> Camera | None:
        """The camera, where it is this process's."""
        camera = self._camera
        return None if camera is None or camera.foreign else camera

    @property
    def live(self) -> Camera | None:
        """The camera, where it records."""
        camera = self.own
        return None if camera is None or camera.line.off else camera

    @property
    def episode(self) -> int:
        """The last episode that the telemetry was told of."""
        return self._episode

    # Episodes --------------------------------------------------------------------------------------------------------

    def turn(self, because: str = "") -> None:
        """Where an episode begins: end the recording that runs, and begin one where it is due."""
        self.episode_id += 1
        self._decision = self._decide(because)

    def open(self, observation: Any, info: Any, seed: int | None = None) -> None:
        """Begin the episode in the telemetry, and show it."""
        decision, self._decision = self._decision, None
        if decision is not None:
            self._open(decision, observation, info, seed)

    def step(self, batch: Batch, place: int, step: BatchStep) -> None:
        """Show and tell a step, where that is to be."""
        camera = self.live
        if camera is None:
            return
        with self._guarded():
            shown = NOTHING_SHOWN
            if camera.goes_on():
                self._capture_frame()
                shown = camera.tape.shown()
            episode = batch.tell(place, step, step.observation(place), step.info(place), shown)
            if episode is not None:
                self._over(camera, episode)
            self._stop_at_length()

    # Recordings ------------------------------------------------------------------------------------------------------

    def begin(self, name: str) -> None:
        """Begin a recording, as somebody asked for it."""
        self._start(f"{name}-env{self.index}", BY_HAND)

    def begin_at_step(self, step: int) -> None:
        """Begin a recording behind the vector environment's step."""
        self._start(self._name_video("step", step), AT_STEP)

    def end(self, because: str) -> None:
        """End the recording that runs, if one does."""
        if self.recording:
            self._stop(because)

    def capture(self) -> None:
        """Add a picture to the recording that runs, if one does."""
        if self.recording:
            self._capture_frame()

    def close(self) -> None:
        """End everything, and wait for nothing."""
        camera = self.live
        if camera is not None:
            with self._guarded():
                camera.close()

    def let_go(self) -> None:
        """Seal what is open."""
        self._let_go()

    def fail(self, error: Exception) -> None:
        """Turn off."""
        self._fail(error)

    def _name_video(self, kind: Literal["episode", "step"], number: int) -> str:
        return f"{self.name_prefix}-env{self.index}-{kind}-{number}"

    def _render(self) -> Any:
        return self._picture(self.index)


class Each:
    """The cells of a vector environment. It does what the wrapper would do for one picture of all."""

    def __init__(self, owner: Any, order: Order, about: SessionStarted, rows: Rows, spaces: tuple[Any, Any]) -> None:
        """One for each of the rows. The `owner`, a wrapper, is not held: who lets go of it lets go of all of this."""
        self.batch: Batch | None = None
        """Their telemetry, once there is some."""
        self.cells = [Cell(index, self._picture, order, about) for index in rows.chosen]
        self._env = owner.env
        self.rows = rows
        self._spaces = spaces
        self._pictures: list[Any] | Exception | None = None
        """What was rendered since the last step, or what came of it."""
        if order.resume:
            self.follow(owner)
            for cell in self.cells:
                cell.go_on_numbering()
            owner.episode_id = self.cells[0].episode_id
            owner.step_id = max(cell.step_id for cell in self.cells)

    def __getstate__(self) -> dict[str, Any]:
        """A copy's cells have no cameras, and so no telemetry."""
        return {**self.__dict__, "batch": None, "_pictures": None}

    @property
    def recording(self) -> bool:
        """Whether any is recorded."""
        return any(cell.recording for cell in self.cells)

    @property
    def live(self) -> bool:
        """Whether anything can be told."""
        return self.batch is not None and any(cell.live is not None for cell in self.cells)

    def follow(self, owner: Filming) -> None:
        """Take over what a script may have set in its wrapper."""
        for cell in self.cells:
            cell.follow(owner)

    # Behind resets and steps -----------------------------------------------------------------------------------------

    def reset(self, owner: Filming, places: Sequence[int], observations: Any, infos: Any, seed: Any) -> None:
        """Behind a reset of the environments in these places."""
        self.follow(owner)
        self._pictures = None
        batch = self._ready()
        if batch is None:
            for place in places:
                self.cells[place].turn(RESET_EARLY)
            return
        observation, info = batch.apart(observations, infos)
        for place in places:
            cell = self.cells[place]
            cell.turn(RESET_EARLY)
            cell.open(observation(place), info(place), seed_of(seed, cell.index))
            batch.began(place, cell.episode, NOTHING_SHOWN)

    def tell_ends(self, step: BatchStep) -> None:
        """Of a batch that resets in the same step: the last steps, which no picture shows."""
        assert self.batch is not None
        for place, episode in self.batch.tell_ends(step):
            camera = self.cells[place].live
            if camera is not None:
                camera.episode_over(episode, seal=False)

    def turn(self, owner: Filming, opened: Sequence[int]) -> None:
        """Behind a step, which began new episodes in these places."""
        self._pictures = None
        for place in opened:
            self.cells[place].follow(owner)
            self.cells[place].turn()

    def record(self, step: BatchStep, opened: Sequence[int], *, same_step: bool) -> None:
        """Behind all that begins and ends recordings: show and tell the step."""
        batch = self.batch
        assert batch is not None
        busy = {*batch.told, *step.ended}
        for place, cell in enumerate(self.cells):
            if place not in opened and (place in busy or cell.recording):
                cell.step(batch, place, step)
        batch.count(step)
        for place in opened:
            cell = self.cells[place]
            cell.open(*(step.first(place) if same_step else (step.observation(place), step.info(place))))
            batch.began(place, cell.episode, NOTHING_SHOWN)
        camera = next(filter(None, (cell.live for cell in self.cells)), None)
        if camera is not None:  # the step was one, so one of them counts it
            clock = camera.line.meter.bare if self._pictures is None else camera.line.meter.captured
            clock.add(step.seconds)

    # Recordings ------------------------------------------------------------------------------------------------------

    def begin(self, owner: Filming, name: str) -> None:
        """Begin a recording of each, as somebody asked for it."""
        self.follow(owner)
        self._ready()
        for cell in self.cells:
            cell.begin(name)

    def begin_at_step(self, owner: Filming, step: int) -> None:
        """Begin a recording of each behind a step."""
        self.follow(owner)
        self._ready()
        for cell in self.cells:
            cell.begin_at_step(step)

    def end(self, because: str) -> None:
        """End all that run."""
        for cell in self.cells:
            cell.end(because)

    def capture(self) -> None:
        """Render, and add to all that run."""
        self._pictures = None
        for cell in self.cells:
            cell.capture()

    def flush(self, timeout: float | None) -> bool:
        """Wait for the videos of all."""
        cameras = [camera for cell in self.cells if (camera := cell.own) is not None]
        awaited = [each for camera in cameras for each in camera.awaited]
        return not cameras or cameras[0].script.wait_for(awaited, timeout)

    def set_step(self, step: int) -> None:
        """Tell the training's own count of steps."""
        for cell in self.cells:
            cell.set_step(step)

    def close(self) -> None:
        """End everything, and wait for nothing."""
        self.end(CLOSED)  # all of them before one of them gives up the names
        for cell in self.cells:
            cell.close()

    def let_go(self) -> None:
        """Seal what is open of all."""
        for cell in self.cells:
            cell.let_go()

    def fail(self, error: Exception) -> None:
        """Turn all off."""
        for cell in self.cells:
            cell.fail(error)

    # Its parts -------------------------------------------------------------------------------------------------------

    def _ready(self) -> Batch | None:
        """Cameras for all, and their telemetry as that of one batch; None where nothing can be recorded."""
        cameras: list[Camera] = []
        for cell in self.cells:
            before = cell.own
            camera = cell.ready()
            if camera is None:
                for other in self.cells:
                    other.hush()
                return None
            if cameras and camera is not before:
                camera.share_names(cameras[0])
            cameras.append(camera)
        streams = [camera.telemetry for camera in cameras]
        if self.batch is None or any(a is not b for a, b in zip(streams, self.batch.streams, strict=True)):
            self.batch = Batch(streams, self.rows, self._spaces)
        return self.batch

    def _picture(self, index: int) -> Any:
        if self._pictures is None:
            try:
                self._pictures = self._rendered()
            except Exception as error:  # noqa: BLE001 - it is raised for each one that asks
                self._pictures = error
        if isinstance(self._pictures, Exception):
            raise self._pictures
        return self._pictures[index]

    def _rendered(self) -> list[Any]:
        rendered = self._env.render()
        pictures = apart(rendered, self.rows.size)
        if pictures is not None:
            return pictures
        if self.rows.size == 1:
            return [rendered]
        raise ValueError("it gives one picture of all sub-environments; per_env=True needs one of each")
