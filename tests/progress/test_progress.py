from __future__ import annotations

import io
import math
import os
import pty
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec
import pytest
from rich.console import Console

from kernel.testing import running
from plugins.events import (
    CaptureHeld,
    EpisodeEnded,
    EpisodeStarted,
    Probe,
    RecordingDiscarded,
    RecordingSealed,
    SessionEnded,
    SessionStarted,
    StepTimes,
    VideoAvailable,
    VideoFailed,
    WorkerEnded,
)
from plugins.progress import Mean, Progress, ProgressOptions, View, bars, in_words, summary

if TYPE_CHECKING:
    from kernel.event import Event

NO_STEPS = StepTimes(counts=[], total_seconds=0.0, longest_seconds=0.0)


def started(session: str = "s1", episodes: int = 4, **fields: Any) -> SessionStarted:
    return SessionStarted(
        session=session, kind="runner", env_id="CartPole-v1", configuration={"episodes": episodes}, **fields
    )


def begun(episode: int, *, captured: bool = False) -> EpisodeStarted:
    return EpisodeStarted(
        session="s1", worker=0, episode=episode, env_id="CartPole-v1", seed="0", capture="", captured=captured
    )


def ended(
    episode: int,
    total_reward: float | None,
    steps: int = 10,
    *,
    worker: int = 0,
    agent: str = "agent_0",
    outcome: Literal["terminated", "truncated", "aborted"] = "terminated",
    success: bool | None = None,
) -> EpisodeEnded:
    return EpisodeEnded(
        session="s1",
        worker=worker,
        agent=agent,
        episode=episode,
        env_id="CartPole-v1",
        total_reward=total_reward,
        steps=steps,
        outcome=outcome,
        success=success,
        env_steps=steps,
        seconds=0.01,
    )


def sealed(recording: str) -> RecordingSealed:
    return RecordingSealed(
        recording=recording, session="s1", worker=0, first_episode=0, last_episode=0, chunks=1, frames=11
    )


def available(recording: str, episode: int = 0, session: str = "s1") -> VideoAvailable:
    return VideoAvailable(
        recording=recording,
        session=session,
        worker=0,
        first_episode=episode,
        last_episode=episode,
        path=f"videos/{session}/rl-video-episode-{episode}.mp4",
        sha256="",
        size_bytes=1,
        frames=11,
        fps=50,
        width=600,
        height=400,
        codec="h264",
        seconds=0.2,
    )


def failed(recording: str) -> VideoFailed:
    return VideoFailed(
        recording=recording, session="s1", attempts=3, reason="ffmpeg was killed", frames_kept_in="failed/r"
    )


def probe(steps: int, frames_dropped: int = 0) -> Probe:
    return Probe(
        session="s1",
        steps=steps,
        seconds=1.0,
        captured=NO_STEPS,
        bare=NO_STEPS,
        spool_bytes=0,
        frames_dropped=frames_dropped,
    )


def the_end(outcome: Literal["finished", "stopped"] = "finished", frames_dropped: int = 0) -> SessionEnded:
    return SessionEnded(session="s1", outcome=outcome, episodes=0, steps=0, recordings=0, frames_dropped=frames_dropped)


def view_of(*events: Event, now: float = 0.0) -> View:
    view = View()
    for event in events:
        view.take_in(event, now)
    return view


def text_of(view: View, home: Path = Path("/home/of"), videos: int = 10) -> str:
    return "\n".join(summary(view, home, videos))


def test_a_mean_and_its_deviation_are_those_of_the_values() -> None:
    values = [1e9 + value for value in (3.0, 1.0, 4.0, 1.0, 5.0)]
    mean = Mean()
    for value in values:
        mean.add(value)
    assert math.isclose(mean.mean, statistics.fmean(values))
    assert math.isclose(mean.deviation, statistics.pstdev(values), rel_tol=1e-6)


