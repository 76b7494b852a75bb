"""The tables that people read, made of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.loads import LOADS
from tests.benchmarks.samples import BARE, figure, plain, ratio, spread
from tests.benchmarks.suites import UPSTREAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.samples import Results, Sample, Spread


class Table(NamedTuple):
    """A title, the columns' heads, and rows of the same length."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """As Markdown that can be read as it is."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in (self.head, *self.rows)
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)


def tables(results: Results) -> Iterator[Table]:
    """One for each benchmark and load that was run."""
    for benchmark, about in (("capture", "every episode captured"), ("sparse", "every 20th episode captured")):
        for load in _in_order(sample.load for sample in results.of(benchmark)):
            yield from _recording(results, benchmark, load, f"{LOADS[load].title}, {about}")


def _recording(results: Results, benchmark: str, load: str, title: str) -> Iterator[Table]:
    bare, upstream = results.of(benchmark, load, BARE), results.of(benchmark, load, UPSTREAM)
    contenders = _in_order(sample.contender for sample in results.of(benchmark, load))
    pace, cost = [], []
    for contender in contenders:
        mine = results.of(benchmark, load, contender)
        pace.append(
            [
                contender,
                *(
                    _cell(ratio(mine, bare, name))
                    for name in ("steps_per_second", "p50_ms", "p99_ms", "p99.9_ms", "longest_ms", "done_seconds")
                ),
            ]
        )
        cost.append(
            [
                contender,
                _cell(ratio(mine, bare, "cpu_seconds")),
                _cell(beyond_bare(mine, bare, upstream)),
                _median(figure(mine, "peak_mb")),
                _frames(mine),
                _median(figure(mine, "bytes_per_frame")),
                _cell(figure(mine, "available_seconds")),
            ]
        )
    yield Table(
        f"{title}: the loop",
        ["÷ bare", "steps/s", "p50 of a step", "p99", "p99.9", "longest call", "until the videos stand"],
        pace,
    )
    yield Table(
        f"{title}: what it takes",
        [
            "contender",
            "CPU ÷ bare",
            "CPU beyond bare ÷ RecordVideo's",
            "peak memory, MB",
            "frames in files / captured",
            "bytes a frame",
            "s from an episode's end to its video",
        ],
        cost,
    )


def beyond_bare(mine: Sequence[Sample], bare: Sequence[Sample], upstream: Sequence[Sample]) -> Spread | None:
    """The processor time that recording adds, beside what RecordVideo's adds, round by round."""

    def seconds(samples: Sequence[Sample]) -> dict[int, float]:
        return {sample.round: sample.figures["cpu_seconds"] for sample in samples}

    floor, theirs = seconds(bare), seconds(upstream)
    return spread(
        [
            (taken - floor[number]) / (theirs[number] - floor[number])
            for number, taken in seconds(mine).items()
            if number in floor and theirs.get(number, 0.0) > floor[number]
        ]
    )


def _frames(samples: Sequence[Sample]) -> str:
    if not samples or "captured" not in samples[0].figures:
        return "–"
    found = sorted({(sample.figures["frames"], sample.figures["captured"]) for sample in samples})
    return "; ".join(f"{frames:,.0f} / {captured:,.0f}" for frames, captured in found)


def _cell(seen: Spread | None) -> str:
    return "–" if seen is None else str(seen)


def _median(seen: Spread | None) -> str:
    return "–" if seen is None else plain(seen.median)


def _in_order(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
