from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest

from kernel.event import PluginState
from kernel.runtime import Outcome
from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    RecordingSealed,
    SessionAsked,
    SessionEnded,
    SessionStarted,
    StepRecorded,
    WorkerEnded,
    WorkerFailed,
    WorkerStarted,
)
from tests.env_runner.runs import session, the_end, until, whole_session
from tests.env_runner.spooled import spooled

if TYPE_CHECKING:
    from kernel.testing import RunningKernel
    from tests.conftest import Begun

pytestmark = pytest.mark.anyio


def events(kernel: RunningKernel, kind: type[Any]) -> list[Any]:
    return [record.event for record in kernel.records(kind)]


async def test_a_session_is_announced_and_ends_by_itself_after_its_episodes(home: Path) -> None:
    kernel = await whole_session(
        home, env="CartPole-v1", **{"import": []}, workers=2, episodes=9, seed=5, label="first", tags=["a", "b"]
    )
    assert kernel.outcome == Outcome.drained
    (started,) = events(kernel, SessionStarted)
    assert (started.env_id, started.workers, started.seed) == ("CartPole-v1", 2, "5")
    assert (started.label, started.tags, started.configuration["episodes"]) == ("first", ["a", "b"], 9)
    assert (started.observation_space.kind, started.observation_space.shape) == ("Box", [4])
    assert started.render_fps == 50
    assert {"python", "gymnasium", "numpy"} <= set(started.versions)
    assert kernel.records(SessionStarted)[0].seq < kernel.records(WorkerStarted)[0].seq
    ended = events(kernel, EpisodeEnded)
    assert sorted(episode.episode for episode in ended) == list(range(9))
    assert {episode.outcome for episode in ended} <= {"terminated", "truncated"}
    (end,) = events(kernel, SessionEnded)
    assert (end.outcome, end.episodes, end.steps) == ("finished", 9, sum(episode.steps for episode in ended))
    assert list((home / "sessions").iterdir()) == []


async def test_an_episode_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    courses = []
    for workers in (1, 3):
        kernel = await whole_session(
            tmp_path / f"home{workers}", env="CartPole-v1", **{"import": []}, workers=workers, episodes=8, seed=40
        )
        seeds = {episode.episode: episode.seed for episode in events(kernel, EpisodeStarted)}
        assert seeds == {episode: str(40 + episode) for episode in range(8)}
        courses.append(
            {
                (step.episode, step.step): (step.action, step.reward, step.observation)
                for step in events(kernel, StepRecorded)
            }
        )
    assert courses[0] == courses[1]


async def test_a_seed_that_nobody_set_is_drawn_and_recorded(home: Path) -> None:
    kernel = await whole_session(home, episodes=2, seed=None)
    (started,) = events(kernel, SessionStarted)
    seeds = [int(episode.seed) for episode in events(kernel, EpisodeStarted)]
    assert seeds == [int(started.seed), int(started.seed) + 1]


async def test_a_budget_of_steps_is_kept_to_the_step_and_cuts_the_last_episodes(home: Path) -> None:
    kernel = await whole_session(home, steps=107, workers=3, env_kwargs={"length": 10})
    by_worker = Counter(step.worker for step in events(kernel, StepRecorded))
    assert by_worker == {0: 36, 1: 36, 2: 35}
    ended = events(kernel, EpisodeEnded)
    assert sorted(episode.steps for episode in ended if episode.outcome == "aborted") == [5, 6, 6]
    assert events(kernel, SessionEnded)[0].steps == 107


async def test_a_budget_that_ends_with_an_episode_aborts_none(home: Path) -> None:
    kernel = await whole_session(home, steps=40, env_kwargs={"length": 10})
    assert [episode.outcome for episode in events(kernel, EpisodeEnded)] == ["terminated"] * 4


async def test_a_budget_of_seconds_ends_the_run_in_mid_episode(home: Path) -> None:
    kernel = await whole_session(
        home, seconds=1.5, env_kwargs={"length": 10**6, "step_seconds": 0.01}, capture={"every": 1}
    )
    (ended,) = events(kernel, EpisodeEnded)
    assert ended.outcome == "aborted"
    assert 10 < ended.steps < 150
    (sealed,) = events(kernel, RecordingSealed)
    assert (sealed.frames, sealed.complete) == (ended.steps + 1, False)
    assert events(kernel, SessionEnded)[0].outcome == "finished"


