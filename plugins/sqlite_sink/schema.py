"""The database's schema: tables, views, and the migrations that lead to them from any older version."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from kernel.fail_points import fail_point
from kernel.plugin import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiosqlite

Migration = tuple[str, ...]
"""The statements that lead from one version to the next; all of them are one transaction."""

APPLICATION_ID = 0x53746570  # "Step"
OLDEST_SQLITE = (3, 35, 0)

TABLES: Migration = (
    """
    CREATE TABLE cursor (
        home TEXT NOT NULL,           -- id of the home whose log this is
        seq INTEGER NOT NULL          -- every event up to here is in the tables
    )
    """,
    """
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY,       -- what steps.session_id means
        session TEXT NOT NULL UNIQUE,
        kind TEXT,                    -- runner or script
        env_id TEXT,
        env_kwargs TEXT,              -- JSON, as are all columns that are said to be
        label TEXT,
        tags TEXT,                    -- JSON
        workers INTEGER,
        seed TEXT,
        observation_space TEXT,       -- JSON
        action_space TEXT,            -- JSON
        render_fps REAL,
        configuration TEXT,           -- JSON
        versions TEXT,                -- JSON
        started REAL,                 -- all times: Unix time in seconds
        ended REAL,
        outcome TEXT,                 -- finished, stopped, failed, lost; null while it runs
        episodes INTEGER,             -- this and what follows: as the session's end says
        steps INTEGER,
        recordings INTEGER,
        frames_dropped INTEGER,
        steps_dropped INTEGER
    )
    """,
    """
    CREATE TABLE workers (
        session TEXT NOT NULL,
        worker INTEGER NOT NULL,
        seq INTEGER NOT NULL,         -- of the event that began it: a worker that was replaced has several rows
        pid INTEGER,
        env_id TEXT,
        started REAL,
        ended REAL,
        outcome TEXT,                 -- finished, failed, lost
        steps INTEGER,
        frames_dropped INTEGER,
        steps_dropped INTEGER,
        error TEXT,
        traceback TEXT,
        PRIMARY KEY (session, worker, seq)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE episodes (
        session TEXT NOT NULL,
        worker INTEGER NOT NULL,
        episode INTEGER NOT NULL,
        agent TEXT NOT NULL,
        env_id TEXT,
        seed TEXT,
        outcome TEXT,                 -- terminated, truncated, aborted; null while it runs
        total_reward REAL,            -- null where it is not finite
        steps INTEGER,
        success INTEGER,
        seconds REAL,
        env_steps INTEGER,            -- of its worker, at its end
        evaluation INTEGER,
        captured INTEGER,
        capture TEXT,                 -- why it was captured, or why not
        recording TEXT,
        first_frame INTEGER,          -- index in the recording of the picture after the reset
        video_path TEXT,              -- while a video stands that shows it; relative to the home, or absolute
        started REAL,                 -- when its start and its end reached the log
        ended REAL,
        reset_observation TEXT,       -- JSON
        reset_info TEXT,              -- JSON
        reset_nonfinite TEXT,         -- JSON: values of the reset that are null as JSON cannot say them
        nonfinite TEXT,               -- JSON: the same of the end
        PRIMARY KEY (session, worker, episode, agent)
    ) WITHOUT ROWID
    """,
    # The seq as the key: rows are only ever appended, and no two events can claim one row. With the session as a
    # number and one index, 103 bytes a row where its text would make it 153 (CartPole).
    """
    CREATE TABLE steps (
        seq INTEGER PRIMARY KEY,      -- its place in the log
        session_id INTEGER NOT NULL REFERENCES sessions (id),
        worker INTEGER NOT NULL,
        episode INTEGER NOT NULL,
        agent TEXT NOT NULL,
        step INTEGER NOT NULL,        -- from 1
        action TEXT,                  -- JSON
        reward REAL,
        terminated INTEGER NOT NULL,
        truncated INTEGER NOT NULL,
        observation TEXT,             -- JSON
        info TEXT,                    -- JSON
        video_id INTEGER REFERENCES videos (id),
        frame INTEGER,                -- index in the video of the picture after this step
        frames INTEGER NOT NULL,      -- pictures captured during this step
        time REAL NOT NULL,
        step_seconds REAL NOT NULL,
        nonfinite TEXT                -- JSON
    )
    """,
    "CREATE INDEX steps_of_episode ON steps (session_id, worker, episode)",
    """
    CREATE TABLE videos (
        id INTEGER PRIMARY KEY,       -- seq of the recording's first event; what steps.video_id means
        recording TEXT NOT NULL UNIQUE,
        session TEXT,
        worker INTEGER,
        first_episode INTEGER,
        last_episode INTEGER,
        env_id TEXT,
        state TEXT NOT NULL,          -- recording, sealed, available, failed, discarded, pruned
        path TEXT,                    -- where it is, will be or was; relative to the home, or absolute
        frames INTEGER,
        fps REAL,
        seconds REAL,
        width INTEGER,
        height INTEGER,
        size_bytes INTEGER,
        sha256 TEXT,
        codec TEXT,
        thumbnail TEXT,
        total_reward REAL,
        kept_for TEXT,                -- JSON
        pinned INTEGER NOT NULL DEFAULT 0,
        pinned_by TEXT,
        complete INTEGER,
        incomplete_because TEXT,
        chunks INTEGER,
        frames_dropped INTEGER,
        attempts INTEGER,             -- where it failed
        frames_kept_in TEXT,          -- where it failed
        policy TEXT,                  -- where it was pruned
        reason TEXT,                  -- why it failed, or was discarded or pruned
        asked_by TEXT,                -- who asked for its removal
        started REAL,
        sealed REAL,
        available REAL,
        ended REAL                    -- when it failed, or was discarded or pruned
    )
    """,
    "CREATE INDEX videos_of_worker ON videos (session, worker, first_episode)",
)

SCRIPTS: Migration = (
    "ALTER TABLE episodes ADD COLUMN training_step INTEGER",  # the training's own count, at its end, where it was told
    "ALTER TABLE videos ADD COLUMN training_step INTEGER",  # the same, when the recording began
    "ALTER TABLE videos ADD COLUMN frames_wanted INTEGER",  # null: one whole episode, or until somebody stopped it
    "ALTER TABLE videos ADD COLUMN continued_as TEXT",  # the recording that goes on with pictures of another size
    # A recording may span episodes, begin in the midst of one, and show those of several workers.
    """
    CREATE TABLE shown_episodes (
        recording TEXT NOT NULL,      -- which shows some of the episode; videos has what became of it
        session TEXT NOT NULL,
        worker INTEGER NOT NULL,      -- of the episode, as is all that follows
        episode INTEGER NOT NULL,
        PRIMARY KEY (recording, session, worker, episode)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX recordings_of_episode ON shown_episodes (session, worker, episode)",
    """
    INSERT INTO shown_episodes
    SELECT recording, session, worker, episode FROM episodes WHERE recording IS NOT NULL
    UNION
    SELECT recording, session, worker, first_episode FROM videos WHERE started IS NOT NULL
    """,
)

MIGRATIONS: tuple[Migration, ...] = (TABLES, SCRIPTS)
"""Entry i leads from version i to version i + 1. Published entries are never changed, only followed."""

VIEWS = {
    "episode_videos": """
        SELECT e.session, e.worker, e.episode, e.agent, e.env_id, e.seed, e.evaluation,
               e.total_reward, e.steps, e.outcome, e.success, v.recording, v.path AS video_path, v.fps,
               coalesce(
                   CASE WHEN e.recording = v.recording THEN e.first_frame END,
                   (SELECT min(s.frame - s.frames + 1) FROM steps s
                    WHERE s.session_id = (SELECT id FROM sessions x WHERE x.session = e.session)
                    AND s.worker = e.worker AND s.episode = e.episode AND s.seq >= v.first_seq AND s.video_id = v.id)
               ) AS first_frame,
               coalesce(
                   (SELECT max(s.frame) FROM steps s
                    WHERE s.session_id = (SELECT id FROM sessions x WHERE x.session = e.session)
                    AND s.worker = e.worker AND s.episode = e.episode AND s.seq >= v.first_seq AND s.video_id = v.id),
                   CASE WHEN e.recording = v.recording THEN e.first_frame END
               ) AS last_frame,
               e.training_step
        FROM (SELECT *, CASE WHEN started IS NULL THEN 0 ELSE id END AS first_seq FROM videos) v
        JOIN shown_episodes shown ON shown.recording = v.recording
        JOIN episodes e ON e.session = shown.session AND e.worker = shown.worker AND e.episode = shown.episode
        WHERE v.state = 'available'
        """,
    "step_media_time": """
        SELECT x.session, s.worker, s.episode, s.agent, s.step, s.action, s.reward, s.terminated, s.truncated,
               s.observation, s.info, s.time, s.step_seconds, s.nonfinite, s.seq,
               v.recording, s.frame, s.frame / v.fps AS media_seconds,
               CASE WHEN v.state = 'available' AND s.frame IS NOT NULL THEN v.path END AS video_path
        FROM steps s
        JOIN sessions x ON x.id = s.session_id
        LEFT JOIN videos v ON v.id = s.video_id
        """,
}
"""They hold nothing, so each migration makes them anew."""


async def prepare(
    connection: aiosqlite.Connection, file: Path, home_id: str, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Bring the database to the newest version. Raises `Refused` where it is newer, another home's or not ours."""
    try:
        version = await _pragma(connection, "user_version")
        tables = await _number(connection, "SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        raise Refused(f"{file}: {error}. Move it away, or set another `path`.") from None
    if tables and await _pragma(connection, "application_id") != APPLICATION_ID:
        raise Refused(f"{file}: is the database of another program. Move it away, or set another `path`.")
    if version > len(migrations):
        raise _newer(file, version, len(migrations))
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("PRAGMA synchronous = NORMAL")
    await connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
    if version < len(migrations):
        await _migrate(connection, version, home_id, migrations)
    async with connection.execute("SELECT home FROM cursor") as rows:
        found = await rows.fetchone()
    if found is None or found[0] != home_id:
        raise Refused(
            f"{file}: was made from the log of another home. "
            "Move it away and start again: it is rebuilt from this home's log. Or set another `path`."
        )


def refuse_header(file: Path) -> None:
    """Raise `Refused` for a file that `prepare` would refuse, as far as its first bytes tell; touches nothing."""
    try:
        with file.open("rb") as database:
            header = database.read(100)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}. Set another `path`.") from None
    if header and not header.startswith(b"SQLite format 3\0"):
        raise Refused(f"{file}: file is not a database. Move it away, or set another `path`.")
    version = int.from_bytes(header[60:64], "big")
    if version > len(MIGRATIONS):
        raise _newer(file, version, len(MIGRATIONS))


def _newer(file: Path, version: int, known: int) -> Refused:
    return Refused(
        f"{file}: has the schema version {version}, made by a newer Stepreel; this one knows {known}. "
        "Use the newer Stepreel, or move the file away and start again: it is rebuilt from the log."
    )


async def _migrate(
    connection: aiosqlite.Connection, version: int, home_id: str, migrations: Sequence[Migration]
) -> None:
    """Make the steps from `version` on, with the new views, in one transaction: a kill leaves the old version."""
    await connection.execute("BEGIN IMMEDIATE")
    for view in VIEWS:
        await connection.execute(f"DROP VIEW IF EXISTS {view}")
    for migration in migrations[version:]:
        for statement in migration:
            await connection.execute(statement)
    for view, select in VIEWS.items():
        await connection.execute(f"CREATE VIEW {view} AS {select}")
    if version == 0:
        await connection.execute("INSERT INTO cursor VALUES (?, 0)", (home_id,))
    await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    await connection.execute(f"PRAGMA user_version = {len(migrations)}")
    fail_point("schema.commit.before")
    await connection.execute("COMMIT")
    fail_point("schema.commit.after")


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    return await _number(connection, f"PRAGMA {name}")


async def _number(connection: aiosqlite.Connection, query: str) -> int:
    async with connection.execute(query) as rows:
        found = await rows.fetchone()
    assert found is not None
    return int(found[0])
