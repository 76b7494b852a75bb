from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest

from kernel.plugin import Refused
from kernel.runtime import StartRefused
from kernel.testing import running
from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    FrameSizeChanged,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    SessionEnded,
    SessionStarted,
    Space,
    StepRecorded,
    VideoAvailable,
    VideoFailed,
    VideoPinned,
    VideoPruned,
    VideoUnpinned,
    WorkerEnded,
    WorkerFailed,
    WorkerStarted,
)
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kernel.event import Event

pytestmark = pytest.mark.anyio

SINK = {"sqlite": (SqliteSink, SqliteSinkOptions())}
SESSION = "20261122-062718-k3v9"


def query(home: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    return query_file(home / "stepreel.sqlite", sql, *values)


def query_file(file: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def dump(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table, each with its rows in the order of all their values."""
    tables = [name for (name,) in query(home, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    return {table: sorted(query(home, f"SELECT * FROM {table}"), key=repr) for table in tables}


def delete_database(home: Path) -> None:
    for file in home.glob("stepreel.sqlite*"):
        file.unlink()


def step(episode: int, number: int, *, frame: int | None = None, worker: int = 0, **fields: Any) -> StepRecorded:
    values: dict[str, Any] = {
        "session": SESSION,
        "worker": worker,
        "episode": episode,
        "step": number,
        "action": 1,
        "reward": 1.0,
        "terminated": False,
        "truncated": False,
        "observation": [0.25, -1.5],
        "info": {},
        "frame": frame,
        "time": 1_790_000_000.0 + number,
        "step_seconds": 0.001,
    }
    return StepRecorded(**{**values, **fields})


def started(
    episode: int, *, recording: str | None = None, worker: int = 0, first_frame: int = 0, **fields: Any
) -> EpisodeStarted:
    return EpisodeStarted(
        session=SESSION,
        worker=worker,
        episode=episode,
        env_id="CartPole-v1",
        seed=str(episode),
        observation=[0.0, 0.0],
        info={"lives": 3},
        capture="every 2" if recording else "not due",
        captured=recording is not None,
        recording=recording,
        first_frame=first_frame if recording else None,
        **fields,
    )


def ended(episode: int, steps: int, *, recording: str | None = None, **fields: Any) -> EpisodeEnded:
    values: dict[str, Any] = {
        "session": SESSION,
        "worker": 0,
        "episode": episode,
        "env_id": "CartPole-v1",
        "total_reward": float(steps),
        "steps": steps,
        "outcome": "terminated",
        "env_steps": steps,
        "seconds": 0.5,
        "recording": recording,
    }
    return EpisodeEnded(**{**values, **fields})


def recording_started(
    recording: str, episode: int, *, worker: int = 0, frames_wanted: int | None = None
) -> RecordingStarted:
    return RecordingStarted(
        recording=recording,
        session=SESSION,
        worker=worker,
        episode=episode,
        env_id="CartPole-v1",
        path=f"videos/{SESSION}/{recording}.mp4",
        fps=50.0,
        width=600,
        height=400,
        frames_wanted=frames_wanted,
    )


def sealed(
    recording: str, first: int, frames: int, *, last: int | None = None, worker: int = 0, **fields: Any
) -> RecordingSealed:
    return RecordingSealed(
        recording=recording,
        session=SESSION,
        worker=worker,
        first_episode=first,
        last_episode=first if last is None else last,
        chunks=1,
        frames=frames,
        total_reward=3.0,
        kept_for=["best"],
        **fields,
    )


def available(
    recording: str, first: int, frames: int, *, last: int | None = None, worker: int = 0, **fields: Any
) -> VideoAvailable:
    return VideoAvailable(
        recording=recording,
        session=SESSION,
        worker=worker,
        first_episode=first,
        last_episode=first if last is None else last,
        path=f"videos/{SESSION}/{recording}.mp4",
        sha256="ab" * 32,
        size_bytes=1234,
        frames=frames,
        fps=50.0,
        width=600,
        height=400,
        codec="h264",
        seconds=frames / 50,
        thumbnail=f"recordings/{recording}.jpg",
        kept_for=["best"],
        **fields,
    )


def pruned(recording: str, policy: str = "max_bytes") -> VideoPruned:
    return VideoPruned(
        recording=recording,
        session=SESSION,
        path=f"videos/{SESSION}/{recording}.mp4",
        size_bytes=1234,
        policy=policy,
        reason="all videos together have more than they may",
    )


def captured_episode(episode: int, steps: int) -> list[Event]:
    recording = f"r{episode}"
    return [
        started(episode, recording=recording),
        recording_started(recording, episode),
        *(step(episode, number, frame=number) for number in range(1, steps + 1)),
        ended(episode, steps, recording=recording),
        sealed(recording, episode, steps + 1),
    ]


def whole_session() -> list[Event]:
    """A session in which everything happens."""
    return [
        SessionStarted(
            session=SESSION,
            kind="runner",
            env_id="CartPole-v1",
            env_kwargs={"gravity": 9.8},
            tags=["a", "b"],
            workers=2,
            seed="7",
            observation_space=Space(kind="Box", shape=[4], dtype="float32"),
            render_fps=50.0,
            versions={"gymnasium": "1.2"},
        ),
        WorkerStarted(session=SESSION, worker=0, pid=11, env_id="CartPole-v1"),
        WorkerStarted(session=SESSION, worker=1, pid=12, env_id="CartPole-v1"),
        *captured_episode(0, 3),
        started(1, worker=1),
        step(1, 1, worker=1),
        WorkerFailed(session=SESSION, worker=1, episode=1, error="ValueError: no", traceback="Traceback …"),
        ended(1, 1, worker=1, outcome="aborted"),
        WorkerEnded(session=SESSION, worker=1, outcome="failed", steps=1),
        WorkerStarted(session=SESSION, worker=1, pid=13, env_id="CartPole-v1"),
        available("r0", 0, 4),
        VideoPinned(recording="r0", by="ann"),
        *captured_episode(2, 2),
        available("r2", 2, 3),
        *captured_episode(3, 2),
        RecordingDiscarded(recording="r3", session=SESSION, why="not among the best"),
        *captured_episode(4, 2),
        VideoFailed(recording="r4", session=SESSION, attempts=3, reason="Killed", frames_kept_in="failed/r4"),
        pruned("r2"),
        started(5),
        step(5, 1, observation=None, info=None, action={"a": [1, 2]}, reward=None, nonfinite={"reward": "-inf"}),
        step(5, 2, observation=[None, 1e300], nonfinite={"observation.0": "nan"}, info={"k": "ünï"}, frames=2),
        ended(5, 2, total_reward=None, nonfinite={"total_reward": "-inf"}, success=False),
        VideoPinned(recording="r2", by="ann"),
        VideoUnpinned(recording="r0", by="bob"),
        VideoPinned(recording="r0", by="eve"),
        VideoPinned(recording="nobody's", by="ann"),
        WorkerEnded(session=SESSION, worker=0, outcome="finished", steps=9),
        WorkerEnded(session=SESSION, worker=1, outcome="lost", steps=0),
        SessionEnded(session=SESSION, outcome="finished", episodes=6, steps=10, recordings=4),
    ]


async def test_every_event_has_its_place_in_the_tables(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(*whole_session())
        await kernel.settle()
        assert query(home, "SELECT env_kwargs, tags, workers, outcome, steps FROM sessions") == [
            ('{"gravity":9.8}', '["a","b"]', 2, "finished", 10)
        ]
        assert query(home, "SELECT worker, pid, outcome, error FROM workers ORDER BY seq") == [
            (0, 11, "finished", None),
            (1, 12, "failed", "ValueError: no"),
            (1, 13, "lost", None),
        ]
        columns = "episode, agent, outcome, total_reward, steps, success, captured, recording, first_frame, video_path"
        assert query(home, f"SELECT {columns} FROM episodes ORDER BY episode") == [
            (0, "agent_0", "terminated", 3.0, 3, None, 1, "r0", 0, f"videos/{SESSION}/r0.mp4"),
            (1, "agent_0", "aborted", 1.0, 1, None, 0, None, None, None),
            (2, "agent_0", "terminated", 2.0, 2, None, 1, "r2", 0, None),
            (3, "agent_0", "terminated", 2.0, 2, None, 1, "r3", 0, None),
            (4, "agent_0", "terminated", 2.0, 2, None, 1, "r4", 0, None),
            (5, "agent_0", "terminated", None, 2, 0, 0, None, None, None),
        ]
        assert query(home, "SELECT reset_observation, reset_info, capture, seed FROM episodes WHERE episode = 0") == [
            ("[0.0,0.0]", '{"lives":3}', "every 2", "0")
        ]
        assert query(home, "SELECT recording, state, pinned, pinned_by, kept_for, reason FROM videos ORDER BY id") == [
            ("r0", "available", 1, "eve", '["best"]', None),
            ("r2", "pruned", 1, "ann", '["best"]', "all videos together have more than they may"),
            ("r3", "discarded", 0, None, '["best"]', "not among the best"),
            ("r4", "failed", 0, None, '["best"]', "Killed"),
        ]
        assert query(home, "SELECT count(*) FROM steps") == [(len(kernel.records(StepRecorded)),)]
        steps = "SELECT action, reward, observation, info, frame, nonfinite FROM steps WHERE episode = ? ORDER BY step"
        assert query(home, steps, 0)[2] == ("1", 1.0, "[0.25,-1.5]", "{}", 3, None)
        assert query(home, steps, 5) == [
            ('{"a":[1,2]}', None, None, None, None, '{"reward":"-inf"}'),
            ("1", 1.0, "[null,1e300]", '{"k":"ünï"}', None, '{"observation.0":"nan"}'),
        ]


async def test_a_deleted_database_is_rebuilt_with_the_same_rows(home: Path) -> None:
    """Taken in by twenty kernels, each a piece that was cut anywhere, and by one, all at once."""
    events = whole_session()
    cuts = [0, 1, 4, 6, 9, 11, 14, 17, 18, 19, 22, 25, 33, 38, 39, 41, 43, 45, 46, len(events)]
    for start, end in pairwise(cuts):
        async with running(home, SINK) as kernel:
            await kernel.publish(*events[start:end])
    in_pieces = dump(home)
    delete_database(home)
    async with running(home, SINK) as kernel:
        await kernel.settle()
        assert len(kernel.records(StepRecorded)) == len(in_pieces["steps"]) == len(in_pieces["step_media_time"])
    assert dump(home) == in_pieces


async def test_a_database_of_version_1_becomes_what_a_rebuild_makes(home: Path) -> None:
    """Version 1 had no columns for scripts, and one episode a recording."""
    from plugins.sqlite_sink.schema import TABLES, prepare

    async with running(home, SINK) as kernel:
        await kernel.publish(*whole_session())
    rebuilt = dump(home)
    new, old = home / "new.sqlite", home / "stepreel.sqlite"
    old.rename(new)
    home_id = query_file(new, "SELECT home FROM cursor")[0][0]
    async with aiosqlite.connect(old, isolation_level=None) as connection:
        await prepare(connection, old, home_id, (TABLES,))
        await connection.execute("DELETE FROM cursor")
        await connection.execute("ATTACH ? AS new", (str(new),))
        for table in ("cursor", "sessions", "workers", "episodes", "steps", "videos"):
            columns = ", ".join(name for _, name, *_ in query_file(old, f"PRAGMA table_info({table})"))
            await connection.execute(f"INSERT INTO {table} SELECT {columns} FROM new.{table}")
    assert query_file(old, "PRAGMA user_version") == [(1,)]
    assert not query_file(old, "SELECT 1 FROM sqlite_master WHERE name = 'shown_episodes'")
    async with running(home, SINK) as kernel:
        await kernel.settle()
    assert dump(home) == rebuilt
    assert rebuilt["shown_episodes"]


async def test_the_views_lead_from_a_step_to_the_second_of_its_video(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(*captured_episode(0, 3), available("r0", 0, 4), started(1), step(1, 1), ended(1, 1))
        await kernel.settle()
        columns = "session, episode, step, frame, media_seconds, video_path"
        path = f"videos/{SESSION}/r0.mp4"
        assert query(home, f"SELECT {columns} FROM step_media_time ORDER BY episode, step") == [
            (SESSION, 0, 1, 1, 0.02, path),
            (SESSION, 0, 2, 2, 0.04, path),
            (SESSION, 0, 3, 3, 0.06, path),
            (SESSION, 1, 1, None, None, None),
        ]
        columns = "session, episode, agent, recording, video_path, first_frame, last_frame, total_reward"
        assert query(home, f"SELECT {columns} FROM episode_videos") == [(SESSION, 0, "agent_0", "r0", path, 0, 3, 3.0)]
        await kernel.publish(pruned("r0"))
        await kernel.settle()
        assert query(home, "SELECT * FROM episode_videos") == []
        assert query(home, "SELECT DISTINCT video_path FROM step_media_time") == [(None,)]


async def test_the_steps_of_an_episode_are_found_by_an_index(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(*captured_episode(0, 3))
        await kernel.settle()
        sql = "EXPLAIN QUERY PLAN SELECT * FROM step_media_time WHERE session = 'a' AND worker = 0 AND episode = 3"
        plan = " ".join(str(row[-1]) for row in query(home, sql))
        assert "steps_of_episode (session_id=? AND worker=? AND episode=?)" in plan


def stretches() -> list[Event]:
    """As `step_trigger` and `video_length` make them: one recording over two episodes, two within one episode."""
    return [
        started(0),
        step(0, 1),
        recording_started("a", 0, frames_wanted=3),
        step(0, 2, frame=0, recording="a"),
        ended(0, 2, recording="a"),
        started(1, recording="a", first_frame=1),
        step(1, 1, frame=2),
        sealed("a", 0, 3, last=1),
        step(1, 2),
        recording_started("b", 1, frames_wanted=1),
        step(1, 3, frame=0, recording="b"),
        sealed("b", 1, 1),
        step(1, 4),
        available("b", 1, 1),
        available("a", 0, 3, last=1),
        ended(1, 4, recording="a"),
    ]


async def test_recordings_that_share_episodes_keep_their_own_frames(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(*stretches())
        await kernel.settle()
        frames = "SELECT episode, step, recording, frame FROM step_media_time WHERE frame IS NOT NULL ORDER BY seq"
        assert query(home, frames) == [(0, 2, "a", 0), (1, 1, "a", 2), (1, 3, "b", 0)]
        ranges = "SELECT episode, recording, first_frame, last_frame FROM episode_videos ORDER BY episode, recording"
        assert query(home, ranges) == [(0, "a", 0, 0), (1, "a", 1, 2), (1, "b", 0, 0)]
        paths = "SELECT episode, video_path FROM episodes ORDER BY episode"
        assert query(home, paths) == [(0, f"videos/{SESSION}/a.mp4"), (1, f"videos/{SESSION}/a.mp4")]
        assert query(home, "SELECT recording, frames_wanted FROM videos ORDER BY id") == [("a", 3), ("b", 1)]
        await kernel.publish(pruned("a"))
        await kernel.settle()
        assert query(home, paths) == [(0, None), (1, f"videos/{SESSION}/b.mp4")]


async def test_an_episode_has_its_video_while_it_goes_on(home: Path) -> None:
    """A stretch that began in the episode before is a video long before the long episode ends."""
    async with running(home, SINK) as kernel:
        await kernel.publish(*stretches()[:-1])
        await kernel.settle()
        assert query(home, "SELECT video_path FROM episodes WHERE episode = 1") == [(f"videos/{SESSION}/a.mp4",)]


def mosaic() -> list[Event]:
    """One recording, of a worker of its own, shown by the steps of two others; it is the second of their episodes."""
    return [
        recording_started("m0", 0, worker=2),
        *(started(0, recording="m0", worker=worker) for worker in (0, 1)),
        *(step(0, 1, frame=1, worker=worker) for worker in (0, 1)),
        sealed("m0", 0, 2, worker=2),
        ended(0, 1, worker=0, recording="m0"),
        recording_started("m1", 1, worker=2),
        started(1, recording="m1", worker=0),
        step(1, 1, frame=1, worker=0),
        *(step(0, number, frame=number - 1, worker=1, recording="m1") for number in (2, 3, 4)),
        sealed("m1", 1, 3, worker=2),
        available("m0", 0, 2, worker=2),
        available("m1", 1, 3, worker=2),
        ended(1, 1, worker=0, recording="m1"),
        ended(0, 4, worker=1, recording="m0"),
    ]


async def test_a_mosaic_is_shown_by_the_steps_of_several_workers(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(*mosaic())
        await kernel.settle()
        rows = "SELECT worker, episode, step, recording, frame FROM step_media_time ORDER BY worker, episode, step"
        assert query(home, rows) == [
            (0, 0, 1, "m0", 1),
            (0, 1, 1, "m1", 1),
            (1, 0, 1, "m0", 1),
            (1, 0, 2, "m1", 1),
            (1, 0, 3, "m1", 2),
            (1, 0, 4, None, None),  # a frame that was lost
        ]
        first, second = (f"videos/{SESSION}/m{number}.mp4" for number in (0, 1))
        paths = "SELECT worker, episode, video_path FROM episodes ORDER BY worker, episode"
        assert query(home, paths) == [(0, 0, first), (0, 1, second), (1, 0, first)]
        ranges = "SELECT worker, episode, recording, first_frame, last_frame FROM episode_videos ORDER BY 1, 2, 3"
        assert query(home, ranges) == [(0, 0, "m0", 0, 1), (0, 1, "m1", 0, 1), (1, 0, "m0", 0, 1), (1, 0, "m1", 1, 2)]
        await kernel.publish(pruned("m0"))
        await kernel.settle()
        assert query(home, paths) == [(0, 0, None), (0, 1, second), (1, 0, second)]


@pytest.mark.parametrize("session", [stretches, mosaic])
async def test_what_scripts_record_is_the_same_wherever_the_sink_was_stopped(
    home: Path, session: Callable[[], list[Event]]
) -> None:
    """A sink that begins anew knows no open recording by heart."""
    for event in session():
        async with running(home, SINK) as kernel:
            await kernel.publish(event)
    in_pieces = dump(home)
    delete_database(home)
    async with running(home, SINK) as kernel:
        await kernel.settle()
    assert dump(home) == in_pieces
    assert in_pieces["shown_episodes"]


async def test_a_step_that_shows_the_last_frame_may_come_behind_the_seal_and_the_video(home: Path) -> None:
    events = [
        started(0),
        recording_started("a", 0, frames_wanted=1),
        sealed("a", 0, 1),
        available("a", 0, 1),
        step(0, 1, frame=0, recording="a"),
    ]
    for place in range(len(events)):
        here = home.with_name(f"home-{place}")
        async with running(here, SINK) as kernel:
            await kernel.publish(*events[:place])
        async with running(here, SINK) as kernel:
            await kernel.publish(*events[place:])
            await kernel.settle()
            assert query(here, "SELECT recording, frame FROM step_media_time") == [("a", 0)]
            assert query(here, "SELECT video_path FROM episodes") == [(f"videos/{SESSION}/a.mp4",)]


async def test_more_open_recordings_than_are_remembered_are_looked_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.sqlite_sink.shown.RECORDINGS", 2)
    async with running(home, SINK) as kernel:
        for worker in range(5):
            name = f"r{worker}"
            await kernel.publish(started(0, recording=name, worker=worker), recording_started(name, 0, worker=worker))
        await kernel.publish(*(step(0, 1, frame=1, worker=worker) for worker in range(5)))
        await kernel.settle()
        rows = query(home, "SELECT worker, recording FROM step_media_time ORDER BY worker")
        assert rows == [(worker, f"r{worker}") for worker in range(5)]


async def test_the_trainings_own_step_is_that_of_the_end_or_else_of_the_start(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(
            started(0, recording="r0", training_step=100),
            recording_started("r0", 0),
            step(0, 1, frame=1),
            ended(0, 1, recording="r0", training_step=108),
            started(1, training_step=108),
            ended(1, 0, outcome="aborted"),
            started(2),
            ended(2, 0),
            started(3, training_step=200),
            *(ended(3, 1, agent=agent, training_step=step) for agent, step in (("red", 210), ("blue", None))),
            sealed("r0", 0, 2, training_step=100),
            available("r0", 0, 2, training_step=100),
        )
        await kernel.settle()
        rows = query(home, "SELECT episode, agent, training_step FROM episodes ORDER BY episode, agent")
        assert rows == [
            (0, "agent_0", 108),
            (1, "agent_0", 108),
            (2, "agent_0", None),
            (3, "blue", 200),
            (3, "red", 210),
        ]
        assert query(home, "SELECT recording, training_step FROM videos") == [("r0", 100)]
        assert query(home, "SELECT episode, training_step FROM episode_videos") == [(0, 108)]


async def test_a_video_has_the_name_that_its_seal_gave_it_and_knows_its_next_part(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(
            started(0, recording="r0"),
            recording_started("r0", 0),
            FrameSizeChanged(session=SESSION, worker=0, recording="r0", continued_as="r1", width=8, height=8),
            recording_started("r1", 0),
            sealed("r0", 0, 2, path="/mine/step-0-to-step-200.mp4"),
            sealed("r1", 0, 2),
        )
        await kernel.settle()
        assert query(home, "SELECT recording, path, continued_as FROM videos ORDER BY id") == [
            ("r0", "/mine/step-0-to-step-200.mp4", "r1"),
            ("r1", f"videos/{SESSION}/r1.mp4", None),
        ]


async def test_a_long_episodes_other_steps_are_not_looked_at_when_a_recording_is_sealed(home: Path) -> None:
    """One episode may last for days, with a recording now and then."""
    from plugins.sqlite_sink.rows import WRITES

    async with running(home, SINK) as kernel:
        await kernel.publish(*stretches())
        await kernel.settle()
        (sql,) = (write.sql for write in WRITES if "UPDATE steps SET\n        video_id = CASE" in write.sql)
        plan = " ".join(str(row[-1]) for row in query(home, f"EXPLAIN QUERY PLAN {sql}", "a", 3))
        assert "steps_of_episode (session_id=? AND worker=? AND episode=? AND rowid>?)" in plan
        assert "SCAN" not in plan


async def test_frames_that_a_recording_lost_are_null_from_its_seal_on(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(
            started(0, recording="r0"),
            recording_started("r0", 0),
            *(step(0, number, frame=number) for number in range(1, 6)),
            ended(0, 5, recording="r0", outcome="aborted"),
        )
        await kernel.settle()
        assert query(home, "SELECT frame FROM steps") == [(1,), (2,), (3,), (4,), (5,)]
        await kernel.publish(sealed("r0", 0, 4), started(1, recording="r1"), sealed("r1", 1, 0))
        await kernel.settle()
        assert query(home, "SELECT frame FROM steps") == [(1,), (2,), (3,), (None,), (None,)]
        assert query(home, "SELECT first_frame FROM episodes ORDER BY episode") == [(0,), (None,)]


async def test_a_restart_in_the_middle_of_a_recording_loses_no_steps_place(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(started(0, recording="r0"), recording_started("r0", 0), step(0, 1, frame=1))
    async with running(home, SINK) as kernel:
        await kernel.publish(step(0, 2, frame=2))
        await kernel.settle()
        rows = query(home, "SELECT recording, media_seconds FROM step_media_time ORDER BY step")
        assert rows == [("r0", 0.02), ("r0", 0.04)]


async def test_the_cursor_is_committed_with_its_rows(home: Path) -> None:
    async with running(home, SINK) as kernel:
        sink = kernel.plugins["sqlite"]
        assert isinstance(sink, SqliteSink)
        statements: list[str] = []
        await sink._connection.set_trace_callback(statements.append)
        await kernel.publish(*captured_episode(0, 3))
        await kernel.settle()
        await sink._connection.set_trace_callback(None)  # type: ignore[arg-type]  # as sqlite3 has it
    writing = [words for words in (statement.split()[:2] for statement in statements) if words[0] != "SELECT"]
    assert writing[0] == ["BEGIN", "IMMEDIATE"]
    assert writing[-2:] == [["UPDATE", "cursor"], ["COMMIT"]]
    assert ["INSERT", "OR"] in writing
    assert writing.count(["COMMIT"]) == 1


async def test_events_whose_beginnings_the_log_has_lost_still_have_rows(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(
            step(0, 7, frame=7),
            ended(0, 7, recording="r0"),
            sealed("r0", 0, 8),
            available("r0", 0, 8),
            WorkerEnded(session=SESSION, worker=0, outcome="finished", steps=7),
            pruned("r-1"),
            SessionEnded(session=SESSION, outcome="finished", episodes=1, steps=7, recordings=1),
        )
        await kernel.settle()
        assert query(home, "SELECT outcome, video_path IS NOT NULL FROM episodes") == [("terminated", 1)]
        assert query(home, "SELECT recording, media_seconds FROM step_media_time") == [("r0", 0.14)]
        assert query(home, "SELECT recording, state FROM videos ORDER BY id") == [
            ("r0", "available"),
            ("r-1", "pruned"),
        ]
        assert query(home, "SELECT outcome FROM workers UNION ALL SELECT outcome FROM sessions") == [("finished",)] * 2


@pytest.mark.parametrize("agents", [["walker", "agent_0"], ["agent_1", "agent_0"], ["red", "blue"]])
async def test_each_agent_has_a_row_with_what_the_start_of_its_episode_said(home: Path, agents: list[str]) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(started(0))
        await kernel.settle()
        for agent in agents:
            await kernel.publish(ended(0, 3, agent=agent))
            await kernel.settle()
        rows = query(home, "SELECT agent, capture, outcome FROM episodes ORDER BY agent")
        assert rows == [(agent, "not due", "terminated") for agent in sorted(agents)]


async def test_a_log_of_another_home_is_refused(home: Path, tmp_path: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(step(0, 1))
    other = tmp_path / "other"
    other.mkdir()
    (home / "stepreel.sqlite").rename(other / "stepreel.sqlite")
    with pytest.raises(StartRefused, match=r"another home.*rebuilt from this home's log"):
        async with running(other, SINK):
            pass


async def test_a_cursor_beyond_the_log_is_refused_with_the_way_to_rebuild(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(step(0, 1))
        await kernel.settle()
    with closing(sqlite3.connect(home / "stepreel.sqlite")) as connection, connection:
        connection.execute("UPDATE cursor SET seq = 1000000")
    with pytest.raises(StartRefused, match="Delete the database"):
        async with running(home, SINK):
            pass


async def test_a_database_elsewhere_is_made_with_its_folder(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "far" / "away.sqlite"
    async with running(home, {"sqlite": (SqliteSink, SqliteSinkOptions(path=file))}):
        pass
    assert file.exists()
    assert list(file.parent.iterdir()) == [file]


async def test_a_place_that_cannot_hold_a_database_is_refused_and_left_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    beneath = {"sqlite": (SqliteSink, SqliteSinkOptions(path=tmp_path / "file" / "x.sqlite"))}
    with pytest.raises(StartRefused, match=r"x\.sqlite.*Set another `path`"):
        async with running(home, beneath):
            pass
    sink = SqliteSink(beneath["sqlite"][1], _Port(home))  # type: ignore[arg-type]  # check() asks for the home alone
    with pytest.raises(Refused, match="is a file"):
        await sink.check()
    assert (tmp_path / "file").read_text() == "not a folder"


class _Port:
    def __init__(self, home: Path) -> None:
        self.home = home


async def test_what_another_program_holds_the_database_for_is_not_lost(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.settle()
        with closing(sqlite3.connect(home / "stepreel.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await kernel.publish(*captured_episode(0, 3))
            other.execute("ROLLBACK")
        await kernel.settle()
        assert query(home, "SELECT count(*) FROM steps") == [(3,)]


STEPPING = """
import sys
from pathlib import Path
import anyio
from kernel.testing import running
from plugins.events import StepRecorded
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

async def main(home: Path) -> None:
    async with running(home, {"sqlite": (SqliteSink, SqliteSinkOptions())}) as kernel:
        for number in range(1, 1_000_000):
            await kernel.publish(*(StepRecorded(
                session="s", worker=0, episode=number, step=step, action=0, reward=1.0, terminated=False,
                truncated=False, frame=step, time=0.0, step_seconds=0.0) for step in range(100)))
            await anyio.sleep(0.001)

anyio.run(main, Path(sys.argv[1]))
"""


async def test_a_kill_at_any_moment_leaves_each_step_in_the_tables_once(home: Path) -> None:
    delay = 0.3
    for _ in range(4):
        kill_a_stepping_kernel(home, delay)
        delay *= math.pi / 4  # at another moment of the batches each time
    async with running(home, SINK) as kernel:
        await kernel.settle()
        steps = kernel.records(StepRecorded)
    assert len(steps) > 1000
    assert query(home, "SELECT seq FROM steps ORDER BY seq") == [(record.seq,) for record in steps]
    incremental = dump(home)
    delete_database(home)
    async with running(home, SINK) as kernel:
        await kernel.settle()
    assert dump(home) == incremental


async def test_a_database_may_be_deleted_without_what_a_kill_left_beside_it(home: Path) -> None:
    kill_a_stepping_kernel(home, 0.1)
    assert (home / "stepreel.sqlite-wal").stat().st_size > 0
    (home / "stepreel.sqlite").unlink()
    async with running(home, SINK) as kernel:
        await kernel.settle()
        steps = kernel.records(StepRecorded)
    assert query(home, "SELECT seq FROM steps ORDER BY seq") == [(record.seq,) for record in steps]
    assert query(home, "PRAGMA integrity_check") == [("ok",)]


def kill_a_stepping_kernel(home: Path, delay: float) -> None:
    before = _seq(home)
    process = subprocess.Popen([sys.executable, "-c", STEPPING, str(home)])
    while _seq(home) == before:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _seq(home: Path) -> int:
    try:
        ((seq,),) = query(home, "SELECT seq FROM cursor")
    except sqlite3.OperationalError:
        return 0
    return int(seq)
