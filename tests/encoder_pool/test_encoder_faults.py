"""What goes wrong while encoding: ffmpeg hangs, dies or lies, chunks are damaged, folders vanish, disks are full."""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
import numpy as np
import psutil
import pytest

from kernel.log import read
from plugins import catalogue
from plugins.encoder_pool import EncoderPoolOptions
from plugins.events import FailedFramesDropped, RecordingDiscarded, RecordingSealed, VideoAvailable, VideoFailed
from plugins.recorder.frames import ChunkReader
from tests.encoder_pool.films import SESSION, film
from tests.encoder_pool.pools import (
    encoding,
    failure,
    files_of,
    in_the_place_of_ffmpeg,
    indices,
    lines_of,
    log,
    made,
    say,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.encoder_pool.films import Picture

pytestmark = pytest.mark.anyio

REAL = 'exec "$FFMPEG" "$@"'
SLEEP = f"sleep 5{os.getpid()}"
"""Known among all processes, also those of other tests that run at the same time."""


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.encoder_pool.pool.RETRY_SECONDS", (0.05,))
    monkeypatch.setattr("plugins.encoder_pool.pool.DISK_FULL_SECONDS", (0.05,))


def ffmpegs() -> list[psutil.Process]:
    """Those that run. A child that is still a copy of this process must not be stopped: its parent waits for it."""
    return [each for each in psutil.Process().children() if each.name().startswith("ffmpeg")]


def gone(process: psutil.Process) -> bool:
    return not process.is_running()


def sleeping() -> list[psutil.Process]:
    """What runs in ffmpeg's place, and below it."""
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == SLEEP.split()]


def noise(index: int, width: int, height: int) -> Picture:
    """What takes its time to be encoded."""
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


async def test_a_stopped_ffmpeg_is_killed_and_its_chunk_tried_again(home: Path) -> None:
    one = film(home, 300, size=(320, 240), picture=noise)
    async with encoding(home, EncoderPoolOptions(stall_seconds=5)) as kernel:
        await say(kernel, *one.events)
        # In the idle class the first one counts as starved; the second, at nice 10, as hung.
        for _ in range(2):
            await until(ffmpegs)
            (stopped,) = ffmpegs()
            stopped.send_signal(signal.SIGSTOP)
            await until(partial(gone, stopped))
        await kernel.settle(60)
        (available,) = (record.event for record in kernel.records(VideoAvailable))
        assert not kernel.records(VideoFailed)
    assert available.frames == 300
    assert not files_of(home / "spool")


async def test_memory_stays_flat_while_an_ffmpeg_hangs(home: Path) -> None:
    one = film(home, 150, size=(640, 480), picture=lambda index, *size: noise(index % 2, *size))
    async with encoding(home, EncoderPoolOptions(stall_seconds=1.5, jobs=1), drain_seconds=0) as kernel:
        before = psutil.Process().memory_info().rss
        await say(kernel, *one.events)
        await until(ffmpegs)
        (first,) = ffmpegs()
        first.send_signal(signal.SIGSTOP)
        grown = []
        while first.is_running():
            grown.append(psutil.Process().memory_info().rss - before)
            await anyio.sleep(0.1)
        assert len(grown) > 5
        assert max(grown) < 32 * 640 * 480 * 3  # of the 150 frames, a few


