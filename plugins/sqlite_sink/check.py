"""The sink's part of `check-home`: the database is whole, and equals a rebuild from the log, row by row."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import aiosqlite
import anyio
import msgspec

from kernel.checks import Finding, trimmed
from kernel.log import last_seq, read
from kernel.wiring import last_options
from plugins.sqlite_sink.rows import WRITES_OF
from plugins.sqlite_sink.schema import APPLICATION_ID, MIGRATIONS, prepare
from plugins.sqlite_sink.sink import SqliteSink, SqliteSinkOptions
from plugins.sqlite_sink.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kernel.log import Log

ROWS = 4000
REMEDY = "Delete it: the next start rebuilds it from the log. --repair does so at once."
TABLES = ("sessions", "workers", "episodes", "steps", "videos", "shown_episodes")


def check(home: Path, live: bool) -> Iterator[Finding]:  # noqa: ARG001, FBT001 - as all checks have it
    """Look at the database that the home was last run with. One that is only behind the log is not wrong."""
    options = last_options(home, SqliteSink) or SqliteSinkOptions()
    file = home / options.path
    if not file.is_file():
        return
    home_id = msgspec.json.decode((home / "home.json").read_bytes(), type=dict[str, str])["id"]
    try:
        # Where there is no write-ahead log, a look would create one, and leave it there.
        how = "mode=ro" if _companions(file)[0].exists() else "immutable=1"
        connection = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, isolation_level=None, timeout=30)
        try:
            connection.execute("BEGIN")
            wrong = _fault(connection, home, home_id)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        wrong = f"cannot be read: {error}"
    if wrong:
        repair = None if trimmed(home) else _rebuilt(home, file, home_id)
        yield Finding(str(file), wrong, REMEDY, repair)


def _fault(connection: sqlite3.Connection, home: Path, home_id: str) -> str:
    """What is wrong with the database; empty where nothing is."""
    ((version,),) = connection.execute("PRAGMA user_version")
    ((application,),) = connection.execute("PRAGMA application_id")
    if application != APPLICATION_ID or version > len(MIGRATIONS):
        return "is the database of another program, or of a newer Stepreel"
    if version < len(MIGRATIONS):
        return ""  # the next start brings it up
    faults = [row[0] for row in connection.execute("PRAGMA integrity_check(1)") if row[0] != "ok"]
    if faults:
        return f"is damaged: {faults[0]}"
    ((known, seq),) = connection.execute("SELECT home, seq FROM cursor")
    if known != home_id:
        return "was made from the log of another home"
    if seq > last_seq(home):
        return f"is ahead of the log, which ends with event {last_seq(home)}: it has taken in event {seq}"
    if trimmed(home):
        return ""  # it holds what the log has no more
    with tempfile.TemporaryDirectory(prefix="stepreel-check-") as folder:
        rebuilt = Path(folder) / "rebuilt.sqlite"
        rebuild(home, rebuilt, home_id, seq)
        connection.execute("COMMIT")
        connection.execute("ATTACH ? AS rebuilt", (str(rebuilt),))
        connection.execute("BEGIN")
        ((now,),) = connection.execute("SELECT seq FROM main.cursor")
        if now != seq:
            return ""
        return _difference(connection)


def _difference(connection: sqlite3.Connection) -> str:
    for table in TABLES:
        there, due = f"SELECT * FROM main.{table}", f"SELECT * FROM rebuilt.{table}"  # noqa: S608 - our own names
        more = connection.execute(f"{there} EXCEPT {due}").fetchall()
        less = connection.execute(f"{due} EXCEPT {there}").fetchall()
        if more or less:
            example = repr((more or less)[0])[:200]
            return f"differs from the log in {max(len(more), len(less))} rows of {table}, such as {example}"
    return ""


def rebuild(home: Path, file: Path, home_id: str, up_to: int) -> None:
    """Make a database of the log's records up to a seq."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            anyio.run(_rebuild, home, file, home_id, up_to)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of whoever waits
            failed.append(error)

    thread = threading.Thread(target=work, name="rebuild")  # the caller's thread may have an event loop
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


async def _rebuild(home: Path, file: Path, home_id: str, up_to: int) -> None:
    async with aiosqlite.connect(file, isolation_level=None) as connection:
        await prepare(connection, file, home_id)
        await connection.execute("PRAGMA synchronous = OFF")
        tables = await Tables.open(connection)
        records = []
        for record in read(home, *WRITES_OF):
            if record.seq > up_to:
                break
            records.append(record)
            if len(records) == ROWS:
                await tables.write(records)
                records = []
        if records:
            await tables.write(records)
        await connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rebuilt(home: Path, file: Path, home_id: str) -> Callable[[Log], str]:
    def replace(log: Log) -> str:
        beside = file.with_name(f".{file.name}.rebuilt.tmp")
        for old in (beside, *_companions(beside)):
            old.unlink(missing_ok=True)
        rebuild(home, beside, home_id, log.last_seq)
        for old in (*_companions(beside), *_companions(file)):
            old.unlink(missing_ok=True)
        beside.replace(file)
        return "it was rebuilt from the log"

    return replace


def _companions(file: Path) -> tuple[Path, Path]:
    """The write-ahead log of a database and its index."""
    return file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
