"""Videos: what became of a recording, in words and as the page gets it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from plugins.viewer.files import may_be_shown

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from pathlib import Path

COLUMNS = (
    "id, recording, session, worker, state, path, first_episode, last_episode, frames, fps, width, height, seconds, "
    "size_bytes, codec, pinned, pinned_by, kept_for, complete, incomplete_because, available, thumbnail, sha256, "
    "policy, reason, asked_by, ended, chunks"
)
TILES = 10
"""Pictures in a strip."""

STATES = {"sealed": "encoding"}
"""What the page calls a state where it is not the table's word for it."""


class Place(NamedTuple):
    """Where this home's files are, and whether a kernel runs that makes more of them."""

    home: Path
    folders: Sequence[Path]
    kernel: bool


def text_of(place: Place, video: dict[str, Any]) -> str:
    """A few words for the user on why there is no video to be played; empty where there is one."""
    state, reason = video["state"], video["reason"] or ""
    if state == "available":
        shown = video["path"] is not None and may_be_shown(place.home, place.folders, str(video["path"]))
        return "" if shown else "outside of the folders that the viewer may show"
    if state == "recording":
        return "recording" if place.kernel else "was not sealed; the next kernel finishes it"
    if state == "sealed":
        if not place.kernel:
            return "not encoded yet; the next kernel does it"
        percent = encoded_percent(place.home, str(video["recording"]), video["chunks"])
        return "encoding" if percent is None else f"encoding {percent} %"
    if state == "pruned":
        by = f" (asked by {video['asked_by']})" if video["asked_by"] else ""
        return f"pruned on {_day(video['ended'])}: {reason or video['policy'] or ''}{by}"
    if state == "discarded":
        return f"discarded by the keep policy: {reason}"
    return f"failed: {reason}"


def encoded_percent(home: Path, recording: str, chunks: Any) -> int | None:
    """How much of a sealed recording is encoded, by its segments; None where that is not known."""
    if "/" in recording or recording.startswith(".") or "\0" in recording or not isinstance(chunks, int) or chunks < 2:
        return None
    folder = home / "spool" / recording.rpartition("-")[0] / recording
    try:
        segments = sum(1 for name in folder.glob("[0-9]*.mp4"))
    except OSError:
        return None
    return min(100, 100 * segments // chunks)


def urls_of(video: dict[str, Any]) -> dict[str, str | None]:
    """Thumbnail and strip: named by the video's own hash, and so never changed."""
    if video["state"] != "available":
        return {"thumbnail": None, "strip": None}
    name = f"{video['id']}-{hash_of(video)}.jpg"
    return {
        "thumbnail": f"/api/thumbnails/{name}" if video["thumbnail"] else None,
        "strip": f"/api/strips/{name}",
    }


def hash_of(video: dict[str, Any]) -> str:
    """The first characters of the video's hash, as far as they are one."""
    return "".join(character for character in str(video["sha256"] or "")[:16] if character in "0123456789abcdef")


def as_seen(place: Place, video: dict[str, Any]) -> dict[str, Any]:
    """A row of `videos` as the page gets it."""
    state, text = video["state"], text_of(place, video)
    playable = state == "available" and not text
    return {
        "id": video["id"],
        "recording": video["recording"],
        "session": video["session"],
        "worker": video["worker"],
        "state": STATES.get(state, state),
        "text": text,
        **{
            name: video[name]
            for name in ("first_episode", "last_episode", "frames", "fps", "width", "height", "seconds", "codec")
        },
        "bytes": video["size_bytes"],
        "pinned": bool(video["pinned"]),
        "pinned_by": video["pinned_by"] or "",
        "kept_for": json_or(video["kept_for"], []),
        "complete": None if video["complete"] is None else bool(video["complete"]),
        "incomplete_because": video["incomplete_because"] or "",
        "available": video["available"],
        **urls_of(video),
        "file": f"/api/videos/{video['id']}/file" if playable else None,
        "download": f"/api/videos/{video['id']}/file?download=1" if playable else None,
    }


def video_rows(connection: sqlite3.Connection, where: str, values: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows of `videos`, oldest first; `where` is ours, and the values are bound."""
    names = COLUMNS.split(", ")
    rows = connection.execute(f"SELECT {COLUMNS} FROM videos WHERE {where} ORDER BY id", tuple(values))  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in rows]


def video_row(connection: sqlite3.Connection, number: int) -> dict[str, Any] | None:
    """The row with this id."""
    rows = video_rows(connection, "id = ?", (number,))
    return rows[0] if rows else None


def json_or(text: Any, otherwise: Any) -> Any:
    """What a JSON column says; something else where that is null or no JSON."""
    if not isinstance(text, str | bytes):
        return otherwise
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise


def _day(seconds: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.localtime(float(seconds)))
    except (TypeError, ValueError, OverflowError, OSError):
        return "an unknown day"
