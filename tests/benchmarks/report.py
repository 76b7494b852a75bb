"""The tables that people read, made of samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.loads import LOADS
from tests.benchmarks.samples import BARE, BUSY, Spread, beyond, figure, plain, ratio
from tests.benchmarks.suites import OURS, UPSTREAM
from tests.benchmarks.targets import targets
from tests.benchmarks.turn import RUNNER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.benchmarks.samples import Results, Sample

    Column = tuple[str, Callable[[list[Sample]], object]]


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


def tables(results: Results) -> dict[str, list[Table]]:
    """Of each benchmark that was run, and of the targets."""
    made = {
        "capture": [*_recording(results, "capture", "every episode captured")],
        "sparse": [*_recording(results, "sparse", "every 20th episode captured")],
        "unrendered": [*_unrendered(results)],
        "several": [*_recording(results, "several", "every episode captured")],
        "long": [*_long(results)],
        "quality": [*_quality(results)],
        "frames": [*_frames(results)],
        "available": [*_available(results)],
        "viewer": [*_viewer(results)],
        "wrapper": [*_wrapper(results)],
        "training": [*_training(results)],
        "bus": [*_bus(results)],
        "kernel": [*_kernel(results)],
    }
    found = {name: seen for name, seen in made.items() if seen}
    return found | {"targets": [_targets(results)], "machine": [_machine(results)]}


def put_into(page: Path, made: dict[str, list[Table]]) -> None:
    """Write the tables between a page's marks `<!-- name -->` and `<!-- /name -->`."""
    text = page.read_text(encoding="utf-8")
    for name, seen in made.items():
        body = "\n\n".join(f"**{table.title}**\n\n{table}" if table.title else str(table) for table in seen)
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, text=f"{begin}\n\n{body}\n\n{end}": text, text, flags=re.DOTALL)  # type: ignore[misc]  # mypy sees no lambda's default
    page.write_text(text, encoding="utf-8")


def _grid(title: str, first: str, groups: Iterable[tuple[str, list[Sample]]], columns: Sequence[Column]) -> Table:
    """A row for each group of samples, whose name is in the first column."""
    rows = [[name, *(_cell(of(samples)) for _, of in columns)] for name, samples in groups if samples]
    return Table(title, [first, *(head for head, _ in columns)], rows)


def _recording(results: Results, benchmark: str, about: str) -> Iterator[Table]:
    for load in _in_order(sample.load for sample in results.of(benchmark)):
        bare, upstream = results.of(benchmark, load, BARE), results.of(benchmark, load, UPSTREAM)
        groups = _by_contender(results.of(benchmark, load))
        host = [("ms that the host took", _spread("stolen_ms"))] if figure(bare, "stolen_ms") else []

        def to_bare(name: str, bare: list[Sample] = bare) -> Callable[[list[Sample]], Spread | None]:
            return lambda mine: ratio(mine, bare, name)

        title = f"{_title(load)}, {about}"
        yield _grid(
            f"{title}: the loop",
            "÷ bare",
            groups,
            [
                ("steps/s", to_bare("steps_per_second")),
                ("p50 of a step", to_bare("p50_ms")),
                ("p99", to_bare("p99_ms")),
                ("p99.9", to_bare("p99.9_ms")),
                ("longest call", to_bare("longest_ms")),
                ("until the last video stands", to_bare("done_seconds")),
                *host,
            ],
        )
        yield _grid(
            f"{title}: what it takes",
            "",
            [(contender, samples) for contender, samples in groups if contender != BUSY],
            [
                ("CPU ÷ bare", to_bare("cpu_seconds")),
                (
                    "CPU beyond bare ÷ RecordVideo's",
                    lambda mine, bare=bare, upstream=upstream: beyond(mine, bare, upstream),  # type: ignore[misc]  # mypy sees no lambda's default
                ),
                ("peak memory, MB", _median("peak_mb")),
                ("frames in files / captured", _frames_of),
                ("bytes a frame", _median("bytes_per_frame")),
                ("s from an episode's end to its video", _spread("available_seconds")),
            ],
        )


def _unrendered(results: Results) -> Iterator[Table]:
    samples = results.of("unrendered")
    bare = results.of("unrendered", None, BARE)
    if samples:
        yield _grid(
            "CartPole-v1, never rendered, every step told",
            "",
            _by_contender(samples),
            [
                ("steps/s", _median("steps_per_second")),
                ("÷ bare", lambda mine: ratio(mine, bare, "steps_per_second")),
                ("p99 ÷ bare", lambda mine: ratio(mine, bare, "p99_ms")),
                ("longest call ÷ bare", lambda mine: ratio(mine, bare, "longest_ms")),
                ("CPU ÷ bare", lambda mine: ratio(mine, bare, "cpu_seconds")),
            ],
        )


def _long(results: Results) -> Iterator[Table]:
    samples = results.of("long")
    if samples:
        groups = [
            (f"{contender}: {load}", results.of("long", load, contender))
            for contender in _in_order(sample.contender for sample in samples)
            for load in _in_order(sample.load for sample in samples)
        ]
        yield _grid(
            "One episode: peak memory, MB",
            "",
            groups,
            [
                ("all together", _median("peak_mb")),
                ("the script", _median("peak_mb_script")),
                ("the recorder process", _median("peak_mb_recorder")),
                ("an ffmpeg", _median("peak_mb_ffmpeg")),
                ("frames in files / captured", _frames_of),
                ("misplaced", _median("frames_misplaced")),
                ("s until the video stands", _median("done_seconds")),
            ],
        )


