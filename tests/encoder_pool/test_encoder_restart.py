"""Whatever was killed, whenever: after a restart every recording has its one end, and nothing is left over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from plugins import catalogue
from plugins.encoder_pool import EncoderPool, handover, jobs
from plugins.encoder_pool.making import Order, make_segment, make_video
from plugins.encoder_pool.names import Names
from plugins.events import RecordingDiscarded, VideoAvailable, VideoFailed
from plugins.video.feed import Child
from plugins.video.ffmpeg import Encoding, find
from tests.encoder_pool.films import SESSION, film
from tests.encoder_pool.pools import (
    encoding,
    files_of,
    in_the_place_of_ffmpeg,
    indices,
    lines_of,
    log,
    made,
    qualities,
    say,
)

if TYPE_CHECKING:
    from tests.encoder_pool.films import Film

pytestmark = pytest.mark.anyio

ENCODING = Encoding(codec="libx264", crf=21, preset="veryfast")


async def test_a_kernel_that_is_killed_again_and_again_makes_every_video_once(home: Path) -> None:
    films = [film(home, frames, number=number) for number, frames in enumerate((1100, 20, 513, 1025, 300, 1100))]
    said = [event for one in films for event in one.events]
    (home / "said.json").write_bytes(msgspec.json.encode(said))
    for seconds in (0.02, 0.1, 0.2, 0.3, 0.45):
        _kill_after(home, seconds)
    kernel = _kernel_process(home)
    assert kernel.communicate(timeout=60)[0].split() == ["running", "settled"]
    (home / "said.json").unlink()
    async with encoding(home) as running:
        await running.settle()
        available = {record.event.recording: record.event for record in running.records(VideoAvailable)}
        assert len(running.records(VideoAvailable)) == len(films)
        assert not running.records(VideoFailed)
    expected = {home / one.plan.path for one in films}
    expected |= {home / "recordings" / f"{one.recording}{end}" for one in films for end in (".json", ".jpg")}
    assert files_of(home) == expected
    assert not list((home / "spool").glob("*/*"))
    for one in films:
        assert indices(home, available[one.recording]) == list(range(one.sealed.frames))
        assert handover.sha256_of(home / one.plan.path) == available[one.recording].sha256


async def test_an_ffmpeg_that_outlives_its_kernel_harms_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds its frames ended, and finishes a file that looks whole."""
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'sleep 1; exec "$FFMPEG" "$@"')
    one = film(home, 600)
    (home / "said.json").write_bytes(msgspec.json.encode(one.events))
    kernel = _kernel_process(home)
    assert kernel.stdout is not None
    kernel.stdout.readline()
    outlived: list[psutil.Process] = []
    while not outlived:
        outlived = psutil.Process(kernel.pid).children()
        time.sleep(0.01)
    kernel.kill()
    kernel.communicate()
    assert all(each.is_running() for each in outlived)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    (home / "said.json").unlink()
    await log(home, *one.events)
    async with encoding(home) as running:
        await running.settle()
        (available,) = (record.event for record in running.records(VideoAvailable))
    psutil.wait_procs(outlived, timeout=20)
    assert indices(home, available) == list(range(600))
    assert files_of(home) == {home / available.path, *_catalogued(home, one)}


async def test_a_video_that_stands_and_was_not_announced_is_announced(home: Path) -> None:
    one = film(home, 20)
    await log(home, *one.events)
    entry = _placed(home, one)
    identity = catalogue.identify(home / entry.path)
    async with encoding(home) as kernel:
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert available == catalogue.announcement(entry)
    assert catalogue.identify(home / entry.path) == identity  # not encoded again
    assert not files_of(home / "spool")


async def test_a_video_that_was_spoilt_before_it_was_announced_is_made_again(home: Path) -> None:
    one = film(home, 20)
    await log(home, *one.events)
    entry = _placed(home, one)
    (home / entry.path).write_bytes(b"not what was catalogued")
    async with encoding(home) as kernel:
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert indices(home, available) == list(range(20))


async def test_an_announced_video_is_only_cleaned_up_behind(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'exec "$FFMPEG" "$@"')
    one = film(home, 20)
    entry = _placed(home, one)
    await log(home, *one.events, catalogue.announcement(entry))
    before = lines_of(runs)
    async with encoding(home) as kernel:
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1
    assert lines_of(runs) == before
    assert files_of(home) == {home / entry.path, *_catalogued(home, one)}


async def test_a_discarded_recording_is_only_cleaned_up_behind(home: Path) -> None:
    one = film(home, 20)
    await log(home, *one.chunks, RecordingDiscarded(recording=one.recording, session=SESSION, why="not kept"))
    async with encoding(home) as kernel:
        await kernel.settle()
        assert not kernel.records(VideoAvailable, VideoFailed)
    assert not files_of(home)


@pytest.mark.parametrize("kept", [True, False])
async def test_the_frames_of_a_failed_recording_go_where_it_was_said(home: Path, *, kept: bool) -> None:
    one = film(home, 20)
    place = f"failed/{one.recording}" if kept else None
    failed = VideoFailed(recording=one.recording, session=SESSION, attempts=3, reason="x", frames_kept_in=place)
    await log(home, *one.events, failed)
    async with encoding(home) as kernel:
        await kernel.settle()
        assert len(kernel.records(VideoFailed)) == 1
    assert (home / "failed" / one.recording / "00000.chunk").exists() is kept
    assert not files_of(home / "spool")


