"""Scenarios: what happens on a home, life by life, so that each fail point is come to; and what must be there then."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernel.config import LogOptions
from kernel.log import segments
from plugins.encoder_pool import EncoderPoolOptions
from plugins.events import CaptureAsked, CaptureSettings, Keep, VideoDeleteAsked, VideoPinned
from plugins.pruner import PrunerOptions
from tests.faults.driver import Noted, Salvaged
from tests.faults.lives import Recorded, Said, Served

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.driver import Life


SECOND = "20261122-070000-zzzz"
FEW = EncoderPoolOptions(jobs=1, thumbnails=False, stall_seconds=300.0)
ROLLING = LogOptions(segment_bytes=1500)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One home's story."""

    steps: tuple[Life | Callable[[Path], Life | None], ...]
    """Lives, and what happens between them, which may give the life that follows from what is there."""
    failures: bool = False
    """Recordings may fail, as their frames are damaged."""
    damaged_log: bool = False
    """Events may be missing, and nothing starts before they were set aside."""


def _tear_the_log(home: Path) -> None:
    with segments(home / "log")[-1].open("ab") as file:
        file.write(b'{"seq":99,"time":"2026')


def _damage_the_log(home: Path) -> None:
    last = segments(home / "log")[-1]
    content = bytearray(last.read_bytes())
    content[3] ^= 1
    last.write_bytes(content)


def _tear_the_spool(home: Path) -> None:
    """As a kill in the midst of a write, with frames that nothing was said of yet, and a part without any."""
    for events in (home / "spool").glob("*/events-*.bin"):
        with events.open("ab") as file:
            file.write(b"\x07\x00")
        unspoken = events.parent / f"{events.parent.name}-0009"
        unspoken.mkdir()
        (unspoken / "recording.json").write_bytes(b"{}")
        for recording in events.parent.glob("*-0001"):
            (recording / "00001.part").write_bytes(b"SRCHUNK1")


def _damage_a_chunk(home: Path) -> None:
    for chunk in (home / "spool").glob("*/*/*.chunk"):
        content = bytearray(chunk.read_bytes())
        content[-30] ^= 1
        chunk.write_bytes(content)


def _pin_the_first(home: Path) -> Said | None:
    names = [file.stem for file in (home / "recordings").glob("*.json")]
    return Said([VideoPinned(recording=min(names), by="me")]) if names else None


def _delete_the_first(home: Path) -> Said | None:
    names = [file.stem for file in (home / "recordings").glob("*.json")]
    return Said([VideoDeleteAsked(recording=min(names), by="me")]) if names else None


def _leave_attempts(home: Path) -> None:
    """As encoders that were killed in the midst of their work do."""
    for plan in (home / "spool").glob("*/*/recording.json"):
        (plan.parent / "attempt-0123456789ab-video.mp4").write_bytes(b"half")
        (home / "recordings").mkdir(exist_ok=True)
        (home / "recordings" / f".{plan.parent.name}.0123456789ab.tmp").write_bytes(b"half")
        (home / "spool" / ".x-0001.leaving").mkdir(exist_ok=True)
        videos = home / "videos" / Recorded().session
        videos.mkdir(parents=True, exist_ok=True)
        (videos / f".{plan.parent.name}.0123456789ab.tmp").write_bytes(b"half")


def _leave_halves(home: Path) -> None:
    """As kills in the midst of writing do."""
    (home / "log").mkdir(exist_ok=True)
    for name in ("home.json", "capture.json", "pruner.json", "log/0000000000000001.seal", "recordings/x.json"):
        place = home / name
        if place.parent.is_dir():
            (place.parent / f".{place.name}.1-00000000.tmp").write_bytes(b"half")
    building = home / "sessions" / ".s.tmp"
    building.mkdir(parents=True, exist_ok=True)
    mark = building.with_name(".long-ago.ended")
    mark.touch()
    os.utime(mark, (0, 0))
    (home / "log" / "0000000000000000.seal").write_bytes(b"{}")


def _seal_the_last(home: Path) -> None:
    """As where somebody has removed the segment behind it."""
    for last in segments(home / "log")[-1:]:
        last.with_suffix(".seal").write_bytes(b"{}")


def _bad_join(home: Path) -> None:
    """Segments of other frames stand beside the chunks: their join is not the video, and is done anew."""
    for plan in (home / "spool").glob("*/*/recording.json"):
        for segment in sorted(plan.parent.glob("*.chunk")):
            segment.with_suffix(".mp4").write_bytes(b"no video")


