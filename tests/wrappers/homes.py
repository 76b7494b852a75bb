"""Homes of scripts: this process as a script of its own, and an end of its recorder process."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kernel.files import holder
from plugins.recorder import script
from plugins.recorder.spool import new_session_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def home_in(folder: Path) -> Iterator[Path]:
    """A home, in a session of its own. Behind it the script has ended, and so has the recorder process."""
    home = folder / "home"
    before = os.environ.get(script.ROOT)
    os.environ[script.ROOT] = new_session_id()
    try:
        yield home
    finally:
        end_script(home)
        os.environ.pop(script.ROOT)
        if before is not None:
            os.environ[script.ROOT] = before
    wait_until_quiet(home)


def end_script(home: Path) -> None:
    """What happens at a script's end."""
    part = script._scripts.get(home)
    if part is not None:
        part.end()


def wait_until_quiet(home: Path, seconds: float = 60) -> None:
    """Until the recorder process has left."""
    deadline = time.monotonic() + seconds
    while holder(home / "lock") is not None:
        assert time.monotonic() < deadline, "the recorder process does not leave"
        time.sleep(0.02)
