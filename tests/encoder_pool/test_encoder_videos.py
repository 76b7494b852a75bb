"""Recordings become videos: every frame in its place, every file whole, every video announced once."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from kernel.event import PluginState
from plugins import catalogue
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions, jobs
from plugins.encoder_pool.names import Names
from plugins.events import EncoderProbe, RecordingDiscarded, VideoAvailable, VideoFailed, VideoPruned
from plugins.recorder.frames import CHUNK_FRAMES
from plugins.video.ffmpeg import Encoding
from tests.encoder_pool.films import PRODUCER, SESSION, decode, film, shown, size_of
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
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def other_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that no file can be renamed into from the home."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, gone with the test
    if shared.is_dir() and shared.stat().st_dev != tmp_path.stat().st_dev:
        with TemporaryDirectory(dir=shared) as name:
            yield Path(name)
        return
    folder, replace = tmp_path / "elsewhere", Path.replace
    folder.mkdir()

    def replace_within(self: Path, target: Path) -> Path:
        if self.is_relative_to(folder) != target.is_relative_to(folder):
            raise OSError(errno.EXDEV, "Cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_within)
    yield folder


@pytest.mark.parametrize("fps", [20, 23.976, 30, 50, 60])
async def test_every_frame_shows_its_own_index(home: Path, fps: float) -> None:
    available = await made(home, film(home, 1500, fps=fps))
    assert indices(home, available) == list(range(1500))
    assert (available.frames, available.fps, available.seconds) == (1500, fps, 1500 / fps)


async def test_every_frame_of_an_odd_size_shows_its_own_index(home: Path) -> None:
    available = await made(home, film(home, 1500, size=(161, 97)))
    assert indices(home, available) == list(range(1500))
    assert (available.width, available.height) == (162, 98) == size_of(home / available.path)


@pytest.mark.parametrize("fps", [23.976, 50])
@pytest.mark.parametrize("frames", [1, 2, 3, 512, 513, 514, 1025, 1026])
async def test_chunk_borders_and_short_tails_lose_nothing(home: Path, frames: int, fps: float) -> None:
    available = await made(home, film(home, frames, fps=fps))
    assert indices(home, available) == list(range(frames))


async def test_a_video_is_what_its_announcement_and_its_catalogue_entry_say(home: Path) -> None:
    one = film(home)
    available = await made(home, one)
    video = home / one.plan.path
    assert available.path == one.plan.path
    assert available.sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    assert available.size_bytes == video.stat().st_size
    assert (available.codec, available.width, available.height) == ("h264", 96, 64)
    assert (available.total_reward, available.kept_for, available.complete) == (12.5, ["best"], True)
    entry = catalogue.read(home, one.recording)
    assert entry is not None
    assert entry.identity == catalogue.identify(video)
    assert (entry.env_id, entry.started, entry.keep) == (one.plan.env_id, one.plan.started, one.plan.keep)
    said = msgspec.structs.asdict(available)
    assert {key: value for key, value in msgspec.structs.asdict(entry).items() if key in said}.items() <= said.items()


@pytest.mark.parametrize("frames", [30, 700])
async def test_the_thumbnail_shows_the_middle_frame(home: Path, frames: int) -> None:
    available = await made(home, film(home, frames, size=(640, 360)))
    assert available.thumbnail == f"recordings/{available.recording}.jpg"
    (picture,) = decode(home / available.thumbnail)
    assert picture.shape == (180, 320, 3)
    assert shown(picture) == frames // 2


@pytest.mark.parametrize("frames", [30, 700])
async def test_thumbnails_can_be_left_out(home: Path, frames: int) -> None:
    available = await made(home, film(home, frames), EncoderPoolOptions(thumbnails=False))
    assert available.thumbnail is None
    assert not list((home / "recordings").glob("*.jpg"))


async def test_nothing_but_the_video_its_thumbnail_and_its_entry_is_left(home: Path) -> None:
    films = [film(home, frames, number=number) for number, frames in enumerate((5, 700))]
    for one in films:
        await made(home, one)
    expected = {home / one.plan.path for one in films}
    expected |= {home / "recordings" / f"{one.recording}{end}" for one in films for end in (".json", ".jpg")}
    assert files_of(home) == expected


async def test_frames_of_other_kinds_are_encoded_upright(home: Path) -> None:
    def flipped(index: int, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        upright = np.full((height, width, 4), 20, np.uint8)
        upright[: height // 2, : width // 2, 0] = 235
        return upright[::-1].copy()[::-1]

    available = await made(home, film(home, 5, picture=flipped))
    picture = decode(home / available.path)[4]
    assert picture[10, 10, 0] > 200
    assert picture[50, 10].max() < 50
    assert picture[10, 80].max() < 50


async def test_full_chunks_are_encoded_while_the_recording_goes_on(home: Path) -> None:
    one = film(home, CHUNK_FRAMES + 10)
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks)
        await kernel.settle()
        assert [file.name for file in one.folder.glob("*.mp4")] == ["00000.mp4"]
        assert jobs.read_encoding(one.folder) == Encoding(codec="libx264", crf=20, preset="veryfast")
        assert not kernel.records(VideoAvailable)
        await say(kernel, one.sealed)
        await kernel.settle()
        assert indices(home, kernel.records(VideoAvailable)[0].event) == list(range(CHUNK_FRAMES + 10))


async def test_a_recording_whose_only_chunk_was_full_is_a_video_too(home: Path) -> None:
    one = film(home, CHUNK_FRAMES)
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks)
        await kernel.settle()
        await say(kernel, one.sealed)
        await kernel.settle()
        assert indices(home, kernel.records(VideoAvailable)[0].event) == list(range(CHUNK_FRAMES))


async def test_a_seal_that_comes_while_the_only_chunk_is_encoded_does_not_encode_it_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'sleep 0.3; exec "$FFMPEG" "$@"')
    one = film(home, CHUNK_FRAMES)
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks)
        await until(lambda: lines_of(runs))
        await say(kernel, one.sealed)
        await kernel.settle()
        assert indices(home, kernel.records(VideoAvailable)[0].event) == list(range(CHUNK_FRAMES))
    assert sum("rawvideo" in line for line in lines_of(runs)) == 1


async def test_a_recording_that_waits_for_its_seal_and_is_discarded_never_meets_ffmpeg(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'exec "$FFMPEG" "$@"')
    one = film(home, 1100, wait_for_seal=True)
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks)
        await kernel.settle()
        await say(kernel, RecordingDiscarded(recording=one.recording, session=one.plan.session, why="not kept"))
        await kernel.settle()
        assert not kernel.records(VideoAvailable, VideoFailed)
    assert not lines_of(runs)
    assert not files_of(home)


@pytest.mark.parametrize("frames", [20, 700])
async def test_the_frames_go_only_when_the_announcement_is_on_disk(
    home: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    remove = jobs.remove
    synced = []

    def remove_and_look(home: Path, folder: Path) -> None:
        synced.append(kernel.kernel.bus.synced_seq)
        assert folder.exists()
        remove(home, folder)

    monkeypatch.setattr(jobs, "remove", remove_and_look)
    async with encoding(home) as kernel:
        await say(kernel, *film(home, frames).events)
        await kernel.settle()
        (available,) = kernel.records(VideoAvailable)
    assert len(synced) == 1
    assert synced[0] >= available.seq


async def test_the_collector_may_remove_the_producers_folder_as_soon_as_it_is_empty(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_and_collect(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        self.parent.rmdir()
        return renamed

    async with encoding(home) as kernel:
        monkeypatch.setattr(Path, "rename", rename_and_collect)
        await say(kernel, *film(home).events)
        await kernel.settle()
        assert [record.event.state for record in kernel.records(PluginState)] == ["started"]
    assert not list((home / "spool").iterdir())


async def test_a_video_that_takes_a_name_announces_that_the_old_one_goes(home: Path) -> None:
    old, new = (film(home, frames, number=number, path="videos/x.mp4") for number, frames in ((0, 10), (1, 25)))
    async with encoding(home) as kernel:
        for one in (old, new):
            await say(kernel, *one.events)
            await kernel.settle()
        first, pruned, second = (record.event for record in kernel.records(VideoAvailable, VideoPruned))
    assert isinstance(first, VideoAvailable)
    assert isinstance(pruned, VideoPruned)
    assert isinstance(second, VideoAvailable)
    assert (pruned.recording, pruned.policy, pruned.size_bytes) == (old.recording, "replaced", first.size_bytes)
    assert second.path == first.path == pruned.path
    assert indices(home, second) == list(range(25))
    kept = {f"{new.recording}.json", f"{new.recording}.jpg"}
    assert {file.name for file in (home / "recordings").iterdir()} == kept


async def test_a_pinned_video_keeps_its_name(home: Path) -> None:
    films = [film(home, 5 + number, number=number, path="videos/x.mp4") for number in range(3)]
    async with encoding(home) as kernel:
        for one in films:
            await say(kernel, *one.events)
            await kernel.settle()
            entry = catalogue.read(home, one.recording)
            assert entry is not None
            catalogue.write(home, msgspec.structs.replace(entry, pinned=True))
        assert not kernel.records(VideoPruned)
        available = [record.event for record in kernel.records(VideoAvailable)]
    assert [each.path for each in available] == ["videos/x.mp4", "videos/x-2.mp4", "videos/x-3.mp4"]
    assert [len(indices(home, each)) for each in available] == [5, 6, 7]


async def test_a_video_whose_file_a_user_removed_gives_up_its_name_and_is_said_to_be_gone(home: Path) -> None:
    """Pinned or not: there is nothing left to protect."""
    films = [film(home, 5 + number, number=number, path="videos/x.mp4") for number in range(2)]
    async with encoding(home) as kernel:
        await say(kernel, *films[0].events)
        await kernel.settle()
        entry = catalogue.read(home, films[0].recording)
        assert entry is not None
        catalogue.write(home, msgspec.structs.replace(entry, pinned=True))
        (home / entry.path).unlink()
        await say(kernel, *films[1].events)
        await kernel.settle()
        (pruned,) = (record.event for record in kernel.records(VideoPruned))
        second = kernel.records(VideoAvailable)[-1].event
    assert (pruned.recording, pruned.policy, pruned.size_bytes) == (films[0].recording, "replaced", 0)
    assert second.path == "videos/x.mp4"


async def test_a_name_is_the_same_however_its_folder_is_reached(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    paths = [str(tmp_path / folder / "x.mp4") for folder in ("mine", "link", "mine/../mine")]
    async with encoding(home) as kernel:
        for number, path in enumerate(paths):
            await say(kernel, *film(home, 5, number=number, path=path).events)
            await kernel.settle()
        assert len(kernel.records(VideoPruned)) == 2
    assert files_of(tmp_path / "mine") == {tmp_path / "mine" / "x.mp4"}


async def test_the_catalogue_is_read_once_however_many_videos_are_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10,000 videos that takes 0.3 s."""
    for number in range(6):
        await made(home, film(home, 3, number=number))
    read_all, times_read = catalogue.read_all, []

    def counted(home: Path) -> Iterator[catalogue.Entry]:
        times_read.append(home)
        return read_all(home)

    monkeypatch.setattr(catalogue, "read_all", counted)
    async with encoding(home) as kernel:
        for number in range(6):
            path = f"videos/{SESSION}/rl-video-episode-{number}.mp4"
            await say(kernel, *film(home, 4, number=10 + number, path=path).events)
        await kernel.settle()
        assert len(kernel.records(VideoPruned)) == 6
    assert len(times_read) == 1


