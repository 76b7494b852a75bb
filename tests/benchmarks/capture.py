"""The contenders on the loads, each turn in a process of its own, in an empty folder; they take turns, A B C A B C …"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kernel.log import read
from plugins.events import VideoAvailable
from tests.benchmarks.loads import ENVIRONMENTS
from tests.benchmarks.samples import BARE, BUSY, Sample
from tests.benchmarks.turn import RUNNERS, SB3, Order, Played
from tests.benchmarks.videos import Quality, decoded, frames_in, in_order
from tests.benchmarks.watching import python, watch
from tests.environments.bars import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
MEGABYTE = 1e6


class Failed(Exception):
    """A contender did not end as it should. The text holds its last words."""


def rounds(
    benchmark: str, orders: Sequence[tuple[str, Order]], count: int, once: Sequence[str] = ()
) -> Iterator[Sample]:
    """Let the orders take turns for so many rounds; each is given with the name of its load.

    The contenders `once` are in the first round only.
    """
    for number in range(count):
        again = [(load, order) for load, order in orders if not number or order.contender not in once]
        begin = number % max(1, len(again))  # so that nobody always follows the same one
        for load, order in (*again[begin:], *again[:begin]):
            figures = take_turn(order)
            print(f"{benchmark}, {load}, round {number + 1}, {order.contender}: {brief(figures)}", file=sys.stderr)
            yield Sample(benchmark=benchmark, load=load, contender=order.contender, round=number, figures=figures)


def take_turn(order: Order) -> dict[str, float]:
    """Run one turn and look at what it left."""
    with tempfile.TemporaryDirectory(prefix="stepreel-benchmark-") as name:
        folder = Path(name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPREEL")}
        places = [str(ROOT), str(ENVIRONMENTS), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        environment |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # its threads spin, which is no time of anybody's recording
        taken = watch([*python("tests.benchmarks.turn"), msgspec.json.encode(order).decode()], folder, environment)
        if taken.exit_code:
            raise Failed(f"{order}: exit code {taken.exit_code}\n{(folder / 'err').read_text()}")
        played = msgspec.json.decode((folder / "turn.json").read_bytes(), type=Played)
        figures = {
            "steps": float(played.steps),
            "steps_per_second": played.steps / played.loop_seconds,
            "loop_seconds": played.loop_seconds,
            "done_seconds": played.done_seconds,
            **{f"{name}_ms": seconds * 1e3 for name, seconds in played.step_seconds.items()},
            "cpu_seconds": taken.cpu_seconds,
            "all_cpu_seconds": taken.all_cpu_seconds,
            "peak_mb": taken.peak_bytes / MEGABYTE,
            **{f"peak_mb_{kind}": peak / MEGABYTE for kind, peak in taken.peaks.items()},
        }
        if order.contender in RUNNERS:
            figures["pictures_watched"] = float(played.pictures_watched)
        else:
            figures["stolen_ms"] = played.stolen_seconds * 1e3
        if order.contender not in (BARE, BUSY):
            figures |= videos_of(order, played, folder)
        return figures


def videos_of(order: Order, played: Played, folder: Path) -> dict[str, float]:
    """Frames in the files beside those captured, bytes, and how long after its episode's end a video stood."""
    videos = in_order(folder / "videos")
    sizes = [video.stat().st_size for video in videos]
    figures = {
        "videos": float(len(videos)),
        "captured": float(played.captured),
        "frames": float(sum(map(frames_in, videos))),
        "video_bytes": float(sum(sizes)),
        "bytes_per_frame": sum(sizes) / max(1, played.captured),
    }
    figures["frames_lost"] = abs(figures["captured"] - figures["frames"])
    stood = _stood_at(folder, videos)
    delays = [max(0.0, at - ended) for at, ended in zip(stood, played.ended, strict=False)]
    if delays:
        figures |= {"available_seconds": median(delays), "available_seconds_most": max(delays)}
    if order.load == "bars":
        figures["frames_misplaced"] = float(misplaced(videos, goes_on=order.contender in SB3))
    if order.keep_pictures:
        figures |= quality_of(videos[0], np.load(folder / "pictures.npy"))
    return figures


def misplaced(videos: Sequence[Path], *, goes_on: bool) -> int:
    """How many frames of the bars show another step than the one they were captured behind.

    A video begins with an episode, so that frame k shows k; or it goes on where the one before has ended.
    """
    wrong = place = 0
    for video in videos:
        place = place if goes_on else 0
        for frame in decoded(video):
            wrong += shown(frame) != place
            place += 1
    return wrong


def quality_of(video: Path, pictures: np.ndarray[Any, Any]) -> dict[str, float]:
    """How near the first video's frames come to the pictures that were captured, and what they take."""
    quality, frames = Quality(), 0
    for frame, picture in zip(decoded(video), pictures, strict=False):
        quality.add(frame, picture)
        frames += 1
    return {"psnr_db": quality.decibels, "bytes_per_frame": video.stat().st_size / frames}


def _stood_at(folder: Path, videos: Sequence[Path]) -> list[float]:
    """When each of the videos stood: ours are announced in the log, and others are last written to."""
    if not (folder / ".stepreel").exists():
        return [video.stat().st_mtime for video in videos]
    announced = {
        Path(record.event.path): record.time.timestamp() for record in read(folder / ".stepreel", VideoAvailable)
    }
    return [announced[video] for video in videos if video in announced]


def brief(figures: dict[str, float]) -> str:
    """What to show while it runs."""
    words = [f"{figures['steps_per_second']:,.0f} steps/s", f"done in {figures['done_seconds']:.1f} s"]
    words.append(f"{figures['cpu_seconds']:.1f} s of CPU, {figures['peak_mb']:.0f} MB")
    if lost := figures.get("frames_lost", 0) + figures.get("frames_misplaced", 0):
        words.append(f"{lost:.0f} FRAMES LOST OR MISPLACED")
    return ", ".join(words)
