"""Spare cores: how many jobs may run side by side on this machine, in this container."""

from __future__ import annotations

import math
import os
from pathlib import Path


def spare_cores() -> int:
    """The cores that this process may use, by its affinity and its cgroups' quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))))


def quota(membership: Path, mounted: Path) -> float:
    """The cores' worth of time that cgroups allow, the tightest of all levels; infinite where nothing limits it.

    `membership` is the kernel's `/proc/self/cgroup`, and `mounted` the folder where cgroups are.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    tightest = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tree, limit_of = mounted, _limit_v2
        elif "cpu" in controllers.split(","):
            tree, limit_of = mounted / "cpu", _limit_v1
        else:
            continue
        folder = tree / path.lstrip("/")
        # In a container the path may be the host's, which is not there to see: the root is the container's own then.
        for level in (folder, *folder.parents):
            tightest = min(tightest, limit_of(level))
            if level == tree:
                break
    return tightest


def _limit_v2(folder: Path) -> float:
    try:
        allowed, period = (folder / "cpu.max").read_text().split()
    except OSError:
        return math.inf
    return math.inf if allowed == "max" else int(allowed) / int(period)


def _limit_v1(folder: Path) -> float:
    try:
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except OSError:
        return math.inf
    return math.inf if allowed < 0 else allowed / period
