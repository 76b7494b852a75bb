"""Files that were cut, or in which a bit has changed: never a wrong record, never a crash, never silence.

Every 97th place in an ordinary run; every one with `--every-byte`.
"""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kernel.checked import NotAsWritten, pack, read_checked
from kernel.event import Damaged, Event, LogTailCut, UnknownEvent
from kernel.files import acquire
from kernel.log import HomeRefused, Log, read, segments
from kernel.salvage import salvage
from kernel.testing import running
from plugins import catalogue
from plugins.collector import Collector, CollectorOptions
from plugins.collector.folder import Collected, ProducerFolder, SpoolDamaged
from plugins.events import (
    CaptureAsked,
    CaptureSettings,
    EpisodeEnded,
    EpisodeStarted,
    EventLost,
    FileDamaged,
    Keep,
    Probe,
    ProducerSetAside,
    SpoolTailCut,
    StepRecorded,
    StepTimes,
    VideoAvailable,
    VideoFailed,
    WorkerEnded,
    WorkerStarted,
)
from plugins.pruner.history import History, Remembered
from plugins.recorder.frames import ChunkDamaged, ChunkReader, is_torn_only, seal_part
from plugins.recorder.sessions import OwnerFile
from plugins.recorder.spool import Control, RecordingPlan, append_batch, event_file, spool_folder
from plugins.video.ffmpeg import Encoding
from tests.faults.lives import Recorded, record, serve
from tests.fuzz.seeds import seeds
from tests.kernel.ticks import Tick, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAIL_BYTES = 6 * 1024
COLLECTOR: dict[str, Any] = {"collector": (Collector, CollectorOptions(silent_seconds=0.1))}
PRODUCER = "s-00000000"
ENDS = (SpoolTailCut, EpisodeEnded, WorkerEnded)


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """How far apart the places are."""
    return 1 if request.config.getoption("--every-byte") else 97


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about what a disk holds: thousands of fsyncs would only make these tests slow."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def cuts(content: bytes, stride: int) -> Iterator[bytes]:
    first = max(0, len(content) - TAIL_BYTES)
    for size in range(first, len(content), stride):
        yield content[:size]


def flips(content: bytes, stride: int) -> Iterator[bytes]:
    for place in range(max(0, len(content) - TAIL_BYTES) * 8, len(content) * 8, stride):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


# The log ---------------------------------------------------------------------------------------------------------