def _quality(results: Results) -> Iterator[Table]:
    for load in _in_order(sample.load for sample in results.of("quality")):
        yield _grid(
            f"{_title(load)}: the first video beside what was captured",
            "",
            _by_contender(results.of("quality", load)),
            [("PSNR, dB", _median("psnr_db")), ("bytes a frame", _median("bytes_per_frame"))],
        )


def _frames(results: Results) -> Iterator[Table]:
    if results.of("frames"):
        yield _grid(
            "Pictures that tell their own index, decoded",
            "",
            _by_contender(results.of("frames")),
            [
                ("captured", _median("captured")),
                ("in the files", _median("frames")),
                ("not in their place", _median("frames_misplaced")),
            ],
        )


def _available(results: Results) -> Iterator[Table]:
    if results.of("available"):
        yield _grid(
            "One episode of 500 frames of 600×400, and nothing else",
            "",
            _by_contender(results.of("available")),
            [
                ("s from its end to its video", _spread("available_seconds")),
                ("s from its beginning to its video", _spread("done_seconds")),
            ],
        )


def _viewer(results: Results) -> Iterator[Table]:
    samples, without = results.of("viewer"), results.of("viewer", None, RUNNER)
    if samples:
        yield _grid(
            "CartPole-v1, 600×400, four workers, every 20th episode captured",
            "÷ without the viewer",
            _by_contender(samples),
            [
                ("steps/s", lambda mine: ratio(mine, without, "steps_per_second")),
                ("until the last video stands", lambda mine: ratio(mine, without, "done_seconds")),
                ("CPU", lambda mine: ratio(mine, without, "cpu_seconds")),
                ("peak memory", lambda mine: ratio(mine, without, "peak_mb")),
                ("pictures watched", _spread("pictures_watched")),
            ],
        )


def _wrapper(results: Results) -> Iterator[Table]:
    samples = results.of("wrapper")
    if samples:
        rows = [[name, str(figure(samples, name))] for name in samples[0].figures]
        yield Table("A step of an environment that does nothing", ["", "µs of CPU"], rows)


def _training(results: Results) -> Iterator[Table]:
    if results.of("training"):
        yield _grid(
            "A whole PPO training",
            "",
            _by_contender(results.of("training")),
            [
                ("s of wall clock", _spread("wall_seconds")),
                ("s of CPU, the script", _spread("own_cpu_seconds")),
                ("s of CPU, all it started", _spread("all_cpu_seconds")),
                ("longest step, ms", _spread("longest_step_ms")),
                ("s from the last step to the end", _spread("closing_seconds")),
                ("videos", _median("videos")),
                ("frames", _median("frames")),
            ],
        )


def _bus(results: Results) -> Iterator[Table]:
    samples = results.of("bus")
    loads = _in_order(sample.load for sample in samples)

    def of(name: str, load: str) -> Column:
        about = "events/s" if name == "events_per_second" else "events per core-second"
        return f"{load}: {about}", lambda mine: figure([each for each in mine if each.load == load], name)

    if samples:
        yield _grid(
            "From publish to three subscriptions",
            "",
            _by_contender(samples),
            [of(name, load) for load in loads for name in ("events_per_second", "events_per_core_second")],
        )


KERNEL = {
    ("tables", "events_per_second"): "steps/s, until they are rows",
    ("tables", "events_per_core_second"): "the same, per second of CPU",
    ("rebuild", "events_per_second"): "steps/s, tables rebuilt from the log",
    ("tail", "lag_ms"): "ms from publish to `tail --follow`",
    ("tail", "longest_lag_ms"): "the longest of them",
    ("start", "seconds"): "s until all plugins are at work",
    ("start", "cpu_seconds"): "s of CPU for that",
    ("idle", "percent_of_a_core"): "% of a core while idle",
}


def _kernel(results: Results) -> Iterator[Table]:
    rows = []
    for (benchmark, name), about in KERNEL.items():
        samples = results.of(benchmark)
        if samples:
            rows.append([about, samples[0].load, _cell(figure(samples, name))])
    if rows:
        yield Table("The kernel", ["", "with", "seen"], rows)


def _targets(results: Results) -> Table:
    words = {None: "not measured", True: "met", False: "not met"}
    rows = [[target.figure, target.wanted, _cell(target.seen), words[target.met]] for target in targets(results)]
    return Table("", ["figure", "target", "seen", ""], rows)


def _machine(results: Results) -> Table:
    return Table("", ["", ""], [[name, value] for name, value in results.machine.items()])


def _by_contender(samples: list[Sample]) -> list[tuple[str, list[Sample]]]:
    first = (BARE, BUSY)
    names = sorted(
        _in_order(sample.contender for sample in samples), key=lambda name: (name not in first, name[:8] != OURS)
    )
    return [(name, [sample for sample in samples if sample.contender == name]) for name in names]


def _frames_of(samples: list[Sample]) -> str:
    found = {(sample.figures["frames"], sample.figures["captured"]) for sample in samples if "frames" in sample.figures}
    return "; ".join(f"{frames:,.0f} / {captured:,.0f}" for frames, captured in sorted(found))


def _median(name: str) -> Callable[[list[Sample]], str]:
    return lambda samples: plain(seen.median) if (seen := figure(samples, name)) else ""


def _spread(name: str) -> Callable[[list[Sample]], Spread | None]:
    return lambda samples: figure(samples, name)


def _cell(seen: object) -> str:
    return str(seen) if seen else "–"


def _title(load: str) -> str:
    name, comma, rest = load.partition(",")
    return f"{LOADS[name].title}{comma}{rest}"


def _in_order(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
