"""Small disks: a file system of a few megabytes that nobody else sees, or a limit on files where there can be none."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
WAYS_IN = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""To a namespace in which something can be mounted, and where it is gone with the last process: as root, as anybody."""
MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


@cache
def way_in() -> Sequence[str] | None:
    """How this user gets to a file system of his own; None where he does not."""
    for way in WAYS_IN:
        trial = ["sh", "-c", MOUNT, "sh", "1m", "/mnt", "true"]
        try:
            if not subprocess.run([*way, *trial], capture_output=True, check=False, timeout=60).returncode:
                return way
        except OSError:
            continue
    return None


def on_a_small_disk(module: str, scenario: str, home: Path, place: Path, megabytes: int) -> str:
    """Run `python -m module scenario home place` with a file system of so many megabytes at `place`; what it printed.

    Without a file system of its own the scenario is given `-` for the place: its files are limited, then.
    """
    place.mkdir(parents=True, exist_ok=True)
    way = way_in()
    program = [sys.executable, "-m", module, scenario, str(home)]
    if way is None:
        command = [*program, "-"]
    else:
        command = [*way, "sh", "-c", MOUNT, "sh", f"{megabytes}m", str(place), *program, str(place)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{scenario}: {done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


class SmallDisk:
    """The small disk of a scenario, to be filled to its last byte, and to be given room again."""

    def __init__(self, place: str) -> None:
        self.place = None if place == "-" else Path(place)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """Leave no room at all."""
        if self.place is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with (self.place / "filler").open("ab", buffering=0) as filler:
            for size in (2**20, 4096, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give the room back."""
        if self.place is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        else:
            (self.place / "filler").unlink()
