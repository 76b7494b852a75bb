"""Compare in a real browser: several pictures, one clock."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.viewer_page.browsers import Site

# Of each lane, the step it names and the one its picture shows; null while it is on its way.
LANES = """() => [...document.querySelectorAll(".lane")].map((lane) => {
    const video = lane.querySelector("video");
    const {step, busy} = lane.querySelector(".overlay").dataset;
    return busy === undefined && video.paused ? [Number(step), pictured(video)] : null;
})"""
ALL_ARE = """wanted => {
    const lanes = (LANES)();
    return lanes.length === wanted.length && lanes.every((lane, place) => lane?.[0] === wanted[place]);
}""".replace("LANES", LANES)


def path_of(site: Site, *episodes: tuple[str, int, int], **query: object) -> str:
    ids = ",".join(f"{session}~{worker}~{episode}" for session, worker, episode in episodes)
    return "&".join([f"/compare?ids={quote(ids, safe=',~')}", *(f"{key}={value}" for key, value in query.items())])


def filmed(site: Site) -> list[tuple[str, int, int, int]]:
    return site.asked(
        "SELECT session, worker, episode, steps FROM episodes WHERE video_path IS NOT NULL ORDER BY steps"
    )


def settle(page: Page, *steps: int) -> None:
    page.wait_for_function(ALL_ARE, arg=list(steps))
    assert page.evaluate(LANES) == [[step, step] for step in steps]


@pytest.mark.parametrize("align", ["step", "end"])
def test_pictures_beside_each_other_are_of_the_steps_they_are_aligned_by(lengths: Site, align: str) -> None:
    short, long = filmed(lengths)
    assert (short[3], long[3]) == (60, 90)
    ahead = 0 if align == "step" else 30
    with lengths.page(path_of(lengths, short[:3], long[:3], align=align, step=40)) as page:
        settle(page, 40 - ahead, 40)
        page.keyboard.press("ArrowRight")
        settle(page, 41 - ahead, 41)
        page.keyboard.press("Shift+ArrowLeft")
        settle(page, 31 - ahead, 31)
        page.keyboard.press("End")
        settle(page, 60, 90)
        page.keyboard.press("Home")
        settle(page, 0, 0)
        for _ in range(3):
            page.keyboard.press("Space")
            page.wait_for_function(
                "() => Number(document.querySelector('.compare .place').textContent.split(' ')[0]) % 90 > 5"
            )
            page.keyboard.press("Space")
            page.wait_for_function("() => [...document.querySelectorAll('.lane video')].every((one) => one.paused)")
            at = int((page.locator(".compare .place").text_content() or "").split()[0])
            settle(page, min(60, max(0, at - ahead)), at)
        chart = page.locator("step-chart .surface").first.bounding_box()
        assert chart is not None
        page.mouse.click(chart["x"] + chart["width"] * 0.8, chart["y"] + 40)
        at = int((page.locator(".compare .place").text_content() or "").split()[0])
        settle(page, min(60, at - ahead), at)
        page.wait_for_function("at => location.search.endsWith(`step=${at}`)", arg=at)
        page.reload()
        page.wait_for_selector("compare-page[data-ready]")
        settle(page, min(60, at - ahead), at)


def test_pictures_beside_each_other_are_of_the_time_they_are_aligned_by(rates: Site) -> None:
    slow, _, quick, _ = filmed(rates)
    with rates.page(path_of(rates, slow[:3], quick[:3], align="time", step=10)) as page:
        settle(page, 10, 30)  # half a second
        page.keyboard.press("ArrowRight")
        settle(page, 11, 33)
        page.keyboard.press("End")
        settle(page, 60, 90)  # three seconds; the other was over after one and a half
        page.get_by_label("Align").select_option("step")
        page.wait_for_function("() => !location.search.includes('align')")
        page.keyboard.press("Home")
        page.keyboard.press("Shift+ArrowRight")
        settle(page, 10, 10)


def test_four_episodes_have_one_clock_and_each_can_be_left_out(rates: Site) -> None:
    episodes = [episode[:3] for episode in filmed(rates)]
    assert len(episodes) == 4
    with rates.page(path_of(rates, *episodes, step=25)) as page:
        settle(page, 25, 25, 25, 25)
        page.keyboard.press("End")
        settle(page, 60, 60, 90, 90)
        page.locator(".lane").nth(1).get_by_role("button", name="Leave it out").click()
        page.wait_for_function("() => document.querySelectorAll('.lane').length === 3")
        page.keyboard.press("Home")
        settle(page, 0, 0, 0)
        assert page.url.count("%7E") == 6


# Moments that come by chance alone, with a video that does what it is told.
TRANSPORT = """async () => {
    const {VideoTransport} = await import("/page/transport.js");
    const video = Object.assign(new EventTarget(), {
        readyState: 0, seeking: false, paused: true, ended: false, currentTime: 0,
        requestVideoFrameCallback(shown) { this.shown = (frame) => shown(0, {mediaTime: frame / 10}); },
    });
    const frames = {frameFor: (step) => step, stepAt: (frame) => frame};
    const shape = {fps: 10, count: 50, first: 0, last: 49};
    const transport = new VideoTransport(video, frames, shape, new AbortController().signal);
    WHAT_HAPPENS
    return video.currentTime;
}"""
READY_BEFORE_IT_SAYS_SO = """
    transport.seek(25);
    video.readyState = 1;
    transport.seek(3);
    video.dispatchEvent(new Event("loadedmetadata"));
"""
TOLD_LATE_OF_THE_PICTURE_BEFORE = """
    video.readyState = 4;
    video.shown(3);
    transport.seek(25);
    video.shown(3);
    video.dispatchEvent(new Event("seeked"));
    transport.seek(3);
"""


@pytest.mark.parametrize("what_happens", [READY_BEFORE_IT_SAYS_SO, TOLD_LATE_OF_THE_PICTURE_BEFORE])
def test_the_last_step_asked_for_is_the_one_that_is_sought(lengths: Site, what_happens: str) -> None:
    with lengths.page("/compare") as page:
        assert page.evaluate(TRANSPORT.replace("WHAT_HAPPENS", what_happens)) == 0.35


def test_two_sessions_are_paired_by_seed(lengths: Site) -> None:
    with lengths.page("/compare") as page:
        row = page.locator(".pairs tbody tr").first
        assert row.locator("td").first.text_content() == "1"
        assert "30" in (row.text_content() or "")
        row.get_by_text("Side by side").click()
        page.wait_for_selector("compare-page[data-ready] .lane")
        assert page.locator(".lane header").all_inner_texts()[0].count("seed 1") == 1


def test_the_pictures_side_by_side_are_had_as_one_video(lengths: Site) -> None:
    short, long = filmed(lengths)
    with lengths.page(path_of(lengths, short[:3], long[:3])) as page:
        page.get_by_role("button", name="Export MP4").click()
        with page.expect_download() as download:
            page.locator("a.take").click()
        assert download.value.suggested_filename.endswith(".mp4")
        assert download.value.path().stat().st_size > 2000
