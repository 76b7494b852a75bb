"""Tables: a batch of the log's records becomes rows, which one transaction writes together with the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from kernel.fail_points import fail_point
from plugins.events import StepRecorded
from plugins.sqlite_sink.rows import INSERT_SESSION, WRITES, WRITES_OF, Row, insert_steps, step_row
from plugins.sqlite_sink.shown import Shown

if TYPE_CHECKING:
    import aiosqlite

    from kernel.event import Event, Record

# SQLite lets go of the GIL for each statement, and beside a busy event loop gets it back only milliseconds later. One
# row a statement would then be 2 ms a row (measured), so as many rows as there are go into one.
_ROWS_AT_ONCE = (512, 64, 8, 1)


class Batch(NamedTuple):
    """What some records of the log come to."""

    steps: list[Row]
    groups: list[list[Row]]
    """For each of `WRITES` its rows."""
    seq: int
    """Of the last record."""


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

    def batch(self, records: list[Record[Any]]) -> Batch:
        """The rows of these records, which follow those of the batch before."""
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
        return Batch(steps, groups, records[-1].seq)

    async def write(self, batch: Batch) -> None:
        """Write a batch and the cursor, in one transaction. A failure leaves it open: close the connection then."""
        connection = self._connection
        fail_point("tables.write.before")
        await connection.execute("BEGIN IMMEDIATE")
        if self._new_sessions:
            await connection.executemany(INSERT_SESSION, self._new_sessions)
            self._new_sessions.clear()
        await self._insert(batch.steps)
        for write, rows in zip(WRITES, batch.groups, strict=True):
            if rows:
                await connection.executemany(write.sql, rows)
        await connection.execute("UPDATE cursor SET seq = ?", (batch.seq,))
        fail_point("tables.commit.before")
        await connection.execute("COMMIT")
        fail_point("tables.commit.after")

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


_INSERT_STEPS = {at_once: insert_steps(at_once) for at_once in _ROWS_AT_ONCE}
