"""The table of episodes in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.viewer_page.browsers import Site

ROWS = "virtual-table.episodes .row:not(.unknown)"


def shown(page: Page, column: int) -> list[str]:
    """A column's cells, from the top of the view to its bottom."""
    cells: list[str] = page.evaluate(
        """([rows, column]) => [...document.querySelectorAll(rows)]
            .sort((one, other) => one.getAttribute("aria-rowindex") - other.getAttribute("aria-rowindex"))
            .map((row) => row.children[column].textContent)""",
        [ROWS, column],
    )
    return cells


def test_ten_thousand_episodes_are_one_scroll_long_and_few_rows_of_the_document(large: Site) -> None:
    with large.page("/episodes?session=20261122-062718-many&sort=episode") as page:
        assert page.get_by_text("10,000 episodes").is_visible()
        view = page.locator("virtual-table.episodes .view")
        for _ in range(5):
            view.evaluate("element => element.scrollBy(0, 60000)")
            page.wait_for_function("rows => document.querySelectorAll(rows).length > 10", arg=ROWS)
            assert page.locator("virtual-table.episodes .row").count() < 60
        view.press("End")
        page.locator(ROWS, has_text="9,999").wait_for()
        episodes = [int(text.replace(",", "")) for text in shown(page, 2)]
        assert episodes == list(range(episodes[0], 10_000))


def test_sort_and_filters_stand_in_the_address_and_come_back_with_it(large: Site) -> None:
    with large.page("/episodes?session=20261122-062718-many") as page:
        page.get_by_role("button", name="Return").click()
        page.wait_for_function("() => location.search.includes('sort=-return')")
        page.locator("select[data-filter=outcome]").select_option("truncated")
        page.wait_for_function("() => location.search.includes('outcome=truncated')")
        page.get_by_role("button", name="failures").click()
        page.get_by_text("477 episodes").wait_for()
        returns = shown(page, 6)
        assert returns == sorted(returns, key=float, reverse=True)
        page.reload()
        page.get_by_text("477 episodes").wait_for()
        page.wait_for_function("rows => document.querySelectorAll(rows).length > 10", arg=ROWS)
        assert shown(page, 6)[:10] == returns[:10]
        assert page.get_by_role("columnheader", name="Return").get_attribute("aria-sort") == "descending"


def test_what_became_of_each_recording_is_said_and_only_a_video_is_offered(large: Site, bars: Site) -> None:
    said = {
        "not_captured": "not captured: not due",
        "discarded": "discarded by the keep policy: not among the best 5",
        "failed": "failed: Invalid argument",
        "encoding": "not encoded yet",
    }
    with large.page("/episodes") as page:
        for state, text in said.items():
            page.locator("select[data-filter=video]").select_option(state)
            page.locator(f"{ROWS} .why.{state}", has_text=text).first.wait_for()
            assert page.locator(".watch").count() == 0
        page.locator("select[data-filter=video]").select_option("pruned")
        page.locator(f"{ROWS} .why.pruned").first.wait_for()
        pruned = page.locator(f"{ROWS} .why.pruned").first.text_content() or ""
        assert re.fullmatch(r"pruned on \d{4}-\d\d-\d\d: more than 50 videos", pruned)
    with bars.page("/episodes?video=available") as page:
        assert page.locator(f"{ROWS} .watch").count() == 3
        page.locator(f"{ROWS} .watch").first.click()
        page.wait_for_selector("replay-page[data-ready] video")


def test_pointing_at_a_thumbnail_plays_its_strip(bars: Site) -> None:
    with bars.page("/episodes?video=available") as page:
        page.locator(f"{ROWS} .thumb").first.hover()
        page.wait_for_selector(".strip[data-tile='3']")
        page.wait_for_selector(".strip[data-tile='7']")
        page.mouse.move(640, 700)
        page.wait_for_selector(".strip", state="detached")


def test_best_worst_longest_latest_and_failed_are_one_key_away(large: Site) -> None:
    with large.page("/episodes?session=20261122-062718-many") as page:
        found = {}
        for key in "bwlaf":
            page.keyboard.press(key)
            page.wait_for_selector("replay-page[data-ready]")
            found[key] = page.locator("replay-page h1").inner_text()
            page.go_back()
            page.wait_for_selector("episodes-page[data-ready]")
        assert found["b"] == "many episodes/episode 9,969"
        assert found["a"] == "many episodes/episode 9,999"
        assert found["f"] == "many episodes/episode 9,999"
        assert found["w"] not in {found["b"], found["a"]}


def test_two_chosen_episodes_are_compared(bars: Site) -> None:
    with bars.page("/episodes?video=available&sort=episode") as page:
        page.keyboard.press("ArrowDown")
        page.keyboard.press("x")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("x")
        assert page.get_by_text("2 chosen").is_visible()
        page.keyboard.press("m")
        page.wait_for_selector("compare-page[data-ready]")
        assert page.locator(".lane").count() == 2


def test_new_episodes_never_move_what_is_looked_at(slow: Site) -> None:
    with slow.page("/episodes") as page:
        page.wait_for_selector(ROWS)
        first = page.locator(ROWS).first
        before = "\n".join(first.inner_text().split("\n")[:3])
        page.locator(".newer").wait_for()
        page.wait_for_function("() => parseInt(document.querySelector('.newer').textContent) > 4")
        assert first.inner_text().startswith(before)
        total = page.locator(".second output").text_content() or ""
        page.locator(".newer").click()
        page.wait_for_function(
            "total => parseInt(document.querySelector('.second output').textContent) > total", arg=int(total.split()[0])
        )
        page.wait_for_function(
            "([rows, before]) => !document.querySelector(rows).innerText.startsWith(before)", arg=[ROWS, before]
        )


def test_a_video_can_be_pinned_and_deleted_and_says_so(slow: Site) -> None:
    with slow.page("/episodes?video=available&sort=episode") as page:
        page.wait_for_selector(ROWS)
        first = page.locator("virtual-table.episodes .row[aria-rowindex='2']")
        first.locator("input").check()
        page.get_by_role("button", name="Pin", exact=True).click()
        first.locator(".pinned").wait_for()
        first.locator("input").check()
        page.get_by_role("button", name="Delete…").click()
        page.get_by_text("Pinned videos are not deleted").wait_for()
        page.get_by_role("button", name="Unpin").click()
        page.wait_for_function("() => !document.querySelector('.row[aria-rowindex=\"2\"] .pinned')")
        first.locator("input").check()
        page.get_by_role("button", name="Delete…").click()
        page.locator("dialog .danger").click()
        page.locator("select[data-filter=video]").select_option("pruned")
        page.locator(f"{ROWS} .why.pruned").first.wait_for()
    assert slow.asked("SELECT policy, asked_by FROM videos WHERE state = 'pruned'") == [("asked", "viewer")]
