"""Every example of docs/wrappers.md runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "wrappers.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPREEL_")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ALONE = [code for code in examples("python") if "stable_baselines3" not in code]
"""The examples of Stable-Baselines3 run where it is installed, in tests/sb3."""


@pytest.mark.parametrize("code", ALONE, ids=range(len(ALONE)))
def test_the_examples_run_and_leave_videos(tmp_path: Path, code: str) -> None:
    (tmp_path / "train.py").write_text(code)
    run([sys.executable, "train.py"], tmp_path)
    assert list(tmp_path.glob("*/*.mp4"))


def test_the_first_example_gives_what_the_page_says_and_the_log_tells_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(examples("python")[0])
    run([sys.executable, "train.py"], tmp_path)
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert videos == ["rl-video-episode-0.mp4", "rl-video-episode-2.mp4"]
    (command,) = examples("sh")
    told = run([sys.executable, *shlex.split(command)[1:]], tmp_path)
    assert told.count("EpisodeEnded") == 4
