"""The benchmarks run, small: each of them, each contender, and the tables that come of it. No figure counts."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks import report
from tests.benchmarks.__main__ import BENCHMARKS, read
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.samples import BARE, BUSY, Results, Sample
from tests.benchmarks.targets import NEEDED, growth, targets
from tests.benchmarks.turn import RUNNER, SB3

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
KERNELS = ("bus", "tables", "rebuild", "tail", "start", "idle", "wrapper", "training")
RECORDING = ("capture", "sparse", "unrendered", "several", "long", "quality", "available", "viewer")


def run(folder: Path, *arguments: str) -> Results:
    """`python -m tests.benchmarks …`, as small as it goes, and what it left."""
    file = folder / "out.json"
    command = [sys.executable, "-m", "tests.benchmarks", *arguments, "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return read([file])


def test_every_way_to_record_is_run_and_ours_has_each_frame_in_its_place(tmp_path: Path) -> None:
    results = run(tmp_path, "frames")
    there = {*CONTENDERS, RUNNER, *(SB3 if importlib.util.find_spec("stable_baselines3") else ())} - {BARE, BUSY}
    assert {sample.contender for sample in results.samples} == there
    for sample in results.samples:
        assert sample.figures["frames"] > 100
        if sample.contender.startswith("stepreel"):
            assert sample.figures["frames"] == sample.figures["captured"]
            assert sample.figures["frames_misplaced"] == 0


@pytest.mark.parametrize("names", [RECORDING, KERNELS], ids=["recording", "kernel"])
def test_benchmarks_run_and_make_tables(names: tuple[str, ...], tmp_path: Path) -> None:
    results = run(tmp_path, *names)
    assert {sample.benchmark for sample in results.samples} == {*names}
    page = tmp_path / "performance.md"
    shutil.copy(PAGE, page)
    report.put_into(page, report.tables(results))
    measured = [target for target in targets(results) if target.met is not None]
    assert len(measured) >= (3 if names is KERNELS else 8)
    for target in measured:
        assert target.figure in page.read_text()


def test_the_page_has_a_place_for_every_table_and_names_every_benchmark() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in BENCHMARKS)
    for name in ("capture", "sparse", "unrendered", "several", "long", "quality", "frames", "available", "viewer",
                 "wrapper", "training", "bus", "kernel", "targets", "machine"):  # fmt: skip
        assert f"<!-- {name} -->" in text
        assert f"<!-- /{name} -->" in text


def test_a_target_goes_by_the_median_of_ratios_within_a_round() -> None:
    def sample(contender: str, number: int, steps_per_second: float) -> Sample:
        figures = {"steps_per_second": steps_per_second, "longest_ms": 1.0, "done_seconds": 1.0, "cpu_seconds": 1.0}
        return Sample(benchmark="capture", load="cartpole", contender=contender, round=number, figures=figures)

    paces = [("bare", 0, 100.0), ("stepreel", 0, 98.0), ("bare", 1, 50.0), ("stepreel", 1, 49.5), ("bare", 2, 100.0)]
    results = Results(machine={}, samples=[*(sample(*each) for each in paces), sample("stepreel", 2, 50.0)])
    found = {target.figure: target for target in targets(results)}
    assert found["steps/s ÷ bare, CartPole"].met is True
    assert str(found["steps/s ÷ bare, CartPole"].seen) == "0.980 (0.500 to 0.990)"
    assert found["steps/s ÷ bare, Breakout"].met is None


def test_memory_grows_by_the_kind_of_process_that_grows_most() -> None:
    def sample(contender: str, steps: str, **figures: float) -> Sample:
        return Sample(benchmark="long", load=f"bars, {steps} steps", contender=contender, round=0, figures=figures)

    samples = [
        sample("stepreel", "1,000", peak_mb=120.0, peak_mb_script=50.0, peak_mb_ffmpeg=70.0),
        sample("stepreel", "50,000", peak_mb=180.0, peak_mb_script=58.0, peak_mb_ffmpeg=71.0),
        sample("RecordVideo", "1,000", peak_mb_script=90.0),
        sample("RecordVideo", "10,000", peak_mb_script=900.0),
    ]
    assert growth(Results(machine={}, samples=samples), "bars") == (8.0, 8.0, 8.0)
    assert growth(Results(machine={}, samples=samples), "balanced") is None


def test_a_later_file_takes_the_place_of_the_benchmarks_that_it_has(tmp_path: Path) -> None:
    def file(name: str, *benchmarks: str) -> Path:
        samples = [Sample(benchmark=each, load=name, contender="stepreel", round=0, figures={}) for each in benchmarks]
        path = tmp_path / name
        path.write_bytes(msgspec.json.encode(Results(machine={}, samples=samples)))
        return path

    both = read([file("first", "bus", "tail"), file("second", "bus")])
    assert [(sample.benchmark, sample.load) for sample in both.samples] == [("tail", "first"), ("bus", "second")]


def test_targets_need_benchmarks_that_there_are() -> None:
    assert {*NEEDED} <= {*BENCHMARKS}
    assert {*KERNELS, *RECORDING, "frames"} == {*BENCHMARKS}
