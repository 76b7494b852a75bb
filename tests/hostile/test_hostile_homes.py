"""A home that somebody sent: whatever is in it, nothing outside of it is read as ours, changed or removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kernel import files
from kernel.checked import read_checked, write_checked
from kernel.files import acquire, is_name, note_of, open_regular, write_whole
from kernel.log import HomeRefused, Log, read, segments
from kernel.runtime import StartRefused
from kernel.terminal import shown
from kernel.testing import running
from plugins import catalogue
from plugins.collector import Collector, CollectorOptions
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.encoder_pool.handover import Target
from plugins.events import (
    ChunkSealed,
    EpisodeStarted,
    PruneIntended,
    RecordingDiscarded,
    RecordingSealed,
    VideoAvailable,
    VideoDeleteAsked,
    VideoFailed,
    VideoPinned,
    VideoPruned,
    WorkerStarted,
)
from plugins.pruner import Pruner, PrunerOptions
from plugins.recorder.spool import RecordingPlan, event_file, made_here, spool_folder
from tests.faults.lives import Recorded, Served, record, serve

if TYPE_CHECKING:
    from pathlib import Path

SESSION = "20261122-062718-k3v9"
ALL: dict[str, Any] = {
    "collector": (Collector, CollectorOptions(silent_seconds=0.05)),
    "encoder": (EncoderPool, EncoderPoolOptions(thumbnails=False)),
    "pruner": (Pruner, PrunerOptions(min_free_bytes=0)),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's own, outside of the home: nothing in it may change."""
    folder = tmp_path / "mine"
    (folder / "letters").mkdir(parents=True)
    for name in ("thesis.tex", "holiday.mp4", "keys.json", "keys.jpg", ".bash.rc", "letters/one.txt"):
        (folder / name).write_text(f"precious {name}")
    return folder


@pytest.fixture(autouse=True)
def untouched(mine: Path) -> Any:
    before = state_of(mine)
    yield
    assert state_of(mine) == before


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.lstat().st_mtime_ns) for path in files}


def sent(tmp_path: Path, home: Path, about: Recorded | None = None) -> Path:
    """A home with a recording in its spool, as an archive brings it: a copy, made at another time."""
    original = tmp_path / "original"
    record(original, about or Recorded(lengths=(5,)))
    shutil.copytree(original, home, symlinks=True)
    return home


# Links -----------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone(home: Path, mine: Path) -> None:
    home.mkdir()
    (home / "lock").symlink_to(mine / "thesis.tex")
    with pytest.raises(HomeRefused, match="symbolic"):
        Log(home)
    with pytest.raises(OSError, match="symbolic"):
        acquire(home / "lock")
    with pytest.raises(OSError, match="symbolic"):
        note_of(home / "lock")


def test_a_segment_that_is_a_link_is_refused(home: Path, mine: Path) -> None:
    Log(home).close()
    (path,) = segments(home / "log")
    path.unlink()
    path.symlink_to(mine / "thesis.tex")
    with pytest.raises(HomeRefused):
        Log(home)


def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular"):
        open_regular(tmp_path / "pipe")


def test_a_half_file_that_is_a_link_is_not_written_through(tmp_path: Path, mine: Path) -> None:
    (tmp_path / f".note.{files._mine}.tmp").symlink_to(mine / "thesis.tex")
    with pytest.raises(OSError, match="symbolic"):
        write_whole(tmp_path / "note", b"x", lasting=False)


@pytest.mark.anyio
@pytest.mark.parametrize("folder", ["spool", "sessions", "recordings", "failed"])
async def test_a_folder_of_ours_that_is_a_link_is_refused_in_one_sentence(home: Path, mine: Path, folder: str) -> None:
    Log(home).close()
    (home / folder).symlink_to(mine)
    with pytest.raises(StartRefused, match=f"{home / folder}: is a symbolic link"):
        async with running(home, ALL):
            pass