async def test_what_killed_attempts_left_is_removed(home: Path) -> None:
    one = film(home, 600)
    await log(home, *one.events)
    video = home / one.plan.path
    gone = home / "spool" / ".20260101-000000-aaaa-bbbbbbbb-0000.leaving"
    left = [
        jobs.attempt_in(one.folder, "segment.mp4"),
        video.with_name(f".{one.recording}.0123456789ab.tmp"),
        home / "recordings" / f".{one.recording}.0123456789ab.tmp",
        home / "recordings" / f".{one.recording}.json.4711.tmp",
        gone / "00000.chunk",
    ]
    other = video.with_name(".of-the-user")
    for file in [*left, other]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    async with encoding(home) as kernel:
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1
    assert files_of(home) == {video, other, *_catalogued(home, one)}
    assert not gone.exists()


async def test_what_a_kill_left_beside_a_video_that_was_named_at_its_end_is_removed(home: Path, tmp_path: Path) -> None:
    video = tmp_path / "mine" / "step-0-to-step-200.mp4"
    one = film(home, 20, path=str(video.with_name("another.mp4")))
    await log(home, *one.chunks, msgspec.structs.replace(one.sealed, path=str(video)))
    video.parent.mkdir()
    video.with_name(f".{one.recording}.0123456789ab.tmp").write_bytes(b"half")
    async with encoding(home) as kernel:
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1
    assert files_of(video.parent) == {video}


async def test_segments_that_stand_are_not_encoded_again_and_set_the_settings(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'exec "$FFMPEG" "$@"')
    one = film(home, 1100)
    await log(home, *one.events)
    faster = ENCODING.under_backlog()
    jobs.write_encoding(one.folder, faster)
    make_segment(_order(home, one, faster), Child(), 1)
    before = len([line for line in lines_of(runs) if "rawvideo" in line])
    async with encoding(home) as kernel:
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert len([line for line in lines_of(runs) if "rawvideo" in line]) - before == 2
    assert indices(home, available) == list(range(1100))
    assert qualities(home / available.path) == {"20.0"}


async def test_a_segment_that_a_power_loss_emptied_is_encoded_again(home: Path) -> None:
    one = film(home, 1100)
    await log(home, *one.events)
    jobs.segment_in(one.folder, 1).write_bytes(b"")
    async with encoding(home) as kernel:
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert indices(home, available) == list(range(1100))


async def test_a_free_name_chosen_before_a_kill_is_not_chosen_twice(home: Path) -> None:
    old, new = (film(home, 10 + number, number=number, path="videos/x.mp4") for number in range(2))
    await made(home, old)
    entry = catalogue.read(home, old.recording)
    assert entry is not None
    catalogue.write(home, msgspec.structs.replace(entry, pinned=True))
    await log(home, *new.events)
    chosen = handover.settle_target(Names(home), home, new.folder, new.plan, new.sealed, ())
    chosen.write_bytes(b"placed, but not catalogued, when the kernel was killed")
    async with encoding(home) as kernel:
        await kernel.settle()
        available = kernel.records(VideoAvailable)[-1].event
    assert available.path == "videos/x-2.mp4"
    assert indices(home, available) == list(range(11))


async def test_a_recording_that_was_not_sealed_waits_for_the_collector(home: Path) -> None:
    one = film(home, 700)
    await log(home, *one.chunks)
    left = jobs.attempt_in(one.folder, "segment.mp4")
    left.write_bytes(b"half")
    async with encoding(home) as kernel:
        await kernel.settle()
        assert not left.exists()
        assert not kernel.records(VideoAvailable)
        assert jobs.standing_in(one.folder) == {0}
        await say(kernel, one.sealed)
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1


async def test_a_log_that_cannot_know_the_recordings_is_not_searched_for_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script has just begun, and the log of earlier ones may have gigabytes."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the log was read")

    one = film(home, 20)
    monkeypatch.setattr(EncoderPool, "read", refuse)
    async with encoding(home) as kernel:
        await kernel.settle()
        await say(kernel, *one.events)
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1


def _kernel_process(home: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    script = Path(__file__).with_name("killed_kernel.py")
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), str(home)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
    )


def _kill_after(home: Path, seconds: float) -> None:
    kernel = _kernel_process(home)
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == "running\n"
    time.sleep(seconds)
    kernel.kill()
    kernel.communicate()


def _order(home: Path, one: Film, encoding: Encoding) -> Order:
    return Order(
        home=home,
        folder=one.folder,
        plan=one.plan,
        encoding=encoding,
        executable=find(),
        stall_seconds=15,
        thumbnail=True,
        threads=1,
    )


def _placed(home: Path, one: Film) -> catalogue.Entry:
    """Make the video of a recording and put it in its place, as a kernel does before it announces it."""
    (home / "recordings").mkdir(exist_ok=True)
    ready = make_video(_order(home, one, ENCODING), Child(), one.sealed)
    return handover.place(home, home / one.plan.path, ready, one.plan, one.sealed, available=2e9)


def _catalogued(home: Path, one: Film) -> set[Path]:
    return {home / "recordings" / f"{one.recording}{end}" for end in (".json", ".jpg")}
