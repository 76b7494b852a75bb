"""The benchmarks: python -m tests.benchmarks [NAME …] [--json FILE] [--quick] …; see docs/performance.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks import life, report, suites, tables, targets, training, wrapper
from tests.benchmarks.bus import bus
from tests.benchmarks.samples import Results, machine
from tests.benchmarks.suites import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.benchmarks.samples import Sample

BENCHMARKS: dict[str, Callable[[Scope], Iterator[Sample]]] = {
    "capture": suites.capture,
    "sparse": suites.sparse,
    "unrendered": suites.unrendered,
    "several": suites.several,
    "long": suites.long,
    "quality": suites.quality,
    "frames": suites.frames,
    "available": suites.available,
    "viewer": suites.viewer,
    "wrapper": wrapper.wrapper,
    "training": training.training,
    "bus": bus,
    "tables": tables.tables,
    "rebuild": tables.rebuild,
    "tail": life.tail,
    "start": life.start,
    "idle": life.idle,
}


def main() -> None:
    """Run what is named, or read what was run; print the tables, and leave the samples where they are wanted."""
    options = _options()
    quick = options.quick
    only_targets = options.names == ["targets"]
    contenders = options.contenders.split(",") if options.contenders else targets.CONTENDERS if only_targets else ()
    scope = Scope(
        rounds=options.rounds or (1 if quick else 3),
        seconds=options.seconds or (0.05 if quick else 4.0),
        quick=quick,
        loads=options.loads.split(",") if options.loads else (),
        contenders=contenders,
    )
    if options.from_:
        results = read(options.from_)
    else:
        names = targets.NEEDED if only_targets else _names(options.names)
        results = Results(machine=machine(), samples=[each for name in names for each in BENCHMARKS[name](scope)])
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    made = report.tables(results)
    if options.into:
        report.put_into(options.into, made)
    measured = {sample.benchmark for sample in results.samples}
    shown = ["targets"] if only_targets else made if measured >= {*BENCHMARKS} else made.keys() - {"targets", "machine"}
    for name in [name for name in made if name in shown]:
        for table in made[name]:
            print(f"\n{table.title or name}\n\n{table}")


def read(files: Sequence[Path]) -> Results:
    """The samples of these files; of a benchmark that several have, those of the last one."""
    samples: list[Sample] = []
    for file in files:
        results = msgspec.json.decode(file.read_bytes(), type=Results)
        newer = {sample.benchmark for sample in results.samples}
        samples = [sample for sample in samples if sample.benchmark not in newer] + results.samples
    return Results(machine=results.machine, samples=samples)


def _names(asked: list[str]) -> list[str]:
    if asked in ([], ["all"]):
        return list(BENCHMARKS)
    if unknown := [name for name in asked if name not in BENCHMARKS]:
        sys.exit(f"{unknown[0]} is no benchmark; there are {', '.join(BENCHMARKS)}, all and targets")
    return asked


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    about = f"{', '.join(BENCHMARKS)}; all; or targets: what those need, and nothing else"
    parser.add_argument("names", nargs="*", metavar="NAME", help=about)
    parser.add_argument("--json", type=Path, help="leave the samples in this file")
    parser.add_argument("--from", type=Path, action="append", dest="from_", help="run nothing: read such files")
    parser.add_argument("--into", type=Path, help="put the tables between the marks of this page")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="of bare's loop, in each turn")
    parser.add_argument("--loads", default="", help="only these, with commas between")
    parser.add_argument("--contenders", default="", help="only these, with commas between")
    return parser.parse_args()


if __name__ == "__main__":
    main()
