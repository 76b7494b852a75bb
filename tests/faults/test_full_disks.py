"""A full disk: stepping goes on, nothing is lost or half, and all goes on within seconds of there being room."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.small_disks import on_a_small_disk, way_in

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "tests.faults.full_disks"


def run(scenario: str, home: Path, place: str, megabytes: int = 8) -> None:
    """Where this user can have no file system of his own, the limit on files that he can have is tried instead."""
    if way_in() is None and scenario not in ("spool", "memory"):
        scenario = "limited"
    sys.stdout.write(on_a_small_disk(MODULE, scenario, home, home / place, megabytes))


def test_a_script_steps_on_while_the_spools_disk_is_full_and_loses_nothing(home: Path) -> None:
    run("spool", home, ".")


def test_when_memory_is_full_too_pictures_go_first_then_steps_and_all_are_counted(home: Path) -> None:
    run("memory", home, ".")


def test_the_last_that_a_full_disk_takes_of_the_log_is_that_it_is_full(home: Path) -> None:
    run("log", home, "log", megabytes=1)


def test_videos_wait_for_room_and_none_is_half(home: Path) -> None:
    run("videos", home, "videos", megabytes=2)


def test_tables_wait_for_room_and_no_event_is_set_aside(home: Path) -> None:
    run("database", home, "tables", megabytes=2)


def test_a_home_that_is_full_again_and_again_ends_as_one_that_never_was(home: Path) -> None:
    run("whole", home, ".")


@pytest.mark.parametrize("scenario", ["spool", "limited"])
def test_without_a_file_system_of_ones_own_a_limit_on_files_does(
    home: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    monkeypatch.setattr("tests.faults.small_disks.way_in", lambda: None)
    sys.stdout.write(on_a_small_disk(MODULE, scenario, home, home, 8))
