"""Fixtures for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-moment",
        action="store_true",
        help="tests/faults: kill at each time that a fail point is reached, and again at each point of the recovery",
    )
    parser.addoption(
        "--kills",
        type=int,
        default=0,
        help="tests/faults: kill so often at random moments, for each of the kernel, a worker, ffmpeg and all of them",
    )
    parser.addoption("--seed", type=int, default=None, help="tests/faults: the seed of the random moments")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that does not exist yet."""
    return tmp_path / "home"
