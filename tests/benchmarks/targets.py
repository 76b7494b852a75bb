"""What the figures are to be, and whether they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.samples import BARE, Spread, beyond, figure, plain, ratio, spread
from tests.benchmarks.suites import OURS, REAL, UPSTREAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.samples import Results, Sample

NEEDED = (
    *("capture", "sparse", "unrendered", "long", "quality", "frames", "available"),
    *("bus", "tables", "idle"),
)
"""The benchmarks that the targets speak of."""
CONTENDERS = (BARE, OURS, UPSTREAM)

TITLES = {"cartpole": "CartPole", "lunarlander": "LunarLander", "breakout": "Breakout", "textured": "textured picture"}


class Target(NamedTuple):
    """One figure. `seen` is None where it was not measured, and `met` goes by the median."""

    figure: str
    wanted: str
    seen: Spread | None
    met: bool | None


def targets(results: Results) -> Iterator[Target]:
    """Each target, in the order in which people ask."""
    yield from _recording(results)
    yield from _videos(results)
    yield from _kernel(results)


def at_least(name: str, bound: float, seen: Spread | None, unit: str = "") -> Target:
    """The median is to be this, or more."""
    return Target(name, f"≥ {plain(bound)}{unit}", seen, None if seen is None else seen.median >= bound)


def at_most(name: str, bound: float, seen: Spread | None, unit: str = "") -> Target:
    """The median is to be this, or less."""
    return Target(name, f"≤ {plain(bound)}{unit}", seen, None if seen is None else seen.median <= bound)


def _recording(results: Results) -> Iterator[Target]:
    def mine(benchmark: str, load: str) -> tuple[list[Sample], list[Sample]]:
        return results.of(benchmark, load, OURS), results.of(benchmark, load, BARE)

    for load in REAL:
        bound = 0.93 if load == "textured" else 0.97
        yield at_least(f"steps/s ÷ bare, {TITLES[load]}", bound, ratio(*mine("capture", load), "steps_per_second"))
    for load in REAL:
        seen = ratio(*mine("sparse", load), "steps_per_second")
        yield at_least(f"steps/s ÷ bare, {TITLES[load]}, every 20th episode captured", 0.99, seen)
    told = ratio(*mine("unrendered", "unrendered"), "steps_per_second")
    yield at_least("steps/s ÷ bare, CartPole never rendered, every step told", 0.80, told)
    for load in REAL:
        seen = ratio(*mine("capture", load), "longest_ms")
        yield at_most(f"longest step ÷ bare's longest, {TITLES[load]}", 1.3, seen)
    for load in REAL:
        seen = ratio(*mine("capture", load), "done_seconds")
        yield at_most(f"all videos standing ÷ bare's time, {TITLES[load]}", 1.25, seen)
    for load in REAL:
        seen = beyond(*mine("capture", load), results.of("capture", load, UPSTREAM))
        yield at_most(f"CPU beyond bare ÷ RecordVideo's CPU beyond bare, {TITLES[load]}", 0.40, seen)


def _videos(results: Results) -> Iterator[Target]:
    for load in ("bars", "balanced"):
        about = "pictures of 160×96" if load == "bars" else "CartPole"
        name = f"memory growth from a 1,000-step to a 50,000-step episode, in any process, {about}"
        yield at_most(name, 20, growth(results, load), " MB")
    ours = [sample for sample in results.samples if sample.contender.startswith(OURS)]
    lost = [
        sample.figures["frames_lost"] + sample.figures.get("frames_misplaced", 0.0)
        for sample in ours
        if "frames_lost" in sample.figures
    ]
    yield at_most("frames lost or misplaced, in all that was recorded", 0, spread([sum(lost)]) if lost else None)
    for load in REAL:
        mine, theirs = (figure(results.of("quality", load, name), "psnr_db") for name in (OURS, UPSTREAM))
        seen = spread([mine.median - theirs.median]) if mine and theirs else None
        yield at_least(f"PSNR beside RecordVideo's, {TITLES[load]}", -0.5, seen, " dB")
    for load in REAL:
        seen = ratio(results.of("quality", load, OURS), results.of("quality", load, UPSTREAM), "bytes_per_frame")
        yield at_most(f"bytes ÷ RecordVideo's, {TITLES[load]}", 1.25, seen)
    seen = figure(results.of("available", "balanced", OURS), "available_seconds")
    yield at_most("episode end → VideoAvailable, 500 frames of 600×400, idle machine", 1.0, seen, " s")


def _kernel(results: Results) -> Iterator[Target]:
    seen = figure(results.of("bus", "batches of 1,000", OURS), "events_per_core_second")
    yield at_least("events to the log and three subscriptions, batches of 1,000", 400_000, seen, " per core-second")
    yield at_least("steps persisted in SQLite", 150_000, figure(results.of("tables"), "events_per_second"), "/s")
    seen = figure(results.of("idle"), "percent_of_a_core")
    yield at_most("kernel CPU while idle, 16 silent producers", 1, seen, " % of a core")


def growth(results: Results, load: str) -> Spread | None:
    """The largest growth of a kind of process from the shortest to the longest episode, MB."""
    lengths = list(dict.fromkeys(sample.load for sample in results.of("long") if sample.load.startswith(f"{load},")))
    if len(lengths) < 2:
        return None
    short, grown = (results.of("long", lengths[place], OURS) for place in (0, -1))
    if not short or not grown:
        return None
    kinds = [name for name in grown[0].figures if name.startswith("peak_mb_") and name in short[0].figures]
    return spread([max(grown[0].figures[name] - short[0].figures[name] for name in kinds)])
