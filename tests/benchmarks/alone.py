"""One turn of a part of ours, or of another's, in a process of its own: `python -m tests.benchmarks.alone …`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.files import holder
from tests.benchmarks.samples import Sample, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
LEAVING_SECONDS = 120.0


def rounds(benchmark: str, turns: Sequence[tuple[str, str, str, Mapping[str, float]]], count: int) -> Iterator[Sample]:
    """Let the turns follow each other for so many rounds: load, contender, `module:function` and its arguments.

    The function is called with an empty folder, in a process of its own, and returns the figures.
    """
    for number in range(count):
        begin = number % len(turns)
        for load, contender, function, arguments in (*turns[begin:], *turns[:begin]):
            figures = take_turn(function, arguments)
            seen = ", ".join(f"{name} {plain(value)}" for name, value in figures.items())
            print(f"{benchmark}, {load}, round {number + 1}, {contender}: {seen}", file=sys.stderr)
            yield Sample(benchmark=benchmark, load=load, contender=contender, round=number, figures=figures)


def take_turn(function: str, arguments: Mapping[str, float]) -> dict[str, float]:
    """Call the function elsewhere."""
    with tempfile.TemporaryDirectory(prefix="stepreel-benchmark-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPREEL")}
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.alone", function, msgspec.json.encode(arguments).decode(), folder],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=False,
            timeout=900,
        )
        if done.returncode:
            sys.exit(f"{function}: exit code {done.returncode}\n{done.stderr.decode()}")
        # A recorder process leaves behind its script.
        deadline = time.monotonic() + LEAVING_SECONDS
        while (left := holder(Path(folder) / "home" / "lock")) is not None:
            if time.monotonic() > deadline:
                sys.exit(f"{function}: process {left} is still at work on the home after {LEAVING_SECONDS:g} s")
            time.sleep(0.05)
        return msgspec.json.decode((Path(folder) / "figures.json").read_bytes(), type=dict[str, float])


def main() -> None:
    """Call what is named, and leave what it returns."""
    place, arguments, folder = sys.argv[1:]
    module, _, function = place.partition(":")
    figures = getattr(importlib.import_module(module), function)(Path(folder), **msgspec.json.decode(arguments))
    (Path(folder) / "figures.json").write_bytes(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