async def test_names_are_known_while_their_videos_stand(home: Path) -> None:
    names = Names(home)
    assert names.at(home / "videos" / "x.mp4") == []
    first, second = [await made(home, film(home, 3, number=number, path="videos/x.mp4")) for number in range(2)]
    names.take(first.path, first.recording)
    names.take(second.path, second.recording)
    assert [entry.recording for entry in names.at(home / "videos" / "x.mp4")] == [second.recording]
    names.release(second.path, second.recording)
    assert names.at(home / "videos" / "x.mp4") == []


@pytest.mark.parametrize("frames", [20, 700])
async def test_a_recording_may_be_named_at_its_end(home: Path, tmp_path: Path, frames: int) -> None:
    one = film(home, frames, path=str(tmp_path / "begun" / "step-0.mp4"))
    target = tmp_path / "ended" / "step-0-to-step-200.mp4"
    sealed = msgspec.structs.replace(one.sealed, path=str(target))
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks, sealed)
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    assert available.path == str(target)
    assert indices(home, available) == list(range(frames))
    assert not (tmp_path / "begun").exists()


async def test_an_entry_has_what_a_script_said_of_its_recording(home: Path) -> None:
    one = film(home)
    plan = msgspec.structs.replace(one.plan, max_videos=3)
    (one.folder / "recording.json").write_bytes(msgspec.json.encode(plan))
    async with encoding(home) as kernel:
        await say(kernel, *one.chunks, msgspec.structs.replace(one.sealed, training_step=4096))
        await kernel.settle()
        (available,) = (record.event for record in kernel.records(VideoAvailable))
    entry = catalogue.read(home, one.recording)
    assert entry is not None
    assert available.training_step == entry.training_step == 4096
    assert entry.max_videos == 3
    assert catalogue.announcement(entry) == available


