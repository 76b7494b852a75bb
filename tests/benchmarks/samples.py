"""What a benchmark saw: figures of one contender, at one load, in one round; and what they say together."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

BARE = "bare"
BUSY = "bare + busy core"
"""The same beside a process that takes what nobody else wants of the other cores, and does nothing with it."""
LIBRARIES = (
    "gymnasium",
    "numpy",
    "moviepy",
    "stable_baselines3",
    "imageio",
    "imageio-ffmpeg",
    "av",
    "bubus",
    "blinker",
)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one contender."""

    benchmark: str
    load: str
    contender: str
    round: int
    figures: dict[str, float]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run of the benchmarks saw: the JSON file."""

    machine: dict[str, str]
    samples: list[Sample] = []

    def of(self, benchmark: str, load: str | None = None, contender: str | None = None) -> list[Sample]:
        """The samples of a benchmark, at a load, of a contender."""
        return [
            sample
            for sample in self.samples
            if sample.benchmark == benchmark and load in (None, sample.load) and contender in (None, sample.contender)
        ]


class Spread(NamedTuple):
    """Of several rounds: the median, the least and the most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return plain(self.median)
        return f"{plain(self.median)} ({plain(self.least)} to {plain(self.most)})"


def spread(values: Sequence[float]) -> Spread | None:
    """None where nothing was seen."""
    seen = [value for value in values if not math.isnan(value)]
    return Spread(statistics.median(seen), min(seen), max(seen)) if seen else None


def figure(samples: Sequence[Sample], name: str) -> Spread | None:
    """A figure over the rounds."""
    return spread([sample.figures[name] for sample in samples if name in sample.figures])


def ratio(samples: Sequence[Sample], below: Sequence[Sample], name: str) -> Spread | None:
    """A figure divided by another contender's in the same round, over the rounds."""
    floor = {sample.round: sample.figures.get(name, 0.0) for sample in below}
    return spread(
        [
            sample.figures[name] / floor[sample.round]
            for sample in samples
            if name in sample.figures and floor.get(sample.round)
        ]
    )


def beyond(mine: Sequence[Sample], bare: Sequence[Sample], theirs: Sequence[Sample]) -> Spread | None:
    """The processor time beyond bare's, divided by another contender's beyond bare's, round by round."""

    def seconds(samples: Sequence[Sample]) -> dict[int, float]:
        return {sample.round: sample.figures["cpu_seconds"] for sample in samples}

    floor, other = seconds(bare), seconds(theirs)
    return spread(
        [
            (taken - floor[number]) / (other[number] - floor[number])
            for number, taken in seconds(mine).items()
            if number in floor and other.get(number, 0.0) > floor[number]
        ]
    )


def plain(value: float) -> str:
    """A number with three or four digits that count."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 0.01 else f"{value:.2g}"


def machine() -> dict[str, str]:
    """What the figures were seen on."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%d %H:%M"),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
