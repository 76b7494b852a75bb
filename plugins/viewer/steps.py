"""Steps: what happened in an episode, as columns of numbers; read from the tables once, and kept for a while.

What a step says as JSON (action, observation, info) becomes a series for each number in it, under its dotted name:
`action`, `observation.2`, `info.reward_terms.forward`.
"""

# ruff: noqa: S608 - the statements are put together from our own words; what a user asks for is bound

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from plugins.viewer.answers import Wrong
from plugins.viewer.columns import joined, pack, thin
from plugins.viewer.videos import json_or

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from plugins.viewer.ids import EpisodeId

    Column = NDArray[Any]

KEPT_BYTES = 256 * 1024 * 1024
"""Of decoded episodes, together."""
EPISODE_BYTES = 128 * 1024 * 1024
"""Of one episode's series of one field; further series of it are left out."""
MOST_NONFINITE = 1000
FIELDS = ("action", "observation", "info")
PLAIN = ("step", "frame", "video", "frames", "terminated", "truncated", "time", "step_seconds", "reward", "return")
TERMS = re.compile(r"info\.(rew(ard)?_.+|(.+\.)?(reward(s|_terms|_components)?|rew(s|_terms)?)\..+)")
"""Parts of a reward that an environment tells in its info."""
NOT_A_TERM = re.compile(r"info\.(.+\.)?(reward_(total|sum)|total_reward)$")

_WORDS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


class Key(NamedTuple):
    """Where an episode's steps are, and what they were like when they were read."""

    session_id: int
    worker: int
    episode: int
    agent: str
    rows: int
    last_seq: int
    videos: str
    """The state of the videos that show it: a step may lose its frame when its recording is sealed."""


class Nonfinite(msgspec.Struct, frozen=True):
    """A number that JSON cannot say."""

    step: int
    name: str
    value: str


class Steps:
    """An episode's steps, in columns of equal length, one entry a step of one agent."""

    def __init__(self, key: Key, plain: dict[str, Column], nonfinite: list[tuple[int, dict[str, str]]]) -> None:
        self.key = key
        self.plain = plain
        self.fields: dict[str, dict[str, Column]] = {}
        """The series of each JSON field that was asked for."""
        self._nonfinite = nonfinite
        """Which row has which, as the table says it."""

    @property
    def size_bytes(self) -> int:
        """Of all arrays."""
        series = [column for field in self.fields.values() for column in field.values()]
        return sum(column.nbytes for column in (*self.plain.values(), *series))

    def nonfinite(self, first: int, last: int) -> list[Nonfinite]:
        """Those of the steps of a range, up to a bound."""
        steps = self.plain["step"]
        found = (
            Nonfinite(int(steps[row]), name, word)
            for row, words in self._nonfinite
            if first <= steps[row] <= last
            for name, word in words.items()
        )
        return [each for each, _ in zip(found, range(MOST_NONFINITE), strict=False)]

    def add_field(self, field: str, texts: Sequence[bytes | None]) -> None:
        """Take the JSON of one field in."""
        series = series_of(field, texts)
        for row, words in self._nonfinite:
            for name, word in words.items():
                if name in series and word in _WORDS:
                    series[name][row] = _WORDS[word]
        self.fields[field] = series


class Library:
    """The episodes that were read last. Threads may ask side by side."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Steps] = OrderedDict()
        self._reading = threading.Lock()
        """Held by who reads, so that a page's questions about one episode, which come together, read it once."""

    def steps(self, connection: sqlite3.Connection, episode: EpisodeId, fields: Sequence[str]) -> Steps:
        """An episode's steps, with these of its JSON fields. Raises `Wrong` where there is no such episode."""
        key = _key(connection, episode)
        with self._reading:
            return self._steps(connection, key, fields)

    def _steps(self, connection: sqlite3.Connection, key: Key, fields: Sequence[str]) -> Steps:
        steps = self._kept.get(key)
        if steps is None:
            steps = self._kept[key] = _read(connection, key)
        for field in fields:
            if field not in steps.fields:
                steps.add_field(field, _texts(connection, key, field))
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.size_bytes for each in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return steps


class Wanted(NamedTuple):
    """Which columns of which steps, and how many points at most."""

    names: list[str]
    first: int
    last: int
    points: int
    """0: all."""


