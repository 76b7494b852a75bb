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
from plugins.sqlite_sink.rows import WRITES_OF
from plugins.sqlite_sink.schema import OLDEST_SQLITE, prepare, refuse_header
from plugins.sqlite_sink.tables import Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kernel.event import Record

BUSY_SECONDS = 30.0
"""How long to wait while another program writes to the database."""


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
                self._tables = await Tables.open(self._connection)
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
        """Write the rows of these events and the cursor; committed once the log itself is on disk.

        A failure, or a kill, anywhere in here leaves the last batch's state: the connection ends with its transaction.
        """
        with _full_disk_told(self._file):
            await self._tables.write(records, self.sync)

    @property
    def _file(self) -> Path:
        return self.home / self.options.path


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
            await connection.rollback()  # where a batch was called off in its midst
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
