from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from plugins.events import (
    EpisodeStarted,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    VideoFailed,
    VideoPinned,
    VideoPruned,
)
from plugins.viewer.ids import EpisodeId, WorkerId, episode_id, worker_id
from tests.viewer.browsing import served
from tests.viewer.viewed_homes import BEGAN, OTHER, SESSION, episode, film, make_home, session, session_ended, video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.viewer.browsing import Browser


def recorded(recording: str, index: int) -> RecordingStarted:
    return RecordingStarted(
        recording=recording,
        session=SESSION,
        worker=0,
        episode=index,
        env_id="CartPole-v1",
        path=f"videos/{SESSION}/{recording}.mp4",
        fps=30.0,
        width=64,
        height=48,
    )


def sealed(recording: str, index: int, chunks: int = 1) -> RecordingSealed:
    return RecordingSealed(
        recording=recording,
        session=SESSION,
        worker=0,
        first_episode=index,
        last_episode=index,
        chunks=chunks,
        frames=chunks * 512,
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("episodes") / "home"
    path = f"videos/{SESSION}/rl-video-episode-0.mp4"
    content = film(home / path)
    events: list[Any] = [session()]
    for index in range(60):
        if index >= 8:
            events += episode(index, steps=index, success=index % 3 == 0, evaluation=index % 10 == 0)
    events += [
        *video("r-0", 0, path, content),
        *episode(0, 500, recording="r-0"),
        VideoPinned(recording="r-0", by="ann"),
    ]
    events += [recorded("r-1", 1), sealed("r-1", 1), *episode(1, recording="r-1")]
    events += [recorded("r-2", 2), *episode(2, recording="r-2")]
    events += [recorded("r-3", 3), *episode(3, recording="r-3")]
    events += [RecordingDiscarded(recording="r-3", session=SESSION, why="it was not among the best")]
    events += [recorded("r-4", 4), sealed("r-4", 4), *episode(4, recording="r-4")]
    events += [VideoFailed(recording="r-4", session=SESSION, attempts=3, reason="no space <left>")]
    events += [*video("r-5", 5, "videos/5.mp4", content), *episode(5, recording="r-5")]
    pruned: dict[str, Any] = {
        "path": "videos/5.mp4",
        "size_bytes": 1,
        "policy": "max_bytes",
        "reason": "too many bytes",
        "by": "",
    }
    events += [VideoPruned(recording="r-5", session=SESSION, **pruned)]
    events += [*episode(6, outcome="aborted", total_reward=None)]
    events += [episode(7)[0], session_ended(episodes=60)]
    events += [session(OTHER, label="another"), *episode(0, 7, session=OTHER), *episode(1, 3, session=OTHER)]
    anyio.run(make_home, home, events)
    with served(home) as browser:
        yield browser


def ids(browser: Browser, **parameters: Any) -> list[str]:
    found: list[str] = browser.json("/api/episodes", **parameters)["columns"]["id"]
    return found


def test_every_episode_says_what_became_of_its_video(browser: Browser) -> None:
    columns = browser.json("/api/episodes", session=SESSION, sort="episode", limit=9)["columns"]
    states = dict(zip(columns["episode"], zip(columns["video_state"], columns["video_text"], strict=True), strict=True))
    assert states[0] == ("available", "")
    assert states[1] == ("encoding", "not encoded yet; the next kernel does it")
    assert states[2] == ("recording", "was not sealed; the next kernel finishes it")
    assert states[3] == ("discarded", "discarded by the keep policy: it was not among the best")
    assert states[4] == ("failed", "failed: no space <left>")
    assert states[5][0] == "pruned"
    assert states[5][1].startswith("pruned on 20")
    assert states[5][1].endswith(": too many bytes")
    assert states[8] == ("not_captured", "not captured: not due")
    assert columns["pinned"] == [True] + [False] * 8
    assert columns["thumbnail"] == [None] * 9


def test_every_filter_keeps_to_what_it_says(browser: Browser) -> None:
    total = browser.json("/api/episodes")["total"]
    assert total == 62
    assert browser.json("/api/episodes", session=OTHER)["total"] == 2
    assert len(ids(browser, session=[SESSION, OTHER])) == 62
    assert ids(browser, video="available") == [f"{SESSION}~0~0"]
    assert ids(browser, pinned="true") == [f"{SESSION}~0~0"]
    assert len(ids(browser, pinned="false")) == total - 1
    assert set(ids(browser, video=["failed", "pruned"])) == {f"{SESSION}~0~4", f"{SESSION}~0~5"}
    assert ids(browser, outcome="aborted") == [f"{SESSION}~0~6"]
    assert len(ids(browser, evaluation="true")) == 5
    failed = browser.json("/api/episodes", failed="true", limit=100)["columns"]
    assert all(
        success is False or outcome == "aborted"
        for success, outcome in zip(failed["success"], failed["outcome"], strict=True)
    )
    assert len(failed["id"]) == 35 + 1
    assert len(ids(browser, q="ANOTHER")) == 2
    assert ids(browser, q="%") == []
    assert ids(browser, worker=1) == []


@pytest.mark.parametrize(
    "column", ["started", "ended", "return", "length", "seconds", "episode", "worker", "outcome", "env"]
)
def test_each_sort_orders_with_nothing_last(browser: Browser, column: str) -> None:
    for sign in ("", "-"):
        values = browser.json("/api/episodes", sort=sign + column, limit=100)["columns"][column]
        known = [value for value in values if value is not None]
        assert values == sorted(known, reverse=bool(sign)) + [None] * (len(values) - len(known))


def test_windows_fit_together(browser: Browser) -> None:
    whole = ids(browser, sort="-return", limit=100)
    parts = [each for offset in range(0, 62, 10) for each in ids(browser, sort="-return", limit=10, offset=offset)]
    assert parts == whole
    assert len(set(whole)) == 62


def test_marks_name_the_extremes(browser: Browser) -> None:
    marks = browser.json("/api/episodes/marks", session=SESSION)
    assert marks["best"] == marks["longest"] == f"{SESSION}~0~0"
    assert marks["worst"] == f"{SESSION}~0~8"
    assert marks["latest"] == f"{SESSION}~0~59"
    assert marks["failed"] == f"{SESSION}~0~59"
    assert browser.json("/api/episodes/marks", q="no such thing")["best"] is None


def test_one_episode_tells_all_about_itself(browser: Browser) -> None:
    found = browser.json(f"/api/episodes/{SESSION}~0~0")
    assert found["first_frame"] == 0
    assert [each["recording"] for each in found["videos"]] == ["r-0"]
    assert found["videos"][0]["pinned_by"] == "ann"
    assert found["videos"][0]["file"] == f"/api/videos/{found['video']}/file"
    assert found["next"] == f"{SESSION}~0~1"
    assert found["previous"] is None
    assert found["best"] == f"{SESSION}~0~0"
    assert [each["id"] for each in found["same_seed"]] == [f"{OTHER}~0~0"]
    assert browser.get(f"/api/episodes/{SESSION}~0~999").status_code == 404


def test_sessions_and_their_progress(browser: Browser) -> None:
    mine = {each["session"]: each for each in browser.json("/api/sessions")["sessions"]}
    assert mine[SESSION]["videos"] == 1
    assert mine[SESSION]["pinned"] == 1
    assert mine[SESSION]["outcome"] == "finished"
    assert mine[OTHER]["outcome"] == "lost", "nobody runs it, and nobody has said how it ended"
    assert mine[OTHER]["steps"] == 10
    first, second = browser.json("/api/progress", session=[SESSION, OTHER])["sessions"]
    assert first["total"] == 59
    assert sum(video is not None for video in first["columns"]["video"]) == 1
    assert first["columns"]["x"] == sorted(first["columns"]["x"])
    assert second["columns"]["x"] == [7, 10]
    thinned = browser.json("/api/progress", session=SESSION, points=10)["sessions"][0]["columns"]
    assert 10 <= len(thinned["x"]) <= 12
    assert any(video is not None for video in thinned["video"]), "episodes with a video stay"
    assert first["columns"]["x"][-1] == thinned["x"][-1]


def test_two_sessions_are_paired_by_seed(browser: Browser) -> None:
    pairs = browser.json("/api/pairs", a=SESSION, b=OTHER)["pairs"]
    assert [(pair["seed"], pair["a"], pair["b"]) for pair in pairs] == [
        ("0", f"{SESSION}~0~0", f"{OTHER}~0~0"),
        ("1", f"{SESSION}~0~1", f"{OTHER}~0~1"),
    ]


def test_new_rows_never_move_what_is_looked_at(tmp_path: Path) -> None:
    home = tmp_path / "home"
    anyio.run(make_home, home, [session(), *[each for index in range(5) for each in episode(index)]])
    with served(home) as browser:
        before = browser.json("/api/episodes")
        assert (before["total"], before["newer"]) == (5, 0)
        anyio.run(make_home, home, [each for index in range(5, 8) for each in episode(index)])
        after = browser.json("/api/episodes", as_of=before["as_of"])
        assert after["columns"]["id"] == before["columns"]["id"]
        assert (after["total"], after["newer"]) == (5, 3)
        assert browser.json("/api/episodes")["total"] == 8


def test_a_share_of_the_segments_is_how_far_the_encoding_is(tmp_path: Path) -> None:
    from plugins.viewer.videos import Place, encoded_percent, text_of

    home = tmp_path
    folder = home / "spool" / "20261122-062718-k3v9-q2xa81bc" / "20261122-062718-k3v9-q2xa81bc-0000"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number:05d}.mp4").touch()
    assert encoded_percent(home, folder.name, 5) == 60
    video = {"state": "sealed", "recording": folder.name, "chunks": 5, "reason": None}
    assert text_of(Place(home, [], kernel=True), video) == "encoding 60 %"
    assert text_of(Place(home, [], kernel=False), video) == "not encoded yet; the next kernel does it"
    for evil in ("../x-0", "/etc-0", ".-0", "a\0-0", "none-0"):
        assert encoded_percent(home, evil, 5) in (None, 0)


