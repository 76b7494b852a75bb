"""System: how stepping, encoding and the disk are doing, and what the next prune would remove."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kernel.event import KernelStarted, KernelStopped, PluginState
from plugins import catalogue
from plugins.events import EncoderProbe
from plugins.retention import displaced, limits_in_force
from plugins.viewer.files import is_regular

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kernel.event import Event, Record
    from plugins.catalogue import Entry
    from plugins.events import Probe, StepTimes

POINTS = 3600
MOST_REMOVALS = 1000


class System:
    """What is measured, as far as this viewer has heard of it."""

    def __init__(self) -> None:
        self.lag: deque[tuple[float, float]] = deque(maxlen=POINTS)
        """When, and how late the kernel's loop was; only where the viewer is a kernel's."""
        self._encoder: deque[tuple[float, EncoderProbe]] = deque(maxlen=POINTS)
        self._plugins: dict[str, dict[str, Any]] = {}

    def hear(self, record: Record[Event]) -> None:
        """Take an event in."""
        at = record.time.timestamp()
        match record.event:
            case EncoderProbe() as probe:
                self._encoder.append((at, probe))
            case KernelStarted(plugins=plugins):
                self._plugins = {
                    name: {"name": name, "use": use, "state": "starting", "since": at, "reason": ""}
                    for name, use in plugins.items()
                }
            case PluginState(plugin=name, state=state, reason=reason):
                known = self._plugins.setdefault(name, {"name": name, "use": ""})
                known.update(state=state, since=at, reason=reason)
            case KernelStopped():
                for known in self._plugins.values():
                    known.update(state="stopped", since=at)

    def shown(self, probes: Iterable[tuple[float, str, Probe]], seconds: float) -> dict[str, Any]:
        """The last so many seconds."""
        since = time.time() - seconds
        return {
            "probes": _probes([each for each in probes if each[0] >= since]),
            "encoder": _encoding([each for each in self._encoder if each[0] >= since]),
            "lag": {
                "time": [at for at, _ in self.lag if at >= since],
                "seconds": [late for at, late in self.lag if at >= since],
            },
            "plugins": list(self._plugins.values()),
        }


def disk(home: Path, database: Path) -> dict[str, int | None]:
    """Bytes of the home's parts. Blocks."""
    usage = None
    with suppress(OSError):
        usage = shutil.disk_usage(home)
    return {
        "log_bytes": _bytes_in(home / "log"),
        "spool_bytes": _bytes_in(home / "spool"),
        "video_bytes": sum(entry.identity.size_bytes for entry in _entries(home)),
        "database_bytes": sum(_size(database.with_name(database.name + end)) for end in ("", "-wal", "-shm")),
        "free_bytes": None if usage is None else usage.free,
        "total_bytes": None if usage is None else usage.total,
    }


def pruning(home: Path) -> tuple[dict[str, Any] | None, dict[str, tuple[int, int]]]:
    """What the next prune would remove, and of each session how many videos and bytes that is. Blocks."""
    in_force = limits_in_force(home)
    if in_force is None:
        return None, {}
    policy = in_force.limits.policy
    removals = displaced(_entries(home), policy, time.time(), catalogue.unfinished(home))
    of_session: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for removal in removals:
        videos, size_bytes = of_session[removal.entry.session]
        of_session[removal.entry.session] = videos + 1, size_bytes + removal.entry.identity.size_bytes
    shown = {
        "limits": in_force.limits,
        "asked_by": in_force.asked.by or None,
        "removals": [
            {
                "recording": removal.entry.recording,
                "session": removal.entry.session,
                "bytes": removal.entry.identity.size_bytes,
                "policy": removal.policy,
                "reason": removal.reason,
            }
            for removal in removals[:MOST_REMOVALS]
        ],
        "total": len(removals),
    }
    return shown, dict(of_session)


def storage(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """What the videos of each session take, the largest first."""
    rows = connection.execute(
        """
        SELECT v.session, x.label, count(*), sum(v.size_bytes), sum(v.pinned)
        FROM videos v LEFT JOIN sessions x USING (session) WHERE v.state = 'available'
        GROUP BY v.session ORDER BY sum(v.size_bytes) DESC
        """
    )
    return [
        {"session": session, "label": label or "", "videos": videos, "bytes": size or 0, "pinned": pinned or 0}
        for session, label, videos, size, pinned in rows
    ]


def ids_of(connection: sqlite3.Connection, recordings: Sequence[str]) -> dict[str, int]:
    """The rows of recordings."""
    found: dict[str, int] = {}
    for start in range(0, len(recordings), 500):
        some = recordings[start : start + 500]
        marks = ", ".join("?" * len(some))
        found |= dict(connection.execute(f"SELECT recording, id FROM videos WHERE recording IN ({marks})", some))  # noqa: S608 - bound
    return found


# Their parts -----------------------------------------------------------------------------------------------------


def _probes(probes: Sequence[tuple[float, str, Probe]]) -> dict[str, list[Any]]:
    return {
        "time": [at for at, _, _ in probes],
        "session": [probe.session for _, _, probe in probes],
        "source": [source for _, source, _ in probes],
        "steps_per_second": [probe.steps / probe.seconds if probe.seconds else None for _, _, probe in probes],
        "captured_p50": [quantile(probe.captured, 0.5) for _, _, probe in probes],
        "captured_p99": [quantile(probe.captured, 0.99) for _, _, probe in probes],
        "bare_p50": [quantile(probe.bare, 0.5) for _, _, probe in probes],
        "bare_p99": [quantile(probe.bare, 0.99) for _, _, probe in probes],
        "frames_dropped": [probe.frames_dropped for _, _, probe in probes],
        "steps_dropped": [probe.steps_dropped for _, _, probe in probes],
        "unsent_bytes": [probe.unsent_bytes for _, _, probe in probes],
        "spool_bytes": [probe.spool_bytes for _, _, probe in probes],
    }


def _encoding(probes: Sequence[tuple[float, EncoderProbe]]) -> dict[str, list[Any]]:
    rates: list[float | None] = []
    before: tuple[float, EncoderProbe] | None = None
    for at, probe in probes:
        rate = None
        if before is not None and at > before[0] and probe.frames_encoded >= before[1].frames_encoded:
            rate = (probe.frames_encoded - before[1].frames_encoded) / (at - before[0])
        rates.append(rate)
        before = at, probe
    return {
        "time": [at for at, _ in probes],
        "waiting_chunks": [probe.waiting_chunks for _, probe in probes],
        "running_jobs": [probe.running_jobs for _, probe in probes],
        "frames_encoded": [probe.frames_encoded for _, probe in probes],
        "frames_per_second": rates,
    }


def quantile(times: StepTimes, part: float) -> float | None:
    """The upper bound of the bucket that this part of the steps stayed below, in seconds; None without steps."""
    total = sum(times.counts)
    if total <= 0:
        return None
    passed = 0
    for bucket, count in enumerate(times.counts):
        passed += count
        if passed >= part * total:
            return float(min(2.0**bucket * 1e-6, times.longest_seconds or 2.0**bucket * 1e-6))
    return float(times.longest_seconds)


def _entries(home: Path) -> list[Entry]:
    files = sorted(catalogue.folder(home).glob("*.json"))
    found = [catalogue.read(home, file.stem) for file in files if is_regular(file)]
    return [entry for entry in found if entry is not None]


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += (
                    _bytes_in(folder / entry.name)
                    if entry.is_dir(follow_symlinks=False)
                    else entry.stat(follow_symlinks=False).st_size
                )
    return total


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
