"""Progress in a real browser: curves, and a video behind each ring on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.viewer_page.browsers import Site

RINGS = "[data-key=return] .scatterlayer .trace:last-child .point"


def ring(page: Page, place: int) -> tuple[float, float]:
    box = page.locator(RINGS).nth(place).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_video_plays_where_its_ring_is_pointed_at(bars: Site) -> None:
    with bars.page("/") as page:
        assert page.locator(RINGS).count() == 3
        page.mouse.move(*ring(page, 1))
        page.wait_for_function("() => document.querySelector('.card video')?.currentTime > 0.1")
        assert "return 300" in page.locator(".card").inner_text()
        page.mouse.move(640, 700)
        page.wait_for_function("() => !document.querySelector('.card video')?.hasAttribute('src')")
        assert page.locator(".card").is_hidden()


def test_two_chosen_videos_are_put_side_by_side_and_stand_in_the_address(bars: Site) -> None:
    with bars.page("/") as page:
        for place, chosen in ((0, 1), (2, 2)):
            page.mouse.move(*ring(page, place))
            page.locator(".card").wait_for()
            page.mouse.click(*ring(page, place))
            page.wait_for_selector(f".tray[data-chosen='{chosen}']")
        chips = page.locator(".chip").all_inner_texts()
        page.reload()
        page.wait_for_selector(".tray[data-chosen='2']")
        assert page.locator(".chip").all_inner_texts() == chips
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector("compare-page[data-ready]")
        assert page.locator(".lane").count() == 2


def test_early_and_late_are_the_first_and_the_last_video(bars: Site) -> None:
    ended = bars.asked("SELECT episode FROM episodes WHERE video_path IS NOT NULL ORDER BY ended")
    with bars.page("/") as page:
        page.keyboard.press("e")
        page.wait_for_selector(".tray[data-chosen='2']")
        chosen = [text.split()[1] for text in page.locator(".chip a").all_inner_texts()]
    assert chosen == [str(ended[0][0]), str(ended[-1][0])]


def test_ten_thousand_episodes_are_a_curve_with_evaluation_apart(large: Site) -> None:
    with large.page("/?session=20261122-062718-many&smooth=64") as page:
        facts = page.locator(".facts").inner_text()
        assert "10,000" in facts
        assert "67 %" in facts
        assert page.locator(".curve:visible h3").all_inner_texts() == ["Return", "Length", "Success rate"]
        assert page.locator("[data-key=return] .scatterlayer .trace").count() == 3
        assert page.locator(".smooth output").inner_text() == "64 episodes"
        page.get_by_label("Across").select_option("episode")
        page.wait_for_function("() => location.search.includes('x=episode')")
        page.locator("[data-key=success]").get_by_text("episode", exact=True).wait_for()


def test_sessions_are_overlaid(large: Site) -> None:
    with large.page("/") as page:
        page.locator("details.menu summary").click()
        for name in ("many episodes", "one long episode"):
            box = page.get_by_label(name)
            if not box.is_checked():
                box.check()
                page.wait_for_function("() => location.search.includes('session=')")
        page.get_by_text("2 sessions").wait_for()
        assert "2026" in page.url
        page.reload()
        page.get_by_text("2 sessions").wait_for()
