"""What holds for every page of the viewer, in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.viewer_page.browsers import Site, served
from tests.viewer_page.hostile_homes import MARKUP, SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "plugins" / "viewer" / "page"
PATHS = ["/", "/live", "/episodes", "/compare", "/system"]

# What sticks out of the window.
BEYOND = """() => {
    const parts = "#top > *, .bar > *, .facts > *, .buttons > *, .replay > *, .compare > *";
    return [...document.querySelectorAll(parts)].filter((element) => {
        const box = element.getBoundingClientRect();
        const isOut = box.right > innerWidth + 1 || box.bottom > innerHeight + 1;
        return isOut && element.checkVisibility() && !element.closest(".scrolls");
    }).map((element) => element.outerHTML.slice(0, 120));
}"""

# Texts whose colour stands out too little from what is behind them: WCAG asks for 4.5 to 1.
FAINT = """() => {
    const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const parts = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const light = ([red, green, blue]) => 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const [red, green, blue, alpha = 1] = parts(getComputedStyle(one).backgroundColor);
            if (alpha > 0.9) return [red, green, blue];
        }
        return [255, 255, 255];
    };
    const left_out = ":disabled, [aria-disabled], svg, .overlay, .shot, .lane .picture, option";
    const faint = new Set();
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility({visibilityProperty: true}) || element.closest(left_out)) continue;
        const both = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
        const ratio = (both[0] + 0.05) / (both[1] + 0.05);
        const name = `${element.localName}.${element.className}`;
        if (ratio < 4.5) faint.add(`${name}: ${ratio.toFixed(1)} "${element.textContent.slice(0, 30)}"`);
    }
    return [...faint];
}"""

# From here on, what the browser had to move after it was drawn, and how much of the window that was.
MOVES = """() => {
    window.moves = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            const what = entry.sources.map((one) => one.node?.className);
            if (!entry.hadRecentInput) window.moves.push([entry.value, ...what]);
        }
    }).observe({type: "layout-shift", buffered: true});
}"""


def replays(site: Site) -> list[str]:
    """Replay of an episode with a video, and of one without, and both side by side."""
    found = site.asked(
        "SELECT session || '~' || worker || '~' || episode FROM episodes "
        "GROUP BY video_path IS NULL ORDER BY video_path IS NULL"
    )
    ids = [quote(str(one), safe="") for (one,) in found]
    return [*(f"/episodes/{one}" for one in ids), f"/compare?ids={','.join(ids)}"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_small_screen_and_can_be_read(bars: Site, scheme: str) -> None:
    with bars.page("/", color_scheme=scheme) as page:
        for path in [*PATHS, *replays(bars)]:
            page.goto(bars.url + path)
            page.wait_for_selector("#page > [data-ready]")
            assert page.evaluate(BEYOND) == [], path
            assert page.evaluate(FAINT) == [], path


def test_nothing_jumps_while_a_page_is_filled(bars: Site) -> None:
    with bars.page("/") as page:
        for path in [*PATHS, *replays(bars)]:
            page.goto(bars.url + path)
            page.evaluate(MOVES)
            page.wait_for_selector("#page > [data-ready]")
            page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 100)))")
            moved = page.evaluate("() => window.moves")
            assert sum(one[0] for one in moved) < 0.05, (path, moved)


def test_the_keys_of_each_page_are_listed_and_documented(bars: Site) -> None:
    """Each key that ? lists is in docs/viewer.md, with the same words, and the other way round."""
    listed: set[tuple[str, str, str]] = set()
    with bars.page("/") as page:
        for path in [*PATHS, *replays(bars)]:
            page.goto(bars.url + path)
            page.wait_for_selector("#page > [data-ready]")
            page.keyboard.press("?")
            page.wait_for_selector("dialog.help")
            for group in page.locator("dialog.help section").all():
                title = group.locator("h3").inner_text()
                for row in group.locator("dl > div").all():
                    keys = " ".join(row.locator("kbd").all_inner_texts())
                    listed.add((title, keys, row.locator("dd").inner_text()))
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog.help", state="detached")
    text = (ROOT / "docs" / "viewer.md").read_text()
    section = re.search(r"^## Keys\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section[1], re.MULTILINE)
    documented = {(title, keys.replace("`", ""), does) for title, keys, does in rows[1:]}
    assert documented == listed


def test_every_module_parses_and_the_page_has_no_script_or_handler_of_its_own(bars: Site) -> None:
    with bars.page("/") as page:
        for module in sorted(PAGE.rglob("*.js")):
            name = module.relative_to(PAGE)
            assert page.evaluate(f"import('/page/{name}').then(() => true)")
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\son\w+=|\sstyle=|<style|javascript:", html) == []
    for module in PAGE.rglob("*.js"):
        text = module.read_text()
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
        ), module
        assert re.findall(r"https?://(?!www\.w3\.org/)", text) == [], module


@pytest.fixture
def hostile(home: Path, browser: Browser) -> Iterator[Site]:
    subprocess.run([sys.executable, str(Path(__file__).parent / "hostile_homes.py"), str(home)], check=True)
    with served(home) as url:
        yield Site(url, browser, home)


def test_markup_in_every_text_is_only_text(hostile: Site) -> None:
    evil = quote(MARKUP.replace("&", "%26"), safe="")
    with hostile.page("/") as page:
        ids = page.evaluate(
            "fetch('/api/episodes').then((answer) => answer.json()).then((answer) => answer.columns.id)"
        )
        replay = [f"/episodes/{quote(one, safe='')}" for one in ids]
        compare = f"/compare?ids={quote(ids[0], safe='')},{quote(ids[1], safe='')}"
        for path in [
            *PATHS,
            *replay,
            compare,
            f"/episodes?q={evil}",
            f"/?session={evil}",
        ]:
            page.goto(hostile.url + path, wait_until="domcontentloaded")
            page.wait_for_selector("#page > [data-ready], #page .empty")
            assert page.evaluate(BEYOND) == [], path
            page.keyboard.press("c")
            page.wait_for_selector("controls-drawer[data-ready]")
            assert page.evaluate(
                "() => [window.hurt, document.querySelectorAll('body script, img[src=x]').length]"
            ) == [None, 0]
        page.goto(f"{hostile.url}/episodes")
        page.wait_for_selector(".row:not(.unknown)")
        assert MARKUP in page.locator("virtual-table").inner_text()
        assert SESSION in page.content()


def test_an_empty_home_says_what_to_do(home: Path, browser: Browser) -> None:
    home.mkdir()
    (home / "home.json").write_text('{"id": "0123456789abcdef"}')
    with served(home) as url, Site(url, browser, home).page("/") as page:
        for path, said in {
            "/": "python -m kernel config/quickstart.toml",
            "/live": "python -m kernel config/quickstart.toml",
            "/episodes": "python -m kernel config/quickstart.toml",
            "/compare": "table of episodes",
            "/system": "No kernel runs on this home",
        }.items():
            page.goto(url + path)
            page.wait_for_selector("#page > [data-ready]")
            page.get_by_text(said).first.wait_for()
