"""The tables: read-only questions to the sink's database, asked in threads, a few at a time."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from plugins.viewer.answers import Wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

SIDE_BY_SIDE = 3
QUESTION_SECONDS = 20.0
"""A question that takes longer is broken off: a database that a stranger made may ask for ever."""
APPLICATION_ID = 0x53746570
OLDEST_VERSION = 2
"""Of the schema: the first that has `shown_episodes`."""


class NoTables(Wrong):
    """There is no database to ask."""


class Tables:
    """The database of a home, which may come, grow, be replaced, and go.

    It is opened for each question and closed behind it, which takes a millisecond: nothing of ours is in the sink's way
    when it closes.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._turns = anyio.CapacityLimiter(SIDE_BY_SIDE)
        self._closed = False

    async def ask(self, question: Callable[..., T], *arguments: Any) -> T:
        """Call a function with a connection and the arguments, in a thread. Raises `Wrong` where that fails.

        What it reads is one state of the database, all of it.
        """
        return await anyio.to_thread.run_sync(self._ask, question, arguments, limiter=self._turns)

    def stamp(self) -> tuple[int, int]:
        """What changes when the database does. Blocks for a moment."""
        stamps = []
        for file in (self.file, self.file.with_name(self.file.name + "-wal")):
            try:
                stamps.append(file.stat().st_mtime_ns)
            except OSError:
                stamps.append(0)
        return stamps[0], stamps[1]

    def close(self) -> None:
        """Break off what is being asked."""
        self._closed = True

    def _ask(self, question: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with closing(self._open()) as connection:
            deadline = time.monotonic() + QUESTION_SECONDS
            connection.set_progress_handler(lambda: self._closed or time.monotonic() > deadline, 100_000)
            try:
                connection.execute("BEGIN")
                return question(connection, *arguments)
            except sqlite3.Error as failure:
                raise Wrong(503, f"{self.file.name}: {failure}") from None

    def _open(self) -> sqlite3.Connection:
        if not self.file.is_file():
            raise NoTables(404, "there are no tables: nothing was recorded here yet, or no SQLite sink runs")
        address = f"file:{quote(os.fspath(self.file))}?mode=ro"
        try:
            try:
                return _usable(address)
            except sqlite3.OperationalError:
                # A folder that nobody may write to: what stands in the file itself can be read.
                if os.access(self.file.parent, os.W_OK):
                    raise
                return _usable(f"{address}&immutable=1")
        except sqlite3.Error as failure:
            raise NoTables(503, f"{self.file.name} cannot be read: {failure}") from None


def _usable(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is the database of another program, or empty")
        if connection.execute("PRAGMA user_version").fetchone()[0] < OLDEST_VERSION:
            raise sqlite3.DatabaseError("an older Stepreel made it; start a kernel on this home once to bring it up")
        connection.execute("SELECT count(*) FROM cursor").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
