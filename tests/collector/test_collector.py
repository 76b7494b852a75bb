from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from kernel.files import acquire
from kernel.testing import running
from plugins.collector import Collector, CollectorOptions
from plugins.collector.work import OpenWork
from plugins.events import (
    CaptureAsked,
    CaptureHeld,
    CaptureSettings,
    EpisodeEnded,
    EpisodeStarted,
    Keep,
    ProducerSetAside,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    SessionAsked,
    SessionEnded,
    StepRecorded,
    VideoPinned,
    WorkerEnded,
    WorkerStarted,
)
from plugins.recorder.frames import ChunkReader
from plugins.recorder.sessions import claim_worker, join_session, open_session
from plugins.recorder.spool import Control, Producer, append_batch, event_file, event_files, spool_folder

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.event import Event
    from kernel.testing import RunningKernel

pytestmark = pytest.mark.anyio

COLLECTOR: dict[str, Any] = {"collector": (Collector, CollectorOptions(silent_seconds=0.1))}

KILLED_PRODUCER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from plugins.events import CaptureSettings, Keep
from plugins.recorder.recorder import Recorder
from plugins.recorder.sessions import open_session
from plugins.recorder.spool import Producer

home, keep_best = Path(sys.argv[1]), int(sys.argv[2])
open_session(home, "s", "script")
producer = Producer(home, "s")
recorder = Recorder(
    producer, worker=0, env_id="Env-v0", fps=30, video_path=lambda episode: f"videos/{episode}.mp4",
    capture=CaptureSettings(), keep=Keep(best=keep_best),
)
recorder.reset([0.0], {}, seed=1, episode=0)
recorder.capture_frame(np.zeros((16, 16, 3), np.uint8))
for step in range(700):
    recorder.step(0, [0.0], 1.0, False, False, {}, np.full((16, 16, 3), step % 251, np.uint8), 0.001)
assert producer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def started(worker: int = 0) -> WorkerStarted:
    return WorkerStarted(session="s", worker=worker, pid=1, env_id="Env-v0")


def episode_started(episode: int, *, time: float = 100.0) -> EpisodeStarted:
    return EpisodeStarted(
        session="s", worker=0, episode=episode, env_id="Env-v0", seed="1", capture="off", captured=False, time=time
    )


def step(episode: int, number: int, *, reward: float | None = 1.5) -> StepRecorded:
    return StepRecorded(
        session="s", worker=0, episode=episode, step=number, action=0, reward=reward, terminated=False,
        truncated=False, time=100.0 + number, step_seconds=0.001,
    )  # fmt: skip


def episode_ended(episode: int, steps: int) -> EpisodeEnded:
    return EpisodeEnded(
        session="s", worker=0, episode=episode, env_id="Env-v0", total_reward=1.0, steps=steps,
        outcome="terminated", env_steps=steps, seconds=1.0,
    )  # fmt: skip


def dead_producer(home: Path, *batches: list[Event], producer: str = "s-00000000") -> Path:
    """A producer's folder whose lock nobody holds, with one event file."""
    folder = spool_folder(home) / producer
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    nth = 1
    for batch in batches:
        append_batch(event_file(folder, 1), nth, batch)
        nth += len(batch)
    return folder


async def until(condition: Any, seconds: float = 20.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)


async def test_what_a_producer_says_reaches_the_log_once_and_in_order_while_it_lives(home: Path) -> None:
    async with running(home, COLLECTOR) as kernel:
        producer = Producer(home, "s")
        for number in range(500):
            producer.say(VideoPinned(recording=str(number)))
        await until(lambda: len(kernel.records(VideoPinned)) == 500)
        producer.say(VideoPinned(recording="500"))
        await until(lambda: len(kernel.records(VideoPinned)) == 501)
        records = kernel.records(VideoPinned)
        producer.close()
    assert [record.event.recording for record in records] == [str(number) for number in range(501)]
    assert [record.nth for record in records] == list(range(1, 502))
    assert {record.source for record in records} == {producer.id}
    assert not list(spool_folder(home).iterdir())


async def test_a_collector_that_starts_again_repeats_nothing(home: Path) -> None:
    folder = dead_producer(home, [started()], [episode_started(0), step(0, 1)])
    lock = acquire(folder / "lock")  # the producer lives
    assert lock is not None
    async with running(home, COLLECTOR) as kernel:
        await until(lambda: len(kernel.records(StepRecorded)) == 1)
    append_batch(event_file(folder, 1), 4, [step(0, 2), step(0, 3)])
    async with running(home, COLLECTOR) as kernel:
        await until(lambda: len(kernel.records(StepRecorded)) == 3)
        mine = [record for record in kernel.records() if record.source == folder.name]
    lock.release()
    assert [record.nth for record in mine] == [1, 2, 3, 4, 5]


