"""SIGTERM in each phase of a kernel's life, once and twice: it ends in good order, and says how."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from kernel.event import KernelStopped
from kernel.log import read
from tests.kernel.ticks import Tick, Tock, numbers, stepreel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STARTING, STOPPING, STOPPED = -3, -4, -5


def config(folder: Path, **seconds: float) -> Path:
    """An endless source, something that has work at the end, and something that is slow where it is said."""
    options = "".join(f"{key} = {value}\n" for key, value in seconds.items() if key != "drain")
    text = f"""
home = "{folder}/home"
[plugins.slow]
use = "tests.kernel.little_plugins:Slow"
{options}
[plugins.count]
use = "tests.kernel.little_plugins:Count"
count = 0
pause_seconds = 0.01
[plugins.echo]
use = "tests.kernel.little_plugins:Echo"
[plugins.work]
use = "tests.kernel.little_plugins:Work"
seconds = {seconds.get("drain", 0.1)}
"""
    (folder / "x.toml").write_text(text)
    return folder / "x.toml"


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PHASES = {
    "starting": ({"enter_seconds": 1.0}, lambda home: STARTING in numbers(read(home, Tock)), [], 0),
    "running": ({}, lambda home: 5 in numbers(read(home, Tock)), [], 0),
    "starting, twice": ({"enter_seconds": 600.0}, lambda home: STARTING in numbers(read(home, Tock)), [1], 3),
    "draining, twice": ({"drain": 600.0}, lambda home: 5 in numbers(read(home, Tock)), [1], 3),
    "stopping": ({"leave_seconds": 600.0}, lambda home: 5 in numbers(read(home, Tock)), [STOPPING], 3),
}


@pytest.mark.parametrize(("seconds", "reached", "then", "code"), PHASES.values(), ids=PHASES)
def test_a_signal_in_any_phase_ends_the_kernel_in_good_order(
    tmp_path: Path, seconds: dict[str, float], reached: Callable[[Path], bool], then: list[int], code: int
) -> None:
    home = tmp_path / "home"
    process = stepreel(config(tmp_path, **seconds))
    try:
        until(lambda: (home / "log").exists() and reached(home))
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        words = process.stderr.readline()
        assert words.startswith("stopping: ")
        for again in then:
            if again == STOPPING:
                until(lambda: STOPPING in numbers(read(home, Tock)))
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert [record.event.outcome for record in read(home, KernelStopped)] == ["undrained" if code else "drained"]
    ticks = numbers(read(home, Tick))
    assert ticks == list(range(1, len(ticks) + 1))
    if not code:
        assert [n for n in numbers(read(home, Tock)) if n > 0] == ticks  # whatever was said was answered
        assert numbers(read(home, Tock))[-1] == STOPPED
