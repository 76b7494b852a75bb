"""Sessions: what ran in a home, how it went, and which episodes of two of them make a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.files import holder
from plugins.viewer.answers import Wrong
from plugins.viewer.files import is_regular
from plugins.viewer.ids import EpisodeId
from plugins.viewer.videos import json_or

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from pathlib import Path

MOST_PAIRS = 10_000
MOST_SESSIONS = 8
"""In one question about progress."""


def all_sessions(connection: sqlite3.Connection, home: Path, paused: Collection[str]) -> list[dict[str, Any]]:
    """Every session, the newest first."""
    videos = {
        session: counts
        for session, *counts in connection.execute(
            """
            SELECT session, count(*), sum(size_bytes), sum(pinned) FROM videos
            WHERE state = 'available' GROUP BY session
            """
        )
    }
    played = {
        session: counts
        for session, *counts in connection.execute(
            """
            SELECT session, count(*), sum(evaluation) FROM (
                SELECT session, max(evaluation) AS evaluation FROM episodes
                WHERE outcome IS NOT NULL GROUP BY session, worker, episode
            ) GROUP BY session
            """
        )
    }
    rows = connection.execute(
        """
        SELECT session, label, env_id, kind, tags, workers, seed, started, ended, outcome, steps FROM sessions
        ORDER BY started IS NULL, started DESC, id DESC
        """
    )
    found = []
    for session, label, env_id, kind, tags, workers, seed, started, ended, outcome, steps in rows:
        count, size_bytes, pinned = videos.get(session, (0, 0, 0))
        episodes, evaluations = played.get(session, (0, 0))
        running = outcome is None and is_running(home, session)
        found.append(
            {
                "session": session,
                "label": label or "",
                "env_id": env_id or "",
                "kind": kind or "",
                "tags": json_or(tags, []),
                "workers": workers,
                "seed": seed,
                "started": started,
                "ended": ended,
                "outcome": outcome if outcome is not None or running else "lost",
                "running": running,
                "paused": running and session in paused,
                "episodes": episodes,
                "steps": steps if steps is not None else _steps_so_far(connection, session),
                "videos": count,
                "video_bytes": size_bytes or 0,
                "pinned": pinned or 0,
                "evaluation_episodes": evaluations or 0,
            }
        )
    return found


def is_running(home: Path, session: str) -> bool:
    """Whether the process that began a session lives, and has not said that it is over."""
    if not session or "/" in session or session.startswith(".") or "\0" in session:
        return False
    lock = home / "sessions" / session / "lock"
    try:
        return is_regular(lock) and holder(lock) is not None
    except OSError:
        return False


def progress(connection: sqlite3.Connection, sessions: Sequence[str], points: int) -> list[dict[str, Any]]:
    """How returns, lengths and successes went, session by session; of the newest one where none is named."""
    if not sessions:
        row = connection.execute("SELECT session FROM sessions ORDER BY started DESC LIMIT 1").fetchone()
        sessions = [row[0]] if row is not None else []
    if len(sessions) > MOST_SESSIONS:
        raise Wrong(400, f"session: at most {MOST_SESSIONS} at a time")
    return [_progress_of(connection, session, points) for session in dict.fromkeys(sessions)]


def pairs(connection: sqlite3.Connection, one: str, other: str) -> list[dict[str, Any]]:
    """Episodes of two sessions that had the same environment and seed; those with two videos first."""
    rows = connection.execute(
        """
        SELECT a.seed, a.session, a.worker, a.episode, a.agent, b.session, b.worker, b.episode, b.agent,
               a.total_reward, b.total_reward, a.video_path IS NOT NULL AND b.video_path IS NOT NULL AS both
        FROM episodes a JOIN episodes b ON a.seed = b.seed AND a.env_id = b.env_id AND a.agent = b.agent
        WHERE a.session = ? AND b.session = ? ORDER BY both DESC, a.episode, a.worker LIMIT ?
        """,
        (one, other, MOST_PAIRS),
    )
    return [
        {
            "seed": row[0],
            "a": str(EpisodeId(*row[1:5])),
            "b": str(EpisodeId(*row[5:9])),
            "return_a": row[9],
            "return_b": row[10],
            "videos": bool(row[11]),
        }
        for row in rows
    ]


def _steps_so_far(connection: sqlite3.Connection, session: str) -> int:
    (steps,) = connection.execute(
        """
        SELECT sum(steps) FROM (
            SELECT max(steps) AS steps FROM episodes WHERE session = ? GROUP BY worker, episode
        )
        """,
        (session,),
    ).fetchone()
    return int(steps or 0)


def _progress_of(connection: sqlite3.Connection, session: str, points: int) -> dict[str, Any]:
    about = connection.execute("SELECT label, env_id FROM sessions WHERE session = ?", (session,)).fetchone()
    if about is None:
        raise Wrong(404, f"there is no session {session}")
    rows = connection.execute(
        """
        SELECT worker, episode, agent, total_reward, steps, success, evaluation, ended, training_step,
               CASE WHEN video_path IS NOT NULL THEN (
                   SELECT id FROM shown_episodes s JOIN videos USING (recording)
                   WHERE s.session = e.session AND s.worker = e.worker AND s.episode = e.episode
                   AND state = 'available' ORDER BY id LIMIT 1
               ) END
        FROM episodes e WHERE session = ? AND outcome IS NOT NULL ORDER BY ended, episode, worker, agent
        """,
        (session,),
    ).fetchall()
    columns: dict[str, list[Any]] = {
        name: []
        for name in (*("id", "x", "return", "length", "success", "evaluation", "worker", "episode", "ended", "video"),)
    }
    stride = max(1, -(-len(rows) // max(1, points)))
    played, last = 0, None
    for number, row in enumerate(rows):
        worker, episode, agent, total, steps, success, evaluation, ended, training_step, video = row
        if (worker, episode) != last:  # each agent of an episode has a row, and their steps are the same ones
            played += steps or 0
            last = worker, episode
        if number % stride and video is None and number != len(rows) - 1:
            continue
        columns["id"].append(str(EpisodeId(session, worker, episode, agent)))
        columns["x"].append(played if training_step is None else training_step)
        columns["return"].append(total)
        columns["length"].append(steps)
        columns["success"].append(None if success is None else bool(success))
        columns["evaluation"].append(bool(evaluation))
        columns["worker"].append(worker)
        columns["episode"].append(episode)
        columns["ended"].append(ended)
        columns["video"].append(video)
    label, env_id = about
    return {
        "session": session,
        "label": label or "",
        "env_id": env_id or "",
        "total": len(rows),
        "columns": columns,
    }