async def test_a_dead_producers_open_episode_is_aborted_and_its_worker_lost(home: Path) -> None:
    dead_producer(home, [started(), episode_started(0)], [step(0, 1), step(0, 2), step(0, 3)])
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (ended,) = kernel.records(EpisodeEnded)
        (worker,) = kernel.records(WorkerEnded)
        mine = [record.nth for record in kernel.records() if record.source == "s-00000000"]
    assert ended.event.outcome == "aborted"
    assert (ended.event.steps, ended.event.total_reward, ended.event.seconds) == (3, 4.5, 3.0)
    assert (worker.event.outcome, worker.event.steps) == ("lost", 3)
    assert mine == list(range(1, len(mine) + 1))
    assert not list(spool_folder(home).iterdir())


async def test_a_torn_batch_of_a_dead_producer_is_cut_at_every_byte(home: Path) -> None:
    whole = dead_producer(home, [started(), episode_started(0), step(0, 1)])
    file = event_file(whole, 1)
    first = file.stat().st_size
    append_batch(file, 4, [step(0, 2)])
    content = file.read_bytes()
    for cut in range(first, len(content)):
        folder = dead_producer(home, producer=f"s-{cut:08}")
        event_file(folder, 1).write_bytes(content[:cut])
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle(60)
        steps = [record.source for record in kernel.records(StepRecorded)]
        ended = [record.source for record in kernel.records(EpisodeEnded)]
    producers = [f"s-{cut:08}" for cut in range(first, len(content))]
    assert sorted(steps) == sorted([*producers, "s-00000000", "s-00000000"])
    assert sorted(ended) == sorted([*producers, "s-00000000"])