def test_a_script_beside_the_run_has_a_line_and_a_summary_without_an_end_to_count_to() -> None:
    script = SessionStarted(
        session="s1",
        kind="script",
        env_id="CartPole-v1",
        label="train.py",
        configuration={"video_folder": "videos", "episode_trigger": "cubic", "episodes": "as many as it takes"},
    )
    video = msgspec.structs.replace(available("r0"), path="/mine/videos/rl-video-episode-0.mp4")
    view = view_of(
        script, begun(0, captured=True), ended(0, 10.0), sealed("r0"), begun(1), ended(1, 20.0), probe(600), now=100.0
    )
    line = in_words(view.tallies["s1"], now=100.0)
    assert line == "CartPole-v1: 2 episodes, 600 steps/s, 1 captured, 1 encoding, 0 videos"
    console = Console(file=io.StringIO(), width=200)
    console.print(bars(view))
    assert "2 episodes" in console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    view.take_in(video, 101.0)
    assert text_of(view).splitlines()[0] == "CartPole-v1 · train.py · session s1 goes on"
    assert "    /mine/videos/rl-video-episode-0.mp4" in text_of(view).splitlines()


def test_a_line_says_how_many_episodes_of_how_many_and_what_becomes_of_the_captured_ones() -> None:
    view = view_of(
        started(episodes=40),
        begun(0, captured=True),
        ended(0, 10.0),
        sealed("r0"),
        begun(1, captured=True),
        ended(1, 10.0),
        sealed("r1"),
        begun(2, captured=True),
        ended(2, 10.0),
        sealed("r2"),
        begun(3),
        available("r0"),
        RecordingDiscarded(recording="r2", session="s1", why="not kept"),
    )
    assert in_words(view.tallies["s1"], 0.0) == "CartPole-v1: 3/40 episodes, 3 captured, 1 encoding, 1 video"


def test_steps_a_second_are_those_of_all_producers_in_the_last_seconds() -> None:
    view = View()
    view.take_in(started(episodes=0), 0.0)
    for second in range(1, 11):
        view.take_in(probe(100), float(second))
        view.take_in(probe(300), float(second))
    (tally,) = view.open()
    assert 320 <= tally.rate(10.0) <= 480
    assert tally.rate(60.0) == 0


def test_the_summary_tells_return_length_and_success_of_the_episodes_that_came_to_their_end() -> None:
    view = view_of(
        started(label="first try"),
        ended(0, 10.0, 10, success=True),
        ended(1, 20.0, 20, success=False),
        ended(2, None, 30, success=False),
        ended(3, 500.0, 3, outcome="aborted"),
        the_end(),
    )
    first, second = text_of(view).splitlines()
    assert first == "CartPole-v1 · first try · session s1 finished"
    assert second.startswith(
        "  4 episodes (1 aborted); return 15 ± 5; 1 without a finite return; length 20; success 33% of 3; "
    )
    assert second.endswith(" steps/s")


def test_an_episode_of_several_agents_is_one_episode() -> None:
    view = view_of(started(), ended(0, 1.0, agent="a"), ended(0, 3.0, agent="b"), ended(0, 5.0, worker=1), the_end())
    assert "2 episodes; return 3 ± 1.633" in text_of(view)


def test_the_summary_names_the_first_videos_and_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    view = view_of(started(), *[available(f"r{episode}", episode) for episode in (10, 5, 0)], the_end())
    assert text_of(view, tmp_path / "data", videos=2).splitlines()[-4:] == [
        "  3 videos:",
        "    data/videos/s1/rl-video-episode-0.mp4",
        "    data/videos/s1/rl-video-episode-5.mp4",
        "    and 1 more",
    ]


def test_the_summary_tells_what_went_wrong() -> None:
    view = view_of(
        started(),
        probe(10, frames_dropped=3),
        WorkerEnded(session="s1", worker=0, outcome="lost", steps=3),
        WorkerEnded(session="s1", worker=0, outcome="failed", steps=3),
        WorkerEnded(session="s1", worker=0, outcome="finished", steps=3),
        sealed("r0"),
        failed("r0"),
        sealed("r1"),
        the_end("stopped", frames_dropped=5),
    )
    assert text_of(view).splitlines() == [
        "CartPole-v1 · session s1 stopped",
        "  0 episodes",
        "  5 frames dropped; 1 worker died; 1 worker failed; 1 video could not be made",
        "  1 video still to be encoded; the next start does it",
    ]


def test_sessions_of_earlier_runs_are_not_summed_up_but_their_videos_are_counted() -> None:
    view = view_of(available("old", session="s0"), ended(0, 1.0))
    assert text_of(view) == "1 video of earlier sessions was finished, too"
    assert text_of(View()) == ""