def packed(library: Library, connection: sqlite3.Connection, episode: EpisodeId, wanted: Wanted) -> bytes:
    """Columns of an episode's steps, as `columns.pack` makes them. Raises `Wrong` for a name that there is not."""
    fields = {name.partition(".")[0] for name in wanted.names} & set(FIELDS)
    steps = library.steps(connection, episode, sorted(fields))
    known = {**steps.plain, **{name: column for field in fields for name, column in steps.fields[field].items()}}
    if unknown := [name for name in wanted.names if name not in known]:
        raise Wrong(404, f"columns: this episode has no {unknown[0]}")
    numbers = steps.plain["step"]
    start, end = np.searchsorted(numbers, [wanted.first, wanted.last + 1])
    columns = {name: known[name][start:end] for name in dict.fromkeys(wanted.names)}
    rows = int(end - start)
    sampled = 0 < wanted.points < rows
    if sampled:
        columns = thin(columns, wanted.points)
    about = {
        "rows": len(next(iter(columns.values()))) if columns else 0,
        "total": len(numbers),
        "from": int(numbers[start]) if rows else 0,
        "to": int(numbers[end - 1]) if rows else 0,
        "sampled": sampled,
        "nonfinite": steps.nonfinite(wanted.first, wanted.last),
    }
    return pack(columns, about)


def described(library: Library, connection: sqlite3.Connection, episode: EpisodeId) -> dict[str, Any]:
    """All series of an episode, with their bounds."""
    steps = library.steps(connection, episode, FIELDS)
    numbers = steps.plain["step"]
    names = ("reward", "return", "step_seconds")
    series = {name: steps.plain[name] for name in names}
    for field in FIELDS:
        series |= steps.fields[field]
    return {
        "rows": len(numbers),
        "first_step": int(numbers[0]) if len(numbers) else 0,
        "last_step": int(numbers[-1]) if len(numbers) else 0,
        "series": [_about(name, column) for name, column in series.items()],
        "nonfinite": steps.nonfinite(0, 2**62),
    }


ROW = (
    *("step", "action", "reward", "terminated", "truncated", "observation", "info", "frame", "video", "time"),
    *("step_seconds", "nonfinite"),
)


def rows(connection: sqlite3.Connection, episode: EpisodeId, first: int, last: int, limit: int) -> list[dict[str, Any]]:
    """Steps as the table has them, from `first` to `last`."""
    found = connection.execute(
        f"""
        SELECT step, action, reward, terminated, truncated, observation, info, frame, video_id, time, step_seconds,
               nonfinite
        FROM steps WHERE {_OF_EPISODE} AND step BETWEEN ? AND ? ORDER BY step, seq LIMIT ?
        """,
        (_session_id(connection, episode), *episode[1:], first, last, limit),
    )
    return [_row(row) for row in found]


