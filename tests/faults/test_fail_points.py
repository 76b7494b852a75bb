"""A process that ends before or after any step that changes the disk, and again in its recovery, loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from kernel.fail_points import EXIT_CODE
from kernel.log import read
from plugins.check_home import look
from plugins.events import StepRecorded, VideoFailed
from tests.end_to_end.homes import write_config
from tests.faults.driver import Salvaged
from tests.faults.lives import Recorded, Served
from tests.faults.points import fail_points, silent_changes
from tests.faults.scenarios import FEW, SCENARIOS, clear, elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.driver import Driver, End, Life
    from tests.faults.scenarios import Scenario

POINTS = fail_points()

REACHED_IN = {
    "spool.recording": "two films",
    "spool.part": "two films",
    "spool.frames": "two films",
    "spool.chunk": "two films",
    "spool.append": "a dead producer",
    "chunk.": "two films",
    "encoder.": "two films",
    "catalogue.": "two films",
    "encoder.segment": "a long film",
    "encoder.join": "a long film",
    "log.roll": "a log of segments",
    "log.seal": "a log of segments",
    "log.trim": "a log that is trimmed",
    "log.repair": "a torn log",
    "log.salvage": "a damaged log",
    "collector.tail": "a dead producer",
    "collector.unspoken": "a dead producer",
    "collector.ends": "a dead producer",
    "part.": "a dead producer",
    "pruner.": "limits",
    "pruner.remember": "telemetry",
    "catalogue.remove": "limits",
    "pruner.folder": "a last video is deleted",
    "collector.control": "wishes",
    "encoder.displaced": "one name for two",
    "encoder.withdraw": "one name for two",
    "encoder.target": "a pinned video in the way",
    "encoder.keep": "damaged frames",
    "encoder.keep.folder_made": "damaged frames without room",
    "encoder.keep.made_room": "failures make room",
    "files.half": "leftovers",
    "log.seal.removed": "leftovers",
    "session.mark.removed": "leftovers",
    "collector.building": "leftovers",
    "encoder.leftover": "leftovers",
    "encoder.attempt": "leftovers",
    "encoder.hidden": "leftovers",
    "encoder.segment.removed": "a join that fails",
    "encoder.copy": "another file system",
    "recorder.life": "a recorder process",
}
"""By the beginning of a point's name, the longest that fits, where a life comes to it; else in `telemetry`."""