def test_what_a_user_should_read_at_once_becomes_a_notice() -> None:
    view = view_of(
        started(),
        failed("r0"),
        CaptureHeld(held=True, free_bytes=400 * 1024**2, min_free_bytes=1),
        CaptureHeld(held=False, free_bytes=3 * 1024**3, min_free_bytes=1),
    )
    assert list(view.notices) == [
        "video r0 could not be made: ffmpeg was killed; its frames are kept in failed/r",
        "the disk has 400 MiB left, less than min_free_bytes: no new episode is captured",
        "the disk has room again (3.0 GiB): episodes are captured",
    ]


@pytest.mark.anyio
async def test_in_a_pipe_there_are_plain_lines_and_the_summary_is_on_standard_output(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.progress.LOOK_SECONDS", 0.05)
    async with running(home, {"progress": (Progress, ProgressOptions())}) as kernel:
        await kernel.publish(started(), begun(0, captured=True), ended(0, 7.0), sealed("r0"))
        await kernel.settle()
        await anyio.sleep(0.3)
        await kernel.publish(failed("r0"), *[ended(1 + number, 9.0) for number in range(3)])
        await kernel.settle()
        await anyio.sleep(0.3)
        await kernel.publish(the_end())
    out, err = capsys.readouterr()
    # The second line comes before its 5 s are over, as something went wrong.
    assert [line for line in err.splitlines() if line.startswith(("CartPole-v1", "video"))] == [
        "CartPole-v1: 1/4 episodes, 1 captured, 1 encoding, 0 videos",
        "video r0 could not be made: ffmpeg was killed; its frames are kept in failed/r",
        "CartPole-v1: 4/4 episodes, 1 captured, 0 encoding, 0 videos, 1 video could not be made",
    ]
    assert "\x1b" not in out + err
    assert out.splitlines()[0] == "CartPole-v1 · session s1 finished"
    assert "return 8.5" in out


ON_A_TERMINAL = """
import sys, anyio
from pathlib import Path
from kernel.testing import running
from plugins.progress import Progress, ProgressOptions
from test_progress import begun, ended, started, the_end

async def main():
    async with running(Path(sys.argv[1]), {"progress": (Progress, ProgressOptions())}) as kernel:
        await kernel.publish(started(episodes=30))
        for episode in range(30):
            await kernel.publish(begun(episode), ended(episode, 1.0))
            sys.stderr.write(f"a line of somebody else's, number {episode}\\n")
            await anyio.sleep(0.03)
        await anyio.sleep(0.5)
        await kernel.publish(the_end())

anyio.run(main)
"""


def test_on_a_terminal_a_line_moves_and_the_lines_of_others_stay_whole(home: Path) -> None:
    terminal, terminal_of_child = pty.openpty()
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, str(home)],
        stdin=subprocess.DEVNULL,
        stdout=terminal_of_child,
        stderr=terminal_of_child,
        env={
            **os.environ,
            "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}",
            "TERM": "xterm",
            "COLUMNS": "110",
            "LINES": "30",
        },
    ) as child:
        os.close(terminal_of_child)
        written = b""
        while True:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # what Linux says at the end of a terminal
                break
            if not chunk:
                break
            written += chunk
    os.close(terminal)
    assert child.returncode == 0, written.decode()
    screen = _screen(written.decode())
    others = [line for line in screen if "somebody" in line]
    assert others == [f"a line of somebody else's, number {episode}" for episode in range(30)]
    assert "30/30 episodes" in written.decode()
    assert not any("/30 episodes" in line for line in screen), "the moving line is gone at the end"
    assert screen[-2:] == ["CartPole-v1 · session s1 finished", screen[-1]]
    assert screen[-1].startswith("  30 episodes; return 1 ± 0; length 10; ")


def _screen(written: str) -> list[str]:
    """The lines that a terminal shows at the end: carriage returns, line feeds, cursor up and erase line are heeded."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row -= int(piece[2:-1] or 1)
        elif piece.endswith("K") and piece.startswith("\x1b"):
            lines[row] = ""
        elif not piece.startswith("\x1b"):
            line = lines[row].ljust(column)
            lines[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines if line.strip()]
