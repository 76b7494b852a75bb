"""Exports: all steps of an episode as a file, made while it is sent."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import msgspec

from plugins.viewer import steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plugins.viewer.ids import EpisodeId
    from plugins.viewer.steps import Library
    from plugins.viewer.tables import Tables

ROWS_AT_ONCE = 2000


async def as_json(tables: Tables, episode: EpisodeId) -> AsyncIterator[bytes]:
    """A JSON array, one step a line."""
    before = b"["
    async for part in _parts(tables, episode):
        yield before + b"\n" + b",\n".join(map(_encode, part))
        before = b","
    yield b"]\n" if before == b"," else b"[]\n"


async def as_csv(tables: Tables, library: Library, episode: EpisodeId) -> AsyncIterator[bytes]:
    """A column for what every step has, and for each series; text that is no number is left to the JSON."""
    read = await tables.ask(lambda connection: library.steps(connection, episode, steps.FIELDS))
    columns = dict(read.plain)
    for field in steps.FIELDS:
        columns |= read.fields[field]
    rows = len(columns["step"])
    yield _lines([list(columns)])
    for start in range(0, rows, ROWS_AT_ONCE):
        part = [column[start : start + ROWS_AT_ONCE].tolist() for column in columns.values()]
        yield _lines([[_cell(value) for value in row] for row in zip(*part, strict=True)])


async def _parts(tables: Tables, episode: EpisodeId) -> AsyncIterator[list[dict[str, Any]]]:
    first = 0
    while True:
        part = await tables.ask(steps.rows, episode, first, 2**62, ROWS_AT_ONCE)
        if part:
            yield part
        if len(part) < ROWS_AT_ONCE:
            return
        first = part[-1]["step"] + 1


def _lines(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return "" if value != value else value  # noqa: PLR0124 - NaN: the step has no such value


_encode = msgspec.json.Encoder().encode
