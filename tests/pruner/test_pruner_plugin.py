from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from kernel.log import last_seq, read
from kernel.testing import running
from plugins import catalogue
from plugins.catalogue import Entry
from plugins.events import (
    CaptureHeld,
    Keep,
    PruneIntended,
    RecordingStarted,
    RetentionAsked,
    SessionEnded,
    VideoAvailable,
    VideoDeleteAsked,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
)
from plugins.pruner import Pruner, PrunerOptions
from plugins.pruner.history import RETAINED, History, recall
from plugins.retention import limits_in_force
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Event
    from kernel.plugin import Options, Plugin
    from kernel.testing import RunningKernel

pytestmark = pytest.mark.anyio

SESSION = "20261122-062718-k3v9"


def pruner(**options: Any) -> dict[str, tuple[type[Plugin[Any]], Options]]:
    return {"pruner": (Pruner, PrunerOptions(**{"min_free_bytes": 0, **options}))}


def place(home: Path, number: int, *, session: str = SESSION, path: str = "", **fields: Any) -> VideoAvailable:
    """Put a video, its thumbnail and its entry where the encoder pool would, and give what it would say."""
    recording = f"{session}-q2xa81bc-{number:04d}"
    path = path or f"videos/{session}/rl-video-episode-{number}.mp4"
    file, thumbnail = home / path, catalogue.folder(home) / f"{recording}.jpg"
    for each, content in ((file, b"video %d" % number), (thumbnail, b"jpeg")):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_bytes(content)
    values: dict[str, Any] = {
        "recording": recording,
        "session": session,
        "worker": 0,
        "first_episode": number,
        "last_episode": number,
        "path": path,
        "sha256": hashlib.sha256(b"video %d" % number).hexdigest(),
        "frames": 3,
        "fps": 50.0,
        "width": 6,
        "height": 4,
        "codec": "h264",
        "seconds": 0.06,
        "thumbnail": f"recordings/{recording}.jpg",
        "complete": True,
        "incomplete_because": "",
        "total_reward": 1.0,
        "kept_for": [],
        **{name: value for name, value in fields.items() if name in VideoAvailable.__struct_fields__},
    }
    entry = Entry(
        env_id="CartPole-v1",
        identity=catalogue.identify(file),
        started=float(number),
        **{**values, "keep": Keep(), "available": time.time() + number, **fields},
    )
    catalogue.write(home, entry)
    return VideoAvailable(size_bytes=entry.identity.size_bytes, **values)


def intent(video: VideoAvailable) -> PruneIntended:
    return PruneIntended(
        recording=video.recording,
        session=video.session,
        path=video.path,
        size_bytes=video.size_bytes,
        policy="max_bytes",
        reason="too many bytes",
    )


def videos(home: Path) -> list[str]:
    return sorted(file.name for file in (home / "videos").rglob("*.mp4"))


def numbers(home: Path) -> list[int]:
    """The episodes whose video, thumbnail and entry stand; each of them has all three or none."""
    files = {int(file.stem.rpartition("-")[2]) for file in (home / "videos").rglob("*.mp4")}
    entries = {entry.first_episode for entry in catalogue.read_all(home)}
    thumbnails = {int(file.stem.rpartition("-")[2]) for file in catalogue.folder(home).glob("*.jpg")}
    assert files == entries == thumbnails
    return sorted(files)


def pruned(kernel: RunningKernel) -> list[tuple[str, str, int]]:
    return [
        (record.event.recording[-4:], record.event.policy, record.event.size_bytes)
        for record in kernel.records(VideoPruned)
    ]


async def test_the_oldest_videos_go_as_new_ones_arrive(home: Path) -> None:
    async with running(home, pruner(max_videos_per_session=2)) as kernel:
        for number in range(4):
            await kernel.publish(place(home, number))
        await kernel.settle()
        assert numbers(home) == [2, 3]
        assert pruned(kernel) == [("0000", "max_videos_per_session", 7), ("0001", "max_videos_per_session", 7)]
        intents = [record.event.recording[-4:] for record in kernel.records(PruneIntended)]
        assert intents == ["0000", "0001"]


