"""A browser, and homes to look at; made once for each process of the tests.

Where no browser is installed these tests are left out, save in CI.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.viewer_page.browsers import CHROMIUM, FLAGS, Site, served

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT = "tests/viewer_page is left out, as no browser is installed (apt-get install chromium)"

if CHROMIUM is None and os.environ.get("CI") == "true":
    raise pytest.UsageError("tests/viewer_page needs Chromium, which is not installed, and in CI it has to be")

collect_ignore_glob = [] if CHROMIUM else ["*"]

ENVIRONMENTS = Path(__file__).parent.parent / "environments"

CONFIGURATION = """
home = "{home}"
[plugins.collector]
use = "plugins.collector:Collector"
[plugins.encoder]
use = "plugins.encoder_pool:EncoderPool"
[plugins.sqlite]
use = "plugins.sqlite_sink:SqliteSink"
[plugins.pruner]
use = "plugins.pruner:Pruner"
[plugins.runner]
use = "plugins.env_runner:EnvRunner"
env = "bars:Bars-v0"
"""

# Two thirds of 24 frames a second are at times that no float says exactly, and 300 steps are ten seconds of video.
BARS = """
workers = 2
episodes = 6
seed = 1
label = "bars"
[plugins.runner.env_kwargs]
length = 300
fps = 23.976
[plugins.runner.capture]
every = 2
"""


def pytest_report_header() -> list[str]:
    """Where this folder is named on the command line; in a run of all tests, pytest finds this file later."""
    return [] if CHROMIUM else [LEFT_OUT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM:
        terminalreporter.write_line(LEFT_OUT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: while it is open, an event loop of its own runs here, beside which no other can."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def run(home: Path, runner: str) -> None:
    """Run a kernel with this runner to its end."""
    command = [sys.executable, "-m", "kernel", str(configured(home, runner))]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ENVIRONMENTS)})


def configured(home: Path, runner: str) -> Path:
    config = home.parent / f"{home.name}.toml"
    config.write_text(CONFIGURATION.format(home=home) + runner)
    return config


@pytest.fixture(scope="session")
def bars_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of 300 steps, whose pictures show the step; every second one has a video."""
    home = tmp_path_factory.mktemp("bars") / "home"
    run(home, BARS)
    return home


@pytest.fixture(scope="session")
def bars_url(bars_home: Path) -> Iterator[str]:
    with served(bars_home) as url:
        yield url


@pytest.fixture(scope="module")
def bars(bars_url: str, bars_home: Path, browser: Browser) -> Site:
    return Site(bars_url, browser, bars_home)


@pytest.fixture(scope="session")
def lengths_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of one episode each with one seed: one of 60 steps, one of 90."""
    home = tmp_path_factory.mktemp("lengths") / "home"
    for length in (60, 90):
        run(home, f'episodes = 1\nseed = 1\nlabel = "{length} steps"\n[plugins.runner.env_kwargs]\nlength = {length}')
    return home


@pytest.fixture(scope="module")
def lengths(lengths_home: Path, browser: Browser) -> Iterator[Site]:
    with served(lengths_home) as url:
        yield Site(url, browser, lengths_home)


@pytest.fixture(scope="session")
def rates_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of two filmed episodes each: of 60 steps at 20 pictures a second, and of 90 at 60."""
    home = tmp_path_factory.mktemp("rates") / "home"
    for length, fps in ((60, 20), (90, 60)):
        environment = f"[plugins.runner.env_kwargs]\nlength = {length}\nfps = {fps}"
        run(home, f"episodes = 2\nseed = 1\n{environment}\n[plugins.runner.capture]\nevery = 1")
    return home


@pytest.fixture(scope="module")
def rates(rates_home: Path, browser: Browser) -> Iterator[Site]:
    with served(rates_home) as url:
        yield Site(url, browser, rates_home)


SLOW = """
workers = 2
seed = 1
label = "slow"
[plugins.runner.env_kwargs]
length = 40
step_seconds = 0.02
[plugins.runner.capture]
every = 3
"""


@contextmanager
def started(home: Path, runner: str) -> Iterator[subprocess.Popen[bytes]]:
    """A kernel that runs with this runner; it is killed where it has not ended by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", str(configured(home, runner))],
        env={**os.environ, "PYTHONPATH": str(ENVIRONMENTS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def slowly(home: Path, browser: Browser) -> Iterator[Site]:
    """Two workers that step on and on, 50 times a second, each episode of 40 steps; every third is captured."""
    with started(home, SLOW):
        while not (home / "stepreel.sqlite").exists():
            time.sleep(0.05)
        with served(home) as url:
            yield Site(url, browser, home)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Site]:
    """A run that goes on, for several tests: each says itself what it wants captured."""
    with slowly(tmp_path_factory.mktemp("slow") / "home", browser) as site:
        yield site


@pytest.fixture
def slow_alone(home: Path, browser: Browser) -> Iterator[Site]:
    """The same, for one test that ends it."""
    with slowly(home, browser) as site:
        yield site


@pytest.fixture(scope="session")
def large_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 episodes in every state, and one of 100,000 steps."""
    home = tmp_path_factory.mktemp("large") / "home"
    maker = Path(__file__).parent / "large_homes.py"
    subprocess.run([sys.executable, str(maker), str(home), "10000", "100000"], check=True)
    return home


@pytest.fixture(scope="session")
def large_url(large_home: Path) -> Iterator[str]:
    with served(large_home) as url:
        yield url


@pytest.fixture(scope="module")
def large(large_url: str, large_home: Path, browser: Browser) -> Site:
    return Site(large_url, browser, large_home)
