"""Pythons of their own for what happens when one starts or imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPREEL = Path(sys.executable).with_name("stepreel")
"""The command, as it was installed beside this Python."""


def ran(
    *arguments: object, cwd: Path, env: Mapping[str, str | None] | None = None, program: Path | str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """What a Python, or another program, answers with these arguments; a variable that is None is not set."""
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        [program, *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in environment.items() if value is not None},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(*arguments: object, cwd: Path, env: Mapping[str, str | None] | None = None) -> str:
    """What a Python says that has to come to a good end, with nothing to complain of."""
    done = ran(*arguments, cwd=cwd, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()
