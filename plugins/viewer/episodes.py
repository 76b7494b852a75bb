"""Episodes: the table that the page shows, filtered, sorted and cut to a window by SQLite."""

# ruff: noqa: S608 - the statements are put together from our own words; what a user asks for is bound

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from plugins.viewer.answers import Wrong, whole_number
from plugins.viewer.ids import EpisodeId
from plugins.viewer.videos import STATES, Place, as_seen, json_or, text_of, urls_of, video_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

MOST_ROWS = 10_000
SAME_SEED = 20

# The video of an episode: the first of those that stand and show some of it, else the first that was to.
_VIDEO = """
    LEFT JOIN videos v ON v.id = (
        SELECT id FROM shown_episodes s JOIN videos USING (recording)
        WHERE s.session = e.session AND s.worker = e.worker AND s.episode = e.episode
        ORDER BY state = 'available' DESC, id LIMIT 1
    )
    """
_STATE = """
    CASE WHEN v.state = 'sealed' THEN 'encoding' WHEN v.state IS NOT NULL THEN v.state
    WHEN e.captured AND e.outcome IS NULL THEN 'recording' ELSE 'not_captured' END
    """

SORTS = {
    "started": "e.started",
    "ended": "e.ended",
    "return": "e.total_reward",
    "length": "e.steps",
    "seconds": "e.seconds",
    "env": "e.env_id",
    "worker": "e.worker",
    "episode": "e.episode",
    "outcome": "e.outcome",
    "session": "e.session",
    "success": "e.success",
    "size": "v.size_bytes",
}

_COLUMNS = {
    "session": "e.session",
    "label": "e.label",
    "env": "e.env_id",
    "agent": "e.agent",
    "worker": "e.worker",
    "episode": "e.episode",
    "seed": "e.seed",
    "started": "e.started",
    "ended": "e.ended",
    "seconds": "e.seconds",
    "return": "e.total_reward",
    "length": "e.steps",
    "outcome": "e.outcome",
    "success": "e.success",
    "evaluation": "e.evaluation",
    "capture": "e.capture",
    "captured": "e.captured",
    "video": "v.id",
    "video_state": _STATE,
    "video_bytes": "v.size_bytes",
    "video_seconds": "v.seconds",
    "fps": "v.fps",
    "pinned": "v.pinned",
    # What the words about a video are made of; not handed on.
    "id": "v.id",
    "state": "v.state",
    "path": "v.path",
    "recording": "v.recording",
    "chunks": "v.chunks",
    "thumbnail": "v.thumbnail",
    "sha256": "v.sha256",
    "policy": "v.policy",
    "reason": "v.reason",
    "asked_by": "v.asked_by",
    "video_ended": "v.ended",
}
_BOOLEANS = ("success", "evaluation", "pinned")
SHOWN = (
    *("id", "session", "label", "env", "agent", "worker", "episode", "seed", "started", "ended", "seconds", "return"),
    *("length", "outcome", "success", "evaluation", "capture", "video", "video_state", "video_text", "video_bytes"),
    *("video_seconds", "fps", "pinned", "thumbnail", "strip"),
)
"""The columns that the page gets."""


class Wish(NamedTuple):
    """Which episodes are asked for, in which order."""

    where: str
    values: list[Any]
    order: str
    needs_video: bool
    """The filter or the order looks at the video."""


def wish_of(request: Request) -> Wish:
    """What a request's parameters ask for. Raises `Wrong` where one makes no sense."""
    query = request.query_params
    conditions: list[str] = []
    values: list[Any] = []
    for name, of in (("session", "e.session"), ("env", "e.env_id"), ("agent", "e.agent"), ("outcome", "e.outcome")):
        _any_of(query.getlist(name), of, conditions, values)
    _any_of([_number("worker", text) for text in query.getlist("worker")], "e.worker", conditions, values)
    states = query.getlist("video")
    _any_of(states, f"({_STATE})", conditions, values)
    pinned = _flag(query, "pinned")
    if pinned is not None:
        conditions.append("coalesce(v.pinned AND v.state = 'available', 0) = ?")
        values.append(pinned)
    for name in ("evaluation", "success"):
        flag = _flag(query, name)
        if flag is not None:
            conditions.append(f"e.{name} = ?")
            values.append(flag)
    failed = _flag(query, "failed")
    if failed is not None:
        conditions.append("(coalesce(e.success = 0, 0) OR coalesce(e.outcome = 'aborted', 0)) = ?")
        values.append(failed)
    if text := query.get("q"):
        columns = ("e.session", "x.label", "e.env_id", "e.seed", "e.agent")
        conditions.append("(" + " OR ".join(f"instr(lower({column}), lower(?))" for column in columns) + ")")
        values += [text] * len(columns)
    sort = query.get("sort", "-started")
    column = SORTS.get(sort.removeprefix("-"))
    if column is None:
        raise Wrong(400, f"sort: must be one of {', '.join(SORTS)}, with or without a - in front")
    direction = "DESC" if sort.startswith("-") else "ASC"
    order = f"{column} IS NULL, {column} {direction}, e.session {direction}, e.episode {direction}, e.worker, e.agent"
    needs_video = bool(states) or pinned is not None or column.startswith("v.")
    return Wish(" AND ".join(conditions) or "1", values, order, needs_video)


