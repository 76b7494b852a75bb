from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wrappers.homes import home_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of this test's environments; its recorder process ends with the test."""
    with home_in(tmp_path) as home:
        monkeypatch.setenv("STEPREEL_HOME", str(home))
        yield home