SILENT = {
    ("kernel/checked.py", "write_checked"): "one write_whole, whose own points are there",
    ("kernel/log.py", "_keep_beside"): "renames the last first: what a kill leaves of it, the next start finds",
    ("kernel/salvage.py", "_as_sealed"): "two write_wholes; a kill between them leaves what the next salvage mends",
    ("plugins/encoder_pool/jobs.py", "_remove_tree"): "between encoder.leave.renamed and .after",
    ("kernel/checks.py", "removal"): "a repair of check-home: one unlink",
    ("kernel/checks.py", "remove"): "the same",
    ("kernel/cli.py", "new"): "a plugin's file is a user's, outside of any home",
    (
        "kernel/files.py",
        "has_room",
    ): "a trial in a folder that goes as a whole",
    ("kernel/files.py", "reserve"): "holds room and says nothing; the next start holds it anew",
    ("kernel/files.py", "note"): "says whether it makes way, and means nothing when its process is gone",
    ("kernel/log.py", "_home_id"): "one write_whole, whose own points are there",
    ("kernel/log.py", "lock_home"): "makes the home's folder",
    ("kernel/log.py", "refill_reserve"): "holds room, as files.reserve",
    ("kernel/log.py", "release_reserve"): "lets it go, and the next start holds it anew",
    ("kernel/log.py", "_undo"): "takes a write back that failed; a kill before it leaves a torn tail",
    ("kernel/runtime.py", "_take_home"): "removes `wanted`, a lock's file that means nothing unlocked",
    ("plugins/collector/collector.py", "lifespan"): "makes the spool's folder",
    ("plugins/encoder_pool/handover.py", "discard"): "what it removes the next start would, too: attempts",
    ("plugins/encoder_pool/making.py", "_attempt"): "the same",
    ("plugins/encoder_pool/making.py", "_join"): "writes its listing, an attempt",
    ("plugins/recorder/claims.py", "claim"): "makes the folder of locks",
    ("plugins/recorder/filming.py", "_load"): "makes a user's folder of videos, which upstream does",
    ("plugins/recorder/frames.py", "append"): "between spool.events.before and .after, and the like",
    ("plugins/recorder/home.py", "_is_mine"): "a look at what a network does with a file's owner",
    ("plugins/recorder/home.py", "_make"): "makes the home's folder",
    ("plugins/recorder/home.py", "_refuse_without_locks"): "makes a lock's file",
    ("plugins/recorder/home.py", "prepare_home"): "writes .gitignore, which may be missing",
    ("plugins/recorder/live.py", "clear_moments"): "pictures of the moment, which go with the producer's folder",
    ("plugins/recorder/live.py", "write_moments"): "the same",
    ("plugins/recorder/process.py", "_detach"): "writes to a pipe",
    ("plugins/recorder/process.py", "start"): "begins recorder.log anew, which may be lost",
    ("plugins/recorder/sb3.py", "__init__"): "makes a user's folder of videos, which upstream does",
    ("plugins/recorder_process/life.py", "_say"): "begins recorder.log anew, which may be lost",
    ("plugins/sqlite_sink/check.py", "_rebuilt"): "a repair of check-home: what is not finished is found wrong again",
    ("plugins/sqlite_sink/check.py", "replace"): "the same",
    ("plugins/sqlite_sink/sink.py", "lifespan"): "makes the database's folder",
}
"""Functions that change the disk without a fail point of their own, and why they may."""


RECOVERY: tuple[Life, ...] = (Served(encoder=FEW),)


@pytest.fixture
def other() -> Iterator[Path]:
    """A folder on another file system."""
    folder = elsewhere()
    yield folder
    clear(folder)


def test_no_step_that_changes_the_disk_is_without_a_fail_point() -> None:
    assert silent_changes() == set(SILENT), "put a fail point behind the step, and one before the first"


@pytest.mark.parametrize("point", POINTS)
def test_an_end_at_any_point_and_again_while_it_is_put_right_loses_nothing(
    point: str, driver: Driver, home: Path, other: Path
) -> None:
    scenario = SCENARIOS[scenario_of(point)]
    story = Story(driver, scenario, home, other)
    assert story.live_until_killed(point), f"no life comes to {point}: see REACHED_IN"
    story.recover(f"{point},{following(point)}")
    story.finish()


def test_every_occurrence_of_every_point_and_every_point_of_the_recovery(
    driver: Driver, tmp_path: Path, other: Path, request: pytest.FixtureRequest
) -> None:
    """With --every-moment; else for one scenario only."""
    every = request.config.getoption("--every-moment")
    kills = 0
    for name in SCENARIOS if every else ["a recorder process"]:
        scenario = SCENARIOS[name]
        counts = Story(driver, scenario, tmp_path / name / "whole", other).count_points()
        for point, times in counts.items():
            for number in range(1, times + 1):
                home = tmp_path / name / f"{point}-{number}"
                story = Story(driver, scenario, home, other)
                if not story.live_until_killed(f"{point}#{number}"):
                    continue  # the second time, it has not come there so often
                again = 1
                while story.recover(f"*#{again}"):
                    again += 7 if every else 50
                    kills += 1
                story.finish()
                kills += 1
    assert kills > 20


def test_the_variable_ends_a_real_kernel_and_the_next_one_goes_on(tmp_path: Path) -> None:
    config = write_config(tmp_path, 'env = "CartPole-v1"\nepisodes = 2\n[plugins.runner.capture]\noff = true')
    command = [sys.executable, "-m", "kernel", str(config)]
    environment = {**os.environ, "STEPREEL_FAIL_AT": "collector.events.removed"}
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == EXIT_CODE
    assert "ended at the fail point collector.events.removed" in died.stderr
    went_on = subprocess.run(command, capture_output=True, text=True, check=False)
    assert went_on.returncode == 0, went_on.stderr
    assert look(tmp_path / "home") == []