async def test_evaluation_episodes_are_marked_and_can_be_the_ones_captured(home: Path) -> None:
    kernel = await whole_session(home, episodes=7, eval_every=3, capture={"mode": "eval"})
    started = events(kernel, EpisodeStarted)
    assert sorted(episode.episode for episode in started if episode.evaluation) == [0, 3, 6]
    assert sorted(episode.episode for episode in started if episode.captured) == [0, 3, 6]


async def test_wrappers_and_arguments_reach_the_environment(home: Path) -> None:
    kernel = await whole_session(
        home,
        episodes=1,
        env_kwargs={"length": 50},
        max_episode_steps=4,
        wrappers=[{"use": "envs:Loud", "times": 3.0}, "gymnasium.wrappers:FlattenObservation"],
    )
    (ended,) = events(kernel, EpisodeEnded)
    assert (ended.steps, ended.outcome, ended.total_reward) == (4, "truncated", 12.0)


async def test_each_worker_is_recorded_and_a_captured_episode_has_one_frame_more_than_steps(home: Path) -> None:
    kernel = await whole_session(home, workers=2, episodes=6, capture={"every": 2}, name_prefix="count")
    sealed = events(kernel, RecordingSealed)
    assert {recording.first_episode: recording.frames for recording in sealed} == {0: 11, 2: 11, 4: 11}


async def test_a_killed_worker_is_replaced_and_the_run_ends_well(home: Path) -> None:
    async with session(
        home, workers=2, episodes=12, env_kwargs={"length": 40, "step_seconds": 0.005}, capture={"every": 1}
    ) as kernel:
        await until(lambda: any(step.worker == 0 and step.episode for step in events(kernel, StepRecorded)))
        pid = next(worker.pid for worker in events(kernel, WorkerStarted) if worker.worker == 0)
        os.kill(pid, signal.SIGKILL)
        await the_end(kernel)
    assert kernel.outcome == Outcome.drained
    ended = events(kernel, EpisodeEnded)
    assert sorted(episode.episode for episode in ended) == list(range(12))
    (aborted,) = [episode for episode in ended if episode.outcome == "aborted"]
    assert aborted.worker == 0
    sealed = {recording.first_episode: recording for recording in events(kernel, RecordingSealed)}
    assert sorted(sealed) == list(range(12))
    assert not sealed[aborted.episode].complete
    assert Counter(worker.outcome for worker in events(kernel, WorkerEnded)) == {"finished": 2, "lost": 1}
    assert events(kernel, SessionEnded)[0].outcome == "finished"


