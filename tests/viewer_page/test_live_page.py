"""Live pictures and the controls in a real browser, beside a kernel that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.end_to_end.homes import events

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.viewer_page.browsers import Site

# Of each tile, what it says and what its picture shows, in one task of the browser.
TILES = """() => [...document.querySelectorAll("live-tile:not(.big)")].map((tile) => ({
    worker: tile.dataset.worker,
    pictures: Number(tile.dataset.pictures ?? 0),
    step: Number(tile.dataset.step),
    pictured: pictured(tile.querySelector("canvas")),
}))"""
APPLIED = """word => {
    const rows = [...document.querySelectorAll(".applied tbody tr")];
    return rows.length === 2 && rows.every((row) => row.children[1].textContent.includes(word));
}"""


def toggle(page: Page) -> None:
    page.keyboard.press("c")
    page.wait_for_selector("controls-drawer[data-ready]")


def test_each_workers_picture_goes_on_and_is_of_the_step_it_names(slow: Site) -> None:
    with slow.page("/live") as page:
        page.wait_for_function("() => document.querySelectorAll('live-tile').length === 2")
        seen: dict[str, set[int]] = {}
        for at_least in (3, 6, 9, 12):
            page.wait_for_function(f"least => ({TILES})().every((tile) => tile.pictures >= least)", arg=at_least)
            for tile in page.evaluate(TILES):
                assert tile["step"] == tile["pictured"]
                seen.setdefault(tile["worker"], set()).add(tile["step"])
        assert [len(steps) > 1 for steps in seen.values()] == [True, True]
        page.locator("live-tile .rec:visible").first.wait_for()  # every third episode is captured
        page.wait_for_function(
            "() => document.querySelector('live-tile spark-line path').getAttribute('d').length > 30"
        )


def test_only_tiles_in_view_get_pictures(slow: Site) -> None:
    with slow.page("/live") as page:
        page.wait_for_function(f"() => ({TILES})().length === 2 && ({TILES})().every((tile) => tile.pictures > 1)")
        page.locator(".tiles").evaluate("element => element.style.marginTop = '3000px'")
        page.wait_for_function("() => document.querySelector('live-page').visible.size === 0")
        before = page.evaluate(TILES)
        page.locator("live-page h1").evaluate("element => new Promise((resolve) => setTimeout(resolve, 600))")
        late = page.evaluate(TILES)
        # What was on its way when it went out of view may still come.
        assert all(b["pictures"] - a["pictures"] <= 2 for a, b in zip(before, late, strict=True))
        page.locator(".tiles").evaluate("element => element.style.marginTop = '0px'")
        page.wait_for_function(f"least => ({TILES})()[0].pictures > least", arg=late[0]["pictures"] + 2)


# Held in the moment in which there are some: those of an episode go when its video stands.
HELD_WITH_SOME = """() => {
    const large = document.querySelector("live-large");
    if (large.kept.length < 3) return false;
    large.querySelector("button").click();
    return Number(large.querySelector("input").max) > 1;
}"""


def test_a_tile_opens_large_and_its_last_pictures_can_be_looked_at_again(slow: Site) -> None:
    with slow.page("/live") as page:
        page.locator("live-tile").first.click()
        page.wait_for_function("() => Number(document.querySelector('live-tile.big')?.dataset.pictures) > 5")
        assert "worker=" in page.url
        page.wait_for_function(HELD_WITH_SOME)
        assert page.get_by_role("button", name="Go on").is_visible()
        page.locator("live-large img.again").wait_for()
        named = page.locator("live-large .bar output").text_content()
        page.locator("live-large input").press("ArrowLeft")
        page.wait_for_function(
            "before => document.querySelector('live-large .bar output').textContent !== before", arg=named
        )
        page.wait_for_function("() => document.querySelector('live-large img.again').naturalWidth === 160")
        page.keyboard.press("Escape")
        page.wait_for_selector("live-large", state="detached")


def capture(page: Page, mode: str, every: int | None = None, *, said: str) -> None:
    """Ask for it, and wait until both workers do it."""
    page.locator("controls-drawer .mode").select_option(mode)
    if every is not None:
        page.locator("controls-drawer .every").fill(str(every))
    page.locator("controls-drawer .apply").click()
    page.get_by_text(f"Asked for: {said}").wait_for()
    page.wait_for_function(APPLIED, arg=said)


def test_what_the_controls_ask_for_is_what_the_next_episodes_do(slow: Site) -> None:
    with slow.page("/system") as page:
        toggle(page)
        capture(page, "off", said="off")
        slow.until("SELECT 1 FROM episodes WHERE capture = 'off' AND NOT captured")
        capture(page, "every", 2, said="every 2 episodes")
        slow.until("SELECT 1 FROM episodes WHERE capture = 'every 2' AND captured AND episode % 2 = 0", 2)
    assert slow.asked("SELECT 1 FROM episodes WHERE capture = 'off' AND captured") == []
    assert slow.asked("SELECT 1 FROM episodes WHERE capture = 'every 2' AND episode % 2 <> 0") == []
    events = slow.asked("SELECT DISTINCT capture FROM episodes WHERE captured")
    assert ("every 2",) in events


def test_each_workers_next_episode_can_be_recorded_once(slow: Site) -> None:
    with slow.page("/episodes") as page:
        toggle(page)
        capture(page, "manual", said="manual")
        slow.until("SELECT 1 FROM episodes WHERE capture = 'on request only' AND NOT captured", 2)
        page.locator("controls-drawer .once").click()
        ((last,),) = slow.until(
            "SELECT max(episode) FROM episodes WHERE capture = 'asked' AND captured HAVING count(*) = 2"
        )
        slow.until(f"SELECT 1 FROM episodes WHERE capture = 'on request only' AND episode > {last}", 2)
    assert len(slow.asked("SELECT 1 FROM episodes WHERE capture = 'asked'")) == 2


def test_a_session_is_paused_goes_on_and_stops(slow_alone: Site) -> None:
    states = "state => [...document.querySelectorAll('live-tile')].every((tile) => tile.dataset.state === state)"
    with slow_alone.page("/live") as page:
        toggle(page)
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").wait_for()
        page.wait_for_function(states, arg="paused")
        page.get_by_role("button", name="Resume").click()
        page.wait_for_function(states, arg="running")
        page.get_by_role("button", name="Stop…").click()
        page.locator("dialog .danger").click()
        assert slow_alone.until("SELECT outcome FROM sessions WHERE outcome IS NOT NULL") == [("stopped",)]


def test_the_limits_that_are_asked_for_are_kept_to(slow_alone: Site) -> None:
    standing = "SELECT recording FROM videos WHERE state = 'available'"
    with slow_alone.page("/system") as page:
        slow_alone.until(standing, 3)
        toggle(page)
        capture(page, "off", said="off")
        page.get_by_label("Videos a session").fill("1")
        page.get_by_role("button", name="Apply limits").click()
        page.get_by_text("the pruner keeps to these limits").wait_for()
        pruned = slow_alone.until("SELECT policy FROM videos WHERE state = 'pruned'", 2)
        assert {policy for (policy,) in pruned} == {"max_videos_per_session"}
        page.reload()
        toggle(page)
        page.wait_for_function("() => document.querySelector('[name=max_videos_per_session]')?.value === '1'")
    assert [event["by"] for event in events(slow_alone.home, "RetentionAsked")] == ["viewer"]


def test_all_videos_of_a_session_are_deleted_but_those_that_are_pinned(slow_alone: Site) -> None:
    standing = "SELECT recording FROM videos WHERE state = 'available'"
    with slow_alone.page("/episodes?video=available&sort=episode") as page:
        slow_alone.until(standing, 3)
        page.locator("virtual-table.episodes .row[aria-rowindex='2'] input").check()
        page.get_by_role("button", name="Pin", exact=True).click()
        ((pinned,),) = slow_alone.until("SELECT recording FROM videos WHERE pinned")
        toggle(page)
        capture(page, "off", said="off")
        slow_alone.until("SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM videos WHERE state IN ('recording', 'sealed'))")
        page.wait_for_function(
            "count => document.querySelector('controls-drawer').textContent.includes(`${count} · `)",
            arg=len(slow_alone.asked(standing)),
        )
        page.get_by_text("· 1 pinned").wait_for()
        page.get_by_role("button", name="Delete all…").click()
        page.locator("dialog .danger").click()
        slow_alone.until(f"SELECT 1 WHERE NOT EXISTS ({standing} AND NOT pinned)")
    assert slow_alone.asked(standing) == [(pinned,)]
    gone = slow_alone.asked("SELECT DISTINCT policy, asked_by FROM videos WHERE state = 'pruned'")
    assert gone == [("asked", "viewer")]
