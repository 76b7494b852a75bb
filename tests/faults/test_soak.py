"""The soak, for a moment: python -m tests.soak --minutes 30 does it for long."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.faults.small_disks import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_a_kernel_and_its_producers_stay_whole_under_faults(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.3", "--producers", "4", "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--work", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    assert "nothing is wrong" in done.stdout