async def test_what_is_in_the_catalogue_at_the_start_is_held_to_the_limits(home: Path) -> None:
    async with running(home, {}) as kernel:
        await kernel.publish(*(place(home, number) for number in range(5)))
    async with running(home, pruner(max_videos_per_session=3)) as kernel:
        await kernel.settle()
        assert numbers(home) == [2, 3, 4]
        assert len(pruned(kernel)) == 2


async def test_videos_that_the_encoder_has_not_announced_are_not_touched(home: Path) -> None:
    """Their entries stand already, and their frames still wait in the spool."""
    for number in range(3):
        video = place(home, number)
        (home / "spool" / video.recording[:-5] / video.recording).mkdir(parents=True)
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.publish(SessionEnded(session=SESSION, outcome="finished", episodes=3, steps=9, recordings=3))
        await kernel.settle()
        assert numbers(home) == [0, 1, 2]
        await kernel.publish(video)
        await kernel.settle()
        assert numbers(home) == [0, 1, 2]


async def test_a_limit_of_bytes_and_of_age(home: Path) -> None:
    old = place(home, 0, available=time.time() - 3 * 86_400)
    async with running(home, pruner(max_age_days=1.0, max_bytes=15)) as kernel:
        await kernel.publish(old, *(place(home, number) for number in range(1, 4)))
        await kernel.settle()
        assert numbers(home) == [2, 3]
        assert [policy for _, policy, _ in pruned(kernel)] == ["max_age", "max_bytes"]


async def test_a_clock_that_is_set_forward_makes_no_video_too_old_until_the_next_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, days = time.time, 0
    monkeypatch.setattr("time.time", lambda: real() + days * 86_400)
    async with running(home, pruner(max_age_days=1.0)) as kernel:
        await kernel.publish(place(home, 1))
        await kernel.settle()
        for days in (400, -400):
            await kernel.publish(place(home, 500 + days))
            await kernel.publish(SessionEnded(session=SESSION, outcome="finished", episodes=1, steps=1, recordings=1))
            await kernel.settle()
            assert pruned(kernel) == []
    days = 400
    async with running(home, pruner(max_age_days=1.0)) as kernel:  # it is believed at a start
        await kernel.settle()
        assert [policy for _, policy, _ in pruned(kernel)] == ["max_age", "max_age"]
    assert numbers(home) == [900]


async def test_a_full_disk_does_not_keep_the_pruner_from_its_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("plugins.pruner.pruner.remember", full)
    videos = [place(home, number) for number in range(3)]
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.publish(*videos)
        await kernel.settle()
        assert numbers(home) == [2]


async def test_a_session_keeps_its_best_of_all_workers(home: Path) -> None:
    async with running(home, pruner()) as kernel:
        for number, total_reward in enumerate((5.0, 9.0, 7.0, 8.0)):
            kept: dict[str, Any] = {"keep": Keep(best=2), "kept_for": ["best"], "total_reward": total_reward}
            await kernel.publish(place(home, number, worker=number % 2, **kept))
        await kernel.settle()
        assert numbers(home) == [1, 3]
        assert {policy for _, policy, _ in pruned(kernel)} == {"keep"}


async def test_without_limits_an_environment_is_held_to_its_own(home: Path) -> None:
    """As the recorder process prunes: nothing but what a script asked for."""
    async with running(home, pruner(max_videos_per_session=0)) as kernel:
        for number in range(60):
            await kernel.publish(place(home, number, session="another"))
        for number in range(100, 106):
            await kernel.publish(place(home, number, worker=number % 2, max_videos=2))
        await kernel.settle()
        assert numbers(home) == [*range(60), 102, 103, 104, 105]
        assert {policy for _, policy, _ in pruned(kernel)} == {"max_videos"}


