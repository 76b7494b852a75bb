"""Run the kernel from its command line, and look at everything that a run left in its home."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import numpy as np

from kernel import checks
from plugins.check_home import look

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENTS = Path(__file__).parent.parent / "environments"

PLUGINS = """
[plugins.collector]
use = "plugins.collector:Collector"
[plugins.encoder]
use = "plugins.encoder_pool:EncoderPool"
[plugins.sqlite]
use = "plugins.sqlite_sink:SqliteSink"
[plugins.pruner]
use = "plugins.pruner:Pruner"
[plugins.progress]
use = "plugins.progress:Progress"
"""


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m kernel …`, as a user starts it; its output is captured, and it is killed where it is left running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ENVIRONMENTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_kernel(config: Path, *arguments: str, cwd: Path, seconds: float = 300) -> tuple[int, str, str]:
    """Run it to its end: the exit code, stdout and stderr."""
    with started(str(config), *arguments, cwd=cwd) as process:
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err


def write_config(folder: Path, runner: str) -> Path:
    """A configuration with all plugins, whose `[plugins.runner]` has these lines; its home is `folder/home`."""
    config = folder / "config.toml"
    home = f'home = "{folder / "home"}"\n'
    config.write_text(f'{home}{PLUGINS}[plugins.runner]\nuse = "plugins.env_runner:EnvRunner"\n{runner}\n')
    return config


def records(home: Path, *types: str) -> list[dict[str, Any]]:
    """The records in a home's log, read as plain JSON; a line that the kernel is just writing is none yet."""
    found = []
    for segment in sorted((home / "log").glob("*.jsonl")):
        for line in segment.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            if not types or record["event"]["type"] in types:
                found.append(record)
    return found


def events(home: Path, *types: str) -> list[dict[str, Any]]:
    """The events of these types in a home's log."""
    return [record["event"] for record in records(home, *types)]


def rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    """What the database answers."""
    connection = sqlite3.connect(f"file:{home / 'stepreel.sqlite'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def frames_of(video: Path) -> Iterator[np.ndarray[Any, Any]]:
    """The decoded frames of a video, each of (height, width, 3)."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    arguments = ["-i", str(video), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run([ffmpeg, *arguments], capture_output=True, check=True)
    size = re.search(rb"rawvideo.*?(\d{2,})x(\d{2,})", decoded.stderr)
    assert size is not None
    width, height = int(size[1]), int(size[2])
    yield from np.frombuffer(decoded.stdout, np.uint8).reshape(-1, height, width, 3)


def check_log(home: Path) -> None:
    """Seq counts from 1 without a gap, and so does `nth` for each source; beside a running kernel, too."""
    assert list(checks.check_log(home, live=True)) == []


def check_home(home: Path) -> None:
    """Everything that must hold when a run has ended and its work is done."""
    assert look(home) == []
    videos = {video["recording"]: video for video in events(home, "VideoAvailable")}
    pruned = {event["recording"] for event in events(home, "VideoPruned")}
    ends = events(home, "EpisodeEnded")
    for end in ends:
        if end["recording"] in videos and end["outcome"] != "aborted":
            assert videos[end["recording"]]["frames"] == end["steps"] + 1
    with_video = {(end["worker"], end["episode"]) for end in ends if end["recording"] in set(videos) - pruned}
    assert set(rows(home, "SELECT worker, episode FROM episodes WHERE video_path IS NOT NULL")) == with_video
    ((steps,),) = rows(home, "SELECT count(*) FROM steps")
    assert steps == len(events(home, "StepRecorded")) == sum(end["steps"] for end in ends)
    assert not [str(path) for path in (home / "spool").iterdir()], "the spool is not empty"