def window(connection: sqlite3.Connection, place: Place, request: Request, wish: Wish) -> dict[str, Any]:
    """A window into the wished episodes."""
    offset, limit = whole_number(request, "offset", 0), whole_number(request, "limit", 500, most=MOST_ROWS)
    as_of = _time(request.query_params.get("as_of"))
    video = _VIDEO if wish.needs_video else ""
    source = f"FROM episodes e JOIN sessions x USING (session) {video} WHERE {wish.where}"
    if as_of is None:
        (as_of,) = connection.execute("SELECT max(started) FROM episodes").fetchone()
        as_of = as_of if isinstance(as_of, int | float) else time.time()
    (total,) = connection.execute(f"SELECT count(*) {source} AND {_UP_TO}", (*wish.values, as_of)).fetchone()
    (whole,) = connection.execute(f"SELECT count(*) {source}", wish.values).fetchone()
    rows = connection.execute(
        f"""
        WITH page AS (
            SELECT e.*, x.label AS label {source} AND {_UP_TO} ORDER BY {wish.order} LIMIT ? OFFSET ?
        )
        SELECT {", ".join(f"{sql} AS {name!r}" for name, sql in _COLUMNS.items())}
        FROM page e {_VIDEO} ORDER BY {wish.order}
        """,
        (*wish.values, as_of, limit, offset),
    )
    shown = [_as_seen(place, dict(zip(_COLUMNS, row, strict=True))) for row in rows]
    columns = {name: [row[name] for row in shown] for name in SHOWN}
    return {"total": total, "newer": whole - total, "as_of": as_of, "offset": offset, "columns": columns}


def marks(connection: sqlite3.Connection, wish: Wish) -> dict[str, str | None]:
    """The best, worst, longest, latest and last failed of the wished episodes."""
    video = _VIDEO if wish.needs_video else ""
    found: dict[str, str | None] = {}
    for name, condition, order in (
        ("best", "e.total_reward IS NOT NULL", "e.total_reward DESC, e.started"),
        ("worst", "e.total_reward IS NOT NULL", "e.total_reward, e.started"),
        ("longest", "e.steps IS NOT NULL", "e.steps DESC, e.started"),
        ("latest", "e.outcome IS NOT NULL", "e.ended DESC"),
        ("failed", "(e.success = 0 OR e.outcome = 'aborted')", "e.ended DESC"),
    ):
        row = connection.execute(
            f"""
            SELECT e.session, e.worker, e.episode, e.agent FROM episodes e JOIN sessions x USING (session) {video}
            WHERE {wish.where} AND {condition} ORDER BY {order} LIMIT 1
            """,
            wish.values,
        ).fetchone()
        found[name] = None if row is None else str(EpisodeId(*row))
    return found


