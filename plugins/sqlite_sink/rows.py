"""What each event writes: a statement, and the row of values for it.

A batch runs the statements in the order of `WRITES`, each for all of its events at once, so the order of events in
the log is kept only within a statement. That gives the same tables however the log is cut into batches, because
the statements stand in the order of a life (started, sealed, available, pruned), because a life has each but once,
and because what is derived (`video_path`) is derived from tables alone, at the end.

Which episodes a recording shows is told by the steps that it shows, by the episodes' ends, and by its own beginning;
`shown_episodes` has each such pair once. Most steps tell nothing new and stay away from here: see `Shown`.
"""

# ruff: noqa: S608 - the statements are put together from our own column names; values are always bound

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from plugins.events import (
    EpisodeEnded,
    EpisodeStarted,
    FrameSizeChanged,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    SessionEnded,
    SessionStarted,
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel.event import Event, Record

Row = tuple[Any, ...]

STEP_COLUMNS = 18
"""How many values `step_row` gives."""


class Write(NamedTuple):
    """What the events of some types do to one table."""

    kinds: tuple[type[Event], ...]
    sql: str
    row: Callable[[Record[Any]], Row | None]
    """The values of the statement; None where it has nothing to do."""


def step_row(record: Record[StepRecorded], session_id: int, video_id: int | None) -> Row:
    """One row of `steps`."""
    # 0.4 µs of CPU, of about 3 µs that a row costs in all, SQLite's share included.
    step = record.event
    action, observation, info = step.action, step.observation, step.info
    return (
        record.seq,
        session_id,
        step.worker,
        step.episode,
        step.agent,
        step.step,
        str(action) if type(action) is int else _json(action),
        step.reward,
        step.terminated,
        step.truncated,
        _json(observation),
        "{}" if info == {} else _json(info),
        video_id,
        step.frame,
        step.frames,
        step.time,
        step.step_seconds,
        _encode(step.nonfinite).decode() if step.nonfinite else None,
    )


def insert_steps(rows: int) -> str:
    """The statement that inserts so many rows of `steps` at once."""
    return "INSERT OR REPLACE INTO steps VALUES " + ",".join(["(" + ",".join("?" * STEP_COLUMNS) + ")"] * rows)


def _json(value: Any) -> str | None:
    return None if value is None else _encode(value).decode()


def _time(record: Record[Any]) -> float:
    return record.time.timestamp()


_encode = msgspec.json.Encoder().encode


# Sessions and workers --------------------------------------------------------------------------------------------

INSERT_SESSION = "INSERT INTO sessions (id, session) VALUES (?, ?)"
"""Done for each session at its first mention, so that all else may update."""


def _session_started(record: Record[SessionStarted]) -> Row:
    event = record.event
    return (
        event.kind,
        event.env_id,
        _json(event.env_kwargs),
        event.label,
        _json(event.tags),
        event.workers,
        event.seed,
        _json(event.observation_space),
        _json(event.action_space),
        event.render_fps,
        _json(event.configuration),
        _json(event.versions),
        _time(record),
        event.session,
    )


def _session_ended(record: Record[SessionEnded]) -> Row:
    event = record.event
    return (
        event.outcome,
        event.episodes,
        event.steps,
        event.recordings,
        event.frames_dropped,
        event.steps_dropped,
        _time(record),
        event.session,
    )


def _worker_started(record: Record[WorkerStarted]) -> Row:
    event = record.event
    return (event.session, event.worker, record.seq, event.pid, event.env_id, _time(record))


def _worker(record: Record[WorkerFailed | WorkerEnded]) -> Row:
    return (record.event.session, record.event.worker, record.seq)


def _worker_failed(record: Record[WorkerFailed]) -> Row:
    return (*_worker(record), record.event.error, record.event.traceback)


def _worker_ended(record: Record[WorkerEnded]) -> Row:
    event = record.event
    return (*_worker(record), event.outcome, event.steps, event.frames_dropped, event.steps_dropped, _time(record))


# A worker's index comes again when it is replaced: the row is the latest that began before the event.
_WORKER_UNKNOWN = """
    INSERT INTO workers (session, worker, seq) SELECT ?1, ?2, ?3
    WHERE NOT EXISTS (SELECT 1 FROM workers WHERE session = ?1 AND worker = ?2 AND seq <= ?3)
    """
_OF_WORKER = """
    WHERE session = ?1 AND worker = ?2
    AND seq = (SELECT max(seq) FROM workers WHERE session = ?1 AND worker = ?2 AND seq <= ?3)
    """


# Episodes --------------------------------------------------------------------------------------------------------


def _episode_started(record: Record[EpisodeStarted]) -> Row:
    event = record.event
    return (
        event.session,
        event.worker,
        event.episode,
        event.env_id,
        event.seed,
        event.evaluation,
        event.captured,
        event.capture,
        event.recording,
        event.first_frame,
        event.time or _time(record),
        _json(event.observation),
        _json(event.info),
        _json(event.nonfinite) if event.nonfinite else None,
        event.training_step,
    )


def _agent(record: Record[EpisodeEnded]) -> Row:
    event = record.event
    return (event.session, event.worker, event.episode, event.agent)


def _named_agent(record: Record[EpisodeEnded]) -> Row | None:
    return None if record.event.agent == "agent_0" else _agent(record)[:3]


def _episode_ended(record: Record[EpisodeEnded]) -> Row:
    event = record.event
    return (
        *_agent(record),
        event.env_id,
        event.outcome,
        event.total_reward,
        event.steps,
        event.success,
        event.seconds,
        event.env_steps,
        event.evaluation,
        event.recording,
        event.time or _time(record),
        _json(event.nonfinite) if event.nonfinite else None,
        event.training_step,
    )


_FROM_START = (
    "env_id, seed, evaluation, captured, capture, recording, first_frame, started, "
    "reset_observation, reset_info, reset_nonfinite, training_step"
)

# A start names no agent. Its row is agent_0's, and each other agent's end takes a copy.
_EPISODE_STARTED = f"""
    INSERT INTO episodes (session, worker, episode, agent, {_FROM_START})
    VALUES (?, ?, ?, 'agent_0', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET {", ".join(f"{column} = excluded.{column}" for column in _FROM_START.split(", "))}
    """
_EPISODE_OF_AGENT = f"""
    INSERT INTO episodes (session, worker, episode, agent, {_FROM_START})
    SELECT session, worker, episode, ?4, {_FROM_START} FROM episodes
    WHERE session = ?1 AND worker = ?2 AND episode = ?3 LIMIT 1
    ON CONFLICT DO NOTHING
    """
_EPISODE_ENDED = """
    INSERT INTO episodes (session, worker, episode, agent, env_id, outcome, total_reward, steps, success, seconds,
                          env_steps, evaluation, recording, ended, nonfinite, training_step)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        env_id = excluded.env_id, outcome = excluded.outcome, total_reward = excluded.total_reward,
        steps = excluded.steps, success = excluded.success, seconds = excluded.seconds,
        env_steps = excluded.env_steps, evaluation = excluded.evaluation,
        recording = coalesce(recording, excluded.recording),
        ended = excluded.ended, nonfinite = excluded.nonfinite,
        training_step = coalesce(excluded.training_step, training_step)
    """
_EPISODE_OF_NOBODY = """
    DELETE FROM episodes
    WHERE session = ?1 AND worker = ?2 AND episode = ?3 AND agent = 'agent_0' AND outcome IS NULL
    """


# Recordings and videos -------------------------------------------------------------------------------------------


def _recording_started(record: Record[RecordingStarted]) -> Row:
    event = record.event
    return (
        record.seq,
        event.recording,
        event.session,
        event.worker,
        event.episode,
        event.env_id,
        event.path,
        event.fps,
        event.width,
        event.height,
        event.frames_wanted,
        _time(record),
    )


def _continued(record: Record[FrameSizeChanged]) -> Row:
    return (record.event.continued_as, record.event.recording)


def _recording_sealed(record: Record[RecordingSealed]) -> Row:
    event = record.event
    return (
        record.seq,
        event.recording,
        event.session,
        event.worker,
        event.first_episode,
        event.last_episode,
        event.chunks,
        event.frames,
        event.frames_dropped,
        event.complete,
        event.incomplete_because,
        event.total_reward,
        _json(event.kept_for),
        event.path or None,
        event.training_step,
        _time(record),
    )


def _seal(record: Record[RecordingSealed]) -> Row:
    event = record.event
    return (event.recording, event.frames, event.session, event.worker, event.first_episode, event.last_episode)


def _discarded(record: Record[RecordingDiscarded]) -> Row:
    event = record.event
    return (record.seq, event.recording, event.session, event.why, _time(record))


def _available(record: Record[VideoAvailable]) -> Row:
    event = record.event
    return (
        record.seq,
        event.recording,
        event.session,
        event.worker,
        event.first_episode,
        event.last_episode,
        event.path,
        event.sha256,
        event.size_bytes,
        event.frames,
        event.fps,
        event.width,
        event.height,
        event.codec,
        event.seconds,
        event.thumbnail,
        _json(event.kept_for),
        event.complete,
        event.incomplete_because,
        event.total_reward,
        event.training_step,
        _time(record),
    )


def _failed(record: Record[VideoFailed]) -> Row:
    event = record.event
    return (
        record.seq,
        event.recording,
        event.session,
        event.attempts,
        event.reason,
        event.frames_kept_in,
        _time(record),
    )


def _pin(record: Record[VideoPinned | VideoUnpinned]) -> Row:
    event = record.event
    pinned = isinstance(event, VideoPinned)
    return (pinned, event.by if pinned else None, event.recording)


def _pruned(record: Record[VideoPruned]) -> Row:
    event = record.event
    return (
        record.seq,
        event.recording,
        event.session,
        event.path,
        event.policy,
        event.reason,
        event.by,
        _time(record),
    )


def _recording(record: Record[VideoAvailable | VideoPruned]) -> Row:
    return (record.event.recording,)


def _upsert_video(state: str, columns: str) -> str:
    """Insert a recording that was not heard of, or say more of one that was. A null says nothing."""
    names = columns.split(", ")
    updates = ", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in names)
    return f"""
        INSERT INTO videos (state, id, recording, {columns}) VALUES ('{state}', {", ".join("?" * (len(names) + 2))})
        ON CONFLICT (recording) DO UPDATE SET state = excluded.state, {updates}
        """


_CONTINUED = "UPDATE videos SET continued_as = ? WHERE recording = ?"
_PIN = "UPDATE videos SET pinned = ?, pinned_by = ? WHERE recording = ?"


# What episodes and steps show ------------------------------------------------------------------------------------


def _shown(record: Record[EpisodeEnded | RecordingStarted]) -> Row | None:
    event = record.event
    return None if event.recording is None else (event.recording, event.session, event.worker, event.episode)


def _step_shown(record: Record[StepRecorded]) -> Row:
    event = record.event
    return (event.recording, event.session, event.worker, event.episode, record.seq)


def _episode(record: Record[EpisodeEnded | StepRecorded]) -> Row | None:
    event = record.event
    if event.recording is None and isinstance(event, EpisodeEnded):
        return None
    return (event.session, event.worker, event.episode)


_SHOWN = "INSERT OR IGNORE INTO shown_episodes (recording, session, worker, episode) VALUES (?, ?, ?, ?)"

# Of steps, these two see only those that `Shown` does not know, and the first of an episode in each recording.
_STEP_PLACED = """
    UPDATE steps SET video_id = (
        SELECT id FROM videos WHERE recording = coalesce(?1, (
            SELECT recording FROM episodes
            WHERE session = ?2 AND worker = ?3 AND episode = ?4 AND captured IS NOT NULL LIMIT 1
        ))
    )
    WHERE seq = ?5 AND video_id IS NULL
    """
_STEP_SHOWN = """
    INSERT OR IGNORE INTO shown_episodes (recording, session, worker, episode)
    SELECT coalesce(?1, (SELECT recording FROM videos WHERE id = (SELECT video_id FROM steps WHERE seq = ?5))),
           ?2, ?3, ?4
    """

# A step whose recording began before the log does learns its video here; one whose picture was lost loses its frame.
# The bound on seq keeps to the recording's own stretch of an episode that may have lasted for days before it.
_STEPS_SEALED = """
    UPDATE steps SET
        video_id = CASE WHEN frame < ?2 THEN shown.id END,
        frame = CASE WHEN frame < ?2 THEN frame END
    FROM (
        SELECT videos.id, CASE WHEN videos.started IS NULL THEN 0 ELSE videos.id END AS first_seq,
               sessions.id AS session_id, shown_episodes.worker, shown_episodes.episode
        FROM videos JOIN shown_episodes USING (recording) JOIN sessions ON sessions.session = shown_episodes.session
        WHERE videos.recording = ?1
    ) AS shown
    WHERE steps.session_id = shown.session_id AND steps.worker = shown.worker AND steps.episode = shown.episode
    AND steps.seq >= shown.first_seq AND frame IS NOT NULL
    AND (video_id IS NULL OR (frame >= ?2 AND video_id = shown.id))
    """
_EPISODES_SEALED = """
    UPDATE episodes SET first_frame = NULL
    FROM (
        SELECT session, worker, episode FROM shown_episodes WHERE recording = ?1
        UNION
        SELECT session, worker, episode FROM episodes WHERE session = ?3 AND worker = ?4 AND episode BETWEEN ?5 AND ?6
    ) AS shown
    WHERE episodes.session = shown.session AND episodes.worker = shown.worker AND episodes.episode = shown.episode
    AND recording = ?1 AND first_frame >= ?2
    """

# An episode's video is the first begun of those that stand and show some of it.
_FIRST_STANDING = """
    UPDATE episodes SET video_path = (
        SELECT path FROM shown_episodes JOIN videos USING (recording)
        WHERE shown_episodes.session = episodes.session AND shown_episodes.worker = episodes.worker
        AND shown_episodes.episode = episodes.episode AND state = 'available'
        ORDER BY id LIMIT 1
    )
    """
_VIDEO_PATHS = f"""
    {_FIRST_STANDING}
    FROM (SELECT session, worker, episode FROM shown_episodes WHERE recording = ?) AS shown
    WHERE episodes.session = shown.session AND episodes.worker = shown.worker AND episodes.episode = shown.episode
    """
_VIDEO_PATH = f"{_FIRST_STANDING} WHERE session = ? AND worker = ? AND episode = ?"


WRITES = (
    Write(
        (SessionStarted,),
        """
        UPDATE sessions SET kind = ?, env_id = ?, env_kwargs = ?, label = ?, tags = ?, workers = ?, seed = ?,
            observation_space = ?, action_space = ?, render_fps = ?, configuration = ?, versions = ?, started = ?
        WHERE session = ?
        """,
        _session_started,
    ),
    Write(
        (SessionEnded,),
        """
        UPDATE sessions SET outcome = ?, episodes = ?, steps = ?, recordings = ?, frames_dropped = ?,
            steps_dropped = ?, ended = ?
        WHERE session = ?
        """,
        _session_ended,
    ),
    Write(
        (WorkerStarted,),
        "INSERT OR REPLACE INTO workers (session, worker, seq, pid, env_id, started) VALUES (?, ?, ?, ?, ?, ?)",
        _worker_started,
    ),
    Write((WorkerFailed,), _WORKER_UNKNOWN, _worker),
    Write((WorkerFailed,), f"UPDATE workers SET error = ?4, traceback = ?5 {_OF_WORKER}", _worker_failed),
    Write((WorkerEnded,), _WORKER_UNKNOWN, _worker),
    Write(
        (WorkerEnded,),
        f"""
        UPDATE workers SET outcome = ?4, steps = ?5, frames_dropped = ?6, steps_dropped = ?7, ended = ?8 {_OF_WORKER}
        """,
        _worker_ended,
    ),
    Write((EpisodeStarted,), _EPISODE_STARTED, _episode_started),
    Write((EpisodeEnded,), _EPISODE_OF_AGENT, _agent),
    Write((EpisodeEnded,), _EPISODE_ENDED, _episode_ended),
    Write((EpisodeEnded,), _EPISODE_OF_NOBODY, _named_agent),
    Write(
        (RecordingStarted,),
        _upsert_video(
            "recording", "session, worker, first_episode, env_id, path, fps, width, height, frames_wanted, started"
        ),
        _recording_started,
    ),
    Write((EpisodeEnded, RecordingStarted), _SHOWN, _shown),
    Write((StepRecorded,), _STEP_PLACED, _step_shown),
    Write((StepRecorded,), _STEP_SHOWN, _step_shown),
    Write(
        (RecordingSealed,),
        _upsert_video(
            "sealed",
            "session, worker, first_episode, last_episode, chunks, frames, frames_dropped, complete, "
            "incomplete_because, total_reward, kept_for, path, training_step, sealed",
        ),
        _recording_sealed,
    ),
    Write((FrameSizeChanged,), _CONTINUED, _continued),
    Write((RecordingSealed,), _STEPS_SEALED, lambda record: _seal(record)[:2]),
    Write((RecordingSealed,), _EPISODES_SEALED, _seal),
    Write((RecordingDiscarded,), _upsert_video("discarded", "session, reason, ended"), _discarded),
    Write(
        (VideoAvailable,),
        _upsert_video(
            "available",
            "session, worker, first_episode, last_episode, path, sha256, size_bytes, frames, fps, width, height, "
            "codec, seconds, thumbnail, kept_for, complete, incomplete_because, total_reward, training_step, available",
        ),
        _available,
    ),
    Write((VideoFailed,), _upsert_video("failed", "session, attempts, reason, frames_kept_in, ended"), _failed),
    Write((VideoPinned, VideoUnpinned), _PIN, _pin),
    Write((VideoPruned,), _upsert_video("pruned", "session, path, policy, reason, asked_by, ended"), _pruned),
    Write((VideoAvailable, VideoPruned), _VIDEO_PATHS, _recording),
    Write((EpisodeEnded, StepRecorded), _VIDEO_PATH, _episode),
)

WRITES_OF = {
    kind: tuple(index for index, write in enumerate(WRITES) if kind in write.kinds)
    for kind in {kind for write in WRITES for kind in write.kinds}
}
"""For each type of event, the places of its writes in `WRITES`."""
