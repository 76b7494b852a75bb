"""How many jobs run side by side."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pytest

from plugins.video.cores import quota, spare_cores

if TYPE_CHECKING:
    from pathlib import Path


def test_the_tightest_level_of_a_version_2_cgroup_counts(tmp_path: Path) -> None:
    tree = tmp_path / "cgroup"
    (tree / "kubepods" / "pod").mkdir(parents=True)
    (tree / "kubepods" / "cpu.max").write_text("250000 100000\n")
    (tree / "kubepods" / "pod" / "cpu.max").write_text("max 100000\n")
    assert quota(_membership(tmp_path, "0::/kubepods/pod"), tree) == 2.5


def test_a_container_that_sees_only_its_own_cgroup_is_held_to_it(tmp_path: Path) -> None:
    tree = tmp_path / "cgroup"
    tree.mkdir()
    (tree / "cpu.max").write_text("150000 100000\n")
    assert quota(_membership(tmp_path, "0::/docker/of-the-host"), tree) == 1.5


def test_a_version_1_quota_counts(tmp_path: Path) -> None:
    folder = tmp_path / "cgroup" / "cpu" / "slice"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("300000")
    (folder / "cpu.cfs_period_us").write_text("100000")
    (folder.parent / "cpu.cfs_quota_us").write_text("-1")
    (folder.parent / "cpu.cfs_period_us").write_text("100000")
    assert quota(_membership(tmp_path, "4:memory:/m", "2:cpu,cpuacct:/slice", "0::/"), tmp_path / "cgroup") == 3


def test_without_cgroups_nothing_limits(tmp_path: Path) -> None:
    assert quota(tmp_path / "missing", tmp_path) == math.inf


def test_the_affinity_limits_the_jobs() -> None:
    if not hasattr(os, "sched_getaffinity"):
        assert spare_cores() >= 1  # macOS has none
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert spare_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= spare_cores() <= len(allowed)


@pytest.mark.parametrize("share", ["50000 100000", "999 100000"])
def test_less_than_a_core_is_still_one_job(tmp_path: Path, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(share)
    membership = _membership(tmp_path, "0::/")
    limit = quota(membership, tmp_path)
    assert limit < 1
    monkeypatch.setattr("plugins.video.cores.quota", lambda *_: limit)
    assert spare_cores() == 1


def _membership(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "membership"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file