def test_a_home_without_tables_is_shown_as_empty(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "home.json").write_text('{"id": "abc"}')
    with served(home) as browser:
        about = browser.json("/api/about")
        assert (about["database"], about["kernel"], about["home"]) == ("missing", "none", "abc")
        assert browser.json("/api/sessions") == {"sessions": []}
        assert browser.json("/api/episodes")["total"] == 0
        assert browser.json("/api/progress") == {"sessions": []}
        assert browser.json("/api/system")["storage"] == []
        (home / "stepreel.sqlite").write_text("no database")
        assert browser.json("/api/about")["database"] == "unreadable"


def test_the_agents_of_an_episode_are_rows_of_their_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    start, end = episode(0)
    assert isinstance(start, EpisodeStarted)
    import msgspec

    ends = [
        msgspec.structs.replace(end, agent=agent, total_reward=float(place))
        for place, agent in enumerate(["a b", "c/d~e"])
    ]
    anyio.run(make_home, home, [session(), start, *ends])
    with served(home) as browser:
        columns = browser.json("/api/episodes", sort="return")["columns"]
        assert columns["agent"] == ["a b", "c/d~e"]
        for name, agent, total in zip(columns["id"], columns["agent"], columns["return"], strict=True):
            from urllib.parse import quote

            found = browser.json(f"/api/episodes/{quote(name, safe='')}")
            assert (found["agent"], found["return"]) == (agent, total)
            assert [each["agent"] for each in found["agents"]] == ["a b", "c/d~e"]


@pytest.mark.parametrize("session_name", ["20261122-062718-k3v9", "a b", "x~y", "../..", "%41", "ü", "a.b"])
def test_an_id_leads_back_to_what_it_names(session_name: str) -> None:
    for agent in ("agent_0", "prey/1", "~"):
        made = EpisodeId(session_name, 3, 12, agent)
        assert episode_id(str(made)) == made
        assert "/" not in str(made)
    assert worker_id(str(WorkerId(session_name, 2))) == WorkerId(session_name, 2)
    assert BEGAN