# ---------------------------------------------------------------------------------------------------------------------


def scenario_of(point: str) -> str:
    """Where a point is come to."""
    fitting = [beginning for beginning in REACHED_IN if point.startswith(beginning)]
    return REACHED_IN[max(fitting, key=len)] if fitting else "telemetry"


def following(point: str) -> str:
    """The next point in the code."""
    names = list(POINTS)
    return names[(names.index(point) + 1) % len(names)]


class Story:
    """A scenario on one home, with what must be there in the end."""

    def __init__(self, driver: Driver, scenario: Scenario, home: Path, other: Path) -> None:
        self.driver = driver
        self.scenario = scenario
        self.home = home
        self.other = other
        home.mkdir(parents=True)
        self.steps = list(scenario.steps)
        self.whole: list[Recorded] = []
        """Producers that have ended by themselves."""

    def live_until_killed(self, fail_at: str) -> bool:
        """Go on with the lives until one was killed."""
        while self.steps:
            end = self._next(fail_at)
            if end is not None and end.killed:
                return True
        return False

    def count_points(self) -> dict[str, int]:
        """How often each point is come to."""
        counts: dict[str, int] = {}
        while self.steps:
            end = self._next("", list_points=True)
            for point in end.points if end is not None else ():
                counts[point] = counts.get(point, 0) + 1
        return counts

    def recover(self, fail_at: str) -> bool:
        """Put right what was left, as a user would; whether that was killed, too."""
        lives = (Salvaged(), *RECOVERY) if self.scenario.damaged_log and (self.home / "log").exists() else RECOVERY
        return any(self.driver.live(self.home, life, fail_at).killed for life in lives)

    def finish(self) -> None:
        """Put right what is left, go on to the end of the scenario, and look at everything."""
        self.recover("")
        while self.steps:
            self._next("")
        self.recover("")
        assert look(self.home) == []
        assert not list((self.home / "spool").iterdir()), "something is left in the spool"
        left = [path.name for path in (self.home / "sessions").glob("*") if not path.name.endswith(".ended")]
        assert not left, "a session is left open"
        if not self.scenario.damaged_log:
            self._check_steps()
        if not self.scenario.failures:
            assert not list(read(self.home, VideoFailed))

    def _check_steps(self) -> None:
        """All steps of those who ended by themselves; of those who were killed, all before the last that is there."""
        steps: dict[str, list[tuple[int, int]]] = {}
        for record in read(self.home, StepRecorded):
            steps.setdefault(record.event.session, []).append((record.event.episode, record.event.step))
        for about in self.whole:
            all_steps = [(e, s) for e, length in enumerate(about.lengths) for s in range(1, length + 1)]
            first = all_steps.index(steps[about.session][0]) if self._is_trimmed() else 0
            assert steps.get(about.session, []) == all_steps[first:]
        for session, told in steps.items():
            if session not in {about.session for about in self.whole} and not self._is_trimmed():
                (lengths,) = {
                    life.lengths
                    for life in self.scenario.steps
                    if isinstance(life, Recorded) and life.session == session
                }
                all_steps = [(e, s) for e, length in enumerate(lengths) for s in range(1, length + 1)]
                assert told == all_steps[: len(told)]

    def _is_trimmed(self) -> bool:
        return (self.home / "log" / "trimmed.json").exists()

    def _next(self, fail_at: str, *, list_points: bool = False) -> End | None:
        step = self.steps.pop(0)
        life: Life | None = step(self.home) if callable(step) else step
        if life is None:
            return None
        if isinstance(life, Recorded):
            life = msgspec.structs.replace(life, path=life.path.replace("ELSEWHERE", str(self.other)))
        end = self.driver.live(self.home, life, fail_at, list_points=list_points)
        if isinstance(life, Recorded) and not end.killed:
            self.whole.append(life)
        return end