def one(connection: sqlite3.Connection, place: Place, episode: EpisodeId) -> dict[str, Any]:
    """All about one episode. Raises `Wrong` where there is none."""
    key = tuple(episode)
    extra = (
        *("reset_observation", "reset_info", "reset_nonfinite", "nonfinite", "env_steps", "training_step"),
        *("first_frame", "recording"),
    )
    row = connection.execute(
        f"""
        SELECT {", ".join(_COLUMNS.values())}, {", ".join(f"e.{name}" for name in extra)}, x.outcome, x.id
        FROM (SELECT e.*, x.label AS label FROM episodes e JOIN sessions x USING (session)
              WHERE (e.session, e.worker, e.episode, e.agent) = (?, ?, ?, ?)) e
        JOIN sessions x USING (session) {_VIDEO}
        """,
        key,
    ).fetchone()
    if row is None:
        raise Wrong(404, "there is no such episode in the tables")
    values = dict(zip((*_COLUMNS, *(f"its_{name}" for name in extra), "session_outcome", "number"), row, strict=True))
    shown_in = connection.execute(
        "SELECT recording FROM shown_episodes WHERE (session, worker, episode) = (?, ?, ?)", key[:3]
    ).fetchall()
    own = values["its_recording"]
    recordings = {recording for (recording,) in shown_in} | ({own} if own else set())
    videos = [
        as_seen(place, video)
        for video in video_rows(connection, f"recording IN ({_marks(len(recordings))})", sorted(recordings))
    ]
    main = next((video for video in videos if video["id"] == values["video"]), None)
    first_frame = values["its_first_frame"] if main is not None and main["recording"] == own else None
    (steps,) = connection.execute(
        "SELECT count(*) FROM steps WHERE session_id = ? AND worker = ? AND episode = ? AND agent = ?",
        (values["number"], *key[1:]),
    ).fetchone()
    (seq,) = connection.execute("SELECT max(seq) FROM cursor").fetchone()
    seen = {name: value for name, value in _as_seen(place, values).items() if name in SHOWN}
    return {
        **seen,
        "seq": seq,
        "running": values["outcome"] is None and values["session_outcome"] is None,
        "steps": steps,
        "first_frame": first_frame,
        **{name: json_or(values[f"its_{name}"], None) for name in extra[:4]},
        "env_steps": values["its_env_steps"],
        "training_step": values["its_training_step"],
        "videos": videos,
        "agents": [
            {"agent": agent, "id": str(episode._replace(agent=agent))}
            for (agent,) in connection.execute(
                "SELECT agent FROM episodes WHERE (session, worker, episode) = (?, ?, ?) ORDER BY agent", key[:3]
            )
        ],
        **dict(_neighbours(connection, episode)),
        "same_seed": _same_seed(connection, episode, values["env"], values["seed"]),
    }


def _neighbours(connection: sqlite3.Connection, episode: EpisodeId) -> Iterator[tuple[str, str | None]]:
    session, worker, number, agent = episode
    for name, condition, order in (
        ("previous", "(episode, worker) < (:episode, :worker)", "episode DESC, worker DESC"),
        ("next", "(episode, worker) > (:episode, :worker)", "episode, worker"),
        ("best", "total_reward IS NOT NULL", "total_reward DESC, started"),
        ("worst", "total_reward IS NOT NULL", "total_reward, started"),
    ):
        row = connection.execute(
            f"""
            SELECT session, worker, episode, agent FROM episodes
            WHERE session = :session AND agent = :agent AND {condition} ORDER BY {order} LIMIT 1
            """,
            {"session": session, "worker": worker, "episode": number, "agent": agent},
        ).fetchone()
        yield name, None if row is None else str(EpisodeId(*row))


def _same_seed(connection: sqlite3.Connection, episode: EpisodeId, env: Any, seed: Any) -> list[dict[str, Any]]:
    if seed is None:
        return []
    rows = connection.execute(
        """
        SELECT e.session, e.worker, e.episode, e.agent, x.label, e.total_reward
        FROM episodes e JOIN sessions x USING (session)
        WHERE e.seed = ? AND e.env_id = ? AND e.agent = ? AND e.session != ? ORDER BY e.started DESC LIMIT ?
        """,
        (seed, env, episode.agent, episode.session, SAME_SEED),
    )
    return [
        {"id": str(EpisodeId(*row[:4])), "session": row[0], "label": row[4] or "", "return": row[5]} for row in rows
    ]


def _as_seen(place: Place, row: dict[str, Any]) -> dict[str, Any]:
    """A row with the page's words in it."""
    video = {**row, "ended": row["video_ended"]}
    if row["video"] is None:
        captured = row["video_state"] == "recording"
        row["video_text"] = "recording" if captured else f"not captured: {row['capture'] or 'unknown'}"
        row["thumbnail"] = row["strip"] = None
    else:
        row["video_text"] = text_of(place, video)
        row.update(urls_of(video))
    row["video_state"] = STATES.get(row["video_state"], row["video_state"])
    if row["video_state"] != "available":
        row["video_bytes"] = row["video_seconds"] = row["fps"] = None
        row["pinned"] = False
    for name in _BOOLEANS:
        row[name] = None if row[name] is None and name == "success" else bool(row[name])
    row["label"] = row["label"] or ""
    row["id"] = str(EpisodeId(row["session"], row["worker"], row["episode"], row["agent"]))
    return row


_UP_TO = "coalesce(e.started, 0) <= ?"


def _any_of(wanted: list[Any], column: str, conditions: list[str], values: list[Any]) -> None:
    if wanted:
        conditions.append(f"{column} IN ({_marks(len(wanted))})")
        values += wanted


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Wrong(400, f"{name}: must be a whole number")
    return int(text)


def _flag(query: QueryParams, name: str) -> bool | None:
    text = query.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise Wrong(400, f"{name}: must be true or false")
    return text == "true"


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise Wrong(400, "as_of: must be a time in seconds") from None
    return seconds
