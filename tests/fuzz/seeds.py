"""What fuzzing begins with: for each decoder what it is meant to read, and what once was read wrongly."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np

from kernel.checked import pack
from kernel.event import KernelStopped, LogTrimmed
from kernel.files import write_whole
from kernel.log import Log, segments
from plugins.collector.folder import Collected
from plugins.events import CaptureSettings, EpisodeStarted, Keep, RecordingStarted, StepRecorded, WorkerStarted
from plugins.recorder.frames import ChunkWriter, layout_of
from plugins.recorder.frames import pack as pack_frame
from plugins.recorder.spool import Control, RecordingPlan, encode, pack_batch
from plugins.video.ffmpeg import Encoding

ROOT = Path(__file__).parents[2]
SESSION = "20261122-062718-k3v9"
RECORDING = f"{SESSION}-q2xa81bc-0000"


def seeds(decoder: str) -> list[bytes]:
    """Good inputs of a decoder, and those that once broke it."""
    with tempfile.TemporaryDirectory() as name:
        good = {"log": _log, "spool": _spool, "chunk": _chunks, "config": _configs, "control": _controls}[decoder](
            Path(name)
        )
    return [*good, *REGRESSIONS.get(decoder, ())]


def events() -> list[msgspec.Struct]:
    """Some of what a producer says."""
    return [
        WorkerStarted(session=SESSION, worker=0, pid=1, env_id="CartPole-v1"),
        EpisodeStarted(
            session=SESSION,
            worker=0,
            episode=0,
            env_id="CartPole-v1",
            seed="7",
            observation=[0.1, -0.2, 3],
            info={"a": {"b": None}},
            capture="every 1",
            captured=True,
            recording=RECORDING,
            first_frame=0,
        ),
        RecordingStarted(
            recording=RECORDING,
            session=SESSION,
            worker=0,
            episode=0,
            env_id="CartPole-v1",
            path="videos/x.mp4",
            fps=50.0,
            width=4,
            height=2,
        ),
        StepRecorded(
            session=SESSION,
            worker=0,
            episode=0,
            step=1,
            action=1,
            reward=1.0,
            terminated=False,
            truncated=False,
            observation=[0.5],
            time=1.5,
            step_seconds=0.001,
            frame=1,
        ),
    ]


def _log(folder: Path) -> list[bytes]:
    log = Log(folder)
    log.append("kernel", 1, [LogTrimmed(first_seq=1, removed_bytes=2), KernelStopped(outcome="drained", seconds=1.0)])
    log.append("a", 1, events())  # type: ignore[arg-type]  # they are events
    log.close()
    content = segments(folder / "log")[0].read_bytes()
    lines = content.splitlines(keepends=True)
    unknown = content.replace(b'"type":"StepRecorded"', b'"type":"NobodyKnows"')
    return [content, content[:-20], lines[0], b"".join(lines[:2] + lines[3:]), unknown]


def _spool(_folder: Path) -> list[bytes]:
    said = [encode(event) for event in events()]
    whole = pack_batch(1, said[:2]) + pack_batch(3, said[2:])
    return [whole, whole[:-10], msgspec.msgpack.encode(events()), msgspec.msgpack.encode([{"type": "X", "v": [1, {}]}])]


def _chunks(folder: Path) -> list[bytes]:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = []
    for turned in (picture, picture[::-1, ::-1], picture[:, :, :1]):
        header = layout_of(turned)
        writer = ChunkWriter(folder / "00000.part", header)
        writer.append([pack_frame(turned, header), b"", pack_frame(turned // 2, header)])
        found.append((folder / "00000.part").read_bytes())
        found.append(writer.seal().read_bytes())
    return found


def _configs(_folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((ROOT / "config").glob("*.toml"))] + [
        b"plugins.runner.episodes=3",
        b'[plugins.e]\nuse="e"\ncodec="libx264"\npreset="-y"\ncrf=3\n',
    ]


def _controls(_folder: Path) -> list[bytes]:
    plan = RecordingPlan(
        recording=RECORDING,
        session=SESSION,
        worker=0,
        episode=0,
        env_id="CartPole-v1",
        path="videos/x.mp4",
        fps=50.0,
        width=4,
        height=2,
        keep=Keep(),
        wait_for_seal=False,
        started=1.0,
        capture="every 1",
    )
    values = [
        Control(),
        Control(settings=CaptureSettings(mode="every", every=2), asked=3, once=2, held=True),
        Collected(2, 7),
        plan,
        Encoding(codec="libx264", crf=21, preset="veryfast"),
    ]
    return [pack(value) for value in values] + [pack(plan, pretty=True), msgspec.json.encode(plan)]


_LINE = b'{"seq":1,"time":"2026-11-22T06:27:18Z","source":"a","nth":1,"event":{"type":"X","v":%s}}\n'
REGRESSIONS: dict[str, list[bytes]] = {
    "log": [
        _LINE % (b"[" * 5000 + b"]" * 5000),
        _LINE % b'"\xff"',
        b'{"a":' + b"[" * 5000 + b',"event":{"type":"X"}}\n',
        (_LINE % b"1").replace(b'"a"', b'"\xe2"') * 3,
    ],
    "spool": [
        b"\x91" + b"\x91" * 5000 + b"\xc0",
        msgspec.msgpack.encode([{"type": "LoopLag", "seconds": float("nan")}]),
        msgspec.msgpack.encode([{"type": "VideoPinned", "recording": "a", "by": "b"}, {"type": "X", "v": {None: 1}}]),
    ],
    "config": [b"a = " + b"[" * 5000, b"\xff\xfe"],
    "control": [b"[" * 100_000, b'{"recording":"\xff"}'],
}
"""Inputs that once ended in a crash, or were read as something else than they say."""


def write_corpus(decoder: str, folder: Path) -> None:
    """The seeds as files, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(decoder)):
        write_whole(folder / f"seed-{number}", seed, lasting=False)
