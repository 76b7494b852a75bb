from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.plugin import Refused
from kernel.testing import running
from plugins.events import VideoDeleteAsked, VideoPinned
from plugins.viewer import Viewer, ViewerOptions
from plugins.viewer import plugin as module
from tests.viewer.browsing import served, until
from tests.viewer.viewed_homes import SESSION, episode, film, make_home, session, session_ended, video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPEN = "20261123-000000-open"
PATH = f"videos/{SESSION}/rl-video-episode-0.mp4"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A home whose session is over, with two videos."""
    home = tmp_path / "home"
    content = film(home / PATH, 30)
    film(home / "videos" / "1.mp4", 60)
    said = [session(), *video("r-0", 0, PATH, content), *episode(0, recording="r-0")]
    said += [*video("r-1", 1, "videos/1.mp4", content, frames=60, seconds=2.0), *episode(1, recording="r-1")]
    anyio.run(make_home, home, [*said, session_ended()])
    return home


def test_without_a_kernel_wishes_wait_and_what_needs_one_says_so(recorded: Path) -> None:
    with served(recorded) as browser:
        assert browser.json("/api/about")["kernel"] == "none"
        number = browser.json(f"/api/episodes/{SESSION}~0~0")["video"]
        answer = browser.ask("PUT", f"/api/videos/{number}/pin")
        assert (answer.status_code, answer.json()["kernel"]) == (202, "none")
        assert browser.ask("DELETE", f"/api/videos/{number}").status_code == 202
        stopped = browser.ask("POST", f"/api/sessions/{SESSION}/stop")
        assert stopped.status_code == 409
        assert "no kernel runs" in stopped.json()["error"]

    from plugins.collector import Collector, CollectorOptions

    async def next_kernel() -> list[str]:
        async with running(recorded, {"collector": (Collector, CollectorOptions(silent_seconds=0.0))}) as kernel:
            await kernel.settle()
            events = [record.event for kind in (VideoPinned, VideoDeleteAsked) for record in kernel.records(kind)]
            return list(map(repr, events))

    assert anyio.run(next_kernel) == [
        repr(kind(recording="r-0", by="viewer")) for kind in (VideoPinned, VideoDeleteAsked)
    ]


def test_a_folder_that_cannot_be_written_is_only_shown(recorded: Path) -> None:
    with without_leave_to_write(recorded) as prefix, served(recorded, prefix=prefix) as browser:
        about = browser.json("/api/about")
        assert (about["writable"], about["database"]) == (False, "ready")
        found = browser.json("/api/episodes")
        assert found["total"] == 2
        number = found["columns"]["video"][0]
        assert browser.get(f"/api/videos/{number}/file").status_code == 200
        assert browser.json("/api/system")["disk"]["log_bytes"] > 0
        for method, path in (
            *(("PUT", f"/api/videos/{number}/pin"), ("DELETE", f"/api/videos/{number}")),
            *(("POST", "/api/capture/once"), ("PUT", "/api/retention"), ("DELETE", f"/api/sessions/{SESSION}/videos")),
        ):
            answer = browser.ask(method, path)
            assert answer.status_code == 403, path
            assert "only shown" in answer.json()["error"]
        with browser.stream(after=0) as stream:
            assert stream.events(1)


def test_episodes_are_put_side_by_side(recorded: Path) -> None:
    from plugins.video.mp4 import read_video

    with served(recorded) as browser:
        ids = [f"{SESSION}~0~0", f"{SESSION}~0~1"]
        for align in ("step", "end"):
            answer = browser.ask("POST", "/api/comparisons", {"ids": ids, "align": align})
            assert answer.status_code == 202
            path = f"/api/comparisons/{answer.json()['id']}"
            until(lambda path=path: browser.json(path)["state"] != "running")  # type: ignore[misc] # mypy knows no defaults of lambdas
            done = browser.json(path)
            assert done["state"] == "ready", done
            (recorded.parent / "both.mp4").write_bytes(browser.get(done["file"]).content)
            made = read_video(recorded.parent / "both.mp4")
            assert (made.width, made.height, made.frames) == (1280, 480, 60)
        for wrong in ([], ids[:1], ids * 3, [f"{SESSION}~0~0", f"{SESSION}~0~9"], ["x", "y"]):
            assert browser.ask("POST", "/api/comparisons", {"ids": wrong}).status_code in (400, 404)


def test_folders_outside_are_shown_when_they_are_named(tmp_path: Path) -> None:
    home, videos = tmp_path / "home", tmp_path / "videos"
    content = film(videos / "a.mp4")
    said = [session(kind="script"), *video("r-0", 0, str(videos / "a.mp4"), content), *episode(0, recording="r-0")]
    anyio.run(make_home, home, said)
    with served(home) as browser:
        (row,) = browser.json(f"/api/episodes/{SESSION}~0~0")["videos"]
        assert row["file"] is None
        refused = browser.get(f"/api/videos/{row['id']}/file")
        assert refused.status_code == 403
        assert f"--folder {videos}" in refused.json()["error"]
    with served(home, "--folder", str(videos)) as browser:
        (row,) = browser.json(f"/api/episodes/{SESSION}~0~0")["videos"]
        assert browser.get(row["file"]).content == content


def test_the_command_refuses_what_is_no_home_and_says_where_it_listens(tmp_path: Path, recorded: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plugins.viewer", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is no home of a kernel" in done.stderr
    wrong = [sys.executable, "-m", "plugins.viewer", str(recorded), "--address", "192.0.2.1", "--port", "0"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("192.0.2.1:0: ")


def test_workers_of_sessions_that_ended_long_ago_are_left_out(recorded: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from kernel.event import Event, Record
    from plugins.events import WorkerStarted
    from plugins.viewer.following import State

    def heard(state: State, event: Event, ago: float) -> None:
        state.take_in(Record(1, datetime.now(UTC) - timedelta(seconds=ago), "s", 1, event))

    began = WorkerStarted(session=SESSION, worker=0, pid=1, env_id="CartPole-v1")
    for events, left in (
        ([(began, 500.0), (session_ended(), 400.0)], 0),
        ([(began, 500.0), (session_ended(), 5.0)], 1),
        ([(began, 500.0)], 0),  # killed, as nobody holds its lock
        ([(began, 5.0)], 1),
    ):
        state = State()
        for event, ago in events:
            heard(state, event, ago)
        state.forget_ended(recorded)
        assert len(state.workers) == left


def test_a_home_of_pipes_and_links_holds_up_nothing(recorded: Path) -> None:
    name = "20261122-062718-k3v9-q2xa81bc"
    spool = recorded / "spool" / name
    spool.mkdir(parents=True)
    (recorded / "sessions" / OPEN).mkdir(parents=True)
    (recorded / "recordings").mkdir(exist_ok=True)
    for place in ("recordings/x.json", f"sessions/{OPEN}/lock", f"spool/{name}/live-0.frame"):
        os.mkfifo(recorded / place)
    (recorded / "recordings" / "y.json").symlink_to("/dev/zero")
    (recorded / "recordings" / "z.json").mkdir()
    (recorded / "spool" / "loop").symlink_to(recorded / "spool")
    (recorded / "retention.json").write_text('{"limits": {"max_bytes": 1}}')
    anyio.run(make_home, recorded, [session(OPEN)])
    with served(recorded) as browser:
        assert browser.json("/api/system")["prune"]["removals"] == []
        assert {each["session"]: each["running"] for each in browser.json("/api/sessions")["sessions"]}[OPEN] is False
        with browser.stream(after=0) as stream:
            stream.say(type="watch", workers=[f"{SESSION}~0"])
            assert stream.events(1)
        assert browser.json("/api/about")["database"] == "ready"
    for place in ("lock", "capture.json"):
        (recorded / place).unlink(missing_ok=True)
        os.mkfifo(recorded / place)
        command = [sys.executable, "-m", "plugins.viewer", str(recorded), "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{place}: is no regular file" in done.stderr
        (recorded / place).unlink()


def test_a_port_that_is_taken_is_passed_over(recorded: Path) -> None:
    with served(recorded) as first:
        port = int(first.url.rpartition(":")[2])
        with served(recorded, "--port", str(port)) as second:
            assert second.url != first.url
            assert second.json("/api/about")["home"] == first.json("/api/about")["home"]


@pytest.mark.anyio
async def test_a_missing_library_is_named_with_the_way_to_get_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEEDS", ("starlette", "no_such_library"))
    viewer = Viewer(ViewerOptions(), None)  # type: ignore[arg-type] # its check needs no port
    with pytest.raises(Refused, match=r'no_such_library: not installed. pip install "stepreel\[viewer\]"'):
        await viewer.check()


@pytest.mark.parametrize("options", [{"port": -1}, {"port": 70000}, {"frame_cache": -1}, {"frame_cache": 1000}])
def test_options_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ViewerOptions(**options)


def test_importing_the_plugin_brings_no_web_server() -> None:
    heavy = "starlette", "uvicorn", "plotly", "simplejpeg", "numpy"
    code = f"import sys, plugins.viewer; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@contextmanager
def without_leave_to_write(folder: Path) -> Iterator[list[str]]:
    """A folder that may only be read; and the words to put in front of a command, so that it keeps to that as root."""
    before = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    for path, mode in before.items():
        path.chmod(mode & ~0o222)
    try:
        yield ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    finally:
        for path, mode in before.items():
            path.chmod(mode)
