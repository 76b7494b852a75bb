from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    """Forks lives, for the whole run of the tests."""
    with Driver() as driver:
        yield driver