@pytest.mark.anyio
async def test_links_and_strangers_in_the_spool_are_passed_by(home: Path, mine: Path) -> None:
    Log(home).close()
    spool = spool_folder(home)
    spool.mkdir()
    (spool / "s-linked00").symlink_to(mine)
    (spool / "notes.txt").write_text("not ours")
    (spool / "line\nbreak-00000000").mkdir()
    folder = spool / "s-00000000"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "s-00000000-0000").symlink_to(mine / "letters")
    event_file(folder, 1).symlink_to(mine / "thesis.tex")
    (home / "sessions").mkdir()
    (home / "sessions" / "s").symlink_to(mine)
    async with running(home, ALL) as kernel:
        await kernel.settle()
    assert (spool / "notes.txt").exists()


# Names that are paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/etc", "a\nb", "a\x1b[2J", "x" * 201, "a\0b", "\ud800"]
)
def test_what_is_no_file_name_is_no_name(name: str) -> None:
    assert not is_name(name)


@pytest.mark.anyio
async def test_recordings_that_are_paths_reach_nothing(home: Path, mine: Path) -> None:
    names = [
        f"{mine}/letters",
        f"{mine}/letters-0000",
        "../../mine/letters-0000",
        f"../../../{mine}/keys",
        "..",
        "*",
        "",
    ]
    async with running(home, ALL) as kernel:
        for name in names:
            await kernel.publish(
                ChunkSealed(recording=name, chunk=0, file="x", frames=1),
                RecordingSealed(
                    recording=name, session="s", worker=0, first_episode=0, last_episode=0, chunks=1, frames=1
                ),
                RecordingDiscarded(recording=name, session="../..", why="to see"),
                VideoPinned(recording=name),
                VideoDeleteAsked(recording=name),
                PruneIntended(
                    recording=name,
                    session="../../mine",
                    path=f"{mine}/holiday.mp4",
                    size_bytes=1,
                    policy="x",
                    reason="y",
                ),
                VideoPruned(
                    recording=name,
                    session="../../mine",
                    path=f"{mine}/holiday.mp4",
                    size_bytes=1,
                    policy="x",
                    reason="y",
                ),
            )
        await kernel.settle()
        assert not any(life.left_off for life in kernel.kernel.lives)


# Places of videos ------------------------------------------------------------------------------------------------


def points_at(home: Path, place: str) -> None:
    """Have the recording in the spool want its video there, as whoever packed the home may write it."""
    for file in home.glob("spool/*/*/recording.json"):
        plan = read_checked(file, RecordingPlan)
        assert plan is not None
        write_checked(file, msgspec.structs.replace(plan, path=place), lasting=False)


@pytest.mark.parametrize(
    "place", ["{mine}/holiday.mp4", "../mine/holiday.mp4", "{mine}/thesis.tex", "videos/link/holiday.mp4"]
)
def test_a_home_that_was_sent_puts_no_video_outside_of_itself(
    tmp_path: Path, home: Path, mine: Path, place: str
) -> None:
    sent(tmp_path, home)
    (home / "videos").mkdir()
    (home / "videos" / "link").symlink_to(mine)
    points_at(home, place.format(mine=mine))
    serve(home)
    (video,) = [each.event for each in read(home, VideoAvailable)]
    assert video.path.startswith(f"videos/{SESSION}/")
    assert (home / video.path).is_file()


def test_a_target_file_that_was_sent_decides_on_nothing_outside(tmp_path: Path, home: Path, mine: Path) -> None:
    sent(tmp_path, home)
    for folder in home.glob("spool/*/*/"):
        write_checked(folder / "target", Target(f"{mine}/holiday.mp4"), lasting=False)
    serve(home)
    (video,) = [each.event for each in read(home, VideoAvailable)]
    assert video.path == f"videos/{SESSION}/holiday.mp4"


def test_no_video_takes_the_place_of_a_file_of_the_home(tmp_path: Path, home: Path) -> None:
    sent(tmp_path, home)
    points_at(home, "home.json")
    before = (home / "home.json").read_bytes() if (home / "home.json").exists() else None
    serve(home)
    assert before is None or (home / "home.json").read_bytes() == before
    (video,) = [each.event for each in read(home, VideoAvailable)]
    assert video.path.endswith(".mp4")


def test_a_producer_that_ran_here_puts_its_video_where_its_user_chose(tmp_path: Path, home: Path) -> None:
    chosen = tmp_path / "chosen"
    record(home, Recorded(lengths=(5,), path=str(chosen / "x.mp4")))
    assert all(made_here(folder) for folder in spool_folder(home).iterdir())
    serve(home)
    (video,) = [each.event for each in read(home, VideoAvailable)]
    assert (chosen / "x.mp4").is_file()
    assert (home / video.path).resolve() == (chosen / "x.mp4").resolve()


