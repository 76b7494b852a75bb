"""The benchmarks: python -m tests.benchmarks [NAME …] [--json FILE] [--quick] …; see docs/performance.md."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks import suites
from tests.benchmarks.report import tables
from tests.benchmarks.samples import Results, machine
from tests.benchmarks.suites import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.samples import Sample

BENCHMARKS: dict[str, Callable[[Scope], Iterator[Sample]]] = {
    "capture": suites.capture,
    "sparse": suites.sparse,
}


def main() -> None:
    """Run what is named, print the tables, and leave the samples where they are wanted."""
    options = _options()
    quick = options.quick
    scope = Scope(
        rounds=options.rounds or (1 if quick else 3),
        seconds=options.seconds or (0.1 if quick else 4.0),
        quick=quick,
        loads=options.loads.split(",") if options.loads else (),
        contenders=options.contenders.split(",") if options.contenders else (),
    )
    names = list(BENCHMARKS) if "all" in options.names else options.names
    samples = [sample for name in names for sample in BENCHMARKS[name](scope)]
    results = Results(machine=machine(), samples=samples)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    for table in tables(results):
        print(f"\n{table.title}\n\n{table}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=["capture"], choices=[*BENCHMARKS, "all"], metavar="NAME")
    parser.add_argument("--json", type=Path, help="leave the samples in this file")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="of bare's loop, in each turn")
    parser.add_argument("--loads", default="", help="only these, with commas between")
    parser.add_argument("--contenders", default="", help="only these, with commas between")
    return parser.parse_args()


if __name__ == "__main__":
    main()