@pytest.mark.parametrize("frames", [5, 700])
async def test_nothing_but_finished_videos_is_ever_in_their_folder(home: Path, tmp_path: Path, frames: int) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(file.name for file in folder.iterdir())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(5):
            await made(home, film(home, frames, number=number, path=str(folder / f"{number}.mp4")))
    finally:
        done.set()
        watcher.join()
    assert seen
    assert seen <= {f"{number}.mp4" for number in range(5)} == {file.name for file in folder.iterdir()}


async def test_a_folder_that_was_removed_meanwhile_is_made_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    displace = EncoderPool._displace

    async def displace_and_remove(self: EncoderPool, others: list[catalogue.Entry], recording: str) -> None:
        await displace(self, others, recording)
        shutil.rmtree(folder)

    monkeypatch.setattr(EncoderPool, "_displace", displace_and_remove)  # at the last moment
    in_the_place_of_ffmpeg(tmp_path, monkeypatch, f'rm -rf "{folder}"; exec "$FFMPEG" "$@"')
    available = await made(home, film(home, 20, path=str(folder / "x.mp4")))
    assert indices(home, available) == list(range(20))


async def test_the_target_may_be_outside_the_home(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "of the user's" / "käse" / "video.mp4"
    available = await made(home, film(home, 700, path=str(target)))
    assert available.path == str(target)
    assert indices(home, available) == list(range(700))
    assert files_of(target.parent) == {target}


async def test_the_target_may_be_on_another_file_system(home: Path, other_file_system: Path) -> None:
    target = other_file_system / "new" / "video.mp4"
    available = await made(home, film(home, 700, path=str(target)))
    assert indices(home, available) == list(range(700))
    assert available.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert files_of(other_file_system) == {target}


async def test_the_path_of_a_target_in_the_home_is_said_relative_to_it(home: Path) -> None:
    assert (await made(home, film(home, path=str(home.absolute() / "here.mp4")))).path == "here.mp4"


async def test_a_folder_name_that_means_something_to_ffmpeg_is_only_a_name(tmp_path: Path) -> None:
    home = tmp_path / "concat:a %03d 'b'\\"
    available = await made(home, film(home, 700, path="videos/%d:x.mp4"))
    assert indices(home, available) == list(range(700))


async def test_the_oldest_recording_comes_first(home: Path) -> None:
    films = [film(home, 5, number=number) for number in range(6)]
    await log(home, *[event for one in reversed(films) for event in one.events])
    async with encoding(home, EncoderPoolOptions(jobs=1)) as kernel:
        await kernel.settle()
        order = [record.event.recording for record in kernel.records(VideoAvailable)]
    assert order == [one.recording for one in films]


async def test_under_backlog_new_recordings_are_encoded_faster_each_in_one_way(home: Path) -> None:
    films = [film(home, 1100, number=number) for number in range(3)]
    await log(home, *[event for one in films for event in one.events])
    # When the first two begin, more than 1,500 frames wait behind them; when the last one begins, 588 do.
    async with encoding(home, EncoderPoolOptions(jobs=1, backlog_frames=1500)) as kernel:
        await kernel.settle()
        for record in kernel.records(VideoAvailable):
            assert indices(home, record.event) == list(range(1100))
    assert [qualities(home / one.plan.path) for one in films] == [{"19.0"}, {"19.0"}, {"20.0"}]


@pytest.mark.parametrize(("lengths", "threads"), [([300], "3"), ([300, 300, 300], "1"), ([700], "1")])
async def test_a_video_that_is_made_alone_takes_the_cores_that_nobody_else_has(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int], threads: str
) -> None:
    """Not so segments: those of one recording are all made in one way, whatever else runs at the time."""
    runs = in_the_place_of_ffmpeg(tmp_path, monkeypatch, 'exec "$FFMPEG" "$@"')
    films = [film(home, frames, number=number) for number, frames in enumerate(lengths)]
    await log(home, *[event for one in films for event in one.events])
    async with encoding(home, EncoderPoolOptions(jobs=3)) as kernel:
        await kernel.settle()
        for record in kernel.records(VideoAvailable):
            assert indices(home, record.event) == list(range(lengths[0]))
    first = next(line for line in lines_of(runs) if "pipe:0" in line)
    assert f"-c:v libx264 -threads {threads} " in first


