from __future__ import annotations

from typing import TYPE_CHECKING

import cyclopts
import pytest

from kernel.event import KernelStarted
from kernel.files import acquire
from kernel.log import Log, read
from plugins import catalogue
from plugins.events import Keep, VideoPruned
from plugins.pruner.command import prune

if TYPE_CHECKING:
    from pathlib import Path


def fill(home: Path, count: int, max_videos: int = 0) -> None:
    """A home with a log, and so many videos of one session."""
    Log(home).close()
    (home / "videos").mkdir()
    for number in range(count):
        file = home / "videos" / f"{number}.mp4"
        file.write_bytes(bytes(10))
        catalogue.write(
            home,
            catalogue.Entry(
                recording=f"s-{number:04d}",
                session="s",
                worker=0,
                first_episode=number,
                last_episode=number,
                env_id="CartPole-v1",
                path=f"videos/{number}.mp4",
                identity=catalogue.identify(file),
                sha256="",
                frames=1,
                fps=1.0,
                width=2,
                height=2,
                codec="h264",
                seconds=1.0,
                thumbnail=None,
                complete=True,
                incomplete_because="",
                total_reward=None,
                kept_for=[],
                keep=Keep(),
                started=float(number),
                available=float(number),
                max_videos=max_videos,
            ),
        )


def standing(home: Path) -> list[str]:
    return sorted(file.name for file in (home / "videos").glob("*.mp4"))


def test_a_dry_run_lists_what_would_go_and_removes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 4)
    assert prune(home, dry_run=True, max_videos_per_session=3) == 0
    assert capsys.readouterr().out.splitlines() == [
        "s-0000\tvideos/0.mp4\t10\tmax_videos_per_session\tits session has 4 videos without a pin, and 3 is the limit"
    ]
    assert len(standing(home)) == 4


def test_a_dry_run_lists_what_the_videos_themselves_ask_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 3, max_videos=2)
    assert prune(home, dry_run=True, max_videos_per_session=0) == 0
    assert capsys.readouterr().out.splitlines() == [
        "s-0000\tvideos/0.mp4\t10\tmax_videos\t2 videos of its environment are newer, and 2 in all are to stay"
    ]


def test_without_dry_run_what_it_lists_is_removed_and_logged(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 4)
    assert prune(home, max_videos_per_session=1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert standing(home) == ["3.mp4"]
    assert [record.event.recording for record in read(home, VideoPruned)] == ["s-0000", "s-0001", "s-0002"]


def test_a_home_that_a_kernel_holds_is_only_looked_at(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 2)
    lock = acquire(home / "lock")
    assert lock is not None
    assert prune(home, max_videos_per_session=1) == 2
    assert prune(home, dry_run=True, max_videos_per_session=1) == 0
    assert "another kernel is running" in capsys.readouterr().err
    assert len(standing(home)) == 2
    lock.release()


def test_the_limits_are_those_of_the_last_configuration(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(home, 4)
    config = tmp_path / "lab.toml"
    config.write_text('[plugins.tidy]\nuse = "pruner"\nmax_bytes = 25\n')
    log = Log(home)
    log.append(
        "kernel",
        1,
        [KernelStarted(version="", pid=1, config=str(config), plugins={"tidy": "plugins.pruner.pruner:Pruner"})],
    )
    log.close()
    assert prune(home, dry_run=True) == 0
    assert [line.split("\t")[3] for line in capsys.readouterr().out.splitlines()] == ["max_bytes"] * 2
    assert prune(home, dry_run=True, max_bytes=0) == 0
    assert capsys.readouterr().out == ""
    config.unlink()
    assert prune(home, dry_run=True) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_no_home_is_refused_and_left_alone(
    home: Path, capsys: pytest.CaptureFixture[str], *, exists: bool
) -> None:
    if exists:
        home.mkdir()
    assert prune(home) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{home}: is no home of a kernel")
    assert home.exists() == exists
    assert not exists or list(home.iterdir()) == []


def test_a_limit_below_nothing_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 1)
    assert prune(home, max_bytes=-1) == 2
    assert "max_bytes: must be 0" in capsys.readouterr().err


def test_it_is_a_command_of_a_command_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, 3)
    app = cyclopts.App(name="stepreel", result_action="return_value")
    app.command(prune)
    assert app(["prune", str(home), "--dry-run", "--max-videos-per-session", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    app(["prune", "--help"])
    help_text = capsys.readouterr().out
    assert "--max-age-days" in help_text
    assert "Remove videos that are older" in help_text
    assert standing(home) == ["0.mp4", "1.mp4", "2.mp4"]
