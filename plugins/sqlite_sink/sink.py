"""The plugin: batches of the log, each written with its cursor in one transaction."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite
import anyio
import msgspec

from kernel.files import on_network, wants_space
from kernel.plugin import Options, Plugin, Refused, on_batch
from plugins.events import StepRecorded
from plugins.sqlite_sink.rows import INSERT_SESSION, WRITES, WRITES_OF, Row, insert_steps, step_row
from plugins.sqlite_sink.schema import OLDEST_SQLITE, prepare, refuse_header
from plugins.sqlite_sink.shown import Shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kernel.event import Event, Record

BUSY_SECONDS = 30.0
"""How long to wait while another program writes to the database."""

# SQLite lets go of the GIL for each statement, and beside a busy event loop gets it back only milliseconds later. One
# row a statement would then be 2 ms a row (measured), so as many rows as there are go into one.
_ROWS_AT_ONCE = (512, 64, 8, 1)


class SqliteSinkOptions(Options):
    path: Path = Path("stepreel.sqlite")
    """The database file; relative to the home. Its folder is made where it is missing."""


class SqliteSink(Plugin[SqliteSinkOptions]):
    """Keeps the log's sessions, workers, episodes, steps and videos as tables of one SQLite database.

    The seq of the last event taken in is committed with its rows, so that each event counts exactly once, whatever
    is killed, and a database that was deleted is rebuilt from the log with the same rows.
    """

    rebuild = (
        "Delete the database (`path` in the sink's table; stepreel.sqlite in the home unless set) and start again: "
        "it is rebuilt from the log."
    )

    async def check(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise Refused(f"This Python comes with SQLite {sqlite3.sqlite_version}; {oldest} or newer is needed.")
        nearest = self._file
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if nearest != self._file and not nearest.is_dir():
            raise Refused(f"{self._file}: {nearest} is a file. Set another `path`.")
        if not os.access(nearest, os.W_OK):
            raise Refused(f"{self._file}: {nearest} is not writable for this user. Set another `path`.")
        if nearest == self._file:
            refuse_header(self._file)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        home_id = msgspec.json.decode((self.home / "home.json").read_bytes(), type=_Home).id
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = await aiosqlite.connect(self._file, isolation_level=None, timeout=BUSY_SECONDS)
        except (OSError, sqlite3.OperationalError) as error:
            if wants_space(error):
                raise
            raise Refused(f"{self._file}: cannot be opened: {error}. Set another `path`.") from None
        try:
            shared = on_network(self._file) is not None
            with _full_disk_told(self._file):
                if shared:
                    await _keep_to_itself(self._connection)
                await prepare(self._connection, self._file, home_id)
                if shared:
                    await _give_up_wal(self._connection)
                await self._load()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await _close(self._connection)

    async def cursor(self) -> int:
        async with self._connection.execute("SELECT seq FROM cursor") as rows:
            found = await rows.fetchone()
        assert found is not None
        return int(found[0])

    @on_batch(*WRITES_OF, size=4000, within=0.25)
    async def write(self, records: list[Record[Any]]) -> None:
        """Write the rows of these events and the cursor, once the log itself is on disk.

        A failure, or a kill, anywhere in here leaves the last batch's state: the connection ends with its transaction.
        """
        steps, groups = self._rows(records)
        await self.sync()
        with _full_disk_told(self._file):
            await self._commit(steps, groups, records[-1].seq)

    async def _commit(self, steps: list[Row], groups: list[list[Row]], seq: int) -> None:
        connection = self._connection
        await connection.execute("BEGIN IMMEDIATE")
        if self._new_sessions:
            await connection.executemany(INSERT_SESSION, self._new_sessions)
            self._new_sessions.clear()
        await self._insert(steps)
        for write, rows in zip(WRITES, groups, strict=True):
            if rows:
                await connection.executemany(write.sql, rows)
        await connection.execute("UPDATE cursor SET seq = ?", (seq,))
        await connection.execute("COMMIT")

    @property
    def _file(self) -> Path:
        return self.home / self.options.path

    async def _load(self) -> None:
        """What rows refer to by number: each session's id; the videos that steps show are known as they begin."""
        async with self._connection.execute("SELECT session, id FROM sessions") as rows:
            self._session_ids: dict[str, int] = {session: number async for session, number in rows}
        self._shown = Shown()
        self._new_sessions: list[Row] = []

    def _rows(self, records: list[Record[Any]]) -> tuple[list[Row], list[list[Row]]]:
        """The rows of `steps`, and for each of `WRITES` its rows."""
        steps: list[Row] = []
        groups: list[list[Row]] = [[] for _ in WRITES]
        session_ids, shown = self._session_ids, self._shown
        for record in records:
            event: Event = record.event
            if type(event) is StepRecorded:
                session_id = session_ids.get(event.session) or self._new_session(event.session)
                video_id, is_news = (None, False) if event.frame is None else shown.place(event)
                steps.append(step_row(record, session_id, video_id))
                if not is_news:
                    continue
            else:
                session = getattr(event, "session", None)
                if session is not None and session not in session_ids:
                    self._new_session(session)
                shown.follow(record)
            for index in WRITES_OF.get(type(event), ()):
                row = WRITES[index].row(record)
                if row is not None:
                    groups[index].append(row)
        return steps, groups

    def _new_session(self, session: str) -> int:
        session_id = self._session_ids[session] = len(self._session_ids) + 1
        self._new_sessions.append((session_id, session))
        return session_id

    async def _insert(self, steps: list[Row]) -> None:
        start = 0
        for at_once in _ROWS_AT_ONCE:
            while len(steps) - start >= at_once:
                values = [value for row in steps[start : start + at_once] for value in row]
                await self._connection.execute(_INSERT_STEPS[at_once], values)
                start += at_once


class _Home(msgspec.Struct):
    id: str


async def _keep_to_itself(connection: aiosqlite.Connection) -> None:
    """Have no file in shared memory beside the database, which a network file system cannot offer."""
    await connection.execute("PRAGMA locking_mode = EXCLUSIVE")


async def _give_up_wal(connection: aiosqlite.Connection) -> None:
    """Keep an ordinary journal, and let others read between two batches again."""
    await connection.execute("PRAGMA journal_mode = DELETE")
    await connection.execute("PRAGMA synchronous = FULL")  # an ordinary journal needs it to survive a power loss
    await connection.execute("PRAGMA locking_mode = NORMAL")
    await connection.execute("SELECT 1 FROM cursor")  # the next access lets the lock go


async def _close(connection: aiosqlite.Connection) -> None:
    """Leave the whole database in its one file, also where somebody else still reads it."""
    try:
        with suppress(sqlite3.OperationalError):  # a full disk, say: the next start does it
            await connection.execute("PRAGMA busy_timeout = 0")
            await connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        await connection.close()


@contextmanager
def _full_disk_told(file: Path) -> Iterator[None]:
    """Say it in the system's word where SQLite finds the disk full, so that the kernel waits for room."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(file)) from error


_INSERT_STEPS = {at_once: insert_steps(at_once) for at_once in _ROWS_AT_ONCE}
