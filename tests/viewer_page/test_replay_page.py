"""Replay in a real browser: the step that the page names is the one that its picture shows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.viewer_page.browsers import Site

LENGTH = 300

# What the page says and what the picture shows, in one task of the browser, so that nothing comes between.
LOOK = """() => {
    const video = document.querySelector(".screen video");
    const {step, busy} = document.querySelector(".overlay").dataset;
    return busy === undefined ? {named: Number(step), pictured: pictured(video)} : null;
}"""
SETTLED = """step => {
    const overlay = document.querySelector(".overlay");
    return overlay?.dataset.step === String(step) && overlay.dataset.busy === undefined;
}"""
# The page says that no picture is on its way.
STILL = """() => {
    const overlay = document.querySelector(".overlay");
    return document.querySelector(".screen video").paused && overlay.dataset.busy === undefined;
}"""


def path_of(site: Site, *, video: bool = True) -> str:
    """The page of the first episode that has a video, or has none."""
    wanted = "NOT NULL" if video else "NULL"
    query = f"SELECT session, worker, episode FROM episodes WHERE video_path IS {wanted} ORDER BY episode LIMIT 1"
    ((session, worker, episode),) = site.asked(query)
    return f"/episodes/{quote(f'{session}~{worker}~{episode}', safe='')}"


def look(page: Page) -> tuple[int, int]:
    seen = page.evaluate(LOOK)
    return seen["named"], seen["pictured"]


def settle(page: Page, step: int) -> tuple[int, int]:
    page.wait_for_function(SETTLED, arg=step)
    return look(page)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_step_named_is_the_step_pictured_a_hundred_times_out_of_a_hundred(bars: Site, seed: int) -> None:
    """Twice, with other places: after playing, by the scrub bar, by keys, and by clicks and drags in a chart."""
    chosen = random.Random(seed)
    seen: list[tuple[int, int]] = []
    with bars.page(path_of(bars)) as page:
        settle(page, 0)
        chart = page.locator("step-chart .surface").first.bounding_box()
        bar = page.locator("scrub-bar").bounding_box()
        assert chart is not None
        assert bar is not None
        for _ in range(10):
            page.keyboard.press("Space")
            page.wait_for_function("() => !document.querySelector('.screen video').paused")
            page.wait_for_timeout(chosen.uniform(30, 200))  # of playing, wherever it may be then
            page.keyboard.press("Space")
            page.wait_for_function(STILL)
            seen.append(look(page))
            if seen[-1][0] > LENGTH - 20:
                page.keyboard.press("Home")
                settle(page, 0)
        for _ in range(25):
            page.mouse.click(bar["x"] + chosen.uniform(0, bar["width"] - 1), bar["y"] + bar["height"] / 2)
            page.wait_for_function(STILL)
            seen.append(look(page))
        page.mouse.move(5, 5)
        for _ in range(40):
            step = seen[-1][0]
            key, by = chosen.choice(
                [("ArrowRight", 1), ("ArrowLeft", -1), ("Shift+ArrowRight", 10), ("Shift+ArrowLeft", -10)]
            )
            page.keyboard.press(key)
            seen.append(settle(page, max(0, min(LENGTH, step + by))))
        for _ in range(15):
            page.mouse.click(chart["x"] + chosen.uniform(60, chart["width"] - 20), chart["y"] + 40)
            page.wait_for_function(STILL)
            seen.append(look(page))
        for _ in range(10):
            page.mouse.move(chart["x"] + chosen.uniform(60, chart["width"] - 20), chart["y"] + 40)
            page.mouse.down()
            for _ in range(5):
                page.mouse.move(chart["x"] + chosen.uniform(60, chart["width"] - 20), chart["y"] + 40)
            page.mouse.up()
            page.wait_for_function(STILL)
            seen.append(look(page))
    assert len(seen) == 100
    assert [one for one in seen if one[0] != one[1]] == []
    assert len({step for step, _ in seen}) > 50, "it stood still"


def test_each_of_forty_steps_in_a_row_is_its_own_picture_on_and_back(bars: Site) -> None:
    with bars.page(f"{path_of(bars)}?step=200") as page:
        seen = [settle(page, 200)]
        for step in [*range(201, 221), *range(219, 199, -1)]:
            page.keyboard.press("ArrowRight" if step > seen[-1][0] else "ArrowLeft")
            seen.append(settle(page, step))
    assert seen == [(step, step) for step in [*range(200, 221), *range(219, 199, -1)]]


def test_keys_that_come_faster_than_pictures_lose_no_step(bars: Site) -> None:
    with bars.page(f"{path_of(bars)}?step=50") as page:
        settle(page, 50)
        for _ in range(30):
            page.keyboard.press("ArrowRight")
        assert settle(page, 80) == (80, 80)
        page.keyboard.press("End")
        assert settle(page, LENGTH) == (LENGTH, LENGTH)
        page.keyboard.press("ArrowRight")
        page.wait_for_function(STILL)
        assert look(page) == (LENGTH, LENGTH)


def test_the_address_restores_the_view(bars: Site) -> None:
    with bars.page(path_of(bars)) as page:
        settle(page, 0)
        chart = page.locator("step-chart .surface").first.bounding_box()
        assert chart is not None
        page.keyboard.down("Shift")
        page.mouse.move(chart["x"] + 200, chart["y"] + 40)
        page.mouse.down()
        page.mouse.move(chart["x"] + 400, chart["y"] + 40)
        page.mouse.up()
        page.keyboard.up("Shift")
        page.wait_for_function("() => location.search.includes('range=')")
        page.locator(".picker summary").click()
        page.get_by_label("step_seconds").check()
        page.wait_for_function("() => location.search.includes('series=')")
        page.keyboard.press("Escape")
        page.mouse.click(chart["x"] + 300, chart["y"] + 40)
        page.wait_for_function("() => location.search.includes('step=')")
        page.wait_for_function(STILL)
        before = look(page)
        charts = page.locator("step-chart > header h3").all_text_contents()
        hint = page.locator(".hint").text_content()
        page.reload()
        page.wait_for_selector("replay-page[data-ready]")
        assert settle(page, before[0]) == before
        assert page.locator("step-chart > header h3").all_text_contents() == charts
        assert page.locator(".hint").text_content() == hint
        assert "Step time" in charts


def test_an_episode_without_a_video_says_why_and_plays_its_steps(bars: Site) -> None:
    with bars.page(path_of(bars, video=False)) as page:
        assert "not due" in page.locator(".reason").inner_text()
        assert page.locator("video").count() == 0
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => document.querySelector('.overlay').dataset.step === '1'")
        page.keyboard.press("Space")
        page.wait_for_function("() => Number(document.querySelector('.overlay').dataset.step) > 10")
        page.keyboard.press("Space")
        step = page.locator(".overlay").get_attribute("data-step")
        assert f"step {step}" in page.locator(".overlay").inner_text()


def test_the_table_of_steps_and_the_charts_follow_the_picture_and_lead_it(bars: Site) -> None:
    with bars.page(f"{path_of(bars)}?step=150") as page:
        settle(page, 150)
        row = page.locator("virtual-table.steps .row[aria-selected]")
        row.get_by_text("[150]", exact=True).wait_for()
        observation = page.locator("step-chart[data-key=observation] output")
        assert observation.text_content() == "150"
        page.locator("virtual-table.steps .row", has_text="[152]").click()
        assert settle(page, 152) == (152, 152)
        page.wait_for_function(
            "() => document.querySelector('step-chart[data-key=observation] output').textContent === '152'"
        )


def test_hovering_the_scrub_bar_previews_a_picture_and_moves_nothing(bars: Site) -> None:
    with bars.page(f"{path_of(bars)}?step=10") as page:
        settle(page, 10)
        bar = page.locator("scrub-bar").bounding_box()
        assert bar is not None
        page.mouse.move(bar["x"] + bar["width"] * 0.5, bar["y"] + 10)
        page.mouse.move(bar["x"] + bar["width"] * 0.5 + 1, bar["y"] + 10)
        named = page.locator("scrub-bar .popup output").text_content()
        assert named is not None
        step = int(named.split()[1])
        page.wait_for_function(
            """step => {
                const preview = document.querySelector("scrub-bar video");
                return preview.readyState >= 2 && !preview.seeking && pictured(preview) === step;
            }""",
            arg=step,
        )
        assert look(page) == (10, 10)


def test_downloads_are_there_to_take(bars: Site) -> None:
    with bars.page(path_of(bars)) as page:
        page.locator("summary", has_text="Download").click()
        for name, suffix in (("Video (MP4)", ".mp4"), ("Steps (CSV)", ".csv"), ("Steps (JSON)", ".json")):
            with page.expect_download() as download:
                page.locator(".sheet a", has_text=name).click()
            assert download.value.suggested_filename.endswith(suffix)
            assert download.value.path().stat().st_size > 1000


def test_an_episode_that_is_looked_at_while_it_is_recorded_grows_and_gets_its_video(slow: Site) -> None:
    running = (
        "SELECT session, worker, episode FROM episodes WHERE captured AND outcome IS NULL AND recording IS NOT NULL"
    )
    session, worker, episode = slow.until(running)[0]
    with slow.page(f"/episodes/{session}~{worker}~{episode}") as page:
        page.wait_for_selector(".screen video")
        page.wait_for_function("() => document.querySelector('.place').textContent.endsWith('/ 40')")
        page.keyboard.press("End")
        assert settle(page, 40) == (40, 40)


# What `Frames` says of the first frames and steps.
FRAMES = """async ({frame, frames, first, video}) => {
    const {Frames} = await import("/page/frames.js");
    const all = Int32Array.from(frame);
    const [step, videos] = [all.map((_, place) => place + 1), all.map(() => video)];
    const columns = {step, frame: all, frames: Int32Array.from(frames), video: videos};
    const known = new Frames(columns, 7, first);
    return {
        steps: Array.from({length: 8}, (_, one) => known.stepAt(one)),
        frames: Array.from({length: 6}, (_, step) => known.frameFor(step)),
        shown: Array.from({length: 6}, (_, step) => known.shows(step)),
    };
}"""


@dataclass(frozen=True)
class Recorded:
    frame: list[int]
    """Of the steps 1, 2, …; -1: none."""
    frames: list[int]
    first: int | None
    """The frame of the picture after the reset."""
    steps: list[int | None]
    """What the video's frames show, from 0 on."""
    shown_by: list[int | None]
    """Which frame shows the steps, from 0 on."""
    own: list[bool]
    """Whether it is a step's own picture."""