def series_of(field: str, texts: Sequence[bytes | None]) -> dict[str, Column]:
    """The series in a JSON field of many steps: a column for each number, NaN where a step has none."""
    try:
        values = joined(texts)
    except (msgspec.DecodeError, RecursionError):  # somebody else wrote this table
        values = [json_or(text, None) for text in texts]
    room = max(1, EPISODE_BYTES // max(1, 8 * len(values)))
    quick = _alike(field, values)
    if quick is not None:
        return dict(list(quick.items())[:room])
    series: dict[str, Column] = {}
    for row, value in enumerate(values):
        for name, number in _numbers(field, value):
            column = series.get(name)
            if column is None:
                if len(series) >= room:
                    continue
                column = series[name] = np.full(len(values), np.nan)
            column[row] = number
    return series


# Reading ---------------------------------------------------------------------------------------------------------

_OF_EPISODE = "session_id = ? AND worker = ? AND episode = ? AND agent = ?"


def _session_id(connection: sqlite3.Connection, episode: EpisodeId) -> int:
    row = connection.execute("SELECT id FROM sessions WHERE session = ?", (episode.session,)).fetchone()
    if row is None:
        raise Wrong(404, "there is no such episode in the tables")
    return int(row[0])


def count(connection: sqlite3.Connection, episode: EpisodeId) -> int:
    """How many steps there are."""
    where = (_session_id(connection, episode), *episode[1:])
    (rows,) = connection.execute(f"SELECT count(*) FROM steps WHERE {_OF_EPISODE}", where).fetchone()
    return int(rows)


def _key(connection: sqlite3.Connection, episode: EpisodeId) -> Key:
    where = (_session_id(connection, episode), *episode[1:])
    rows, last_seq = connection.execute(
        f"SELECT count(*), coalesce(max(seq), 0) FROM steps WHERE {_OF_EPISODE}", where
    ).fetchone()
    known = connection.execute(
        """
        SELECT (SELECT count(*) FROM episodes WHERE (session, worker, episode, agent) = (?1, ?2, ?3, ?4)),
               (SELECT group_concat(id || state) FROM shown_episodes JOIN videos USING (recording)
                WHERE shown_episodes.session = ?1 AND shown_episodes.worker = ?2 AND episode = ?3)
        """,
        tuple(episode),
    ).fetchone()
    if not rows and not known[0]:
        raise Wrong(404, "there is no such episode in the tables")
    return Key(where[0], *episode[1:], rows, last_seq, str(known[1]))


def _read(connection: sqlite3.Connection, key: Key) -> Steps:
    with _bytes_for_text(connection):
        found = connection.execute(
            f"""
            SELECT step, coalesce(frame, -1), CASE WHEN frame IS NULL THEN -1 ELSE coalesce(video_id, -1) END, frames,
                   terminated, truncated, time, step_seconds, reward, nonfinite
            FROM steps WHERE {_OF_EPISODE} AND seq <= ? ORDER BY step, seq
            """,
            (*key[:4], key.last_seq),
        ).fetchall()
    columns = list(zip(*found, strict=True)) or [()] * 10
    kinds = ("i4", "i4", "i4", "i4", "u1", "u1", "f8", "f8", "f8")
    try:
        plain = {
            name: np.array(values, dtype=kind) for name, values, kind in zip(PLAIN[:9], columns[:9], kinds, strict=True)
        }
    except (TypeError, ValueError, OverflowError):
        raise Wrong(503, "the steps of this episode are not what a sink writes") from None
    nonfinite = [(row, _words(text)) for row, text in enumerate(columns[9]) if text is not None]
    for row, words in nonfinite:
        plain["reward"][row] = _WORDS.get(words.get("reward", ""), plain["reward"][row])
    finite = np.where(np.isfinite(plain["reward"]), plain["reward"], 0.0)
    plain["return"] = np.cumsum(finite)
    return Steps(key, plain, nonfinite)


def _words(text: Any) -> dict[str, str]:
    words = json_or(text, {})
    return {str(name): str(word) for name, word in words.items()} if isinstance(words, dict) else {}


def _texts(connection: sqlite3.Connection, key: Key, field: str) -> list[bytes | None]:
    with _bytes_for_text(connection):
        found = connection.execute(
            f"SELECT {field} FROM steps WHERE {_OF_EPISODE} AND seq <= ? ORDER BY step, seq", (*key[:4], key.last_seq)
        ).fetchall()
    return [text if text is None or isinstance(text, bytes) else b"null" for (text,) in found]


class _bytes_for_text:  # noqa: N801 - it is used as a function is
    """Within: text comes as the bytes that it is."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._before = connection.text_factory

    def __enter__(self) -> None:
        self._connection.text_factory = bytes

    def __exit__(self, *_: object) -> None:
        self._connection.text_factory = self._before


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(ROW, row, strict=True))
    for name in FIELDS:
        values[name] = json_or(values[name], None)
    values["nonfinite"] = _words(values["nonfinite"])
    values["terminated"], values["truncated"] = bool(values["terminated"]), bool(values["truncated"])
    return values


# Series ----------------------------------------------------------------------------------------------------------


def _alike(field: str, values: list[Any]) -> dict[str, Column] | None:
    """The series of values that are all numbers, or all lists of as many numbers; None for any other."""
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        try:
            return {field: np.array([float(value) for value in values])} if values else {}
        except OverflowError:  # an integer of hundreds of digits
            return None
    if kinds != {list}:
        return None
    try:
        table = np.array(values, dtype=np.float64)  # a ragged one raises; a null becomes NaN
    except (TypeError, ValueError, OverflowError):
        return None
    if table.ndim != 2 or not all(type(each) in _PLAIN_NUMBERS for each in values[0]):
        return None
    return {f"{field}.{place}": np.ascontiguousarray(table[:, place]) for place in range(table.shape[1])}


_PLAIN_NUMBERS = (int, float, type(None))


def _numbers(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, float]]:
    """Each number in a value, with its dotted name; true is 1."""
    if isinstance(value, int | float):  # a bool is an int
        try:
            yield name, float(value)
        except OverflowError:
            return
    elif depth > 8:
        return
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _numbers(f"{name}.{place}", each, depth + 1)
    elif isinstance(value, dict):
        # What stands for a large array: its bounds are worth a series, its shape is not.
        summary = {"shape", "dtype"} <= value.keys()
        for key, each in value.items():
            if not (summary and key in ("shape", "dtype")):
                yield from _numbers(f"{name}.{key}", each, depth + 1)


def _about(name: str, column: Column) -> dict[str, Any]:
    finite = column[np.isfinite(column)]
    return {
        "name": name,
        "group": _group(name),
        "label": name.partition(".")[2] or name,
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "finite": len(finite),
        "nonfinite": int(np.isinf(column).sum()),
    }


def _group(name: str) -> str:
    field = name.partition(".")[0]
    if field == "info":
        return "terms" if TERMS.fullmatch(name) and not NOT_A_TERM.fullmatch(name) else "info"
    return {"reward": "reward", "return": "reward", "step_seconds": "timing"}.get(field, field)