async def test_an_encoder_that_starves_in_the_idle_class_begins_anew_and_costs_no_attempt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, the first one is given as little of the processor as on a machine whose cores are all busy."""
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, f"[ $run = 1 ] && kill -STOP $$; {REAL}")
    monkeypatch.setattr("plugins.video.priority.STARVED_SECONDS", 0.3)
    available = await made(home, film(home, 20), EncoderPoolOptions(attempts=1))
    assert available.frames == 20
    assert ["pipe:0" in line for line in lines_of(runs)] == [True, True]


async def test_one_failed_attempt_is_made_good(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, f"[ $run = 1 ] && exit 1\n{REAL}")
    available = await made(home, film(home, 700))
    assert indices(home, available) == list(range(700))


@pytest.mark.parametrize("frames", [20, 700])
async def test_three_failed_attempts_are_a_failed_video(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, "echo out of luck >&2; exit 1")
    one = film(home, frames)
    failed = await failure(home, one, EncoderPoolOptions(jobs=1))
    assert (failed.recording, failed.session, failed.attempts) == (one.recording, SESSION, 3)
    assert failed.reason == "ffmpeg ended with exit code 1: out of luck"
    assert failed.frames_kept_in == f"failed/{one.recording}"
    kept = home / failed.frames_kept_in
    assert {file.name for file in kept.glob("*.chunk")} == {f"{each.chunk:05}.chunk" for each in one.chunks}
    assert (kept / "recording.json").exists()
    with ChunkReader(kept / "00000.chunk") as reader:
        assert len(list(reader)) == one.chunks[0].frames
    assert not files_of(home / "spool")
    assert 3 <= len(lines_of(runs)) <= 3 * len(one.chunks)


async def test_a_video_without_all_its_frames_is_a_failed_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = '[[ $* == *rawvideo* ]] && exec "$FFMPEG" "${@:1:$#-1}" -frames:v 19 "${@: -1}"'
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, f"{fewer}\n{REAL}")
    failed = await failure(home, film(home, 20), EncoderPoolOptions(thumbnails=False))
    assert "20 frames were captured, and the video holds 19" in failed.reason or "stopped reading" in failed.reason
    assert not list(home.rglob("*.mp4"))


async def test_a_bad_join_has_its_chunks_encoded_anew(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined_by_half = 'sed -i "\\$d" "${@:$((i+1)):1}"'
    bad_join = (
        'if [[ $* == *concat* && ! -e "$0.once" ]]; then touch "$0.once"; '
        f"for ((i=1; i<$#; i++)); do [[ ${{!i}} == -i ]] && {joined_by_half}; done; fi"
    )
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, f"{bad_join}\n{REAL}")
    available = await made(home, film(home, 700), EncoderPoolOptions(thumbnails=False))
    assert indices(home, available) == list(range(700))
    assert sum("rawvideo" in line for line in lines_of(runs)) == 4
    assert sum("concat" in line for line in lines_of(runs)) == 2


async def test_a_damaged_chunk_fails_its_recording_and_no_other(home: Path) -> None:
    bad, good = film(home, 700, number=0), film(home, 20, number=1)
    chunk = bad.folder / "00001.chunk"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    async with encoding(home, EncoderPoolOptions(jobs=1)) as kernel:
        await say(kernel, *bad.events, *good.events)
        await kernel.settle()
        (failed,) = (record.event for record in kernel.records(VideoFailed))
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert (failed.recording, failed.attempts) == (bad.recording, 1)
    assert "00001.chunk: damaged at byte" in failed.reason
    kept = {file.name for file in (home / "failed" / bad.recording).iterdir()}
    assert kept == {"00000.chunk", "00001.chunk", "recording.json", "encoding.json", "failure.txt"}
    assert available.recording == good.recording


async def test_a_chunk_that_fails_for_good_calls_off_the_others_of_its_recording(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, SLEEP)
    one = film(home, 700)
    chunk = one.folder / "00000.chunk"
    chunk.write_bytes(chunk.read_bytes()[:3000])
    failed = await failure(home, one, EncoderPoolOptions(stall_seconds=40, jobs=2))
    assert "00000.chunk: damaged" in failed.reason
    assert not sleeping()


async def test_a_recording_whose_folder_vanished_has_failed(home: Path) -> None:
    early, late = film(home, 700, number=0), film(home, 700, number=1)
    async with encoding(home) as kernel:
        shutil.rmtree(early.folder)
        await say(kernel, *early.events)
        await kernel.settle()
        await say(kernel, *late.chunks)
        await kernel.settle()
        shutil.rmtree(late.folder)
        await say(kernel, late.sealed)
        await kernel.settle()
        failed = [record.event for record in kernel.records(VideoFailed)]
        assert not kernel.records(VideoAvailable)
    assert [each.recording for each in failed] == [early.recording, late.recording]
    assert all("is gone" in each.reason and each.frames_kept_in is None for each in failed)


async def test_a_recording_without_frames_has_failed(home: Path) -> None:
    failed = await failure(home, film(home, 0))
    assert failed.reason == "no frame was captured"
    assert not files_of(home / "spool")


async def test_what_fails_while_the_recording_goes_on_is_said_at_its_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer still writes into the folder."""
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, "exit 1")
    one = film(home, 1100)
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks)
        await kernel.settle()
        assert one.folder.exists()
        assert not kernel.records(VideoFailed)
        await say(kernel, one.sealed)
        await kernel.settle()
        assert len(kernel.records(VideoFailed)) == 1


