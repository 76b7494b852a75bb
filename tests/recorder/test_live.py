from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from plugins.events import CaptureSettings
from plugins.recorder import live
from plugins.recorder.line import Line
from plugins.recorder.live import Moment, NoMoment, Watched, Watching, Window, read_moment, together
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Control, Outbox, Producer
from plugins.recorder.tape import Tape

if TYPE_CHECKING:
    from pathlib import Path


def picture(number: int) -> Any:
    return np.full((8, 10, 3), number, np.uint8)


def watched(producer: Producer, *workers: int, seconds: float = 60.0) -> None:
    """As the kernel would have it by `control.json`, whose look is four times a second."""
    watching = {"test": Watching(until=time.time() + seconds, workers=list(workers))}
    producer.outbox.control = Control(watching=watching)
    producer.outbox.watched = together(watching.values(), time.time())


def recorder(producer: Producer, mode: Any) -> Recorder:
    return Recorder(
        producer,
        worker=3,
        env_id="Env-v0",
        fps=30,
        video_path=lambda episode: f"videos/{episode}.mp4",
        capture=CaptureSettings(mode=mode),
    )


def look(producer: Producer, worker: int = 3) -> tuple[Moment, Any]:
    """What is shown; waits for the writer thread."""
    file = live.live_file(producer.outbox.folder, worker)
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return read_moment(file.read_bytes())


@pytest.mark.parametrize("mode", ["every", "off"])
def test_who_watches_sees_the_picture_of_the_step_it_names_captured_or_not(mode: Any, home: Path) -> None:
    producer = Producer(home, "s")
    recording = recorder(producer, mode)
    recording.reset([0.0], {}, seed=1, episode=7)
    if recording.recording:
        recording.capture_frame(picture(0))
    watched(producer)
    for number in range(1, 30):
        drawn = picture(number) if recording.wanted else None
        recording.step(0, [0.0], 0.5, False, False, {}, drawn, 0.001, "agent_0", 0.0001)
    moment, seen = look(producer)
    assert (moment.session, moment.worker, moment.episode) == ("s", 3, 7)
    assert (moment.step, moment.total_reward) == (1, 0.5), "the next one is due in a tenth of a second"
    assert moment.captured == (mode == "every")
    np.testing.assert_array_equal(seen, picture(moment.step))
    producer.close()
    assert not list(producer.outbox.folder.glob("live-*")), "nothing is left of it"


def test_nobody_watching_no_picture_is_wanted_and_no_file_made(home: Path) -> None:
    producer = Producer(home, "s")
    recording = recorder(producer, "off")
    recording.reset([0.0], {}, seed=1, episode=0)
    for _ in range(100):
        assert not recording.wanted
        recording.step(0, [0.0], 1.0, False, False, {}, None, 0.001)
    watched(producer, 4)
    assert not recording.wanted, "another worker is watched"
    recording.step(0, [0.0], 1.0, False, False, {}, None, 0.001)
    assert not producer.outbox.moments
    producer.close()


def test_a_lease_that_is_over_ends_the_watching(home: Path) -> None:
    producer = Producer(home, "s")
    recording = recorder(producer, "off")
    recording.reset([0.0], {}, seed=1, episode=0)
    watched(producer, seconds=0.5)
    recording.step(0, [0.0], 1.0, False, False, {}, picture(1), 0.001)
    look(producer)
    deadline = time.monotonic() + 60
    while producer.outbox.watched is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not recording.wanted
    assert not list(producer.outbox.folder.glob("live-*"))
    producer.close()


class Clock:
    """Stands still, unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("render_seconds", "most"), [(0.05, 11), (0.002, 101), (0.0, 101), (1.0, 2)])
def test_rendering_for_those_who_watch_takes_a_twentieth_of_the_time(
    render_seconds: float, most: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(live, "perf_counter", clock)
    outbox = Outbox(home, "s", 1000, 1000)
    outbox.watched = Watched(until=1e12, fps=10.0, workers=frozenset())
    window = Window(Tape(Line(Producer(home, "s"), "Env-v0"), env_id="Env-v0"))
    rendered = 0
    while clock.now < 110.0:
        clock.now += 0.001
        if window.due(outbox, 0):
            clock.now += render_seconds
            window.offer(picture(1), render_seconds)
            rendered += 1
        window.step(outbox, 0, episode=0, step=1, total=0.0, captured=False, evaluation=False)
    assert 0 < rendered <= most
    assert (rendered - 1) * render_seconds <= 0.05 * 10.0


def test_what_all_want_together() -> None:
    assert together([], 0.0) is None
    assert together([Watching(until=5.0)], 6.0) is None
    some = together([Watching(until=9.0, fps=3.0, workers=[1]), Watching(until=8.0, fps=50.0, workers=[2])], 6.0)
    assert some == Watched(until=9.0, fps=10.0, workers=frozenset({1, 2}))
    everyone = together([Watching(until=9.0, workers=[1]), Watching(until=8.0)], 6.0)
    assert everyone is not None
    assert everyone.workers == frozenset()


def test_flips_grey_and_alpha_come_back_as_they_were(home: Path) -> None:
    producer = Producer(home, "s")
    recording = recorder(producer, "off")
    drawn = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    for worker, each in enumerate((drawn[::-1], drawn[:, ::-1], drawn.swapaxes(0, 1), drawn[:, :, :3], drawn[:, :, 0])):
        recording.reset([0.0], {}, seed=1, episode=worker)
        watched(producer)
        assert recording.telemetry.window is not None
        recording.telemetry.window._next = 0.0
        recording.step(0, [0.0], 1.0, False, False, {}, each, 0.001)
        deadline = time.monotonic() + 60
        while (found := look(producer))[0].episode != worker:
            assert time.monotonic() < deadline
        seen = found[1]
        np.testing.assert_array_equal(seen.squeeze(), each.squeeze())
    producer.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SRLIVE1\n",
        b"SRLIVE1\n\xff\xff\xff\x7f",
        b"SRLIVE1\n\x01\x00\x00\x00\xc0",
        b"another file",
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(NoMoment):
        read_moment(content)


def test_a_picture_of_a_size_that_cannot_be_is_refused() -> None:
    from plugins.recorder.frames import ChunkHeader

    for width, height, channels in ((10**6, 10**6, 3), (0, 5, 3), (-5, -5, 3), (4, 4, 2)):
        header = ChunkHeader(width=width, height=height, channels=channels)
        moment = Moment(
            session="s", worker=0, episode=0, step=0, total_reward=None, time=0.0, captured=False, picture=header
        )
        packed = live._encode(moment)
        with pytest.raises(NoMoment):
            read_moment(live.MAGIC + live._LENGTH.pack(len(packed)) + packed + b"\x00" * 16)
