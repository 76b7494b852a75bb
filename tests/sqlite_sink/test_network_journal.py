"""Tables on a network file system: no shared memory is needed, and others can read them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import plugins.sqlite_sink.sink
from kernel.testing import running
from plugins.events import WorkerStarted
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SINK = {"sqlite": (SqliteSink, SqliteSinkOptions())}


def started(worker: int) -> WorkerStarted:
    return WorkerStarted(session="s", worker=worker, pid=1, env_id="E")


def ask(home: Path, sql: str) -> object:
    with closing(sqlite3.connect(f"file:{home / 'stepreel.sqlite'}?mode=ro", uri=True, timeout=0)) as connection:
        (answer,) = connection.execute(sql).fetchone()
        return answer


@pytest.mark.parametrize("before", [None, "wal"])
async def test_tables_on_a_network_have_no_write_ahead_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before == "wal":
        async with running(home, SINK) as kernel:
            await kernel.publish(started(0))
            await kernel.settle()
        assert (home / "stepreel.sqlite").read_bytes()[18] == 2, "as the file format has it, it has one"
    monkeypatch.setattr(plugins.sqlite_sink.sink, "on_network", lambda _: "nfs4")
    async with running(home, SINK) as kernel:
        assert ask(home, "PRAGMA journal_mode") == "delete", "it can be read from the start"
        await kernel.publish(started(1))
        await kernel.settle()
        assert ask(home, "SELECT max(worker) FROM workers") == 1, "and between two batches"
        assert not list(home.glob("stepreel.sqlite-*"))
        connection = kernel.plugins["sqlite"]._connection  # type: ignore[attr-defined]  # what it does with its disk
        async with connection.execute("PRAGMA synchronous") as rows:
            assert await rows.fetchone() == (2,)


async def test_tables_on_a_local_disk_have_one(home: Path) -> None:
    async with running(home, SINK) as kernel:
        await kernel.publish(started(0))
        await kernel.settle()
        assert ask(home, "PRAGMA journal_mode") == "wal"
