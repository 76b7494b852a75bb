"""Fixtures for all tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Begun = Callable[[], list[psutil.Process]]

# Of NumPy and PyTorch, in all that the tests start: on a machine at work such threads turn in circles and wait for each
# other. Without them a start of Python with NumPy takes two thirds of the processor's time, and so does a training.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-byte", action="store_true", help="tests/faults: cut at every byte, and change every bit")
    parser.addoption(
        "--disk-states", type=int, default=0, help="tests/faults: look at so many states after power losses"
    )
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


@pytest.fixture
def begun() -> Begun:
    """Tells which processes that descend from this one began behind this test's start; some live for the whole run."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [each for each in psutil.Process().children(recursive=True) if each not in before]


@pytest.fixture
def nothing_is_left(begun: Begun) -> Iterator[None]:
    """No process that the test began outlives it."""
    yield
    assert not begun()
