"""Removals race readers, pins, replacements and kills; `python -m tests.faults.retention` does it a thousand times."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from tests.faults.retention import race

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_pinned_goes_nothing_goes_twice_and_readers_read_whole_files_whatever_is_killed(home: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.write(race(home, seed, rounds=50))