def elsewhere() -> Path:
    """A folder on another file system, where there is one."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, gone with the test
    return Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None, prefix="stepreel-faults-"))


SCENARIOS: dict[str, Scenario] = {
    "telemetry": Scenario(steps=(Recorded(lengths=(4, 4), captured=()), Served(encoder=FEW))),
    "two films": Scenario(steps=(Recorded(lengths=(3, 3)), Served())),
    "a long film": Scenario(steps=(Recorded(lengths=(520,)), Served())),
    "a log of segments": Scenario(
        steps=(Recorded(lengths=(12,), captured=()), Served(encoder=FEW, log=ROLLING), Served(encoder=FEW, log=ROLLING))
    ),
    "a log that is trimmed": Scenario(
        steps=(
            Recorded(lengths=(30,), captured=()),
            Served(encoder=FEW, log=LogOptions(segment_bytes=1500, keep_bytes=6000), until_trimmed=True),
        )
    ),
    "a torn log": Scenario(
        steps=(Recorded(lengths=(3,), captured=()), Served(encoder=FEW), _tear_the_log, Served(encoder=FEW))
    ),
    "a damaged log": Scenario(
        steps=(
            Recorded(lengths=(3,), captured=()),
            Served(encoder=FEW),
            _damage_the_log,
            Salvaged(),
            Served(encoder=FEW),
        ),
        damaged_log=True,
    ),
    "a dead producer": Scenario(steps=(Recorded(lengths=(3, 9), open_end=True), _tear_the_spool, Served(encoder=FEW))),
    "limits": Scenario(
        steps=(Recorded(lengths=(3, 3)), Served(pruner=PrunerOptions(min_free_bytes=0, max_videos_per_session=1)))
    ),
    "a last video is deleted": Scenario(
        steps=(Recorded(lengths=(3,)), Served(), _delete_the_first, Served(encoder=FEW))
    ),
    "wishes": Scenario(
        steps=(
            Recorded(lengths=(3,)),
            Served(encoder=FEW),
            _pin_the_first,
            Said([CaptureAsked(settings=CaptureSettings(mode="off"))]),
            Served(encoder=FEW),
        )
    ),
    "one name for two": Scenario(
        steps=(
            Recorded(lengths=(3,), path="videos/{}.mp4"),
            Served(),
            Recorded(lengths=(3,), path="videos/{}.mp4", session=SECOND),
            Served(),
        )
    ),
    "a pinned video in the way": Scenario(
        steps=(
            Recorded(lengths=(3,), path="videos/{}.mp4"),
            Served(encoder=FEW),
            _pin_the_first,
            Served(encoder=FEW),
            Recorded(lengths=(3,), path="videos/{}.mp4", session=SECOND),
            Served(encoder=FEW),
        )
    ),
    "damaged frames": Scenario(steps=(Recorded(lengths=(3,)), _damage_a_chunk, Served(encoder=FEW)), failures=True),
    "damaged frames without room": Scenario(
        steps=(
            Recorded(lengths=(3, 4)),
            _damage_a_chunk,
            Served(encoder=EncoderPoolOptions(jobs=1, thumbnails=False, failed_bytes=1)),
        ),
        failures=True,
    ),
    "failures make room": Scenario(
        steps=(
            Recorded(lengths=(3, 4)),
            _damage_a_chunk,
            Served(encoder=EncoderPoolOptions(jobs=1, thumbnails=False, failed_bytes=500)),
        ),
        failures=True,
    ),
    "a film that nobody keeps": Scenario(steps=(Recorded(lengths=(3, 5), keep=Keep(best=1)), Served(encoder=FEW))),
    "leftovers": Scenario(
        steps=(
            Recorded(lengths=(3,)),
            _leave_attempts,
            _leave_halves,
            Served(encoder=FEW),
            _seal_the_last,
            Served(encoder=FEW),
        )
    ),
    "a join that fails": Scenario(steps=(Recorded(lengths=(520,)), _bad_join, Served(encoder=FEW))),
    "a recorder process": Scenario(steps=(Recorded(lengths=(3,), captured=()), Noted(), Served(encoder=FEW))),
    "another file system": Scenario(steps=(Recorded(lengths=(3,), path="ELSEWHERE/{}.mp4"), Served(encoder=FEW))),
}


def clear(folder: Path) -> None:
    """Remove what `elsewhere` made."""
    shutil.rmtree(folder, ignore_errors=True)
