"""A real browser, and what a page must not do in it: say errors on its console, or ask for more than the viewer has."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser to look with, where one is installed."""
TOKEN = "of-these-tests"  # noqa: S105 - of servers that are gone before anyone could use it
FLAGS = [
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PICTURED = """
    // The number that a picture of tests/environments/bars.py shows: a video's, or a canvas's.
    globalThis.pictured = (source) => {
        const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
        const context = new OffscreenCanvas(width, height).getContext("2d");
        context.drawImage(source, 0, 0);
        const row = context.getImageData(0, height >> 1, width, 1).data;
        const bar = Math.floor(width / 16);
        const isSet = (bit) => row[4 * (bit * bar + (bar >> 1)) + 1] > 127;
        return Array.from({length: 16}, (_, bit) => (isSet(bit) ? 1 << bit : 0)).reduce((sum, one) => sum + one);
    };
"""
SECONDS = 60.0
"""How long anything may take on a busy machine before it counts as not having happened."""


class Site:
    """A viewer that runs, in a process of its own, and a browser that opens pages of it."""

    def __init__(self, url: str, browser: Browser, home: Path) -> None:
        self.url = url
        self.home = home
        self._browser = browser

    @contextmanager
    def page(self, path: str = "/", *, ready: bool = True, **context: Any) -> Iterator[Page]:
        """A page of the viewer in a browser window of its own; fails where it said an error or asked for more."""
        window = self._browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **context})
        window.set_default_timeout(SECONDS * 1000)
        window.set_default_navigation_timeout(SECONDS * 1000)
        wrong: list[str] = []
        try:
            window.add_init_script(PICTURED)
            page = window.new_page()
            page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: None if self._is_ours(request.url) else wrong.append(request.url))
            separator = "&" if "?" in path else "?"
            page.goto(f"{self.url}{path}{separator}token={TOKEN}")
            if ready:
                page.wait_for_selector("#page > [data-ready]")
            yield page
        finally:
            window.close()
        assert wrong == [], wrong

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        """What the home's tables answer."""
        with closing(sqlite3.connect(self.home / "stepreel.sqlite")) as database:
            return database.execute(query).fetchall()

    def until(self, query: str, count: int = 1) -> list[tuple[Any, ...]]:
        """What they answer, once it is so many rows."""
        deadline = time.monotonic() + SECONDS
        while len(found := self.asked(query)) < count:
            assert time.monotonic() < deadline, f"{query}: {found}"
            time.sleep(0.1)
        return found

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in {"data", "blob"} or url.startswith(self.url)


@contextmanager
def served(home: Path) -> Iterator[str]:
    """`python -m plugins.viewer` on a home, as a user starts it: its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "plugins.viewer", str(home), "--port", "0"],
        env={**os.environ, "STEPREEL_VIEWER_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+)", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