def written(home: Path, count: int, segment_bytes: int = 2**20) -> list[Event]:
    """So many events of two sources in turns, in segments of this size."""
    log = Log(home, segment_bytes=segment_bytes)
    for n in range(1, count + 1):
        log.append("ab"[n % 2], (n + 1) // 2, ticks(n, n))
        if segment_bytes < 2**20:
            log.sync()
    log.close()
    return [each.event for each in read(home)]


def again(pristine: Path, home: Path, file: Path, content: bytes) -> Path:
    """A copy of a home in which one file holds something else."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(pristine, home)
    copied = home / file.relative_to(pristine)
    copied.write_bytes(content)
    return copied


@pytest.mark.usefixtures("unsynced")
def test_a_log_that_was_cut_anywhere_loses_the_torn_line_alone_and_says_so(tmp_path: Path, stride: int) -> None:
    pristine, home = tmp_path / "pristine", tmp_path / "home"
    said = written(pristine, 80)
    (path,) = segments(pristine / "log")
    content = path.read_bytes()
    for cut in cuts(content, stride):
        again(pristine, home, path, cut)
        whole = cut.count(b"\n")
        log = Log(home)
        torn_bytes = len(cut) - cut.rfind(b"\n") - 1
        assert (log.repaired.size_bytes if log.repaired else 0) == torn_bytes
        log.append("b", log.last_nth("b") + 1, [Tick(n=0)])
        log.close()
        assert [each.event for each in read(home)] == [*said[:whole], Tick(n=0)]


@pytest.mark.usefixtures("unsynced")
def test_a_bit_that_changed_in_the_newest_segment_changes_no_other_record(tmp_path: Path, stride: int) -> None:
    pristine, home = tmp_path / "pristine", tmp_path / "home"
    said = written(pristine, 80)
    (path,) = segments(pristine / "log")
    for flipped in flips(path.read_bytes(), stride):
        copied = again(pristine, home, path, flipped)
        try:
            Log(home).close()
        except HomeRefused as refused:
            damage = str(refused)
            assert f"{copied}: damaged at byte " in damage
            assert f"`python -m kernel salvage {home}`" in damage
            salvage(home)
            Log(home).close()
        found = [each.event for each in read(home)]
        # A line at the end is cut as a torn one is, and what stays valid JSON is not noticed here: see the guarantees.
        assert len(found) in (78, 79, 80)
        # A line end that changed makes one line of two.
        assert sum(one != other for one, other in itertools.zip_longest(found, said)) <= 1 + (flipped.count(b"\n") < 80)


def test_a_line_end_that_changed_before_the_last_line_costs_two_records_and_not_the_last(tmp_path: Path) -> None:
    said = written(tmp_path, 80)
    (path,) = segments(tmp_path / "log")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:77], lines[77] + b"\x0b" + lines[78], *lines[79:]]))
    with pytest.raises(HomeRefused, match="salvage"):
        Log(tmp_path)
    assert salvage(tmp_path) == 2
    found = list(read(tmp_path))
    assert [each.seq for each in found] == list(range(1, 81))
    assert [each.nth for each in found if each.source == "a"] == list(range(1, 41))
    assert [each.event for each in found][:77] == said[:77]
    assert found[-1].event == said[-1]
    assert {type(each.event) for each in found[77:79]} == {UnknownEvent}


@pytest.mark.usefixtures("unsynced")
def test_every_bit_that_changed_in_a_sealed_segment_is_noticed_and_set_right_again(tmp_path: Path, stride: int) -> None:
    pristine, home = tmp_path / "pristine", tmp_path / "home"
    said = written(pristine, 40, segment_bytes=1500)
    path = segments(pristine / "log")[1]
    content = path.read_bytes()
    for flipped in flips(content, stride):
        copied = again(pristine, home, path, flipped)
        with pytest.raises(HomeRefused, match="not the one it was sealed with") as refused:
            list(read(home))
        assert str(copied) in str(refused.value)
        assert f"`python -m kernel salvage {home}`" in str(refused.value)
        mended: list[str] = []
        assert salvage(home, mended.append) == 0
        assert "1 bits had changed, and are as they were" in mended[0]
        assert copied.read_bytes() == content
    assert [each.event for each in read(home)] == said


@pytest.mark.usefixtures("unsynced")
def test_what_changed_too_much_in_a_sealed_segment_is_stood_in_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = written(home, 600, segment_bytes=40_000)
    path = segments(home / "log")[0]
    content = bytearray(path.read_bytes())
    for place in (20_000, 20_001, 20_005):  # in the second block: still JSON, perhaps, and not what was said
        content[place] ^= 0x04
    path.write_bytes(content)
    with pytest.raises(HomeRefused, match="damaged at byte 16384 to 32768"):
        list(read(home))
    lost = salvage(home)
    found = list(read(home))
    assert 0 < lost < 150
    assert sum(isinstance(each.event, UnknownEvent) for each in found) == lost
    assert all(each.event == event for each, event in zip(found, said, strict=True) if type(each.event) is Tick)
    assert_no_gap_in_any_count(home)


def test_salvage_leaves_no_gap_in_the_count_of_whoever_said_what_is_lost(tmp_path: Path) -> None:
    home = tmp_path / "home"
    written(home, 20)
    path = segments(home / "log")[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[9] = lines[9].replace(b'"type"', b'"ty\x00e"')  # who said it can still be read
    lines[12] = b"\x00" * (len(lines[12]) - 1) + b"\n"  # and here not: the next of that source tells
    lines[18] = lines[18].replace(b'{"seq"', b'{!seq"')  # the last of its source
    path.write_bytes(b"".join(lines))
    assert salvage(home) == 3
    assert_no_gap_in_any_count(home)
    log = Log(home)
    assert (log.last_nth("a"), log.last_nth("b")) == (10, 10)
    log.close()


def assert_no_gap_in_any_count(home: Path) -> None:
    nth: dict[str, int] = {}
    for each in read(home):
        assert each.nth == nth.get(each.source, 0) + 1
        nth[each.source] = each.nth


@pytest.mark.usefixtures("unsynced")
def test_a_seal_that_was_cut_or_changed_is_made_anew(tmp_path: Path, stride: int) -> None:
    pristine, home = tmp_path / "pristine", tmp_path / "home"
    said = written(pristine, 40, segment_bytes=1500)
    seal = segments(pristine / "log")[1].with_suffix(".seal")
    content = seal.read_bytes()
    for damaged in (*flips(content, stride), *cuts(content[:-1], stride)):
        copied = again(pristine, home, seal, damaged)
        log = Log(home)
        assert (log.last_nth("a"), log.last_nth("b")) == (20, 20)
        log.close()
        assert copied.read_bytes() == content
    assert [each.event for each in read(home)] == said


# The spool -------------------------------------------------------------------------------------------------------


def started() -> WorkerStarted:
    return WorkerStarted(session="s", worker=0, pid=1, env_id="Env-v0")


def episode_started(episode: int) -> EpisodeStarted:
    return EpisodeStarted(
        session="s", worker=0, episode=episode, env_id="Env-v0", seed="1", capture="off", captured=False, time=100.0
    )


def step(number: int) -> StepRecorded:
    return StepRecorded(
        session="s",
        worker=0,
        episode=0,
        step=number,
        action=0,
        reward=1.5,
        terminated=False,
        truncated=False,
        observation=[0.1] * 8,
        time=100.0 + number,
        step_seconds=0.001,
    )


def left(home: Path, *files: list[list[Event]]) -> Path:
    """The folder of a dead producer: the batches of each of its event files."""
    folder = spool_folder(home) / PRODUCER
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    nth = 1
    for number, batches in enumerate(files, 1):
        for batch in batches:
            append_batch(event_file(folder, number), nth, batch)
            nth += len(batch)
    return folder


def taken_in(folder: Path) -> tuple[list[Event], str]:
    """What a collector gets of a dead producer's folder, and how it came to know of damage."""
    producer, events, noticed = ProducerFolder(folder), list[Event](), ""
    producer.adopt()
    try:
        while batches := producer.read():
            events += [event for batch in batches for event in batch.events]
        if producer.needs_ends:
            producer.write_ends()
        while batches := producer.read():
            events += [event for batch in batches for event in batch.events]
    except (SpoolDamaged, Damaged) as damage:
        noticed = str(damage)
    finally:
        producer.release()
    return events, noticed


@pytest.mark.usefixtures("unsynced")
def test_an_event_file_that_was_cut_or_changed_gives_a_prefix_and_says_where(tmp_path: Path, stride: int) -> None:
    steps: list[Event] = [step(number) for number in range(36)]
    batches = [[started(), episode_started(0)], *[steps[first : first + 3] for first in range(0, 36, 3)]]
    said = [event for batch in batches for event in batch]
    folder = left(tmp_path, batches)
    path = event_file(folder, 1)
    content = path.read_bytes()
    for damaged in (*cuts(content, stride), *flips(content, stride)):
        path.write_bytes(damaged)
        events, noticed = taken_in(folder)
        mine = list(itertools.takewhile(lambda event: not isinstance(event, ENDS), events))
        assert mine == said[: len(mine)]
        cut = sum(event.size_bytes for event in events if isinstance(event, SpoolTailCut))
        if noticed:
            assert str(path) in noticed
        elif len(damaged) == len(content) or damaged != content[: len(damaged) - cut]:
            assert cut, "silence"


@pytest.mark.usefixtures("unsynced")
def test_damage_in_the_midst_of_the_last_event_file_is_refused_and_not_taken_for_a_torn_end(tmp_path: Path) -> None:
    folder = left(tmp_path, [[started()], [episode_started(0)], [step(1)], [step(2)]])
    path = event_file(folder, 1)
    content = bytearray(path.read_bytes())
    content[2] ^= 0x40  # the first batch would then be larger than the file
    path.write_bytes(content)
    events, noticed = taken_in(folder)
    assert events == []
    assert noticed == f"{path}: damaged behind byte 0"
    assert path.read_bytes() == content, "nothing was cut"


def test_every_bit_that_changed_in_a_chunk_is_noticed_and_all_frames_before_it_are_good(
    tmp_path: Path, stride: int
) -> None:
    path = tmp_path / "00000.chunk"
    for content in seeds("chunk"):
        path.write_bytes(content)
        good, noticed = frames_of(path)
        for damaged in (*flips(content, stride), *cuts(content, stride)):
            path.write_bytes(damaged)
            frames, noticed = frames_of(path)
            assert f"{path}: damaged at byte " in noticed
            assert frames == good[: len(frames)]


def frames_of(path: Path) -> tuple[list[bytes], str]:
    frames: list[bytes] = []
    try:
        with ChunkReader(path) as reader:
            frames += [bytes(frame) for frame in reader]
    except ChunkDamaged as damage:
        return frames, str(damage)
    return frames, ""


@pytest.mark.usefixtures("unsynced")
def test_a_part_that_was_cut_or_changed_is_sealed_to_a_prefix(tmp_path: Path, stride: int) -> None:
    part, chunk = tmp_path / "00000.part", tmp_path / "00000.chunk"
    content = seeds("chunk")[0]
    part.write_bytes(content)
    assert seal_part(part) == 3
    good, _ = frames_of(chunk)
    for damaged in (*flips(content, stride), *cuts(content, stride)):
        part.write_bytes(damaged)
        torn_only = is_torn_only(part)
        count = seal_part(part)
        assert count < 3 or damaged == content
        if count:
            assert frames_of(chunk) == (good[:count], "")
        if len(damaged) < len(content):
            assert torn_only


# Small files -----------------------------------------------------------------------------------------------------

PLAN = RecordingPlan(
    recording="s-00000000-0000",
    session="s",
    worker=0,
    episode=0,
    env_id="Env-v0",
    path="videos/s/x.mp4",
    fps=30.0,
    width=16,
    height=16,
    keep=Keep(best=3),
    wait_for_seal=True,
    started=1.0,
    capture="every 1",
)


@pytest.mark.parametrize(
    "value",
    [
        Control(settings=CaptureSettings(every=3), asked=7, once=2, held=True),
        Collected(3, 77),
        PLAN,
        Encoding(codec="libx264", crf=21, preset="veryfast"),
        OwnerFile(session="s", pid=12, kind="script", outcome="finished"),
        Remembered(9, History(available={"a"}, pinned={"b": "c"})),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("pretty", [True, False])
def test_every_bit_that_changed_in_a_small_file_is_noticed(tmp_path: Path, value: Any, *, pretty: bool) -> None:
    path = tmp_path / "file.json"
    content = pack(value, pretty=pretty)
    path.write_bytes(content)
    assert read_checked(path, type(value)) == value
    for damaged in (*flips(content, 1), *cuts(content[:-1], 1)):
        path.write_bytes(damaged)
        with pytest.raises(NotAsWritten, match=str(path)):
            read_checked(path, type(value))


@pytest.mark.anyio
async def test_what_a_damaged_collected_json_said_is_found_again_in_the_log(home: Path) -> None:
    said: list[Event] = [started(), episode_started(0), step(1), step(2)]
    folder = left(home, [said[:3]], [said[3:]])
    lock = acquire(folder / "lock")
    assert lock is not None
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        assert not event_file(folder, 1).exists(), "its beginning is in the log alone"
    lock.release()
    collected = folder / "collected.json"
    collected.write_bytes(collected.read_bytes().replace(b'"next_nth":4', b'"next_nth":9'))
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (damage,) = kernel.records(FileDamaged)
        (ended,) = kernel.records(EpisodeEnded)
        (worker,) = kernel.records(WorkerEnded)
        mine = [each for each in kernel.records() if each.source == PRODUCER]
    assert str(collected) in damage.event.consequence
    assert (ended.event.outcome, ended.event.steps, ended.event.total_reward) == ("aborted", 2, 3.0)
    assert worker.event.outcome == "lost"
    assert [each.nth for each in mine] == list(range(1, len(mine) + 1))
    assert [each.event for each in mine[:4]] == said


@pytest.mark.anyio
async def test_a_live_producer_whose_last_event_the_log_lost_is_not_refused(home: Path) -> None:
    folder = left(home, [[started(), episode_started(0)]], [])
    event_file(folder, 2).touch()
    lock = acquire(folder / "lock")
    assert lock is not None
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        assert not event_file(folder, 1).exists()
    (path,) = segments(home / "log")
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"type":"EpisodeStarted"' in line)
    path.write_bytes(b"".join(lines[:place]) + lines[place].replace(b'"event"', b'"eve\x00t"'))
    append_batch(event_file(folder, 2), 3, [step(1)])
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        assert len(kernel.records(LogTailCut)) == 1
        assert kernel.records(ProducerSetAside) == []
        mine = [(each.nth, type(each.event)) for each in kernel.records() if each.source == PRODUCER]
    lock.release()
    assert mine == [(1, WorkerStarted), (2, EventLost), (3, StepRecorded)]


@pytest.mark.anyio
async def test_what_a_damaged_capture_json_said_is_found_again_in_the_log(home: Path) -> None:
    asked = CaptureAsked(settings=CaptureSettings(mode="every", every=7))
    async with running(home, COLLECTOR) as kernel:
        await kernel.publish(asked)
        await kernel.settle()
    file = home / "capture.json"
    wanted = read_checked(file, Control)
    file.write_bytes(file.read_bytes().replace(b'"every":7', b'"every":6'))
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (damage,) = kernel.records(FileDamaged)
    assert damage.event.file == "capture.json"
    assert read_checked(file, Control) == wanted
    assert wanted is not None
    assert wanted.settings == asked.settings


def test_a_rotten_chunk_of_a_killed_producer_is_a_failed_video_and_no_crash(home: Path) -> None:
    record(home, Recorded(lengths=(5, 5)))
    chunk = min(home.glob("spool/*/*/00000.chunk"))
    content = bytearray(chunk.read_bytes())
    content[-3] ^= 1
    chunk.write_bytes(content)
    serve(home)
    (failed,) = [each.event for each in read(home, VideoFailed)]
    assert failed.recording == chunk.parent.name
    assert "00000.chunk: damaged at byte" in failed.reason
    assert len(list(read(home, VideoAvailable))) == 1


@pytest.mark.parametrize("file", ["recording.json", "00000.chunk"])
def test_a_cut_file_of_a_recording_is_a_failed_video_that_names_it(home: Path, file: str) -> None:
    record(home, Recorded(lengths=(5,)))
    (path,) = home.glob(f"spool/*/*/{file}")
    path.write_bytes(path.read_bytes()[:-20])
    serve(home)
    (failed,) = [each.event for each in read(home, VideoFailed)]
    assert file in failed.reason
    assert "damaged" in failed.reason


def test_a_rotten_entry_of_the_catalogue_is_said_and_its_video_stays(home: Path) -> None:
    record(home, Recorded(lengths=(5,)))
    serve(home)
    (available,) = [each.event for each in read(home, VideoAvailable)]
    entry = catalogue.folder(home) / f"{available.recording}.json"
    entry.write_bytes(entry.read_bytes().replace(b'"worker": 0', b'"worker": 1'))
    serve(home)
    (damage,) = [each.event for each in read(home, FileDamaged)]
    assert damage.file == f"recordings/{entry.name}"
    assert (home / available.path).exists()


def test_numbers_that_are_not_finite_reach_plugins_as_the_log_says_them(tmp_path: Path) -> None:
    odd = step(1)
    probe = Probe(
        session="s",
        steps=1,
        seconds=float("inf"),
        captured=StepTimes(counts=[], total_seconds=0.0, longest_seconds=0.0),
        bare=StepTimes(counts=[], total_seconds=0.0, longest_seconds=0.0),
        spool_bytes=0,
    )
    folder = left(tmp_path, [[msgspec.structs.replace(odd, reward=float("nan")), probe]])
    events, noticed = taken_in(folder)
    assert not noticed
    assert events[0] == msgspec.structs.replace(odd, reward=None)
    assert isinstance(events[1], UnknownEvent), "a Probe without its seconds is none"
    log = Log(tmp_path)
    log.append(PRODUCER, 1, events)
    log.close()
    assert [each.event for each in read(tmp_path)] == events