async def test_a_pinned_video_stays_until_it_is_unpinned(home: Path) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        await kernel.publish(first, VideoPinned(recording=first.recording, by="ann"))
        await kernel.settle()
        await kernel.publish(place(home, 1), place(home, 2))
        await kernel.settle()
        entry = catalogue.read(home, first.recording)
        assert entry is not None
        assert (entry.pinned, entry.pinned_by) == (True, "ann")
        assert numbers(home) == [0, 2]
        await kernel.publish(VideoUnpinned(recording=first.recording, by="ann"))
        await kernel.settle()
        assert numbers(home) == [2]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_pin_may_come_before_its_video(home: Path, *, restart: bool) -> None:
    first = place(home, 0)
    catalogue.remove(home, first.recording)
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.publish(VideoPinned(recording=first.recording, by="ann"))
        await kernel.settle()
        if not restart:
            await kernel.publish(place(home, 0), place(home, 1), place(home, 2))
            await kernel.settle()
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        if restart:
            await kernel.publish(place(home, 0), place(home, 1), place(home, 2))
        await kernel.settle()
    assert numbers(home) == [0, 2]


async def test_a_pin_that_stands_before_the_intent_in_the_log_wins(home: Path) -> None:
    """The pruner decides on the video before it hears of the pin, which is in its mailbox already."""
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first, second = place(home, 0), place(home, 1)
        await kernel.publish(first, second, VideoPinned(recording=first.recording, by="ann"))
        await kernel.settle()
        order = [type(record.event) for record in kernel.records(VideoPinned, PruneIntended)]
        assert order == [VideoPinned, PruneIntended]
        assert numbers(home) == [0, 1]
        assert pruned(kernel) == []
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.settle()
        assert numbers(home) == [0, 1]