async def test_the_frames_of_failed_recordings_are_kept_within_a_bound(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, "exit 1")
    films = [film(home, 20, number=number, picture=noise) for number in range(4)]
    large = film(home, 80, number=4, picture=noise)
    size = (films[0].folder / "00000.chunk").stat().st_size
    options = EncoderPoolOptions(failed_bytes=3 * size + size // 2, attempts=1, jobs=1)
    async with encoding(home, options) as kernel:
        for one in [*films, large]:
            await say(kernel, *one.events)
            await kernel.settle()
        failed = [record.event for record in kernel.records(VideoFailed)]
    assert [each.frames_kept_in for each in failed] == [*(f"failed/{one.recording}" for one in films), None]
    kept = sorted(file.parent.name for file in (home / "failed").glob("*/*.chunk"))
    assert kept == [one.recording for one in films[1:]]
    assert catalogue.failure_of(home, large.recording) == failed[-1].reason
    assert catalogue.failure_of(home, films[0].recording) is None  # it made room
    (dropped,) = read(home, FailedFramesDropped)
    assert dropped.event == FailedFramesDropped(recording=films[0].recording, size_bytes=size)


async def test_frames_that_make_room_are_said_to_go_before_they_do_and_once_whatever_is_killed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, "exit 1")
    first, second = film(home, 20, number=0, picture=noise), film(home, 20, number=1, picture=noise)
    size = (first.folder / "00000.chunk").stat().st_size
    options = EncoderPoolOptions(failed_bytes=size + size // 2, attempts=1)
    async with encoding(home, options) as kernel:
        await say(kernel, *first.events)
        await kernel.settle()
    place = f"failed/{second.recording}"
    failed = VideoFailed(recording=second.recording, session=SESSION, attempts=1, reason="no", frames_kept_in=place)
    said = FailedFramesDropped(recording=first.recording, size_bytes=size)
    await log(home, *second.events, failed, said)  # and was killed
    assert (home / "failed" / first.recording).exists()
    async with encoding(home, options) as kernel:
        await kernel.settle()
        assert [record.event for record in kernel.records(FailedFramesDropped)] == [said]
    assert [each.name for each in (home / "failed").iterdir()] == [second.recording]


@pytest.mark.parametrize("failed_bytes", [1 << 30, 0])
@pytest.mark.parametrize("restart", [False, True])
async def test_when_a_failed_recordings_folder_is_gone_its_end_is_on_disk_and_the_reason_stands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, failed_bytes: int, restart: bool
) -> None:
    """This is how a script that waits for its video learns of it, without reading the log."""
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, "echo out of luck >&2; exit 1")
    one = film(home, 20)
    seen: list[tuple[str | None, int]] = []

    def watched(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def move_and_look(self: Path, target: Path) -> Path:
            moved = move(self, target)
            if self == one.folder:
                seen.append((catalogue.failure_of(home, one.recording), kernel.kernel.bus.synced_seq))
            return moved

        return move_and_look

    options = EncoderPoolOptions(attempts=1, failed_bytes=failed_bytes)
    if restart:  # said, and killed before the frames were put away
        place = f"failed/{one.recording}" if failed_bytes else None
        reason = "ffmpeg ended with exit code 1: out of luck"
        failed = VideoFailed(recording=one.recording, session=SESSION, attempts=1, reason=reason, frames_kept_in=place)
        await log(home, *one.events, failed)
    monkeypatch.setattr(Path, "rename", watched(Path.rename))
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    async with encoding(home, options) as kernel:
        if not restart:
            await say(kernel, *one.events)
        await kernel.settle()
        (said,) = kernel.records(VideoFailed)
    ((reason_then, synced),) = seen
    assert reason_then == said.event.reason == "ffmpeg ended with exit code 1: out of luck"
    assert synced >= said.seq
    assert not one.folder.exists()
    assert (home / "failed" / one.recording / "00000.chunk").exists() is bool(failed_bytes)


async def test_no_more_failures_are_remembered_than_a_thousand(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.encoder_pool.kept.MOST_FOLDERS", 3)
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, "exit 1")
    films = [film(home, 5, number=number) for number in range(5)]
    async with encoding(home, EncoderPoolOptions(failed_bytes=0, attempts=1, jobs=1)) as kernel:
        for one in films:
            await say(kernel, *one.events)
            await kernel.settle()
    assert sorted(each.name for each in (home / "failed").iterdir()) == [one.recording for one in films[2:]]


GARBAGE = 'case "$*" in *rawvideo*) cat > /dev/null; head -c 5000 /dev/urandom > "${@: -1}"; exit 0;; esac'


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"{GARBAGE}\n{REAL}", "is no MP4"),
        ("exit 0", "stopped reading in the midst of the frames"),
        ("cat > /dev/null; exit 0", "ended as if all were well, and wrote no file"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
    ],
    ids=["writes garbage", "is another program", "writes nothing", "crashes"],
)
async def test_an_ffmpeg_that_is_none_is_a_failure_with_its_last_words_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, script)
    one = film(home, 200, size=(320, 240), picture=noise)
    failed = await failure(home, one, EncoderPoolOptions(thumbnails=False))
    assert words in failed.reason
    assert failed.attempts == 3
    kept = {file.name for file in (home / "failed" / one.recording).iterdir()}
    assert kept == {"00000.chunk", "recording.json", "encoding.json", "failure.txt"}
    assert not files_of(home / "videos")


