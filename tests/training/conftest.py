from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.training.scripts import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty folder to run scripts in. What a failed test leaves running is killed."""
    place = Place(tmp_path / "run")
    yield place
    place.clear()