async def test_a_budget_of_steps_is_exact_although_a_worker_was_killed(home: Path) -> None:
    async with session(home, steps=400, workers=2, env_kwargs={"length": 30, "step_seconds": 0.005}) as kernel:
        await until(lambda: sum(step.worker == 1 for step in events(kernel, StepRecorded)) > 40)
        os.kill(next(worker.pid for worker in events(kernel, WorkerStarted) if worker.worker == 1), signal.SIGKILL)
        await the_end(kernel)
    assert len(events(kernel, StepRecorded)) == 400
    assert sum(episode.steps for episode in events(kernel, EpisodeEnded)) == 400


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("raises", "ValueError: the third step is too much (envs.py, line"),
        ("exits", "SystemExit: enough (envs.py, line"),
    ],
)
async def test_an_environment_that_raises_is_reported_and_its_worker_goes_on_with_the_next_episode(
    home: Path, capsys: pytest.CaptureFixture[str], does: str, error: str
) -> None:
    kernel = await whole_session(home, episodes=5, env_kwargs={"does": does, "in_episode": 2})
    assert kernel.outcome == Outcome.drained
    (failed,) = events(kernel, WorkerFailed)
    assert (failed.worker, failed.episode) == (0, 2)
    assert failed.error.startswith(error)
    assert "_misbehave" in failed.traceback
    outcomes = {episode.episode: (episode.outcome, episode.steps) for episode in events(kernel, EpisodeEnded)}
    assert outcomes == dict.fromkeys((0, 1, 3, 4), ("terminated", 10)) | {2: ("aborted", 2)}
    assert [worker.outcome for worker in events(kernel, WorkerEnded)] == ["failed", "finished"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert line.startswith(f"worker 0 failed in episode 2: {error}")


async def test_a_failure_in_the_last_episode_ends_the_run_and_nobody_is_said_to_go_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = await whole_session(home, episodes=2, env_kwargs={"does": "raises", "in_episode": 1})
    assert kernel.outcome == Outcome.drained
    assert [episode.outcome for episode in events(kernel, EpisodeEnded)] == ["terminated", "aborted"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert line.endswith(")"), line


async def test_a_policy_that_raises_is_reported_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.env_runner.crew.BACKOFF_SECONDS", 0.01)
    kernel = await whole_session(
        home, steps=20, policy={"use": "policies:broken_later"}, **{"import": ["envs", "policies"]}
    )
    failed = events(kernel, WorkerFailed)
    assert sorted(failure.episode for failure in failed) == [0, 1, 2, 3]
    assert failed[0].error.startswith("IndexError: no such step (policies.py, line")
    assert len(events(kernel, StepRecorded)) == 20


async def test_a_worker_that_keeps_dying_ends_the_run_with_its_last_words(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.env_runner.crew.BACKOFF_SECONDS", 0.01)
    async with session(home, episodes=100, env_kwargs={"does": "crashes"}) as kernel:
        await until(lambda: [state for state in events(kernel, PluginState) if state.state == "left off"])
    assert kernel.outcome == Outcome.failed
    (state,) = [state for state in events(kernel, PluginState) if state.state == "left off"]
    assert "worker 0 ended 5 times in a row before an episode did." in state.reason
    assert "worker 0 died of SIGSEGV in episode 4" in state.reason
    assert "Fatal Python error: Segmentation fault" in state.reason
    assert {end.outcome for end in events(kernel, SessionEnded)} == {"failed"}


async def test_a_stop_aborts_the_open_episodes_and_leaves_no_process(home: Path, begun: Begun) -> None:
    async with session(
        home,
        workers=2,
        env_kwargs={"length": 10**6, "step_seconds": 0.002, "start_child": True},
        capture={"every": 1},
    ) as kernel:
        await until(lambda: len({step.worker for step in events(kernel, StepRecorded)}) == 2)
        processes = begun()
        assert len([process for process in processes if process.name() == "sleep"]) == 2
    assert kernel.outcome == Outcome.drained
    assert [episode.outcome for episode in events(kernel, EpisodeEnded)] == ["aborted", "aborted"]
    assert {end.outcome for end in events(kernel, WorkerEnded)} == {"finished"}
    assert events(kernel, SessionEnded)[0].outcome == "stopped"
    await until(lambda: not any(process.is_running() for process in processes))


@pytest.mark.usefixtures("nothing_is_left")
async def test_a_worker_that_does_not_heed_the_stop_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.env_runner.runner.GRACE_SECONDS", 0.5)
    async with session(home, env_kwargs={"does": "hangs"}) as kernel:
        await until(lambda: len(events(kernel, StepRecorded)) == 2)
        assert kernel.plugins["runner"].pending() == "the step of worker 0"
    assert kernel.outcome == Outcome.drained
    assert [end.outcome for end in events(kernel, WorkerEnded)] == ["lost"]


async def test_a_user_pauses_a_session_between_episodes_and_lets_it_go_on(home: Path) -> None:
    async with session(home, workers=2, episodes=200, env_kwargs={"length": 10, "step_seconds": 0.001}) as kernel:
        await until(lambda: len(events(kernel, EpisodeEnded)) > 4)
        name = events(kernel, SessionStarted)[0].session
        await kernel.publish(SessionAsked(session=name, action="pause"))
        await until(lambda: len(events(kernel, EpisodeEnded)) == len(events(kernel, EpisodeStarted)))
        await anyio.sleep(0.5)
        paused_at = len(events(kernel, EpisodeStarted))
        assert paused_at < 200
        await anyio.sleep(0.5)
        assert len(events(kernel, EpisodeStarted)) == len(events(kernel, EpisodeEnded)) == paused_at
        await kernel.publish(SessionAsked(session=name, action="resume"))
        await the_end(kernel)
    assert sorted(episode.episode for episode in events(kernel, EpisodeEnded)) == list(range(200))


async def test_a_user_stops_a_session_and_with_it_the_run(home: Path) -> None:
    async with session(home, env_kwargs={"step_seconds": 0.001}) as kernel:
        await until(lambda: events(kernel, EpisodeEnded))
        name = events(kernel, SessionStarted)[0].session
        await kernel.publish(SessionAsked(session="another", action="stop"))
        await kernel.publish(SessionAsked(session=name, action="stop"))
        await the_end(kernel)
    assert events(kernel, SessionEnded)[0].outcome == "stopped"


async def test_what_workers_print_is_shown_once_with_their_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = await whole_session(home, workers=2, episodes=6, env_kwargs={"noisy": True})
    assert kernel.outcome == Outcome.drained
    assert len(events(kernel, EpisodeEnded)) == 6
    shown = capsys.readouterr().err.splitlines()
    assert len([line for line in shown if line.endswith(": a line on standard output")]) == 1
    assert len([line for line in shown if line.endswith(": standard input has ''")]) == 1
    assert all(line.startswith(("worker 0: ", "worker 1: ")) for line in shown)


CONFIG = """
home = "home"
[plugins.collector]
use = "plugins.collector:Collector"
[plugins.runner]
use = "plugins.env_runner:EnvRunner"
env = "Count-v0"
import = ["envs"]
workers = 2
capture.every = 1
[plugins.runner.env_kwargs]
length = 20
step_seconds = 0.003
"""


@pytest.fixture
def kernel_process(tmp_path: Path) -> Any:
    (tmp_path / "lab.toml").write_text(CONFIG)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), str(here)])
    with subprocess.Popen(
        [sys.executable, "-m", "kernel", "lab.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        for each in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            each.kill()
        process.kill()


async def test_workers_of_a_suspended_kernel_go_on_stepping(
    home: Path, kernel_process: subprocess.Popen[bytes]
) -> None:
    await until(lambda: len(_log(home, "EpisodeEnded")) >= 6)
    kernel_process.send_signal(signal.SIGSTOP)
    before = len(spooled(home, EpisodeStarted))
    await until(lambda: len(spooled(home, EpisodeStarted)) >= before + 30)
    kernel_process.send_signal(signal.SIGCONT)
    kernel_process.send_signal(signal.SIGINT)
    await until(lambda: kernel_process.poll() is not None)
    assert kernel_process.returncode == 0
    started = [event["episode"] for event in _log(home, "EpisodeStarted")]
    assert len(started) == len(set(started)) >= before + 30


async def test_workers_of_a_killed_kernel_seal_what_they_have_and_end(
    home: Path, kernel_process: subprocess.Popen[bytes]
) -> None:
    await until(lambda: len(_log(home, "EpisodeEnded")) >= 4)
    workers = psutil.Process(kernel_process.pid).children(recursive=True)
    assert len(workers) == 2
    kernel_process.kill()
    await until(lambda: not any(worker.is_running() for worker in workers))
    ended = spooled(home, WorkerEnded)
    assert {(end.worker, end.outcome) for end in ended} == {(0, "finished"), (1, "finished")}
    captured = {episode.recording for episode in spooled(home, EpisodeStarted)}
    assert {recording.recording for recording in spooled(home, RecordingSealed)} == captured
    (owner,) = (home / "sessions").glob("*/owner.json")
    assert json.loads(owner.read_text())["outcome"] is None


def _log(home: Path, tag: str) -> list[dict[str, Any]]:
    text = "".join(file.read_text() for file in sorted((home / "log").glob("*.jsonl")))
    events = [json.loads(line)["event"] for line in text.split("\n")[:-1]]
    return [event for event in events if event["type"] == tag]
