"""The decoders that read what somebody else may have written, and what must hold of each for any bytes at all.

Each takes bytes and raises where a promise is broken: nothing but the errors that users are told of, nothing that
hangs, nothing half. What is run is the code itself, on files in a folder of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from kernel.checked import NotAsWritten, pack, read_checked
from kernel.config import ConfigRefused, convert, read_config
from kernel.event import Damaged, Event, Record, decode_batch, decode_records, encode_lines
from kernel.log import HomeRefused, Log, read
from kernel.salvage import salvage
from plugins import catalogue
from plugins.collector.collector import CollectorOptions
from plugins.collector.folder import Collected, ProducerFolder, SpoolDamaged
from plugins.encoder_pool import EncoderPoolOptions, jobs
from plugins.env_runner.options import EnvRunnerOptions
from plugins.events import StepRecorded
from plugins.progress import ProgressOptions
from plugins.pruner import PrunerOptions
from plugins.pruner.history import recall
from plugins.recorder.frames import ChunkDamaged, ChunkReader, count_whole_frames, is_torn_only, seal_part
from plugins.recorder.sessions import OwnerFile
from plugins.recorder.spool import Control, RecordingPlan
from plugins.sqlite_sink.sink import SqliteSinkOptions
from plugins.video.ffmpeg import Encoding, Frames, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST = 1 << 26
"""Bytes of frames that a chunk of a few bytes may ask for; the code itself has no such bound but LZ4's own ratio."""


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place: fuzzing makes millions of files."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    name = tempfile.mkdtemp(prefix="stepreel-fuzz-", dir=memory if memory.is_dir() else None)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name)


# The log ---------------------------------------------------------------------------------------------------------


def log(content: bytes) -> None:
    """Lines are decoded again to the same. A segment is refused and salvaged, or opened, and has no gap then."""
    with contextlib.suppress(Damaged):
        records = decode_records(content)
        again = decode_records(encode_lines(records))
        assert encode_lines(again) == encode_lines(records), "a record changes from one reading to the next"
    with _folder() as home:
        (home / "log").mkdir()
        (home / "log" / "0000000000000001.jsonl").write_bytes(content)
        refusal = _refusal(home)
        if refusal:
            assert "salvage" in refusal, refusal
            salvage(home)
            assert not _refusal(home)
        seqs = [record.seq for record in read(home)]
        assert seqs == list(range(1, len(seqs) + 1)), "a gap in the log"
        opened = Log(home)
        opened.append("fuzz", 1, [_STEP])
        opened.close()
        assert [record.seq for record in read(home)] == [*seqs, len(seqs) + 1]


def _refusal(home: Path) -> str:
    try:
        Log(home).close()
    except HomeRefused as refused:
        return str(refused)
    return ""


# The spool -------------------------------------------------------------------------------------------------------


def spool(content: bytes) -> None:
    """A batch, and an event file of a dead producer with a good checksum or whatever: taken in, or set aside."""
    _batch(content)
    for file in (content, _framed(content)):
        with _folder() as home:
            folder = home / "spool" / "20261122-062718-k3v9-q2xa81bc"
            folder.mkdir(parents=True)
            (folder / "events-000001.bin").write_bytes(file)
            producer = ProducerFolder(folder)
            producer.adopt()
            try:
                while batches := producer.read():
                    for batch in batches:
                        _as_read(batch.events)
                if producer.needs_ends:
                    producer.write_ends()
                while batches := producer.read():
                    for batch in batches:
                        _as_read(batch.events)
            except (SpoolDamaged, Damaged):
                pass
            finally:
                producer.release()


def _batch(content: bytes) -> None:
    with contextlib.suppress(Damaged):
        _as_read(decode_batch(content))


def _as_read(events: list[Event]) -> None:
    """What is relayed is what a reader of the log gets; types and depths that JSON has not are refused in one way."""
    with contextlib.suppress(TypeError, RecursionError, OverflowError, ValueError):  # what the collector sets aside
        lines = encode_lines([Record(n, _NOW, "fuzz", n, event) for n, event in enumerate(events, 1)])
        said = decode_records(lines)
        assert [type(record.event) for record in said] == [type(event) for event in events], "live and replay differ"


def _framed(content: bytes) -> bytes:
    body = struct.pack("<Q", 1) + content
    return struct.pack("<II", len(body), crc32(body)) + body


# Chunks ----------------------------------------------------------------------------------------------------------


def chunk(content: bytes) -> None:
    """A chunk gives its frames or says where it is damaged; a part is sealed to one that is not."""
    with _folder() as folder:
        for name in ("00000.chunk", "00001.part"):
            (folder / name).write_bytes(content)
        _frames(folder / "00000.chunk")
        count_whole_frames(folder / "00000.chunk")
        is_torn_only(folder / "00001.part")
        frames = seal_part(folder / "00001.part")
        sealed = folder / "00001.chunk"
        assert sealed.exists() == (frames > 0)
        if frames:
            assert count_whole_frames(sealed) == frames, "a part is sealed with a count that is not its own"


