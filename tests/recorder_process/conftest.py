from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.recorder_process.recording_scripts import kill_served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A script's home, made and empty. No recorder process is left on it."""
    home = tmp_path / ".stepreel"
    home.mkdir()
    yield home
    kill_served(home)
