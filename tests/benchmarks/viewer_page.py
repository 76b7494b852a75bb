"""First paint and long tasks of the viewer's page with 10,000 episodes and 100,000 steps.

    python -m tests.benchmarks.viewer_page

Targets: first contentful paint under 1.5 s, and no task over 100 ms while rows are scrolled and steps are scrubbed.
Tasks are counted in processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.viewer_page import browsers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EPISODES, STEPS = 10_000, 100_000
MAKER = Path(browsers.__file__).parent / "large_homes.py"
REPLAY = "/episodes/20261122-062718-long~0~0"

PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
TRACED = ["toplevel", "disabled-by-default-toplevel"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder) / "home"
        subprocess.run([sys.executable, str(MAKER), str(home), str(EPISODES), str(STEPS)], check=True)
        browser = playwright.chromium.launch(executable_path=browsers.CHROMIUM, args=browsers.FLAGS)
        with browsers.served(home) as url:
            site = browsers.Site(url, browser, home)
            print(f"{'page':12}{'first paint':>14}{'ready':>12}{'longest task, loading':>24}{'in use':>12}")
            for name, path, use in (
                ("progress", "/?session=20261122-062718-many", _rest),
                ("episodes", "/episodes", _scroll),
                ("replay", f"{REPLAY}?step=50000", _scrub),
            ):
                with site.page("/live") as page:
                    browser.start_tracing(page=page, categories=TRACED)
                    page.goto(url + path)
                    page.wait_for_selector("#page > [data-ready]")
                    ready = page.evaluate("() => performance.now()")
                    loading = _longest(browser)
                    browser.start_tracing(page=page, categories=TRACED)
                    use(page)
                    page.wait_for_timeout(300)
                    used = _longest(browser)
                    paint = page.evaluate(PAINT)
                    print(f"{name:12}{paint:11.0f} ms{ready:9.0f} ms{loading:21.0f} ms{used:9.0f} ms")
        browser.close()


def _longest(browser: Browser) -> float:
    """Milliseconds of processor time of the longest task: on a machine with other work, what it would take alone."""
    events = json.loads(browser.stop_tracing())["traceEvents"]
    return float(max(event.get("tdur", 0) for event in events if "RunTask" in event.get("name", "")) / 1000)


def _rest(page: Page) -> None:
    """Nothing is done: what comes by itself."""


def _scroll(page: Page) -> None:
    for _ in range(40):
        page.mouse.move(640, 400)
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(30)


def _scrub(page: Page) -> None:
    bar = page.locator("scrub-bar").bounding_box()
    chart = page.locator("step-chart .surface").first.bounding_box()
    assert bar is not None
    assert chart is not None
    for box, from_left in ((bar, 2), (chart, 60)):
        page.mouse.move(box["x"] + from_left, box["y"] + 10)
        page.mouse.down()
        for place in range(60):
            page.mouse.move(box["x"] + from_left + (box["width"] - from_left - 20) * place / 60, box["y"] + 10)
        page.mouse.up()
    for _ in range(30):
        page.keyboard.press("ArrowRight")


if __name__ == "__main__":
    main()
