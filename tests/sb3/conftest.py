"""These tests need Stable-Baselines3, and with it PyTorch. Where it is not installed they are left out, save in CI."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.training.scripts import Place

INSTALLED = importlib.util.find_spec("stable_baselines3") is not None
LEFT_OUT = "tests/sb3 is left out, as Stable-Baselines3 is not installed (pip install stable-baselines3)"

if not INSTALLED and os.environ.get("CI") == "true":
    raise pytest.UsageError("tests/sb3 needs Stable-Baselines3, which is not installed, and in CI it has to be")

collect_ignore_glob = [] if INSTALLED else ["*"]


def pytest_report_header() -> list[str]:
    """Where this folder is named on the command line; in a run of all tests, pytest finds this file later."""
    return [] if INSTALLED else [LEFT_OUT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not INSTALLED:
        terminalreporter.write_line(LEFT_OUT)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of this test's environments, unless they name another; its recorder process ends with the test."""
    from tests.wrappers.homes import home_in

    with home_in(tmp_path) as home:
        monkeypatch.setenv("STEPREEL_HOME", str(home))
        yield home


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty folder to run scripts in. What a failed test leaves running is killed."""
    from tests.training.scripts import Place

    place = Place(tmp_path / "run")
    yield place
    place.clear()