async def test_an_ffmpeg_that_vanishes_while_it_is_needed_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, REAL)
    first, second = film(home, 20, number=0), film(home, 20, number=1)
    async with encoding(home, EncoderPoolOptions(attempts=2)) as kernel:
        await say(kernel, *first.events)
        await kernel.settle()
        (tmp_path / "not-quite-ffmpeg").unlink()
        await say(kernel, *second.events)
        await kernel.settle()
        (failed,) = (record.event for record in kernel.records(VideoFailed))
        assert [record.event.recording for record in kernel.records(VideoAvailable)] == [first.recording]
    assert failed.recording == second.recording
    assert failed.reason == f"{tmp_path / 'not-quite-ffmpeg'}: No such file or directory"


async def test_a_clock_that_is_set_back_makes_no_new_video_older_than_the_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hours = time.time, 0
    monkeypatch.setattr("plugins.encoder_pool.pool.time.time", lambda: real() + hours * 3600)
    async with encoding(home) as kernel:
        for number, hours in enumerate((0, 50, -50, 1)):  # noqa: B007 - the clock looks at it
            await say(kernel, *film(home, 5, number=number).events)
            await kernel.settle()
    async with encoding(home) as kernel:
        await say(kernel, *film(home, 5, number=4).events)
        await kernel.settle()
    entries = sorted(catalogue.read_all(home), key=lambda entry: entry.available)
    assert [entry.first_episode for entry in entries] == [0, 1, 2, 3, 4]


async def test_a_full_disk_is_waited_for_and_costs_no_attempt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = 'if [ -e "$0.full" ]; then echo "Error writing trailer: No space left on device" >&2; exit 228; fi'
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, f"{full}\n{REAL}")
    (tmp_path / "not-quite-ffmpeg.full").touch()
    one = film(home, 20)
    async with encoding(home) as kernel:
        await say(kernel, *one.events)
        await until(lambda: len(lines_of(runs)) > 5)
        assert kernel.plugins["encoder"].pending() == "1 video to encode (the disk is full)"
        (tmp_path / "not-quite-ffmpeg.full").unlink()
        await kernel.settle()
        assert len(kernel.records(VideoAvailable)) == 1
        assert not kernel.records(VideoFailed)


async def test_a_target_that_cannot_be_written_is_a_failure_that_names_it(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    failed = await failure(home, film(home, 20, path=str(tmp_path / "file" / "x.mp4")))
    assert str(tmp_path / "file") in failed.reason
    assert "irectory" in failed.reason


async def test_a_stop_that_waits_no_longer_leaves_nothing_running(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, SLEEP)
    one = film(home, 1100)
    async with encoding(home, EncoderPoolOptions(stall_seconds=40), drain_seconds=0.3) as kernel:
        await say(kernel, *one.events)
        await until(sleeping)
        kernel.kernel.stop()
        await until(lambda: not sleeping())
    assert kernel.outcome is not None
    assert kernel.outcome.name == "undrained"
    assert one.folder.exists()
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    async with encoding(home) as kernel:
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert indices(home, available) == list(range(1100))


async def test_a_recording_that_is_discarded_while_it_is_encoded_is_called_off(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, SLEEP)
    one = film(home, 2000)
    async with encoding(home, EncoderPoolOptions(stall_seconds=40)) as kernel:
        await say(kernel, *one.chunks)
        await until(sleeping)
        await say(kernel, RecordingDiscarded(recording=one.recording, session=SESSION, why="not kept"))
        await until(lambda: not sleeping())
        await kernel.settle()
        assert not kernel.records(VideoAvailable, VideoFailed)
    assert not files_of(home)


async def test_frames_of_another_size_than_planned_are_a_failure_with_both_sizes(home: Path) -> None:
    one = film(home, 20)
    plan = msgspec.structs.replace(one.plan, width=100)
    (one.folder / "recording.json").write_bytes(msgspec.json.encode(plan))
    failed = await failure(home, one)
    assert "96x64" in failed.reason
    assert "100x64" in failed.reason


async def test_a_recording_whose_plan_is_damaged_has_failed(home: Path) -> None:
    one = film(home, 20)
    (one.folder / "recording.json").write_bytes(b"")
    failed = await failure(home, one)
    assert "recording.json is damaged" in failed.reason
    assert failed.frames_kept_in is not None
    assert isinstance(one.sealed, RecordingSealed)