def _frames(path: Path) -> None:
    with contextlib.suppress(ChunkDamaged), ChunkReader(path) as reader:
        header = reader.header
        if header.width * header.height * header.channels > LARGEST:
            return
        for frame in reader:
            assert len(frame) == header.width * header.height * 3


# The configuration -----------------------------------------------------------------------------------------------


def config(content: bytes) -> None:
    """A file, with a word of it as an override, is refused in sentences or read; so are all plugins' tables in it."""
    with _folder() as folder:
        file = folder / "fuzz.toml"
        file.write_bytes(content)
        override = content[:40].decode(errors="replace")
        problems: list[str] = []
        try:
            settings = read_config(file, [override]).settings
        except ConfigRefused as refused:
            problems = refused.problems
        if problems:
            assert all(str(file) in problem for problem in problems)
            return
        for table in settings.plugins.values():
            for kind in _OPTIONS:
                problems = []
                options = convert(table, kind, "fuzz.toml: [plugins.fuzz]", problems)
                assert (options is None) == bool(problems)
                if isinstance(options, EncoderPoolOptions):
                    _no_arguments(options)


def _no_arguments(options: EncoderPoolOptions) -> None:
    """Whatever the options say, each is one value behind one switch of ours: ffmpeg gets no argument of a user's."""
    encoding = Encoding(codec=options.codec, crf=options.crf, preset=options.preset)
    arguments = encode(Path("ffmpeg"), Frames(width=4, height=4, fps=30.0), encoding, "out.mp4")
    plain = encode(
        Path("ffmpeg"), Frames(width=4, height=4, fps=30.0), Encoding(codec="c", crf=1, preset="p"), "out.mp4"
    )
    words = {options.codec, options.preset, str(options.crf)}
    assert set(arguments) - set(plain) <= words | {"-profile:v", "high"}
    for switch, word in (("-c:v", options.codec), ("-preset", options.preset)):
        assert not word or arguments[arguments.index(switch) + 1] == word


# Small files -----------------------------------------------------------------------------------------------------


def control(content: bytes) -> None:
    """Each small JSON file: `NotAsWritten`, or a value that is written and read as the same."""
    for file in (content, _sealed(content)):
        _small_files(file)


def _sealed(content: bytes) -> bytes:
    """With a checksum that is right, as if it was ours."""
    start = content.rstrip().removesuffix(b"}")
    return b'%s,"crc32":"%08x"}\n' % (start, crc32(start))


def _small_files(content: bytes) -> None:
    with _folder() as home:
        recording = "20261122-062718-k3v9-q2xa81bc-0000"
        folder = jobs.folder_of(home, recording)
        folder.mkdir(parents=True)
        (home / "recordings").mkdir()
        files = [
            folder / "recording.json",
            folder / "encoding.json",
            home / "pruner.json",
            folder.parent / "collected.json",
        ]
        for file in (*files, home / "recordings" / f"{recording}.json", home / "control.json"):
            file.write_bytes(content)
        for kind in (Control, Collected, RecordingPlan, Encoding, OwnerFile, catalogue.Entry):
            with contextlib.suppress(NotAsWritten):
                value = read_checked(home / "control.json", kind)
                (home / "again.json").write_bytes(pack(value))
                assert read_checked(home / "again.json", kind) == value
        plan = jobs.read_plan(folder)
        assert plan is None or plan.recording == recording
        entry = catalogue.read(home, recording)
        assert entry is None or entry.recording == recording
        jobs.read_encoding(folder)
        recall(home)
        ProducerFolder(folder.parent).release()


DECODERS: dict[str, Callable[[bytes], None]] = {
    "log": log,
    "spool": spool,
    "chunk": chunk,
    "config": config,
    "control": control,
}

_OPTIONS: tuple[type[msgspec.Struct], ...] = (
    CollectorOptions,
    EncoderPoolOptions,
    EnvRunnerOptions,
    ProgressOptions,
    PrunerOptions,
    SqliteSinkOptions,
)
_NOW = msgspec.convert("2026-11-22T06:27:18Z", type=__import__("datetime").datetime)
_STEP = StepRecorded(
    session="s",
    worker=0,
    episode=0,
    step=1,
    action=0,
    reward=1.0,
    terminated=False,
    truncated=False,
    time=1.0,
    step_seconds=0.001,
)


def without_waiting_for_the_disk() -> None:
    """Let nothing be put on disk for good: fuzzing is about what is read, and an fsync costs a thousand decodes."""
    os.fsync = lambda _descriptor: None  # type: ignore[assignment]
