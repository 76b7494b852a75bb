"""A worker process on its pipes, without a kernel: what it does when the other end is slow, silent or gone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest

from plugins.env_runner.child import started
from plugins.env_runner.messages import (
    Began,
    Begin,
    Done,
    Ended,
    Episodes,
    HandBack,
    HandedBack,
    NoMore,
    Pause,
    Ready,
    Resume,
    Spec,
    Stop,
)
from plugins.events import CaptureSettings, EpisodeEnded, EpisodeStarted, Keep, WorkerEnded
from tests.env_runner.runs import until
from tests.env_runner.spooled import spooled

if TYPE_CHECKING:
    from pathlib import Path

    from plugins.env_runner.child import Child
    from plugins.env_runner.messages import FromWorker

pytestmark = pytest.mark.anyio


def begin(home: Path, *, steps: int | None = None, **env_kwargs: Any) -> Begin:
    return Begin(
        python_path=sys.path,
        spec=Spec(
            table="plugins.runner",
            env="Count-v0",
            env_kwargs=env_kwargs,
            imports=["envs"],
            wrappers=[],
            max_episode_steps=None,
            policy={"use": "random"},
            pictures=True,
        ),
        home=str(home),
        session="20260101-000000-test",
        worker=3,
        seed=100,
        eval_every=0,
        steps=steps,
        deadline=None,
        grace_seconds=1.0,
        videos="videos",
        name_prefix="rl-video",
        fps=30.0,
        capture=CaptureSettings(mode="every", every=1),
        keep=Keep(),
        telemetry="all",
        values="small",
        memory_bytes=2**26,
        spool_bytes=2**32,
    )


async def heard_until(child: Child, kind: type[Any]) -> list[FromWorker]:
    """What a worker says, up to the first message of this type."""
    heard: list[FromWorker] = []
    while not heard or not isinstance(heard[-1], kind):
        message = await child.listen()
        assert message is not None, heard
        heard.append(message)
    return heard


async def test_a_worker_says_what_it_does(home: Path) -> None:
    async with started(begin(home, length=5), print) as child:
        child.say(Episodes([4, 7]))
        child.say(NoMore())
        heard = await heard_until(child, Done)
        assert await child.listen() is None
    assert child.end == "exit code 0"
    ready, began, ended, began_again, ended_again, done = heard
    assert (ready, began, began_again, done) == (Ready(), Began(4), Began(7), Done(10))
    assert isinstance(ended, Ended)
    assert isinstance(ended_again, Ended)
    assert (ended.episode, ended.steps, ended_again.episode, ended_again.steps) == (4, 5, 7, 10)
    assert [(each.worker, each.seed) for each in spooled(home, EpisodeStarted)] == [(3, "104"), (3, "107")]


async def test_a_worker_gives_back_the_last_of_what_it_has_not_begun(home: Path) -> None:
    async with started(begin(home, length=10, step_seconds=0.02), print) as child:
        child.say(Episodes([0, 1, 2, 3]))
        await heard_until(child, Began)
        child.say(HandBack(2))
        assert (await heard_until(child, HandedBack))[-1] == HandedBack([3, 2])
        child.say(HandBack(5))
        assert (await heard_until(child, HandedBack))[-1] == HandedBack([1])
        child.say(NoMore())
        assert (await heard_until(child, Done))[-1] == Done(10)


async def test_a_paused_worker_ends_its_episode_and_begins_none(home: Path) -> None:
    async with started(begin(home, length=10, step_seconds=0.005), print) as child:
        child.say(Episodes([0, 1]))
        await heard_until(child, Began)
        child.say(Pause())
        child.say(NoMore())
        await heard_until(child, Ended)
        with anyio.move_on_after(0.5):
            raise AssertionError(await child.listen())
        child.say(Resume())
        assert (await heard_until(child, Began))[-1] == Began(1)
        await heard_until(child, Done)


async def test_a_worker_that_is_told_to_stop_does_so_at_the_next_step(home: Path) -> None:
    async with started(begin(home, length=10**6, step_seconds=0.01), print) as child:
        child.say(Episodes([0, 1]))
        await heard_until(child, Began)
        child.say(Stop())
        (done,) = await heard_until(child, Done)
    (ended,) = spooled(home, EpisodeEnded)
    assert (ended.outcome, Done(ended.steps)) == ("aborted", done)


async def test_a_worker_whose_runner_says_nothing_more_waits_and_one_whose_runner_is_gone_ends(home: Path) -> None:
    async with started(begin(home, length=10**6, step_seconds=0.01), print) as child:
        child.say(Episodes([0]))
        await heard_until(child, Began)
        await until((home / "spool").is_dir)
        stdin = child._process.stdin
        assert stdin is not None
        stdin.close()
        await heard_until(child, Done)
        assert await child.listen() is None
    assert child.end == "exit code 0"
    assert [ended.outcome for ended in spooled(home, EpisodeEnded)] == ["aborted"]
    assert [ended.outcome for ended in spooled(home, WorkerEnded)] == ["finished"]


async def test_a_worker_that_hangs_when_its_runner_is_gone_takes_its_own_children_with_it(home: Path) -> None:
    lines: list[str] = []
    hanging = begin(home, does="hangs", start_child=True)
    async with started(hanging, lines.append) as child:
        child.say(Episodes([0]))
        await until(lambda: "hanging" in lines)
        (grandchild,) = psutil.Process(child.pid).children()
        stdin = child._process.stdin
        assert stdin is not None
        stdin.close()
        await until(lambda: child._process.poll() is not None)
        await until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
    assert child.end == "SIGKILL"


async def test_nobody_listening_does_not_hold_a_worker_up(home: Path) -> None:
    """Its messages for 1,500 episodes are more than a pipe holds."""
    async with started(begin(home, length=1), print) as child:
        child.say(Episodes(list(range(1500))))
        child.say(NoMore())
        await until(lambda: len(spooled(home, WorkerEnded)) == 1, within_seconds=60)
        heard = await heard_until(child, Done)
    assert [message.episode for message in heard if isinstance(message, Began)] == list(range(1500))


async def test_what_an_environment_prints_and_reads_touches_no_pipe_of_ours(home: Path) -> None:
    lines: list[str] = []
    async with started(begin(home, length=2, noisy=True), lines.append) as child:
        child.say(Episodes([0]))
        child.say(NoMore())
        heard = await heard_until(child, Done)
        assert await child.listen() is None
    assert heard[-1] == Done(2)
    assert lines == ["a line on standard output", '{"type":"Done","steps":0}', "standard input has ''"]


async def test_a_worker_that_ran_out_of_its_steps_ends_in_mid_episode(home: Path) -> None:
    async with started(begin(home, length=10, steps=14), print) as child:
        child.say(Episodes([0, 1, 2]))
        assert (await heard_until(child, Done))[-1] == Done(14)
    first, second = spooled(home, EpisodeEnded)
    assert (first.outcome, first.steps, second.outcome, second.steps) == ("terminated", 10, "aborted", 4)


async def test_a_process_that_leaves_its_block_is_gone_with_all_that_it_started(home: Path) -> None:
    async with started(begin(home, length=10**6, step_seconds=0.01, start_child=True), print) as child:
        child.say(Episodes([0]))
        await heard_until(child, Began)
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        assert len(family) == 2
    await until(lambda: not any(member.is_running() for member in family))