def test_a_plan_under_another_name_and_with_a_pattern_in_it_is_none(tmp_path: Path, home: Path) -> None:
    sent(tmp_path, home)
    for file in home.glob("spool/*/*/recording.json"):
        plan = read_checked(file, RecordingPlan)
        assert plan is not None
        write_checked(file, msgspec.structs.replace(plan, recording="*"), lasting=False)
    serve(home)
    (failed,) = [each.event for each in read(home, VideoFailed)]
    assert "recording.json is damaged" in failed.reason


def forged(home: Path, **fields: Any) -> str:
    """One video's catalogue entry, rewritten by whoever packed the home."""
    (recording,) = catalogue.recordings(home)
    entry = catalogue.read(home, recording)
    assert entry is not None
    forgery = msgspec.structs.replace(entry, **fields)
    write_checked(catalogue.folder(home) / f"{recording}.json", forgery, lasting=False)
    return recording


def pruned_once(home: Path) -> list[VideoPruned]:
    """What a pruner removes that may keep no video at all, as its user asks for it."""
    serve(home, Served(pruner=PrunerOptions(min_free_bytes=0, max_bytes=1)))
    return [each.event for each in read(home, VideoPruned)]


def test_the_pruner_removes_no_file_outside_that_an_entry_only_names(home: Path, mine: Path) -> None:
    record(home, Recorded(lengths=(5,)))
    serve(home)
    # The most that a forger can know: the file itself, but for its content.
    forged(home, path=str(mine / "holiday.mp4"), identity=catalogue.identify(mine / "holiday.mp4"))
    (pruned,) = pruned_once(home)
    assert pruned.size_bytes == 0


@pytest.mark.parametrize("thumbnail", ["{mine}/keys.jpg", "../mine/keys.jpg", "../../mine/thesis.tex"])
def test_the_pruner_removes_no_thumbnail_but_the_recordings_own(home: Path, mine: Path, thumbnail: str) -> None:
    record(home, Recorded(lengths=(5,)))
    serve(home)
    recording = forged(home, thumbnail=thumbnail.format(mine=mine))
    (pruned,) = pruned_once(home)
    assert pruned.size_bytes > 0
    assert not catalogue.thumbnail_of(home, recording).exists()


def test_an_entry_of_another_name_than_its_files_is_none(home: Path) -> None:
    record(home, Recorded(lengths=(5,)))
    serve(home)
    forged(home, recording="../../mine/keys")
    assert list(catalogue.read_all(home)) == []
    assert pruned_once(home) == []
    assert catalogue.read(home, "../../mine/keys") is None
    catalogue.remove(home, "../../mine/keys")


def test_ids_and_folders_with_strange_names_are_recorded_as_they_are(home: Path) -> None:
    record(home, Recorded(lengths=(5,), path="videos/épisode {} ‹x› #1 'a' \"b\".mp4"))
    serve(home)
    (video,) = [each.event for each in read(home, VideoAvailable)]
    assert (home / video.path).is_file()


# Terminals -------------------------------------------------------------------------------------------------------


def test_no_event_reaches_a_terminal_as_it_is(home: Path) -> None:
    nasty = "\x1b]0;owned\x07\x1b[2J\r\nroot# \x9b31m\u202eevil\u2066"
    log = Log(home)
    log.append(
        nasty,
        1,
        [
            WorkerStarted(session=nasty, worker=0, pid=1, env_id=nasty),
            EpisodeStarted(
                session=nasty,
                worker=0,
                episode=0,
                env_id=nasty,
                seed=nasty,
                observation={nasty: [nasty]},
                capture=nasty,
                captured=False,
            ),
        ],
    )
    log.close()
    run = subprocess.run(
        [sys.executable, "-m", "kernel", "tail", str(home)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    text = run.stdout.decode()
    assert text.count("\n") == 2
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert "owned" in text


def test_what_is_shown_is_printable_whatever_it_is() -> None:
    for code in (*range(0x300), *range(0x2000, 0x2070), 0xFEFF, 0xE0001, 0xD800):
        assert shown(f"a{chr(code)}b").isprintable()
