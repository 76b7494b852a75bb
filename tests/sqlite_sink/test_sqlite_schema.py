from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import aiosqlite
import pytest

from kernel.plugin import Refused
from plugins.sqlite_sink.schema import MIGRATIONS, VIEWS, Migration, prepare, refuse_header

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stepreel.sqlite"


async def prepared(file: Path, *migrations: Migration) -> None:
    async with aiosqlite.connect(file, isolation_level=None) as connection:
        await prepare(connection, file, "home-1", migrations or MIGRATIONS)


def names(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


async def test_an_older_database_is_brought_forward_with_its_rows_and_new_views(file: Path) -> None:
    """A later version adds a column, and its views are those of today."""
    await prepared(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO videos (recording, state) VALUES ('r0', 'available')")
        connection.execute("DROP VIEW episode_videos")
        connection.execute("CREATE VIEW episode_videos AS SELECT 1 AS stale")
    await prepared(file, *MIGRATIONS, ("ALTER TABLE videos ADD COLUMN mood TEXT", "UPDATE videos SET mood = 'fine'"))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT recording, mood FROM videos").fetchall() == [("r0", "fine")]
        assert connection.execute("SELECT home, seq FROM cursor").fetchall() == [("home-1", 0)]
        columns = [row[0] for row in connection.execute("SELECT * FROM episode_videos").description]
    assert "stale" not in columns


async def test_a_migration_that_fails_leaves_the_older_version(file: Path) -> None:
    await prepared(file)
    with pytest.raises(sqlite3.OperationalError):
        await prepared(file, *MIGRATIONS, ("CREATE TABLE half (x)", "a mistake"))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "half" not in names(file)
    assert set(VIEWS) <= names(file)


async def test_a_newer_database_is_refused_and_unchanged(file: Path) -> None:
    await prepared(file, *MIGRATIONS, ("CREATE TABLE tomorrow (x)",))
    before = file.read_bytes()
    newer = f"schema version {len(MIGRATIONS) + 1}.*newer Stepreel"
    with pytest.raises(Refused, match=newer):
        await prepared(file)
    with pytest.raises(Refused, match=newer):
        refuse_header(file)
    assert file.read_bytes() == before


async def test_a_database_of_another_program_is_refused_and_unchanged(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = file.read_bytes()
    with pytest.raises(Refused, match="another program"):
        await prepared(file)
    assert file.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_unchanged(file: Path) -> None:
    file.write_text("my thesis\n" * 100)
    with pytest.raises(Refused, match="not a database"):
        await prepared(file)
    with pytest.raises(Refused, match="not a database"):
        refuse_header(file)
    assert file.read_text() == "my thesis\n" * 100


async def test_an_empty_file_becomes_a_database(file: Path) -> None:
    file.touch()
    refuse_header(file)
    await prepared(file)
    refuse_header(file)
    assert {"sessions", "workers", "episodes", "steps", "videos", "cursor"} <= names(file)
