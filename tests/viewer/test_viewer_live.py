from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import simplejpeg

from kernel.event import KernelStopped
from kernel.log import Log, first_seq, read, segments
from plugins.events import (
    CaptureApplied,
    EpisodeStarted,
    RecordingStarted,
    SessionAsked,
    SessionEnded,
    VideoPinned,
)
from plugins.viewer import following
from plugins.viewer.asking import Asking
from plugins.viewer.following import Follower
from plugins.viewer.pictures import Gallery
from plugins.viewer.tables import Tables
from tests.environments.bars import shown
from tests.viewer.browsing import CONFIG, Run, running_kernel, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run of the test's own, to change and to end."""
    with running_kernel(tmp_path) as run:
        yield run


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run to look at."""
    with running_kernel(tmp_path_factory.mktemp("shared")) as run:
        yield run


def first_worker(run: Run) -> dict[str, Any]:
    with run.browser.stream() as stream:
        message = stream.first(lambda each: isinstance(each, dict) and each["type"] == "workers" and each["workers"])
        worker: dict[str, Any] = message["workers"][0]
        return worker


def live_files(run: Run) -> list[Path]:
    """What producers render for those who look."""
    return list((run.home / "spool").glob("*/live-*.frame"))


def number_in(jpeg: bytes) -> int:
    return shown(simplejpeg.decode_jpeg(jpeg))


def test_a_picture_is_the_one_of_the_step_it_names_though_nothing_is_captured(shared: Run) -> None:
    worker = first_worker(shared)
    with shared.browser.stream() as stream:
        stream.say(type="watch", workers=[worker["id"]], fps=10)
        seen = []
        for message in stream.messages():
            if isinstance(message, tuple):
                header, jpeg = message
                assert number_in(jpeg) == header["step"], header
                assert header["return"] == header["step"], "each step's reward is 1"
                seen.append(header)
                stream.say(type="ack", picture=header["picture"])
                if len(seen) == 12:
                    break
    assert [each["picture"] for each in seen] == sorted({each["picture"] for each in seen})
    rate = 11 / (seen[-1]["time"] - seen[0]["time"])
    assert rate < 11, "no more than 10 a second"
    home = shared.browser.json("/api/about")["name"]
    assert home == "home"
    frames = shared.browser.json(f"/api/live/{worker['id']}/frames")["frames"]
    assert 1 <= len(frames) <= 5
    kept = shared.browser.get(frames[0]["url"])
    assert number_in(kept.content) == frames[0]["step"]
    assert shared.browser.get(f"/api/live/{worker['id']}/frames/999999.jpg").status_code == 404


@pytest.mark.parametrize(("load", "rate"), [(0.0, 10.0), (1000.0, 5.0)])
def test_where_the_cores_are_taken_workers_show_half_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, rate: float
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    follower = Follower(tmp_path, Tables(tmp_path / "stepreel.sqlite"))
    gallery = Gallery(tmp_path, follower, Asking(tmp_path), 5)
    assert gallery.rate(10.0) == gallery.rate(1e9) == rate
    assert gallery.rate(2.0) == 2.0
    assert gallery.rate(0.0) == 0.5


def test_a_page_begins_at_the_last_part_of_a_long_log_however_long_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "TAIL_BYTES", 2_000)
    monkeypatch.setattr(following, "FAR_BEHIND_BYTES", 10_000)
    log = Log(tmp_path, segment_bytes=10_000)
    while len(segments(tmp_path / "log")) < 4:
        log.append("s", log.last_nth("s") + 1, [VideoPinned(recording="r")])
    log.close()
    follower = caught_up(tmp_path)
    assert follower.position == log.last_seq
    assert [seq for seq, _ in follower.recent] == list(range(follower.dropped_up_to + 1, log.last_seq + 1))
    assert follower.dropped_up_to == first_seq(segments(tmp_path / "log")[2]) - 1


def test_what_came_before_a_damaged_place_is_shown(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=10_000)
    while len(segments(tmp_path / "log")) < 3:
        log.append("s", log.last_nth("s") + 1, [VideoPinned(recording="r")])
    log.close()
    last = segments(tmp_path / "log")[-1]
    last.write_bytes(last.read_bytes().replace(b'"recording":"r"', b'"recording":r', 1))
    follower = caught_up(tmp_path)
    assert f"behind {first_seq(last) - 1}: JSON is malformed" in follower.trouble
    assert [seq for seq, _ in follower.recent] == list(range(1, first_seq(last)))


def caught_up(home: Path) -> Follower:
    """Who has read the log of a home to its end, or to what is damaged in it."""
    follower = Follower(home, Tables(home / "stepreel.sqlite"))

    async def catch_up() -> None:
        with anyio.fail_after(30):
            await follower.catch_up()

    anyio.run(catch_up)
    assert follower._reader is not None
    follower._reader.close()
    return follower


def test_nobody_watching_costs_nothing_and_leaves_nothing(shared: Run) -> None:
    worker = first_worker(shared)
    files = partial(live_files, shared)
    until(lambda: not files())
    with shared.browser.stream() as stream:
        stream.say(type="watch", workers=[worker["id"]], fps=10)
        until(files)
        stream.say(type="watch", workers=[])
        until(lambda: not files())
    asked = [record.event for record in read(shared.home, SessionAsked)][-2:]
    assert [each.action for each in asked] == ["watch", "unwatch"]
    assert all(each.by.startswith("viewer ") for each in asked)


def test_a_page_that_stops_reading_changes_nothing_for_others(shared: Run) -> None:
    worker = first_worker(shared)
    with shared.browser.stream() as deaf, shared.browser.stream() as other:
        for stream in (deaf, other):
            stream.say(type="watch", workers=[worker["id"]], fps=10)
        deaf.socket.recv(60)
        pictures = 0
        for message in other.messages():
            if isinstance(message, tuple):
                pictures += 1
                other.say(type="ack", picture=message[0]["picture"])
                if pictures == 15:
                    break
        # It gets one picture and no second, as it acknowledged none; all that came meanwhile is forgotten.
        heard = 0
        deaf.say(type="watch", workers=[])
        deaf.say(type="subscribe", after=None)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                heard += isinstance(deaf.socket.recv(0.5), bytes)
            except TimeoutError:
                break
        assert heard <= 1


def test_a_page_that_stops_reading_costs_nothing_until_it_reads_again(shared: Run) -> None:
    worker = first_worker(shared)
    files = partial(live_files, shared)
    until(lambda: not files())
    with shared.browser.stream() as stream:
        stream.say(type="watch", workers=[worker["id"]], fps=10)
        header, _ = stream.first(lambda message: isinstance(message, tuple))
        until(lambda: not files())
        stream.say(type="ack", picture=header["picture"])
        again, _ = stream.first(lambda message: isinstance(message, tuple))
        assert again["picture"] > header["picture"]


def test_events_resume_behind_a_seq_without_gap_or_repeat(shared: Run) -> None:
    with shared.browser.stream(after=0) as stream:
        first = stream.events(5)
    with shared.browser.stream(after=first[2]["seq"]) as stream:
        again = stream.events(2)
    assert [each["seq"] for each in again[:2]] == [each["seq"] for each in first[3:5]]
    assert all(each["event"]["type"] != "StepRecorded" for each in first)
    with shared.browser.stream(after=0) as stream:
        stream.socket.send("no JSON")
        with pytest.raises(Exception, match="no message"):
            list(stream.messages())


def test_capture_that_is_asked_for_is_applied_and_shown_as_both(run: Run, tmp_path: Path) -> None:
    answer = run.browser.ask("POST", "/api/capture", {"mode": "every", "every": 2})
    assert answer.status_code == 202
    assert answer.json()["kernel"] == "running"
    state = until(
        lambda: (state := run.browser.json("/api/capture"))["workers"] and state["workers"][0]["mode"] and state
    )
    assert state["asked"] == {"mode": "every", "every": 2}
    assert (state["workers"][0]["mode"], state["workers"][0]["every"]) == ("every", 2)
    applied = next(record.event for record in read(tmp_path / "home", CaptureApplied))

    def captured() -> list[EpisodeStarted]:
        started = [record.event for record in read(tmp_path / "home", EpisodeStarted)]
        return [each for each in started if each.captured and each.episode >= applied.episode]

    assert until(captured)[0].episode % 2 == 0
    until(lambda: run.browser.json("/api/episodes", video="available")["total"])
    assert run.browser.ask("POST", "/api/capture", {"mode": "off"}).status_code == 202
    assert run.browser.ask("POST", "/api/capture/once", {}).status_code == 202
    until(lambda: any(record.event.once for record in read(tmp_path / "home", CaptureApplied)))


def test_videos_are_pinned_deleted_and_kept_within_other_limits(run: Run, tmp_path: Path) -> None:
    run.browser.ask("POST", "/api/capture", {"mode": "every", "every": 1})

    def videos() -> list[int]:
        columns = run.browser.json("/api/episodes", video="available", sort="started")["columns"]
        found: list[int] = columns["video"]
        return found

    until(lambda: len(videos()) >= 2)
    run.browser.ask("POST", "/api/capture", {"mode": "off"})
    # What is still in the making when a session's videos are deleted comes behind that.
    until(lambda: not [*read(tmp_path / "home", EpisodeStarted)][-1].event.captured)
    until(lambda: len(videos()) == len([*read(tmp_path / "home", RecordingStarted)]))
    pinned, free, *_ = videos()
    assert run.browser.ask("PUT", f"/api/videos/{pinned}/pin").status_code == 202
    until(lambda: run.browser.json("/api/episodes", pinned="true")["total"] == 1)
    assert run.browser.ask("DELETE", f"/api/videos/{pinned}").status_code == 409
    assert run.browser.ask("DELETE", f"/api/videos/{free}").status_code == 202
    until(lambda: free not in videos())
    text = run.browser.json("/api/episodes", video="pruned", sort="started")["columns"]["video_text"][0]
    assert text.endswith("asked for by viewer (asked by viewer)")
    assert run.browser.get(f"/api/videos/{free}/file").status_code == 404

    session = run.browser.json("/api/sessions")["sessions"][0]["session"]
    answer = run.browser.ask("DELETE", f"/api/sessions/{session}/videos").json()
    assert answer["pinned"] == 1
    until(lambda: videos() == [pinned])
    assert run.browser.ask("DELETE", f"/api/videos/{pinned}/pin").status_code == 202
    until(lambda: run.browser.json("/api/episodes", pinned="true")["total"] == 0)
    assert run.browser.ask("PUT", "/api/retention", {"max_bytes": 1}).status_code == 202
    until(lambda: not videos())
    prune = run.browser.json("/api/system")["prune"]
    assert prune["limits"]["max_bytes"] == 1
    assert prune["asked_by"] == "viewer"
    assert run.browser.ask("PUT", "/api/retention", {"max_bytes": -1}).status_code == 400
    assert (tmp_path / "home" / "retention.json").is_file()


def test_a_session_pauses_goes_on_and_stops(run: Run, tmp_path: Path) -> None:
    session = until(lambda: run.browser.json("/api/sessions")["sessions"])[0]["session"]
    assert run.browser.ask("POST", f"/api/sessions/{session}/pause").status_code == 202
    until(lambda: run.browser.json("/api/sessions")["sessions"][0]["paused"])
    assert run.browser.ask("POST", f"/api/sessions/{session}/resume").status_code == 202
    until(lambda: not run.browser.json("/api/sessions")["sessions"][0]["paused"])
    assert run.browser.ask("POST", "/api/sessions/another/stop").status_code == 404
    assert run.browser.ask("POST", f"/api/sessions/{session}/stop").status_code == 202
    assert run.process.wait(60) == 0
    (ended,) = [record.event for record in read(tmp_path / "home", SessionEnded)]
    assert ended.outcome == "stopped"
    with pytest.raises(httpx.ConnectError):
        run.browser.get("/api/about")


def test_the_system_page_has_what_is_measured(shared: Run) -> None:
    def measured() -> Any:
        system = shared.browser.json("/api/system")
        return system if system["probes"]["time"] and system["lag"]["time"] else None

    system = until(measured)
    assert {plugin["name"]: plugin["state"] for plugin in system["plugins"]}["viewer"] == "started"
    assert system["probes"]["bare_p50"][-1] >= 0.004, "a step sleeps for 5 ms"
    assert system["disk"]["log_bytes"] > 0
    assert system["disk"]["free_bytes"] > 0
    assert system["prune"]["limits"]["max_videos_per_session"] == 50


def test_ctrl_c_ends_the_kernel_with_pages_streams_and_a_video_open(run: Run, tmp_path: Path) -> None:
    run.browser.ask("POST", "/api/capture", {"mode": "every", "every": 1})
    worker = first_worker(run)
    number = until(lambda: run.browser.json("/api/episodes", video="available")["columns"]["video"])[0]
    with (
        run.browser.stream() as stream,
        run.browser.client.stream("GET", f"/api/videos/{number}/file"),  # of which nothing is read
        run.browser.stream(),
    ):
        stream.say(type="watch", workers=[worker["id"]])
        stream.first(lambda message: isinstance(message, tuple))
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0
    (stopped,) = [record.event for record in read(tmp_path / "home", KernelStopped)]
    assert stopped.outcome == "drained"


def test_a_killed_kernel_takes_its_viewer_along(run: Run) -> None:
    run.browser.json("/api/about")
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(60)

    def gone() -> bool:
        try:
            run.browser.get("/api/about")
        except httpx.TransportError:
            return True
        return False

    until(gone)


def test_a_viewer_that_is_killed_is_started_again_and_nothing_else_notices(run: Run, tmp_path: Path) -> None:
    import psutil

    (viewer,) = [each for each in psutil.Process(run.process.pid).children() if "plugins.viewer" in each.cmdline()]
    viewer.kill()
    until(lambda: (tmp_path / "errors").read_text().count("viewer: http") == 2)
    assert run.process.poll() is None


def test_an_environment_that_cannot_draw_is_shown_by_its_numbers(tmp_path: Path) -> None:
    config = CONFIG.replace('env = "Bars-v0"\nimport = ["bars"]', 'env = "FrozenLake-v1"')
    config = config.replace(
        "env_kwargs = {{ length = 200, step_seconds = 0.005 }}", "env_kwargs = {{ is_slippery = true }}"
    )
    with running_kernel(tmp_path, config) as run:
        worker = first_worker(run)
        with run.browser.stream() as stream:
            stream.say(type="watch", workers=[worker["id"]])

            def moved(message: Any) -> bool:
                if not isinstance(message, dict) or message["type"] != "workers" or not message["workers"]:
                    return False
                return bool(message["workers"][0]["step"])

            stream.first(moved)
    assert json.dumps(worker)