async def test_a_batch_that_is_rotten_sets_its_producer_aside_and_the_others_go_on(home: Path) -> None:
    folder = dead_producer(home, [started()], [episode_started(0)], [episode_ended(0, 0)])
    content = bytearray(event_file(folder, 1).read_bytes())
    content[len(content) // 2] ^= 1
    event_file(folder, 1).write_bytes(content)
    dead_producer(home, [VideoPinned(recording="fine")], producer="s-fine0000")
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (aside,) = kernel.records(ProducerSetAside)
        assert kernel.records(VideoPinned)
        assert kernel.records(WorkerStarted)  # what stands before the damage
        assert not kernel.records(EpisodeStarted, EpisodeEnded)
    assert aside.event.producer == "s-00000000"
    assert "events-000001.bin: damaged" in aside.event.reason
    assert event_file(folder, 1).read_bytes() == content


async def test_event_files_go_while_an_episode_that_began_in_them_goes_on(home: Path) -> None:
    """It may go on for days; what is needed to end it in a killed producer's name is remembered."""
    folder = dead_producer(home, [started(), episode_started(0)])
    append_batch(event_file(folder, 2), 3, [step(0, 1)])
    append_batch(event_file(folder, 3), 4, [step(0, 2)])
    lock = acquire(folder / "lock")  # the producer lives
    assert lock is not None
    async with running(home, COLLECTOR) as kernel:
        await until(lambda: len(kernel.records(StepRecorded)) == 2)
        await kernel.settle()
        assert event_files(folder) == [event_file(folder, 3)]
        append_batch(event_file(folder, 4), 5, [step(0, 3)])
        await until(lambda: event_files(folder) == [event_file(folder, 4)])
    lock.release()
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (ended,) = kernel.records(EpisodeEnded)
        (worker,) = kernel.records(WorkerEnded)
        mine = [record.nth for record in kernel.records() if record.source == folder.name]
    assert (ended.event.outcome, ended.event.steps, ended.event.total_reward) == ("aborted", 3, 4.5)
    assert (worker.event.outcome, worker.event.steps) == ("lost", 3)
    assert mine == list(range(1, 8))
    assert not folder.exists()


def a_life() -> list[Event]:
    """A producer's events up to its kill: an episode that ended, and one that did not."""
    return [started(), episode_started(0), step(0, 1), episode_ended(0, 1), episode_started(1), step(1, 1), step(1, 2)]


async def test_collectors_that_are_killed_anywhere_end_a_producers_work_alike(home: Path) -> None:
    """Each event in a file of its own, and a kill before each removal of a file, and behind each half of one."""
    whole = dead_producer(home, a_life())
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        expected = [record.event for record in kernel.records() if record.source == whole.name]
    assert not whole.exists()
    for interrupted in ("write_whole", "unlink"):
        torn = home.with_name(f"torn-{interrupted}")
        folder = dead_producer(torn)
        lock = acquire(folder / "lock")
        assert lock is not None
        for number, event in enumerate(a_life(), 1):
            append_batch(event_file(folder, number), number, [event])
            run = subprocess.run([sys.executable, "-c", DYING_COLLECTOR, str(torn), interrupted], check=False)
            assert run.returncode in {0, -signal.SIGKILL}
            assert (run.returncode == 0) == (number == 1)  # the first file is not removed before there is a second
        lock.release()
        async with running(torn, COLLECTOR) as kernel:
            await kernel.settle()
            mine = [record for record in kernel.records() if record.source == folder.name]
        assert [record.event for record in mine] == expected
        assert [record.nth for record in mine] == list(range(1, len(expected) + 1))
        assert not folder.exists()


DYING_COLLECTOR = """
import os, signal, sys
from pathlib import Path
import anyio
from kernel.testing import running
from plugins.collector import Collector, CollectorOptions, folder

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(home: Path, interrupted: str) -> None:
    if interrupted == "write_whole":
        folder.write_whole = die
    else:
        Path.unlink = die
    async with running(home, {"collector": (Collector, CollectorOptions(silent_seconds=0.05))}) as kernel:
        await kernel.settle()
        os._exit(0)

anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


async def test_what_is_kept_of_a_producer_does_not_grow_with_what_it_said(home: Path) -> None:
    folder = dead_producer(home, [started(), episode_started(0)])
    lock = acquire(folder / "lock")
    assert lock is not None
    async with running(home, COLLECTOR) as kernel:
        for number in range(2, 40):
            append_batch(event_file(folder, number), number + 1, [step(0, number)])
            await kernel.settle()
            assert len(event_files(folder)) == 1
        assert (folder / "collected.json").stat().st_size < 2000
    lock.release()


async def test_what_a_killed_process_left_is_sealed_and_its_session_ended(home: Path) -> None:
    home.mkdir()
    run = subprocess.run([sys.executable, "-c", KILLED_PRODUCER, str(home), "0"], check=False)
    assert run.returncode == -signal.SIGKILL
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (begun,) = kernel.records(RecordingStarted)
        (sealed,) = kernel.records(RecordingSealed)
        (ended,) = kernel.records(EpisodeEnded)
        (session,) = kernel.records(SessionEnded)
        order = [type(record.event).__name__ for record in kernel.records()]
    assert sealed.event.recording == begun.event.recording
    assert (sealed.event.frames, sealed.event.chunks, sealed.event.complete) == (701, 2, False)
    assert sealed.event.total_reward == 700.0
    assert (ended.event.steps, ended.event.outcome) == (700, "aborted")
    assert ended.event.recording == begun.event.recording
    assert (session.event.outcome, session.event.episodes, session.event.steps) == ("lost", 1, 700)
    assert order.index("WorkerEnded") < order.index("SessionEnded")
    assert not (home / "sessions" / "s").exists()
    folder = spool_folder(home) / begun.source / begun.event.recording
    frames = []
    for chunk in sorted(folder.glob("*.chunk")):
        with ChunkReader(chunk) as reader:
            frames += [bytes(frame)[0] for frame in reader]
    assert frames == [0, *(step % 251 for step in range(700))]


async def test_a_crash_while_the_ends_are_written_repeats_nothing(home: Path) -> None:
    """The ends are one batch: it is there whole, or cut and written anew."""
    folder = dead_producer(home, [started(), episode_started(0), step(0, 1)])
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        ends = [record.event for record in kernel.records(EpisodeEnded, WorkerEnded)]
    for cut in (1, 50, None):
        torn = home.with_name(f"torn-{cut}")
        folder = dead_producer(torn, [started(), episode_started(0), step(0, 1)])
        size = event_file(folder, 1).stat().st_size
        append_batch(event_file(folder, 1), 4, ends)
        if cut is not None:
            os.truncate(event_file(folder, 1), size + cut)
        async with running(torn, COLLECTOR) as kernel:
            await kernel.settle()
            assert [record.event for record in kernel.records(EpisodeEnded, WorkerEnded)] == ends


async def test_a_recording_without_a_written_frame_is_discarded(home: Path) -> None:
    begun = RecordingStarted(
        recording="s-00000000-0000", session="s", worker=0, episode=0, env_id="Env-v0", path="x.mp4", fps=30,
        width=16, height=16,
    )  # fmt: skip
    dead_producer(home, [started(), episode_started(0), begun])
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (discarded,) = kernel.records(RecordingDiscarded)
        (ended,) = kernel.records(EpisodeEnded)
    assert "killed" in discarded.event.why
    assert ended.event.outcome == "aborted"


async def test_frames_that_no_event_speaks_of_are_removed_and_others_wait_for_the_encoder(home: Path) -> None:
    begun = RecordingStarted(
        recording="s-00000000-0000", session="s", worker=0, episode=0, env_id="Env-v0", path="x.mp4", fps=30,
        width=16, height=16,
    )  # fmt: skip
    sealed = RecordingSealed(
        recording=begun.recording, session="s", worker=0, first_episode=0, last_episode=0, chunks=1, frames=1
    )
    folder = dead_producer(home, [started(), begun, sealed, episode_started(1)])
    for name in ("s-00000000-0000", "s-00000000-0001"):
        (folder / name).mkdir()
        (folder / name / "00000.part").write_bytes(b"?")
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["s-00000000-0000"]


async def test_a_session_ends_when_its_owner_said_so_and_every_producer_is_collected(home: Path) -> None:
    session = open_session(home, "s", "script")
    producer = Producer(home, "s")
    producer.say(started())
    assert producer.flush()
    async with running(home, COLLECTOR) as kernel:
        session.end("finished")
        await until(lambda: kernel.records(WorkerStarted))
        await anyio.sleep(0.5)
        assert not kernel.records(SessionEnded)  # its producer lives
        producer.say(WorkerEnded(session="s", worker=0, outcome="finished", steps=7, frames_dropped=2))
        producer.close()
        await until(lambda: kernel.records(SessionEnded))
        (ended,) = kernel.records(SessionEnded)
    assert (ended.event.outcome, ended.event.steps, ended.event.frames_dropped) == ("finished", 7, 2)


CHILD = """
import sys, time
from pathlib import Path
from plugins.events import WorkerEnded, WorkerStarted
from plugins.recorder.spool import Producer
home, worker, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
producer = Producer(home, "s")
producer.say(WorkerStarted(session="s", worker=worker, pid=1, env_id="Env-v0"))
if steps:
    producer.say(WorkerEnded(session="s", worker=worker, outcome="finished", steps=steps))
assert producer.flush()
print("said", flush=True)
sys.stdin.readline()
producer.close()
"""
OWNER = """
import sys
from pathlib import Path
from plugins.recorder.sessions import claim_worker, open_session
session = open_session(Path(sys.argv[1]), "s", "script")
assert [claim_worker(Path(sys.argv[1]), "s") for _ in range(3)] == [0, 1, 2]
print("said", flush=True)
sys.stdin.readline()
"""


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "said\n"
    return child


@pytest.mark.parametrize("restart", [False, True])
async def test_a_scripts_session_is_lost_with_its_owner_and_ends_behind_its_last_child(
    home: Path, *, restart: bool
) -> None:
    """One child ends before a collector is killed, one is killed with the owner, and one goes on for a while."""
    home.mkdir()
    owner = process(OWNER, home)
    early, killed, late = process(CHILD, home, 0, 10), process(CHILD, home, 1, 0), process(CHILD, home, 2, 30)
    early.communicate("\n")
    async with running(home, COLLECTOR) as kernel:
        await until(lambda: len(list(spool_folder(home).iterdir())) == 2)
        if not restart:
            await children_leave(kernel, home, owner, killed, late)
    if restart:
        async with running(home, COLLECTOR) as kernel:
            await children_leave(kernel, home, owner, killed, late)
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (ended,) = kernel.records(SessionEnded)
        workers = kernel.records(WorkerEnded)
    assert (ended.event.outcome, ended.event.steps) == ("lost", 40)
    assert sorted((each.event.worker, each.event.outcome) for each in workers) == [
        (0, "finished"),
        (1, "lost"),
        (2, "finished"),
    ]
    assert all(each.seq < ended.seq for each in workers)
    assert not [path for path in (home / "sessions").iterdir() if not path.name.endswith(".ended")]


async def children_leave(
    kernel: RunningKernel, home: Path, owner: subprocess.Popen[str], *children: subprocess.Popen[str]
) -> None:
    killed, late = children
    for each in (owner, killed):
        each.kill()
        each.communicate()
    await until(lambda: any(each.event.outcome == "lost" for each in kernel.records(WorkerEnded)))
    await anyio.sleep(0.5)
    assert not kernel.records(SessionEnded)  # a child lives
    late.communicate("\n")
    await until(lambda: kernel.records(SessionEnded))


async def test_a_session_that_began_after_the_collector_costs_no_look_at_the_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log may have gigabytes, and nobody wants to wait for them at the end of each script."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the log was read")

    monkeypatch.setattr(Collector, "read", refuse)
    early = open_session(home, "s", "script")
    dead_producer(home, [started(), episode_started(0), *(step(0, number) for number in range(1, 4))])
    async with running(home, COLLECTOR) as kernel:
        late = open_session(home, "t", "script")
        producer = Producer(home, "t")
        agents = [msgspec.structs.replace(episode_ended(4, 5), session="t", agent=agent) for agent in ("a", "b")]
        for event in (*agents, msgspec.structs.replace(episode_ended(5, 5), session="t")):
            producer.say(event)
        producer.say(WorkerEnded(session="t", worker=0, outcome="finished", steps=10, steps_dropped=3))
        producer.close()
        early.end("finished")
        late.end("failed")
        await kernel.settle()
        await until(lambda: len(kernel.records(SessionEnded)) == 2)
        first, second = sorted((each.event for each in kernel.records(SessionEnded)), key=lambda each: each.session)
    assert (first.outcome, first.episodes, first.steps) == ("finished", 1, 3)
    assert (second.outcome, second.episodes, second.steps, second.steps_dropped) == ("failed", 2, 10, 3)


async def test_the_folder_of_a_session_goes_though_a_child_puts_something_into_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(home, "s", "script")
    rmtree = shutil.rmtree

    def rmtree_with_a_late_child(folder: Path) -> None:
        with pytest.raises(FileNotFoundError):
            claim_worker(home, "s")
        rmtree(folder)

    async with running(home, COLLECTOR) as kernel:
        monkeypatch.setattr("plugins.collector.sessions.shutil.rmtree", rmtree_with_a_late_child)
        session.end("finished")
        await until(lambda: not (home / "sessions" / "s").exists())
        await kernel.settle()
        assert not kernel.records(SessionEnded), "nothing was ever said of it"
    assert join_session(home, "s")[0] == "s.2"  # its name is not used again


async def test_a_session_whose_end_was_logged_before_a_crash_does_not_end_twice(home: Path) -> None:
    open_session(home, "s", "script").end("stopped")
    keep = home.with_name("kept")
    (home / "sessions" / "s").rename(keep)
    async with running(home, COLLECTOR) as kernel:
        await kernel.publish(
            SessionEnded(session="s", outcome="stopped", episodes=0, steps=0, recordings=0),
        )
    keep.rename(home / "sessions" / "s")
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        assert len(kernel.records(SessionEnded)) == 1
    assert not (home / "sessions" / "s").exists()


async def test_what_users_ask_for_reaches_running_producers_and_later_ones(home: Path) -> None:
    async with running(home, COLLECTOR) as kernel:
        producer = Producer(home, "s")
        producer.say(started())
        other = Producer(home, "t")
        other.say(WorkerStarted(session="t", worker=0, pid=1, env_id="Env-v0"))
        await until(lambda: len(kernel.records(WorkerStarted)) == 2)
        wanted = CaptureSettings(mode="every", every=7)
        await kernel.publish(CaptureAsked(settings=wanted), CaptureHeld(held=True, free_bytes=1, min_free_bytes=2))
        await kernel.publish(CaptureAsked(settings=CaptureSettings(mode="off"), session="t"))
        await kernel.publish(CaptureAsked(settings=wanted, once=True, session="t"))
        await kernel.settle()
        for_all, for_t, once = kernel.records(CaptureAsked)
        common = read_control(home / "capture.json")
        assert common == Control(settings=wanted, asked=for_all.seq, held=True)
        assert read_control(spool_folder(home) / producer.id / "control.json") == common
        assert read_control(spool_folder(home) / other.id / "control.json") == Control(
            settings=CaptureSettings(mode="off"), asked=for_t.seq, once=once.seq, held=True
        )
        producer.close()
        other.close()


async def test_a_producer_that_is_silent_but_alive_is_left_alone(home: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from plugins.events import WorkerStarted
        from plugins.recorder.spool import Producer
        producer = Producer(Path(sys.argv[1]), "s")
        producer.say(WorkerStarted(session="s", worker=0, pid=1, env_id="Env-v0"))
        producer.flush()
        print("said", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(home)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "said\n"
        async with running(home, COLLECTOR) as kernel:
            await until(lambda: kernel.records(WorkerStarted))
            await anyio.sleep(1.0)
            assert not kernel.records(WorkerEnded)
            process.kill()
            before = time.monotonic()
            await until(lambda: kernel.records(WorkerEnded))
            assert time.monotonic() - before < 10
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_the_killed_producers_recording_waits_for_no_policy(home: Path) -> None:
    """With a keep policy the killed episode is sealed all the same: a crash is worth seeing."""
    home.mkdir()
    subprocess.run([sys.executable, "-c", KILLED_PRODUCER, str(home), "3"], check=False)
    async with running(home, COLLECTOR) as kernel:
        await kernel.settle()
        (sealed,) = kernel.records(RecordingSealed)
    assert sealed.event.kept_for == []
    plan = msgspec.json.decode(next(spool_folder(home).glob("*/*/recording.json")).read_bytes())
    assert msgspec.convert(plan["keep"], Keep) == Keep(best=3)


async def test_who_watches_is_told_to_the_producers_of_that_session_until_the_time_is_over(home: Path) -> None:
    producer, other = Producer(home, "s"), Producer(home, "t")
    async with running(home, COLLECTOR) as kernel:
        for each in (producer, other):
            each.say(started())
            assert each.flush()
        await kernel.settle()
        file = spool_folder(home) / producer.id / "control.json"
        began = time.time()
        await kernel.publish(SessionAsked(session="s", action="watch", by="ann", workers=[0], fps=5.0, seconds=3600.0))
        await kernel.publish(SessionAsked(session="s", action="watch", by="bob"))
        await kernel.publish(SessionAsked(session="s", action="pause", by="bob"))
        await kernel.settle()
        watching = read_control(file).watching
        assert watching.keys() == {"ann", "bob"}
        assert (watching["ann"].workers, watching["ann"].fps) == ([0], 5.0)
        assert began <= watching["ann"].until <= time.time() + 60.0, "a minute at most"
        assert not (spool_folder(home) / other.id / "control.json").exists()
        assert not (home / "capture.json").exists(), "later sessions are not watched"
        await kernel.publish(SessionAsked(session="s", action="watch", by="eve", seconds=0.0))
        await kernel.publish(SessionAsked(session="s", action="unwatch", by="ann"))
        await kernel.settle()
        assert read_control(file).watching.keys() == {"bob"}
        for each in (producer, other):
            each.close()


def read_control(path: Path) -> Control:
    return msgspec.json.decode(path.read_bytes(), type=Control)


async def test_a_folder_that_a_kill_left_half_built_is_removed_and_one_in_the_making_is_not(home: Path) -> None:
    for folder in ("spool/.s-dead0000.tmp", "sessions/.dead.tmp", "sessions/.s.leaving.tmp", "spool/.s-new00000.tmp"):
        (home / folder).mkdir(parents=True)
        (home / folder / "lock").touch()
    lock = acquire(home / "spool/.s-new00000.tmp/lock")
    assert lock is not None
    async with running(home, COLLECTOR):
        pass
    lock.release()
    assert [path.name for path in spool_folder(home).iterdir()] == [".s-new00000.tmp"]
    assert not list((home / "sessions").iterdir())


def test_agents_that_were_named_and_never_stepped_end_as_aborted_too() -> None:
    work = OpenWork()
    started = EpisodeStarted(
        session="s",
        worker=0,
        episode=3,
        env_id="Game",
        seed=None,
        capture="off",
        captured=False,
        agents=["north", "south"],
    )
    step = StepRecorded(
        session="s", worker=0, agent="south", episode=3, step=1, action=0, reward=2.0,
        terminated=False, truncated=False, time=1.0, step_seconds=0.0,
    )  # fmt: skip
    for event in (started, step):
        work.follow(event)
    ends = [(end.agent, end.steps, end.total_reward) for end in work.ends({}) if isinstance(end, EpisodeEnded)]
    assert ends == [("north", 0, None), ("south", 1, 2.0)]