async def test_progress_is_said_and_counted(home: Path) -> None:
    one = film(home, 700)
    async with encoding(home) as kernel:
        pool = kernel.plugins["encoder"]
        done = EncoderProbe(waiting_chunks=0, running_jobs=0, frames_encoded=700)
        assert pool.pending() == ""
        await say(kernel, *one.events)
        await until(pool.pending)
        assert re.fullmatch(r"[12] chunks? to encode", pool.pending())
        await kernel.settle()
        assert pool.pending() == ""
        await until(lambda: [record.event for record in kernel.records(EncoderProbe)][-1:] == [done])


async def test_another_encoder_may_be_named(home: Path) -> None:
    options = EncoderPoolOptions(codec="libx265", crf=20, preset="ultrafast")
    available = await made(home, film(home, 600), options)
    assert available.codec == "hevc"
    assert indices(home, available) == list(range(600))


async def test_a_check_leaves_no_trace(home: Path) -> None:
    from kernel.runtime import check
    from kernel.wiring import Part

    await check(home, [Part("encoder", EncoderPool, EncoderPoolOptions(), required=False)])
    assert not home.exists()


async def test_recordings_are_independent_of_their_producers_being_alive(home: Path) -> None:
    """The spool folder of the producer, and what else is in it, is not the pool's."""
    one = film(home)
    (one.folder.parent / "producer.json").write_text("{}")
    await made(home, one)
    assert [file.name for file in (home / "spool" / PRODUCER).iterdir()] == ["producer.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": -1}, "jobs is -1"),
        ({"crf": -2}, "crf"),
        ({"stall_seconds": 0}, "stall_seconds"),
        ({"attempts": 0}, "1 or"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EncoderPoolOptions(**options)  # type: ignore[arg-type]  # all of them take an int
