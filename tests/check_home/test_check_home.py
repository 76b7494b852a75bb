"""Each thing that can be wrong in a home is found, said with its remedy, and, where that is safe, mended once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest

from kernel.config import LogOptions
from kernel.log import Log, segments
from plugins import catalogue
from plugins.check_home import check_home, look
from plugins.events import VideoPinned
from tests.faults.lives import Recorded, Served, record, say, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SESSION = Recorded().session
SMALL = Served(log=LogOptions(segment_bytes=4000))


@pytest.fixture
def served(home: Path) -> Path:
    """A home with two videos, a log of several segments and tables, and nothing wrong."""
    record(home, Recorded(lengths=(12, 12)))
    serve(home, SMALL)
    assert len(segments(home / "log")) > 2
    assert look(home) == []
    return home


def test_a_whole_home_is_clean_and_a_look_changes_nothing(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in served.rglob("*")}
    assert check_home(served) == 0
    assert capsys.readouterr().out == f"{served}: nothing is wrong\n"
    assert {path: path.stat().st_mtime_ns for path in served.rglob("*")} == before


def video(home: Path, episode: int = 0) -> Path:
    return home / "videos" / SESSION / f"rl-video-episode-{episode}.mp4"


def entry(home: Path) -> Path:
    return min((home / "recordings").glob("*.json"))


def flip_a_bit(file: Path, at: int = -20) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(bytes(content))


def change_a_digit_of_the_first_segment(home: Path) -> None:
    first = segments(home / "log")[0]
    assert b'"version":"' in first.read_bytes()
    first.write_bytes(first.read_bytes().replace(b'"version":"', b'"version":"9', 1)[:-1] + b"\n")


def forget_a_step(home: Path) -> None:
    _sql(home, "DELETE FROM steps WHERE seq = (SELECT max(seq) FROM steps)")


def run_ahead(home: Path) -> None:
    _sql(home, "UPDATE cursor SET seq = seq + 1000")


def _sql(home: Path, statement: str) -> None:
    connection = sqlite3.connect(home / "stepreel.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def copy_the_video(home: Path) -> None:
    shutil.copy(video(home), video(home).with_suffix(".copy"))
    video(home).with_suffix(".copy").replace(video(home))


def lie_about_the_frames(home: Path) -> None:
    """Another true video under this name, told by its entry as by its announcement: only decoding shows it."""
    file = entry(home)
    content = file.read_bytes().replace(b'"frames": 13', b'"frames": 14')
    for segment in segments(home / "log"):
        said = segment.read_bytes()
        at = said.find(b'"VideoAvailable","recording":"' + file.stem.encode())
        if at >= 0:
            segment.write_bytes(said[:at] + said[at:].replace(b'"frames":13', b'"frames":14', 1))
            segment.with_suffix(".seal").unlink(missing_ok=True)
    file.write_bytes(content)


def say_something_twice(home: Path) -> None:
    """As a collector would that forgot what it had published."""
    lines = segments(home / "log")[-1].read_bytes().splitlines(keepends=True)
    last = msgspec.json.decode(lines[-1])
    again = msgspec.json.encode({**last, "seq": last["seq"] + 1}) + b"\n"
    with segments(home / "log")[-1].open("ab") as file:
        file.write(again)


MENDED: list[tuple[Callable[[Path], object], str]] = [
    (lambda home: video(home).unlink(), "rl-video-episode-0.mp4: is gone, a video"),
    (copy_the_video, "rl-video-episode-0.mp4: has been copied or moved since it was made"),
    (forget_a_step, "stepreel.sqlite: differs from the log in 1 rows of steps"),
    (run_ahead, "stepreel.sqlite: is ahead of the log"),
    (lambda home: flip_a_bit(home / "stepreel.sqlite", 4097), "stepreel.sqlite: is damaged"),
    (lambda home: (home / "recordings" / ".x-0000.json.77.tmp").touch(), "77.tmp: is half a file that a kill left"),
    (lambda home: (home / ".capture.json.77.tmp").touch(), ".capture.json.77.tmp: is half a file that a kill left"),
    (
        lambda home: video(home).with_name(f".{entry(home).stem}.abcdef.tmp").touch(),
        "abcdef.tmp: is half a video that a kill left",
    ),
    (lambda home: (home / "recordings" / "x-0000.jpg").touch(), "x-0000.jpg: is a thumbnail of no video"),
]


@pytest.mark.parametrize(("spoil", "words"), MENDED, ids=[words.split(": ", 1)[1][:40] for _, words in MENDED])
def test_what_can_be_mended_without_a_loss_is_mended_once(
    spoil: Callable[[Path], object], words: str, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(served)
    assert check_home(served) == 1
    said = capsys.readouterr().out
    assert words in said
    assert check_home(served, repair=True) == 1
    repaired = capsys.readouterr().out
    assert words in repaired
    assert "  repaired: " in repaired
    assert check_home(served, repair=True) == 0, capsys.readouterr().out
    serve(served, SMALL)  # and the next start finds nothing amiss
    assert look(served) == []


TOLD: list[tuple[Callable[[Path], object], str]] = [
    (change_a_digit_of_the_first_segment, "is not what was sealed"),
    (lambda home: segments(home / "log")[1].unlink(), "are missing behind it: a segment was removed"),
    (lambda home: flip_a_bit(segments(home / "log")[1], 3), "line 1, at byte 0, is damaged"),
    (say_something_twice, "was said twice"),
    (lambda home: flip_a_bit(video(home)), "is not what was announced: its SHA-256 is another"),
    (lambda home: video(home).write_bytes(b"short"), "is not what was announced: 5 bytes where there were"),
    (lie_about_the_frames, "shows 13 frames where 14 were announced"),
    (lambda home: entry(home).write_bytes(b"{"), "has no readable entry in the catalogue"),
    (lambda home: next((home / "recordings").glob("*.jpg")).unlink(), "is gone, a thumbnail"),
    (lambda home: (home / "videos" / "mine.mp4").touch(), "mine.mp4: is in the folder of videos and none of them"),
    (lambda home: (home / "failed" / "s-0000").mkdir(parents=True), "is kept for a recording that has not failed"),
    (lambda home: (home / "log" / "notes.txt").touch(), "notes.txt: is no file of the log"),
]


@pytest.mark.parametrize(("spoil", "words"), TOLD, ids=[words[:40] for _, words in TOLD])
def test_what_cannot_be_mended_is_told_and_left_as_it_is(
    spoil: Callable[[Path], object], words: str, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(served)
    before = {path: path.read_bytes() for path in served.rglob("*") if path.is_file()}
    assert check_home(served) == 1
    assert words in capsys.readouterr().out
    assert {path: path.read_bytes() for path in served.rglob("*") if path.is_file()} == before


def test_a_pinned_video_that_is_gone_is_told_and_not_forgotten(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(served, VideoPinned(recording=entry(served).stem, by="me"))
    serve(served, SMALL)
    video(served).unlink()
    for _ in range(2):
        assert check_home(served, repair=True) == 1
        assert "is gone, a pinned video" in capsys.readouterr().out
    pinned = catalogue.read(served, entry(served).stem)
    assert pinned is not None
    assert pinned.pinned
    catalogue.remove(served, pinned.recording)
    check_home(served)
    assert "is pinned by me, and is not in the catalogue" in capsys.readouterr().out


def test_a_recording_whose_frames_are_gone_gets_its_end_in_the_log(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(home, Recorded(lengths=(5, 5)))
    log = Log(home)
    log.close()
    (producer,) = (home / "spool").iterdir()
    (events,) = producer.glob("events-*.bin")
    _take_in(home, producer.name, events)
    shutil.rmtree(producer)
    shutil.rmtree(home / "sessions" / SESSION)
    assert check_home(home, repair=True) == 1
    said = capsys.readouterr().out
    assert said.count("has neither a video, nor a failure, nor frames in the spool") == 2
    assert "has no end in the log, and no folder" in said
    assert check_home(home) == 0
    serve(home)
    assert look(home) == []


def _take_in(home: Path, producer: str, file: Path) -> None:
    """What a collector publishes."""
    from kernel.event import decode_batch
    from plugins.recorder.spool import read_batches

    log = Log(home)
    for batch in read_batches(file).whole:
        log.append(producer, batch.first_nth, decode_batch(batch.events))
    log.close()


def test_what_a_kill_left_is_no_fault_and_done_by_the_next_start(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = os.fork()
    if pid == 0:
        record(home, Recorded(lengths=(5, 20), open_end=True))
        os._exit(0)
    os.waitpid(pid, 0)
    Log(home).close()
    with segments(home / "log")[-1].open("ab") as log:
        log.write(b'{"seq":1,')
    assert check_home(home) == 0
    said = capsys.readouterr().out
    assert "was torn by a crash. The next start does it." in said
    assert "holds what a producer left and is not all taken in yet" in said
    assert "nothing is wrong, 3 left for the next start" in said
    serve(home)
    assert look(home) == []
    assert sorted(path.name for path in (home / "videos" / SESSION).iterdir()) == [
        "rl-video-episode-0.mp4",
        "rl-video-episode-1.mp4",
    ]


def test_damaged_events_of_a_producer_are_told_with_the_place(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(home, Recorded())
    Log(home).close()
    (events,) = (home / "spool").glob("*/events-*.bin")
    flip_a_bit(events, 40)
    assert check_home(home) == 1
    assert f"{events}: is damaged behind byte 0" in capsys.readouterr().out


def test_damage_in_the_midst_of_the_last_segment_is_set_aside_by_a_repair(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = segments(served / "log")[-1]
    flip_a_bit(last, 3)
    assert check_home(served, repair=True) == 1
    assert "repaired: 1 damaged events were set aside" in capsys.readouterr().out
    assert any(file.suffix == ".damaged" for file in (served / "log").iterdir())


def test_beside_a_running_kernel_it_looks_and_does_not_repair(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:  # a lock belongs to its process
        log = Log(served)
        os.write(tell, b".")
        os.close(writing)
        os.read(reading, 1)
        log.close()
        os._exit(0)
    os.close(reading)
    try:
        os.read(told, 1)
        video(served, 1).unlink()
        (served / "recordings" / ".in-the-making.tmp").touch()
        assert check_home(served) == 1
        said = capsys.readouterr().out
        assert "rl-video-episode-1.mp4: is gone" in said
        assert "in-the-making" not in said
        assert "a kernel runs on it" in said
        assert check_home(served, repair=True) == 2
        assert "Stop it to repair" in capsys.readouterr().err
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
        for descriptor in (told, tell):
            os.close(descriptor)


def test_what_is_no_home_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_home(tmp_path) == 2
    assert "is no home of a kernel" in capsys.readouterr().err


def test_a_name_from_a_home_that_somebody_sent_moves_no_cursor(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (served / "videos" / "\x1b[2Jx.mp4").touch()
    check_home(served)
    said = capsys.readouterr().out
    assert "\\x1b[2Jx.mp4: is in the folder" in said
    assert "\x1b" not in said