async def test_a_video_that_was_asked_to_be_deleted_goes_unless_it_is_pinned(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(home, pruner()) as kernel:
        first, second = place(home, 0), place(home, 1)
        await kernel.publish(first, second, VideoPinned(recording=second.recording))
        for recording in (first.recording, second.recording, "nobody's"):
            await kernel.publish(VideoDeleteAsked(recording=recording, by="bob"))
        await kernel.settle()
        assert numbers(home) == [1]
        (record,) = kernel.records(VideoPruned)
        assert (record.event.policy, record.event.by, record.event.reason) == ("asked", "bob", "asked for by bob")
        said = capsys.readouterr().err.splitlines()
        assert [line.partition(": ")[2] for line in said] == [
            f"{second.recording}: is pinned and stays; unpin it first to delete it",
            "nobody's: there is no such video to delete",
        ]
        await kernel.publish(VideoUnpinned(recording=second.recording))
    async with running(home, pruner()) as kernel:
        await kernel.settle()
        assert numbers(home) == [1], "a wish that was refused is not granted later"


async def test_a_wish_that_nobody_heard_is_granted_at_the_next_start(home: Path) -> None:
    async with running(home, {}) as kernel:
        first = place(home, 0)
        await kernel.publish(VideoDeleteAsked(recording=first.recording), first, place(home, 1))
    async with running(home, pruner()) as kernel:
        await kernel.settle()
        assert numbers(home) == [0, 1], "it was asked of a video that was not there"
    async with running(home, {}) as kernel:
        await kernel.publish(VideoDeleteAsked(recording=first.recording))
    async with running(home, pruner()) as kernel:
        await kernel.settle()
        assert numbers(home) == [1]


@pytest.mark.parametrize("done", ["nothing", "the file", "the thumbnail", "the entry", "all of it"])
async def test_a_removal_that_was_killed_is_finished_once(home: Path, done: str) -> None:
    async with running(home, {}) as kernel:
        video, other = place(home, 0), place(home, 1)
        await kernel.publish(video, other, intent(video))
        if done != "nothing":
            (home / video.path).unlink()
        if done not in ("nothing", "the file"):
            (home / str(video.thumbnail)).unlink()
        if done in ("the entry", "all of it"):
            catalogue.remove(home, video.recording)
        if done == "all of it":
            await kernel.publish(VideoPruned(**msgspec.structs.asdict(intent(video))))
    for _ in range(2):
        async with running(home, pruner()) as kernel:
            await kernel.settle()
            assert numbers(home) == [1]
            freed = 7 if done in ("nothing", "all of it") else 0
            assert pruned(kernel) == [("0000", "max_bytes", freed)]


async def test_a_pin_behind_an_intent_that_was_never_carried_out_saves_the_video(home: Path) -> None:
    async with running(home, {}) as kernel:
        video = place(home, 0)
        await kernel.publish(video, intent(video), VideoPinned(recording=video.recording))
    async with running(home, pruner()) as kernel:
        await kernel.settle()
        assert numbers(home) == [0]


PRUNING = """
import sys
from pathlib import Path
import anyio
from kernel.testing import running
from plugins.pruner import Pruner, PrunerOptions

async def main(home: Path) -> None:
    async with running(home, {"pruner": (Pruner, PrunerOptions(max_videos_per_session=1, min_free_bytes=0))}):
        await anyio.sleep_forever()

anyio.run(main, Path(sys.argv[1]))
"""


async def test_a_kill_in_the_middle_of_a_clearance_leaves_no_half_removed_video(home: Path) -> None:
    async with running(home, {}) as kernel:
        await kernel.publish(*(place(home, number) for number in range(400)))
    for _ in range(3):
        before = len(videos(home))
        process = subprocess.Popen([sys.executable, "-c", PRUNING, str(home)])
        while len(videos(home)) > before - 40:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 1 < len(videos(home)) < 400 - 3 * 40 + 1
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.settle()
        assert numbers(home) == [399]
        removed = [recording for recording, _, _ in pruned(kernel)]
        assert sorted(removed) == [f"{number:04d}" for number in range(399)]


def wishes(home: Path) -> list[list[Event]]:
    """What users and the pruner say of eight videos, over four runs."""
    stands = [place(home, number) for number in range(8)]
    names = [video.recording for video in stands]
    return [
        [*stands, VideoPinned(recording=names[0], by="ann"), VideoPinned(recording=names[1])],
        [VideoUnpinned(recording=names[1]), VideoPinned(recording=names[2]), VideoDeleteAsked(recording=names[3])],
        [intent(stands[4]), VideoPinned(recording=names[4]), intent(stands[5]), VideoUnpinned(recording=names[0])],
        [VideoPinned(recording=names[0], by="eve"), VideoDeleteAsked(recording=names[0]), intent(stands[6])],
    ]


async def test_a_start_that_reads_on_from_the_last_one_knows_what_one_that_reads_all_knows(home: Path) -> None:
    async with running(home, {}) as kernel:
        first, *later = wishes(home)
        await kernel.publish(*first)
    for events in later:
        async with running(home, pruner()) as kernel:
            await kernel.settle()
        async with running(home, {}) as kernel:
            await kernel.publish(*events)
    remembered = recall(home)
    assert 0 < remembered.up_to < last_seq(home)
    read_on, read_all = remembered.history, History()
    for record in read(home, *RETAINED, after=remembered.up_to):
        read_on.note(record.event)
    for record in read(home, *RETAINED):
        read_all.note(record.event)
    assert read_on == read_all
    assert read_all.pinned
    assert read_all.intended


async def test_what_is_remembered_of_another_log_is_not_believed(home: Path) -> None:
    async with running(home, {}) as kernel:
        await kernel.publish(*(place(home, number) for number in range(3)))
        await kernel.publish(*(VideoPinned(recording=f"{number}") for number in range(100)))
    async with running(home, pruner()):
        pass
    assert recall(home).up_to > 100
    shutil.rmtree(home / "log")
    async with running(home, pruner()) as kernel:
        await kernel.settle()
        assert numbers(home) == [0, 1, 2]
    assert recall(home).up_to < 20
    assert not recall(home).history.pinned
    (home / "pruner.json").write_bytes(b"torn")
    assert recall(home).up_to == 0


async def test_a_file_that_took_the_name_of_a_video_is_not_removed(home: Path) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        file = home / first.path
        status = file.stat()
        other = file.with_name("other")
        other.write_bytes(b"thesis!")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # of the same size and time
        other.replace(file)
        await kernel.publish(first, place(home, 1))
        await kernel.settle()
        assert file.read_bytes() == b"thesis!"
        assert pruned(kernel) == [("0000", "max_videos_per_session", 0)]
        assert [entry.first_episode for entry in catalogue.read_all(home)] == [1]


async def test_a_symlink_in_the_place_of_a_video_is_not_followed_and_stays(home: Path, tmp_path: Path) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        kept = tmp_path / "kept.mp4"
        (home / first.path).rename(kept)
        (home / first.path).symlink_to(kept)
        await kernel.publish(first, place(home, 1))
        await kernel.settle()
        assert (home / first.path).is_symlink()
        assert kept.read_bytes() == b"video 0"
        assert pruned(kernel) == [("0000", "max_videos_per_session", 0)]


async def test_a_symlink_is_not_removed_even_where_it_was_catalogued(home: Path, tmp_path: Path) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        link = home / first.path
        link.rename(tmp_path / "kept.mp4")
        link.symlink_to(tmp_path / "kept.mp4")
        entry = catalogue.read(home, first.recording)
        assert entry is not None
        catalogue.write(home, msgspec.structs.replace(entry, identity=catalogue.identify(link)))
        await kernel.publish(first, place(home, 1))
        await kernel.settle()
        assert link.is_symlink()
        assert pruned(kernel) == [("0000", "max_videos_per_session", 0)]


async def test_a_video_outside_of_the_home_is_removed_and_its_folder_stays(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0, path=str(outside / "rl-video-episode-0.mp4"))
        await kernel.publish(first, place(home, 1))
        await kernel.settle()
        assert outside.is_dir()
        assert list(outside.iterdir()) == []


async def test_a_removal_that_fails_is_said_and_done_at_the_next_start(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        thumbnail = catalogue.thumbnail_of(home, first.recording)
        thumbnail.unlink()
        thumbnail.mkdir()
        await kernel.publish(first, place(home, 1), place(home, 2))
        await kernel.settle()
        assert f"{home / first.path}: cannot be removed: {os.strerror(errno.EISDIR)}" in capsys.readouterr().err
        assert pruned(kernel) == [("0001", "max_videos_per_session", 7)], "the others go on"
        thumbnail.rmdir()
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        await kernel.settle()
        assert numbers(home) == [2]
        assert [recording for recording, _, _ in pruned(kernel)] == ["0001", "0000"]


async def test_the_empty_folder_of_a_session_goes_when_no_video_can_come(home: Path) -> None:
    async with running(home, pruner()) as kernel:
        video = place(home, 0)
        producer = home / "spool" / video.recording[:-5]
        producer.mkdir(parents=True)
        await kernel.publish(video, VideoDeleteAsked(recording=video.recording))
        await kernel.settle()
        assert (home / "videos" / SESSION).is_dir()
        producer.rmdir()
        await kernel.publish(SessionEnded(session=SESSION, outcome="finished", episodes=1, steps=1, recordings=1))
        await kernel.settle()
        assert not (home / "videos" / SESSION).exists()


async def test_a_video_that_another_replaced_is_forgotten(home: Path) -> None:
    async with running(home, pruner(max_videos_per_session=1)) as kernel:
        first = place(home, 0)
        replaced = msgspec.structs.asdict(intent(first)) | {"policy": "replaced"}
        await kernel.publish(first, VideoPruned(**replaced))
        await kernel.settle()
        catalogue.remove(home, first.recording)
        await kernel.publish(place(home, 1, path=first.path), place(home, 2))
        await kernel.settle()
        assert pruned(kernel) == [("0000", "replaced", 7), ("0001", "max_videos_per_session", 7)]


async def test_the_tables_lose_a_pruned_video(home: Path) -> None:
    sink = {"sqlite": (SqliteSink, SqliteSinkOptions())}
    async with running(home, {**sink, **pruner(max_videos_per_session=1)}) as kernel:
        await kernel.publish(place(home, 0), place(home, 1))
        await kernel.settle()
        sqlite = kernel.plugins["sqlite"]
        assert isinstance(sqlite, SqliteSink)
        async with sqlite._connection.execute("SELECT first_episode, state, policy FROM videos ORDER BY id") as rows:
            assert list(await rows.fetchall()) == [(0, "pruned", "max_videos_per_session"), (1, "available", None)]


async def test_low_disk_holds_new_recordings_and_removes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(home, pruner(min_free_bytes=2**62)) as kernel:
        await kernel.publish(place(home, 0))
        await _until(kernel, held=True)
        await kernel.settle()
        assert numbers(home) == [0]
        assert "LOW DISK" in capsys.readouterr().err
        plugin = kernel.plugins["pruner"]
        assert isinstance(plugin, Pruner)
        for free_bytes in (2**61, 2**62, int(2**62 * 1.05)):
            await plugin._hold_or_let_go(free_bytes)
        assert len(kernel.records(CaptureHeld)) == 1, "there is no room again below 110 %"
    async with running(home, pruner(min_free_bytes=1)) as kernel:
        await _until(kernel, held=False)
        assert [record.event.held for record in kernel.records(CaptureHeld)] == [True, False]


async def _until(kernel: RunningKernel, *, held: bool) -> None:
    with anyio.fail_after(10):
        while [record.event.held for record in kernel.records(CaptureHeld)][-1:] != [held]:
            await anyio.sleep(0.01)


async def test_the_disk_of_a_chosen_folder_is_watched_too(home: Path, tmp_path: Path) -> None:
    async with running(home, pruner()) as kernel:
        path = str(tmp_path / "elsewhere" / "rl-video-episode-0.mp4")
        await kernel.publish(
            RecordingStarted(
                recording="r", session=SESSION, worker=0, episode=0, env_id="e", path=path, fps=1.0, width=2, height=2
            )
        )
        await kernel.settle()
        plugin = kernel.plugins["pruner"]
        assert isinstance(plugin, Pruner)
        assert plugin._outside == {tmp_path / "elsewhere"}


def test_limits_below_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes: must be 0"):
        PrunerOptions(max_bytes=-1)


async def test_limits_that_a_user_asks_for_hold_at_once_and_at_the_next_start(home: Path) -> None:
    async with running(home, pruner(max_videos_per_session=10)) as kernel:
        for number in range(5):
            await kernel.publish(place(home, number))
        await kernel.publish(RetentionAsked(max_videos_per_session=2, by="ann"))
        await kernel.settle()
        assert [record.event.first_episode for record in kernel.records(VideoAvailable)][:3] == [0, 1, 2]
        assert len(kernel.records(VideoPruned)) == 3
        in_force = limits_in_force(home)
        assert in_force is not None
        assert (in_force.limits.max_videos_per_session, in_force.asked.by) == (2, "ann")
        await kernel.publish(RetentionAsked(max_bytes=-5, by="eve"))
        await kernel.settle()
        assert limits_in_force(home) == in_force, "no limit is negative"
    async with running(home, pruner(max_videos_per_session=10)) as kernel:
        await kernel.publish(place(home, 5))
        await kernel.settle()
        assert len(kernel.records(VideoPruned)) == 4
        await kernel.publish(RetentionAsked())
        for number in range(6, 10):
            await kernel.publish(place(home, number))
        await kernel.settle()
        assert len(kernel.records(VideoPruned)) == 4, "as configured again"
