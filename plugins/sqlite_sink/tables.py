"""Tables: a batch of the log's records becomes rows, which one transaction writes together with the cursor."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from kernel.fail_points import fail_point
from plugins.events import StepRecorded
from plugins.sqlite_sink.rows import INSERT_SESSION, WRITES, WRITES_OF, Row, insert_steps, step_row
from plugins.sqlite_sink.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from kernel.event import Event, Record

# SQLite lets go of the GIL for each statement, and beside a busy event loop gets it back only milliseconds later. One
# row a statement would then be 2 ms a row (measured), so as many rows as there are go into one; SQLite takes no more
# than 32,766 values.
_ROWS_AT_ONCE = (1800, 450, 112, 28, 7, 1)


class Tables:
    """The tables of one database, which `schema.prepare` has brought to the newest version."""

    def __init__(self, connection: aiosqlite.Connection, session_ids: dict[str, int]) -> None:
        self._connection = connection
        self._session_ids = session_ids
        self._shown = Shown()
        self._new_sessions: list[Row] = []

    @classmethod
    async def open(cls, connection: aiosqlite.Connection) -> Self:
        """Load what rows refer to by number: each session's id; the videos that steps show are known as they begin."""
        async with connection.execute("SELECT session, id FROM sessions") as rows:
            return cls(connection, {session: number async for session, number in rows})

    async def write(self, records: list[Record[Any]], sync: Callable[[], Awaitable[None]] | None = None) -> None:
        """Write what these records come to, and the cursor, in one transaction. A failure leaves it open: close then.

        The records follow those of the call before. It is committed when `sync` has returned, too.
        """
        connection = self._connection
        fail_point("tables.write.before")
        await connection.execute("BEGIN IMMEDIATE")
        await asyncio.gather(self._insert(records), *([sync()] if sync is not None else []))
        await connection.execute("UPDATE cursor SET seq = ?", (records[-1].seq,))
        fail_point("tables.commit.before")
        await connection.execute("COMMIT")
        fail_point("tables.commit.after")

    async def _insert(self, records: list[Record[Any]]) -> None:
        """Make rows here, while SQLite writes those before in its thread."""
        groups: list[list[Row]] = [[] for _ in WRITES]
        steps: list[Row] = []
        at_once, writing = _ROWS_AT_ONCE[0], None
        for start in range(0, len(records), at_once):
            self._sort_in(records[start : start + at_once], steps, groups)
            if len(steps) < at_once:
                continue
            if writing is not None:
                await writing
            writing = asyncio.create_task(self._insert_steps(steps[:at_once]))
            del steps[:at_once]
            await asyncio.sleep(0)  # so that it begins
        if writing is not None:
            await writing
        await self._insert_steps(steps)
        for write, rows in zip(WRITES, groups, strict=True):
            if rows:
                await self._connection.executemany(write.sql, rows)

    def _sort_in(self, records: list[Record[Any]], steps: list[Row], groups: list[list[Row]]) -> None:
        """The rows of `steps`, and for each of `WRITES` its rows."""
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

    async def _insert_steps(self, steps: list[Row]) -> None:
        if self._new_sessions:
            new, self._new_sessions = self._new_sessions, []
            await self._connection.executemany(INSERT_SESSION, new)
        start = 0
        for at_once in _ROWS_AT_ONCE:
            while len(steps) - start >= at_once:
                values = list(chain.from_iterable(steps[start : start + at_once]))
                await self._connection.execute(_INSERT_STEPS[at_once], values)
                start += at_once

    def _new_session(self, session: str) -> int:
        session_id = self._session_ids[session] = len(self._session_ids) + 1
        self._new_sessions.append((session_id, session))
        return session_id


_INSERT_STEPS = {at_once: insert_steps(at_once) for at_once in _ROWS_AT_ONCE}
