"""A kernel with an encoder pool for these tests, and programs that stand in ffmpeg's place to go wrong."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from kernel.testing import running
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.events import VideoAvailable, VideoFailed
from tests.encoder_pool.films import FFMPEG, PRODUCER, decode, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest

    from kernel.event import Event
    from kernel.testing import RunningKernel
    from tests.encoder_pool.films import Film


@asynccontextmanager
async def encoding(
    home: Path, options: EncoderPoolOptions | None = None, *, drain_seconds: float = 30
) -> AsyncIterator[RunningKernel]:
    """A kernel whose only plugin is an encoder pool."""
    plugins = {"encoder": (EncoderPool, options or EncoderPoolOptions())}
    async with running(home, plugins, drain_seconds=drain_seconds) as kernel:
        yield kernel


async def log(home: Path, *events: Event) -> None:
    """Put events into the home's log while no encoder pool is there."""
    async with running(home, {}) as kernel:
        await say(kernel, *events)


async def say(kernel: RunningKernel, *events: Event) -> None:
    """Publish what the producer of the films says, as a collector does."""
    await kernel.relay(PRODUCER, kernel.kernel.bus.log.last_nth(PRODUCER) + 1, events)


async def made(home: Path, film: Film, options: EncoderPoolOptions | None = None) -> VideoAvailable:
    """Let a kernel make the video of this one recording."""
    async with encoding(home, options) as kernel:
        await say(kernel, *film.events)
        await kernel.settle()
        return [record.event for record in kernel.records(VideoAvailable)][-1]


async def failure(home: Path, film: Film, options: EncoderPoolOptions | None = None) -> VideoFailed:
    """Let a kernel fail at this one recording, once."""
    async with encoding(home, options) as kernel:
        await say(kernel, *film.events)
        await kernel.settle()
        assert not kernel.records(VideoAvailable)
        (failed,) = (record.event for record in kernel.records(VideoFailed))
        return failed


def indices(home: Path, available: VideoAvailable) -> list[int]:
    """The index that each frame of a video shows."""
    return [shown(picture) for picture in decode(home / available.path)]


def qualities(video: Path) -> set[str]:
    """The CRF of each part of a video, as x264 writes it into the stream."""
    return {found.decode() for found in re.findall(rb"\bcrf=([0-9.]+)", video.read_bytes())}


def files_of(folder: Path) -> set[Path]:
    """All files, hidden ones too, but what the kernel keeps for itself."""
    own = [folder / name for name in ("log", "lock", "home.json", "encoder.json")]
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file for file in files if not any(file.is_relative_to(each) for each in own)}


async def until(true: Callable[[], object]) -> None:
    """Return when it is so."""
    with anyio.fail_after(20):
        while not true():
            await anyio.sleep(0.002)


def in_the_place_of_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Have this shell script run for ffmpeg. It writes a line for each run into the file that is returned.

    In it, `$FFMPEG` is the real one, and `$run` counts the runs from 1. None is run once more because it starves, as it
    might on a busy machine.
    """
    monkeypatch.setattr("plugins.video.priority.STARVED_SECONDS", 3600.0)
    runs = tmp_path / "runs"
    program = tmp_path / "not-quite-ffmpeg"
    start = f'FFMPEG="{FFMPEG}"\necho "$@" >> "{runs}"\nrun=$(wc -l < "{runs}")\n'
    program.write_text(f"#!/bin/bash\n{start}{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    return runs


def lines_of(file: Path) -> list[str]:
    """The lines of a file; none where there is no file."""
    return file.read_text().splitlines() if file.exists() else []
