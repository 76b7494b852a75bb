"""One ffmpeg: started, fed, and killed when it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from plugins.video.feed import Child, Failed, Hung, run
from plugins.video.priority import STARVED_SECONDS, STARVED_SHARE, Fed, Priority, Starved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.conftest import Begun

FRAME = bytes(300_000)
SLEEP = f"sleep 9{os.getpid()}"
"""Known among all processes, also those of other tests that run at the same time."""


@pytest.fixture(autouse=True)
def no_sleeper_is_left(nothing_is_left: None) -> Iterator[None]:
    """Nor one that has no parent any more. What is killed takes a moment to go."""
    yield
    _until(lambda: SLEEP.split() not in [each.info["cmdline"] for each in psutil.process_iter(["cmdline"])])


def test_frames_arrive_whole_and_in_order(tmp_path: Path) -> None:
    frames = [bytes([index]) * 100_003 for index in range(50)]
    run(Child(), _shell("cat > all"), tmp_path, frames, stall_seconds=15)
    assert (tmp_path / "all").read_bytes() == b"".join(frames)


def test_its_last_words_are_handed_on(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="exit code 7: no such luck"):
        run(Child(), _shell("echo no such luck >&2; exit 7"), tmp_path, [FRAME] * 20, stall_seconds=15)


def test_much_talk_neither_blocks_it_nor_fills_the_memory(tmp_path: Path) -> None:
    talk = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2"
    words = run(Child(), _shell(talk), tmp_path, None, stall_seconds=15)
    assert words.endswith("end")
    assert len(words) <= 1 << 16


def test_talking_is_no_progress(tmp_path: Path) -> None:
    with pytest.raises(Hung):
        run(Child(), _shell("yes waiting >&2"), tmp_path, _endless(), stall_seconds=0.3)


def test_one_that_stops_reading_has_failed_even_if_it_says_otherwise(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="stopped reading"):
        run(Child(), _shell("head -c 1000 > /dev/null"), tmp_path, [FRAME] * 20, stall_seconds=15)


def test_one_that_reads_nothing_is_killed_with_all_its_children(tmp_path: Path) -> None:
    with pytest.raises(Hung, match=r"no progress for 0\.3 s"):
        run(Child(), _shell(f"{SLEEP} & {SLEEP}"), tmp_path, _endless(), stall_seconds=0.3)


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with pytest.raises(Hung):
        run(Child(), _shell(f"cat > /dev/null; {SLEEP}"), tmp_path, [FRAME], stall_seconds=0.3)
    with pytest.raises(Hung):
        run(Child(), _shell(f"exec 2>&-; {SLEEP}"), tmp_path, None, stall_seconds=0.3)


def test_a_slow_one_is_not_taken_for_a_hung_one(tmp_path: Path) -> None:
    slow = "for _ in 1 2 3 4 5 6 7 8; do head -c 300000 > /dev/null; sleep 0.15; done; cat > /dev/null"
    run(Child(), _shell(slow), tmp_path, [FRAME] * 12, stall_seconds=0.8)


def test_what_the_frames_raise_comes_through_and_leaves_nothing_running(tmp_path: Path) -> None:
    def frames() -> Iterator[bytes]:
        yield FRAME
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        run(Child(), _shell("cat > /dev/null"), tmp_path, frames(), stall_seconds=15)


def test_it_can_be_called_off_from_another_thread(tmp_path: Path) -> None:
    child = Child()
    threading.Timer(0.2, child.kill).start()
    with pytest.raises(Failed, match="SIGKILL"):
        run(child, _shell(SLEEP), tmp_path, _endless(), stall_seconds=60)
    with pytest.raises(Failed, match="called off"):
        run(child, _shell("true"), tmp_path, None, stall_seconds=60)


def test_it_runs_at_nice_10_in_a_process_group_of_its_own(tmp_path: Path) -> None:
    script = "import os, time; time.sleep(0.2); print(os.getpriority(os.PRIO_PROCESS, 0), os.getpgrp() == os.getpid())"
    run(Child(), _shell(f"exec {sys.executable} -c '{script}' > said"), tmp_path, None, stall_seconds=15)
    nice = max(10, os.getpriority(os.PRIO_PROCESS, 0))
    assert (tmp_path / "said").read_text().split() == [str(nice), "True"]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """None starves: other tests may keep all cores busy for longer than that takes."""
    monkeypatch.setattr("plugins.video.priority.STARVED_SECONDS", 3600.0)


@pytest.mark.usefixtures("patience")
def test_fed_it_runs_in_the_idle_class_where_a_pool_says_so(tmp_path: Path) -> None:
    script = "import os, sys; sys.stdin.buffer.read(); print(os.sched_getscheduler(0))"
    for priority, fed, expected in (
        (Priority(), True, os.SCHED_IDLE),
        (Priority(), False, os.SCHED_OTHER),
        (_nice(), True, os.SCHED_OTHER),
    ):
        frames = [FRAME] * 20 if fed else None
        run(Child(priority), _shell(f"exec {sys.executable} -c '{script}' > said"), tmp_path, frames, stall_seconds=60)
        assert (tmp_path / "said").read_text() == f"{expected}\n"


@pytest.fixture
def stepper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that steps all the time, on one core of at least two."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        assert os.environ.get("CI") != "true", "CI has two cores"
        pytest.skip("takes two cores")
    busy = f"import os; os.sched_setaffinity(0, {{{max(allowed)}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "nice"])
def test_it_stays_off_the_cores_where_somebody_steps(
    tmp_path: Path, stepper: subprocess.Popen[bytes], *, idle: bool
) -> None:
    allowed = os.sched_getaffinity(0)
    script = "import os, sys; sys.stdin.buffer.read(); print(os.sched_getaffinity(0))"
    fed_on = []

    def frames() -> Iterator[bytes]:
        for _ in range(20):
            fed_on.append(os.sched_getaffinity(0))
            yield FRAME

    arguments = _shell(f"exec {sys.executable} -c '{script}' > said")
    # For a moment it may not run, where all cores are busy: then it is in nobody's way just now.
    _until(lambda: Priority(lambda: [stepper.pid]).cores() == allowed - {max(allowed)})
    priority = Priority(lambda: [stepper.pid]) if idle else _nice(lambda: [stepper.pid])
    _until(lambda: _said(tmp_path, arguments, frames(), priority) == str(allowed - {max(allowed)}))
    assert allowed - {max(allowed)} in fed_on, "who feeds it, too"
    assert os.sched_getaffinity(0) == allowed
    assert _said(tmp_path, arguments, frames(), Priority() if idle else _nice()) == str(allowed)
    stepper.kill()
    stepper.wait()
    assert Priority(lambda: [stepper.pid]).cores() == allowed, "it is gone"


@pytest.mark.usefixtures("patience")
def test_it_takes_the_core_of_one_who_steps_no_more(tmp_path: Path, stepper: subprocess.Popen[bytes]) -> None:
    allowed = os.sched_getaffinity(0)
    script = "import os, sys\nwhile sys.stdin.buffer.read(1000000): pass\nprint(os.sched_getaffinity(0))"
    (tmp_path / "slow.py").write_text(script)
    priority = Priority(lambda: [stepper.pid])

    def frames() -> Iterator[bytes]:
        for number in range(10_000):
            if number == 20:
                stepper.kill()
                stepper.wait()
            if number > 20 and os.sched_getaffinity(0) == allowed:
                return
            yield FRAME

    _until(lambda: priority.cores() != allowed)
    arguments = _shell(f"exec {sys.executable} slow.py > said")
    with ThreadPoolExecutor(1) as feeders:  # as in a pool: what the first thread may run on is what all may
        feeders.submit(run, Child(priority), arguments, tmp_path, frames(), stall_seconds=60).result()
    assert (tmp_path / "said").read_text() == f"{allowed}\n"


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _said(folder: Path, arguments: list[str], frames: Iterator[bytes], priority: Priority) -> str:
    run(Child(priority), arguments, folder, frames, stall_seconds=60)
    return (folder / "said").read_text().strip()


def test_one_that_starves_in_the_idle_class_is_ended_and_the_next_runs_at_nice_10(tmp_path: Path) -> None:
    """Stopped, it is given no more of the processor than on a machine whose cores are all busy."""
    priority = Priority()
    with pytest.raises(Starved):
        run(Child(priority), _shell("kill -STOP $$"), tmp_path, _endless(), stall_seconds=60)
    assert not priority.idle


def test_in_the_idle_class_to_hang_is_to_starve_and_to_hang_comes_after_that(tmp_path: Path) -> None:
    """A machine whose cores are all busy lets the soundest encoder stand still there."""
    priority = Priority()
    with pytest.raises(Starved):
        run(Child(priority), _shell("kill -STOP $$"), tmp_path, _endless(), stall_seconds=0.3)
    with pytest.raises(Hung):
        run(Child(priority), _shell("kill -STOP $$"), tmp_path, _endless(), stall_seconds=0.3)


def test_it_counts_as_starved_by_the_processor_time_that_it_was_given_while_its_input_waited() -> None:
    priority = Priority()
    encoder = Fed(os.getpid(), priority, priority.cores(), idle=True)
    _work(STARVED_SECONDS * STARVED_SHARE * 1.5)
    encoder.waited(STARVED_SECONDS)
    assert priority.idle
    encoder.waited(STARVED_SECONDS / 2)
    with pytest.raises(Starved):
        encoder.waited(STARVED_SECONDS / 2)


def test_those_who_have_one_core_between_them_starve_on_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.video.priority.LOOK_SECONDS", 3600.0)  # they stay there
    priority = Priority()
    with Fed(os.getpid(), priority, {0}, idle=True) as one, Fed(os.getpid(), priority, {0}, idle=True) as other:
        _work(STARVED_SECONDS * STARVED_SHARE * 0.75)
        one.waited(STARVED_SECONDS)
        other.waited(STARVED_SECONDS)
    assert priority.idle
    with Fed(os.getpid(), priority, {0}, idle=True) as alone:
        _work(STARVED_SECONDS * STARVED_SHARE * 0.75)
        with pytest.raises(Starved):
            alone.waited(STARVED_SECONDS)


def _work(seconds: float) -> None:
    """Take so much of the processor's time."""
    enough = time.process_time() + seconds
    while time.process_time() < enough:
        pass


def _nice(steppers: Callable[[], Iterable[int]] = tuple) -> Priority:
    priority = Priority(steppers)
    priority.prefer_nice()
    return priority


def test_a_pause_is_survived(tmp_path: Path, begun: Begun) -> None:
    def pause(group: int) -> None:
        os.killpg(group, signal.SIGSTOP)
        time.sleep(0.5)
        os.killpg(group, signal.SIGCONT)

    def frames() -> Iterator[bytes]:
        yield FRAME
        (process,) = (each for each in begun() if each.ppid() == os.getpid())
        threading.Thread(target=pause, args=(process.pid,)).start()
        for _ in range(30):
            yield FRAME

    run(Child(), _shell("cat > all"), tmp_path, frames(), stall_seconds=5)
    assert (tmp_path / "all").stat().st_size == 31 * len(FRAME)


def _shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def _endless() -> Iterator[bytes]:
    while True:
        yield FRAME