RECORDED = {
    "a whole episode": Recorded(
        [1, 2, 3], [1, 1, 1], 0, [0, 1, 2, 3, None], [0, 1, 2, 3], [True, True, True, True, False]
    ),
    "from the midst of it, with other episodes before and after": Recorded(
        [-1, 2, 3], [0, 1, 1], None, [None, None, 2, 3, None], [2, 2, 2, 3], [False, False, True, True, False]
    ),
    "two pictures a step, as of environments that render in between": Recorded(
        [2, 4, 6], [2, 2, 2], 0, [0, 1, 1, 2, 2, 3, 3, None], [0, 2, 4, 6], [True, True, True, True, False]
    ),
    "the picture of step 2 was lost to a full spool": Recorded(
        [1, -1, 2], [1, 0, 1], 0, [0, 1, 3, None], [0, 1, 1, 2], [True, True, False, True, False]
    ),
    "nothing of it": Recorded([-1, -1, -1], [0, 0, 0], None, [None], [None, None], [False, False, False]),
}


def test_which_step_a_frame_shows_and_which_frame_a_step_is_shown_by(bars: Site) -> None:
    with bars.page("/live") as page:
        for name, one in RECORDED.items():
            asked = {"frame": one.frame, "frames": one.frames, "first": one.first}
            found = page.evaluate(FRAMES, {**asked, "video": 7})
            assert found["steps"][: len(one.steps)] == one.steps, name
            assert found["frames"][: len(one.shown_by)] == one.shown_by, name
            assert found["shown"][: len(one.own)] == one.own, name
            of_another_video = page.evaluate(FRAMES, {**asked, "first": None, "video": 8})
            assert set(of_another_video["steps"]) == {None}, name
